"""Which documents are looked at closely? A few of each stratum and half, the first tokens of each.

Predictions cost a vocabulary per token and layer, so this is a part of the reading; as many of every stratum, at least two, so
that each document has others of its kind to be compared with (where that would be too many, of evenly spaced strata).
"""

from collections import defaultdict
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from innerworks.heads.circuits.copying import spaced
from innerworks.heads.masks import PARTNERS
from innerworks.text import Reading
from innerworks.text.openings import openings


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


def documents(reading: Reading, half: str, *, most: int, length: int) -> Documents:
    """At most so many documents of a half, spread evenly over the strata, of each two where it has them; their beginnings."""
    groups = list(openings(reading, half, tokens=length).values())
    groups = [groups[place] for place in spaced(len(groups), most // 2).tolist()]
    each = max(2, most // max(1, len(groups)))
    chosen = [window for group in groups for window in group[:each]]
    longest = max((len(one.tokens) for one in chosen), default=0)
    rows = [[*one.tokens, *[0] * (longest - len(one.tokens))] for one in chosen]
    lengths = torch.tensor([len(one.tokens) for one in chosen])
    return Documents(
        units=tuple(one.unit for one in chosen),
        strata=tuple(reading.units[one.unit].stratum for one in chosen),
        tokens=torch.tensor(rows, dtype=torch.long).reshape(len(chosen), longest),
        mask=torch.arange(longest) < lengths.reshape(-1, 1),
    )
