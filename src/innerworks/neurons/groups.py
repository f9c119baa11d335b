"""What is the ablation of several neurons compared with? Groups of others, each member beside one that removes as much."""

from collections.abc import Collection, Sequence

from innerworks.model.matched import Place, nearest
from innerworks.stats import CONSTANTS, Array

Group = tuple[Place, ...]
LEAST_GROUPS = 2  # without a spread between groups nothing can be said of another one


def matched_groups(members: Sequence[Place], suspects: Collection[Place], removed: Array) -> list[Group]:
    """Twenty groups without a neuron in common: the k-th holds each member's k-th nearest in what an ablation removes.

    removed: norm of what an ablation removes, `[layer, neuron]`. Controls come from the member's layer and those beside it.
    Fewer groups where the model has too few neurons, and none at all where it has not even two.
    """
    taken = {*members, *suspects}
    columns = []
    for member in members:
        columns.append(nearest([member], taken, removed))
        taken |= set(columns[-1])
    count = min((len(column) for column in columns), default=0)
    groups = [tuple(column[k] for column in columns) for k in range(min(count, CONSTANTS.controls))]
    return groups if len(groups) >= LEAST_GROUPS else []
