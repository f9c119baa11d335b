"""The Instrument: watches a pass over text and keeps sums; a `Study` turns them into findings.

States are named arrays of sums: of fixed size, or with one row per unit (about 0.5 MB per document for 1,000 heads),
so two shards of a reading merge by addition, and a scan can stop and go on anywhere.
Per-unit sums have one row per unit; a shard that never saw a unit holds zeros there.
Two sorts of entry are no sums, and say so by their name: `fixed_...` was fixed before the pass, the same in every shard;
`strongest...` holds the few strongest values (`strongest.py`).
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from innerworks.model import strongest
from innerworks.model.anatomy import Anatomy
from innerworks.sites import Site
from innerworks.text import Reading, TextBatch

State = dict[str, Tensor]


@runtime_checkable
class Instrument(Protocol):
    """What the engine asks of an instrument, in the order in which it asks."""

    name: str
    kinds: Sequence[str]  # the activations it wants to see, of every layer

    def begin(self, anatomy: Anatomy, reading: Reading) -> State:
        """An empty state: all sums zero."""
        ...

    def begin_batch(self, batch: TextBatch) -> None:
        """Prepare what all layers share: reference masks, weights."""
        ...

    def observe(self, state: State, batch: TextBatch, site: Site, activation: Tensor, queries: slice) -> None:
        """Add one layer's activation, for a block of queries, to the sums."""
        ...

    def end_batch(self, state: State, batch: TextBatch) -> None:
        """Add what is counted once per batch."""
        ...


def merge(a: State, b: State) -> State:
    """Add up the states of two shards."""
    return {name: _merged(name, a[name], b[name]) for name in a}


def _merged(name: str, a: Tensor, b: Tensor) -> Tensor:
    if name.startswith("fixed_"):
        return a
    return strongest.join(a, b) if name.startswith("strongest") else a + b


def numpy(state: State) -> dict[str, np.ndarray]:
    """The sums as NumPy arrays, for pure code."""
    return {name: tensor.numpy(force=True) for name, tensor in state.items()}


def zeros(*shape: int) -> Tensor:
    """An empty sum."""
    return torch.zeros(shape, dtype=torch.float64)
