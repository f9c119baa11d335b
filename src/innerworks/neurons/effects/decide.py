"""Are labelled neurons necessary, and selective? From measured harms to rungs and rows, as pure arithmetic.

1. A trial is one neuron alone, or the strongest labels of a kind together. Its harm, over documents and against its controls
   (`stats.necessity`), has a p; without controls p is 1. Benjamini-Hochberg runs over all trials of the study.
2. A label that passes alone is at rung 2; at rung 3 where the harm elsewhere is little, too (`stats.selectivity`). A joint trial
   raises no label: that predictions depend on a group does not say on which of its neurons.
3. Labels that were not tried, or did not pass, stay at rung 1 and say so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from innerworks.findings import Finding, against_controls, collateral, joined
from innerworks.model.matched import how_alike
from innerworks.model.study import Kept, Units
from innerworks.neurons.effects.families import FAMILIES, Label
from innerworks.neurons.necessity import Neuron
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Array, Necessity, Selectivity, adjust, harm_alone, necessity, selectivity


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was ablated, and what it cost, in nats per row: of documents that have such rows.

    by_control: `[control, unit]`; controls: their neurons, none where none were run.
    """

    behaviour: str
    neurons: tuple[Neuron, ...]
    says: str
    harm: Array
    strata: Sequence[str]
    elsewhere: Array
    elsewhere_strata: Sequence[str]
    controls: tuple[tuple[Neuron, ...], ...] = ()
    by_control: Array | None = None
    elsewhere_by_control: Array | None = None

    @property
    def label(self) -> Label | None:
        """The label that was tried, alone."""
        return (self.behaviour, self.neurons[0]) if len(self.neurons) == 1 else None

    def found(self) -> Necessity:
        """The test against controls; without them, how large the harm is."""
        if self.by_control is None:
            return harm_alone(self.harm, self.strata)
        return necessity(self.harm, self.by_control, self.strata)

    def selective(self, seed: int) -> Selectivity:
        """Is the harm elsewhere little?"""
        assert self.elsewhere_by_control is not None  # else it would not be necessary
        limit = self.elsewhere_by_control.mean(axis=1)
        return selectivity(self.harm, self.strata, self.elsewhere, self.elsewhere_strata, limit, seed)


def trials_of(kept: Kept, units: Units) -> list[Trial]:
    """All trials that were measured, in their order."""
    strata = np.array([units[number][1] for number in kept.arrays["units"].tolist()])
    trials = []
    for number, about in enumerate(kept.about["trials"]):
        harm, elsewhere = kept.arrays["harm"][number], kept.arrays["elsewhere"][number]
        on, off = np.isfinite(harm), np.isfinite(elsewhere)
        controls = kept.arrays.get(f"controls/{number}", np.zeros((0, 1, 2), dtype=np.int64)).tolist()
        trials.append(
            Trial(
                behaviour=about["behaviour"],
                neurons=tuple((layer, neuron) for layer, neuron in about["neurons"]),
                says=about["says"],
                harm=harm[on],
                strata=strata[on].tolist(),
                elsewhere=elsewhere[off],
                elsewhere_strata=strata[off].tolist(),
                controls=tuple(tuple((layer, neuron) for layer, neuron in group) for group in controls),
                by_control=kept.arrays[f"by_control/{number}"][:, on] if controls else None,
                elsewhere_by_control=kept.arrays[f"elsewhere_by_control/{number}"][:, off] if controls else None,
            )
        )
    return trials


def worth_controls(trials: Sequence[Trial]) -> list[list[int]]:
    """Trials whose harm itself exceeds the floor over documents, the most harmful first; those of the same neurons together."""
    worth = sorted((i for i, one in enumerate(trials) if _exceeds(one)), key=lambda i: -float(trials[i].harm.mean()))
    by_neurons: dict[tuple[Neuron, ...], list[int]] = {}
    for i in worth:
        by_neurons.setdefault(trials[i].neurons, []).append(i)
    return list(by_neurons.values())


def _exceeds(one: Trial) -> bool:
    return harm_alone(one.harm, one.strata).p_units <= CONSTANTS.level


def findings(kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
    """The rows before, with their rungs, and a row for each harm."""
    if "harm" not in kept.arrays:
        return list(before)
    trials = trials_of(kept, units)
    found = [one.found() for one in trials]
    q = adjust(np.array([one.p for one in found])).tolist()
    removed = kept.arrays["removed"].astype(np.float64)
    rungs: dict[Label, tuple[int, str]] = {}
    rows = []
    for one, what, own_q in zip(trials, found, q, strict=True):
        rows.append(_harm_row(one, what, own_q, removed))
        verdict = one.selective(kept.about["seed"]) if own_q <= CONSTANTS.level else None
        if verdict is not None:
            rows.append(collateral(verdict, elsewhere="loss where its family is off", **_place(one)))
        if one.label is not None:
            rungs[one.label] = _rung(verdict)
    return [_raised(row, rungs) for row in before] + rows


def _rung(verdict: Selectivity | None) -> tuple[int, str]:
    if verdict is None:
        return 1, "rung 2 tried, not shown"
    return (3, "alone") if verdict.verdict == "pass" else (2, f"alone; rung 3 {verdict.verdict}")


def _raised(row: Finding, rungs: Mapping[Label, tuple[int, str]]) -> Finding:
    if row.rung == 0 or row.behaviour not in FAMILIES or row.layer is None or row.index is None:
        return row
    rung, note = rungs.get((row.behaviour, (row.layer, row.index)), (1, "rung 2 not tried"))
    return replace(row, rung=rung, note=joined(row.note, note))


def _place(one: Trial) -> dict[str, Any]:
    names = [str(Site(layer=layer, neuron=neuron)) for layer, neuron in one.neurons]
    of_kind = {"chapter": "neurons", "behaviour": one.behaviour, "material": "text"}
    if one.label is None:
        return {**of_kind, "site": "model", "target": ", ".join(names)}
    layer, neuron = one.neurons[0]
    return {**of_kind, "site": names[0], "layer": layer, "index": neuron}


def _harm_row(one: Trial, found: Necessity, q: float, removed: Array) -> Finding:
    among = "control neurons" if one.label else "control groups"
    return Finding(
        **_place(one),
        **against_controls(found),
        measure="harm" if one.label else "joint_harm",
        unit="nats",
        null_kind=among if one.controls else "none",
        floor=CONSTANTS.harm_floor,
        q=q,
        ablation="mean",
        note=joined(f"metric: loss where {one.says}", _against(one, found, removed)),
    )


def _against(one: Trial, found: Necessity, removed: Array) -> str:
    """What must be said of the controls."""
    if not one.controls:
        return "no controls run" if _exceeds(one) else "the harm itself is not shown to exceed the floor: no controls run"
    alike = how_alike(one.neurons[0], [group[0] for group in one.controls], removed) if one.label else ""
    few = f"only {len(one.controls)} controls" if len(one.controls) < CONSTANTS.controls else ""
    return joined(few, alike, "" if found.above_all else "a control harms as much")
