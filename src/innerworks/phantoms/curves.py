"""Recall curves of phantoms: how weak may a planted part be, how noisy its model, and still be found?

1. Strength: phantoms whose planted heads put less and less mass on their targets, and whose planted neurons follow their rule
   less and less (amplitude 1 down to .05), without noise.
2. Noise: phantoms at full strength with `sigma RMS(W) N(0, 1)` added to every weight matrix (sigma 0 to 1).
3. Recall by kind at rung 1, with exact intervals, and where it crosses 50 and 90 of 100 (`recall.py`).

The rungs above the first are not tried: ablations cost ten times the reading, and a weaker part does less harm by design.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from innerworks.phantoms.calibrate import ARCHITECTURES, Calibration, calibrate
from innerworks.phantoms.kits import KITS
from innerworks.phantoms.recall import PLAIN, SHARES, Crossing, Over, Recall, crossing
from innerworks.scan import Step

LEVELS: dict[Over, tuple[float, ...]] = {
    "amplitude": (1.0, 0.8, 0.4, 0.2, 0.1, 0.05),
    "noise": (0.0, 0.1, 0.2, 0.5, 1.0),
}
Setting = tuple[float, float]  # amplitude, noise
SAYS: dict[Over, str] = {
    "amplitude": "strength: mass on a head's target, share of a neuron's rule",
    "noise": "noise: added to every weight, in units of its matrix's RMS",
}


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Recall of planted parts by kind, over strength and over noise."""

    phantoms: int  # per level
    recall: Mapping[tuple[str, Over, float], Recall]  # (kind, over, level)
    mistaken: Mapping[tuple[Over, float], int]  # labels that are not true of their parts

    @property
    def kinds(self) -> tuple[str, ...]:
        """Planted kinds that are measured."""
        return tuple(dict.fromkeys(kind for kind, _, _ in self.recall))

    def curve(self, kind: str, over: Over) -> dict[float, Recall]:
        """One kind's recall by level."""
        return {level: recall for (of, what, level), recall in self.recall.items() if (of, what) == (kind, over)}

    def crossing(self, kind: str, over: Over, share: float) -> Crossing:
        """At which strength, or up to which noise, is this share found?"""
        return crossing(self.curve(kind, over), share, over=over)

    def rows(self) -> list[dict[str, Any]]:
        """One row per kind and level: what a figure draws."""
        return [
            {"kind": kind, "over": over, "level": level, **recall.as_dict()}
            for (kind, over, level), recall in self.recall.items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        reached = [
            {
                "kind": kind,
                "over": over,
                "share": share,
                "level": (at := self.crossing(kind, over, share)).level,
                "beyond": at.beyond,
            }
            for kind in self.kinds
            for over in LEVELS
            for share in SHARES
        ]
        mistaken = [{"over": over, "level": level, "labels": count} for (over, level), count in self.mistaken.items()]
        return {"phantoms": self.phantoms, "recall": self.rows(), "crossings": reached, "mistaken": mistaken}

    def in_words(self) -> RenderableType:
        """Return it as tables for a terminal."""
        parts: list[RenderableType] = [Text(f"{self.phantoms} phantoms of every kit at each level")]
        for over in LEVELS:
            parts += [Text(), self._table(over)]
        return Group(*parts)

    def _table(self, over: Over) -> Table:
        levels = [level for what, level in self.mistaken if what == over]
        table = Table("kind", "parts", *(f"{level:g}" for level in levels), "50 %", "90 %", title=SAYS[over], **PLAIN)
        for kind in self.kinds:
            of = self.curve(kind, over)
            reached = [self.crossing(kind, over, share).in_words(over) for share in SHARES]
            table.add_row(kind, str(of[levels[0]].planted), *(str(of[level].found) for level in levels), *reached)
        table.add_row("labels not true of a part", "", *(str(self.mistaken[over, level]) for level in levels), "", "")
        return table


def curves(
    *,
    draws: int = 5,
    seed: int = 0,
    kits: Sequence[str] = tuple(KITS),
    levels: Mapping[Over, Sequence[float]] = LEVELS,
    progress: Callable[[Step], None] = lambda step: None,
) -> Curves:
    """Scan `draws` phantoms of each architecture and kit at every level."""
    settings: dict[tuple[Over, float], Setting] = {
        (over, level): (level, 0.0) if over == "amplitude" else (1.0, level) for over, of in levels.items() for level in of
    }
    different = list(dict.fromkeys(settings.values()))
    each, counted = len(ARCHITECTURES) * len(kits) * draws, dict[Setting, Calibration]()
    for number, (amplitude, noise) in enumerate(different):

        def step(at: Step, before: int = number * each) -> None:
            progress(replace(at, done=before + at.done, total=len(different) * each))

        counted[amplitude, noise] = calibrate(
            draws=draws, seed=seed, kits=kits, amplitude=amplitude, noise=noise, causal=False, progress=step
        )
    by_level = {at: counted[setting] for at, setting in settings.items()}
    measured = dict.fromkeys(kind for found in by_level.values() for kind in found.measured)
    return Curves(
        phantoms=len(ARCHITECTURES) * draws,
        recall={(kind, over, level): found.recall[kind] for kind in measured for (over, level), found in by_level.items()},
        mistaken={at: len(found.mistaken) for at, found in by_level.items()},
    )
