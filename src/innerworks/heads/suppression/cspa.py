"""How much of what a head does to the output is copy suppression? Keep only that of it, and see what is lost.

A head's output at row D is `sum_S A[D, S] w_S`, with `w_S = v_S W_O`. Each source's part is taken around what the discovery
half has on average at the same two places, `m[D, S]`. Of these parts one keeps (copy suppression-preserving ablation)

- *OV*: from every source but the first position only the part along the direction that raises the source's own logit, and
  that only where it is negative;
- *QK*: from the sources whose tokens the logit lens at the head's layer ranks highest at D everything: one in twenty of the
  tokens of the text so far (rounded up; later copies of a token go with the first);
- *both*: from those sources only that part.

What is not kept is replaced by the mean. Only the direct effect on the output is changed, the final norm's scale is held:

    explained = 1 - mean KL(model || kept) / mean KL(model || head at its mean)

One when everything is kept, zero when nothing is. The null keeps the same number of random sources, along the directions of
another document's tokens. McDougall et al. 2023, arXiv:2310.04625 (GPT-2's L10H7: 76.9 %; 81.1 % OV alone, 95.2 % QK alone).
What it does not do, and they did: bar function words from being sources.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from innerworks.heads.harms import Head
from innerworks.heads.suppression.documents import Documents
from innerworks.heads.suppression.look import Look, directions
from innerworks.model import Model
from innerworks.model.anatomy import find
from innerworks.model.weights import behind
from innerworks.stats import CONSTANTS

SHARE = 0.05  # of the tokens so far that count as predicted
VARIANTS = ("mean", "both", "ov", "qk", "null")
ROWS_AT_ONCE = 256


def lost(
    model: Model, seen: Look, heads: list[Head], usual: Float[Tensor, "head seq key d_head"], *, seed: int
) -> Float[np.ndarray, "labelled variant doc"]:
    """KL divergence from the model's own output, in nats, averaged over the rows of each document; variants as in `VARIANTS`."""
    rows = seen.documents.mask.clone()
    rows[:, : CONSTANTS.first_row] = False
    found = []
    for head in heads:  # what one adds to the stream in all variants is large
        divergence = _divergence(model, seen.final[rows], changed(model, seen, head, usual, seed=seed)[:, rows])
        total = torch.zeros(len(divergence), len(rows), dtype=torch.float64)
        total.index_add_(1, rows.nonzero()[:, 0], divergence)
        found.append(total / rows.sum(dim=1))
    return torch.stack(found).numpy(force=True)


def average(seen: Look) -> Float[Tensor, "head seq key d_head"]:
    """What each head reads from each place at each row, averaged over the documents that reach there; zero where none does."""
    reach = (seen.documents.mask[:, :, None] & seen.documents.mask[:, None, :]).float()
    total = torch.einsum("hbqk,bqk,hbke->hqke", seen.pattern, reach, seen.values)
    return total / reach.sum(dim=0).clamp(min=1)[..., None]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A head's output around what is usual, source by source: `pattern[D, S] values[S] - usual[D, S]`, times `output`."""

    pattern: Float[Tensor, "doc seq key"]
    values: Float[Tensor, "doc key d_head"]
    usual: Float[Tensor, "seq key d_head"]
    output: Float[Tensor, "d_head d_model"]

    @property
    def removed(self) -> Float[Tensor, "doc seq d_model"]:
        """What a mean ablation adds to the stream: the mean less the output."""
        return -self.whole(torch.ones_like(self.pattern, dtype=torch.bool))

    def whole(self, kept: Bool[Tensor, "doc seq key"]) -> Float[Tensor, "doc seq d_model"]:
        """The parts of the kept sources."""
        read = (self.pattern * kept) @ self.values - torch.einsum("bqk,qke->bqe", kept.float(), self.usual)
        return read @ self.output

    def against(
        self, toward: Float[Tensor, "doc key d_model"], kept: Bool[Tensor, "doc seq key"]
    ) -> Float[Tensor, "doc seq d_model"]:
        """Of the kept sources, the part along each one's direction, where that is negative."""
        unit = torch.nn.functional.normalize(toward, dim=-1)
        into = unit @ self.output.mT  # doc key d_head
        along = self.pattern * (self.values * into).sum(dim=-1)[:, None, :] - torch.einsum("bke,qke->bqk", into, self.usual)
        return (along.clamp(max=0.0) * kept) @ unit


def fitted(usual: Float[Tensor, "seq key d_head"], length: int) -> Float[Tensor, "longer longer d_head"]:
    """Cut to so many tokens, or with nothing behind."""
    more = max(0, length - len(usual))
    return torch.nn.functional.pad(usual, (0, 0, 0, more, 0, more))[:length, :length]


