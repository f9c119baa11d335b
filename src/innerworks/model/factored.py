"""A product of two thin matrices, never multiplied out unless asked.

What a head copies (`W_V W_O`) and what it looks for (`W_Q W_Kᵀ`) are `d_model x d_model` matrices of rank `d_head`. Everything
one wants to know of such a product is in small matrices:

1. Singular values: with `A = Q_A R_A` and `Bᵀ = Q_B R_B`, those of `A B` are those of the small `R_A R_Bᵀ`.
2. Eigenvalues: those of `A B` that are not zero are those of the small `B A`.
3. Size: `|A B|² = sum((AᵀA) * (B Bᵀ))`, entry by entry.

Elhage et al. 2021 (transformer-circuits.pub/2021/framework). What it does not do: know which norm or bias lies between.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from innerworks.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SingularValues:
    """A matrix as directions read, strengths, and directions written: `(left * values) @ right`, largest first."""

    left: Float[Tensor, "*batch rows rank"]
    values: Float[Tensor, "*batch rank"]
    right: Float[Tensor, "*batch rank columns"]


@dataclass(frozen=True)
class Factored:
    """The product `A @ B`, kept as its two factors. It reads left to right: `stream @ A @ B`.

    >>> import torch
    >>> Factored(torch.ones(3, 1), torch.ones(1, 4)).shape
    (3, 4)
    """

    A: Float[Tensor, "*left rows inner"]
    B: Float[Tensor, "*right inner columns"]

    def __repr__(self) -> str:
        return f"Factored({' x '.join(map(str, self.shape))} through {self.A.shape[-1]})"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the product."""
        batch = torch.broadcast_shapes(self.A.shape[:-2], self.B.shape[:-2])
        return (*batch, self.A.shape[-2], self.B.shape[-1])

    @property
    def T(self) -> "Factored":
        """The transposed product."""
        return Factored(self.B.mT, self.A.mT)

    def full(self) -> Float[Tensor, "*batch rows columns"]:
        """The product as one matrix: `rows x columns` numbers."""
        return self.A @ self.B

    def __matmul__(self, other: "Factored | Tensor") -> "Factored":
        """The product with a further matrix, kept factored; of two inner widths the smaller one stays."""
        if isinstance(other, Tensor):
            return Factored(self.A, self.B @ other)
        between = self.B @ other.A
        if self.A.shape[-1] <= other.B.shape[-2]:
            return Factored(self.A, between @ other.B)
        return Factored(self.A @ between, other.B)

    def __rmatmul__(self, other: Tensor) -> "Factored":
        """`matrix @ self`, kept factored. `(stream @ OV).full()` is what the head makes of a stream."""
        return Factored(other @ self.A, self.B)

    def svd(self) -> SingularValues:
        """Which directions does it read, which does it write, and how strongly? Computed in float32 at least."""
        left, first = torch.linalg.qr(_wide(self.A))
        right, second = torch.linalg.qr(_wide(self.B).mT)
        u, values, v = torch.linalg.svd(first @ second.mT, full_matrices=False)
        return SingularValues(left=left @ u, values=values, right=v @ right.mT)

    @property
    def singular_values(self) -> Float[Tensor, "*batch rank"]:
        """The singular values that can differ from zero, largest first."""
        first, second = (torch.linalg.qr(x, mode="r").R for x in (_wide(self.A), _wide(self.B).mT))
        return torch.linalg.svdvals(first @ second.mT)

    @property
    def eigenvalues(self) -> Complex[Tensor, "*batch rank"]:
        """The eigenvalues of a square product that can differ from zero, in no order.

        Their real parts say whether it copies (positive) or inverts (negative); a random product has sum near zero.
        """
        rows, columns = self.shape[-2:]
        if rows != columns:
            raise UsageError(f"A matrix of {rows} x {columns} has no eigenvalues: it must be square.")
        small = self.B @ self.A if self.A.shape[-1] <= rows else self.full()
        return torch.linalg.eigvals(_wide(small))

    def norm(self) -> Float[Tensor, "*batch"]:
        """How large is it? The Frobenius norm: the root of the sum of its squared entries."""
        a, b = _wide(self.A), _wide(self.B)
        return ((a.mT @ a) * (b @ b.mT)).sum(dim=(-2, -1)).clamp(min=0).sqrt()


def _wide(tensor: Tensor) -> Tensor:
    """In float32 at least: these decompositions are not there in half precision, nor would they mean much."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
