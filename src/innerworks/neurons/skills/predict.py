"""How well does a threshold on one neuron tell one kind of text from the others? For every neuron at once.

1. The discovery half is dealt once more within each domain: one part *trains*, the other *chooses*.
2. A neuron's threshold lies midway between its means on the two sides of the training part, so that both count alike however many
   documents they have. (Wang et al. 2022, arXiv:2211.07349, take the mean over a balanced training set.)
3. On the choosing part: `predictivity = max(b, 1 - b)`, with b the balanced accuracy of "above the threshold": neurons of gated
   feed-forwards are as good with their sign turned. Which way up is chosen here, too; neurons as good are ranked by how many
   standard deviations their means on the discovery half lie apart.
4. On the confirmation half threshold and way up are fixed, and only documents told rightly are counted.

The best of many coins looks good as well: `accuracy.best_by_chance` says how good, and only neurons beyond it are candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from innerworks.stats import deal_halves

Units = Sequence[tuple[str, str, str]]  # (id, stratum, half) of documents


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which documents do what."""

    train: Bool[np.ndarray, " unit"]
    choose: Bool[np.ndarray, " unit"]
    confirm: Bool[np.ndarray, " unit"]

    @classmethod
    def of(cls, units: Units) -> "Parts":
        """Deal the discovery half once more, within each domain."""
        confirm = np.array([half == "confirmation" for _, _, half in units], dtype=bool)
        discovery = [(id, stratum) for id, stratum, half in units if half == "discovery"]
        dealt = deal_halves([id for id, _ in discovery], [stratum for _, stratum in discovery])
        choose = np.zeros(len(units), dtype=bool)
        choose[~confirm] = [half == "confirmation" for half in dealt]
        return cls(train=~confirm & ~choose, choose=choose, confirm=confirm)

    def can_tell(self, inside: Bool[np.ndarray, " unit"]) -> bool:
        """Has every part documents of this kind of text, and others?"""
        return all(bool((part & side).any()) for part in (self.train, self.choose, self.confirm) for side in (inside, ~inside))


@dataclass(frozen=True, kw_only=True)
class Predictivity:
    """All neurons and one kind of text. accuracy: at choosing, in [.5, 1]; apart: in standard deviations.

    right, right_elsewhere: shares of documents on the confirmation half that are told rightly.
    """

    accuracy: Float[np.ndarray, " neuron"]
    above: Bool[np.ndarray, " neuron"]  # is it this kind of text above the threshold, or below?
    apart: Float[np.ndarray, " neuron"]
    right: Float[np.ndarray, " neuron"]
    right_elsewhere: Float[np.ndarray, " neuron"]

    def best_first(self) -> Int[np.ndarray, " neuron"]:
        """Neurons, the most predictive at choosing first."""
        return np.lexsort((-self.apart, -self.accuracy))


def predictivity(values: Float[np.ndarray, "unit neuron"], inside: Bool[np.ndarray, " unit"], parts: Parts) -> Predictivity:
    """Train, choose, and count on the confirmation half; inside: the documents of this kind of text."""
    threshold = sum(values[parts.train & side].mean(axis=0) for side in (inside, ~inside)) / 2
    share, elsewhere = ((values[parts.choose & side] > threshold).mean(axis=0) for side in (inside, ~inside))
    above = share >= elsewhere
    fired, fired_elsewhere = ((values[parts.confirm & side] > threshold).mean(axis=0) for side in (inside, ~inside))
    discovery = ~parts.confirm
    gap = values[discovery & inside].mean(axis=0) - values[discovery & ~inside].mean(axis=0)
    spread = values[discovery].std(axis=0)
    return Predictivity(
        accuracy=0.5 + np.abs(share - elsewhere) / 2,
        above=above,
        apart=np.abs(gap) / np.maximum(spread, np.finfo(np.float32).tiny),
        right=np.where(above, fired, 1 - fired),
        right_elsewhere=np.where(above, 1 - fired_elsewhere, fired_elsewhere),
    )
