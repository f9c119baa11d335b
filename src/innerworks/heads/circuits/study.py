"""Circuits of weights as a study of a scan: what heads write, by their weights and in context."""

from collections.abc import Sequence

from innerworks.findings import Finding
from innerworks.heads.circuits.decide import findings
from innerworks.heads.circuits.direct import DirectEffect
from innerworks.heads.circuits.embedding import refusal
from innerworks.heads.circuits.measure import measure
from innerworks.model import Model
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units


class Circuits:
    """Which heads copy, anti-copy or increment?"""

    name = "circuits"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """Direct effects on what heads look at, where the model has circuits that weights can show."""
        return [DirectEffect(model)] if refusal(model) is None else []

    def measure(self, given: Given) -> Kept:
        """Weights of all heads and of mismatched parts; lists of ordinals; and what watched the pass."""
        reason = refusal(given.model)
        if reason is not None:
            return Kept(about={"not measured": reason})
        return Kept(arrays=measure(given.model, seen=given.states[DirectEffect.name], seed=given.seed))

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Labels need both the weights and the context."""
        return [*before, *findings(dict(kept.arrays), units)]
