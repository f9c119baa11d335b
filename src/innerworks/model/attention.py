"""Attention as transformers computes it, opened up while a call asks for it and untouched otherwise.

1. `install` points a model at an attention function and a mask function of ours, registered in both of transformers'
   registries (with only the first, the causal mask would silently be lost).
2. Outside a call, and at layers where a call wants nothing of attention, the model's own attention runs.
3. At a layer where q, k, v, scores or the pattern are wanted, keys and values are repeated to one per query head, and the
   probabilities are computed in blocks of queries, so a long window needs no `seq x seq` matrix in memory at once.

The switch is a context variable read inside the functions: threads do not race.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from innerworks.errors import UnsupportedModel
from innerworks.model.call import Call, Capture, current

PREFIX = "innerworks_"
BASES = ("sdpa", "eager")
BLOCK_ELEMENTS = 1 << 25  # probabilities held at once: 128 MiB in float32
UNKNOWN_ARITHMETIC = ("s_aux", "position_bias", "cache")  # arguments with which other families compute something else


def install(hf: PreTrainedModel, config: Any) -> None:
    """Let the model's attention go through ours; its own implementation keeps doing the work where nothing is asked."""
    base = config._attn_implementation or "sdpa"
    if base.startswith(PREFIX):
        return
    if base not in BASES:
        raise UnsupportedModel(
            f"{type(hf).__name__} was loaded with attn_implementation={base!r}, which cannot be opened up. "
            "Call hf.set_attn_implementation('sdpa') first ('eager' for families with soft-capped scores), or load it with that."
        )
    AttentionInterface.register(PREFIX + base, _over(base))
    AttentionMaskInterface.register(PREFIX + base, _mask_over(base))
    config._attn_implementation = PREFIX + base


def _mask_over(base: str) -> Callable[..., Tensor | None]:
    def mask(*args: Any, **kwargs: Any) -> Tensor | None:
        call = current()
        if call is not None and call.opens_attention:
            return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})
        return ALL_MASK_ATTENTION_FUNCTIONS[base](*args, **kwargs)

    return mask


def _over(base: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        call, layer = current(), module.layer_idx
        assert isinstance(layer, int)
        if isinstance(call, Capture):
            return _captured(call, query, key, value)
        if call is None or not call.opens(layer):
            return _plain(base, module, query, key, value, attention_mask, **kwargs)
        strange = [name for name in UNKNOWN_ARITHMETIC if kwargs.get(name) is not None]
        if strange or attention_mask is None:
            raise UnsupportedModel(
                f"{type(module).__name__} gives its attention {', '.join(strange) or 'no mask'}, which is not handled when its "
                "scores and patterns are looked at. Record z instead."
            )
        return _opened(call, layer, query, key, value, attention_mask, **kwargs), None

    return attention


def _plain(
    base: str, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The model's own attention."""
    if base == "sdpa":
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, **kwargs)
    if mask is not None and mask.dtype == torch.bool:  # made for another layer, which is opened up
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
    eager = sys.modules[type(module).__module__].eager_attention_forward
    return eager(module, query, key, value, mask, **kwargs)


def _captured(call: Capture, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, None]:
    """Keep q, k and v, and hand on anything of the right shape: what follows is thrown away."""
    groups = query.shape[1] // key.shape[1]
    call.captured = {"q": query, "k": repeat_kv(key, groups), "v": repeat_kv(value, groups)}
    return query.new_zeros(*query.shape[:3], value.shape[-1]).transpose(1, 2), None


def _opened(
    call: Call,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **rest: Any,
) -> Tensor:
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    groups = query.shape[1] // key.shape[1]
    parts = {"q": query, "k": repeat_kv(key, groups), "v": repeat_kv(value, groups)}
    _take_edited_inputs(call, layer, parts)
    query, key, value = (_by_position(call, name, layer, x) for name, x in parts.items())
    batch, heads, length, _ = query.shape
    rows = length if torch.is_grad_enabled() else max(1, BLOCK_ELEMENTS // (batch * heads * key.shape[2]))
    read = []
    for start in range(0, length, rows):
        block = slice(start, min(start + rows, length))
        scores = (query[:, :, block] @ key.transpose(2, 3)) * factor
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        hidden, lowest = ~mask[:, :, block], torch.finfo(scores.dtype).min
        scores = call.at("scores", layer, scores.masked_fill(hidden, lowest), block)
        scores = scores.masked_fill(hidden, lowest) if call.wants("scores", layer) else scores  # whatever an edit put there
        wide = torch.promote_types(scores.dtype, torch.float32)
        pattern = torch.softmax(scores, dim=-1, dtype=wide).to(query.dtype)
        pattern = call.at("pattern", layer, pattern, block)
        read.append(pattern @ value)
    return torch.cat(read, dim=2).transpose(1, 2).contiguous()


def _take_edited_inputs(call: Call, layer: int, parts: dict[str, Tensor]) -> None:
    """Put in place what heads would have computed from the stream that an edit made them read."""
    for letter, head, edited in call.read.pop(layer, ()):
        if head is None:
            parts[letter] = edited
        else:
            parts[letter] = parts[letter].clone()
            parts[letter][:, head] = edited[:, head]


def _by_position(call: Call, kind: str, layer: int, tensor: Tensor) -> Tensor:
    if not call.wants(kind, layer):
        return tensor
    return call.at(kind, layer, tensor.transpose(1, 2)).transpose(1, 2)
