"""What is an ablation compared with? Other heads, as alike as the model has them, none of them suspected of anything.

A candidate of any kind that is tested by ablation is nobody's control: the links of one circuit would otherwise be measured
against each other (the previous-token head that an induction head depends on harms more than the induction head does).
"""

from collections.abc import Collection, Iterable

import numpy as np

from innerworks.heads.ablation import Head, Heads, Rotated
from innerworks.stats import CONSTANTS, Array

Control = Head | Rotated


def matched(
    heads: Collection[Head], suspects: Collection[Head], removed: Array, *, highest: int | None = None
) -> tuple[Control, ...]:
    """The 20 heads nearest in what an ablation removes, from the same layers, one up and one down (wider until there are enough).

    removed: norm of what an ablation removes, `[layer, head]`. highest: no control above this layer. Where the model has too
    few, what the heads' own ablation removes is added under random rotations.
    """
    layers, per_layer = removed.shape
    top = layers - 1 if highest is None else highest
    pool: list[Head] = []
    for reach in range(1, layers + 1):
        near = {layer for at, _ in heads for layer in range(max(0, at - reach), min(top, at + reach) + 1)}
        places = [(layer, head) for layer in sorted(near) for head in range(per_layer)]
        pool = [head for head in places if head not in suspects and head not in heads]
        if len(pool) >= CONSTANTS.controls:
            break
    size = np.mean([_log_size(head, removed) for head in heads])
    chosen = sorted(pool, key=lambda head: (abs(_log_size(head, removed) - size), head))[: CONSTANTS.controls]
    own = sorted(heads)
    rotated = [(*own[draw % len(own)], draw) for draw in range(CONSTANTS.controls - len(chosen))]
    return (*chosen, *rotated)


def how_matched(head: Head, controls: Iterable[Control], removed: Array) -> str:
    """Say how controls differ from what they are compared with, or nothing where they do not."""
    controls = list(controls)
    limit = np.log(CONSTANTS.matched_factor)
    ratios = [_log_size((one[0], one[1]), removed) - _log_size(head, removed) for one in controls if len(one) == 2]
    smaller, larger = sum(ratio < -limit for ratio in ratios), sum(ratio > limit for ratio in ratios)
    rotated = len(controls) - len(ratios)
    said = [
        f"{smaller} of {len(controls)} controls remove less than half as much" if smaller else "",
        f"{larger} of {len(controls)} controls remove more than twice as much" if larger else "",
        f"{rotated} of {len(controls)} controls are rotations of what is removed, which flatter" if rotated else "",
    ]
    return "; ".join(part for part in said if part)


def _log_size(head: Head, removed: Array) -> float:
    return float(np.log(max(float(removed[head]), 1e-12)))


def control_groups(
    members: Collection[Head], suspects: Collection[Head], per_layer: int, rng: np.random.Generator
) -> tuple[list[Heads], float]:
    """Twenty groups with as many heads in each layer as the members have, and by how much their overlap narrows their spread.

    Groups of w heads drawn from f free ones share members; their spread understates that of independent groups by
    `sqrt((1 - w/f) / (1 + w/f))` (the worst layer counts). No groups where a layer has no more free heads than members.
    """
    wanted = {layer: sum(at == layer for at, _ in members) for layer in sorted({layer for layer, _ in members})}
    free = {layer: [head for head in range(per_layer) if (layer, head) not in suspects] for layer in wanted}
    if any(len(free[layer]) <= count for layer, count in wanted.items()):
        return [], 1.0
    groups: dict[Heads, None] = {}
    for _ in range(50 * CONSTANTS.controls):
        drawn = [(layer, int(h)) for layer, count in wanted.items() for h in rng.choice(free[layer], count, replace=False)]
        groups[frozenset(drawn)] = None
        if len(groups) == CONSTANTS.controls:
            break
    share = max(count / len(free[layer]) for layer, count in wanted.items())
    return list(groups), float(np.sqrt((1 + share) / (1 - share)))
