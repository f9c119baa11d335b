"""What do predictions lose where a neuron's family is on, and where it is off, when neurons are at their mean?

One clean run per batch; each ablation is resumed from it, so that only later layers are computed, and both metrics are read off
the same run. Ways with the same neurons, one after the other, share it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from innerworks.model import Mean, Model
from innerworks.model.losses import counted, token_losses
from innerworks.neurons.effects.families import Family
from innerworks.neurons.inputs.design import Design
from innerworks.neurons.necessity import Neuron, without
from innerworks.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class Way:
    """Neurons that are ablated at once, and the families whose rows are asked about: those where any of them is on."""

    neurons: tuple[Neuron, ...]
    families: tuple[Family, ...]


@dataclass(frozen=True, kw_only=True)
class Rises:
    """Rise of the loss in nats per row, of each document; NaN where a document has no such row."""

    on: Float[np.ndarray, "way unit"]
    off: Float[np.ndarray, "way unit"]


@torch.no_grad()
def rises(
    model: Model,
    batches: Sequence[TextBatch],
    mean: Mean,
    ways: Sequence[Way],
    design: Design,
    *,
    step: Callable[[], None] = lambda: None,
) -> Rises:
    """Ablate in each way; position 0 is left as it is."""
    found: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for batch in (one.to(model.device) for one in batches):
        clean = model.run(batch.tokens, mask=batch.mask, keep="resume", logits="none")
        before, rows, features = token_losses(model, clean.final, batch), counted(batch), design.rows(batch.tokens)
        by_way: dict[bool, list[Tensor]] = {True: [], False: []}
        rise, last = before, None
        for way in ways:
            if way.neurons != last:
                rise = token_losses(model, without(model, mean, way.neurons)(clean).final, batch) - before
                last = way.neurons
            on = torch.stack([one.on(batch.tokens, features) for one in way.families]).any(dim=0)
            for side in (True, False):
                by_way[side].append(_by_document(rise, rows & (on == side)))
            step()
        for side, some in by_way.items():
            found[side].append(torch.stack(some).numpy(force=True))
    on, off = (np.concatenate(found[side], axis=1) for side in (True, False))
    return Rises(on=on, off=off)


def _by_document(rise: Float[Tensor, "batch seq"], rows: Bool[Tensor, "batch seq"]) -> Float[Tensor, " batch"]:
    rows = rows.to(rise.device)
    return (rise.double() * rows).sum(dim=1) / rows.sum(dim=1)
