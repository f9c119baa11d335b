"""Do documents of one domain drive a neuron apart from those of all others? A two-sample t on documents' means.

The mean of a neuron over each document is one number; `effect = (mean over the domain - mean over all others) / sd`, with the
standard deviation of its (clipped) activations over discovery rows, and the sign that the difference has on discovery. Degrees of
freedom are those of the domain alone, the smaller group: never too many.
"""

import numpy as np
import torch
from torch import Tensor

from innerworks.model.observe import State


def effects(state: State) -> dict[str, np.ndarray]:
    """`domain_effect`, `domain_se`, `domain_discovery`, each `[stratum, layer, neuron]`; only the last one has a sign."""
    rows = state["gram"].sum(dim=0)[0, 0].clamp(min=1)
    mean = state["product"].sum(dim=0)[:, 0] / rows
    sd = (state["squares"].sum(dim=0) / rows - mean.square()).clamp(min=1e-12).sqrt()
    (first, _), (second, se) = (_difference(state, half) for half in (0, 1))
    sign = first.sign()
    scaled = {"domain_effect": second * sign / sd, "domain_se": se / sd, "domain_discovery": first / sd}
    return {name: x.float().numpy() for name, x in scaled.items()}


def _difference(state: State, half: int) -> tuple[Tensor, Tensor]:
    """Of each stratum the mean less that of all others, and its standard error (0 where there are too few documents)."""
    total, squares = state["mean"][half].double(), state["mean_squared"][half].double()
    count = state["mean_units"][half][:, None, None]
    parts = []
    for sums, squared, n in ((total, squares, count), (total.sum(0) - total, squares.sum(0) - squares, count.sum(0) - count)):
        mean = sums / n.clamp(min=1)
        variance = (squared - n * mean.square()).clamp(min=0) / (n - 1).clamp(min=1)
        parts.append((mean, variance / n.clamp(min=1)))
    (inside, here), (outside, there) = parts
    return inside - outside, torch.sqrt(here + there)
