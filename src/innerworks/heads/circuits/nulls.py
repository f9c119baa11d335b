"""What would a circuit score if its parts did not belong together? Mismatched parts of the same model.

1. A head's OV circuit has two parts: what it reads (`W_V`) and what it writes (`W_O`). A *mismatched* circuit joins the W_V
   of one head to the W_O of another, of another layer: both parts are real, trained parts of this very model.
2. Between the two lies a random rotation of `d_head` dimensions (Haar): those dimensions have no names, since rotating them
   within one head changes nothing in the model; without the rotation, which dimension meets which would be an accident of
   training.
3. All draws of a model are pooled; `p = (1 + #{null >= score}) / (1 + #null)`.

How many: 20 for each head and family let a single head of a single family through Benjamini-Hochberg over all heads. In
models of more than 100 heads that is cut to 6,000 draws, and never to fewer than 20 per head (at most 20,000): there at least
`families * heads / (.05 * draws)` heads, 3 of SmolLM2's 270, must be alike for the first of them to be named. What it does
not do: say how a score would vary over text. Weights have no units.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerworks.model import Model
from innerworks.stats import Array

FAMILIES = 3  # copying, anti_copying, successor: false discoveries are controlled over them together
DRAWS_PER_HEAD = 20
ENOUGH_DRAWS = 6_000
MOST_DRAWS = 20_000
TURNS = 256  # rotations drawn; each is used many times
NUMBERS_AT_ONCE = 1 << 23  # 32 MiB of gathered weights


@dataclass(frozen=True, kw_only=True)
class Circuits:
    """The OV circuits of all heads: layer by layer, heads in order. Norms before and behind are folded in."""

    value: Float[Tensor, "some_kv d_model d_head"]
    output: Float[Tensor, "some_head d_head d_model"]
    layers: int

    @classmethod
    def of(cls, model: Model) -> "Circuits":
        """Read them off a model's weights."""
        layers = range(model.anatomy.layers)
        value = torch.cat([model.weights.W_V(layer, fold=True) for layer in layers])
        output = torch.cat([model.weights.W_O(layer, fold=True) for layer in layers])
        return cls(value=value, output=output, layers=len(layers))

    @property
    def heads(self) -> int:
        """How many heads there are in all."""
        return len(self.output)

    def layer(self, head: Int[Tensor, "*some"]) -> Int[Tensor, "*some"]:
        """The layer of each head."""
        return head // (self.heads // self.layers)

    def kv(self, head: Int[Tensor, "*some"]) -> Int[Tensor, "*some"]:
        """Which W_V each head reads through; query heads may share one."""
        return head // (self.heads // len(self.value))

    @property
    def kv_layer(self) -> Int[Tensor, " some_kv"]:
        """The layer of each W_V."""
        return torch.arange(len(self.value)) // (len(self.value) // self.layers)


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Which W_V is joined to which W_O, and through which rotation: the heads as they are, or mismatched."""

    reader: Int[Tensor, " pair"]  # whose W_V
    writer: Int[Tensor, " pair"]  # whose W_O
    turns: Float[Tensor, "turn d_head d_head"]
    turn: Int[Tensor, " pair"]

    def batches(self, size: int) -> Iterator["Pairing"]:
        """A few pairs at a time; size: numbers that one pair gathers."""
        for some in torch.arange(len(self.reader)).split(max(1, NUMBERS_AT_ONCE // size)):
            yield Pairing(reader=self.reader[some], writer=self.writer[some], turns=self.turns, turn=self.turn[some])


def own(circuits: Circuits) -> Pairing:
    """Every head as it is."""
    heads = torch.arange(circuits.heads)
    identity = torch.eye(circuits.output.shape[1]).to(circuits.output)
    return Pairing(reader=heads, writer=heads, turns=identity[None], turn=torch.zeros_like(heads))


def mismatched(circuits: Circuits, draws: int, *, seed: int = 0) -> Pairing:
    """Parts of heads of different layers (of different heads where there is one layer), joined through random rotations."""
    rng, per_layer = np.random.default_rng(seed), circuits.heads // circuits.layers
    reader = rng.integers(circuits.heads, size=draws)
    if circuits.layers > 1:
        step = rng.integers(per_layer, circuits.heads, size=draws)  # past the heads of its own layer, cyclic
        writer = (reader - reader % per_layer + step) % circuits.heads
    else:
        writer = (reader + rng.integers(1, max(2, circuits.heads), size=draws)) % circuits.heads
    width, generator = circuits.output.shape[1], torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(TURNS, width, width, generator=generator))
    turns = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    return Pairing(
        reader=torch.from_numpy(reader),
        writer=torch.from_numpy(writer),
        turns=turns.to(circuits.output),
        turn=torch.from_numpy(rng.integers(TURNS, size=draws)),
    )


def draws_for(heads: int, *, families: int = FAMILIES) -> int:
    """How many draws: 20 for each head and family, but no more than 6,000 or 20 per head, and 20,000 at most."""
    least = DRAWS_PER_HEAD * heads
    return min(max(ENOUGH_DRAWS, least), least * families, MOST_DRAWS)


def p_of(score: Array, null: Array) -> Array:
    """How often does a mismatched circuit score as high? `(1 + #{null >= score}) / (1 + #null)`, in (0, 1]."""
    ordered = np.sort(null)
    above = len(ordered) - np.searchsorted(ordered, score, side="left")
    return (1 + above) / (1 + len(ordered))
