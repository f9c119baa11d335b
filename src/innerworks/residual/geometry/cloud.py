"""What shape does the cloud of tokens have in one layer? Measured on ordinary tokens of a sample of documents.

- *Anisotropy* (Ethayarajh 2019, arXiv:1909.00512): the mean cosine between tokens of different documents. The mean over all
  token pairs of two documents is the inner product of their mean unit vectors, so no pair need be drawn. Also with some
  dimensions left out (the tokens are made unit vectors again), with as many others left out, and with the mean of the discovery
  half taken off. Each document is in one pair only, so pairs are independent.
- *Effective rank*: the participation ratio `(Σ λ)² / Σ λ²` of the covariance. `Σ λ² = E (x·y)²` over independent tokens, so
  pairs of documents give it without the bias that the spectrum of a sample has. Beside it `exp(entropy of λ / Σ λ)`, which
  is bounded by the number of tokens.
- *Intrinsic dimension* by two nearest neighbours (Facco et al. 2017, arXiv:1803.06992): `1 / mean log(r2 / r1)`. Neighbours are
  sought in other documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.stats import CONSTANTS

COSINES = ("all", "without", "without_others", "centred")
PARTS = ("all", "without")  # of the stream, whose rank is taken
Documents = Sequence[Float[Tensor, "_ dimension"]]  # of each its tokens


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """What one layer comes to. Pairs are of documents that differ; of a sum, half of it is the document's own."""

    cosine: Float[np.ndarray, "kind pair"]
    dots: Float[np.ndarray, "part pair"]  # mean squared inner product of centred tokens
    squares: Float[np.ndarray, "part pair"]  # mean squared length of centred tokens
    log_length: Float[np.ndarray, " document"]
    log_ratio: Float[np.ndarray, " document"]  # mean log(r2 / r1)
    entropy_rank: float


def cloud(documents: Documents, mean: Float[Tensor, " dimension"], left_out: Sequence[int], rng: np.random.Generator) -> Cloud:
    """Look at one layer. mean: of the discovery half. left_out: the dimensions that may be answerable for it all."""
    centred = [rows - mean for rows in documents]
    cosine = [
        _cosines([_unit_mean(rows, []) for rows in documents]),
        _cosines([_unit_mean(rows, left_out) for rows in documents]),
        _without_others(documents, left_out, rng),
        _cosines([_unit_mean(rows, []) for rows in centred]),
    ]
    kept = [centred, [_without(rows, left_out) for rows in centred]]
    return Cloud(
        cosine=np.stack(cosine),
        dots=np.stack([_dots(part) for part in kept]),
        squares=np.stack([_squares(part) for part in kept]),
        log_length=np.array([float(_lengths(rows).log().mean()) for rows in documents]),
        log_ratio=_neighbours(documents),
        entropy_rank=_entropy_rank(torch.cat(list(centred))),
    )


def pairs(count: int) -> list[tuple[int, int]]:
    """Every document once, with one half of all away: of another domain, where there are several."""
    return [(i, i + count // 2) for i in range(count // 2)]


# --- how alike ---------------------------------------------------------------------------------------------------


def _cosines(means: Sequence[Float[Tensor, " dimension"]]) -> Float[np.ndarray, " pair"]:
    return np.array([float(means[a] @ means[b]) for a, b in pairs(len(means))])


def _unit_mean(rows: Float[Tensor, "row dimension"], left_out: Sequence[int]) -> Float[Tensor, " dimension"]:
    """The mean of unit vectors, without some dimensions."""
    rest = _without(rows, left_out)
    return (rest / _lengths(rest)[:, None]).mean(dim=0)


def _without(rows: Float[Tensor, "row dimension"], left_out: Sequence[int]) -> Float[Tensor, "row dimension"]:
    rest = rows.clone()
    rest[:, list(left_out)] = 0.0
    return rest


def _lengths(rows: Float[Tensor, "row dimension"]) -> Float[Tensor, " row"]:
    return rows.norm(dim=1).clamp(min=torch.finfo(rows.dtype).tiny)


def _without_others(documents: Documents, left_out: Sequence[int], rng: np.random.Generator) -> Float[np.ndarray, " pair"]:
    """The same with as many dimensions left out that are none of these: the mean over 20 draws."""
    others = np.setdiff1d(np.arange(documents[0].shape[1]), left_out)
    draws = [rng.choice(others, size=len(left_out), replace=False).tolist() for _ in range(CONSTANTS.controls if left_out else 1)]
    kept = torch.ones(len(draws), documents[0].shape[1], dtype=documents[0].dtype)
    for weights, draw in zip(kept, draws, strict=True):
        weights[draw] = 0.0
    means = [_unit_means(rows, kept) for rows in documents]
    return np.array([float((means[a] * means[b]).sum(dim=1).mean()) for a, b in pairs(len(documents))])


def _unit_means(rows: Float[Tensor, "row dimension"], kept: Float[Tensor, "draw dimension"]) -> Float[Tensor, "draw dimension"]:
    """The mean of unit vectors with only these dimensions, for many draws at once."""
    lengths = (rows.square() @ kept.mT).sqrt().clamp(min=torch.finfo(rows.dtype).tiny)
    return (1 / lengths).mT @ rows * kept / len(rows)


# --- how many dimensions -----------------------------------------------------------------------------------------


def _dots(documents: Documents) -> Float[np.ndarray, " pair"]:
    return np.array([float((documents[a] @ documents[b].mT).square().mean()) for a, b in pairs(len(documents))])


def _squares(documents: Documents) -> Float[np.ndarray, " pair"]:
    own = [float(rows.square().sum(dim=1).mean()) for rows in documents]
    return np.array([(own[a] + own[b]) / 2 for a, b in pairs(len(documents))])


def _entropy_rank(rows: Float[Tensor, "row dimension"]) -> float:
    gram = rows @ rows.mT if len(rows) < rows.shape[1] else rows.mT @ rows
    shares = torch.linalg.eigvalsh(gram).clamp(min=0)
    shares = shares / shares.sum().clamp(min=torch.finfo(rows.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp())


def _neighbours(documents: Documents) -> Float[np.ndarray, " document"]:
    """Mean log ratio of the distances to the second and to the nearest neighbour in other documents."""
    owner = torch.cat([torch.full((len(rows),), number) for number, rows in enumerate(documents)])
    everything = torch.cat(list(documents))
    distances = torch.cdist(everything, everything).masked_fill(owner[:, None] == owner, torch.inf)
    near = distances.topk(2, dim=1, largest=False).values
    apart = near[:, 0] > 0  # the same token may be there twice, and then says nothing
    ratios = torch.where(apart, near[:, 1] / torch.where(apart, near[:, 0], 1.0), 1.0).log()
    count = torch.bincount(owner[apart], minlength=len(documents)).clamp(min=1)
    return (torch.zeros(len(documents), dtype=ratios.dtype).index_add_(0, owner, ratios) / count).numpy()
