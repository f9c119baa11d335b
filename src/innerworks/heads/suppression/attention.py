"""Does a head look at what is about to be predicted? Attention on tokens of the text that the model is about to name.

1. At row i, before the head's layer, the logit lens ranks the vocabulary. Keys j whose token is among its first ten are the
   *targets*: j >= 1, j < i, and the token at j is not the token at i (in models whose embedding is their unembedding the stream
   itself spells the current token, so looking at copies of that is another behaviour).
2. The score is the mass on targets, averaged over rows that have some.
3. *First null, pattern swap*: the same targets under the patterns of two other documents of the stratum. Whatever a head owes to
   offsets, places and sinks scores the same there. (Not the other way round, own pattern and others' predictions: another
   document's predictions name fewer tokens of this text, so even a head that looks everywhere would seem to see its own.)
4. *Second null, the same keys when they are not predicted*: the same key seen from rows equally far before and after
   (up to 8), where its token is not among the first ten. Commas are often predicted; a head that always looks at commas beats the
   first null, not this one. Attention that falls off smoothly with distance is no less on average there (it is convex), so the
   null is, if anything, too strict.

McDougall et al. 2023, arXiv:2310.04625, show the same by weights (the unembedding as query), which models with rotated
queries and keys do not allow. What it does not do: say what the head writes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from innerworks.heads.suppression.documents import Documents
from innerworks.stats import CONSTANTS

REACH = 8  # rows to either side


def targets(
    documents: Documents, lens: Float[Tensor, "doc seq key"], tenth: Float[Tensor, "doc seq"]
) -> Bool[Tensor, "doc seq key"]:
    """Keys whose token is about to be predicted at a row."""
    return (lens >= tenth[..., None]) & countable(documents)


def countable(documents: Documents) -> Bool[Tensor, "doc seq key"]:
    """Keys that count at all: earlier, not the first, and of another token than the row's."""
    tokens, mask = documents.tokens, documents.mask
    some = (tokens[:, :, None] != tokens[:, None, :]) & mask[:, :, None] & mask[:, None, :]
    some = some.tril(diagonal=-1)
    some[:, :, 0] = False
    some[:, : CONSTANTS.first_row] = False
    return some


@dataclass(frozen=True, kw_only=True)
class Swapped:
    """Mass on targets per row, and that of other documents' patterns on the same targets; NaN where a document has no row."""

    own: Float[Tensor, "head doc"]
    swapped: Float[Tensor, "head doc"]


def swap(pattern: Float[Tensor, "head doc seq key"], wanted: Bool[Tensor, "doc seq key"], documents: Documents) -> Swapped:
    """The first null. Rows that a document and its partner both have are averaged over."""
    rows, own, swapped = (torch.zeros(pattern.shape[:2]) for _ in range(3))
    mine = torch.arange(len(documents.units))
    for partner in documents.partners:
        shared = documents.mask & documents.mask[partner] & wanted.any(dim=2) & (partner != mine)[:, None]
        here = (wanted & shared[:, :, None]).float()
        own += torch.einsum("hbqk,bqk->hb", pattern, here)
        swapped += torch.einsum("hbqk,bqk->hb", pattern[:, partner], here)
        rows += shared.sum(dim=1)
    return Swapped(own=own / rows, swapped=swapped / rows)


@dataclass(frozen=True, kw_only=True)
class Near:
    """A quantity at targets, and at the same keys seen from rows where they are none."""

    paired: Bool[Tensor, "doc seq key"]  # targets that have such rows
    elsewhere: Float[Tensor, "doc seq key"]  # the quantity there; 0 where there are none


def near(
    quantity: Float[Tensor, "doc seq key"], wanted: Bool[Tensor, "doc seq key"], documents: Documents, *, reach: int = REACH
) -> Near:
    """The second null: the mean over pairs of rows `i - d` and `i + d`, d up to `reach`, where the key is no target."""
    free = countable(documents) & ~wanted
    total, count = torch.zeros(quantity.shape), torch.zeros(quantity.shape)
    for distance in range(1, min(reach, quantity.shape[1] - 1) + 1):
        inner = slice(distance, quantity.shape[1] - distance)
        before, after = slice(0, -2 * distance or None), slice(2 * distance, None)
        if quantity.shape[1] <= 2 * distance:
            break
        both = wanted[:, inner] & free[:, before] & free[:, after]
        total[:, inner] += both * (quantity[:, before] + quantity[:, after]) / 2
        count[:, inner] += both
    return Near(paired=count > 0, elsewhere=total / count.clamp(min=1))


def per_row(quantity: Float[Tensor, "doc seq key"], which: Bool[Tensor, "doc seq key"]) -> Float[Tensor, " doc"]:
    """Sum over the chosen keys, mean over the rows that have some; NaN where a document has none."""
    return (quantity * which).sum(dim=(1, 2)) / which.any(dim=2).sum(dim=1)


def per_pair(quantity: Float[Tensor, "doc seq key"], which: Bool[Tensor, "doc seq key"]) -> Float[Tensor, " doc"]:
    """Mean over the chosen pairs of row and key; NaN where a document has none."""
    return (quantity * which).sum(dim=(1, 2)) / which.sum(dim=(1, 2))
