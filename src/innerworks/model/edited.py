"""Edits in force around code that is not ours, such as Hugging Face's `generate`.

At every forward, the positions of what passes are read off the attention mask and the cache, so that an edit of position 7
meets position 7 whether the text is computed at once or token by token.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from innerworks.errors import UsageError
from innerworks.model.call import Call, Positions, current, position_ids
from innerworks.model.edit import Edit, applies
from innerworks.model.hooks import hooked
from innerworks.model.run import add_edits, check_fired

if TYPE_CHECKING:
    from innerworks.model.model import Model


@contextmanager
def edited(model: "Model", edits: Sequence[Edit]) -> Iterator[None]:
    """Keep edits in force inside the block; see `Model.edited`."""
    if current() is not None:
        raise UsageError("model.edited inside model.edited would hide the outer edits: give all of them at once.")
    call = Call(Positions(ids=torch.zeros(1, 0, dtype=torch.long), growing=True))
    add_edits(model, call, edits)

    given: dict[str, Any] = {}  # what the model itself was called with
    waiting = list(edits)  # those that no token has met yet

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if current() is call:
            given["attention_mask"] = kwargs.get("attention_mask")

    def follow(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if current() is call:
            made = isinstance(kwargs.get("attention_mask"), dict)  # by a multimodal wrapper, one for each kind of layer
            _follow(call.positions, args, {**kwargs, **given} if made else kwargs)
            waiting[:] = [one for one in waiting if not applies(one, call.positions)]

    with ExitStack() as undo:
        for module, hook in ((model.hf, note), (model.decoder, follow)):
            undo.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        with hooked(model, call), call.running():
            yield
    check_fired(model, call)
    if waiting:
        raise UsageError(f"{waiting[0].says}: no text reached its positions, so nothing was edited.")


def _follow(positions: Positions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Note which positions this forward computes, and how many lie behind in the cache."""
    given = args[0] if args else kwargs.get("input_ids") if kwargs.get("input_ids") is not None else kwargs.get("inputs_embeds")
    assert isinstance(given, Tensor)
    batch, length = given.shape[:2]
    cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
    behind = 0 if cache is None else int(cache.get_seq_length())
    if mask is not None and (not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[1] != behind + length):
        raise UsageError("Edits under a static or compiled cache are not handled: generate with the default (dynamic) cache.")
    seen = torch.ones(batch, behind + length, device=given.device, dtype=torch.bool) if mask is None else mask.bool()
    positions.ids, positions.real, positions.offset = position_ids(seen), seen, behind
