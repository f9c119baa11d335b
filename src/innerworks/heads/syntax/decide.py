"""Which heads follow which syntactic relation? From counts per document to labels at rung 1, as pure arithmetic on arrays.

1. Per document, a head's score is the share of a relation's arcs that it finds; its null is the share that the best fixed
   offset finds, 1 to 10 tokens or words back. Which offset that is, the discovery half chooses, by the same average over
   documents. The effect is the difference (Voita et al. 2019, arXiv:1905.09418; Clark et al. 2019, arXiv:1906.04341).
2. Candidates: heads whose effect on discovery exceeds the floor and two standard errors.
3. On confirmation each candidate is tested against the floor; false discoveries are controlled over relations and heads together
   (`stats.family_q`: a family is a relation and direction). A head with q <= .05 is *seen*.

Documents without an arc of a relation say nothing of it; all others count the same, however many arcs they have. Where they have
few, head and offset often find the same number of them. Such ties are neither for nor against, so the guard on signs
(`stats.Estimate.p_above`) is asked of the other documents, as a sign test is: with ties counted as failures, an effect of .38
on two or three arcs per document fails it, and without them the test is no more liberal than it says (docs/heads/syntax.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from innerworks.findings import Finding
from innerworks.sites import head_site
from innerworks.stats import CONSTANTS, Array, Estimate, Half, estimate, family_q
from innerworks.text.syntax import ALL_OFFSETS, Offset

#: Accuracy above the best offset, fixed before any model was seen: what Voita et al. 2019 ask of a syntactic head.
FLOOR = 0.10
BEST = "best on discovery"  # in a note: the head that the discovery half would pick


@dataclass(frozen=True, kw_only=True)
class ArcsByUnit:
    """How many arcs of each relation there are in each unit, and how many of them were found."""

    relations: tuple[str, ...]
    found: NDArray[np.float32]  # [unit, relation, layer, head]
    arcs: NDArray[np.float32]  # [unit, relation]
    offsets: NDArray[np.float32]  # [unit, relation, offset], in the order of `ALL_OFFSETS`
    strata: NDArray[np.character]
    halves: NDArray[np.character]

    def accuracy(self, counts: NDArray[np.float32], relation: int, half: Half) -> Array:
        """The share of a relation's arcs in these counts, per unit of a half that has any."""
        units = self.units(relation, half)
        arcs = self.arcs[units, relation].astype(np.float64)
        found = counts[units, relation].astype(np.float64)
        return found / arcs.reshape(-1, *[1] * (found.ndim - 1))

    def units(self, relation: int, half: Half) -> NDArray[np.bool_]:
        """Which units count."""
        return (self.halves == half) & (self.arcs[:, relation] > 0)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """How much better than the best offset every head finds one relation: arrays are `[layer, head]`."""

    value: Array
    null: float
    estimate: Estimate


def best_offset(table: ArcsByUnit, relation: int) -> int:
    """The place in `ALL_OFFSETS` of the one that finds most on discovery; among equals the shortest, tokens before words."""
    accuracy = table.accuracy(table.offsets, relation, "discovery").mean(axis=0)
    return max(range(len(ALL_OFFSETS)), key=lambda place: (round(accuracy[place], 9), -ALL_OFFSETS[place].back))


def effect(table: ArcsByUnit, relation: int, half: Half) -> Effect:
    """Accuracy minus that of the best offset on the same arcs, averaged over documents."""
    own = table.accuracy(table.found, relation, half)
    null = table.accuracy(table.offsets, relation, half)[:, best_offset(table, relation)]
    strata = [str(stratum) for stratum in table.strata[table.units(relation, half)]]
    better = own - null[:, None, None]
    untied = np.maximum((better != 0).sum(axis=0), 1)
    e = replace(estimate(better, strata), positive=np.asarray((better > 0).sum(axis=0) / untied))
    return Effect(value=own.mean(axis=0), null=float(null.mean()), estimate=e)


def candidates(table: ArcsByUnit, relation: int) -> NDArray[np.bool_]:
    """Heads worth testing, by the discovery half alone: `[layer, head]`."""
    seen = effect(table, relation, "discovery").estimate
    with np.errstate(invalid="ignore"):
        return (seen.mean > FLOOR) & (seen.mean > CONSTANTS.candidate_t * seen.se)


def findings(table: ArcsByUnit) -> list[Finding]:
    """Measure every head on every relation and direction, and label at rung 1 those that pass."""
    confirmed = [effect(table, i, "confirmation") for i in range(len(table.relations))]
    picked = [candidates(table, i) for i in range(len(table.relations))]
    p = {name: confirmed[i].estimate.p_above(FLOOR)[picked[i]] for i, name in enumerate(table.relations)}
    q_of = family_q(p)
    rows: list[Finding] = []
    for i, name in enumerate(table.relations):
        q = np.full(picked[i].shape, np.nan)
        q[picked[i]] = q_of[name]
        rows += _rows(name, confirmed[i], q, ALL_OFFSETS[best_offset(table, i)], _best(table, i))
    return rows


def _best(table: ArcsByUnit, relation: int) -> tuple[int, int]:
    """The head that finds most on discovery."""
    accuracy = table.accuracy(table.found, relation, "discovery").mean(axis=0)
    layer, head = np.unravel_index(int(accuracy.argmax()), accuracy.shape)
    return int(layer), int(head)


def _rows(relation: str, found: Effect, q: Array, offset: Offset, best: tuple[int, int]) -> list[Finding]:
    e = found.estimate
    p, mde = e.p_above(FLOOR), e.mde(FLOOR)
    told = f"{offset.back} {offset.unit}{'s' * (offset.back > 1)} back"
    return [
        Finding(
            chapter="heads",
            behaviour=f"syntactic:{relation}",
            site=head_site(layer, head),
            layer=layer,
            index=head,
            measure="attention",
            material="text",
            value=float(found.value[layer, head]),
            unit="accuracy",
            effect=float(e.mean[layer, head]),
            effect_low=float(e.low[layer, head]),
            effect_high=float(e.high[layer, head]),
            n=e.n,
            df=e.df,
            null=found.null,
            null_kind="best fixed offset",
            floor=FLOOR,
            p=float(p[layer, head]),
            mde=float(mde[layer, head]),
            q=None if np.isnan(q[layer, head]) else float(q[layer, head]),
            rung=int(q[layer, head] <= CONSTANTS.level),
            note=told + f"; {BEST}" * ((layer, head) == best),
        )
        for layer, head in np.ndindex(*found.value.shape)
    ]


def table_of(arrays: Mapping[str, np.ndarray], relations: Sequence[str], units: Sequence[Sequence[str]]) -> ArcsByUnit:
    """Put together what an atlas keeps; units are (id, stratum, material, half)."""
    _, strata, _, halves = zip(*units, strict=True)
    return ArcsByUnit(
        relations=tuple(relations),
        found=arrays["found"],
        arcs=arrays["arcs"],
        offsets=arrays["offsets"],
        strata=np.array(strata),
        halves=np.array(halves),
    )
