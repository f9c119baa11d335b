"""Which neurons are specific to a concept? From responses on the confirmation half to findings, as pure arithmetic.

1. Rung 1, single neurons: average precision above chance by more than the floor (`precision.py`). False discoveries are
   controlled over concepts and candidates (`stats.family_q`); one row per concept bounds the rest (`ceiling`).
2. Probes: the area under the curve of one neuron, above chance by more than its floor, and by how much sixteen do better.
3. Forcing: the share of texts that mention the concept while its neurons are forced, beyond that with matched neurons forced,
   by `stats.necessity` (a t over prompts, and over the 20 groups). It is a test of what the neurons do and raises no rung:
   nothing is lost by it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from innerworks.findings import Finding, joined
from innerworks.model.study import Kept
from innerworks.neurons.concepts.precision import above_chance, by_chance, p_above
from innerworks.neurons.concepts.probe import SIZES, auc, auc_gap
from innerworks.neurons.concepts.respond import SIGNS
from innerworks.neurons.groups import how_alike
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Estimate, Necessity, adjust, estimate, family_q, harm_alone, necessity

#: of average precision above chance. Of the words that such a neuron responds to most, one in three or four holds the concept;
#: with less nobody would call it specific.
FLOOR = 0.25
AUC_FLOOR = 0.25  # above chance: three of four pairs in the right order
GAP_FLOOR = 0.05  # of the area: what less than one pair in twenty makes is no sign of anything
SAID_FLOOR = 0.10  # of the share of texts: one more text in ten
UNIT = "average precision"


def findings(kept: Kept) -> list[Finding]:
    """All rows about concepts."""
    names = list(kept.about.get("concepts", {}))
    return [*_precise(kept, names), *_ceilings(kept, names), *_probed(kept, names), *_said(kept, names)] if names else []


def _positive(kept: Kept, concept: str) -> np.ndarray:
    return np.array(kept.about["groups"][kept.about["concepts"][concept]]["positive"][concept], dtype=bool)


def _units(kept: Kept, concept: str) -> list[str]:
    return kept.about["groups"][kept.about["concepts"][concept]]["units"]


def _place(concept: str, material: str = "concepts") -> dict[str, Any]:
    return {"chapter": "neurons", "behaviour": f"concept:{concept}", "material": material}


def _numbers(found: Estimate, floor: float) -> dict[str, Any]:
    interval = {"effect": float(found.mean), "effect_low": float(found.low), "effect_high": float(found.high)}
    return {**interval, "n": found.n, "df": found.df, "floor": floor, "mde": float(found.mde(floor))}


# --- single neurons ----------------------------------------------------------------------------------------------


def _precise(kept: Kept, names: Sequence[str]) -> list[Finding]:
    tested: dict[str, list[tuple[Estimate, float]]] = {}
    for concept in names:
        positive, units = _positive(kept, concept), _units(kept, concept)
        rows = kept.arrays[f"{concept}/responses"].astype(np.float64)
        found = [above_chance(row, positive, units) for row in rows]
        tested[concept] = [(one, p_above(one, row, positive, FLOOR)) for one, row in zip(found, rows, strict=True)]
    q = family_q({concept: np.array([p for _, p in some]) for concept, some in tested.items()})
    return [
        _neuron(kept, concept, number, found, p, float(q[concept][number]))
        for concept, some in tested.items()
        for number, (found, p) in enumerate(some)
    ]


def _neuron(kept: Kept, concept: str, number: int, found: Estimate, p: float, q: float) -> Finding:
    sign, layer, neuron = kept.arrays[f"{concept}/candidates"][number].tolist()
    positive, chosen = _positive(kept, concept), float(kept.arrays[f"{concept}/discovery"][number])
    chance = by_chance(int(positive.sum()), len(positive))
    way = "up" if SIGNS[sign] > 0 else "down"
    return Finding(
        **_place(concept),
        **_numbers(found, FLOOR),
        site=str(Site(layer=layer, neuron=neuron)),
        layer=layer,
        index=neuron,
        measure="average_precision",
        value=float(found.mean) + chance,
        unit=UNIT,
        null=chance,
        null_kind="any order",
        p=p,
        q=q,
        rung=int(q <= CONSTANTS.level),
        note=f"{way}; {chosen + chance:.2f} where it was chosen; {int(positive.sum())} of {len(positive)} examples hold it",
    )


def _ceilings(kept: Kept, names: Sequence[str]) -> list[Finding]:
    """The response of all that is most precise on the confirmation half itself, with a bound that holds for each of them."""
    rows = []
    for concept in names:
        positive, units = _positive(kept, concept), _units(kept, concept)
        found = above_chance(kept.arrays[f"{concept}/best"].astype(np.float64), positive, units)
        chance = by_chance(int(positive.sum()), len(positive))
        bound = float(found.bound(kept.about["responses"]))
        rows.append(
            Finding(
                **{**_place(concept), **_numbers(found, FLOOR), "effect_high": min(bound, 1 - chance)},
                site="model",
                measure="ceiling",
                value=float(found.mean) + chance,
                unit=UNIT,
                null=chance,
                null_kind="any order",
                p=None,
                note=f"the most precise here of {kept.about['responses']} responses",
            )
        )
    return rows


# --- probes ------------------------------------------------------------------------------------------------------


def _probed(kept: Kept, names: Sequence[str]) -> list[Finding]:
    rows = []
    found = {concept: _areas(kept, concept) for concept in names}
    for which, (measure, floor) in enumerate((("probe", AUC_FLOOR), ("probe_gap", GAP_FLOOR))):
        p = np.array([float(both[which].p_above(floor)) for both in found.values()])
        for concept, one_p, q in zip(found, p.tolist(), adjust(p).tolist(), strict=True):
            one, said = found[concept][which], kept.arrays[f"{concept}/probed"]
            areas = [float(auc(row, _positive(kept, concept)).mean) + 0.5 for row in said]
            told = ", ".join(f"k = {size}: {area:.2f}" for size, area in zip(SIZES, areas, strict=True))
            rows.append(
                Finding(
                    **_place(concept),
                    **_numbers(one, floor),
                    site=str(Site(layer=int(kept.arrays[f"{concept}/layer"][0]))),
                    layer=int(kept.arrays[f"{concept}/layer"][0]),
                    measure=measure,
                    value=areas[0] if which == 0 else areas[-1],
                    unit="area under the curve",
                    null=0.5 if which == 0 else areas[0],
                    null_kind="any order" if which == 0 else "one neuron",
                    p=one_p,
                    q=q,
                    note=told,
                )
            )
    return rows


def _areas(kept: Kept, concept: str) -> tuple[Estimate, Estimate]:
    said, positive = kept.arrays[f"{concept}/probed"], _positive(kept, concept)
    return auc(said[0], positive), auc_gap(said[-1], said[0], positive)


# --- forcing -----------------------------------------------------------------------------------------------------


def worth_controls(kept: Kept, concept: str) -> bool:
    """Is the concept mentioned more often than without forcing, by more than the floor?"""
    free, forced = kept.arrays[f"{concept}/said"].astype(np.float64)
    return float(estimate(forced - free, [""] * len(free)).p_above(SAID_FLOOR)) <= CONSTANTS.level


def _said(kept: Kept, names: Sequence[str]) -> list[Finding]:
    forced = [concept for concept in names if f"{concept}/said" in kept.arrays]
    found = {concept: _beyond(kept, concept) for concept in forced}
    p = np.array([one.p for one in found.values()])
    return [
        _forced(kept, concept, found[concept], float(p[number]), float(q))
        for number, (concept, q) in enumerate(zip(forced, adjust(p), strict=True))
    ]


def _beyond(kept: Kept, concept: str) -> Necessity:
    """Texts that mention the concept when it is forced, against those with control groups forced, or with none."""
    free, forced = kept.arrays[f"{concept}/said"].astype(np.float64)
    units = [""] * len(forced)
    controls = kept.arrays.get(f"{concept}/said_controls")
    if controls is None:
        return harm_alone(forced - free, units, floor=SAID_FLOOR)
    return necessity(forced, controls.astype(np.float64), units, floor=SAID_FLOOR)


def _forced(kept: Kept, concept: str, found: Necessity, p: float, q: float) -> Finding:
    without = f"{concept}/said_controls" not in kept.arrays
    free, forced = (float(one.mean()) for one in kept.arrays[f"{concept}/said"])
    members = kept.arrays[f"{concept}/said_neurons"].tolist()
    return Finding(
        **_place(concept, "generated text"),
        site="model",
        target=", ".join(str(Site(layer=layer, neuron=neuron)) for layer, neuron in members),
        measure="forcing",
        value=forced,
        effect=found.excess,
        effect_low=found.excess_low,
        effect_high=found.excess_high,
        df=found.df,
        unit="share of texts",
        n=found.n,
        null=free if without else found.control,
        null_kind="no forcing" if without else "control groups",
        floor=SAID_FLOOR,
        p=p,
        mde=found.mde,
        q=q,
        note=joined(
            f"{len(members)} neurons held at their median response to it; {free:.2f} of texts mention it when none are",
            "no control groups run" if without else how_alike(kept.arrays[f"{concept}/times_as_much"]),
        ),
    )
