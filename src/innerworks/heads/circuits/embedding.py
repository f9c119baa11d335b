"""What does each token bring to the heads above block 0? The effective embedding, computed by the model's own block 0.

1. `W_E`: what the family's embedding puts into the stream for a token (scaled, projected or normed as it does), positions
   dropped.
2. `MLP0(W_E)`: what block 0's feed-forward adds to it, through its own norms, where attention 0 adds nothing. Every family's
   modules are called as they are: the model reads each token as a text of one, `W_E` is put in as the stream entering block
   0, attention 0's output is set to zero, and the run ends as soon as the feed-forward has spoken.
3. `W_EE = W_E + MLP0(W_E)` is what a head of layer 1 or later finds of a token. A head of layer 0 reads `W_E`.

In GPT-2, whose unembedding is its embedding, block 0 turns tokens into what later heads read; without it OV circuits seem to
do nothing. McDougall et al. 2023, arXiv:2310.04625; Gould et al. 2023, arXiv:2312.09230 (MLP0 alone). What it does not do:
follow what attention 0 or any later layer adds in context; `direct.py` measures in context.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerworks.errors import UnsupportedModel
from innerworks.model import Model
from innerworks.model.run import Watch
from innerworks.model.weights import before
from innerworks.sites import Site

Through = Literal["raw", "mlp0", "whole"]
TOKENS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """What some tokens bring: `raw` is W_E, `mlp0` what the first feed-forward makes of it, `whole` their sum."""

    raw: Float[Tensor, "token d_model"]
    mlp0: Float[Tensor, "token d_model"]

    @property
    def whole(self) -> Float[Tensor, "token d_model"]:
        """`W_EE`, what a head of layer 1 or later finds."""
        return self.raw + self.mlp0

    def __getitem__(self, through: Through) -> Float[Tensor, "token d_model"]:
        return {"raw": self.raw, "mlp0": self.mlp0}.get(through, self.whole)


class _Spoken(Exception):
    """The feed-forward has spoken; the blocks above need not run."""


def refusal(model: Model) -> str | None:
    """Why a model has no circuits from tokens to logits that weights alone could show, or None where it has."""
    if not model.anatomy.sums:
        return f"{model.name} norms its stream after each addition, so no head's output reaches the logits as it was written"
    unreadable = model.weights.unreadable
    return None if unreadable is None else f"the weights of {model.name} cannot be read: {unreadable}"


def require(model: Model) -> None:
    """Raise UnsupportedModel where there is a `refusal`."""
    reason = refusal(model)
    if reason is not None:
        raise UnsupportedModel(f"{reason}. Heads can still be typed by their patterns, and ablated.")


def effective(model: Model, ids: Int[Tensor, " token"]) -> Embedding:
    """What do these tokens bring to the stream, before and after the first feed-forward? See the top of this file.

    Returns: two matrices `[token, d_model]` in float32 at least, in units of the stream. Raises UnsupportedModel for models whose
    stream is no sum (post-LN), and for quantised or offloaded weights.
    """
    require(model)
    table = model.weights.W_E()
    return _effective(model, table, ids.to(table.device))


def blocks(model: Model, ids: Int[Tensor, " token"]) -> Iterator[tuple[Int[Tensor, " some"], Embedding]]:
    """The same, a few thousand tokens at a time: a vocabulary need not fit in memory twice."""
    require(model)
    table = model.weights.W_E()
    for some in ids.to(table.device).split(TOKENS_AT_ONCE):
        yield some, _effective(model, table, some)


def unembedding(model: Model, part: slice | Tensor) -> Float[Tensor, "d_model token"]:
    """What raises the logits of some tokens: the columns of W_U with the final norm's gain folded in."""
    return before(model.weights.final_norm, model.weights.W_U()[:, part].mT).mT


def mean_unembedding(model: Model) -> Float[Tensor, " d_model"]:
    """What raises all logits alike, and so no probability: the mean column of the folded W_U."""
    return before(model.weights.final_norm, model.weights.W_U().float().mean(dim=1))


def as_read(model: Model, rows: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
    """Each row divided by the scale that an attention norm would divide it by; its gain is in the folded W_V.

    Where attention reads the stream without a norm (OLMo 2), the rows as they are.
    """
    norm = model.weights.attention_norm(model.anatomy.layers - 1)
    return rows if norm is None else rows / norm.scale(rows)[:, None]


def _effective(model: Model, table: Tensor, ids: Tensor) -> Embedding:
    raw, added = [], []
    for some in ids.split(TOKENS_AT_ONCE):
        raw.append(table[some])
        added.append(_first_feed_forward(model, some, raw[-1]))
    return Embedding(raw=_wide(torch.cat(raw)), mlp0=_wide(torch.cat(added)))


def _first_feed_forward(model: Model, ids: Tensor, stream: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
    """What block 0's feed-forward adds to these streams, each a text of one token, where attention 0 adds nothing."""
    spoken: list[Tensor] = []

    def put(activation: Tensor, queries: slice) -> Tensor:
        return stream[:, None].to(activation)

    def silence(activation: Tensor, queries: slice) -> Tensor:
        return torch.zeros_like(activation)

    def listen(activation: Tensor, queries: slice) -> None:
        spoken.append(activation[:, 0])
        raise _Spoken

    watch: list[Watch] = [
        (Site(layer=0, kind="resid_pre"), put),
        (Site(layer=0, kind="attn_out"), silence),
        (Site(layer=0, kind="mlp_out"), listen),
    ]
    try:
        model.run(ids[:, None].to(model.device), watch=watch, logits="none")
    except _Spoken:
        pass
    return spoken[0]


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
