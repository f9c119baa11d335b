"""The residual stream of a phantom: named subspaces, how large each signal is, and the basis that hides them.

What you can learn here: how a transformer keeps many signals apart in one vector, and how to write weights for it.

1. The stream is split into orthogonal subspaces with names (`token`, `previous`, ...). A signal is a unit code in one.
2. `read` gives the rows that recover a unit code from the *normalised* stream, `write` the columns that add one. Parts
   are written with these two alone, so that they are the same for both architectures, whatever the basis and the scale.
3. Every token's vector has the same norm (a constant direction, a token code, a letter, a position), so a norm layer
   divides by a known number, and what a part reads is what was written, to a percent.
4. The named coordinates are laid out along a random rotation of the model's own: no single dimension means anything.
   LayerNorm subtracts the mean over dimensions, so for GPT-2 the rotation leaves the direction (1, ..., 1) unused.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Architecture = Literal["gpt2", "llama"]

D_MODEL = 256
D_HEAD = 64
PAIRS = D_HEAD // 2  # a head's coordinates p and p + PAIRS belong together: rotary positions turn them by one angle
CLOCKS = 16  # pairs that turn fast enough to tell positions apart; the rest carry content
TOKEN_CODE = 30  # dimensions of a token's code: the slow pairs but one, which holds `rest` and `level`
ROPE_THETA = 1e7  # pair p turns by ROPE_THETA ** (-p / PAIRS) a position: from 1 down to 5e-4 for clocks, then slower
POSITIONS = 512

WIDTHS = {
    "constant": 1,  # the same in every token: what a bias would be
    "token": TOKEN_CODE,  # which token this is
    "letter": 16,  # its first letter
    "punctuation": 1,  # present in punctuation marks
    "other": 1,  # present in what has neither letter nor mark
    "clock": 2 * CLOCKS,  # position, as the hands of 16 clocks (GPT-2; Llama turns queries and keys instead)
    "flag": 1,  # "this is the first position", faint
    "first": 1,  # the same, massive: it drowns everything else at that position once normalised
    "previous": TOKEN_CODE,  # which token stood before: written by the pair's previous-token head
    "scratch": TOKEN_CODE,  # read by no part, but for the mean code by which Llama finds the first position
    "output": TOKEN_CODE,  # read by the unembedding
    "sort": 12,  # what sort of token this is, where a kit's heads must know (`kits`): then in place of letter, mark and other
    "after": TOKEN_CODE,  # which token follows in its order (Tuesday, of Monday): written by the first feed-forward
    "before": TOKEN_CODE,  # and which comes before it; in kits of neurons, which token stood some way back
    "role": 4,  # what role a word has for the planted neurons, beside its letter
    "start": 1,  # how near the first position is: written by a head that rests there the less the more there is to look at
    "frequency": 1,  # read by the unembedding as token frequency, in kits with neurons that write it
    "null": 3,  # read by nothing, in such kits not even by the unembedding: only the final norm feels it
}
SORTS = ("begins", "continues", "ordinal", "one", "many", "verb", "thing", "hill", "common")  # dimensions of `sort`
ROLES = ("calls", "plain", "vague", "trigger")  # dimensions of `role`; what they are for says `followers`
SIZES = {"constant": 64.0, "clock": 32.0, "first": 6000.0}  # norm of a signal; of all others:
SIZE = 16.0


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Where each subspace lies among the named coordinates, and the basis `[d_model, named]` that hides them."""

    architecture: Architecture
    basis: Tensor

    @property
    def named(self) -> int:
        """Number of named coordinates."""
        return sum(WIDTHS.values())

    @property
    def gain(self) -> float:
        """What a norm layer multiplies the stream by: sqrt(d_model) over the norm of an ordinary position."""
        signals = ["constant", "token", "letter"] + (["clock"] if self.architecture == "gpt2" else [])
        return (D_MODEL / sum(size(signal) ** 2 for signal in signals)) ** 0.5

    @property
    def leak(self) -> float:
        """How much of the other signals is left at the first position once normalised, as a share of elsewhere."""
        return D_MODEL**0.5 / (self.gain * size("first"))

    def write(self, space: str) -> Tensor:
        """Columns `[named, width]` that add a unit code of this subspace at its size."""
        start = list(WIDTHS).index(space)
        start = sum(list(WIDTHS.values())[:start])
        columns = torch.zeros(self.named, WIDTHS[space])
        columns[start : start + WIDTHS[space]] = size(space) * torch.eye(WIDTHS[space])
        return columns

    def read(self, space: str) -> Tensor:
        """Rows `[width, named]` that recover the unit code of this subspace after a norm layer."""
        gain = D_MODEL**0.5 / size("first") if space == "first" else self.gain
        return self.write(space).T / (size(space) ** 2 * gain)

    def sort(self, *names: str) -> Tensor:
        """One row `[1, named]` that recovers whether a token is of one of these sorts."""
        return self.read("sort")[[SORTS.index(name) for name in names]].sum(dim=0, keepdim=True)

    def role(self, name: str) -> Tensor:
        """The row `[named]` that recovers whether a token has this role."""
        return self.read("role")[ROLES.index(name)]

    def hands(self) -> tuple[Tensor, Tensor]:
        """Rows `[clocks, named]` for the horizontal and the vertical part of each clock's hand, unit length each.

        GPT-2 reads them from the position embedding. In Llama a head reads the constant, a hand at angle zero, and the
        rotary embedding then turns it: afterwards both stand at the same angle.
        """
        if self.architecture == "gpt2":
            rows = self.read("clock") * CLOCKS**0.5
            return rows[:CLOCKS], rows[CLOCKS:]
        constant = self.read("constant").expand(CLOCKS, -1)
        return constant, torch.zeros_like(constant)


