"""In context, does a head raise the logit of what it looks at? Its direct effect on the attended tokens, beyond that on others.

1. Attending to position j adds `A[i, j] v_j W_O` to the stream at i. The final norm divides by its scale at i, which is held
   at what it was; then unembedding is linear, so this adds `A[i, j] v_j W_O . (u[token_j] - mean u) / scale_i` to the logit
   of token j.
2. Sum over j, the first position left out (it collects attention that has nowhere to go), average over rows (those of the
   first 128 tokens of each window): one number per unit and head, in logits.
3. The null: the same attention and values, with the tokens of another document of the same batch in their places (two of
   them, as the pattern swap has it). Heads that raise common tokens whatever they read come to zero.

Elhage et al. 2021, transformer-circuits.pub/2021/framework; the empirical copying score of Olsson et al. 2022,
arXiv:2209.11895, is of this kind. What it does not do: see what later layers make of it.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.heads.circuits.embedding import mean_unembedding, require, unembedding
from innerworks.heads.masks import PARTNERS, shared_rows
from innerworks.model import Model
from innerworks.model.anatomy import Anatomy
from innerworks.model.call import Handler
from innerworks.model.norms import Norm
from innerworks.model.observe import State, zeros
from innerworks.sites import Site
from innerworks.stats import CONSTANTS
from innerworks.text import Reading, TextBatch

LONGEST = 128  # tokens of each window that are followed: enough for an average per document, at half the cost
OWN, SWAPPED = 0, 1


def value_site(model: Model) -> str:
    """Where values are found: v, or the stream where a family's attention code does not show it."""
    return "v" if model.adapter.attention_code == "registry" else "resid_pre"


def values_of(model: Model, layer: int, activation: Tensor) -> Float[Tensor, "batch seq head d_head"]:
    """The values of all heads, from what was found at `value_site`."""
    if value_site(model) == "v":
        return activation
    norm, weights = model.part("attention_norm", layer), model.weights
    with torch.no_grad():
        read = activation if norm is None else norm(activation)
    return torch.einsum("bsd,hde->bshe", read, weights.W_V(layer, per_head=True)) + weights.b_V(layer, per_head=True)


def value_handler(model: Model, layer: int, use: Callable[[int, Tensor], None]) -> Handler:
    """A handler that hands on values."""

    def handle(activation: Tensor, queries: slice) -> None:
        use(layer, values_of(model, layer, activation))

    return handle


def post_scale(model: Model, layer: int, z: Float[Tensor, "*rows head d_head"]) -> Float[Tensor, "*rows"]:
    """What a norm behind attention divides its output by (Gemma 2 and 3, OLMo 2); 1 in other families."""
    if not model.adapter.post_norms:
        return torch.ones_like(z[..., 0, 0])
    weights = model.weights
    written = torch.einsum("...he,hed->...d", z.float(), weights.W_O(layer).float()) + weights.b_O(layer).float()
    return Norm.of(model.require_part("attention_added", layer)).scale(written)


class DirectEffect:
    """The instrument: direct effects of every head on the tokens it looks at, per unit. Give it to the engine with others."""

    name = "copying"

    def __init__(self, model: Model) -> None:
        require(model)
        self.model = model
        post = ("z",) if model.adapter.post_norms else ()
        self.kinds: Sequence[str] = (value_site(model), "pattern", *post, "resid_post")
        self._mean = mean_unembedding(model)

    def begin(self, anatomy: Anatomy, reading: Reading) -> State:
        """Sums per unit: `direct [unit, side, layer, head]` (own tokens, swapped ones) and `rows [unit]`."""
        units = len(reading.units)
        return {"direct": zeros(units, 2, anatomy.layers, anatomy.heads), "rows": zeros(units)}

    def begin_batch(self, batch: TextBatch) -> None:
        """Look up what raises each token; choose the rows that a unit and its partner both have."""
        first = batch.tokens[:, :LONGEST]
        self._toward = (unembedding(self.model, first.flatten()).mT - self._mean).unflatten(0, first.shape)  # batch key d_model
        counted = torch.arange(first.shape[1], device=batch.mask.device) >= CONSTANTS.first_row
        self._rows = [shared_rows(batch, step)[:, :LONGEST] & counted for step in PARTNERS]
        self._seen: dict[int, list[Tensor]] = {}  # layer -> blocks of [batch, side, head, query]
        self._post: dict[int, Tensor] = {}

    def observe(self, state: State, batch: TextBatch, site: Site, activation: Tensor, queries: slice) -> None:
        """Follow one layer: values, then the pattern, then what lies behind."""
        layer, kind = site.layer, site.activation
        assert layer is not None
        if kind == value_site(self.model):
            self._added = self._per_key(layer, values_of(self.model, layer, activation[:, :LONGEST]).float())
        elif kind == "pattern":
            first = activation[:, :, : max(0, LONGEST - (queries.start or 0)), :LONGEST].float()
            self._seen.setdefault(layer, []).append(torch.einsum("bhqk,bshk->bshq", first, self._added))
        elif kind == "z":
            self._post[layer] = post_scale(self.model, layer, activation[:, :LONGEST])
        elif layer == self.model.anatomy.layers - 1:
            norm = self.model.weights.final_norm
            stream = activation[:, :LONGEST]
            self._scale = torch.ones_like(stream[..., 0]).float() if norm is None else norm.scale(stream)

    def end_batch(self, state: State, batch: TextBatch) -> None:
        """Divide by the scales, which are known only now, and sum over rows."""
        weights = torch.stack([rows.float() for rows in self._rows])  # partner batch query
        for layer, parts in self._seen.items():
            scale = self._scale * self._post.get(layer, torch.ones_like(self._scale))
            seen = torch.cat(parts, dim=-1) / scale[:, None, None]
            own = torch.einsum("bhq,pbq->bh", seen[:, 0], weights)
            swapped = torch.einsum("bphq,pbq->bh", seen[:, 1:], weights)
            both = torch.stack([own, swapped], dim=1)
            state["direct"][:, :, layer].index_add_(0, batch.units, both.to(state["direct"]))
        state["rows"].index_add_(0, batch.units, weights.sum(dim=(0, 2)).to(state["rows"]))

    def _per_key(self, layer: int, values: Float[Tensor, "batch seq head d_head"]) -> Float[Tensor, "batch side head seq"]:
        """What full attention to each position would add to the logit of its token, or of a partner's, before the final scale."""
        output = self.model.weights.W_O(layer, fold=True).to(self._toward)
        read = torch.einsum("bkd,hed->bkhe", self._toward, output)
        sides = [read, *(read.roll(-step, dims=0) for step in PARTNERS)]  # partners are documents of the same batch
        added = torch.stack([(one * values.to(read)).sum(dim=-1).mT for one in sides], dim=1)
        added[..., 0] = 0.0
        return added