def changed(
    model: Model, seen: Look, head: Head, usual: Float[Tensor, "head seq key d_head"], *, seed: int
) -> Float[Tensor, "variant doc seq width"]:
    """What each variant adds to the stream behind the final norm."""
    at, documents = seen.heads.index(head), seen.documents
    output = model.weights.W_O(head[0], fold=True)[head[1]].float().cpu()
    length = documents.tokens.shape[1]
    parts = Parts(pattern=seen.pattern[at], values=seen.values[at], usual=fitted(usual[at], length), output=output)
    toward = directions(model, documents).float().cpu()
    sources = documents.mask[:, None, :] & documents.mask[:, :, None]
    sources = sources.tril()
    sources[:, :, 0] = False
    high = predicted(seen.lens[head[0]], documents)
    chance = at_random(high, sources, seed)
    kept = {
        "mean": torch.zeros_like(parts.removed),
        "both": parts.against(toward, high),
        "ov": parts.against(toward, sources),
        "qk": parts.whole(high),
        "null": parts.against(toward[others(documents)], chance),
    }
    added = torch.stack([parts.removed + kept[variant] for variant in VARIANTS])
    return behind_the_norm(model, added / seen.scale[head[0]][..., None])


def others(documents: Documents) -> Int[Tensor, " doc"]:
    """Another document for each, whatever its stratum: only its tokens are wanted."""
    return torch.arange(len(documents.units)).roll(-1)


def predicted(lens: Float[Tensor, "doc seq key"], documents: Documents) -> Bool[Tensor, "doc seq key"]:
    """At each row, the sources whose tokens are ranked highest: one in twenty of the distinct tokens so far, and their copies."""
    length = lens.shape[1]
    sources = (documents.mask[:, None, :] & documents.mask[:, :, None]).tril()
    sources[:, :, 0] = False
    copies = (documents.tokens[:, :, None] == documents.tokens[:, None, :]).tril(diagonal=-1)
    copies[:, :, 0] = False
    first = ~copies.any(dim=2)
    compete = torch.where(sources & first[:, None, :], lens, -torch.inf)
    wanted = torch.ceil(SHARE * torch.arange(1, length + 1)).long()
    threshold = compete.sort(dim=-1, descending=True).values.gather(2, (wanted - 1).expand(len(lens), -1)[..., None])
    return sources & (lens >= threshold)


def at_random(like: Bool[Tensor, "doc seq key"], sources: Bool[Tensor, "doc seq key"], seed: int) -> Bool[Tensor, "doc seq key"]:
    """As many sources in every row, drawn at random."""
    noise = torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)).masked_fill(~sources, -1.0)
    return sources & (noise.argsort(dim=-1, descending=True).argsort(dim=-1) < like.sum(dim=-1, keepdim=True))


def behind_the_norm(model: Model, added: Float[Tensor, "*some d_model"]) -> Float[Tensor, "*some width"]:
    """What an addition to the scaled stream comes to behind the final norm, and behind a projection where there is one."""
    norm = model.weights.final_norm
    out = behind(None if norm is None else replace(norm, gain=norm.gain.cpu(), bias=None), added)
    then = find(model.hf, model.adapter.final_then)
    if then is None:
        return out
    with torch.no_grad():
        nothing = then(torch.zeros_like(out[..., :1, :]).to(model.device))
        return (then(out.to(model.device)) - nothing).cpu()


def _divergence(
    model: Model, final: Float[Tensor, "row width"], changes: Float[Tensor, "variant row width"]
) -> Float[Tensor, "variant row"]:
    """KL(model || changed) of every row, a few rows at a time: the model's own logits are computed once."""
    out = torch.zeros(changes.shape[:2], dtype=torch.float64)
    dtype = next(model.hf.parameters()).dtype
    for start in range(0, len(final), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        own = log_probabilities(model, final[part].to(dtype))
        for variant, change in enumerate(changes):
            other = log_probabilities(model, (final[part] + change[part]).to(dtype))
            out[variant, part] = divergence(own, other).cpu()
    return out


def log_probabilities(model: Model, final: Tensor) -> Float[Tensor, "row vocab"]:
    """What the model says behind the final norm."""
    with torch.no_grad():
        return model.readout(final.to(model.device)).float().log_softmax(dim=-1)


def divergence(own: Float[Tensor, "row vocab"], other: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """KL(own || other) in nats."""
    return (own.exp() * (own - other)).sum(dim=-1).double()
