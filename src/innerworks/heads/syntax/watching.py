"""Where does each head look most, at words whose syntax is known? Counted in the one pass over a text.

1. Which relations and directions there is enough of is known from the reading alone, before the pass (`measured`).
2. For each batch the arcs of these relations are laid out once: their queries, and which keys are right for each.
3. Of each layer only the rows of these queries are looked at. The first column (the sink) and the query itself are taken out
   (Clark et al. 2019, arXiv:1906.04341), and the key with the most attention is the head's answer. It is right if it is any
   token of any right word.
4. What stays is, per unit and relation, the number of arcs, how many of them each head found, and how many each fixed offset.

A head that looks nowhere but at the first token and itself finds nothing. Attention is not added up over the pieces of a word,
and earlier pieces of the query's own word are wrong answers like any other.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from innerworks.model.anatomy import Anatomy
from innerworks.model.observe import State
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Half
from innerworks.text import Reading, TextBatch
from innerworks.text.syntax import ALL_OFFSETS, FARTHEST, Arc, Count, count

MOST = 40  # relations and directions that are kept, the most frequent first: sums must stay small


@dataclass(frozen=True, kw_only=True)
class _Looks:
    """The arcs of a batch. A *row* is a query of one text, shared by all arcs that begin there."""

    text: Int[Tensor, " row"]
    query: Int[Tensor, " row"]
    row: Int[Tensor, " arc"]
    cell: Int[Tensor, " arc"]  # unit and relation, as one number
    right: Bool[Tensor, "arc key"]
    offsets: Float[Tensor, "arc offset"]  # whether each fixed offset leads to a right key


class Arcs:
    """The instrument: counts which arcs each head follows."""

    name = "syntax"
    kinds: Sequence[str] = ("pattern",)

    def begin(self, anatomy: Anatomy, reading: Reading) -> State:
        """Counts per unit and relation: `found [unit, relation, layer, head]`, `arcs`, and `offsets [unit, relation, offset]`."""
        self._relations = {relation: i for i, relation in enumerate(measured(reading))}
        cells = (len(reading.units), len(self._relations))
        return {
            "found": torch.zeros(*cells, anatomy.layers, anatomy.heads),
            "arcs": torch.zeros(cells),
            "offsets": torch.zeros(*cells, len(ALL_OFFSETS)),
        }

    def begin_batch(self, batch: TextBatch) -> None:
        """Lay out the arcs that all layers share."""
        self._looks = _looks(batch, self._relations)

    def observe(self, state: State, batch: TextBatch, site: Site, activation: Tensor, queries: slice) -> None:
        """Look up each head's answer in one layer's pattern `[batch, head, query, key]`, and count the right ones."""
        assert site.layer is not None
        looks = self._looks
        here = (looks.query >= queries.start) & (looks.query < queries.stop)
        if not bool(here.any()):
            return
        answers = _answers(activation, looks.text[here], looks.query[here], queries.start)
        of_arc = here[looks.row]
        place = (here.cumsum(0) - 1)[looks.row[of_arc]]  # of each arc's row among those here
        hits = looks.right[of_arc].gather(1, answers[place])
        found = state["found"].flatten(0, 1)
        found[:, site.layer].index_add_(0, looks.cell[of_arc].to(found.device), hits.to(found))

    def end_batch(self, state: State, batch: TextBatch) -> None:
        """Count the arcs, and what fixed offsets find."""
        cell = self._looks.cell.to(state["arcs"].device)
        offsets = self._looks.offsets.to(state["offsets"])
        state["offsets"].flatten(0, 1).index_add_(0, cell, offsets)
        state["arcs"].flatten().index_add_(0, cell, torch.ones_like(cell, dtype=state["arcs"].dtype))


def _answers(
    activation: Float[Tensor, "batch head query key"], text: Int[Tensor, " row"], query: Int[Tensor, " row"], start: int
) -> Int[Tensor, "row head"]:
    """The key that each head looks at most, without the first column and the query itself; 0, never right, if at none."""
    rows = activation[text, :, query - start].float()  # a copy
    rows[..., 0] = 0
    rows.scatter_(-1, query[:, None, None].expand(-1, rows.shape[1], 1), 0.0)
    return rows.argmax(dim=-1) * (rows.amax(dim=-1) > 0)


def _looks(batch: TextBatch, relations: Mapping[str, int]) -> _Looks:
    texts = range(len(batch.arcs)) if relations else ()
    arcs = [(text, arc) for text in texts for arc in askable(batch.arcs[text]) if arc.relation in relations]
    rows = {place: i for i, place in enumerate(dict.fromkeys((text, arc.query) for text, arc in arcs))}
    right = torch.zeros(len(arcs), batch.tokens.shape[1], dtype=torch.bool)
    for i, (_, arc) in enumerate(arcs):
        for start, end in arc.targets:
            right[i, start:end] = True
    units = batch.units.tolist()
    cells = [units[text] * len(relations) + relations[arc.relation] for text, arc in arcs]
    device = batch.tokens.device
    return _Looks(
        text=torch.tensor([text for text, _ in rows], dtype=torch.long, device=device),
        query=torch.tensor([query for _, query in rows], dtype=torch.long, device=device),
        row=torch.tensor([rows[text, arc.query] for text, arc in arcs], dtype=torch.long, device=device),
        cell=torch.tensor(cells, dtype=torch.long, device=device),
        right=right.to(device),
        offsets=_found_by_offsets([arc for _, arc in arcs], right),
    )


def _found_by_offsets(arcs: Sequence[Arc], right: Bool[Tensor, "arc key"]) -> Float[Tensor, "arc offset"]:
    """Does each of `ALL_OFFSETS` lead from an arc's query to a right key, or word? What `Offset.finds` says, for all at once."""
    back = torch.tensor([offset.back for offset in ALL_OFFSETS])
    tokens = torch.tensor([offset.unit == "token" for offset in ALL_OFFSETS])
    key = torch.tensor([arc.query for arc in arcs], dtype=torch.long)[:, None] - back
    by_token = right.gather(1, key.clamp(min=0)) & (key >= 0)
    by_word = torch.zeros(len(arcs), FARTHEST + 1, dtype=torch.bool)
    for i, arc in enumerate(arcs):
        by_word[i, [words for words in arc.words_back if words <= FARTHEST]] = True
    return torch.where(tokens, by_token, by_word[:, back]).float()


