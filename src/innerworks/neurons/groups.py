"""What is the ablation of several neurons compared with? Groups of others, each member beside one that removes as much."""

from collections.abc import Collection, Sequence

import numpy as np

from innerworks.model import Model
from innerworks.model.matched import Place, nearest
from innerworks.stats import CONSTANTS, Array

Group = tuple[Place, ...]
LEAST_GROUPS = 2  # without a spread between groups nothing can be said of another one


def matched_groups(members: Sequence[Place], suspects: Collection[Place], removed: Array) -> list[Group]:
    """Twenty groups without a neuron in common: the k-th holds each member's k-th nearest in what an ablation removes.

    removed: norm of what an ablation removes, `[layer, neuron]`, or `[member, layer, neuron]` where members are not changed
    alike. Controls come from the member's layer and those beside it. Fewer groups where the model has too few
    neurons, and none at all where it has not even two.
    """
    taken = {*members, *suspects}
    columns = []
    for member, size in zip(members, _each(members, removed), strict=True):
        columns.append(nearest([member], taken, size))
        taken |= set(columns[-1])
    count = min((len(column) for column in columns), default=0)
    groups = [tuple(column[k] for column in columns) for k in range(min(count, CONSTANTS.controls))]
    return groups if len(groups) >= LEAST_GROUPS else []


def times_as_much(members: Sequence[Place], groups: Sequence[Group], removed: Array) -> Array:
    """How many times as much as the members each group removes, `[group]`: roots of summed squares."""
    own, *others = (_together(one, _each(members, removed)) for one in (members, *groups))
    return np.array(others) / own


def output_norms(model: Model) -> Array:
    """The length of what each neuron writes per unit of activation, `[layer, neuron]`."""
    weights = (model.weights.W_out(layer) for layer in range(model.anatomy.layers))
    return np.stack([one.float().norm(dim=-1).double().numpy(force=True) for one in weights])


def how_alike(ratios: Array) -> str:
    """Say it: `control groups remove 0.98 to 1.06 times as much`."""
    return f"control groups remove {ratios.min():.2f} to {ratios.max():.2f} times as much"


def _each(members: Sequence[Place], removed: Array) -> Array:
    return np.broadcast_to(removed, (len(members), *removed.shape[-2:]))


def _together(some: Sequence[Place], removed: Array) -> float:
    total = sum(float(size[place]) ** 2 for place, size in zip(some, removed, strict=True))
    return max(total, np.finfo(np.float64).tiny) ** 0.5
