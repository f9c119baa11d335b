"""Both steps at once, in memory: what the weights and a reading say of every head."""

from innerworks.findings import Finding
from innerworks.heads.circuits.decide import findings
from innerworks.heads.circuits.measure import measure
from innerworks.model import Model
from innerworks.text import Reading


def weight_findings(model: Model, reading: Reading | None = None, *, seed: int = 0) -> list[Finding]:
    """Which heads copy, anti-copy or increment? `findings(measure(model, reading), units)`; without a reading none copies."""
    units = [] if reading is None else [(unit.id, unit.stratum, unit.material, unit.half) for unit in reading.units]
    return findings(measure(model, reading, seed=seed), units)
