"""How many neurons does it take to tell a concept? Probes of k responses of one layer, and how well they do on other units.

1. On discovery, responses of a layer are divided by their standard deviation, and those whose means with and without the
   concept lie furthest apart are chosen: 1, 2, 4, 8, 16 (Gurnee et al. 2023, arXiv:2305.01610, `max mean difference`).
2. A logistic regression on them, both sides weighing alike, a ridge of 1.
3. On confirmation: `AUC`, the share of pairs that the probe puts in the right order; .5 by chance. Its standard error, and that
   of the difference between two probes, is DeLong's (1988): positives and negatives are two samples of placements.

Where one neuron does nearly as well as sixteen, the concept has a neuron of its own; a gap is the sign of superposition.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from innerworks.stats import Array, Estimate, two_sample

SIZES = (1, 2, 4, 8, 16)
RIDGE = 1.0
STEPS = 30  # of Newton's method; a handful is enough


def probes(
    train: Float[np.ndarray, "example neuron"],
    positive: Bool[np.ndarray, " example"],
    other: Float[np.ndarray, "other neuron"],
) -> Float[np.ndarray, "size other"]:
    """What a probe of each size, fitted on `train`, says of the other examples."""
    spread = train.std(axis=0)
    scale = np.where(spread > 0, spread, np.inf)  # what never changes tells nothing
    centre = train.mean(axis=0)
    train, other = (train - centre) / scale, (other - centre) / scale
    chosen = furthest(train, positive)
    said = []
    for size in SIZES:
        weights = logistic(train[:, chosen[:size]], positive)
        said.append(other[:, chosen[:size]] @ weights[1:] + weights[0])
    return np.array(said)


def furthest(values: Float[np.ndarray, "example neuron"], positive: Bool[np.ndarray, " example"]) -> Int[np.ndarray, " chosen"]:
    """The columns whose means lie furthest apart, as many as the largest probe has."""
    apart = np.abs(values[positive].mean(axis=0) - values[~positive].mean(axis=0))
    return np.argsort(-apart, kind="stable")[: SIZES[-1]]


def logistic(values: Float[np.ndarray, "example column"], positive: Bool[np.ndarray, " example"]) -> Float[np.ndarray, " weight"]:
    """Intercept and weights of a ridge logistic regression in which both sides weigh alike; by Newton's method."""
    design = np.column_stack([np.ones(len(values)), values])
    importance = np.where(positive, 0.5 / positive.mean(), 0.5 / (1 - positive.mean()))
    ridge = RIDGE * np.diag([0.0, *[1.0] * values.shape[1]])
    weights = np.zeros(design.shape[1])
    for _ in range(STEPS):
        likely = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        slope = design.T @ (importance * (likely - positive)) + ridge @ weights
        bend = (design * (importance * likely * (1 - likely))[:, None]).T @ design + ridge + 1e-9 * np.eye(len(ridge))
        weights = weights - np.linalg.solve(bend, slope)
    return weights


def auc(said: Array, positive: Bool[np.ndarray, " example"]) -> Estimate:
    """The area under the curve, less the half that chance gives."""
    return _estimate(*_placements(said, positive), 0.5)


def auc_gap(said: Array, other: Array, positive: Bool[np.ndarray, " example"]) -> Estimate:
    """By how much the area of one probe exceeds that of another."""
    one, two = _placements(said, positive), _placements(other, positive)
    return _estimate(one[0] - two[0], one[1] - two[1], 0.0)


def _placements(said: Array, positive: Bool[np.ndarray, " example"]) -> tuple[Array, Array]:
    """For each positive the share of negatives below it, for each negative the share of positives above it."""
    above = said[positive][:, None] - said[~positive][None]
    won = (above > 0) + 0.5 * (above == 0)
    return won.mean(axis=1), won.mean(axis=0)


def _estimate(placed: Array, placed_other: Array, chance: float) -> Estimate:
    both = two_sample(placed, -placed_other)  # the variances add up whatever the sign
    return Estimate(
        mean=np.asarray(placed.mean() - chance), se=both.se, n=len(placed), df=len(placed) - 1, positive=np.asarray(1.0)
    )
