"""Many edits, each in a run of its own, computed together where they begin at the same layer.

1. Edits are sorted by the first layer they touch; those of one layer share a batch in which every edit has its own copy of
   the texts, at most `rows` of them at once.
2. The batch resumes from the clean run at that layer (and at the first edited token, with `suffix`).
3. Each copy is cut out again as a run of its own.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from innerworks.errors import UsageError
from innerworks.model.call import Handler, Positions
from innerworks.model.edit import Edit
from innerworks.model.resume import first_token
from innerworks.model.run import Logits, Run, run
from innerworks.sites import INPUTS, Site, expand

if TYPE_CHECKING:
    from innerworks.model.model import Model


@dataclass(frozen=True, kw_only=True)
class _Together:
    """Edits of one site's place, each for its own rows of the batch."""

    site: Site
    edits: Sequence[Edit | None]  # one per copy of the texts; None leaves that copy alone
    texts: int
    says: str = ""

    def handler(self, positions: Positions) -> Handler:
        real = None if positions.real is None else positions.real[: self.texts]
        one_copy = Positions(ids=positions.ids[: self.texts], offset=positions.offset, real=real)
        handlers = [None if edit is None else edit.handler(one_copy) for edit in self.edits]

        def change(activation: Tensor, queries: slice) -> Tensor:
            copies = []
            for handler, copy in zip(handlers, activation.split(self.texts), strict=True):
                edited = None if handler is None else handler(copy, queries)
                copies.append(copy if edited is None else edited)
            return torch.cat(copies)

        return change


def run_each(
    model: "Model",
    groups: Sequence[Sequence[Edit]],
    *,
    clean: Run,
    record: Sequence[str | Site],
    logits: Logits | Tensor,
    suffix: bool,
    rows: int,
) -> Iterator[Run]:
    """One run per group of edits, in order; see `Model.run_each`."""
    for group in groups:
        if not group:
            raise UsageError("run_each was given an empty group of edits.")
        for edit in group:
            model.check_editable(edit.site)
    texts = len(clean.tokens)
    by_layer: dict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        by_layer[min(model.place(edit.site)[1] for edit in group)].append(number)
    at_once = max(1, rows // texts)
    waiting: dict[int, Run] = {}
    wanted = 0
    for numbers in by_layer.values():
        for first in range(0, len(numbers), at_once):
            chunk = numbers[first : first + at_once]
            batch = _batch(model, [groups[number] for number in chunk], clean, record, logits, suffix)
            waiting.update(zip(chunk, batch, strict=True))
            while wanted in waiting:
                yield waiting.pop(wanted)
                wanted += 1


def _batch(
    model: "Model",
    groups: Sequence[Sequence[Edit]],
    clean: Run,
    record: Sequence[str | Site],
    logits: Logits | Tensor,
    suffix: bool,
) -> list[Run]:
    copies, texts = len(groups), len(clean.tokens)
    every = [edit for group in groups for edit in group]
    start = first_token(every, Positions.of(clean.mask)) if suffix else 0
    recorded = expand(record, layers=model.anatomy.layers, heads=model.anatomy.heads)
    layer = min(model.place(site)[1] for site in (*recorded, *(edit.site for edit in every)))
    done = run(
        model,
        clean.tokens.repeat(copies, 1),
        clean.mask.repeat(copies, 1),
        record=record,
        edit=_together(model, groups, texts),
        logits=logits.repeat(copies, 1) if isinstance(logits, Tensor) else logits,
        resume=_repeated(clean, copies, layer, start),
        start=start,
    )
    return [_copy(done, clean, number, texts, logits) for number in range(copies)]


def _together(model: "Model", groups: Sequence[Sequence[Edit]], texts: int) -> list[Edit]:
    """Lay the groups side by side: their n-th edits of a place, whatever part of it they change, become one."""
    lanes: dict[tuple[Site, int], list[Edit | None]] = {}
    for number, group in enumerate(groups):
        seen: dict[Site, int] = defaultdict(int)
        for edit in group:
            place = Site.parse(model.site(model.place(edit.site)))
            place = replace(place, head=edit.site.head) if place.kind in INPUTS else place
            lane = lanes.setdefault((place, seen[place]), [None] * len(groups))
            lane[number] = edit
            seen[place] += 1
    return [_Together(site=place, edits=lane, texts=texts) for (place, _), lane in lanes.items()]


def _repeated(clean: Run, copies: int, layer: int, start: int) -> Run:
    """The clean run as if its texts had been there once per copy, as far as it is needed from `layer` on."""
    assert clean.streams is not None
    before = {layer - 1: clean.streams[layer - 1].repeat(copies, 1, 1)} if layer else {}
    cache = clean.cache
    if start and cache is not None:
        cache = [
            (keys, values) if number < layer else tuple(one[:, :, :start].repeat(copies, 1, 1, 1) for one in (keys, values))
            for number, (keys, values) in enumerate(cache)
        ]
    return replace(clean, streams=before, cache=cache)


def _copy(done: Run, clean: Run, number: int, texts: int, logits: Logits | Tensor) -> Run:
    mine = slice(number * texts, (number + 1) * texts)
    scores = done.logits
    if scores is not None and isinstance(logits, Tensor):
        each = int(logits.sum())
        scores = scores[number * each : (number + 1) * each]
    elif scores is not None:
        scores = scores[mine]
    recorded = {place: one[mine] for place, one in done.recorded.items()}
    return replace(done, tokens=clean.tokens, mask=clean.mask, final=done.final[mine], logits=scores, recorded=recorded)
