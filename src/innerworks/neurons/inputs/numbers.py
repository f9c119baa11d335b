"""What does a test say of each candidate? By Student's t, and for shares by a bound that needs no spread.

A share of firings lies between 0 and 1, and of a good detector nearly all are 1: then there is hardly any spread between
documents, and t, which measures everything by it, would call a dozen of them as sure as thousands. What n independent numbers
between 0 and 1 with mean m (or less) can come to on average is bounded whatever their distribution (Hoeffding 1963, theorem
1): `P(average >= a) <= exp(-n KL(a || m))`, KL that of two coins. For shares that are all 1 this is `m ** n`, and the interval
that of Clopper and Pearson (1934). So of shares p is the larger one of t and this bound, and the interval the wider one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import rel_entr

from innerworks.stats import CONSTANTS, Array, Estimate, estimate_from_sums

HALVINGS = 40  # of an interval, to find where a bound is reached


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What a test says of each candidate."""

    effect: Array
    low: Array
    high: Array
    p: Array
    mde: Array
    n: Array
    df: Array

    @classmethod
    def of(cls, found: Estimate, floor: float) -> "Numbers":
        """From an estimate with one entry per candidate."""
        size = found.mean.shape
        return cls(
            effect=found.mean,
            low=found.low,
            high=found.high,
            p=found.p_above(floor),
            mde=found.mde(floor),
            n=np.full(size, float(found.n)),
            df=np.full(size, float(found.df)),
        )


def of_shares(total: Array, squares: Array, positive: Array, units: Array, *, floor: float, least: float) -> Numbers:
    """From sums over the documents that have something to count, which each candidate has its own number of (at least two).

    least: what the share itself must come to; p is 1 where it does not.
    """
    t = _by_t(total, squares, positive, units, floor)
    share, tail = np.clip(t.effect, 0.0, 1.0), CONSTANTS.level / 2
    low = _furthest(lambda mean: apart(share, mean), -np.log(tail) / units, share, np.zeros_like(share))
    high = _furthest(lambda mean: apart(share, mean), -np.log(tail) / units, share, np.ones_like(share))
    at = np.full_like(share, floor)
    mde = _furthest(lambda seen: apart(seen, at), -np.log(CONSTANTS.mde_p) / units, at, np.ones_like(share))
    p = np.maximum(t.p, np.where(share > floor, np.exp(-units * apart(share, at)), 1.0))
    return Numbers(
        effect=t.effect,
        low=np.maximum(np.minimum(t.low, low), 0.0),
        high=np.minimum(np.maximum(t.high, high), 1.0),
        p=np.where(share >= least, p, 1.0),
        mde=np.minimum(np.maximum(t.mde, mde), 1.0),
        n=t.n,
        df=t.df,
    )


def apart(seen: Array, mean: Array) -> Array:
    """How many nats away a coin that shows heads so often is from one with this mean."""
    return rel_entr(seen, mean) + rel_entr(1 - seen, 1 - mean)


def _by_t(total: Array, squares: Array, positive: Array, units: Array, floor: float) -> Numbers:
    parts = {name: np.zeros(len(total)) for name in Numbers.__dataclass_fields__}
    for n in np.unique(units):
        mine = units == n
        found = estimate_from_sums(total[None, mine], squares[None, mine], positive[None, mine], np.array([n]))
        numbers = Numbers.of(found, floor)
        for name in parts:
            parts[name][mine] = getattr(numbers, name)
    return Numbers(**parts)


def _furthest(far: Callable[[Array], Array], limit: Array, start: Array, stop: Array) -> Array:
    """Between a start and a stop, the last place that is not further than the limit."""
    inside, outside = start, stop
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        near = far(middle) <= limit
        inside, outside = np.where(near, middle, inside), np.where(near, outside, middle)
    return inside
