"""Can the positions of cached keys be changed afterwards? For rotary positions yes: turn each key by the difference.

A Hugging Face cache holds keys that are already rotated, `k = R(p) W_K x`. Since `R(p') = R(p' - p) R(p)`, a key that arrived
at position p is moved to p' by one more turn, whatever the family rotates: all dimensions or some, at scaled frequencies or not.

1. Ask the model's own rotary module for cosines and sines at 0, -1, -2, ...; divide out what a family scales them by.
2. Apply them with the family's own function.
3. Prove it on this machine: the same short text at positions 0, 1, ... and at the end of the cache has, in *every* layer, keys
   that differ by exactly that turn. This holds only if the model knows nothing of its positions but their differences.

Not done: learned absolute positions (GPT-2, OPT, GPT-Neo) cannot be re-based, since they went through all layers; GPT-J rotates
by a table of its own. Both are refused. Su et al. 2021, arXiv:2104.09864.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from innerworks.errors import UnsupportedModel, UsageError
from innerworks.model import Model

PROBE = 8  # tokens of the text that is read at two places
ALLOWED = {torch.float32: 1e-3, torch.float64: 1e-6}  # relative difference (root mean square) of moved and computed keys
ALLOWED_ROUGH = 0.05  # in bfloat16 and float16


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """How one layer turns keys. cos, sin: of minus 0, 1, 2, ... positions, without any scale; apply: its family's function."""

    cos: Float[Tensor, "age rotated"]
    sin: Float[Tensor, "age rotated"]
    apply: Callable[..., Any]

    def __call__(
        self, keys: Float[Tensor, "batch kv_head key d_head"], age: Int[Tensor, " key"]
    ) -> Float[Tensor, "batch kv_head key d_head"]:
        """Turn each key back by `age` positions, computing in float32 and rounding once; what is not rotated passes."""
        rotated = self.cos.shape[-1]
        turning = keys[..., :rotated].float()
        _, turned = self.apply(turning[:, :0], turning, self.cos[age][None], self.sin[age][None])
        turned = turned.to(keys.dtype)
        return turned if rotated == keys.shape[-1] else torch.cat((turned, keys[..., rotated:]), dim=-1)


def rotations(model: Model, size: int) -> tuple[Rotation | None, ...]:
    """How does each layer turn its keys, over a cache of `size` tokens? None: it knows no positions, or by index (ALiBi).

    Raises UnsupportedModel where positions cannot be re-based, UsageError where the cache is longer than the model can look.
    """
    _refuse(model, size)
    found = tuple(_rotation(model, layer, size) for layer in range(model.anatomy.layers))
    _prove(model, found, size)
    return found


def _refuse(model: Model, size: int) -> None:
    family, limit, own = model.anatomy.family, model.anatomy.max_positions, own_window(model)
    if model.adapter.positions is not None:
        raise UnsupportedModel(
            f"{model.name} ({family}) learned an embedding for each position, which its keys have gone through all layers with: "
            "cached tokens cannot be moved to other positions. Stream a model with rotary positions or ALiBi."
        )
    if limit is not None and size > limit:
        raise UsageError(f"A cache of {size} tokens is longer than the {limit} positions of {model.name}. Keep fewer.")
    if own is not None and size > own:
        raise UsageError(
            f"A cache of {size} tokens: {model.name} ({family}) has layers that see the last {own} tokens only: the sinks would "
            f"be hidden from them. Choose sinks + window of at most {own}."
        )


def own_window(model: Model) -> int | None:
    """The sliding window of the model's own, in tokens, if any layer has one."""
    window, kinds = getattr(model.config, "sliding_window", None), getattr(model.config, "layer_types", None)
    return None if kinds is not None and "sliding_attention" not in kinds else window


def _rotation(model: Model, layer: int, size: int) -> Rotation | None:
    if not model.adapter.rotary(model.config, layer):
        return None
    code = sys.modules[type(model.require_part("attention", layer)).__module__]
    module, apply = getattr(model.decoder, "rotary_emb", None), getattr(code, "apply_rotary_pos_emb", None)
    if module is None or apply is None:
        raise UnsupportedModel(
            f"{model.name} ({model.anatomy.family}) rotates keys by a table of its own, not by a rotary module: "
            "how to turn them further is not known here."
        )
    positions = -torch.arange(size, device=model.device)[None]
    kind = (model.config.layer_types[layer],) if "layer_type" in signature(module.forward).parameters else ()
    cos, sin = module(torch.zeros(1, device=model.device), positions, *kind)
    scale = cos[0, :1]  # the cosine of no turn at all: 1, but for families that scale what they rotate (yarn, longrope)
    return Rotation(cos=cos[0] / scale, sin=sin[0] / scale, apply=apply)


def _prove(model: Model, found: tuple[Rotation | None, ...], size: int) -> None:
    """Read the same tokens at the beginning and at the end of the cache; refuse if keys do not differ by the turn alone."""
    length = max(1, min(PROBE, size // 2))
    shift = size - length
    here, there = keys_at(model, length, 0), keys_at(model, length, shift)
    allowed = ALLOWED.get(here[0].dtype, ALLOWED_ROUGH)
    for layer, (turn, first, last) in enumerate(zip(found, here, there, strict=True)):
        moved = last if turn is None else turn(last, torch.full((length,), shift, device=last.device))
        difference = float((moved.float() - first.float()).norm() / first.float().norm())
        if not difference <= allowed:
            raise UnsupportedModel(
                f"{model.name} ({model.anatomy.family}): keys of layer {layer} at position {shift}, turned back to 0, differ "
                f"from those computed there by {difference:.2g} of their size (allowed: {allowed:g}): its cache cannot roll."
            )


@torch.no_grad()
def keys_at(model: Model, length: int, shift: int) -> list[Float[Tensor, "batch kv_head key d_head"]]:
    """Cached keys of every layer for a fixed short text that begins at position `shift`."""
    tokens = (1 + 7 * torch.arange(length, device=model.device)[None]) % model.anatomy.vocab
    cache = DynamicCache()
    decoder: Any = model.decoder
    decoder(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        position_ids=shift + torch.arange(length, device=model.device)[None],
        past_key_values=cache,
        use_cache=True,
    )
    layers: Any = cache.layers
    return [layer.keys for layer in layers]
