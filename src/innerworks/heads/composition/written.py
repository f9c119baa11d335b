"""What did a head write into the stream, around what it writes on average?

1. A head writes `z W_O`; what its mean ablation takes away is `(z - mean) W_O`, one vector per token. The first position is left
   alone.
2. Where a norm lies behind attention (Gemma 2 and 3, OLMo 2), what reaches the stream is what that norm makes of it, its scale
   held at what it was: the parts of one token then still add up.
3. Later layers see it as a term of the stream they read, in blocks whose attention and feed-forward are parallel, too.
4. A control of equal size is the same vector turned by a fixed random rotation of the stream.

Not done: models that norm the stream itself after each addition (post-LN): there no head's output reaches a later layer as it was
written. `circuits.embedding.refusal` names them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import special_ortho_group
from torch import Tensor

from innerworks.heads.ablation import Rotated
from innerworks.heads.harms import Head
from innerworks.model import Mean, Model, Run
from innerworks.model.norms import Norm
from innerworks.sites import Site, head_site

Sender = Head | Rotated


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A clean run that recorded `z`, and the means around which heads write."""

    model: Model
    clean: Run
    mean: Mean

    def of(self, senders: Iterable[Sender]) -> Float[Tensor, "batch seq d_model"]:
        """What some heads wrote into the stream together, around their means; zero at first positions. In units of the stream."""
        parts = torch.stack([self._of(sender) for sender in senders])
        return parts.sum(dim=0)

    def _of(self, sender: Sender) -> Float[Tensor, "batch seq d_model"]:
        layer, head = sender[0], sender[1]
        z = self.clean[head_site(layer, head)].float()
        centre = self.mean.of(Site(layer=layer, head=head)).to(z)
        written = (z - centre) @ self.model.weights.W_O(layer)[head].float()
        if self.model.adapter.post_norms:
            norm = Norm.of(self.model.require_part("attention_added", layer))
            written = norm.linear(written, norm.scale(self._computed(layer)))
        if len(sender) == 3:
            written = written @ rotation(written.shape[-1], sender).to(written)
        written[:, 0] = 0.0
        return written

    def _computed(self, layer: int) -> Float[Tensor, "batch seq d_model"]:
        """What attention computed, before the norm behind it."""
        z = self.clean[f"L{layer}.z"].float()
        weights = self.model.weights
        return z.flatten(-2) @ weights.W_O(layer).float().flatten(0, 1) + weights.b_O(layer).float()


def rotation(width: int, sender: Rotated) -> Float[Tensor, "d_model d_model"]:
    """The random rotation of a control, the same at every call."""
    rng = np.random.default_rng([*sender])
    return torch.from_numpy(special_ortho_group.rvs(width, random_state=rng)).float()
