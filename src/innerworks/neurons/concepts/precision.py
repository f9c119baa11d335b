"""How well does a response single out the examples of a concept? Average precision, its chance, and a test over units.

1. Examples in order of the response, strongest first: `AP = mean over positives of (positives so far / examples so far)`.
2. By chance it is the share of positives and a little more; exactly `(H + (R - 1) / (n - 1) (n - H)) / n` with R positives of n
   and H the sum of 1/k up to n.
3. Its standard error comes from leaving out one unit after the other (the jackknife), with as many degrees of freedom as there
   are positive units, less one. p is the larger of two: t of AP above chance by the floor, and Welch's t of the responses
   themselves, since AP has no spread at all where it is perfect.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int

from innerworks.stats import CONSTANTS, Estimate, two_sample, upper_tail


def average_precision(
    values: Float[np.ndarray, "example neuron"], positives: Bool[np.ndarray, "concept example"]
) -> Float[np.ndarray, "concept neuron"]:
    """For every concept and neuron, in [0, 1]. Equal responses have the rank of the last of them: no order among them counts."""
    order = np.argsort(-values, axis=0, kind="stable")
    last = _last_equal(np.take_along_axis(values, order, axis=0))
    found = np.empty((len(positives), values.shape[1]))
    for number, positive in enumerate(positives):
        hits = positive[order]
        so_far = np.take_along_axis(np.cumsum(hits, axis=0), last, axis=0)
        found[number] = (hits * so_far / (last + 1)).sum(axis=0) / positive.sum()
    return found


def _last_equal(ordered: Float[np.ndarray, "example neuron"]) -> Int[np.ndarray, "example neuron"]:
    """For each place in an order, the last place with the same value."""
    places = np.full(ordered.shape, len(ordered) - 1)
    places[:-1] = np.where(ordered[:-1] != ordered[1:], np.arange(len(ordered) - 1)[:, None], len(ordered) - 1)
    return np.minimum.accumulate(places[::-1], axis=0)[::-1]


@cache
def by_chance(positive: int, examples: int) -> float:
    """The average precision to be expected of a response that has nothing to do with the concept."""
    harmonic = float((1 / np.arange(1, examples + 1)).sum())
    return (harmonic + (positive - 1) / (examples - 1) * (examples - harmonic)) / examples


def above_chance(values: Float[np.ndarray, " example"], positive: Bool[np.ndarray, " example"], units: Sequence[str]) -> Estimate:
    """The average precision of one response, less its chance; n counts positive units."""
    names, unit = np.unique(np.asarray(units), return_inverse=True)
    order = np.argsort(-values, kind="stable")
    last = _last_equal(values[order][:, None])[:, 0]
    everything = np.ones((1, len(values)), dtype=bool)
    whole = _excess(everything, positive[order], last)[0]
    without = _excess(unit[order][None] != np.arange(len(names))[:, None], positive[order], last)
    n, count = len(names), len(np.unique(unit[positive]))
    se = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    return Estimate(mean=np.asarray(whole), se=np.asarray(se), n=count, df=max(count - 1, 1), positive=np.asarray(1.0))


def _excess(
    kept: Bool[np.ndarray, "way example"], positive: Bool[np.ndarray, " example"], last: Int[np.ndarray, " example"]
) -> Float[np.ndarray, " way"]:
    """Average precision less chance, of each way to leave examples out; all in the order of the response."""
    hits = kept & positive
    so_far, rank = np.cumsum(hits, axis=1)[:, last], np.cumsum(kept, axis=1)[:, last]
    precise = (hits * so_far / np.maximum(rank, 1)).sum(axis=1) / hits.sum(axis=1)
    sizes = zip(hits.sum(axis=1).tolist(), kept.sum(axis=1).tolist(), strict=True)
    return precise - np.array([by_chance(*both) for both in sizes])


def p_above(
    found: Estimate, values: Float[np.ndarray, " example"], positive: Bool[np.ndarray, " example"], floor: float
) -> float:
    """The p of "its average precision exceeds chance by no more than the floor"."""
    if found.n < CONSTANTS.least_units:
        return 1.0
    responses = two_sample(values[positive], values[~positive])
    return max(float(found.p_above(floor)), float(upper_tail(responses.mean, responses.se, responses.df)))
