"""What is lost without heads, as a study of a scan."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from innerworks.findings import Finding
from innerworks.heads import ablation, decide, effect
from innerworks.heads.ablation import Ablations, Head, Rotated, read_off, set_name
from innerworks.heads.controls import Control
from innerworks.heads.kinds import KINDS
from innerworks.heads.means import HeadMeans, reference
from innerworks.heads.patterns import heads_by_unit
from innerworks.model import Model
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units
from innerworks.scan.depth import depth_of
from innerworks.stats import Array

Recorded = dict[str, dict[str, Array]]  # set of heads -> metric -> values per unit


class AblationStudy:
    """Raises labels to rungs 2 and 3 where they earn it."""

    name = "ablations"

    def instruments(self, model: Model) -> list[Instrument]:
        """The means that ablations put in a head's place."""
        return [HeadMeans()]

    def measure(self, given: Given) -> Kept:
        """Ablate what the labels so far ask for."""
        model, effort = given.model, depth_of(given.depth).effort
        references = {material: reference(model, given.states["head_means"], material) for material in ablation.MATERIALS}
        watchers = [label.head for label in effect.labels_of(given.before) if label.behaviour == "induction"]
        trial = ablation.trial(model, given.reading, units=effort.units, text_tokens=effort.text_tokens, watchers=watchers)
        recorded = {} if given.saved is None else unpack(given.saved.arrays)
        ablations = Ablations(model, trial, references, recorded)
        about = {
            "strata": {material: list(names) for material, names in trial.strata.items()},
            "watchers": watchers,
            "suspects": sorted(suspects(heads_by_unit(given.states["heads"], given.reading))),
            "depth": given.depth,
            "seed": given.seed,
        }
        removed = {f"removed/{material}": one.removed.numpy(force=True) for material, one in references.items()}

        def without(heads: Iterable[Head | Rotated], metric: str) -> Array:
            heads, before = frozenset(heads), ablations.runs
            result = ablations.without(heads, metric)
            if ablations.runs > before:
                given.step(len(ablations.done), None, "sets of heads")
                given.save(Kept(arrays={**_pack(ablations.done), **removed}, about=about))
            return result

        bench = _bench(without, about, removed)
        effect.climb(given.before, bench, effort, given.seed)
        return Kept(arrays={**_pack(ablations.done), **removed}, about=about)

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Decide from the recorded ablations."""
        done, watchers = unpack(kept.arrays), [(layer, head) for layer, head in kept.about["watchers"]]

        def without(heads: Iterable[Control], metric: str) -> np.ndarray:
            return read_off(done[set_name(frozenset(heads))], metric, watchers)

        bench = _bench(without, kept.about, {name: x for name, x in kept.arrays.items() if name.startswith("removed/")})
        return effect.climb(before, bench, depth_of(kept.about["depth"]).effort, kept.about["seed"])


def _bench(without: effect.Without, about: Mapping, removed: Mapping[str, Array]) -> effect.Bench:
    return effect.Bench(
        without=without,
        strata=about["strata"],
        watchers=[(layer, head) for layer, head in about["watchers"]],
        suspects={(layer, head) for layer, head in about["suspects"]},
        removed={name.removeprefix("removed/"): x for name, x in removed.items()},
    )


def suspects(table: decide.HeadsByUnit) -> set[Head]:
    """Candidates of every kind that is tested by ablation: none of them is a control."""
    found = [decide.candidates(table, kind) for kind in KINDS.values() if kind.causal]
    return {(int(layer), int(head)) for layer, head in np.argwhere(np.any(found, axis=0))}


def _pack(done: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {f"{name}/{metric}": values for name, metrics in done.items() for metric, values in metrics.items()}


def unpack(arrays: Mapping[str, np.ndarray]) -> Recorded:
    """Recorded ablations as they were: set of heads -> metric -> values per unit."""
    done: Recorded = {}
    for key, values in arrays.items():
        name, metric = key.rsplit("/", 1)
        if name != "removed":
            done.setdefault(name, {})[metric] = values
    return done
