"""A cache that rolls: the first few tokens (the sinks) and the latest ones, at constant memory, on any Hugging Face forward.

1. The newest token counts into the window: each query sees `sinks + window` tokens, itself the last, as in a fresh forward.
2. Positions are places in the cache, not in the text: when the token after the sinks leaves, those behind it move up by one.
3. Keys are kept as they arrived and turned, at each use, from where they arrived to where they are (`rotation.py`): each is
   turned once, so rounding does not add up however long the text grows, and a key that never moved is bit for bit what it was.

The reference code of Xiao et al. 2023 (arXiv:2309.17453) keeps keys from before the rotation, which Hugging Face's attention does
not hand to its cache; turning an arrived key by the difference gives the same. There, the query comes on top of sinks + window.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from innerworks.errors import UsageError
from innerworks.heads.streaming.rotation import Rotation, rotations
from innerworks.model import Model


class RollingLayer(DynamicLayer):
    """One layer's part of the cache. turn: how its keys are rotated, None where they are not."""

    is_croppable = False  # what has left cannot come back

    def __init__(self, *, sinks: int, window: int, turn: Rotation | None) -> None:
        super().__init__()
        self.sinks, self.size, self.turn = sinks, sinks + window, turn
        self.arrived = torch.zeros(0, dtype=torch.long)  # position in the cache at which each kept key was rotated

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Float[Tensor, "batch kv_head key d_head"], Float[Tensor, "batch kv_head key d_head"]]:
        """Take in new keys and values and return all that the queries see, keys turned to their places."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.arrived = self.arrived.to(key_states.device)
        before, new = self.get_seq_length(), key_states.shape[-2]
        if before + new > self.size:
            raise UsageError(f"{new} tokens at once, with room for {self.size - before}: past that, give one token at a time.")
        places = torch.arange(before + new, device=key_states.device)
        full = len(self.arrived) == self.size
        self.arrived = torch.cat((*self._staying(self.arrived, full, dim=0), places[before:]))
        self.keys = torch.cat((*self._staying(self.keys, full, dim=-2), key_states), dim=-2)
        self.values = torch.cat((*self._staying(self.values, full, dim=-2), value_states), dim=-2)
        age = self.arrived - places
        return self.keys if self.turn is None or not bool(age.any()) else self.turn(self.keys, age), self.values

    def _staying(self, kept: Tensor | None, full: bool, *, dim: int) -> tuple[Tensor, ...]:
        """What makes room for one more token: of a full cache, all but the first after the sinks."""
        assert kept is not None
        if not full:
            return (kept,)
        return kept.narrow(dim, 0, self.sinks), kept.narrow(dim, self.sinks + 1, self.size - self.sinks - 1)

    def get_seq_length(self) -> int:
        """How many tokens lie behind the next one: a full cache first drops one."""
        return min(super().get_seq_length(), self.size - 1)

    def get_max_length(self) -> int:
        """How many tokens a query sees at most."""
        return self.size

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse: what has left the cache cannot come back."""
        raise UsageError("A rolling cache cannot be cropped: what has left it cannot come back.")


class RollingCache(Cache):
    """A transformers cache for `model.hf`, `model.decoder` or `advance`: hand it over as `past_key_values`.

    Give position ids that count on from `get_seq_length()`, which stops growing once the cache is full, and an attention mask
    as long as what the queries see (or none). `generate` counts the whole text instead: use `stream`.
    """

    def __init__(self, turns: tuple[Rotation | None, ...], *, sinks: int, window: int) -> None:
        self.sinks, self.window, self.size = sinks, window, _size(sinks, window)
        layers: list[Any] = [RollingLayer(sinks=sinks, window=window, turn=turn) for turn in turns]
        super().__init__(layers=layers)

    @classmethod
    def of(cls, model: Model, *, sinks: int = 4, window: int = 252) -> "RollingCache":
        """Make an empty one, after proving that this model's keys can be moved (see `rotations` for what is refused)."""
        return cls(rotations(model, _size(sinks, window)), sinks=sinks, window=window)

    @property
    def room(self) -> int:
        """How many tokens can come at once: until it is full that many, then one."""
        return self.size - self.get_seq_length()

    @property
    def bytes(self) -> int:
        """What its keys and values take."""
        layers: Any = self.layers
        kept = [x for layer in layers if layer.is_initialized for x in (layer.keys, layer.values)]
        return sum(x.numel() * x.element_size() for x in kept)


def _size(sinks: int, window: int) -> int:
    if sinks < 0 or window < 1:
        raise UsageError(f"sinks={sinks}, window={window}: at least 0 and 1.")
    return sinks + window


@torch.no_grad()
def advance(model: Model, tokens: Int[Tensor, "batch new"], cache: Cache) -> Float[Tensor, "batch new d_model"]:
    """The stream after the final norm at new tokens, which go on from what the cache holds; `model.readout` makes it logits."""
    behind, (batch, new) = int(cache.get_seq_length()), tokens.shape
    decoder: Any = model.decoder
    return decoder(
        input_ids=tokens.to(model.device),
        attention_mask=torch.ones(batch, behind + new, dtype=torch.long, device=model.device),
        position_ids=(behind + torch.arange(new, device=model.device)).expand(batch, -1),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
