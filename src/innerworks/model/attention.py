"""Attention as transformers computes it, opened up while a call asks for it and untouched otherwise.

1. `install` points a model at an attention function and a mask function of ours, registered in both of transformers'
   registries (with only the first, the causal mask would silently be lost).
2. Outside a call, and at layers where a call wants nothing of attention, the model's own fast attention runs.
3. At a layer where q, k, v or the pattern is wanted, keys and values are repeated to one per query head, and the
   probabilities are computed in blocks of queries, so a long window needs no `seq x seq` matrix in memory at once.

The switch is a context variable read inside the functions: threads do not race.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from innerworks.errors import UnsupportedModel
from innerworks.model.call import current

PREFIX = "innerworks_"
BASE = "sdpa"
BLOCK_ELEMENTS = 1 << 25  # probabilities held at once: 128 MiB in float32


def install(hf: PreTrainedModel) -> None:
    """Let the model's attention go through ours; its own implementation keeps doing the work where nothing is asked."""
    base = hf.config._attn_implementation or "sdpa"
    if base.startswith(PREFIX):
        return
    if base != BASE:
        raise UnsupportedModel(
            f"{type(hf).__name__} was loaded with attn_implementation={base!r}; ours opens up {BASE!r} and leaves everything "
            f"else as it is. Call hf.set_attn_implementation({BASE!r}) first, or load the model with it."
        )
    AttentionInterface.register(PREFIX + base, _attention)
    AttentionMaskInterface.register(PREFIX + base, _mask)
    hf.config._attn_implementation = PREFIX + base


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    call = current()
    if call is not None and call.opens_attention:
        return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})
    return ALL_MASK_ATTENTION_FUNCTIONS["sdpa"](*args, **kwargs)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    call, layer = current(), module.layer_idx
    assert isinstance(layer, int)
    if call is None or not call.opens(layer):
        plain = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return plain(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
    assert attention_mask is not None and scaling is not None
    groups = query.shape[1] // key.shape[1]
    query, key, value = query, repeat_kv(key, groups), repeat_kv(value, groups)
    query, key, value = (_by_position(call, name, layer, x) for name, x in (("q", query), ("k", key), ("v", value)))
    batch, heads, length, _ = query.shape
    rows = max(1, BLOCK_ELEMENTS // (batch * heads * key.shape[2]))
    read = []
    for start in range(0, length, rows):
        block = slice(start, min(start + rows, length))
        scores = (query[:, :, block] @ key.transpose(2, 3)) * scaling
        scores = scores.masked_fill(~attention_mask[:, :, block], torch.finfo(scores.dtype).min)
        pattern = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
        pattern = call.at("pattern", layer, pattern, block)
        read.append(pattern @ value)
    return torch.cat(read, dim=2).transpose(1, 2).contiguous(), None


def _by_position(call: Any, kind: str, layer: int, tensor: Tensor) -> Tensor:
    if not call.wants(kind, layer):
        return tensor
    return call.at(kind, layer, tensor.transpose(1, 2)).transpose(1, 2)
