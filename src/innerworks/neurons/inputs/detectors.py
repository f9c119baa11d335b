"""Which neurons fire on one to five tokens, or pairs of tokens, and on nothing else?

1. A neuron *fires* where its activation exceeds half of its peak on discovery, on the side of zero where the peak is (neurons of
   modern models are hardly ever exactly zero, so that firing cannot mean being above zero).
2. Its *triggers* are the tokens at its firing contexts on discovery, the strongest of each document, K documents at most. Up to
   five different ones make it a candidate. Its *pairs* are the same with the token before: up to five different ones again.
3. On confirmation, per document: the share of its firings that are on triggers (or pairs), and the share of the triggers'
   occurrences that fire it. Voita et al. 2023 (arXiv:2309.04827) ask for 95 % of either.
4. A detector of single tokens whose triggers always stand behind the same token would pass as one of pairs. So of pairs a third
   share is asked: of the occurrences of a pair's second token behind any other token, how many leave the neuron silent.

What it does not do: look further back, so a detector of three words shows as one whose pairs often fail to fire it.
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

MOST = 5  # triggers of a detector
FIRES = 0.5  # of the peak
BITS = 32  # of a token in the number of a pair
SHARES = (  # of triggers or of pairs, and what it is
    ("triggers", "on_triggers"),
    ("triggers", "triggers_fire"),
    ("pairs", "on_triggers"),
    ("pairs", "triggers_fire"),
    ("pairs", "others_silent"),
)
SUMS = ("share", "share_squared", "share_positive", "share_units")


@dataclass(frozen=True, kw_only=True)
class Triggers:
    """What fires the candidates of a layer. key, neuron: a token (or pair) and its neuron, sorted by key; of: which have any."""

    key: Int[Tensor, " pair"]
    neuron: Int[Tensor, " pair"]
    of: Bool[Tensor, " neuron"]

    @classmethod
    def sorted(cls, keys: Int[np.ndarray, "neuron trigger"]) -> "Triggers":
        """From the keys of each neuron, -1 where there are fewer."""
        neuron, slot = np.nonzero(keys >= 0)
        found = keys[neuron, slot]
        order = np.argsort(found, kind="stable")
        key, neuron = (torch.from_numpy(x[order].astype(np.int64)) for x in (found, neuron))
        return cls(key=key, neuron=neuron, of=torch.from_numpy((keys >= 0).any(axis=-1)))


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The candidates of a layer. seconds: the current tokens of their pairs."""

    sign: Float[Tensor, " neuron"]
    threshold: Float[Tensor, " neuron"]  # infinite for neurons that are none
    tokens: Triggers
    pairs: Triggers
    seconds: Triggers


@dataclass(frozen=True, kw_only=True)
class Detectors:
    """What discovery chose. triggers, pairs: -1 where there are fewer, and everywhere of neurons that are no candidates."""

    triggers: Int[np.ndarray, "layer neuron trigger"]
    pairs: Int[np.ndarray, "layer neuron trigger"]  # the token before, times 2 ** 32, plus the current one
    sign: Float[np.ndarray, "layer neuron"]
    peak: Float[np.ndarray, "layer neuron"]  # on that side, above zero
    layers: tuple[Candidates, ...]


def empty(layers: int, neurons: int) -> State:
    """Sums over documents of the shares."""
    return {name: torch.zeros(len(SHARES), layers, neurons) for name in SUMS}


def choose(entries: Int[Tensor, "side layer neuron k"], reading: Reading) -> Detectors:
    """Choose triggers and pairs from the strongest contexts of discovery."""
    found = strongest.unpack(entries)
    side = (found.value[1, ..., 0] > found.value[0, ..., 0]).astype(int)
    value, tokens, before = (
        np.take_along_axis(x, side[None, ..., None], 0)[0]
        for x in (found.value, tokens_at(reading, found), tokens_at(reading, found, back=1))
    )
    peak = value[..., 0]
    firing = (tokens >= 0) & (value > FIRES * peak[..., None]) & (peak[..., None] > 0)
    triggers = _distinct(np.where(firing, tokens, -1))
    pairs = _distinct(np.where(firing, before.astype(np.int64) * 2**BITS + tokens, -1))
    sign = np.where(side == 1, -1.0, 1.0).astype(np.float32)
    by_layer = tuple(_candidates(triggers[i], pairs[i], sign[i], peak[i]) for i in range(len(triggers)))
    return Detectors(triggers=triggers, pairs=pairs, sign=sign, peak=peak, layers=by_layer)


