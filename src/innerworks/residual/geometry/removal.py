"""What does it cost to take dimensions out of the stream? Against as many others, and against as large a change elsewhere.

At every layer of a stretch, at every position but the first, the dimensions are set to zero, or to their mean over ordinary
tokens of the discovery half. Two sorts of control, 20 draws each:
1. *other dimensions*: as many of those that stick out nowhere, set to zero or to their means likewise;
2. *directions*: what the ablation takes is subtracted along random orthonormal directions outside these dimensions instead. The
   change of the stream has the same length on every token, and what was there stays there.
A dimension is large, so that taking it out is a large change by itself: only the second control tells size from meaning.
Kovaleva et al. 2021, arXiv:2105.06990; Sun et al. 2024, arXiv:2402.17762 (zero and mean differ).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.model import Mean, Model, Run, ablate
from innerworks.model.call import Handler
from innerworks.model.harms import Way
from innerworks.model.run import Watch
from innerworks.sites import Site
from innerworks.stats import CONSTANTS

How = Literal["zero", "mean"]
HOWS: tuple[How, How] = ("zero", "mean")


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Some dimensions, the foremost first, and the layers (both ends included) behind which they are taken out."""

    dimensions: tuple[int, ...]
    first: int
    last: int

    @property
    def layers(self) -> range:
        """The layers."""
        return range(self.first, self.last + 1)

    def __str__(self) -> str:
        """As arrays are called after it."""
        return f"L{self.first}-{self.last}"


def removed(model: Model, stretch: Stretch, how: How, mean: Mean) -> Way:
    """Run again without some dimensions."""
    sites = [Site(layer=layer, dimension=dimension) for layer in stretch.layers for dimension in stretch.dimensions]
    edits = [ablate(site, how, mean=mean if how == "mean" else None) for site in sites]

    def way(clean: Run) -> Run:
        return model.run(clean.tokens, mask=clean.mask, edit=edits, resume=clean, logits="none")

    return way


def turned(model: Model, stretch: Stretch, how: How, mean: Mean, along: Float[Tensor, "some d_model"]) -> Way:
    """Run again with the same taken from the stream along other directions."""

    def way(clean: Run) -> Run:
        taken = _Taken(stretch=stretch, how=how, mean=mean, along=along.to(model.device))
        watch: list[Watch] = [(Site(layer=layer, kind="resid_post"), taken.handler(layer)) for layer in stretch.layers]
        return model.run(clean.tokens, mask=clean.mask, watch=watch, resume=clean, logits="none")

    return way


@dataclass(kw_only=True)
class _Taken:
    """What one run has lost so far: the stream keeps it lost, so that each layer only takes what is still missing."""

    stretch: Stretch
    how: How
    mean: Mean
    along: Tensor
    so_far: Tensor | None = None

    def handler(self, layer: int) -> Handler:
        """What is taken behind one layer."""
        means = self.mean.of(Site(layer=layer, kind="resid_post"))[list(self.stretch.dimensions)]

        def take(stream: Tensor, queries: slice) -> Tensor:
            there = stream[..., list(self.stretch.dimensions)].float()
            wanted = (there - means.to(there) if self.how == "mean" else there) @ self.along
            wanted[:, 0] = 0.0
            still = wanted if self.so_far is None else wanted - self.so_far
            self.so_far = wanted
            return stream - still.to(stream.dtype)

        return take


def other_stretches(stretch: Stretch, known: Sequence[int], width: int, *, seed: int) -> list[Stretch]:
    """The same layers with as many dimensions drawn from those that stick out nowhere; 20 draws."""
    rng = np.random.default_rng([seed, stretch.first, stretch.last])
    others = np.setdiff1d(np.arange(width), known)
    draws = [rng.choice(others, size=len(stretch.dimensions), replace=False).tolist() for _ in range(CONSTANTS.controls)]
    return [Stretch(dimensions=tuple(draw), first=stretch.first, last=stretch.last) for draw in draws]


def other_directions(stretch: Stretch, width: int, *, seed: int) -> list[Float[Tensor, "some d_model"]]:
    """As many orthonormal directions as there are dimensions, and orthogonal to these; 20 draws."""
    generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, stretch.first, stretch.last]).integers(2**31)))
    draws = []
    for _ in range(CONSTANTS.controls):
        drawn = torch.randn(width, len(stretch.dimensions), generator=generator)
        drawn[list(stretch.dimensions)] = 0.0
        q, r = torch.linalg.qr(drawn)
        draws.append((q * r.diagonal().sign()).T)
    return draws
