"""The Study: one question to a model, from what is watched to what is decided. A scan is a list of studies.

1. `instruments`: what the study wants to watch while the text is read (all studies share the one pass).
2. `measure`: what it does afterwards, with the pass behind it: read off its sums, run experiments. What comes of it are
   plain arrays and JSON, which the atlas keeps as `arrays/NAME.safetensors`.
3. `findings`: what that comes to, as pure arithmetic: the same arrays give the same findings, so an atlas can be decided again
   without a model. A study sees the findings of those before it, and may raise their rungs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from innerworks.findings import Finding
from innerworks.model.model import Model
from innerworks.model.observe import Instrument, State
from innerworks.model.tally import Tally
from innerworks.text import Reading

Units = Sequence[Sequence[str]]  # of a reading, in its order: (id, stratum, material, half)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a study leaves in the atlas: arrays, and what must be known about them, as JSON."""

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a study measures with, once the text is read."""

    model: Model
    reading: Reading
    states: Mapping[str, State]  # of all instruments, by name
    before: Sequence[Finding]  # what earlier studies found
    depth: str  # quick, standard or full
    seed: int
    saved: Kept | None = None  # what this study had measured before an interruption
    save: Callable[[Kept], None] = lambda kept: None  # called with what is measured so far, as often as it likes
    step: Callable[[int, int | None, str], None] = lambda done, total, unit: None  # progress: 3 of 20 heads; None: not known yet

    def tally(self, total: int, unit: str, *, done: int = 0) -> Tally:
        """Count what is done, of how much, and say so."""
        return Tally(says=lambda so_far, of: self.step(so_far, of, unit), total=total, done=done)


@runtime_checkable
class Study(Protocol):
    """One question to a model."""

    name: str  # of its file in the atlas, without ending; and how progress calls it

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """What watches the pass; empty for a study that only experiments. Two studies may ask for the same one (by name)."""
        ...

    def measure(self, given: Given) -> Kept:
        """Read off, run, intervene. Of a model that cannot be asked this, nothing is kept but the reason, in `about`."""
        ...

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """All findings so far: those before, perhaps with raised rungs, and the new ones. Pure arithmetic."""
        ...


def units_of(reading: Reading) -> Units:
    """The units of a reading, as an atlas keeps them."""
    return [(unit.id, unit.stratum, unit.material, unit.half) for unit in reading.units]
