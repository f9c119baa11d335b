"""What will a scan cost? Time and memory, from a short trial run on this machine."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from innerworks.heads.ablations_study import EFFORTS
from innerworks.model import Model
from innerworks.scan.depth import Depth
from innerworks.stats import CONSTANTS
from innerworks.text import Reading

TRIAL_TOKENS = 256
OBSERVED = 1.35  # forwards that observing costs, in plain forwards (budget)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An estimate, to be shown before anything is done."""

    model: str
    parameters: int
    depth: str
    says: str
    documents: int
    tokens: int
    tokens_per_second: float
    ablations: int  # expected; how many labels there are is not known before
    seconds: float
    gigabytes: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def in_words(self) -> str:
        """Return it as a few lines for a person."""
        minutes = max(1, round(self.seconds / 60))
        return (
            f"{self.model}, {self.parameters / 1e6:,.0f} M parameters, depth {self.depth}: {self.says}.\n"
            f"{self.documents} documents and generated repeats, {self.tokens:,} tokens; then about {self.ablations} ablations.\n"
            f"This machine reads {self.tokens_per_second:,.0f} tokens/s: "
            f"about {minutes} min and {self.gigabytes:.1f} GB of memory."
        )


def plan(model: Model, reading: Reading, depth: Depth) -> Plan:
    """Time two short forwards and add up."""
    rate = _tokens_per_second(model)
    effort = EFFORTS[depth.name]
    labels = effort.candidates or max(10, model.anatomy.layers * model.anatomy.heads // 8)
    controls = CONSTANTS.controls if effort.shared_controls else min(4 * labels, model.anatomy.layers * model.anatomy.heads)
    joint = 3 * (2 * CONSTANTS.controls + CONSTANTS.joint_members) if effort.joint else 0
    ablations = labels + controls + joint
    trial = effort.units["random"] * 128 + effort.units["text"] * effort.text_tokens
    seconds = reading.tokens * OBSERVED / rate + ablations * 0.6 * trial / rate
    weights = sum(p.numel() * p.element_size() for p in model.hf.parameters())
    kept = 2 * trial * model.anatomy.layers * model.anatomy.d_model * 4
    logits = 3 * trial * model.anatomy.vocab * 4
    units = 8 * len(reading.units) * model.anatomy.layers * model.anatomy.heads * 25
    return Plan(
        model=model.name,
        parameters=model.anatomy.parameters,
        depth=depth.name,
        says=depth.says,
        documents=sum(unit.material == "text" for unit in reading.units),
        tokens=reading.tokens,
        tokens_per_second=rate,
        ablations=ablations,
        seconds=seconds,
        gigabytes=(weights + kept + logits + units) / 1e9 + 0.7,
    )


def _tokens_per_second(model: Model) -> float:
    length = min(TRIAL_TOKENS, model.anatomy.max_positions or TRIAL_TOKENS)
    tokens = torch.zeros(2, length, dtype=torch.long)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model.run(tokens, logits="none")
        seconds.append(time.perf_counter() - start)
    return tokens.numel() / min(seconds)