def size(space: str) -> float:
    """Norm of a signal in this subspace, as it is written to the stream."""
    return SIZES.get(space, SIZE)


def make_stream(architecture: Architecture, generator: torch.Generator) -> Stream:
    """Draw the hidden basis: Haar-distributed, and for LayerNorm orthogonal to the direction of all ones."""
    fixed = torch.ones(D_MODEL, 1) / D_MODEL**0.5 if architecture == "gpt2" else torch.zeros(D_MODEL, 0)
    rotation = haar(D_MODEL, generator, fixed=fixed)[:, fixed.shape[1] :]
    return Stream(architecture=architecture, basis=rotation[:, : sum(WIDTHS.values())])


def haar(dimensions: int, generator: torch.Generator, *, fixed: Tensor) -> Tensor:
    """A random orthogonal matrix, uniform over those that begin with `fixed` (QR of a Gaussian; Stewart 1980)."""
    drawn = torch.randn(dimensions, dimensions - fixed.shape[1], generator=generator)
    q, r = torch.linalg.qr(torch.cat([fixed, drawn], dim=1))
    return q * r.diagonal().sign()


def spread_codes(tokens: int, generator: torch.Generator, *, steps: int = 80) -> Tensor:
    """Unit codes `[tokens, TOKEN_CODE]`, drawn at random and then pushed apart so that no two look alike.

    Each step moves a code away from its nearest ones. Random codes overlap by up to .8, these by .31.
    """
    codes = torch.nn.functional.normalize(torch.randn(tokens, TOKEN_CODE, generator=generator), dim=1)
    for _ in range(steps):
        overlap = (codes @ codes.T).fill_diagonal_(-1.0)
        push = torch.exp(24.0 * (overlap - overlap.max())) @ codes
        codes = torch.nn.functional.normalize(codes - 0.3 * push / push.norm(dim=1).max(), dim=1)
    return codes


def clock_speeds() -> Tensor:
    """Radians per position of each clock, the fastest first: the first pairs of the rotary embedding."""
    return ROPE_THETA ** (-torch.arange(CLOCKS, dtype=torch.float64) / PAIRS)
