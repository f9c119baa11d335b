"""Which neuron of the other model is most like each neuron of this one, and how alike is the best of as many rotated ones?

Correlations of all neurons with all neurons are never held: of each layer of B (`[place, neuron]`, as it is and rotated) against
each layer of A, only the best match of each neuron of A is kept.

*The baseline.* Among 46,080 neurons the best match correlates by chance, and more so because activations share a few directions
(frequent tokens, positions). The same activations in another basis, `a_B(layer) Q` with Q orthogonal and uniform (Haar), have all
of that structure but not the neurons. What the match of a neuron has beyond the best of these, it owes to the neurons of B.

*Sign.* Where either family is gated, a neuron and its negative are the same neuron (turn the signs of what it reads and writes),
so matches go by the absolute correlation; else a neuron must fire where the other fires.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerworks.model import Model
from innerworks.neurons.universal.activations import by_block, layers_of
from innerworks.neurons.universal.stretches import Texts

SIDES = ("neurons", "rotated")  # what a neuron is matched with
FLAT = 1e-6  # of its root mean square, a neuron that varies less than this is constant


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Of each neuron of A, its best match among the neurons of B, and among rotated ones; arrays `[side, layer, neuron]`.

    Layers are counted among those that have neurons. correlation: on discovery, with its sign; 0 where a neuron is constant.
    """

    layer: Int[Tensor, "side layer neuron"]
    index: Int[Tensor, "side layer neuron"]
    correlation: Float[Tensor, "side layer neuron"]


def gated(model: Model) -> bool:
    """Are its neurons products of a gate and a value?"""
    return any(model.part(part, layer) is not None for part in ("mlp_gate", "mlp_gate_in") for layer in layers_of(model))


def rotation(neurons: int, layer: int, *, seed: int) -> Float[Tensor, "neuron neuron"]:
    """A uniformly random orthogonal matrix for a layer of B (QR of a Gaussian, Stewart 1980)."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + layer)
    q, r = torch.linalg.qr(torch.randn(neurons, neurons, generator=generator))
    return q * r.diagonal().sign()


def matches(
    models: tuple[Model, Model],
    texts: Texts,
    *,
    seed: int,
    step: Callable[[int], None] = lambda places: None,
) -> Matches:
    """Find the best matches of all neurons of A. step: called with places read."""
    a, b = models
    best = _Best.among(len(layers_of(a)), a.anatomy.neurons, signed=not (gated(a) or gated(b)), device=a.device)
    sides = [[one.sides[which] for one in texts.stretches] for which in (0, 1)]
    done_a = 0
    for layers_a, own in by_block(a, sides[0], device=a.device, step=step):
        own, done_b = standardised(own), 0
        for layers_b, others in by_block(b, sides[1], device=a.device, step=step):
            for number, other in enumerate(others, start=done_b):
                turned = other @ rotation(b.anatomy.neurons, number, seed=seed).to(other.device)
                for side, columns in enumerate((other, turned)):
                    columns = standardised(columns)
                    for i in range(len(layers_a)):
                        best.offer(side, done_a + i, own[i].T @ columns, number)
            done_b += len(layers_b)
        done_a += len(layers_a)
    return best.matches()


def standardised(activations: Float[Tensor, "*layer place neuron"]) -> Float[Tensor, "*layer place neuron"]:
    """Mean zero and norm one over places, so that products are correlations; zero where a neuron is constant."""
    size = activations.square().mean(dim=-2, keepdim=True).sqrt()
    centred = activations - activations.mean(dim=-2, keepdim=True)
    spread = centred.square().mean(dim=-2, keepdim=True).sqrt()
    return torch.where(spread > FLAT * size, centred / (spread * activations.shape[-2] ** 0.5), 0.0)


@dataclass
class _Best:
    """The best matches so far."""

    signed: bool
    score: Tensor
    layer: Tensor
    index: Tensor
    correlation: Tensor = field(repr=False)

    @classmethod
    def among(cls, layers: int, neurons: int, *, signed: bool, device: torch.device) -> "_Best":
        shape = (len(SIDES), layers, neurons)
        number = torch.zeros(shape, dtype=torch.long, device=device)
        score = torch.full(shape, -torch.inf, device=device)
        return cls(signed=signed, score=score, layer=number, index=number.clone(), correlation=torch.zeros(shape, device=device))

    def offer(self, side: int, layer: int, correlations: Float[Tensor, "neuron other"], of_layer: int) -> None:
        """Take what is better than before."""
        score, index = (correlations if self.signed else correlations.abs()).max(dim=1)
        better = score > self.score[side, layer]
        found = correlations.gather(1, index[:, None])[:, 0]
        for kept, new in ((self.score, score), (self.index, index), (self.correlation, found)):
            kept[side, layer] = torch.where(better, new, kept[side, layer])
        self.layer[side, layer][better] = of_layer

    def matches(self) -> Matches:
        return Matches(layer=self.layer, index=self.index, correlation=self.correlation)
