"""What do rogue dimensions cost when they are gone, and what do they go with? From harms to findings, as pure arithmetic.

1. `dimension_harm`: the harm of an ablation beyond that of 20 sets of other dimensions. `direction_harm`: beyond that of as large
   a change along 20 sets of other directions. Both by `stats.necessity`, for zero and for mean; BH over all that were tried. A
   harm that does not exceed the floor by itself has no controls, and p is 1.
2. Rung 2 (jointly): every label of a stretch whose harm *by mean ablation* is beyond both sorts of control.
3. Told beside, by document: rank correlations with frequency and position.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from innerworks.findings import Finding, against_controls, joined
from innerworks.model.study import Kept
from innerworks.residual.geometry.decide import at_dimension, interval
from innerworks.residual.geometry.encode import FEATURES
from innerworks.residual.geometry.removal import How, Stretch
from innerworks.stats import CONSTANTS, Necessity, adjust, estimate, harm_alone, necessity

CONTROLS = {"dimensions": "dimension_harm", "directions": "direction_harm"}
NULLS = {"dimensions": "other dimensions", "directions": "directions at random"}


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One ablation against one sort of control."""

    stretch: Stretch
    how: How
    against: str
    found: Necessity
    controlled: bool
    q: float = 1.0


def tried(kept: Kept) -> list[Tried]:
    """Every ablation, with its q."""
    found = [
        _tried(kept, Stretch(dimensions=tuple(one["dimensions"]), first=one["first"], last=one["last"]), one["how"], against)
        for one in kept.about.get("removed", [])
        for against in one["against"]
    ]
    q = adjust(np.array([one.found.p for one in found])).tolist()
    return [replace(one, q=one_q) for one, one_q in zip(found, q, strict=True)]


def name_of(stretch: Stretch, how: How, what: str) -> str:
    """Under which the harms of an ablation, or of its controls, are kept."""
    return f"{stretch}/{how}/{what}"


def worth_controls(harm: np.ndarray) -> bool:
    """Does a harm by itself exceed the floor?"""
    return harm_alone(harm.astype(np.float64), [""] * len(harm)).p_units <= CONSTANTS.level


def _tried(kept: Kept, stretch: Stretch, how: How, against: str) -> Tried:
    harm = kept.arrays[name_of(stretch, how, "harm")].astype(np.float64)
    controls, strata = kept.arrays.get(name_of(stretch, how, against)), [""] * len(harm)
    found = harm_alone(harm, strata) if controls is None else necessity(harm, controls.astype(np.float64), strata)
    return Tried(stretch=stretch, how=how, against=against, found=found, controlled=controls is not None)


def raised(kept: Kept, findings: Sequence[Finding]) -> list[Finding]:
    """Labels of rogue dimensions, those that are necessary at rung 2; then the rows of ablations and correlations."""
    every = tried(kept)
    necessary = set[tuple[int, int]]()
    for stretch in dict.fromkeys(one.stretch for one in every):
        mine = {one.against: one.q for one in every if one.stretch == stretch and one.how == "mean"}
        if mine.keys() == CONTROLS.keys() and max(mine.values()) <= CONSTANTS.level:
            necessary |= {(layer, dimension) for layer in stretch.layers for dimension in stretch.dimensions}
    return [*(_risen(row, necessary) for row in findings), *map(_row, every), *_correlations(kept)]


def _risen(row: Finding, necessary: set[tuple[int, int]]) -> Finding:
    if row.measure != "robust_z" or row.rung < 1 or (row.layer, row.index) not in necessary:
        return row
    return replace(row, rung=2, note=joined("jointly", row.note))


def _row(one: Tried) -> Finding:
    stretch, found = one.stretch, one.found
    foremost, *others = stretch.dimensions
    return Finding(
        **at_dimension(stretch.first, foremost),
        **against_controls(found),
        behaviour="rogue_dimension",
        target=", ".join(f"D{other}" for other in others) or None,
        measure=CONTROLS[one.against],
        material="text",
        unit="nats",
        null_kind=NULLS[one.against] if one.controlled else "none",
        floor=CONSTANTS.harm_floor,
        q=one.q,
        ablation=one.how,
        note=joined(
            "jointly" if others else "alone",
            f"behind L{stretch.first} to L{stretch.last}",
            "" if one.controlled else "the harm itself is not shown to exceed the floor: no controls run",
            "a control harms as much" if one.controlled and not found.above_all else "",
        ),
    )


def _correlations(kept: Kept) -> list[Finding]:
    rows = []
    for (layer, dimension), own in zip(kept.arrays["encoded"].tolist(), kept.arrays["correlations"], strict=True):
        for feature, (mine, others) in zip(FEATURES, own.astype(np.float64), strict=True):
            found = estimate(mine - others, [""] * len(mine))
            row = Finding(
                **at_dimension(layer, dimension),
                **interval(found),
                behaviour="rogue_dimension",
                measure=f"{feature}_correlation",
                material="text",
                value=float(mine.mean()),
                unit="rank correlation",
                null=float(others.mean()),
                null_kind="other dimensions",
                floor=0.0,
                p=None,
                mde=None,
            )
            rows.append(row)
    return rows