def _distinct(keys: Int[np.ndarray, "*neurons k"]) -> Int[np.ndarray, "*neurons trigger"]:
    """The different keys, the others -1; nothing where there are too many."""
    ordered = -np.sort(-keys.astype(np.int64), axis=-1)
    ordered[..., 1:][ordered[..., 1:] == ordered[..., :-1]] = -1
    ordered = -np.sort(-ordered, axis=-1)
    ordered[(ordered >= 0).sum(axis=-1) > MOST] = -1
    padding = [(0, 0)] * (ordered.ndim - 1) + [(0, max(0, MOST - ordered.shape[-1]))]
    return np.pad(ordered, padding, constant_values=-1)[..., :MOST]


def _candidates(triggers: np.ndarray, pairs: np.ndarray, sign: np.ndarray, peak: np.ndarray) -> Candidates:
    """Those with triggers; what has few pairs has few triggers."""
    return Candidates(
        sign=torch.from_numpy(sign),
        threshold=torch.from_numpy(np.where(triggers[:, 0] >= 0, FIRES * peak, np.inf).astype(np.float32)),
        tokens=Triggers.sorted(triggers),
        pairs=Triggers.sorted(pairs),
        seconds=Triggers.sorted(_distinct(np.where(pairs >= 0, pairs % 2**BITS, -1))),
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
        if first[i] and len(chosen.tokens.key):
            fires = (a[i, 1:length] * sign > threshold).cpu()
            _add_document(state, chosen, layer, fires, batch.tokens[i, :length].cpu())


def _add_document(state: State, chosen: Candidates, layer: int, fires: Bool[Tensor, "row neuron"], tokens: Tensor) -> None:
    """The shares of one document. tokens: one more than rows, the first of the text in front."""
    size = fires.shape[1]
    firing = fires.nonzero()[:, 1].bincount(minlength=size)
    before, current = tokens[:-1], tokens[1:]
    for place, triggers, keys in ((0, chosen.tokens, current), (2, chosen.pairs, before * 2**BITS + current)):
        row, neuron = _occurrences(triggers, keys)
        hits = neuron[fires[row, neuron]].bincount(minlength=size)
        _add_share(state, place, layer, hits, firing * triggers.of)
        _add_share(state, place + 1, layer, hits, neuron.bincount(minlength=size))
    paired = torch.zeros_like(fires)
    paired[row, neuron] = True
    row, neuron = _occurrences(chosen.seconds, current)
    other = ~paired[row, neuron]
    row, neuron = row[other], neuron[other]
    silent = neuron[~fires[row, neuron]].bincount(minlength=size)
    _add_share(state, 4, layer, silent, neuron.bincount(minlength=size))


def _add_share(state: State, share: int, layer: int, hits: Int[Tensor, " neuron"], of: Int[Tensor, " neuron"]) -> None:
    """Add `hits / of` of the neurons that have any."""
    there = of.nonzero()[:, 0]
    value = hits[there] / of[there]
    for name, x in zip(SUMS, (value, value.square(), (value > 0).float(), torch.ones_like(value)), strict=True):
        state[name][share, layer].index_add_(0, there, x)


def _occurrences(triggers: Triggers, keys: Int[Tensor, " row"]) -> tuple[Int[Tensor, " found"], Int[Tensor, " found"]]:
    """Every row that holds a trigger, with the neuron whose trigger it is."""
    start, stop = (torch.searchsorted(triggers.key, keys, right=right) for right in (False, True))
    counts = stop - start
    row = torch.arange(len(keys)).repeat_interleave(counts)
    within = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    return row, triggers.neuron[start[row] + within]
