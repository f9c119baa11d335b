"""Syntactic heads as a study of a scan: what watches the pass, what the atlas keeps, what it comes to."""

from collections.abc import Sequence

from innerworks.findings import Finding
from innerworks.heads.syntax.decide import findings, table_of
from innerworks.heads.syntax.watching import Arcs, counts, measured
from innerworks.model import Model
from innerworks.model.observe import Instrument, numpy
from innerworks.model.study import Given, Kept, Units
from innerworks.text.syntax import LEAST_ARCS, LEAST_DOCUMENTS


class Syntax:
    """The study: which heads follow which syntactic relation?"""

    name = "syntax"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """What counts the arcs that heads follow."""
        return [Arcs()]

    def measure(self, given: Given) -> Kept:
        """The counts, as they were made; of relations that are too rare only how rare."""
        relations = measured(given.reading)
        rare = {
            relation: {"arcs": there.arcs, "documents": there.documents}
            for relation, there in counts(given.reading, "confirmation").items()
            if relation not in relations
        }
        if not relations:
            reason = f"no relation has {LEAST_ARCS} arcs in {LEAST_DOCUMENTS} documents to confirm on whose syntax is known"
            return Kept(about={"not measured": reason, "too rare": rare})
        return Kept(arrays=numpy(given.states[Arcs.name]), about={"relations": list(relations), "too rare": rare})

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Labels at rung 1, one family per relation and direction."""
        if "relations" not in kept.about:
            return list(before)
        return [*before, *findings(table_of(kept.arrays, kept.about["relations"], units))]
