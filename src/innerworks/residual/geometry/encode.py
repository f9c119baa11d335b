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
    sizes: Float[np.ndarray, "row dimension"], feature: Float[np.ndarray, " row"]
) -> Float[np.ndarray, " dimension"]:
    """Spearman's correlation of each dimension with a feature over the tokens of one document; 0 for what does not vary."""
    ranks, of_feature = rankdata(sizes, axis=0), rankdata(feature)
    ranks, of_feature = ranks - ranks.mean(axis=0), of_feature - of_feature.mean()
    scale = np.sqrt((ranks**2).sum(axis=0) * (of_feature**2).sum())
    return np.asarray(ranks.T @ of_feature / np.where(scale > 0, scale, 1.0))
