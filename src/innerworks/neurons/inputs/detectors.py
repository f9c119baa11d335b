"""Which neurons fire on one to five tokens and on nothing else?

1. A neuron *fires* where its activation exceeds half of its peak on discovery, on the side of zero where the peak is (neurons of
   modern models are hardly ever exactly zero, so that firing cannot mean being above zero).
2. Its *triggers* are the tokens at its firing contexts on discovery, the strongest of each document, K documents at most. Up to
   five different ones make it a candidate.
3. On confirmation, per document: the share of its firings that are on triggers, and the share of the triggers' occurrences that
   fire it. Voita et al. 2023 (arXiv:2309.04827) ask for 95 % of either.

What it does not do: look at the tokens before, so a detector of word pairs shows as one whose trigger often fails to fire it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from innerworks.model import strongest
from innerworks.model.observe import State
from innerworks.neurons.inputs.contexts import tokens_at
from innerworks.text import Reading, TextBatch

MOST = 5  # triggers of a token detector
FIRES = 0.5  # of the peak
SHARES = ("on_triggers", "triggers_fire")
SUMS = ("share", "share_squared", "share_positive", "share_units")


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The candidates of a layer. token, neuron: every pair of a trigger and its neuron, sorted by token."""

    sign: Float[Tensor, " neuron"]
    threshold: Float[Tensor, " neuron"]  # infinite for neurons that are none
    token: Int[Tensor, " pair"]
    neuron: Int[Tensor, " pair"]


@dataclass(frozen=True, kw_only=True)
class Detectors:
    """What discovery chose. triggers: -1 where there are fewer, and everywhere of neurons that are no candidates."""

    triggers: Int[np.ndarray, "layer neuron trigger"]
    sign: Float[np.ndarray, "layer neuron"]
    peak: Float[np.ndarray, "layer neuron"]  # on that side, above zero
    layers: tuple[Candidates, ...]


def empty(layers: int, neurons: int) -> State:
    """Sums over documents of the two shares."""
    return {name: torch.zeros(len(SHARES), layers, neurons) for name in SUMS}


def choose(entries: Int[Tensor, "side layer neuron k"], reading: Reading) -> Detectors:
    """Choose triggers from the strongest contexts of discovery."""
    found = strongest.unpack(entries)
    side = (found.value[1, ..., 0] > found.value[0, ..., 0]).astype(int)
    value, tokens = (np.take_along_axis(x, side[None, ..., None], 0)[0] for x in (found.value, tokens_at(reading, found)))
    peak = value[..., 0]
    firing = (tokens >= 0) & (value > FIRES * peak[..., None]) & (peak[..., None] > 0)
    triggers = _distinct(np.where(firing, tokens, -1))
    sign = np.where(side == 1, -1.0, 1.0).astype(np.float32)
    by_layer = tuple(_candidates(triggers[i], sign[i], peak[i]) for i in range(len(triggers)))
    return Detectors(triggers=triggers, sign=sign, peak=peak, layers=by_layer)


def _distinct(tokens: Int[np.ndarray, "*neurons k"]) -> Int[np.ndarray, "*neurons trigger"]:
    """The different tokens, the others -1; nothing where there are too many."""
    ordered = -np.sort(-tokens, axis=-1)
    ordered[..., 1:][ordered[..., 1:] == ordered[..., :-1]] = -1
    ordered = -np.sort(-ordered, axis=-1)
    ordered[(ordered >= 0).sum(axis=-1) > MOST] = -1
    padding = [(0, 0)] * (ordered.ndim - 1) + [(0, max(0, MOST - ordered.shape[-1]))]
    return np.pad(ordered, padding, constant_values=-1)[..., :MOST].astype(np.int32)


def _candidates(triggers: np.ndarray, sign: np.ndarray, peak: np.ndarray) -> Candidates:
    neuron, slot = np.nonzero(triggers >= 0)
    token = triggers[neuron, slot]
    order = np.argsort(token, kind="stable")
    return Candidates(
        sign=torch.from_numpy(sign),
        threshold=torch.from_numpy(np.where(triggers[:, 0] >= 0, FIRES * peak, np.inf).astype(np.float32)),
        token=torch.from_numpy(token[order].astype(np.int64)),
        neuron=torch.from_numpy(neuron[order]),
    )


def add(
    state: State,
    chosen: Candidates,
    batch: TextBatch,
    first: Bool[Tensor, " batch"],
    layer: int,
    a: Float[Tensor, "batch seq neuron"],
) -> None:
    """Count firings and triggers of the first windows of a confirmation batch, and add each document's shares."""
    sign, threshold = chosen.sign.to(a.device), chosen.threshold.to(a.device)
    for i, length in enumerate(batch.mask.sum(dim=1).tolist()):
        if first[i] and len(chosen.token):
            fires = (a[i, 1:length] * sign > threshold).cpu()
            _add_document(state, chosen, layer, fires, batch.tokens[i, 1:length].cpu())


def _add_document(state: State, chosen: Candidates, layer: int, fires: Bool[Tensor, "row neuron"], tokens: Tensor) -> None:
    size = fires.shape[1]
    firing = fires.nonzero()[:, 1].bincount(minlength=size)
    row, neuron = _occurrences(chosen, tokens)
    occurring, hits = neuron.bincount(minlength=size), neuron[fires[row, neuron]].bincount(minlength=size)
    for share, of in enumerate((firing, occurring)):
        there = of.nonzero()[:, 0]
        value = hits[there] / of[there]
        for name, x in zip(SUMS, (value, value.square(), (value > 0).float(), torch.ones_like(value)), strict=True):
            state[name][share, layer].index_add_(0, there, x)


def _occurrences(chosen: Candidates, tokens: Int[Tensor, " row"]) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    """Every row that holds a trigger, with the neuron whose trigger it is."""
    start, stop = (torch.searchsorted(chosen.token, tokens, right=right) for right in (False, True))
    counts = stop - start
    row = torch.arange(len(tokens)).repeat_interleave(counts)
    within = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    return row, chosen.neuron[start[row] + within]
