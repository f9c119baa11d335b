"""Skill neurons as a study of a scan: which single neurons tell what kind of text this is, and what is lost without them?

A skill is a domain of the reading (`skill:python`, `skill:french`, ...), told from all others. Every neuron is tried, read in two
ways: its mean over a document, and its activation at one late position. What tells best is chosen on discovery documents and
tested on confirmation documents (`predict.py`, `accuracy.py`). The best are then taken out together (`perturb.py`).

Wang et al. 2022, arXiv:2211.07349, find them for tasks, after prompt tuning, at the tuned tokens; here nothing is tuned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from innerworks.findings import Finding
from innerworks.model import Mean, Model
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units, units_of
from innerworks.neurons.groups import Group as Members
from innerworks.neurons.groups import matched_groups, output_norms, times_as_much
from innerworks.neurons.lacking import lacking
from innerworks.neurons.means import NeuronMeans, NeuronReference, neuron_reference, reference_of
from innerworks.neurons.skills import decide
from innerworks.neurons.skills.accuracy import best_by_chance, interval
from innerworks.neurons.skills.perturb import comparisons, harms, trial
from innerworks.neurons.skills.predict import Parts, Predictivity, predictivity
from innerworks.neurons.skills.watch import WAYS, SkillReadings, readings, watched
from innerworks.stats import CONSTANTS, Half
from innerworks.text import Reading
from innerworks.text.openings import LEAST_DOCUMENTS, LEAST_TOKENS, comparable, documents, openings
from innerworks.text.reading import BATCH, batch_of

HALVES: tuple[Half, Half] = ("discovery", "confirmation")
CANDIDATES = 20  # neurons of each skill and way of reading that are tested, the most predictive at choosing


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Perturbing. skills: of how many; sizes: of groups; elsewhere: documents of others; tokens: of each document.

    controlled: how many groups, those with most harm, are held against control groups.
    """

    skills: int
    sizes: tuple[int, ...]
    elsewhere: int
    tokens: int
    controlled: int


EFFORTS = {
    "standard": Effort(skills=3, sizes=(32,), elsewhere=9, tokens=48, controlled=1),
    "full": Effort(skills=1000, sizes=(8, 32), elsewhere=72, tokens=128, controlled=1000),
}


class Skills:
    """Which neurons tell the kind of a text?"""

    name = "neuron_skills"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """What every neuron does on each document, and the means that go in its place."""
        return [NeuronMeans(), SkillReadings()] if not lacking(model, weights=False) else []

    def measure(self, given: Given) -> Kept:
        """Choose and count, then perturb; goes on from `given.saved`."""
        if reason := lacking(given.model, weights=False):
            return Kept(about={"not measured": reason})
        batches = [documents(given.reading, half, tokens=LEAST_TOKENS) for half in HALVES]
        dealt = _Dealt.of(given.reading, watched(given.reading))
        domains = [domain for domain in comparable(*batches) if dealt.parts.can_tell(dealt.strata == domain)]
        if not domains:
            enough = f"{LEAST_DOCUMENTS} documents of {LEAST_TOKENS} tokens or more in each half"
            also = "and others beside it to learn from, to choose by and to confirm on"
            return Kept(about={"not measured": f"no kind of text has {enough}, {also}: there is nothing to tell apart"})
        kept, best = _choose(given, domains, dealt)
        kept = kept if given.saved is None else given.saved
        effort = EFFORTS.get(given.depth)
        if why := lacking(given.model):
            return replace(kept, about={**kept.about, "no neurons taken out": why})
        return kept if effort is None else _perturb(given, effort, domains, kept, best)

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Balanced accuracies of candidates, and what groups of them cost."""
        return [*before, *decide.findings(kept, units)]


@dataclass(frozen=True, kw_only=True)
class _Dealt:
    """Of each document that is watched: which kind it is, and what it does."""

    strata: np.ndarray
    parts: Parts

    @classmethod
    def of(cls, reading: Reading, places: Sequence[int]) -> "_Dealt":
        units = [reading.units[place] for place in places]
        parts = Parts.of([(unit.id, unit.stratum, unit.half) for unit in units])
        return cls(strata=np.array([unit.stratum for unit in units]), parts=parts)


@dataclass(frozen=True, kw_only=True)
class _Best:
    """Of one skill: its neurons, the most predictive first, and those beyond chance, which are nobody's controls."""

    ranked: Members
    suspects: frozenset[tuple[int, int]]
    apart: float


def _choose(given: Given, domains: Sequence[str], dealt: _Dealt) -> tuple[Kept, dict[str, _Best]]:
    """Which neurons are tested, how often each of them is right on the confirmation half, and what bounds all the others."""
    found = readings(given.states[SkillReadings.name])
    parts = dealt.parts
    size = given.model.anatomy.layers * given.model.anatomy.neurons
    rows, ceilings, counts, best = [], [], [], {}
    for number, domain in enumerate(domains):
        inside = dealt.strata == domain
        counts.append([int((parts.confirm & side).sum()) for side in (inside, ~inside)])
        least = best_by_chance(int((parts.choose & inside).sum()), int((parts.choose & ~inside).sum()), 2 * size * len(found))
        for way, one in found.items():
            flat = one.reshape(len(dealt.strata), size)
            told = predictivity(flat, inside, parts)
            order = told.best_first()
            chosen = [at for at in order[:CANDIDATES].tolist() if told.accuracy[at] > least]
            rows += [(number, WAYS.index(way), *divmod(at, given.model.anatomy.neurons), *_numbers(told, at)) for at in chosen]
            ceilings.append((number, WAYS.index(way), least, (told.accuracy > least).sum(), *_ceiling(told, *counts[-1])))
            if way == WAYS[0]:
                best[domain] = _best(told, order, least, given.model.anatomy.neurons)
    arrays = {
        "candidates": np.array(rows, dtype=np.float64).reshape(-1, 4 + len(decide.NUMBERS)),
        "ceilings": np.array(ceilings, dtype=np.float64),
        "documents": np.array(counts, dtype=np.int64),
    }
    return Kept(arrays=arrays, about={"domains": list(domains), "seed": given.seed, "ways": list(found)}), best


