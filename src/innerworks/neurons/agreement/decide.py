"""Which neurons serve agreement? From what was measured to findings, as pure arithmetic.

1. Rung 1: the neurons that discovery templates chose contribute more than the floor on confirmation templates (t over templates).
2. Rung 2: exact ablation lowers the logit difference beyond that of 20 matched neurons by the floor; the strongest are tried
   together, too, against 20 matched groups. False discoveries are controlled over all of these.
3. Rung 3: what losing the neuron costs ordinary text is little: at most .01 nats, and a third of what it costs the verb.

The floor is that of agreement heads: .02, here logits. The ceiling says how large a contribution is excluded for every neuron.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from innerworks.findings import Finding, against_controls, collateral, joined
from innerworks.model.study import Kept
from innerworks.neurons.groups import how_alike
from innerworks.neurons.necessity import Neuron, Tried, decided, note_of, unpacked
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Estimate, Necessity, adjust, estimate, family_q, harm_alone, necessity, selectivity

BEHAVIOUR = "agreement"
FLOOR = CONSTANTS.harm_floor  # logits


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A neuron that discovery chose, and its contribution on confirmation templates."""

    neuron: Neuron
    found: Estimate
    q: float

    @property
    def labelled(self) -> bool:
        """Does it serve agreement?"""
        return self.q <= CONSTANTS.level


