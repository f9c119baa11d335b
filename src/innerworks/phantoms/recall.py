"""How strong must a part be to be found? Recall as a curve over strength or noise, and where it crosses a half and nine tenths.

1. A `Recall` counts what was found of what was put there, with the exact interval of Clopper and Pearson (1934).
2. A curve is a recall per level. Counts are few, so it may waver: from its easy end on it is made to fall only, by taking each
   level's recall as no higher than that of any easier one.
3. `crossing` interpolates that in the logarithm of a strength, or in noise as it is.

A crossing belongs beside every "does not hold": what is weaker would not have been seen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scipy.special import betaincinv

Over = Literal["amplitude", "noise"]
PLAIN: dict[str, Any] = {"title_justify": "left", "box": None, "pad_edge": False}  # tables of a terminal
SHARES = (0.5, 0.9)  # of recall, at which strength and noise are reported


@dataclass(frozen=True, kw_only=True)
class Recall:
    """How many of the parts of a kind were labelled as such, with the exact 95 % interval."""

    found: int
    planted: int

    @property
    def value(self) -> float:
        """Share found."""
        return self.found / self.planted

    @property
    def low(self) -> float:
        """Lower end."""
        return float(betaincinv(self.found, self.planted - self.found + 1, 0.025)) if self.found else 0.0

    @property
    def high(self) -> float:
        """Upper end."""
        return float(betaincinv(self.found + 1, self.planted - self.found, 0.975)) if self.found < self.planted else 1.0

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"found": self.found, "planted": self.planted, "recall": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Where a curve reaches a share of recall: at a level, or beyond the levels tried."""

    level: float  # the crossing, or the level that it lies beyond
    beyond: Literal["", "easier", "harder"] = ""  # easier: not even there is so much found; harder: even there it is

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"level": self.level, "beyond": self.beyond}

    def in_words(self, over: Over) -> str:
        """As in `.21`, `< .05`."""
        below = {"amplitude": {"easier": "> ", "harder": "< "}, "noise": {"easier": "< ", "harder": "> "}}[over]
        return f"{below.get(self.beyond, '')}{self.level:.2g}"


def crossing(curve: Mapping[float, Recall], share: float, *, over: Over) -> Crossing:
    """At which level does a curve cross a share of recall? See the top of this file.

    curve: by level. Of a strength, the smallest at which so much is found; of noise, the largest.
    """
    easiest_first = sorted(curve, reverse=over == "amplitude")
    recall, least = [], 1.0
    for level in easiest_first:
        least = min(least, curve[level].value)
        recall.append(least)
    if recall[0] < share:
        return Crossing(level=easiest_first[0], beyond="easier")
    for place in range(1, len(recall)):
        if recall[place] < share:
            above, below = easiest_first[place - 1], easiest_first[place]
            part = (recall[place - 1] - share) / (recall[place - 1] - recall[place])
            if over == "noise":
                return Crossing(level=above + part * (below - above))
            return Crossing(level=math.exp(math.log(above) + part * (math.log(below) - math.log(above))))
    return Crossing(level=easiest_first[-1], beyond="harder")
