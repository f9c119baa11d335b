"""What does a dimension go with? Rank correlations of its size with how frequent a token is, and with where it stands.

Spearman's correlation over the ordinary tokens of one document, then averaged over documents, beside the average of all other
dimensions: a stream that is simply longer on rare tokens has many dimensions that seem to know frequencies. Puccetti et al. 2022,
arXiv:2205.11380 (outlier dimensions follow frequencies). It says what a dimension goes with, not what it is for.
"""

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from innerworks.text import Reading

FEATURES = ("frequency", "position")


def log_counts(reading: Reading, vocab: int) -> Float[np.ndarray, " vocab"]:
    """`log(1 + count)` of each token in the text of the discovery half."""
    units = [unit.material == "text" and unit.half == "discovery" for unit in reading.units]
    ids = [token for window in reading.windows if units[window.unit] for token in window.tokens]
    return np.log1p(np.bincount(np.array(ids, dtype=np.int64), minlength=vocab)[:vocab].astype(np.float64))


def correlations(
    sizes: Float[np.ndarray, "row dimension"], features: Float[np.ndarray, "feature row"]
) -> Float[np.ndarray, "feature dimension"]:
    """Spearman's correlation of each dimension with features over the tokens of one document; 0 for what does not vary."""
    ranks, of_features = _ranks(sizes.T), _ranks(features)
    return of_features @ ranks.T


def _ranks(values: Float[np.ndarray, "some row"]) -> Float[np.ndarray, "some row"]:
    """Ranks within each row of numbers, centred, of length 1; zero where there is but one rank."""
    ranks = rankdata(values, axis=1)
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return ranks / np.where(length > 0, length, 1.0)