def _numbers(told: Predictivity, at: int) -> tuple[float, ...]:
    fields = (told.accuracy, told.above, told.apart, told.right, told.right_elsewhere)
    return tuple(float(one[at]) for one in fields)


def _ceiling(told: Predictivity, of: int, of_elsewhere: int) -> tuple[float, float]:
    """Over all neurons: the largest accuracy above chance on the confirmation half, and the largest bound that holds for all."""
    bounds = interval(told.right, of, told.right_elsewhere, of_elsewhere, level=2 * CONSTANTS.level / len(told.right))
    return float(((told.right + told.right_elsewhere - 1) / 2).max()), float(bounds[1].max())


def _best(told: Predictivity, order: np.ndarray, least: float, per_layer: int) -> _Best:
    largest = order[: max(max(effort.sizes) for effort in EFFORTS.values())]
    return _Best(
        ranked=tuple(divmod(int(at), per_layer) for at in largest),
        suspects=frozenset(divmod(int(at), per_layer) for at in np.flatnonzero(told.accuracy > least)),
        apart=float(told.apart[largest].mean()),
    )


# --- perturbing --------------------------------------------------------------------------------------------------


def _perturb(given: Given, effort: Effort, domains: Sequence[str], kept: Kept, best: dict[str, _Best]) -> Kept:
    """Take out the best neurons of the skills whose neurons lie furthest apart, then control groups for those that harm most."""
    first = sorted(domains, key=lambda domain: -best[domain].apart)[: effort.skills]
    first = [domain for domain in first if comparisons(given.reading, domain, elsewhere=effort.elsewhere) >= LEAST_DOCUMENTS]
    groups = [decide.Group(skill=domain, size=size) for domain in first for size in effort.sizes]
    kept = replace(kept, about={**kept.about, "perturbed": [[one.skill, one.size] for one in groups], "tokens": effort.tokens})
    of = neuron_reference(given.model, given.states[NeuronMeans.name], "text")
    for group in groups:
        members = best[group.skill].ranked[: group.size]
        kept = _take_out(given, effort, of, kept, group, "harm", [members])
    for group in decide.worth_controls(kept, units_of(given.reading))[: effort.controlled]:
        if f"{group}/controls" in kept.arrays:
            continue
        members, removed = best[group.skill].ranked[: group.size], _removed(given, group.skill, effort.tokens, of.mean)
        others = matched_groups(members, best[group.skill].suspects, removed)
        if others:
            times = {f"{group}/times_as_much": times_as_much(members, others, removed)}
            kept = replace(kept, arrays={**kept.arrays, **times})
            kept = _take_out(given, effort, of, kept, group, "controls", others)
    return kept


@torch.no_grad()
def _removed(given: Given, domain: str, tokens: int, mean: Mean) -> np.ndarray:
    """How much each neuron's ablation removes from documents of a domain (beginnings, discovery half): a root mean square norm.

    Around the mean that is put in its place, which is that of all text: a neuron that is high here, and always so, removes much.
    """
    windows = openings(given.reading, "discovery", tokens=tokens)[domain]
    batches = [batch_of(windows[start : start + BATCH], "text", domain, "discovery") for start in range(0, len(windows), BATCH)]
    here = reference_of(given.model, batches, over=f"{domain} of the discovery half")
    apart = here.mean.values["neurons"] - mean.values["neurons"]
    return np.hypot(here.spread, apart.double().numpy(force=True)) * output_norms(given.model)


def _take_out(
    given: Given, effort: Effort, of: NeuronReference, kept: Kept, group: decide.Group, what: str, neurons: Sequence[Members]
) -> Kept:
    """Keep `GROUP/harm` or `GROUP/controls`, `[group, unit]`, with the neurons of each and the documents; once."""
    if f"{group}/{what}" in kept.arrays:
        return kept
    batches = trial(given.reading, group.skill, elsewhere=effort.elsewhere, tokens=effort.tokens)
    says = f"{'groups' if what == 'harm' else 'control groups'} of {group.skill} neurons taken out"
    count = given.tally(len(neurons) * len(batches), says)
    arrays = {
        f"{group}/{what}": harms(given.model, batches, of.mean, neurons, step=count).astype(np.float32),
        f"{group}/{what}_neurons": np.array(neurons, dtype=np.int64),
        f"{group}/units": np.concatenate([batch.units.numpy(force=True) for batch in batches]),
    }
    kept = replace(kept, arrays={**kept.arrays, **arrays})
    given.save(kept)
    return kept
