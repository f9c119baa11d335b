"""How frequent is each token? From the text of the discovery half, with what it does not hold dealt out evenly.

1. Count tokens, the first of each window left out (it is often the tokenizer's own).
2. By Good and Turing, the share of tokens that were seen once estimates how much of new text has never been seen; that much is
   taken off what was counted and given to all tokens alike: `f = (1 - unseen) count / total + unseen / vocab`.
3. The *frequency direction* of the logits is `log f` less its mean, of length 1.

A scan reads some ten thousand tokens, so most of a vocabulary is never seen: this is a weak stand-in for the text a model was
trained on, and tells common tokens from rare ones at best. Good 1953, Biometrika 40.
"""

import numpy as np
from jaxtyping import Float

from innerworks.text import Reading


def unigram(reading: Reading, vocab: int) -> Float[np.ndarray, " vocab"]:
    """The share of each token, positive, summing to one."""
    units = [unit.material == "text" and unit.half == "discovery" for unit in reading.units]
    ids = [token for window in reading.windows if units[window.unit] for token in window.tokens[1:] if token < vocab]
    counts = np.bincount(np.array(ids, dtype=np.int64), minlength=vocab).astype(np.float64)
    total = max(len(ids), 1)
    unseen = np.clip((counts == 1).sum() / total, 1 / total, 1.0)
    return (1 - unseen) * counts / total + unseen / vocab if ids else np.full(vocab, 1 / vocab)


def direction(frequency: Float[np.ndarray, " vocab"]) -> Float[np.ndarray, " vocab"]:
    """`log f`, centred, of length 1; nothing at all where every token is as frequent."""
    centred = np.log(frequency) - np.log(frequency).mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-12)
