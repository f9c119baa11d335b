"""Sinks as a study of a scan: all of it is read off the shared pass."""

from collections.abc import Sequence

import numpy as np

from innerworks.findings import Finding
from innerworks.heads.sinks import decide
from innerworks.heads.sinks.watch import Resting
from innerworks.model import Model
from innerworks.model.observe import Instrument, numpy
from innerworks.model.study import Given, Kept, Units


class Sinks:
    """How little is read at the first token, how long is the stream there, and do heads rest there beyond what place explains?"""

    name = "sinks"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """Value and stream norms, and the mass on the first token under own and others' patterns."""
        return [Resting(model)]

    def measure(self, given: Given) -> Kept:
        """The sums by unit, as they were seen."""
        unreadable = given.model.weights.unreadable
        about = {} if unreadable is None else {"no value norms": unreadable}
        return Kept(arrays={name: x.astype(np.float32) for name, x in numpy(given.states[Resting.name]).items()}, about=about)

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Rows beside the labels of sinks."""
        return [*before, *decide.findings(kept.arrays, units, before)]
