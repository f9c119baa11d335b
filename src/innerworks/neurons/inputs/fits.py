"""Ridge fits of all neurons at once, and by how much each family of features makes them better.

With `A = xᵀx + λ` all neurons of a layer are fitted by `w = A⁻¹ xᵀa`. Leaving out a family's columns f and fitting the others r
again changes the prediction of a row by `x N w_f`, where `N` is one on f and `-A_rr⁻¹ A_rf` on r (Frisch and Waugh 1933): what
the family's columns hold beyond all others. N is the same for all neurons, so `z = x N` is computed once for a batch, and
`SSE without - SSE with = w_f · (2 zᵀ rest + zᵀz w_f)`, where rest is what the whole fit leaves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

RIDGE = 1e-3  # of the mean diagonal of xᵀx


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Coefficients of all neurons, with the first column a constant; and what each family adds.

    A *part* is a column of a family that is tested; `own` says which column, `member` which family.
    """

    columns: Sequence[int]  # of the design that are used
    families: Sequence[str]
    weights: Float[Tensor, "layer column neuron"]
    apart: Float[Tensor, "column part"]
    own: Int[Tensor, " part"]
    member: Float[Tensor, "family part"]

    def around(self, mean: Float[Tensor, "layer neuron"]) -> "Fit":
        """The same for activations less their mean."""
        self.weights[:, 0] -= mean
        return self

    def to(self, device: torch.device) -> "Fit":
        """Move everything to a device."""
        moved = {name: getattr(self, name).to(device) for name in ("weights", "apart", "own", "member")}
        return Fit(columns=self.columns, families=self.families, **moved)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Rows of a text, as a fit is tested on them."""

    x: Float[Tensor, "row column"]
    z: Float[Tensor, "row part"]
    blocks: Float[Tensor, "part part"]  # zᵀz within families


def fit(
    gram: Float[Tensor, "column column"],
    product: Float[Tensor, "layer column neuron"],
    columns: Sequence[int],
    families: Mapping[str, Sequence[int]],
) -> Fit:
    """Fit all neurons. gram: `xᵀx` over the columns; product: `xᵀa`; families: name -> its places among the columns."""
    size = len(gram)
    ridge = RIDGE * gram.diagonal().double().mean().clamp(min=1.0)
    full = gram.double() + ridge * torch.eye(size, dtype=torch.float64)
    apart = []
    for mine in families.values():
        rest = [place for place in range(size) if place not in set(mine)]
        one = torch.zeros(size, len(mine), dtype=torch.float64)
        one[list(mine)] = torch.eye(len(mine), dtype=torch.float64)
        one[rest] = -torch.linalg.solve(full[rest][:, rest], full[rest][:, list(mine)])
        apart.append(one)
    solved = torch.linalg.inv(full).float()
    return Fit(
        columns=columns,
        families=tuple(families),
        weights=torch.stack([solved @ one for one in product]),
        apart=torch.cat(apart, dim=1).float(),
        own=torch.tensor([place for mine in families.values() for place in mine]),
        member=torch.block_diag(*[torch.ones(1, len(mine)) for mine in families.values()]),
    )


def ask(one: Fit, features: Float[Tensor, "row all"]) -> Asked:
    """Prepare rows of features for a test."""
    x = features[:, list(one.columns)]
    z = x @ one.apart
    return Asked(x=x, z=z, blocks=(z.mT @ z) * (one.member.mT @ one.member))


def gains(one: Fit, layer: int, asked: Asked, activations: Float[Tensor, "row neuron"]) -> Float[Tensor, "family neuron"]:
    """By how much each family lowers the sum of squared errors on some rows."""
    weights = one.weights[layer]
    rest = torch.addmm(activations, asked.x, weights, alpha=-1)
    return _gain(one, weights[one.own], asked.z.mT @ rest, asked.blocks)


def row_gains(one: Fit, layer: int, asked: Asked, activations: Float[Tensor, "row neuron"]) -> Float[Tensor, "family row neuron"]:
    """The same row by row: leaving out a family changes a prediction by d, and the squared error by `d (2 rest + d)`."""
    weights = one.weights[layer]
    rest = torch.addmm(activations, asked.x, weights, alpha=-1)
    own = weights[one.own]
    changed = torch.stack([asked.z[:, mine] @ own[mine] for mine in one.member > 0])
    return changed * (2 * rest + changed)


def gains_from_sums(
    one: Fit, gram: Float[Tensor, "column column"], product: Float[Tensor, "layer column neuron"]
) -> Float[Tensor, "family layer neuron"]:
    """The same from sums over rows, for all layers. gram, product: over the fit's columns."""
    gram, apart = gram.float(), one.apart
    blocks = (apart.mT @ gram @ apart) * (one.member.mT @ one.member)
    found = [
        _gain(one, weights[one.own], apart.mT @ (mine - gram @ weights), blocks)
        for weights, mine in zip(one.weights, product, strict=True)
    ]
    return torch.stack(found, dim=1)


def _gain(one: Fit, own: Tensor, cross: Tensor, blocks: Tensor) -> Float[Tensor, "family neuron"]:
    return one.member @ (own * torch.addmm(cross, blocks, own, beta=2))
