"""What does every neuron do on average, and how large is what it writes around that: what a mean ablation needs to know.

The activation of a neuron is the input of the down projection (in gated families, gate times value). Only discovery is averaged,
each material for itself, positions 1 and later: the first position is not like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.model import Mean, Model
from innerworks.model.anatomy import Anatomy
from innerworks.model.observe import State, zeros
from innerworks.sites import Site
from innerworks.text import Reading, TextBatch

MATERIALS = ("text", "random")


class NeuronMeans:
    """The instrument: sums of activations and of their squares, on discovery."""

    name = "neuron_means"
    kinds: Sequence[str] = ("neurons",)

    def begin(self, anatomy: Anatomy, reading: Reading) -> State:
        """Sums per material, layer and neuron."""
        shape = (len(MATERIALS), anatomy.layers, anatomy.neurons)
        return {"sum": zeros(*shape), "squares": zeros(*shape), "rows": zeros(len(MATERIALS))}

    def begin_batch(self, batch: TextBatch) -> None:
        """Choose the rows: real tokens after the first."""
        self._rows = batch.mask.clone()
        self._rows[:, 0] = False

    def observe(self, state: State, batch: TextBatch, site: Site, activation: Tensor, queries: slice) -> None:
        """Add one layer's activations `[batch, seq, neuron]`."""
        if batch.half != "discovery":
            return
        material, chosen = MATERIALS.index(batch.material), activation[self._rows.to(activation.device)].float()
        state["sum"][material, site.layer] += chosen.sum(dim=0).double().cpu()
        state["squares"][material, site.layer] += chosen.square().sum(dim=0).double().cpu()

    def end_batch(self, state: State, batch: TextBatch) -> None:
        """Count the rows."""
        if batch.half == "discovery":
            state["rows"][MATERIALS.index(batch.material)] += self._rows.sum()


@dataclass(frozen=True, kw_only=True)
class NeuronReference:
    """What a mean ablation puts in a neuron's place on one material, how much varies, and how much it removes.

    Arrays are `[layer, neuron]`; removed: the root mean square norm of `(activation - mean) W_out`.
    """

    mean: Mean
    spread: Float[np.ndarray, "layer neuron"]
    removed: Float[np.ndarray, "layer neuron"]


def neuron_reference(model: Model, state: State, material: str) -> NeuronReference:
    """Turn the sums of a material into means, standard deviations and removed norms."""
    which = MATERIALS.index(material)
    over = f"the {material} of the discovery half, positions 1 and later"
    return _reference(model, state["sum"][which], state["squares"][which], int(state["rows"][which]), over)


@torch.no_grad()
def reference_of(model: Model, batches: Sequence[TextBatch], *, over: str) -> NeuronReference:
    """The same of texts that are no part of the reading, such as prompts; over: what they are, in words."""
    shape = model.anatomy.layers, model.anatomy.neurons
    total, squares, count = zeros(*shape), zeros(*shape), 0
    for batch in (one.to(model.device) for one in batches):
        rows = batch.mask.clone()
        rows[:, 0] = False
        run = model.run(batch.tokens, mask=batch.mask, record=model.sites("neurons"), logits="none")
        for layer in range(model.anatomy.layers):
            activation = run.recorded["neurons", layer]
            chosen = activation[rows.to(activation.device)].float()
            total[layer] += chosen.sum(dim=0).double().cpu()
            squares[layer] += chosen.square().sum(dim=0).double().cpu()
        count += int(rows.sum())
    return _reference(model, total, squares, count, over)


def _reference(model: Model, total: Tensor, squares: Tensor, rows: int, over: str) -> NeuronReference:
    mean = total / max(rows, 1)
    spread = (squares / max(rows, 1) - mean.square()).clamp(min=0).sqrt()
    norms = torch.stack([model.weights.W_out(layer).float().norm(dim=-1).double().cpu() for layer in range(model.anatomy.layers)])
    return NeuronReference(
        mean=Mean(values={"neurons": mean.float()}, over=over), spread=spread.numpy(), removed=(spread * norms).numpy()
    )
