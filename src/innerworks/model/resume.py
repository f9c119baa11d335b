"""Resumed runs: compute again only what an edit can reach.

Layers before the first edited one hand on the stream of the clean run, which changes nothing, bit for bit. On request only the
tokens from the first edited one are computed, with the clean run's keys and values in a cache for what lies before: exact up
to rounding, since shorter matrices are multiplied in another order.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from innerworks.errors import UsageError
from innerworks.model.call import Call, Positions, current
from innerworks.model.edit import Change, Edit, Knockout, rows_of

if TYPE_CHECKING:
    from innerworks.model.model import Model

KeysValues = Sequence[tuple[Tensor, Tensor]]  # by layer, [batch, kv_head, seq, d_head] each


def first_layer(call: Call) -> int:
    """The first layer at which a call wants anything."""
    return min((layer for _, layer in call.places), default=0)


def first_token(edits: Sequence[Edit], positions: Positions) -> int:
    """The first token that some edit changes, in any text of the batch; no later than the last token of the shortest text."""
    assert positions.real is not None
    length = positions.ids.shape[1]
    first = length - 1 - int(positions.real.flip(dims=(1,)).int().argmax(dim=1).max())
    for one in edits:
        where = one.positions if isinstance(one, Change) else one.queries if isinstance(one, Knockout) else "all"
        changed = rows_of(where, positions).any(dim=0)
        first = min(first, int(changed.int().argmax()) if bool(changed.any()) else first)
    return first


def prefix(cache: KeysValues | None, length: int, first: int = 0) -> DynamicCache:
    """A plain cache of what the first tokens left (one made for a configuration would drop keys outside sliding windows).

    Layers before `first` will not look into it, but models ask layer 0 how many tokens are behind. Its tensors are views of the
    clean run's: a layer that adds keys puts a longer tensor in their place.
    """
    if cache is None:
        raise UsageError("suffix=True needs a run made with keep='resume', on the same tokens.")
    known = DynamicCache()
    for number, (keys, values) in enumerate(cache):
        layer = DynamicLayer()
        if number == 0 or number >= first:
            layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
            layer.keys, layer.values = keys.narrow(2, 0, length), values.narrow(2, 0, length)
        known.layers.append(layer)
    return known


@contextmanager
def skipping(model: "Model", call: Call, streams: dict[int, Tensor] | None, first: int, start: int = 0) -> Iterator[None]:
    """Let the blocks before `first` hand on the clean run's stream, from token `start`, instead of computing it again."""
    if streams is None:
        raise UsageError("resume= needs a run made with keep='resume', on the same tokens.")
    if first == 0:
        yield
        return
    stream = streams[first - 1][:, start:]
    with model.lock, ExitStack() as undo:
        for block in model.blocks[:first]:
            undo.callback(_restore, block, vars(block).get("forward"))
            vars(block)["forward"] = _hand_on(block.forward, call, stream, as_tuple=model.adapter.blocks_return_tuples)
        yield


def _restore(block: nn.Module, forward: Callable[..., Any] | None) -> None:
    """Undo the handing on: what the block itself had as `forward`, or the method of its class."""
    if forward is not None:
        vars(block)["forward"] = forward
    else:
        vars(block).pop("forward", None)


def _hand_on(forward: Callable[..., Any], call: Call, stream: Tensor, *, as_tuple: bool) -> Callable[..., Any]:
    def skip(*args: Any, **kwargs: Any) -> Any:
        if current() is not call:  # another thread may run the same block
            return forward(*args, **kwargs)
        return (stream, None) if as_tuple else stream

    return skip