# --- what is measured, by the reading alone --------------------------------------------------------------------------


def askable(arcs: Iterable[Arc]) -> list[Arc]:
    """Leave out of arcs what no head could answer: the first rows, and the first column, where a head may only rest."""
    found = []
    for arc in arcs:
        words = [((max(start, 1), end), back) for (start, end), back in zip(arc.targets, arc.words_back, strict=True) if end > 1]
        if words and arc.query >= CONSTANTS.first_row:
            targets, backs = zip(*words, strict=True)
            found.append(replace(arc, targets=targets, words_back=backs))
    return found


def counts(reading: Reading, half: Half) -> dict[str, Count]:
    """How much is there of each relation and direction in one half of a reading, most frequent first?"""
    within: dict[str, list[Arc]] = defaultdict(list)
    for window in reading.windows:
        unit = reading.units[window.unit]
        if unit.half == half:
            within[unit.id] += askable(window.arcs)
    return count(within)


def measured(reading: Reading) -> tuple[str, ...]:
    """Relations and directions there is enough of: 100 arcs in 20 documents to confirm on, and 12 documents to discover on."""
    discovery = counts(reading, "discovery")
    seen = {relation for relation, there in discovery.items() if there.documents >= CONSTANTS.least_units}
    return tuple(relation for relation, there in counts(reading, "confirmation").items() if there.enough and relation in seen)[
        :MOST
    ]


def shuffled(reading: Reading, random: np.random.Generator) -> Reading:
    """A null: every arc points as far back as another arc of its relation, of any text. Distances stay, syntax goes.

    Arcs that would lead out of their text are left out; so are, of a word with several dependents, all but the first.
    """
    reaches: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for window in reading.windows:
        for arc in window.arcs:
            reaches[arc.relation].append((arc.query - arc.targets[0][0], arc.query - arc.targets[0][1], arc.words_back[0]))
    dealt = {relation: iter(random.permutation(backs).tolist()) for relation, backs in reaches.items()}
    windows = []
    for window in reading.windows:
        turned = [(arc, next(dealt[arc.relation])) for arc in window.arcs]
        arcs = [
            replace(arc, targets=((arc.query - start, arc.query - end),), words_back=(back,))
            for arc, (start, end, back) in turned
            if start <= arc.query
        ]
        windows.append(replace(window, arcs=tuple(arcs)))
    return replace(reading, windows=tuple(windows))
