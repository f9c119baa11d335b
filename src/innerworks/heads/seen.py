"""Everything that attention patterns alone say of heads: labels at rung 1, and what follows from them.

A function of the masses by unit that every atlas keeps, so all of it can be decided again.
"""

from innerworks.findings import Finding
from innerworks.heads import decide, joiners, sinks
from innerworks.heads.decide import HeadsByUnit


def findings(table: HeadsByUnit) -> list[Finding]:
    """Labels of all kinds, how far joiners look, and whether labelled heads rest where they have nothing to look at."""
    labels = decide.findings(table)
    return [*labels, *joiners.findings(table, labels), *sinks.findings(table, labels)]
