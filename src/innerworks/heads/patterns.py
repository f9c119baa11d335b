"""Types every head of a model in one pass, by contracting its attention patterns with reference masks of the text.

1. For each batch, masks say which keys a duplicate-token or induction head would look at (`masks.py`); the same masks are
   also held against the patterns of the batch's other documents (*pattern swap*), which is what any mixture of offsets,
   places and sinks would score on this text without looking at it. A joiner's offsets are held against rows across words, too.
2. For each layer, the pattern is contracted with all masks at once, and its mass on offsets 0 to 8, on columns 0 to 8, and on
   column 0 where a kind has something to look at and where it has nothing, is summed; then it is dropped. What stays is one
   number per unit, measure, layer and head.

It does not say what a head writes, nor whether anything depends on it: see `effect.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from innerworks.heads import masks
from innerworks.heads.decide import HeadsByUnit
from innerworks.heads.kinds import APPLIES, COLUMNS, CONTENT, MEASURES, OFFSETS
from innerworks.heads.masks import PARTNERS
from innerworks.model.anatomy import Anatomy
from innerworks.model.observe import State, numpy, zeros
from innerworks.model.study import units_of
from innerworks.sites import Site
from innerworks.text import Reading, TextBatch

POSITIONAL = len(OFFSETS) + len(COLUMNS)


@dataclass(frozen=True, kw_only=True)
class _References:
    """Masks of a batch, as the contraction needs them: each row's masks belong to the document whose pattern they meet."""

    stack: Float[Tensor, "batch seq key mask"]  # per content kind: own, then one per partner; last, the joiner across words
    rows: Float[Tensor, "batch kind"]  # (row, partner) pairs that count, per document and content kind
    across: Float[Tensor, " batch"]  # rows across words
    positional: Float[Tensor, "batch seq"]
    resting: Float[Tensor, "batch seq sink"]  # rows where a kind of `APPLIES` has no target, and where it has one


class Patterns:
    """The instrument. Give it to `innerworks.scan`, or to the engine with others."""

    name = "heads"
    kinds: Sequence[str] = ("pattern",)

    def begin(self, anatomy: Anatomy, reading: Reading) -> State:
        """Sums per unit: `mass [unit, measure, layer, head]` and `rows [unit, measure]`."""
        units, measures = len(reading.units), len(MEASURES)
        return {"mass": zeros(units, measures, anatomy.layers, anatomy.heads), "rows": zeros(units, measures)}

    def begin_batch(self, batch: TextBatch) -> None:
        """Build the reference masks that all layers share."""
        self._references = _references(batch)

    def observe(self, state: State, batch: TextBatch, site: Site, activation: Tensor, queries: slice) -> None:
        """Contract one layer's pattern `[batch, head, query, key]` with the references."""
        assert site.layer is not None
        pattern = activation.float()
        content = _content_mass(pattern, self._references, queries)
        positional = _positional_mass(pattern, self._references.positional, queries)
        resting = torch.einsum("bhq,bqs->bsh", pattern[..., 0], self._references.resting[:, queries].to(pattern))
        mass = torch.cat([positional, content, resting], dim=1).to(state["mass"])
        state["mass"][:, :, site.layer].index_add_(0, batch.units, mass)

    def end_batch(self, state: State, batch: TextBatch) -> None:
        """Count the rows behind each measure."""
        positional = self._references.positional.sum(dim=1, keepdim=True).expand(-1, POSITIONAL)
        content = self._references.rows.repeat_interleave(2, dim=1)
        rows = [positional, content, self._references.across[:, None], self._references.resting.sum(dim=1)]
        state["rows"].index_add_(0, batch.units, torch.cat(rows, dim=1).to(state["rows"]))


def heads_by_unit(state: State, reading: Reading) -> HeadsByUnit:
    """The sums of a state, as an atlas keeps them, with what is known of the units."""
    arrays = numpy(state)
    mass, rows = (arrays[name].astype(np.float32) for name in ("mass", "rows"))
    return HeadsByUnit.of(mass, rows, units_of(reading))


def _references(batch: TextBatch) -> _References:
    own = torch.stack([masks.TARGETS[kind](batch) for kind in CONTENT], dim=-1)  # batch seq key kind
    shared = [masks.shared_rows(batch, step) for step in PARTNERS]
    per_partner = [own & rows[:, :, None, None] for rows in shared]
    columns = []
    for kind in range(len(CONTENT)):
        mine = [masked[..., kind].float() for masked in per_partner]
        columns.append(sum(mine, torch.zeros(())))
        columns += [one.roll(step, dims=0) for one, step in zip(mine, PARTNERS, strict=True)]
    rows = torch.stack([masked.any(dim=2).sum(dim=1) for masked in per_partner]).sum(dim=0)
    positional = masks.positional_rows(batch.mask)
    return _References(
        stack=torch.stack([*columns, masks.across_words(batch)], dim=-1),
        rows=rows.float(),
        across=masks.plain_rows(batch).sum(dim=1).float(),
        positional=positional.float(),
        resting=_resting(batch, positional).float(),
    )


def _resting(batch: TextBatch, rows: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq sink"]:
    """Rows where each kind of `APPLIES` has nothing to look at, and where it has something, in texts that have both."""
    columns = []
    for kind in APPLIES:
        applies = masks.TARGETS[kind](batch).any(dim=2) & rows
        rests = ~applies & rows
        both = applies.any(dim=1, keepdim=True) & rests.any(dim=1, keepdim=True)
        columns += [rests & both, applies & both]
    return torch.stack(columns, dim=-1)


def _content_mass(pattern: Tensor, references: _References, queries: slice) -> Float[Tensor, "batch measure head"]:
    """Mass on each content kind's targets, own and swapped, summed over rows."""
    stack = references.stack[:, queries].to(pattern)
    contracted = torch.bmm(pattern.flatten(2), stack.flatten(1, 2))  # batch head column
    measures = []
    for first in range(0, contracted.shape[-1] - 1, 1 + len(PARTNERS)):
        measures.append(contracted[..., first])
        swapped = [contracted[..., first + i + 1].roll(-step, dims=0) for i, step in enumerate(PARTNERS)]
        measures.append(sum(swapped, torch.zeros(())))
    return torch.stack([*measures, contracted[..., -1]], dim=1)


def _positional_mass(pattern: Tensor, rows: Tensor, queries: slice) -> Float[Tensor, "batch measure head"]:
    """Mass on offsets 0 to 8 and on columns 0 to 8, summed over rows."""
    weights = rows[:, queries].to(pattern)
    start = queries.start or 0
    measures = []
    for offset in OFFSETS:
        diagonal = pattern.diagonal(start - offset, dim1=-2, dim2=-1)  # batch head row, from row max(0, offset - start)
        from_row = max(0, offset - start)
        measures.append(torch.einsum("bhr,br->bh", diagonal, weights[:, from_row : from_row + diagonal.shape[-1]]))
    columns = torch.einsum("bhqc,bq->bch", pattern[..., : len(COLUMNS)], weights)
    columns = torch.nn.functional.pad(columns, (0, 0, 0, len(COLUMNS) - columns.shape[1]))  # of texts with fewer tokens
    return torch.cat([torch.stack(measures, dim=1), columns], dim=1)
