"""What will a scan cost? Time and memory, from a short trial run on this machine."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from innerworks.heads.ablation import KEPT_BYTES, ROWS_AT_ONCE
from innerworks.heads.ablations_study import EFFORTS, Effort
from innerworks.heads.composition.study import EFFORT as COMPOSED
from innerworks.heads.domains.study import EFFORTS as TESTED
from innerworks.heads.streaming.study import EFFORTS as STREAMED
from innerworks.heads.suppression.study import EFFORTS as LOOKED
from innerworks.model import Model
from innerworks.neurons.skills.watch import bytes_of
from innerworks.scan.depth import Depth
from innerworks.stats import CONSTANTS
from innerworks.text import Reading
from innerworks.text.repeats import LENGTH

TRIAL_TOKENS = 256
OBSERVED = 1.35  # forwards that observing costs, in plain forwards (budget)
SETS = 2.5  # of heads that are ablated, where every label is tried: so many for each head of the specimen
#: forwards of each token beside the pass. Only standard is measured, and of it 4.4; ablations of labels by what they respond to
#: are counted: 25 ways and 40 controls on 768 tokens (full: 126 and none on 10,240), each three quarters of a forward.
NEURONS = {"quick": 1.0, "standard": 5.6, "full": 33.0}
STREAM = {"quick": 0.3, "standard": 0.6, "full": 8.0}  # the same of the residual stream
KEPT = 900  # bytes for each head and document
SUMMED = 2300  # bytes for each neuron


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
        time = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"
        return (
            f"{self.model}, {self.parameters / 1e6:,.0f} M parameters, depth {self.depth}: {self.says}.\n"
            f"{self.documents} documents and generated repeats, {self.tokens:,} tokens; then about {self.ablations} ablations.\n"
            f"This machine reads {self.tokens_per_second:,.0f} tokens/s now: "
            f"about {time} and {self.gigabytes:.1f} GB of memory."
        )


def plan(model: Model, reading: Reading, depth: Depth, only: Sequence[str] | None = None) -> Plan:
    """Time a few short forwards and add up; only: these chapters."""
    rate = _tokens_per_second(model)
    heads, neurons, stream = (only is None or chapter in only for chapter in ("heads", "neurons", "residual"))
    effort = EFFORTS[depth.name]
    trial = effort.units["random"] * LENGTH + effort.units["text"] * effort.text_tokens
    ablations = _ablations(model, effort) if heads else 0
    resumed = 0.6 if effort.shared_controls else 0.3  # half of the layers; on all of the trial, or on one material of it
    work = reading.tokens * OBSERVED + ablations * resumed * trial
    work += (_others(reading, depth) if heads else 0.0) + (NEURONS[depth.name] * reading.tokens if neurons else 0.0)
    work += STREAM[depth.name] * reading.tokens if stream else 0.0
    weights = sum(p.numel() * p.element_size() for p in model.hf.parameters())
    kept = 2 * trial * model.anatomy.layers * model.anatomy.d_model * 4
    logits = 3 * ROWS_AT_ONCE * model.anatomy.vocab * 4
    units = len(reading.units) * model.anatomy.layers * model.anatomy.heads * KEPT
    sums = model.anatomy.layers * model.anatomy.neurons * SUMMED
    sums += bytes_of(model.anatomy, reading) if neurons else 0
    return Plan(
        model=model.name,
        parameters=model.anatomy.parameters,
        depth=depth.name,
        says=depth.says,
        documents=sum(unit.material == "text" for unit in reading.units),
        tokens=reading.tokens,
        tokens_per_second=rate,
        ablations=ablations,
        seconds=work / rate,
        gigabytes=(weights + kept + 2 * KEPT_BYTES + logits + units + sums) / 1e9 + 0.7,
    )


def _ablations(model: Model, effort: Effort) -> int:
    """About how many sets of heads are ablated."""
    if effort.candidates is not None:
        return effort.candidates + CONSTANTS.controls
    return round(SETS * model.anatomy.layers * model.anatomy.heads)


def _others(reading: Reading, depth: Depth) -> float:
    """What the studies that run texts of their own cost, in tokens read once by the whole model; roughly."""
    if depth.name not in COMPOSED:
        return 0.0
    receivers, sequences = COMPOSED[depth.name]
    looked, tested, streamed = LOOKED[depth.name], TESTED[depth.name], STREAMED[depth.name]
    documents = sum(unit.material == "text" for unit in reading.units)
    return (
        10 * looked.documents * looked.tokens  # a logit lens at several layers, on both halves
        + 6 * receivers * sequences * LENGTH  # many runs of few layers
        + documents * tested.tokens * (4 + tested.pairs / 3)  # backwards through one half, ablations on the other
        + 11 * min(streamed.texts * streamed.cache * streamed.times, reading.tokens_of("text") // 2)  # mostly one by one
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
