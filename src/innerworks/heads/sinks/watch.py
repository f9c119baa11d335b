"""What is there to be read at the first token, and how much of a head's resting there is its place in the text?

Watches the pass over real text. Per unit and head:
1. *value norm*: the length of `v_j W_O`, what attending to position j would add to the stream: its logarithm at position 0, and
   of its median over the other positions of the first 128;
2. *stream norm*, per layer: the same of the stream behind the block (massive activations: Sun et al. 2024, arXiv:2402.17762);
3. *resting*: mass on the first token over the rows where a kind has nothing to look at and those where it has something, as
   `contrast.py` reads it; once under the document's own patterns, once under those of two other documents of its domain and half
   (pattern swap: the same rows, which there mean nothing but their place in the text).

Only what the model computes anyway is read: about a hundredth of a forward. Norms behind attention (Gemma 2, OLMo 2) are not
applied to values. Xiao et al. 2023, arXiv:2309.17453; Gu et al. 2024, arXiv:2410.10781 (small values at the sink).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from innerworks.heads import masks
from innerworks.heads.circuits.direct import value_site, values_of
from innerworks.heads.kinds import APPLIES
from innerworks.heads.masks import PARTNERS
from innerworks.model import Model
from innerworks.model.anatomy import Anatomy
from innerworks.model.observe import State, zeros
from innerworks.sites import Site
from innerworks.text import Reading, TextBatch

LONGEST = 128  # tokens of each window whose norms are taken
LEAST = 1e-12  # lengths are at least this: a head that writes nothing anywhere has a ratio of one
OFF, AT = 0, 1
OWN, SWAPPED = 0, 1


class Resting:
    """The instrument. Of a model whose weights cannot be read, value norms stay zero, and `values` says so."""

    name = "sinks"

    def __init__(self, model: Model) -> None:
        self.model = model
        self.values = model.weights.unreadable is None
        self.kinds: Sequence[str] = (*((value_site(model),) if self.values else ()), "pattern", "resid_post")
        self._grams: dict[int, Tensor] = {}

    def begin(self, anatomy: Anatomy, reading: Reading) -> State:
        """Sums over the windows of each unit; the two of an axis are: first token and others, off and at, own and swapped."""
        units, heads = len(reading.units), (anatomy.layers, anatomy.heads)
        return {
            "value": zeros(units, 2, *heads),
            "stream": zeros(units, 2, anatomy.layers),
            "windows": zeros(units),
            "rest": zeros(units, 2, len(APPLIES), 2, *heads),  # own or swapped, kind, off or at
            "rest_rows": zeros(units, len(APPLIES), 2),
        }

    def begin_batch(self, batch: TextBatch) -> None:
        """Choose the rows on which a document and each partner are compared."""
        self._wanted = batch.material == "text" and batch.mask.shape[1] > 1
        if self._wanted:
            self._rows = [_rows(batch, step) for step in PARTNERS]
            self._others = batch.mask[:, :LONGEST].clone()
            self._others[:, 0] = False

    def observe(self, state: State, batch: TextBatch, site: Site, activation: Tensor, queries: slice) -> None:
        """Read one layer's values, pattern or stream."""
        layer = site.layer
        assert layer is not None
        if not self._wanted:
            return
        if site.activation == "pattern":
            rest = self._resting(activation[..., 0].float(), queries)
            state["rest"][..., layer, :].index_add_(0, batch.units, rest.to(state["rest"]))
            return
        if site.activation == "resid_post":
            lengths = activation[:, :LONGEST].float().norm(dim=-1)
            state["stream"][..., layer].index_add_(0, batch.units, self._first_and_others(lengths).to(state["stream"]))
        if self.values and site.activation == value_site(self.model):
            lengths = self._written(layer, values_of(self.model, layer, activation[:, :LONGEST]).float())
            state["value"][:, :, layer].index_add_(0, batch.units, self._first_and_others(lengths).to(state["value"]))

    def end_batch(self, state: State, batch: TextBatch) -> None:
        """Count windows and rows."""
        if self._wanted:
            real = (batch.mask.sum(dim=1) > 1).to(state["windows"])
            state["windows"].index_add_(0, batch.units, real)
            rows = torch.stack(self._rows).sum(dim=(0, 2)).unflatten(1, (len(APPLIES), 2))
            state["rest_rows"].index_add_(0, batch.units, rows.to(state["rest_rows"]))

    def _written(self, layer: int, values: Float[Tensor, "batch seq head d_head"]) -> Float[Tensor, "batch seq head"]:
        """The length of `v W_O`, by the Gram matrix of W_O."""
        if layer not in self._grams:
            output = self.model.weights.W_O(layer).float()
            self._grams[layer] = output @ output.mT
        square = torch.einsum("bshe,hef->bshf", values, self._grams[layer].to(values))
        return (square * values).sum(dim=-1).clamp(min=0).sqrt()

    def _first_and_others(self, lengths: Float[Tensor, "batch seq *head"]) -> Float[Tensor, "batch 2 *head"]:
        """Logarithms of the length at position 0 and of the median over the others."""
        others = self._others.to(lengths.device)
        hidden = ~others.reshape(*others.shape, *[1] * (lengths.ndim - 2))
        median = lengths.masked_fill(hidden, float("nan")).nanmedian(dim=1).values
        both = torch.stack([lengths[:, 0], median], dim=1).clamp(min=LEAST).log()
        return both.nan_to_num(0.0)  # a window of one token has no others, and is not counted

    def _resting(self, first: Float[Tensor, "batch head row"], queries: slice) -> Float[Tensor, "batch side kind where head"]:
        """Mass on the first token over the rows of each sort, summed: under own patterns, and under the partners'."""
        own, swapped = torch.zeros(()), torch.zeros(())
        for rows, step in zip(self._rows, PARTNERS, strict=True):
            here = rows[:, queries].to(first)
            own = own + torch.einsum("bhq,bqs->bsh", first, here).cpu()
            swapped = swapped + torch.einsum("bhq,bqs->bsh", first.roll(-step, dims=0), here).cpu()
        return torch.stack([own, swapped], dim=1).unflatten(2, (len(APPLIES), 2))


def _rows(batch: TextBatch, step: int) -> Bool[Tensor, "batch seq sort"]:
    """Rows where each kind of `APPLIES` has nothing to look at, and where it has, of those that the partner has, too."""
    counted = masks.positional_rows(batch.mask) & masks.shared_rows(batch, step)
    sorts = []
    for kind in APPLIES:
        at = masks.TARGETS[kind](batch).any(dim=2) & counted
        off = ~at & counted
        both = at.any(dim=1, keepdim=True) & off.any(dim=1, keepdim=True)
        sorts += [off & both, at & both]
    return torch.stack(sorts, dim=-1)
