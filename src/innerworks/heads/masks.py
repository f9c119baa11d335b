"""Reference masks: for each query, the keys that a kind of head would look at, if it were of that kind.

Column 0 is left out (it collects attention that has nowhere to go), and so are the first two rows.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from innerworks.stats import CONSTANTS
from innerworks.text import TextBatch

Targets = Bool[Tensor, "batch seq key"]
PARTNERS = (1, 2)  # a document's pattern swap is with the next one of its stratum and half, and the one after


def same_token(tokens: Int[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq key"]:
    """Is the key an earlier copy of the query's token? Every earlier place counts here, the first one included."""
    real = mask[:, :, None] & mask[:, None, :]
    return ((tokens[:, :, None] == tokens[:, None, :]) & real).tril(diagonal=-1)


def duplicate(tokens: Int[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq key"]:
    """Earlier copies of the current token: `token[key] == token[query]`, key < query."""
    return _countable(same_token(tokens, mask))


def induction(tokens: Int[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq key"]:
    """What followed earlier copies of the current token: `token[key - 1] == token[query]`, key < query."""
    return _countable(same_token(tokens, mask).roll(1, dims=-1).tril(diagonal=-1))


def same_word(words: Int[Tensor, "batch seq"]) -> Targets:
    """Is the key an earlier piece of the query's word? Every earlier place counts here, the first one included."""
    same = (words[:, :, None] == words[:, None, :]) & (words >= 0)[:, :, None]
    return same.tril(diagonal=-1)


def join(words: Int[Tensor, "batch seq"]) -> Targets:
    """Earlier pieces of the same word: `word[key] == word[query]`, key < query."""
    return _countable(same_word(words))


def punctuation(marks: Bool[Tensor, "batch seq"]) -> Targets:
    """Earlier punctuation, whatever the query is."""
    return _countable(marks[:, None, :].expand(-1, marks.shape[1], -1).tril(diagonal=-1))


#: content kind -> the keys that it is about, for a batch of text
TARGETS: dict[str, Callable[[TextBatch], Targets]] = {
    "duplicate": lambda batch: duplicate(batch.tokens, batch.mask),
    "induction": lambda batch: induction(batch.tokens, batch.mask),
    "join": lambda batch: join(batch.words),
    "join_far": lambda batch: join(batch.words).tril(diagonal=-2),
    "punctuation": lambda batch: punctuation(batch.marks) & batch.mask[:, :, None],
}


def across_words(batch: TextBatch) -> Float[Tensor, "batch seq key"]:
    """Weights that put the joiner's own offsets at rows that do not go on with a word.

    In each text, of the rows that go on with a word, a share `w[o]` has a piece of it `o` tokens back; every other row is given
    weight `w[o]` at offset `o`. A head that looks back as far whatever stands there scores the same with it as with `join`.
    """
    pieces = join(batch.words)
    joining = pieces.any(dim=2)
    share = joining.sum(dim=1).clamp(min=1)
    weights = torch.zeros(pieces.shape, device=pieces.device)
    for offset in range(1, pieces.shape[1]):
        at = pieces.diagonal(-offset, dim1=1, dim2=2).sum(dim=1) / share
        weights.diagonal(-offset, dim1=1, dim2=2)[:] = at[:, None]
    weights[:, :, 0] = 0.0
    return weights * plain_rows(batch)[:, :, None]


def plain_rows(batch: TextBatch) -> Bool[Tensor, "batch seq"]:
    """Rows that do not go on with a word, in texts where some row does."""
    joining = join(batch.words).any(dim=2)
    rows = batch.mask & ~joining & joining.any(dim=1, keepdim=True)
    rows[:, : CONSTANTS.first_row] = False
    return rows


def shared_rows(batch: TextBatch, step: int) -> Bool[Tensor, "batch seq"]:
    """Rows that a document and its partner both have; none where the partner is itself, or too much like it."""
    partner = batch.mask.roll(-step, dims=0)
    return batch.mask & partner & (batch.alike != batch.alike.roll(-step))[:, None]


def _countable(targets: Bool[Tensor, "batch seq key"]) -> Bool[Tensor, "batch seq key"]:
    targets[:, :, 0] = False
    targets[:, : CONSTANTS.first_row] = False
    return targets


def positional_rows(mask: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
    """The rows on which offsets and sinks are measured: real tokens from the 17th on."""
    return mask & (torch.arange(mask.shape[1], device=mask.device) >= CONSTANTS.first_row_positional)
