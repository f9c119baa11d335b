"""Is a balanced accuracy above chance by more than the floor? An exact test over documents.

A threshold is right or wrong about a document, so a t test would find no spread at all where it is always right, and that is the
case that matters. Instead, with k1 of n1 documents of a kind and k0 of n0 others told rightly:
1. `balanced = (k1 / n1 + k0 / n0) / 2`; by chance .5.
2. p: the largest probability of a balanced accuracy this high over all pairs of true rates whose mean is .5 + floor (both counts
   binomial). Documents that differ in how hard they are only make high counts rarer (Hoeffding 1956).
3. The interval is Newcombe's (1998): Wilson's for each rate, put together.
4. The smallest accuracy that would be found: at p .005 with probability .9, both rates alike.
"""

from functools import cache

import numpy as np
from jaxtyping import Float
from scipy.special import betainc, gammaln, ndtri, xlog1py, xlogy

from innerworks.stats import CONSTANTS

GRID = 201  # pairs of true rates that are tried
EQUAL = 1e-9


@cache
def p_above(right: int, of: int, right_elsewhere: int, of_elsewhere: int, floor: float) -> float:
    """The p of "the balanced accuracy is at most .5 + floor"."""
    return _p_of(right / of + right_elsewhere / of_elsewhere, of, of_elsewhere, floor)


def _p_of(reached: float, of: int, of_elsewhere: int, floor: float) -> float:
    rate = np.linspace(2 * floor, 1.0, GRID)
    return float(_at_least(reached, of, of_elsewhere, rate, 1 + 2 * floor - rate).max())


@cache
def mde(of: int, of_elsewhere: int, floor: float) -> float:
    """The smallest true balanced accuracy above chance that would be found; never below the floor, .5 where none would."""
    sums = np.unique(np.arange(of + 1)[:, None] / of + np.arange(of_elsewhere + 1)[None] / of_elsewhere)
    low, high = 0, len(sums)  # the first sum of shares that would be found lies between them
    while low < high:
        middle = (low + high) // 2
        found = _p_of(float(sums[middle]), of, of_elsewhere, floor) <= CONSTANTS.mde_p
        low, high = (low, middle) if found else (middle + 1, high)
    if low == len(sums):
        return 0.5
    needed = float(sums[low])
    rates = np.linspace(0.5 + floor, 1.0, GRID)
    power = _at_least(needed, of, of_elsewhere, rates, rates)
    return float(rates[np.argmax(power >= CONSTANTS.mde_power)] - 0.5)


def interval(
    rate: Float[np.ndarray, "..."],
    of: int,
    rate_elsewhere: Float[np.ndarray, "..."],
    of_elsewhere: int,
    *,
    level: float = CONSTANTS.level,
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Both ends of the interval of a balanced accuracy above chance."""
    z = float(ndtri(1 - level / 2))
    (low, high), (low_else, high_else) = _wilson(rate, of, z), _wilson(rate_elsewhere, of_elsewhere, z)
    middle = (rate + rate_elsewhere - 1) / 2
    below = np.hypot(rate - low, rate_elsewhere - low_else) / 2
    above = np.hypot(high - rate, high_else - rate_elsewhere) / 2
    return np.asarray(middle - below), np.asarray(middle + above)


def best_by_chance(of: int, of_elsewhere: int, tries: int) -> float:
    """The balanced accuracy that the best of so many coins, each either way up, exceeds in half of all cases."""
    k1, k0 = np.arange(of + 1), np.arange(of_elsewhere + 1)
    accuracy = 0.5 + np.abs(k1[:, None] / of - k0[None] / of_elsewhere).ravel() / 2
    probability = np.outer(_binomial(of, np.array([0.5]))[:, 0], _binomial(of_elsewhere, np.array([0.5]))[:, 0]).ravel()
    order = np.argsort(-accuracy, kind="stable")
    reached = tries * np.cumsum(probability[order]) >= np.log(2)
    return float(accuracy[order][np.argmax(reached)]) if reached.any() else 0.5


def _at_least(
    reached: float,
    of: int,
    of_elsewhere: int,
    rate: Float[np.ndarray, " pair"],
    rate_elsewhere: Float[np.ndarray, " pair"],
) -> Float[np.ndarray, " pair"]:
    """How likely a sum of shares this high is, for each pair of true rates."""
    needed = np.ceil((reached - np.arange(of + 1) / of) * of_elsewhere - EQUAL).clip(min=0)  # elsewhere, given the first count
    k, safe = needed[:, None], needed.clip(1, of_elsewhere)[:, None]
    tail = np.where(k == 0, 1.0, np.where(k > of_elsewhere, 0.0, betainc(safe, of_elsewhere - safe + 1, rate_elsewhere[None])))
    return np.asarray((_binomial(of, rate) * tail).sum(axis=0))


def _binomial(of: int, rate: Float[np.ndarray, " pair"]) -> Float[np.ndarray, "count pair"]:
    k = np.arange(of + 1)[:, None]
    ways = gammaln(of + 1) - gammaln(k + 1) - gammaln(of - k + 1)
    return np.asarray(np.exp(ways + xlogy(k, rate[None]) + xlog1py(of - k, -rate[None])))


def _wilson(rate: Float[np.ndarray, "..."], of: int, z: float) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    centre = (rate + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * np.sqrt(rate * (1 - rate) / of + z**2 / (4 * of**2))
    return np.asarray(centre - half), np.asarray(centre + half)
