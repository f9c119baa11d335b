"""Does a head's loss harm one domain more than the others? A two-sample t over documents, and a ratio.

A head is selective for a domain D if, documents being the units,
1. its harm in D exceeds its mean harm elsewhere by more than the floor (Welch's t: the few documents of D may vary more),
2. its harm in D is at least three times that elsewhere: `harm in D - 3 * harm elsewhere > 0`, Welch's t again,
3. and is harm at all: more than three times the least that counts elsewhere (a head that merely helps the others is none).

All three must hold, so p is the largest of the three; with few documents on either side it is 1. What it does not do: say why
the domain needs the head; the commonest tokens of a domain (line breaks in code, accents in French) may be all that it serves.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from innerworks.stats import CONSTANTS, Array, Estimate, bootstrap_means, estimate, two_sample, upper_tail
from innerworks.text.openings import LEAST_DOCUMENTS

FLOOR = 0.01  # nats per token of harm beyond the harm elsewhere


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One head and one domain. difference: harm in the domain minus harm elsewhere, in nats; inside, elsewhere: the two."""

    difference: Estimate
    inside: Estimate
    elsewhere: Estimate
    p: float

    @property
    def ratio(self) -> float:
        """Harm in the domain over harm elsewhere (at least the least that counts)."""
        return float(self.inside.mean) / max(float(self.elsewhere.mean), CONSTANTS.least_collateral)


def contrast(harm: Float[np.ndarray, " unit"], inside: Bool[np.ndarray, " unit"]) -> Contrast:
    """Compare the harm to a domain's documents with that to all others; harm in nats per token, one number per document."""
    here, there = harm[inside], harm[~inside]
    within, without = _plain(here), _plain(there)
    ratio, least = CONSTANTS.selectivity_ratio, CONSTANTS.selectivity_ratio * CONSTANTS.least_collateral
    difference, beyond = two_sample(here, there), two_sample(here, there, times=ratio)
    tests = (
        float(min(len(here), len(there)) < LEAST_DOCUMENTS),  # 1 where they are too few
        float(difference.p_above(FLOOR)),
        float(upper_tail(beyond.mean, beyond.se, beyond.df)),
        float(upper_tail(within.mean - least, within.se, within.df)),
    )
    return Contrast(difference=difference, inside=within, elsewhere=without, p=max(tests))


def ratio_interval(harm: Array, inside: Bool[np.ndarray, " unit"], *, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio, over documents of either side."""
    rng = np.random.default_rng(seed)
    above, below = (bootstrap_means(harm[side], [""] * int(side.sum()), rng) for side in (inside, ~inside))
    low, high = np.quantile(above / np.maximum(below, CONSTANTS.least_collateral), (CONSTANTS.level / 2, 1 - CONSTANTS.level / 2))
    return float(low), float(high)


def screened(
    estimates: Float[np.ndarray, "unit *heads"], inside: Bool[np.ndarray, " unit"]
) -> tuple[Float[np.ndarray, "*heads"], Bool[np.ndarray, "*heads"]]:
    """For every head at once: the difference less two standard errors, and whether the ratio looks right, too."""
    here, there = estimates[inside], estimates[~inside]
    se = np.sqrt(here.var(axis=0, ddof=1) / len(here) + there.var(axis=0, ddof=1) / len(there))
    mean, elsewhere = here.mean(axis=0), there.mean(axis=0)
    least = CONSTANTS.selectivity_ratio * np.maximum(elsewhere, CONSTANTS.least_collateral)
    return mean - elsewhere - CONSTANTS.candidate_t * se, mean > least


def _plain(values: Array) -> Estimate:
    """One group, without strata."""
    return estimate(values, [""] * len(values))
