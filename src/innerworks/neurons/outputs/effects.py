"""What does losing one neuron do to the whole prediction? Its uncertainty, its loss, its distance from mere frequencies.

1. A few rows of each document, evenly spread: the logits there before any soft cap, of real tokens.
2. The neuron is put to its mean (position 0 left as it is) and the model goes on from its layer. Per row, absolute changes: of
   the entropy, of the loss, and of `KL(f || prediction)` from the token frequencies `f`; averaged per document. Absolute, since
   a neuron that does its work raises some rows and lowers others around its mean.
3. `frozen`: the same with the scale of the final norm held where it was: what does not go through that scale.
4. `restored`: the loss once more, with the logits' part along the frequency direction put back: what does not go along it.

Stolfo et al. 2024, arXiv:2406.16254. All in nats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from innerworks.model import Edit, Mean, Model, Run, ablate, freeze
from innerworks.model.losses import counted
from innerworks.model.matched import Place
from innerworks.neurons.outputs.controls import Turned, remove_turned
from innerworks.sites import Site
from innerworks.stats import Array
from innerworks.text import TextBatch

WHOLE = ("entropy", "loss", "kl")
FROZEN = ("entropy_frozen", "loss_frozen")
RESTORED = ("loss_restored",)


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """How frequent tokens are, and the direction of logits that says so."""

    share: Float[Tensor, " vocab"]
    direction: Float[Tensor, " vocab"]


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a model predicts at some rows: logits of real tokens, and what they come to, in nats."""

    logits: Float[Tensor, "row vocab"] = field(repr=False)
    entropy: Float[Tensor, " row"]
    loss: Float[Tensor, " row"]
    kl: Float[Tensor, " row"]


def spread_rows(batch: TextBatch, most: int) -> Bool[Tensor, "batch seq"]:
    """So many of each document's positions that have a next token, evenly spread."""
    counts = counted(batch)
    rank, total = counts.cumsum(dim=1) - 1, counts.sum(dim=1, keepdim=True)
    first_of_its_part = (rank * most) // total.clamp(min=1) != ((rank - 1) * most) // total.clamp(min=1)
    return counts & first_of_its_part


def predicted(model: Model, final: Float[Tensor, "row d_model"], following: Tensor, of: Frequencies) -> Predicted:
    """Read the prediction off streams that have passed the final norm; following: the tokens that come next."""
    logits = model.readout(final, capped=False)[:, : len(of.share)].float()
    log_p = logits.log_softmax(dim=-1)
    own = of.share.to(log_p)
    return Predicted(
        logits=logits,
        entropy=-(log_p.exp() * log_p).sum(dim=-1),
        loss=-log_p.gather(1, following.to(log_p.device)[:, None])[:, 0],
        kl=(own * own.log()).sum() - log_p @ own,
    )


@torch.no_grad()
def effects(
    model: Model,
    batches: Sequence[TextBatch],
    mean: Mean,
    neurons: Sequence[Place | Turned],
    of: Frequencies,
    *,
    rows: int,
    also: Sequence[str] = (),
    step: Callable[[], None] = lambda: None,
) -> dict[str, Float[np.ndarray, "neuron unit"]]:
    """How much does each document's prediction change without each neuron? By quantity: `WHOLE`, and what `also` names.

    also: any of `FROZEN` and `RESTORED`. Documents in the order of the batches. Of a `Turned` neuron: without as much as its loss
    takes away, along another direction.
    """
    found: list[list[dict[str, Array]]] = []
    for batch in (one.to(model.device) for one in batches):
        clean = model.run(batch.tokens, mask=batch.mask, record="norm_scale", keep="resume", logits="none")
        at = _Rows.of(batch, rows)
        before = predicted(model, at.taken(clean.final), at.following, of)
        by_neuron = []
        for neuron in neurons:
            by_neuron.append(_effects(model, clean, before, mean, neuron, of, at, also))
            step()
        found.append(by_neuron)
    names = (*WHOLE, *also)
    per_neuron = [{name: np.concatenate([batch[i][name] for batch in found]) for name in names} for i in range(len(neurons))]
    count = sum(len(batch.tokens) for batch in batches)
    return {name: np.array([one[name] for one in per_neuron]).reshape(len(neurons), count) for name in names}


def _effects(
    model: Model,
    clean: Run,
    before: Predicted,
    mean: Mean,
    neuron: Place | Turned,
    of: Frequencies,
    at: "_Rows",
    also: Sequence[str],
) -> dict[str, Array]:
    turned = isinstance(neuron, Turned)
    lost = [] if turned else [ablate(Site(layer=neuron[0], neuron=neuron[1]), mean=mean)]
    watch = remove_turned(model, mean, neuron) if turned else []

    def without(*edits: Edit) -> Predicted:
        run = model.run(clean.tokens, mask=clean.mask, edit=[*lost, *edits], watch=watch, resume=clean, logits="none")
        return predicted(model, at.taken(run.final), at.following, of)

    after = without()
    found = {name: at.change(getattr(after, name), getattr(before, name)) for name in WHOLE}
    if set(also) & set(FROZEN):
        frozen = without(freeze("norm_scale", clean))
        found |= {"entropy_frozen": at.change(frozen.entropy, before.entropy), "loss_frozen": at.change(frozen.loss, before.loss)}
    if set(also) & set(RESTORED):
        along = of.direction.to(after.logits)
        restored = after.logits - ((after.logits - before.logits) @ along)[:, None] * along
        loss = torch.nn.functional.cross_entropy(restored, at.following.to(restored.device), reduction="none")
        found["loss_restored"] = at.change(loss, before.loss)
    return found


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The rows of a batch that are read."""

    where: Bool[Tensor, "batch seq"]
    following: Tensor  # the token after each

    @classmethod
    def of(cls, batch: TextBatch, rows: int) -> "_Rows":
        where = spread_rows(batch, rows)
        return cls(where=where, following=batch.tokens.roll(-1, dims=1)[where])

    def taken(self, final: Float[Tensor, "batch seq d_model"]) -> Float[Tensor, "row d_model"]:
        return final[self.where.to(final.device)]

    def change(self, after: Float[Tensor, " row"], before: Float[Tensor, " row"]) -> Array:
        """The mean absolute change of each document."""
        by_row = torch.zeros(self.where.shape, dtype=torch.float64, device=after.device)
        by_row[self.where.to(after.device)] = (after - before).abs().double()
        return (by_row.sum(dim=1) / self.where.sum(dim=1).to(by_row)).numpy(force=True)
