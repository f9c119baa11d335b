"""Whose output does a head read, by the weights alone? Composition scores of all pairs of heads.

1. A head writes through `OV = W_V W_O`, and a later one reads through `QK = W_Q W_Kᵀ` (or, for values, its own OV). How much of
   what the first can write the second can read is

       Q: |OV QK| / (|OV| |QK|)        K: |OV QKᵀ| / (|OV| |QK|)        V: |OV OV'| / (|OV| |OV'|)        (Frobenius norms)

   Norms' gains are folded into what reads (and, behind attention, into what writes); biases are left out.
2. With `left = R_V W_O` (from `W_V = Q R_V`) and `right = W_K C` (with `C Cᵀ = W_Qᵀ W_Q`) the score is `|left right|` over their
   norms; and `|left right|² = <leftᵀ left, right rightᵀ>`, one inner product per pair: no pair's `d_model x d_model` product is
   ever made, and a head's only in strips of rows.
3. Rotary positions: `QK` depends on the distance. The squares of score and norm are averaged over a grid of distances, which only
   changes `C Cᵀ` to the average of `R_Δ W_Qᵀ W_Q R_Δᵀ`: exact, and as cheap.
4. Null: pairs that cannot compose, because the head that would read lies in the same layer as the one that writes, or before it.
   They are mismatched parts of this very model: as trained, as anisotropic, but with nothing to tell each other. The random
   expectation, `1 / sqrt(d_model)`, is told beside it.

Elhage et al. 2021 (transformer-circuits.pub/2021/framework). What it does not do: say that anything passes between the two. Most
of what heads write is read by many, feed-forwards stand between, and a pattern decides what is written at all: `removal.py` asks
in context.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.heads.composition.between import Turns, turns
from innerworks.model import Model
from innerworks.stats import Array

Kind = Literal["q", "k", "v"]
KINDS: tuple[Kind, ...] = ("q", "k", "v")
NUMBERS_AT_ONCE = 1 << 24  # 64 MiB of strips


def written(model: Model) -> Float[Tensor, "some_head d_head d_model"]:
    """What heads can write: `R_V W_O`, of the size of their OV, scaled to one."""
    parts = []
    for layer in range(model.anatomy.layers):
        value = model.weights.W_V(layer, fold=True, per_head=True).float()
        parts.append(torch.linalg.qr(value, mode="r").R @ model.weights.W_O(layer, fold=True).float())
    return _unit(torch.cat(parts))


def read(model: Model, kind: Kind) -> Float[Tensor, "some_head d_model d_head"]:
    """What heads can read for their queries, keys or values, weighted by what comes of it, scaled to one.

    Raises UnsupportedModel for queries and keys of models without bilinear scores.
    """
    weights, parts = model.weights, []
    between = turns(model) if kind != "v" else [None] * model.anatomy.layers
    for layer, turn in enumerate(between):
        if turn is None:
            own, other = weights.W_V(layer, fold=True, per_head=True), weights.W_O(layer, fold=True).mT
            gram = other.float().mT @ other.float()
        else:
            query, key = weights.W_Q(layer, fold=True), weights.W_K(layer, fold=True, per_head=True)
            own, other, turn = (query, key, turn.mT) if kind == "q" else (key, query, turn)
            gram = _averaged(other.float().mT @ other.float(), turn)
        parts.append(own.float() @ _root(gram))
    return _unit(torch.cat(parts))


def scores(model: Model, kind: Kind) -> Float[Tensor, "some_sender some_receiver"]:
    """The composition score of every pair of heads, those included that cannot compose; layer by layer, heads in order.

    Returns: numbers in [0, 1]. About `1 / sqrt(d_model)` for random matrices.
    """
    left, right = written(model), read(model, kind).mT
    d_model = left.shape[-1]
    rows = max(1, NUMBERS_AT_ONCE // (len(left) * d_model))
    squared = torch.zeros(len(left), len(right), device=left.device)
    for strip in torch.arange(d_model, device=left.device).split(rows):
        squared += _strip(left, strip) @ _strip(right, strip).T
    return squared.clamp(min=0).sqrt()


def can_compose(model: Model) -> Array:
    """1 where a pair's first head lies in an earlier layer than its second, 0 where it does not, NaN for a head and itself."""
    layer = torch.arange(model.anatomy.layers).repeat_interleave(model.anatomy.heads)
    found = (layer[:, None] < layer[None, :]).double()
    return found.fill_diagonal_(float("nan")).numpy()


def _strip(part: Tensor, rows: Tensor) -> Float[Tensor, "some_head entry"]:
    """Some rows of every head's `partᵀ part`, in one row."""
    return (part[:, :, rows].mT @ part).flatten(1)


def _averaged(gram: Float[Tensor, "head d_head d_head"], turn: Turns) -> Float[Tensor, "head d_head d_head"]:
    """The mean over distances of `turn gram turnᵀ`."""
    return torch.stack([one @ gram @ one.mT for one in turn.to(gram)]).mean(dim=0)


def _root(gram: Float[Tensor, "head d_head d_head"]) -> Float[Tensor, "head d_head d_head"]:
    """A matrix `C` with `C Cᵀ = gram`."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp(min=0).sqrt()[:, None, :]


def _unit(parts: Float[Tensor, "some_head rows columns"]) -> Float[Tensor, "some_head rows columns"]:
    return parts / parts.flatten(1).norm(dim=1).clamp(min=torch.finfo(parts.dtype).tiny)[:, None, None]
