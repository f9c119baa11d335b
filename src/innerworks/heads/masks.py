"""Reference masks: for each query, the keys that a kind of head would look at, if it were of that kind.

Column 0 is left out (it collects attention that has nowhere to go), and so are the first two rows.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from innerworks.stats import CONSTANTS


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


def _countable(targets: Bool[Tensor, "batch seq key"]) -> Bool[Tensor, "batch seq key"]:
    targets[:, :, 0] = False
    targets[:, : CONSTANTS.first_row] = False
    return targets


def positional_rows(mask: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
    """The rows on which offsets and sinks are measured: real tokens from the 17th on."""
    return mask & (torch.arange(mask.shape[1], device=mask.device) >= CONSTANTS.first_row_positional)
