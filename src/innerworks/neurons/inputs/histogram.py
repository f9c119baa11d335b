"""How are a neuron's activations spread? Counts in fixed bins, which two shards add up.

Half of the bins are for activations at or below zero, half for those above. Their edges are at `limit * (k / 16)²`, with the
limits of `limits.py`: narrow near zero, where most activations of most neurons are. What lies beyond counts in the last bin.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

SIDE = 16  # bins on either side of zero
BINS = 2 * SIDE


def bins(
    activations: Float[Tensor, "row neuron"], low: Float[Tensor, " neuron"], high: Float[Tensor, " neuron"]
) -> Int[Tensor, "row neuron"]:
    """The bin of each activation: 0 holds the lowest."""
    positive = activations > 0
    limit = torch.where(positive, high, low).abs().clamp(min=1e-30)
    place = (SIDE * (activations.abs() / limit).sqrt()).long().clamp(0, SIDE - 1)  # NaN, for which a pass is stopped, becomes < 0
    return torch.where(positive, SIDE + place, SIDE - 1 - place)


def add(counts: Int[Tensor, "neuron bin"], found: Int[Tensor, "row neuron"]) -> None:
    """Count them."""
    flat = found + BINS * torch.arange(found.shape[1], device=found.device)
    counts += torch.bincount(flat.flatten(), minlength=counts.numel()).view_as(counts).to(counts)


def active(counts: Int[np.ndarray, "*neurons bin"]) -> Float[np.ndarray, "*neurons"]:
    """The share of activations above zero."""
    return counts[..., SIDE:].sum(axis=-1) / np.maximum(counts.sum(axis=-1), 1)


def quantile(
    counts: Int[np.ndarray, "*neurons bin"], low: Float[np.ndarray, "*neurons"], high: Float[np.ndarray, "*neurons"], share: float
) -> Float[np.ndarray, "*neurons"]:
    """About which activation has this share of all below it: the middle of the bin where it lies."""
    below = counts.cumsum(axis=-1)
    place = (below < share * below[..., -1:]).sum(axis=-1)
    inside = np.where(place >= SIDE, place - SIDE, SIDE - 1 - place)
    return np.where(place >= SIDE, high, low) * ((inside + 0.5) / SIDE) ** 2
