"""What is an ablation compared with? Other heads, as alike as the model has them, none of them suspected of anything.

A candidate of any kind that is tested by ablation is nobody's control: the links of one circuit would otherwise be measured
against each other (the previous-token head that an induction head depends on harms more than the induction head does).
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from innerworks.findings import joined
from innerworks.heads.ablation import Heads, Rotated
from innerworks.heads.harms import Head
from innerworks.model.matched import how_alike, nearest
from innerworks.stats import CONSTANTS, Array

Control = Head | Rotated


def matched(
    heads: Collection[Head], suspects: Collection[Head], removed: Array, *, highest: int | None = None
) -> tuple[Control, ...]:
    """The 20 heads nearest in what an ablation removes, from the same layers, one up and one down (wider until there are enough).

    removed: norm of what an ablation removes, `[layer, head]`. highest: no control above this layer. Where the model has too
    few, what the heads' own ablation removes is added under random rotations.
    """
    chosen = nearest(heads, suspects, removed, highest=highest)
    own = sorted(heads)
    rotated = [(*own[draw % len(own)], draw) for draw in range(CONSTANTS.controls - len(chosen))]
    return (*chosen, *rotated)


def how_matched(head: Head, controls: Iterable[Control], removed: Array) -> str:
    """Say how controls differ from what they are compared with, or nothing where they do not."""
    controls = list(controls)
    heads = [(one[0], one[1]) for one in controls if len(one) == 2]
    rotated = len(controls) - len(heads)
    return joined(
        how_alike(head, heads, removed, of=len(controls)),
        f"{rotated} of {len(controls)} controls are rotations of what is removed, which flatter" if rotated else "",
    )


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Twenty groups of control heads; overlap: by how much shared members narrow their spread; note: how they had to be drawn."""

    groups: tuple[Heads, ...]
    overlap: float
    note: str


def control_groups(
    members: Collection[Head], suspects: Collection[Head], shape: tuple[int, int], rng: np.random.Generator
) -> Groups | None:
    """Twenty groups with as many heads in each layer as the members have; shape: layers and heads per layer of the model.

    A layer without more free heads than members lends from those beside it, wider until there are enough (noted). Groups of w
    heads drawn from f free ones share members; their spread understates that of independent groups by
    `sqrt((1 - w/f) / (1 + w/f))` (the worst layer counts, or the share that they are seen to have in common). None where the
    model has too few free heads for twenty groups.
    """
    for spare in (1, 2, 4, 8, 16):
        pools, lent = _pools(members, suspects, shape, spare)
        if any(len(pool) <= wanted for wanted, pool in pools):
            return None
        groups: dict[Heads, None] = {}
        for _ in range(50 * CONSTANTS.controls):
            drawn = _drawn(pools, rng)
            groups |= {drawn: None} if drawn else {}
            if len(groups) == CONSTANTS.controls:
                share = max(wanted / len(pool) for wanted, pool in pools)
                share = max(share, _in_common(list(groups))) if lent else share
                note = f"control groups have heads of neighbouring layers for {', '.join(lent)}" if lent else ""
                return Groups(groups=tuple(groups), overlap=float(np.sqrt((1 + share) / (1 - share))), note=note)
    return None


def _pools(
    members: Collection[Head], suspects: Collection[Head], shape: tuple[int, int], spare: int
) -> tuple[list[tuple[int, list[Head]]], list[str]]:
    """For each layer of the members: how many heads are wanted, and those to draw from; and the layers that had to be widened."""
    layers, per_layer = shape
    pools: list[tuple[int, list[Head]]] = []
    lent: list[str] = []
    for layer, wanted in sorted(Counter(at for at, _ in members).items()):
        pool: list[Head] = []
        for reach in range(layers):
            near = range(max(0, layer - reach), min(layers, layer + reach + 1))
            pool = [(at, head) for at in near for head in range(per_layer) if (at, head) not in suspects]
            if len(pool) >= wanted + spare:
                lent += [f"L{layer}"] if reach else []
                break
        pools.append((wanted, pool))
    return pools, lent


def _drawn(pools: Iterable[tuple[int, list[Head]]], rng: np.random.Generator) -> Heads | None:
    """One group: so many heads of each pool, each head once; None where a pool has too few left."""
    drawn: set[Head] = set()
    for wanted, pool in pools:
        left = [head for head in pool if head not in drawn]
        if len(left) < wanted:
            return None
        drawn |= {left[i] for i in rng.choice(len(left), wanted, replace=False)}
    return frozenset(drawn)


def _in_common(groups: list[Heads]) -> float:
    """The share of its members that a group has in common with another, on average; below 1."""
    pairs = [len(one & other) / len(one) for i, one in enumerate(groups) for other in groups[:i]]
    return float(np.mean(pairs))