def candidates(kept: Kept) -> list[Candidate]:
    """All of them, the most promising first."""
    strata = kept.about["strata"]
    found = [estimate(one, strata) for one in kept.arrays["contribution"].astype(np.float64).T]
    q = family_q({BEHAVIOUR: np.array([float(one.p_above(FLOOR)) for one in found])})[BEHAVIOUR]
    neurons = [(layer, neuron) for layer, neuron in kept.arrays["candidates"].tolist()]
    return [Candidate(neuron=n, found=one, q=float(x)) for n, one, x in zip(neurons, found, q, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Ablated:
    """What ablations came to: of each neuron alone, and of the strongest together."""

    tries: dict[Neuron, tuple[Tried, Necessity, float]]  # with q
    together: tuple[Necessity, float] | None

    @property
    def necessary(self) -> list[Neuron]:
        """The neurons that are necessary alone, in the order in which they were tried."""
        return [neuron for neuron, (*_, q) in self.tries.items() if q <= CONSTANTS.level]


def ablated(kept: Kept) -> Ablated:
    """Test all ablations that were made; q over all of them."""
    strata = kept.about["strata"]
    tries = unpacked(kept.arrays, "ablation") if "ablation/harm" in kept.arrays else []
    found = [decided(one, strata, floor=FLOOR) for one in tries]
    group = _jointly(kept, strata) if "joint/harm" in kept.arrays else None
    q = adjust(np.array([one.p for one in (*found, *([group] if group else []))])).tolist()
    by_neuron = {one.neuron: (one, what, x) for one, what, x in zip(tries, found, q[: len(tries)], strict=True)}
    return Ablated(tries=by_neuron, together=(group, q[-1]) if group else None)


def _jointly(kept: Kept, strata: Sequence[str]) -> Necessity:
    harm, controls = kept.arrays["joint/harm"], kept.arrays.get("joint/by_control")
    return harm_alone(harm, strata, floor=FLOOR) if controls is None else necessity(harm, controls, strata, floor=FLOOR)


def findings(kept: Kept) -> list[Finding]:
    """All rows about agreement neurons."""
    if "contribution" not in kept.arrays:
        return []
    chosen, removals = candidates(kept), ablated(kept)
    passed, rows = _selective(kept, removals)
    for one in chosen:
        rows.append(_contribution_row(one, *_rung(one, removals, passed)))
    rows += [_harm_row(kept, *one) for one in removals.tries.values()]
    rows += [_joint_row(kept, *removals.together)] if removals.together else []
    return [*rows, _ceiling_row(kept)]


def _rung(one: Candidate, removals: Ablated, selective: dict[Neuron, str]) -> tuple[int, str]:
    if not one.labelled:
        return 0, ""
    if one.neuron not in removals.tries:
        return 1, "rung 2 not tried at this depth"
    if one.neuron not in removals.necessary:
        return 1, "rung 2 tried, not shown"
    if one.neuron not in selective:
        return 2, "alone; rung 3 not tried"
    verdict = selective[one.neuron]
    return (3, "alone") if verdict == "pass" else (2, f"alone; rung 3 {verdict}")


def _selective(kept: Kept, removals: Ablated) -> tuple[dict[Neuron, str], list[Finding]]:
    """The verdict of each neuron that was tried at rung 3, and the rows."""
    verdicts: dict[Neuron, str] = {}
    rows = []
    if "elsewhere/harm" in kept.arrays:
        neurons = [(layer, neuron) for layer, neuron in kept.arrays["elsewhere/neurons"].tolist()]
        for neuron, nats, elsewhere in zip(neurons, kept.arrays["elsewhere/nats"], kept.arrays["elsewhere/harm"], strict=True):
            where = kept.about["elsewhere"]
            found = selectivity(nats, kept.about["strata"], elsewhere, where, np.zeros(1), kept.about["seed"])
            verdicts[neuron] = found.verdict
            rows.append(collateral(found, elsewhere="loss of ordinary text", **_place(neuron)))
    return verdicts, rows


# --- rows --------------------------------------------------------------------------------------------------------


def _place(neuron: Neuron) -> dict[str, Any]:
    layer, index = neuron
    where = {"site": str(Site(layer=layer, neuron=index)), "layer": layer, "index": index}
    return {"chapter": "neurons", "behaviour": BEHAVIOUR, "material": "agreement", **where}


_MODEL: dict[str, Any] = {"chapter": "neurons", "behaviour": BEHAVIOUR, "material": "agreement", "site": "model"}


def _contribution_row(one: Candidate, rung: int, note: str) -> Finding:
    found = one.found
    return Finding(
        **_place(one.neuron),
        measure="contribution",
        value=float(found.mean),
        unit="logits",
        effect=float(found.mean),
        effect_low=float(found.low),
        effect_high=float(found.high),
        n=found.n,
        df=found.df,
        null=0.0,
        null_kind="its mean",
        floor=FLOOR,
        p=float(found.p_above(FLOOR)),
        mde=float(found.mde(FLOOR)),
        q=one.q,
        rung=rung,
        note=note,
    )


def _harm(found: Necessity, q: float, controls: str) -> dict[str, Any]:
    return {**against_controls(found), "null_kind": controls, "floor": FLOOR, "q": q, "unit": "logits", "ablation": "mean"}


def _harm_row(kept: Kept, tried: Tried, found: Necessity, q: float) -> Finding:
    removed = kept.arrays["removed"].astype(np.float64)
    more = "a control harms as much" if tried.controls and not found.above_all else ""
    note = joined("metric: agreement difference", note_of(tried, removed), more)
    controls = "control neurons" if tried.controls else "none"
    return Finding(**_place(tried.neuron), **_harm(found, q, controls), measure="harm", note=note)


def _joint_row(kept: Kept, found: Necessity, q: float) -> Finding:
    members = [str(Site(layer=layer, neuron=neuron)) for layer, neuron in kept.arrays["joint/neurons"].tolist()]
    without = "joint/by_control" not in kept.arrays
    beside = "the model has too few neurons for control groups" if without else "a control group harms as much"
    alike = "" if without else how_alike(kept.arrays["joint/times_as_much"])
    note = joined("metric: agreement difference", "" if found.above_all else beside, alike)
    harm = _harm(found, q, "none" if without else "control groups")
    return Finding(**_MODEL, **harm, measure="joint_harm", target=", ".join(members), note=note)


def _ceiling_row(kept: Kept) -> Finding:
    """The largest contribution that is not excluded for some neuron of the model."""
    mean, se = (kept.arrays[name].astype(np.float64).ravel() for name in ("mean", "se"))
    found = Estimate(mean=mean, se=se, n=len(kept.about["strata"]), df=kept.about["df"], positive=mean)
    bounds = found.bound(len(mean))
    at = int(bounds.argmax())
    return Finding(
        **_MODEL,
        measure="ceiling",
        value=float(mean[at]),
        unit="logits",
        effect=float(mean[at]),
        effect_low=float(mean[at]),
        effect_high=float(bounds[at]),
        n=found.n,
        df=found.df,
        null=0.0,
        null_kind="its mean",
        floor=FLOOR,
        p=None,
        mde=float(np.quantile(found.mde(FLOOR), 0.9)),
        note=f"contribution: over all {len(mean)} neurons, each with its share of the level",
    )
