"""What each head reads on average, and how large what it writes is around that: what a mean ablation needs to know.

Only the discovery half is averaged, each material for itself, positions 1 and later: the first position collects
attention that has nowhere to go and is not like any other. Text and generated repeats are averaged while a scan reads them;
prompts of a task, which no scan reads, by a run of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from innerworks.model import Mean, Model
from innerworks.model.anatomy import Anatomy
from innerworks.model.call import Handler
from innerworks.model.observe import State, zeros
from innerworks.model.run import Watch
from innerworks.sites import Site
from innerworks.text import Reading, TextBatch

MATERIALS = ("text", "random")


class HeadMeans:
    """The instrument: sums of z and of z zᵀ per head and material, on discovery."""

    name = "head_means"
    kinds: Sequence[str] = ("z",)

    def begin(self, anatomy: Anatomy, reading: Reading) -> State:
        """Sums per material, layer and head."""
        return _empty(anatomy, len(MATERIALS))

    def begin_batch(self, batch: TextBatch) -> None:
        """Choose the rows: real tokens after the first."""
        self._rows = batch.mask.clone()
        self._rows[:, 0] = False

    def observe(self, state: State, batch: TextBatch, site: Site, activation: Tensor, queries: slice) -> None:
        """Add one layer's z `[batch, seq, head, d_head]`."""
        if batch.half != "discovery":
            return
        assert site.layer is not None
        _add(state, MATERIALS.index(batch.material), site.layer, activation, self._rows)

    def end_batch(self, state: State, batch: TextBatch) -> None:
        """Count the rows."""
        if batch.half == "discovery":
            state["rows"][MATERIALS.index(batch.material)] += self._rows.sum()


@dataclass(frozen=True, kw_only=True)
class HeadReference:
    """What a mean ablation puts in a head's place on one material, and how much it removes."""

    mean: Mean
    removed: Float[Tensor, "layer head"]  # RMS norm of (z - mean) W_O


def reference(model: Model, state: State, material: str) -> HeadReference:
    """Turn the sums of a material into means and removed norms."""
    over = f"the {material} of the discovery half, positions 1 and later"
    return _reference(model, state, MATERIALS.index(material), over)


def reference_of(model: Model, tokens: Int[Tensor, "batch seq"], mask: Bool[Tensor, "batch seq"], *, over: str) -> HeadReference:
    """The same of some texts, by running them; over: what they are, in words."""
    state, rows = _empty(model.anatomy, 1), mask.clone()
    rows[:, 0] = False
    watch: list[Watch] = [(Site(layer=layer, kind="z"), _adder(state, layer, rows)) for layer in range(model.anatomy.layers)]
    model.run(tokens, mask=mask, watch=watch, logits="none")
    state["rows"][0] += rows.sum()
    return _reference(model, state, 0, over)


def _empty(anatomy: Anatomy, materials: int) -> State:
    shape = (materials, anatomy.layers, anatomy.heads, anatomy.d_head)
    return {"sum": zeros(*shape), "outer": zeros(*shape, anatomy.d_head), "rows": zeros(materials)}


def _add(state: State, material: int, layer: int, activation: Tensor, rows: Tensor) -> None:
    z = activation[rows.to(activation.device)].transpose(0, 1).float()  # head row d_head
    state["sum"][material, layer] += z.sum(dim=1).to(state["sum"])
    state["outer"][material, layer] += (z.transpose(1, 2) @ z).to(state["outer"])


def _adder(state: State, layer: int, rows: Tensor) -> Handler:
    return lambda activation, queries: _add(state, 0, layer, activation, rows)


def _reference(model: Model, state: State, m: int, over: str) -> HeadReference:
    mean = state["sum"][m] / state["rows"][m]
    covariance = state["outer"][m] / state["rows"][m] - mean[..., :, None] * mean[..., None, :]
    power = torch.stack([_power(covariance[layer], model.weights.W_O(layer)) for layer in range(model.anatomy.layers)])
    return HeadReference(mean=Mean(values={"z": mean.float()}, over=over), removed=power.clamp(min=0).sqrt())


def _power(covariance: Tensor, written: Tensor) -> Tensor:
    """Mean square of what each head of a layer writes around its mean: the trace of W_Oᵀ covariance W_O."""
    gram = (written.float() @ written.float().mT).to(covariance)
    return (covariance * gram).sum(dim=(-2, -1))
