"""Which heads are of which kind? From masses per unit to labels at rung 1, as pure arithmetic on arrays.

1. Per unit, the effect of a head is its mass on the kind's targets minus its null (`kinds.py`); which other offset or column
   the null is, discovery chooses.
2. Candidates: heads whose effect on discovery exceeds the floor and two standard errors, on every material of the kind and
   against each of its nulls.
3. On confirmation each candidate is tested against the floor; with two materials or nulls p is the largest.
4. False discoveries are controlled over kinds and heads together (`stats.family_q`); a head with q <= .05 is *seen*.

Everything is a function of `heads_by_unit`, which every atlas keeps, so all of it can be computed again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from innerworks.findings import Finding
from innerworks.heads.kinds import COLUMNS, KINDS, MEASURES, OFFSETS, Kind, Null
from innerworks.sites import head_site
from innerworks.stats import CONSTANTS, Array, Estimate, Half, estimate, family_q

Candidates = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class HeadsByUnit:
    """Mean attention mass per row of each head, on each measure's targets, in each unit.

    total: `[unit, measure, layer, head]` summed over rows, as kept in an atlas; mass: the means, NaN where a unit has no row
    that applies. The fields without axes named have one entry per unit.
    """

    total: NDArray[np.float32]
    rows: NDArray[np.float32]  # [unit, measure]: rows behind each mean
    mass: Array
    ids: tuple[str, ...]
    strata: NDArray[np.character]
    materials: NDArray[np.character]
    halves: NDArray[np.character]

    @classmethod
    def of(cls, total: NDArray[np.float32], rows: NDArray[np.float32], units: Sequence[Sequence[str]]) -> "HeadsByUnit":
        """Divide sums by their rows; units are (id, stratum, material, half)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mass = total.astype(np.float64) / rows[:, :, None, None]
        ids, strata, materials, halves = zip(*units, strict=True)
        return cls(
            total=total,
            rows=rows,
            mass=mass,
            ids=ids,
            strata=np.array(strata),
            materials=np.array(materials),
            halves=np.array(halves),
        )

    def measured(self, measure: str, material: str, half: Half) -> NDArray[np.bool_]:
        """Which units count: of this material and half, with rows for the measure."""
        return (self.materials == material) & (self.halves == half) & (self.rows[:, MEASURES.index(measure)] > 0)

    def of_measure(self, measure: str, units: NDArray[np.bool_]) -> Array:
        """Mass on one measure: `[unit, layer, head]`."""
        return self.mass[units, MEASURES.index(measure)]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The effect of one kind on one material and half, for every head: arrays are `[layer, head]`."""

    value: Array
    null: Array
    estimate: Estimate


def effect(table: HeadsByUnit, kind: Kind, material: str, half: Half, null: Null | None = None) -> Effect:
    """How much more than a null (the kind's first, unless told) does each head look at the kind's targets?"""
    against: Null = null or kind.null
    units = table.measured(kind.measure, material, half)
    if against == "across words":
        units &= table.measured("join_across", material, half)
    own = table.of_measure(kind.measure, units)
    null_mass = _null(table, kind, against, material, units)
    strata = [str(stratum) for stratum in table.strata[units]]
    return Effect(value=_mean(own), null=_mean(null_mass), estimate=estimate(own - null_mass, strata))


def tests_of(kind: Kind) -> list[tuple[str, Null]]:
    """The (material, null) pairs that a head of a kind must pass."""
    nulls: list[Null] = [kind.null] if kind.also is None else [kind.null, kind.also]
    return [(material, null) for material in kind.floors for null in nulls]


def _null(table: HeadsByUnit, kind: Kind, against: Null, material: str, units: NDArray[np.bool_]) -> Array:
    if against == "pattern swap":
        return table.of_measure(f"{kind.measure}_swapped", units)
    if against == "across words":
        return table.of_measure("join_across", units)
    names = [f"offset_{o}" for o in OFFSETS] if against == "other offset" else [f"column_{c}" for c in COLUMNS]
    others = [name for name in names if name != kind.measure]
    discovery = table.measured(kind.measure, material, "discovery")
    rivals = np.stack([_mean(table.of_measure(name, discovery)) for name in others])
    best = rivals.argmax(axis=0)  # per head, the strongest other offset or column
    masses = np.stack([table.of_measure(name, units) for name in others])
    return np.take_along_axis(masses, best[None, None], axis=0)[0]


def _mean(by_unit: Array) -> Array:
    """Over units; NaN where there is none."""
    return by_unit.mean(axis=0) if len(by_unit) else np.full(by_unit.shape[1:], np.nan)


def candidates(table: HeadsByUnit, kind: Kind) -> Candidates:
    """Heads worth testing, by the discovery half alone: `[layer, head]`."""
    passed = np.ones(table.mass.shape[2:], dtype=bool)
    for material, null in tests_of(kind):
        seen, floor = effect(table, kind, material, "discovery", null).estimate, kind.floors[material]
        with np.errstate(invalid="ignore", divide="ignore"):
            passed &= (seen.mean > floor) & (seen.mean > CONSTANTS.candidate_t * seen.se)
    return passed


def findings(table: HeadsByUnit) -> list[Finding]:
    """Measure every head for every kind, and label at rung 1 those that pass: one finding per kind, material and head."""
    confirmed: dict[tuple[str, str, Null], Effect] = {
        (kind.behaviour, material, null): effect(table, kind, material, "confirmation", null)
        for kind in KINDS.values()
        for material, null in tests_of(kind)
    }
    picked = {kind.behaviour: candidates(table, kind) for kind in KINDS.values()}
    p_of = {kind.behaviour: _worst_p(kind, confirmed) for kind in KINDS.values()}
    q_of = family_q({behaviour: p_of[behaviour][picked[behaviour]] for behaviour in KINDS})
    rows: list[Finding] = []
    for kind in KINDS.values():
        q = np.full(picked[kind.behaviour].shape, np.nan)
        q[picked[kind.behaviour]] = q_of[kind.behaviour]
        for material, null in tests_of(kind):
            rows += _rows(kind, material, null, confirmed[kind.behaviour, material, null], q)
    return rows


def _worst_p(kind: Kind, confirmed: Mapping[tuple[str, str, Null], Effect]) -> Array:
    tests = [(confirmed[kind.behaviour, material, null], kind.floors[material]) for material, null in tests_of(kind)]
    return np.max([found.estimate.p_above(floor) for found, floor in tests], axis=0)


def _rows(kind: Kind, material: str, null: Null, found: Effect, q: Array) -> list[Finding]:
    floor, e = kind.floors[material], found.estimate
    p, mde = e.p_above(floor), e.mde(floor)
    return [
        Finding(
            chapter="heads",
            behaviour=kind.behaviour,
            site=head_site(layer, head),
            layer=layer,
            index=head,
            measure="attention" if null == kind.null else "attention_across",
            material=material,
            value=float(found.value[layer, head]),
            unit="probability",
            effect=float(e.mean[layer, head]),
            effect_low=float(e.low[layer, head]),
            effect_high=float(e.high[layer, head]),
            n=e.n,
            df=e.df,
            null=float(found.null[layer, head]),
            null_kind=null,
            floor=floor,
            p=float(p[layer, head]),
            mde=float(mde[layer, head]),
            q=None if np.isnan(q[layer, head]) else float(q[layer, head]),
            rung=int(q[layer, head] <= CONSTANTS.level),
            note="" if e.n >= CONSTANTS.least_units else f"only {e.n} units: not decided",
        )
        for layer, head in np.ndindex(*found.value.shape)
    ]
