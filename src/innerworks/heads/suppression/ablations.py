"""Without a head, is the model less well calibrated, and who steps in? Mean ablations on confirmation documents.

For every set of heads that is ablated, over the rows that have a next token:

1. *Calibration*: the probability of the likeliest token, and whether it is right, in 15 bins of equal mass (of this run, all
   documents pooled), summed per bin and document; so the expected calibration error of any resampling of documents follows.
2. Loss of the next token, and KL(whole model || without), in nats, per document.
3. What the suppression heads of later layers now add to the logit of the token of the text that was about to be predicted.

Guo et al. 2017, arXiv:1706.04599 (calibration error); McDougall et al. 2023, arXiv:2310.04625 (copy suppression repairs).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from innerworks.heads.ablation import Head, Rotated, remove_rotated, set_name
from innerworks.heads.suppression import attention
from innerworks.heads.suppression.cspa import divergence, log_probabilities
from innerworks.heads.suppression.look import Look, directions
from innerworks.model import Mean, Model, Run, ablate
from innerworks.sites import Site
from innerworks.stats import CONSTANTS

BINS = 15
AT_ONCE = 8  # documents
ROWS_AT_ONCE = 256
Group = tuple[Head | Rotated, ...]


@dataclass(frozen=True, kw_only=True)
class Without:
    """What the model does without each of some groups of heads; the first is none, the model as it is."""

    names: tuple[str, ...]  # `L23H3+L24H4`; `clean` for none
    bins: Float[np.ndarray, "run doc bin three"]  # rows, sum of confidence, sum of right answers
    loss: Float[np.ndarray, "run doc"]
    divergence: Float[np.ndarray, "run doc"]
    toward: Float[np.ndarray, "run watched doc"]  # direct effect on the predicted token; NaN where no such row


def name_of(group: Group) -> str:
    """A group of heads as text: `L17H3+L18H6`, `L17H3~4` for a rotated control."""
    return set_name(frozenset(group))


def without(
    model: Model,
    seen: Look,
    groups: Sequence[Group],
    watched: Sequence[Head],
    mean: Mean,
    *,
    step: Callable[[int], None] = lambda done: None,
) -> Without:
    """Run the documents of a look without each group of heads, and as they are.

    watched: the heads whose direct effects are followed. step: called with how many documents are done.
    """
    documents = seen.documents
    rows = documents.mask & documents.mask.roll(-1, dims=1)
    rows[:, -1] = False
    rows[:, : CONSTANTS.first_row] = False
    every = [(), *groups]
    toward = _Toward.of(model, seen, watched)
    found: list[dict[str, Tensor]] = []
    for start in range(0, len(documents.units), AT_ONCE):
        some = torch.arange(start, min(start + AT_ONCE, len(documents.units)))
        found.append(_batch(model, seen, every, mean, rows[some], toward, some))
        step(min(start + AT_ONCE, len(documents.units)))
    joined = {name: torch.cat([one[name] for one in found], dim=-1) for name in found[0]}
    return Without(
        names=tuple(name_of(group) for group in every),
        bins=binned(joined["confidence"], joined["right"], rows),
        loss=_means(joined["loss"], rows),
        divergence=_means(joined["divergence"], rows),
        toward=torch.cat([one for one in toward.done], dim=-1).numpy(force=True),
    )


def _batch(
    model: Model, seen: Look, groups: Sequence[Group], mean: Mean, rows: Tensor, toward: "_Toward", some: Tensor
) -> dict[str, Float[Tensor, "run row"]]:
    documents = seen.documents.only(some)
    clean = model.run(documents.tokens, mask=documents.mask, keep="resume", record=toward.sites(()), logits="none")
    finals, effects = [], []
    for group in groups:
        edits = [ablate(Site(layer=one[0], head=one[1]), mean=mean) for one in group if len(one) == 2]
        turned = [watch for one in group if len(one) == 3 for watch in remove_rotated(model, mean, one)]
        run = clean
        if group:
            sites = toward.sites(group)
            run = model.run(
                documents.tokens, mask=documents.mask, edit=edits, watch=turned, record=sites, resume=clean, logits="none"
            )
        finals.append(run.final[rows.to(run.final.device)])
        effects.append(toward.effect(run, group, some))
    toward.done.append(torch.stack(effects))
    return _readings(model, finals, documents.tokens.roll(-1, dims=1)[rows])


def _readings(model: Model, finals: list[Tensor], answers: Int[Tensor, " row"]) -> dict[str, Float[Tensor, "run row"]]:
    """Confidence, whether it is right, loss and divergence of every run at every row: the whole model's logits computed once."""
    out = {name: torch.zeros(len(finals), len(answers)) for name in ("confidence", "right", "loss", "divergence")}
    for start in range(0, len(answers), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        wanted = answers[part].to(model.device)
        own = log_probabilities(model, finals[0][part])
        for number, final in enumerate(finals):
            said = own if number == 0 else log_probabilities(model, final[part])
            best = said.max(dim=-1)
            out["confidence"][number, part] = best.values.exp().cpu()
            out["right"][number, part] = (best.indices == wanted).float().cpu()
            out["loss"][number, part] = -said.gather(1, wanted[:, None])[:, 0].cpu()
            out["divergence"][number, part] = 0.0 if number == 0 else divergence(own, said).float().cpu()
    return out


def binned(
    confidence: Float[Tensor, "run row"], right: Float[Tensor, "run row"], rows: Bool[Tensor, "doc seq"]
) -> Float[np.ndarray, "run doc bin three"]:
    """Rows, confidence and right answers in bins of equal mass, each run's own, summed per document."""
    count = confidence.shape[1]
    rank = confidence.argsort(dim=1, stable=True).argsort(dim=1)
    bins = rank * BINS // count
    place = rows.nonzero()[:, 0] * BINS + bins  # run row
    out = torch.zeros(len(confidence), len(rows) * BINS, 3, dtype=torch.float64)
    for number in range(len(confidence)):
        values = torch.stack([torch.ones(count), confidence[number], right[number]], dim=1).double()
        out[number].index_add_(0, place[number], values)
    return out.reshape(len(confidence), len(rows), BINS, 3).numpy(force=True)


def _means(values: Float[Tensor, "run row"], rows: Bool[Tensor, "doc seq"]) -> Float[np.ndarray, "run doc"]:
    total = torch.zeros(len(values), len(rows), dtype=torch.float64)
    total.index_add_(1, rows.nonzero()[:, 0], values.double())
    return (total / rows.sum(dim=1)).numpy(force=True)


@dataclass(frozen=True, kw_only=True)
class _Toward:
    """Follows what heads add to the logit of the token of the text that the lens ranked highest at each row."""

    heads: tuple[Head, ...]
    rows: Mapping[Head, Bool[Tensor, "doc seq"]]
    directions: Mapping[Head, Float[Tensor, "doc seq d_head"]]  # in the head's own coordinates, divided by the scales
    done: list[Tensor]  # of each batch, `[run, head, doc]`

    @classmethod
    def of(cls, model: Model, seen: Look, heads: Sequence[Head]) -> "_Toward":
        toward = directions(model, seen.documents).float().cpu()
        rows, into = {}, {}
        for layer, head in heads:
            wanted, chosen = _predicted(seen, layer, toward)
            rows[layer, head] = wanted.any(dim=-1)
            output = model.weights.W_O(layer, fold=True)[head].float().cpu()
            into[layer, head] = chosen @ output.mT / seen.scale[layer][..., None]
        return cls(heads=tuple(heads), rows=rows, directions=into, done=[])

    def sites(self, group: Group) -> list[str]:
        """What a run must record: z in the layers behind the first that it changes."""
        first = min((one[0] for one in group), default=-1)
        return [f"L{layer}.z" for layer in sorted({layer for layer, _ in self.heads}) if layer > first]

    def effect(self, run: Run, group: Group, some: Tensor) -> Float[Tensor, "head doc"]:
        """The mean over rows, in logits; NaN for heads that this run left as they were."""
        first = min((one[0] for one in group), default=-1)
        out = torch.full((len(self.heads), len(run.tokens)), torch.nan)
        for number, (layer, head) in enumerate(self.heads):
            if layer <= first:
                continue
            z = run[f"L{layer}.z"][:, :, head].float().cpu()
            rows = self.rows[layer, head][some]
            out[number] = ((z * self.directions[layer, head][some]).sum(dim=-1) * rows).sum(dim=1) / rows.sum(dim=1)
        return out


def copied(
    model: Model, seen: Look, labelled: Sequence[Head], copiers: Sequence[Head], mean: Mean
) -> Float[np.ndarray, "labelled doc"]:
    """What the copying heads before each labelled head add to the token that is about to be predicted there, beyond their mean.

    In logits, averaged over the rows that such a token has.
    """
    toward = directions(model, seen.documents).float().cpu()
    out = torch.zeros(len(labelled), len(seen.documents.units), dtype=torch.float64)
    if not copiers:
        return out.numpy(force=True)
    layers = sorted({layer for layer, _ in copiers})
    run = model.run(seen.documents.tokens, mask=seen.documents.mask, record=[f"L{layer}.z" for layer in layers], logits="none")
    for number, (layer, _) in enumerate(labelled):
        wanted, chosen = _predicted(seen, layer, toward)
        rows = wanted.any(dim=-1)
        for at, head in (one for one in copiers if one[0] < layer):
            output = model.weights.W_O(at, fold=True)[head].float().cpu()
            beyond = run[f"L{at}.z"][:, :, head].float().cpu() - mean.of(Site(layer=at, head=head)).float().cpu()
            added = ((beyond @ output) * chosen).sum(dim=-1) / seen.scale[at]
            out[number] += (added * rows).sum(dim=1) / rows.sum(dim=1)
    return out.numpy(force=True)


def _predicted(seen: Look, layer: int, toward: Tensor) -> tuple[Bool[Tensor, "doc seq key"], Float[Tensor, "doc seq d_model"]]:
    """The targets at a layer, and at each row the direction of the one that the lens ranks highest."""
    lens, tenth = seen.lens[layer], seen.tenth[layer]
    wanted = attention.targets(seen.documents, lens, tenth)
    best = torch.where(wanted, lens, -torch.inf).argmax(dim=-1)
    return wanted, toward.gather(1, best[..., None].expand(-1, -1, toward.shape[-1]))
