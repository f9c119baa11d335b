"""How much a head likes each distance: sums of clock hands fitted to a wish.

What you can learn here: attention to a *distance* needs no table of positions. A query and a key that carry the same
clock give `cos(speed * distance - phase)`, under rotary embeddings as with sinusoidal positions; a sum over clocks of
well chosen amplitudes and phases then peaks at one distance and nowhere else, though each single clock repeats itself.

1. State the wish in nats for each distance, which distances matter how much, and where lower than wished is fine too.
2. Fit amplitudes, phases and a constant by least squares with a small ridge (large weights would amplify noise).
3. Where lower is fine, replace the wish by the fit wherever that is lower, and fit again, a few dozen times.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from innerworks.phantoms.stream import POSITIONS, clock_speeds

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A preference over distances in nats: `sum_c amplitude_c cos(speed_c * distance - phase_c) - level`."""

    amplitude: Array  # one per clock
    phase: Array
    level: float

    def __call__(self, distance: NDArray[np.int64]) -> Array:
        """Return the preference at each distance (query position - key position)."""
        angle = np.outer(distance, clock_speeds().numpy()) - self.phase
        return np.cos(angle) @ self.amplitude - self.level


def only(distance: int, *, gap: float = 12.0) -> Kernel:
    """0 at one distance, and lower at every other, by about `gap` nats: by 9 next to it, by 6 at the least."""
    away = np.abs(np.arange(POSITIONS) - distance)
    wish = np.where(away == 0, 0.0, -gap)
    weight = np.where(away == 0, 3000.0, 3.0 + 300.0 / (away + 0.5) ** 2)
    kernel = fit(wish, weight=weight, lower_is_fine=away > 0)
    return replace(kernel, level=kernel.level + float(kernel(np.array([distance]))[0]))


def window(width: int, *, gap: float = 7.0) -> Kernel:
    """About 0 at distances 0 to width - 1, a slope over two distances, and lower by `gap` nats beyond."""
    distance = np.arange(POSITIONS)
    wish = np.where(distance < width, 0.0, -gap)
    weight = np.where(distance < width, 100.0, np.where(distance < width + 2, 0.0, 1.0))
    return fit(wish, weight=weight, lower_is_fine=distance >= width)


def band(nearest: int, farthest: int, *, gap: float = 9.0) -> Kernel:
    """About 0 at the distances between two, and lower by `gap` nats at others."""
    distance = np.arange(POSITIONS)
    inside = (distance >= nearest) & (distance <= farthest)
    away = np.minimum(np.abs(distance - nearest), np.abs(distance - farthest))
    wish = np.where(inside, 0.0, -gap)
    weight = np.where(inside, 1000.0, 3.0 + 100.0 / (away + 0.5) ** 2)
    return fit(wish, weight=weight, lower_is_fine=~inside)


def nearest(slope: float, *, reach: int = 8) -> Kernel:
    """About 0 at the token before, falling by `slope` nats a token up to `reach`, and no higher beyond: the nearest target wins.

    The token itself is at `slope`: for heads whose query is never a target of its own.
    """
    distance = np.arange(POSITIONS)
    wish = -slope * np.minimum(distance - 1, reach)
    weight = np.where(distance <= reach, 100.0, 1.0 + 30.0 / (distance + 1))
    return fit(wish, weight=weight, lower_is_fine=distance > reach)


def not_self(penalty: float) -> Kernel:
    """-penalty at distance 0, rising to -penalty / 2 at distance 4 and to about 0 from distance 12 on."""
    distance = np.arange(POSITIONS)
    wish = np.where(distance == 0, -penalty, 0.0)
    weight = np.where(distance == 0, 100.0, np.where(distance < 6, 0.0, 1 / (1 + distance / 40)))
    return fit(wish, weight=weight, lower_is_fine=np.zeros(POSITIONS, dtype=bool))


def recent(reach: float) -> Kernel:
    """0 at distance 0, falling like a logarithm to -reach at the longest distance."""
    distance = np.arange(POSITIONS)
    wish = -reach * np.log1p(distance / 4) / np.log1p(POSITIONS / 4)
    return fit(wish, weight=1 / (1 + distance / 4), lower_is_fine=np.zeros(POSITIONS, dtype=bool))


def fit(wish: Array, *, weight: Array, lower_is_fine: NDArray[np.bool_], ridge: float = 0.3, rounds: int = 60) -> Kernel:
    """Fit clocks and a constant to a wish per distance (steps 2 and 3 above)."""
    angle = np.outer(np.arange(len(wish)), clock_speeds().numpy())
    design = np.concatenate([np.cos(angle), np.sin(angle), np.ones((len(wish), 1))], axis=1)
    penalty = ridge * np.diag([1.0] * 2 * angle.shape[1] + [0.0])
    solve = np.linalg.solve(design.T @ (weight[:, None] * design) + penalty, design.T * weight)
    target = wish
    solution = solve @ target
    for _ in range(rounds):
        target = np.where(lower_is_fine, np.minimum(wish, design @ solution), wish)
        solution = solve @ target
    cosine, sine = solution[: angle.shape[1]], solution[angle.shape[1] : -1]
    return Kernel(amplitude=np.hypot(cosine, sine), phase=np.arctan2(sine, cosine), level=-float(solution[-1]))
