"""The study of ablations: which labelled heads are necessary, which of those selective, and which suffice alone?

1. While the text is read, `HeadMeans` adds up what each head reads on average (discovery).
2. Afterwards the labels that earlier studies found are ablated, with controls (`effect.py`): on generated repeats and real text,
   and on prompts (`prompts.py`) where a label's kind asks for them. Nothing is run that no decision needs.
3. Findings are decided from the recorded ablations alone, so an atlas can be decided again.

A model whose materials cannot be made (no tokenizer, words of several tokens, weights that cannot be read) keeps its labels at
rung 1, with the reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from innerworks.errors import UnsupportedModel
from innerworks.findings import Finding
from innerworks.heads import ablation, prompts
from innerworks.heads.ablation import Ablations, Rotated, Trial
from innerworks.heads.bench import Bench, Without
from innerworks.heads.effect import Effort, climb
from innerworks.heads.harms import Head, harm_of
from innerworks.heads.labels import Label, chosen, labels_of, suspects_of
from innerworks.heads.means import HeadMeans, HeadReference, reference, reference_of
from innerworks.model import Model
from innerworks.model.observe import Instrument, State
from innerworks.model.prompts import batch_of
from innerworks.model.study import Given, Kept, Units
from innerworks.stats import Array

Recorded = dict[str, dict[str, Array]]  # set of heads -> metric -> values per unit
REMOVED = "removed"

#: kinds of which a claim asks whether a head is necessary, and whose material is read anyway
_CLAIMED = ("previous_token", "duplicate_token", "induction", "subword_joiner")

#: depth -> how much is ablated
EFFORTS: dict[str, Effort] = {
    "quick": Effort(
        candidates=10,
        shared_controls=True,
        joint=False,
        units={"random": 16, "text": 12},
        text_tokens=64,
        kinds=_CLAIMED,
    ),
    "standard": Effort(
        candidates=None,
        shared_controls=False,
        joint=True,
        units={"random": 12, "text": 14, "agreement": 14, "lists": 24},
        text_tokens=40,
        sufficiency=True,
    ),
    "full": Effort(
        candidates=None,
        shared_controls=False,
        joint=True,
        units={"random": 32, "text": 80, "agreement": 14, "lists": 128},
        text_tokens=256,
        sufficiency=True,
    ),
}


class AblationStudy:
    """Rungs 2 and 3 of every label that has them."""

    name = "ablations"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """What each head reads on average."""
        return [HeadMeans()]

    def measure(self, given: Given) -> Kept:
        """Ablate what the decisions need; goes on from `given.saved`."""
        effort, watchers = EFFORTS[given.depth], watchers_of(given.before)
        labels = chosen(labels_of(given.before), most=None, kinds=effort.kinds)
        units = {material: effort.units[material] for material in _wanted(labels, watchers, effort)}
        trial = ablation.trial(given.model, given.reading, units=units, text_tokens=effort.text_tokens, watchers=watchers)
        try:
            references = _references(given.model, given.states["head_means"], trial)
        except UnsupportedModel as error:
            absent = dict.fromkeys(effort.units, str(error))
            return Kept(about=_about({}, watchers, absent, effort, given.seed))
        removed = {material: one.removed.numpy(force=True) for material, one in references.items()}
        strata = {material: list(names) for material, names in trial.strata.items()}
        about = _about(strata, watchers, trial.absent, effort, given.seed)
        ablations = Ablations(given.model, trial, references, unpack(given.saved.arrays) if given.saved else {})

        def kept() -> Kept:
            return Kept(arrays={**pack(ablations.done), **pack({REMOVED: removed})}, about=about)

        def without(heads: Iterable[Head | Rotated], metric: str) -> Array:
            before, result = ablations.runs, ablations.without(heads, metric)
            if ablations.runs > before:
                given.save(kept())
                given.step(len(ablations.done), None, "sets of heads")
            return result

        climb(given.before, _bench(without, about, removed, given.before), effort, given.seed)
        return kept()

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """The findings so far with their rungs, and what the ablations came to."""
        about, done, removed = kept.about, unpack(kept.arrays), kept_removed(kept.arrays)
        watchers = [(layer, head) for layer, head in about["watchers"]]

        def without(heads: Iterable[Head | Rotated], metric: str) -> Array:
            return ablation.read_off(done[ablation.set_name(frozenset(heads))], metric, watchers)

        return climb(before, _bench(without, about, removed, before), Effort(**about["effort"]), about["seed"])


def watchers_of(findings: Sequence[Finding]) -> list[Head]:
    """The confirmed induction heads, whose match is recorded under ablations."""
    return [label.head for label in labels_of(findings) if label.behaviour == "induction"]


def _wanted(labels: Sequence[Label], watchers: Sequence[Head], effort: Effort) -> list[str]:
    """Materials that some label's harm is measured on, in the order of the effort."""
    needed = {one for label in labels for one in harm_of(label.behaviour, label.head[0], watchers).materials}
    return [material for material in effort.units if material in needed]


def _references(model: Model, state: State, trial: Trial) -> dict[str, HeadReference]:
    """Discovery means of every material: of the text that was read, and of prompts by a run of their own."""
    found = {material: reference(model, state, material) for material in ablation.MATERIALS}
    for material in trial.asked:
        chosen = [one for one in prompts.prompts(model, material) if one.half == "discovery"]
        batch, _, _ = batch_of(chosen, material)
        over = f"the prompts {material} of the discovery half, positions 1 and later"
        found[material] = reference_of(model, batch.tokens, batch.mask, over=over)
    return found


def _about(
    strata: Mapping[str, Sequence[str]], watchers: Sequence[Head], absent: Mapping[str, str], effort: Effort, seed: int
) -> dict[str, Any]:
    """What must be known about the recorded ablations, as plain data."""
    watched = [list(head) for head in watchers]
    return {"strata": strata, "watchers": watched, "absent": dict(absent), "effort": asdict(effort), "seed": seed}


def _bench(without: Without, about: Mapping[str, Any], removed: Mapping[str, Array], before: Sequence[Finding]) -> Bench:
    return Bench(
        without=without,
        strata=about["strata"],
        watchers=[(layer, head) for layer, head in about["watchers"]],
        suspects=suspects_of(before),
        removed=removed,
        absent=about["absent"],
    )


# --- as arrays ---------------------------------------------------------------------------------------------------


def pack(done: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Recorded ablations as named arrays: `L17H3/second_copy_loss`."""
    return {f"{name}/{metric}": values for name, metrics in done.items() for metric, values in metrics.items()}


def unpack(arrays: Mapping[str, np.ndarray]) -> Recorded:
    """Recorded ablations as they were."""
    done: Recorded = {}
    for key, values in arrays.items():
        name, metric = key.rsplit("/", 1)
        if name != REMOVED:
            done.setdefault(name, {})[metric] = values
    return done


def kept_removed(arrays: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """Norms of what ablations remove, by material."""
    return {name.removeprefix(f"{REMOVED}/"): one for name, one in arrays.items() if name.startswith(f"{REMOVED}/")}
