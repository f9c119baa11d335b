"""What is the loss of a neuron compared with? With neurons that write as much, or else with as much in a random direction.

1. The 20 neurons of neighbouring layers that are most alike in what their ablation removes, none of them suspected.
2. Where more than a quarter of these remove less than half as much, those are no match: each is replaced by what the neuron's own
   ablation removes, turned to a random direction. Larger ones stay: they only make it harder.

A neuron writes along one direction, so a Haar rotation of the stream is a direction drawn at random. What it does not do: say
that some part of the model ever writes like that.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from innerworks.model import Mean, Model
from innerworks.model.matched import Place, log_size, nearest
from innerworks.model.run import Watch
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Array


@dataclass(frozen=True)
class Turned:
    """What ablating a neuron removes, along another direction, drawn by the neuron's place and a number."""

    neuron: Place
    draw: int


def controls_of(neuron: Place, suspects: Collection[Place], removed: Array) -> tuple[list[Place], list[Turned]]:
    """The neurons that a neuron is compared with, and what stands in for those that the model does not have."""
    near = nearest([neuron], suspects, removed)
    least = log_size(neuron, removed) - float(np.log(CONSTANTS.matched_factor))
    alike = [one for one in near if log_size(one, removed) >= least]
    unmatched = CONSTANTS.controls - len(alike)
    if len(near) == CONSTANTS.controls and unmatched <= CONSTANTS.unmatched_share * CONSTANTS.controls:
        return near, []
    return alike, [Turned(neuron, draw) for draw in range(unmatched)]


def remove_turned(model: Model, mean: Mean, one: Turned) -> list[Watch]:
    """Take from the feed-forward's output what ablating a neuron would take, along a random direction; never at position 0."""
    layer, neuron = one.neuron
    drawn = np.random.default_rng([layer, neuron, one.draw]).standard_normal(model.anatomy.d_model)
    size = float(model.weights.W_out(layer)[neuron].float().norm())
    writes = torch.from_numpy(size * drawn / np.linalg.norm(drawn)).float()
    centre = float(mean.of(Site(layer=layer, neuron=neuron)))
    removed: list[Tensor] = []

    def read(activations: Tensor, queries: slice) -> None:
        removed[:] = [activations[:, :, neuron, None].float() - centre]
        removed[0][:, 0] = 0.0

    def write(added: Tensor, queries: slice) -> Tensor:
        return added - (removed[0].to(added.device) * writes.to(added.device)).to(added.dtype)

    return [(Site(layer=layer, kind="neurons"), read), (Site(layer=layer, kind="mlp_out"), write)]
