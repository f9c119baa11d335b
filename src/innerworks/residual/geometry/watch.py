"""How large is every dimension of the stream, layer by layer? Sums over tokens and over documents, in the shared pass.

Tokens are of three sorts, which are never mixed: the *first* of a text; *massive* ones, later tokens on which the stream is ten
times as long as on the median token of their window; and *ordinary* ones, all others. A few tokens of huge values (massive
activations, Sun et al. 2024, arXiv:2402.17762) would else be taken for dimensions that are large (Kovaleva et al. 2021,
arXiv:2105.06990).

1. Sums of `x` and `x²` by half, sort, layer and dimension.
2. Of each document (its first window), on ordinary tokens: by how much the robust z of a dimension exceeds the largest of
   directions drawn at random (`sizes.py`). Summed over documents by half and stratum, with squares and signs, so that memory
   does not grow with the text.
3. Of each document: the logarithm of `|x|` at its first token over the median size of all dimensions on ordinary tokens, or a
   tenth of the dimension's own size there, if that is more: what is as large everywhere is no massive activation. The same sums.

Only text is watched, no generated tokens.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from innerworks.model.anatomy import Anatomy
from innerworks.model.observe import State, zeros
from innerworks.residual.geometry.sizes import directions, robust_z, root_mean_squares
from innerworks.sites import Site
from innerworks.stats import Half
from innerworks.text import Reading, TextBatch
from innerworks.text.openings import LEAST_TOKENS

HALVES: tuple[Half, Half] = ("discovery", "confirmation")
SORTS = ("first", "massive", "ordinary")
ORDINARY = SORTS.index("ordinary")
LONG = 10.0  # times the median length of a window: a massive token
KINDS = ("rogue", "massive")  # what is asked of every dimension
SUMS = ("total", "squares", "positive")
TINY = 1e-12  # sizes are at least this, where their logarithm is taken


class Sizes:
    """The instrument."""

    name = "stream_sizes"
    kinds: Sequence[str] = ("resid_post",)

    def begin(self, anatomy: Anatomy, reading: Reading) -> State:
        """All sums zero."""
        self._strata = {name: i for i, name in enumerate(strata_of(reading))}
        self._first = {window.unit: window.tokens for window in reversed(reading.windows)}
        self._directions = directions(anatomy.d_model)
        place, by = (anatomy.layers, anatomy.d_model), (len(HALVES), len(self._strata))
        sums = {f"{kind}_{one}": zeros(*by, *place) for kind in KINDS for one in SUMS}
        return {
            **sums,
            "moments": zeros(len(HALVES), len(SORTS), 2, *place),
            "rows": zeros(len(HALVES), len(SORTS), anatomy.layers),
            "z": zeros(len(HALVES), *place),
            "turned": zeros(len(HALVES), anatomy.layers),
            "units": zeros(*by, anatomy.layers),
        }

    def begin_batch(self, batch: TextBatch) -> None:
        """Which rows are the first windows of their documents?"""
        texts, lengths = batch.tokens.tolist(), batch.mask.sum(dim=1).tolist()
        rows = zip(batch.units.tolist(), texts, lengths, strict=True)
        self._opens = torch.tensor([tuple(text[:length]) == self._first[unit] for unit, text, length in rows])

    def observe(self, state: State, batch: TextBatch, site: Site, activation: Tensor, queries: slice) -> None:
        """Add one layer's stream."""
        if batch.material != "text":
            return
        half, stream = HALVES.index(batch.half), activation.float()
        sorts = sorts_of(stream, batch.mask)
        for number, rows in enumerate(sorts):
            chosen = stream[rows].double()
            state["moments"][half, number, 0, site.layer] += chosen.sum(dim=0).cpu()
            state["moments"][half, number, 1, site.layer] += chosen.square().sum(dim=0).cpu()
            state["rows"][half, number, site.layer] += len(chosen)
        self._add_documents(state, batch, site, stream, sorts[ORDINARY])

    def end_batch(self, state: State, batch: TextBatch) -> None:
        """Everything is counted by layer."""

    def _add_documents(self, state: State, batch: TextBatch, site: Site, stream: Tensor, ordinary: Tensor) -> None:
        z, turned, ratio = _of_documents(stream, ordinary, self._directions.to(stream))
        long_enough = ordinary.sum(dim=1).cpu() >= LEAST_TOKENS
        use = self._opens & long_enough & (z.isfinite().all(dim=1) & turned.isfinite()).cpu()
        z, turned, ratio = (one.cpu()[use].double() for one in (z, turned, ratio))
        half, stratum = HALVES.index(batch.half), self._strata[batch.stratum]
        for kind, effects in zip(KINDS, (z - turned[:, None], ratio), strict=True):
            for name, of_each in zip(SUMS, (effects, effects.square(), (effects > 0).double()), strict=True):
                state[f"{kind}_{name}"][half, stratum, site.layer] += of_each.sum(dim=0)
        state["z"][half, site.layer] += z.sum(dim=0)
        state["turned"][half, site.layer] += turned.sum()
        state["units"][half, stratum, site.layer] += len(z)


def strata_of(reading: Reading) -> list[str]:
    """The strata of the text, in the order in which they come."""
    return list(dict.fromkeys(unit.stratum for unit in reading.units if unit.material == "text"))


def sorts_of(stream: Float[Tensor, "text seq dimension"], mask: Bool[Tensor, "text seq"]) -> Bool[Tensor, "sort text seq"]:
    """Which tokens are first, massive, ordinary."""
    lengths, others = stream.norm(dim=-1), mask.clone()
    others[:, 0] = False
    median = lengths.masked_fill(~others, torch.nan).nanmedian(dim=1, keepdim=True).values
    massive = others & (lengths > LONG * median)
    return torch.stack([mask & ~others, massive, others & ~massive])


def _of_documents(
    stream: Float[Tensor, "text seq dimension"],
    ordinary: Bool[Tensor, "text seq"],
    along: Float[Tensor, "dimension direction"],
) -> tuple[Float[Tensor, "text dimension"], Float[Tensor, " text"], Float[Tensor, "text dimension"]]:
    """Of each text: the robust z of every dimension, the largest of random directions, and log sizes at the first token."""
    sizes = root_mean_squares(stream, ordinary)
    turned = robust_z(root_mean_squares(stream @ along, ordinary)).amax(dim=1)
    elsewhere = torch.maximum(sizes.median(dim=1, keepdim=True).values, sizes / LONG)
    ratio = stream[:, 0].abs().clamp(min=TINY).log() - elsewhere.clamp(min=TINY).log()
    return robust_z(sizes), turned, ratio
