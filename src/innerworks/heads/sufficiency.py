"""Does one head alone bring back what its whole group carries? Put the part into a run without it.

1. The strongest heads of a kind (8 at most) are mean-ablated together; only where that harm is necessary (`tries.py`; over all
   such groups, Benjamini-Hochberg) is anything asked here.
2. One member is put back: it writes what it wrote in the clean run, the others stay ablated. What is recovered, per unit, is the
   kind's metric without the group less the metric with that one head back; its share of the group's harm is the score.
3. The null: a control head is ablated beside the group, and then put back in the same way. Any clean output brings some of the
   clean run with it, also what the group had done before it reached that head; a head of another kind that was missing, too, is
   what such leakage and ordinary usefulness amount to. As many heads are put back as in 2 (one), from runs that lack them.
4. A head *suffices* if its share beyond controls exceeds one half: less than that, and the rest carries more than it does.
   p is the larger of two: over units, t of `recovered - mean of controls - half of the group's harm`; over controls, t with
   K - 1 degrees of freedom, and 1 unless it is above every control. The interval of the share is a bootstrap over units. Of a
   head that is not shown to bring back more than half (p <= .05, nothing taken off), no controls are run: p is 1.

What it does not say: that the head would do so by itself. It is given its clean input; whoever feeds it is still needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from innerworks.findings import Finding
from innerworks.heads.ablation import Heads, restored
from innerworks.heads.bench import NOTHING, Bench
from innerworks.heads.harms import material_of
from innerworks.heads.labels import Label
from innerworks.heads.tries import Group
from innerworks.stats import CONSTANTS, Array, adjust, bootstrap_means, estimate, necessity

FLOOR = 0.5  # of the group's harm
CONTROLS = 10  # heads that are put back (rotations cannot be): each costs two runs of many heads, and the guard is the same
BELOW = "not shown to suffice: by itself no more than half, so no controls were run"


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How much of a group's harm one head brings back."""

    label: Label
    group: Group
    share: float
    control: float
    compared: bool
    effect: float  # share beyond controls
    low: float
    high: float
    n: int
    df: int
    p: float
    mde: float


def sufficiency_rows(groups: Sequence[Group], bench: Bench, seed: int) -> list[Finding]:
    """One row for each member of each group that is needed."""
    q_of_groups = adjust(np.array([one.compared.necessity.p for one in groups]))
    needed = [one for one, q in zip(groups, q_of_groups, strict=True) if q <= CONSTANTS.level]
    found = [one for group in needed for one in recoveries(group, bench, seed)]
    q = adjust(np.array([one.p for one in found]))
    return [_row(one, float(q)) for one, q in zip(found, q, strict=True)]


def recoveries(group: Group, bench: Bench, seed: int) -> list[Recovery]:
    """Put each member of a group back alone; nothing where there are too few controls to put back."""
    metric, members = group.harm.metric, group.members
    controls = [frozenset([(one[0], one[1])]) for one in group.extra if len(one) == 2][:CONTROLS]
    if len(controls) < CONTROLS:
        return []
    lost = bench.harm((members, NOTHING), metric)
    units, strata = bench.measured(lost, metric)
    put_back = {
        label: bench.harm((members, (members - {label.head}) | _back(frozenset([label.head]))), metric)[units]
        for label in group.labels
    }
    most = {
        label: float(estimate(mine - FLOOR * lost[units], strata).p_above(0.0)) <= CONSTANTS.level
        for label, mine in put_back.items()
    }
    pairs = [(members | one, members | _back(one)) for one in controls] if any(most.values()) else []
    theirs = np.stack([bench.harm(pair, metric)[units] for pair in pairs]) if pairs else np.zeros((0, int(units.sum())))
    return [
        _recovery(label, group, mine, theirs if most[label] else None, lost[units], strata, seed)
        for label, mine in put_back.items()
    ]


def _back(heads: Heads) -> Heads:
    return frozenset(restored((one[0], one[1])) for one in heads)


def _recovery(
    label: Label, group: Group, mine: Array, theirs: Array | None, lost: Array, strata: Sequence[str], seed: int
) -> Recovery:
    """Arithmetic on units: recovered `[unit]`, recovered by each control `[control, unit]`, lost without the group `[unit]`."""
    by_controls = np.zeros_like(mine) if theirs is None else theirs.mean(axis=0)
    excess, whole, p = mine - by_controls, float(lost.mean()), 1.0
    beyond = estimate(excess - FLOOR * lost, strata)
    if theirs is not None and (over := necessity(mine, theirs, strata)).above_all:
        p = max(float(beyond.p_above(0.0)), over.p_controls)
    drawn = [bootstrap_means(one, strata, np.random.default_rng(seed)) for one in (excess, lost)]  # the same units of both
    low, high = np.quantile(drawn[0] / drawn[1], [CONSTANTS.level / 2, 1 - CONSTANTS.level / 2])
    return Recovery(
        label=label,
        group=group,
        share=float(mine.mean()) / whole,
        control=float(by_controls.mean()) / whole,
        compared=theirs is not None,
        effect=float(excess.mean()) / whole,
        low=float(low),
        high=float(high),
        n=beyond.n,
        df=beyond.df,
        p=p,
        mde=FLOOR + float(beyond.mde(0.0)) / whole,
    )


def _row(one: Recovery, q: float) -> Finding:
    verdict = "suffices" if q <= CONSTANTS.level else "not shown to suffice" if one.compared else BELOW
    return Finding(
        **one.label.place,
        target=one.group.names,
        measure="sufficiency",
        material=material_of(one.group.harm.metric),
        value=one.share,
        unit="share of harm",
        effect=one.effect,
        effect_low=one.low,
        effect_high=one.high,
        n=one.n,
        null=one.control,
        null_kind="control heads put back" if one.compared else "none",
        floor=FLOOR,
        p=one.p,
        mde=one.mde,
        q=q,
        ablation="mean",
        note=f"{verdict}; {one.group.harm.words}; given its clean input",
    )
