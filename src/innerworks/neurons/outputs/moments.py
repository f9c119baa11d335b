"""What shape has a neuron's writing over the vocabulary? Variance, skew and kurtosis of its cosines with all tokens.

1. `c = cos(column of token, w_out)` for every token: columns with the gain of the final norm folded in, centred over the
   vocabulary, of length 1 (`unembedding.py`).
2. Its moments over the vocabulary, by blocks of neurons and tokens, so that the whole product is never there. Kurtosis is not
   the excess: 3 for a bell curve.
3. Null: the same weights with shuffled coordinates.

A large kurtosis means that a few tokens stand out; a skew above zero, that a positive activation raises these, below zero, that
it lowers them. A large variance with a small kurtosis divides the vocabulary. Gurnee et al. 2024, arXiv:2401.12181.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerworks.neurons.outputs.unembedding import Unembedding

NEURONS_AT_ONCE = 256
MOMENTS = ("variance", "skew", "kurtosis")


def moments(
    seen: Unembedding, written: Float[Tensor, "some d_model"], *, step: Callable[[int], None] = lambda tokens: None
) -> dict[str, Float[np.ndarray, " some"]]:
    """Population moments of the cosines of each direction over the vocabulary; step: called with how many tokens are done."""
    normed = torch.nn.functional.normalize(written, dim=-1)
    sums = torch.zeros(4, len(written), dtype=torch.float64, device=written.device)
    for _, columns in seen.blocks(unit=True):
        for start in range(0, len(normed), NEURONS_AT_ONCE):
            some = slice(start, start + NEURONS_AT_ONCE)
            sums[:, some] += _power_sums(normed[some] @ columns.mT)
        step(len(columns))
    return _moments(sums / seen.tokens)


def _power_sums(cosines: Float[Tensor, "some token"]) -> Float[Tensor, "4 some"]:
    squares = cosines.square()
    third = torch.einsum("nt,nt->n", squares, cosines)
    fourth = torch.einsum("nt,nt->n", squares, squares)
    return torch.stack([cosines.sum(dim=1), squares.sum(dim=1), third, fourth]).double()


def _moments(raw: Float[Tensor, "4 some"]) -> dict[str, Float[np.ndarray, " some"]]:
    """Central moments from the means of powers."""
    mean, second, third, fourth = raw
    variance = (second - mean**2).clamp(min=1e-18)
    skew = (third - 3 * mean * second + 2 * mean**3) / variance**1.5
    kurtosis = (fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4) / variance**2
    return {"variance": variance.numpy(force=True), "skew": skew.numpy(force=True), "kurtosis": kurtosis.numpy(force=True)}


def outstanding(
    seen: Unembedding, written: Float[Tensor, "some d_model"], sign: Sequence[float], *, most: int
) -> tuple[Int[np.ndarray, "some most"], Float[np.ndarray, " some"]]:
    """The tokens on the longer side of each direction, and how far it moves their logits on average, per unit of activation.

    sign: of the skew of each.
    """
    normed = torch.nn.functional.normalize(written, dim=-1) * torch.tensor(sign).to(written)[:, None]
    best, where = torch.zeros(len(written), 0, device=written.device), torch.zeros(len(written), 0, dtype=torch.long)
    for some, columns in seen.blocks(unit=True):
        found = torch.cat([best, normed @ columns.mT], dim=1).topk(min(most, best.shape[1] + len(columns)), dim=1)
        ids = torch.cat([where, torch.arange(some.start, some.stop).expand(len(written), -1)], dim=1)
        best, where = found.values, ids.gather(1, found.indices.cpu())
    return where.numpy(), _moved(seen, written, where)


def _moved(seen: Unembedding, written: Float[Tensor, "some d_model"], tokens: Int[Tensor, "some most"]) -> np.ndarray:
    mean = seen.columns(tokens.flatten()).reshape(*tokens.shape, written.shape[-1]).mean(dim=1)
    return (written * mean).sum(dim=-1).numpy(force=True)
