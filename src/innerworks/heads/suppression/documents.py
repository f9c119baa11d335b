"""Which documents are looked at closely? A few of each stratum and half, the first tokens of each.

Predictions cost a vocabulary per token and layer, so this is a part of the reading; as many of every stratum, at least two, so
that each document has others of its kind to be compared with.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from innerworks.text import Reading

PARTNERS = (1, 2)  # the next documents of the same stratum and half, as the pattern swap has it


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Some documents of one half, padded on the right, those of a stratum side by side."""

    units: tuple[int, ...]
    strata: tuple[str, ...]
    tokens: Int[Tensor, "doc seq"]
    mask: Bool[Tensor, "doc seq"]

    @property
    def partners(self) -> list[Int[Tensor, " doc"]]:
        """For each document the next of its stratum, and the one after; itself where its stratum has no such other."""
        places: dict[str, list[int]] = defaultdict(list)
        for place, stratum in enumerate(self.strata):
            places[stratum].append(place)
        rank = [places[stratum].index(place) for place, stratum in enumerate(self.strata)]
        return [
            torch.tensor([places[s][(r + step) % len(places[s])] for s, r in zip(self.strata, rank, strict=True)])
            for step in PARTNERS
        ]

    def only(self, which: Int[Tensor, " some"]) -> "Documents":
        """A part of them."""
        places = which.tolist()
        return Documents(
            units=tuple(self.units[place] for place in places),
            strata=tuple(self.strata[place] for place in places),
            tokens=self.tokens[which],
            mask=self.mask[which],
        )

    def spread(self, count: int) -> Int[Tensor, " some"]:
        """So many of them at most, evenly spaced (those of a stratum stand side by side)."""
        total = len(self.units)
        return torch.from_numpy(np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)))


def documents(reading: Reading, half: str, *, most: int, length: int) -> Documents:
    """At most so many documents of a half (two per stratum at least), spread evenly over the strata; the first window of each."""
    groups: dict[str, list[int]] = defaultdict(list)
    for number, unit in enumerate(reading.units):
        if (unit.material, unit.half) == ("text", half):
            groups[unit.stratum].append(number)
    each = max(2, most // max(1, len(groups)))
    chosen = [unit for group in groups.values() for unit in group[:each]]
    first = {window.unit: window.tokens[:length] for window in reversed(reading.windows)}
    longest = max((len(first[unit]) for unit in chosen), default=0)
    rows = [[*first[unit], *[0] * (longest - len(first[unit]))] for unit in chosen]
    lengths = torch.tensor([len(first[unit]) for unit in chosen])
    return Documents(
        units=tuple(chosen),
        strata=tuple(reading.units[unit].stratum for unit in chosen),
        tokens=torch.tensor(rows, dtype=torch.long).reshape(len(chosen), longest),
        mask=torch.arange(longest) < lengths.reshape(-1, 1),
    )
