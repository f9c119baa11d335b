"""Everything that attention patterns alone say of heads: labels at rung 1, and what follows from them.

A function of the masses by unit that every atlas keeps, so all of it can be decided again.
"""

from collections.abc import Sequence

from innerworks.findings import Finding
from innerworks.heads import decide, joiners, sinks
from innerworks.heads.decide import HeadsByUnit
from innerworks.heads.kinds import MEASURES
from innerworks.heads.patterns import Patterns, heads_by_unit
from innerworks.model import Model
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units


def findings(table: HeadsByUnit) -> list[Finding]:
    """Labels of all kinds, how far joiners look, and whether labelled heads rest where they have nothing to look at."""
    labels = decide.findings(table)
    return [*labels, *joiners.findings(table, labels), *sinks.findings(table, labels)]


class Seen:
    """The study: where do heads look?"""

    name = "heads_by_unit"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """What contracts patterns with reference masks."""
        return [Patterns()]

    def measure(self, given: Given) -> Kept:
        """The masses by unit, as they were seen."""
        table = heads_by_unit(given.states[Patterns.name], given.reading)
        return Kept(arrays={"mass": table.total, "rows": table.rows}, about={"measures": list(MEASURES)})

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """See `findings`."""
        return [*before, *findings(HeadsByUnit.of(kept.arrays["mass"], kept.arrays["rows"], units))]
