"""What is an ablation compared with? Parts of the same sort, as alike as the model has them, suspected of nothing."""

from collections.abc import Collection, Sequence

import numpy as np

from innerworks.findings import joined
from innerworks.stats import CONSTANTS, Array

Place = tuple[int, int]  # a layer, and a head or neuron of it


def nearest(places: Collection[Place], suspects: Collection[Place], removed: Array, *, highest: int | None = None) -> list[Place]:
    """The 20 parts nearest in what an ablation removes, from the same layers, one up and one down (wider until there are enough).

    removed: norm of what an ablation removes, `[layer, part]`. highest: none above this layer. Fewer where the model has fewer.
    """
    layers, per_layer = removed.shape
    top = layers - 1 if highest is None else highest
    left_out = {*suspects, *places}
    pool: list[Place] = []
    for reach in range(1, layers + 1):
        near = {layer for at, _ in places for layer in range(max(0, at - reach), min(top, at + reach) + 1)}
        pool = [(layer, part) for layer in sorted(near) for part in range(per_layer) if (layer, part) not in left_out]
        if len(pool) >= CONSTANTS.controls:
            break
    size = np.mean([log_size(place, removed) for place in places])
    return sorted(pool, key=lambda place: (abs(log_size(place, removed) - size), place))[: CONSTANTS.controls]


def how_alike(place: Place, controls: Sequence[Place], removed: Array, *, of: int | None = None) -> str:
    """Say how controls differ from what they are compared with, or nothing where they do not; of: how many controls in all."""
    limit, total = np.log(CONSTANTS.matched_factor), len(controls) if of is None else of
    ratios = [log_size(one, removed) - log_size(place, removed) for one in controls]
    smaller, larger = sum(ratio < -limit for ratio in ratios), sum(ratio > limit for ratio in ratios)
    return joined(
        f"{smaller} of {total} controls remove less than half as much" if smaller else "",
        f"{larger} of {total} controls remove more than twice as much" if larger else "",
    )


def log_size(place: Place, removed: Array) -> float:
    """The logarithm of what an ablation removes, of parts that remove nothing, too."""
    return float(np.log(max(float(removed[place]), 1e-12)))
