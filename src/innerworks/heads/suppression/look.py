"""What do some heads look at, what would they write, and what was about to be predicted there? One run of some documents.

1. Patterns and values of the heads; `written[j] = v_j W_O . (u[token_j] - mean u)`: what full attention to position j would
   add to the logit of its token, before the scale of the final norm.
2. The logit lens on the stream that enters the heads' layer: log probabilities of the tokens of the text itself, at every
   row, and the log probability of the tenth of the whole vocabulary.
3. The final stream and its scale, with which direct effects become logits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.heads.circuits.direct import post_scale, value_site, values_of
from innerworks.heads.circuits.embedding import mean_unembedding, unembedding
from innerworks.heads.harms import Head
from innerworks.heads.suppression.documents import Documents
from innerworks.model import Model
from innerworks.model.readout.lens import after_final_norm
from innerworks.model.run import Run

TOP = 10  # tokens that count as about to be predicted
AT_ONCE = 8  # documents
LOGITS_AT_ONCE = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen of some heads on some documents; everything lies on the CPU."""

    documents: Documents
    heads: tuple[Head, ...]
    pattern: Float[Tensor, "head doc seq key"] = field(repr=False)
    values: Float[Tensor, "head doc key d_head"] = field(repr=False)
    written: Float[Tensor, "head doc key"] = field(repr=False)
    lens: dict[int, Float[Tensor, "doc seq key"]] = field(repr=False)  # by layer: log probability of key's token at seq
    tenth: dict[int, Float[Tensor, "doc seq"]] = field(repr=False)  # by layer: that of the tenth token of the vocabulary
    final: Float[Tensor, "doc seq width"] = field(repr=False)  # after the final norm
    scale: Float[Tensor, "layer doc seq"] = field(repr=False)  # what is written in a layer is divided by this on its way out

    def only(self, which: Tensor) -> "Look":
        """A part of the documents."""
        return replace(
            self,
            documents=self.documents.only(which),
            pattern=self.pattern[:, which],
            values=self.values[:, which],
            written=self.written[:, which],
            lens={layer: one[which] for layer, one in self.lens.items()},
            tenth={layer: one[which] for layer, one in self.tenth.items()},
            final=self.final[which],
            scale=self.scale[:, which],
        )

    def direct(self, head: Head) -> Float[Tensor, "doc seq key"]:
        """What a head adds to the logit of each token that it looks at, in logits."""
        at = self.heads.index(head)
        return self.pattern[at] * self.written[at][:, None, :] / self.scale[head[0]][..., None]


def look(model: Model, documents: Documents, heads: Sequence[Head], *, step: Callable[[int], None] = lambda done: None) -> Look:
    """Run the documents once, a few at a time. step: called with how many are done."""
    total = len(documents.units)
    parts = []
    for start in range(0, total, AT_ONCE):
        parts.append(_part(model, documents.only(torch.arange(start, min(start + AT_ONCE, total))), tuple(heads)))
        step(min(start + AT_ONCE, total))
    return _joined(documents, tuple(heads), parts)


def _part(model: Model, some: Documents, heads: tuple[Head, ...]) -> Look:
    layers = sorted({layer for layer, _ in heads})
    last = model.anatomy.layers - 1
    kinds = ("resid_pre", "pattern", value_site(model), *(("z",) if model.adapter.post_norms else ()))
    sites = [f"L{layer}.{kind}" for layer in layers for kind in dict.fromkeys(kinds)]
    run = model.run(some.tokens, mask=some.mask, record=[*sites, f"L{last}.resid_post"], logits="none")
    values = {layer: values_of(model, layer, run[f"L{layer}.{value_site(model)}"]).float() for layer in layers}
    lens, tenth = {}, {}
    for layer in layers:
        lens[layer], tenth[layer] = lens_on_context(model, run[f"L{layer}.resid_pre"], some)
    return Look(
        documents=some,
        heads=heads,
        pattern=torch.stack([run[f"L{layer}.pattern"][:, head].float().cpu() for layer, head in heads]),
        values=torch.stack([values[layer][:, :, head].cpu() for layer, head in heads]),
        written=_written(model, some, values, heads),
        lens=lens,
        tenth=tenth,
        final=run.final.float().cpu(),
        scale=_scales(model, run, layers, f"L{last}.resid_post"),
    )


def directions(model: Model, some: Documents) -> Float[Tensor, "doc seq d_model"]:
    """For each token of the documents, what raises its logit alone: its folded column of W_U less the mean of all columns."""
    tokens = some.tokens.to(model.device)
    columns = unembedding(model, tokens.flatten()).mT - mean_unembedding(model)
    return columns.unflatten(0, tokens.shape)


def _written(model: Model, some: Documents, values: dict[int, Tensor], heads: tuple[Head, ...]) -> Float[Tensor, "head doc key"]:
    toward = directions(model, some)
    rows = []
    for layer, head in heads:
        output = model.weights.W_O(layer, fold=True)[head].to(toward)
        rows.append(torch.einsum("bke,ed,bkd->bk", values[layer][:, :, head].to(toward), output, toward).cpu())
    return torch.stack(rows)


def _scales(model: Model, run: Run, layers: list[int], stream: str) -> Float[Tensor, "layer doc seq"]:
    """The final norm's scale, times that of a norm behind attention where the family has one."""
    norm = model.weights.final_norm
    final = torch.ones(run.tokens.shape, device=run.final.device) if norm is None else norm.scale(run[stream]).float()
    scale = final.expand(model.anatomy.layers, *final.shape).clone()
    if model.adapter.post_norms:
        for layer in layers:
            scale[layer] *= post_scale(model, layer, run[f"L{layer}.z"])
    return scale.cpu()


def lens_on_context(
    model: Model, stream: Float[Tensor, "doc seq d_model"], some: Documents
) -> tuple[Float[Tensor, "doc seq key"], Float[Tensor, "doc seq"]]:
    """What the logit lens gives to the tokens of the text itself, and to the tenth of the vocabulary: log probabilities."""
    tokens = some.tokens.to(model.device)
    rows = stream.flatten(0, 1)
    which = torch.arange(len(tokens), device=rows.device).repeat_interleave(tokens.shape[1])
    context, tenth = [], []
    block = max(1, LOGITS_AT_ONCE // model.anatomy.vocab)
    for part, text in zip(rows.split(block), which.split(block), strict=True):
        with torch.no_grad():
            logits = model.readout(after_final_norm(model, part)).float()
        total = logits.logsumexp(dim=-1, keepdim=True)
        context.append((logits.gather(1, tokens[text]) - total).cpu())
        tenth.append((logits.topk(min(TOP, logits.shape[-1]), dim=-1).values[:, -1:] - total)[:, 0].cpu())
    shape = tokens.shape
    return torch.cat(context).reshape(*shape, shape[1]), torch.cat(tenth).reshape(shape)


def _joined(documents: Documents, heads: tuple[Head, ...], parts: list[Look]) -> Look:
    layers = sorted({layer for layer, _ in heads})
    return Look(
        documents=documents,
        heads=heads,
        pattern=torch.cat([one.pattern for one in parts], dim=1),
        values=torch.cat([one.values for one in parts], dim=1),
        written=torch.cat([one.written for one in parts], dim=1),
        lens={layer: torch.cat([one.lens[layer] for one in parts]) for layer in layers},
        tenth={layer: torch.cat([one.tenth[layer] for one in parts]) for layer in layers},
        final=torch.cat([one.final for one in parts]),
        scale=torch.cat([one.scale for one in parts], dim=1),
    )
