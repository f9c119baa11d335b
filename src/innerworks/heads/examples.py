"""Real text on which a labelled head shows what it does: the stretch where its pattern lies most on its kind's targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from innerworks.heads import masks
from innerworks.heads.decide import HeadsByUnit
from innerworks.heads.kinds import KINDS, MEASURES, Kind
from innerworks.model import Model
from innerworks.sites import Site
from innerworks.text import Reading
from innerworks.text.reading import Window, batch_of

SPAN = 40  # tokens shown


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A stretch of text and a head's pattern on it."""

    behaviour: str
    site: str
    unit: str
    tokens: tuple[str, ...]
    pattern: np.ndarray  # [query, key]


def shown(model: Model, reading: Reading, table: HeadsByUnit, labels: Sequence[tuple[str, str]]) -> list[Shown]:
    """One example for each (behaviour, site): from the confirmation document on which the head does it most."""
    return [_example(model, reading, table, KINDS[behaviour], Site.parse(site)) for behaviour, site in labels]


def _example(model: Model, reading: Reading, table: HeadsByUnit, kind: Kind, site: Site) -> Shown:
    units = table.measured(kind.measure, "text", "confirmation")
    total = table.total[units, MEASURES.index(kind.measure), site.layer, site.head]
    best = int(np.flatnonzero(units)[total.argmax()])
    window = next(window for window in reading.windows if window.unit == best)
    tokens = torch.tensor([window.tokens])
    run = model.run(tokens, record=[Site(layer=site.layer, kind="pattern")], logits="none")
    pattern = run[f"{site}.pattern"][0].float().cpu()
    start = 0 if kind.null == "other column" else _best_start(pattern * _targets(kind, window))
    part = slice(start, start + SPAN)
    return Shown(
        behaviour=kind.behaviour,
        site=str(site),
        unit=table.ids[best],
        tokens=tuple(str(model.tokenizer.decode([token])) for token in window.tokens[part]),
        pattern=pattern[part, part].numpy(force=True),
    )


def _targets(kind: Kind, window: Window) -> Tensor:
    length = len(window.tokens)
    if kind.measure.startswith("offset"):
        return torch.eye(length).roll(-int(kind.measure.removeprefix("offset_")), dims=1).tril()
    if kind.measure.startswith("column"):
        return (torch.arange(length) == int(kind.measure.removeprefix("column_"))).float().expand(length, length)
    return masks.TARGETS[kind.measure](batch_of([window], "text", "", "confirmation"))[0].float()


def _best_start(on_target: Tensor) -> int:
    """Where the stretch begins within which most mass lies on targets, both ends inside it."""
    starts = range(max(1, len(on_target) - SPAN + 1))
    return max(starts, key=lambda start: float(on_target[start : start + SPAN, start : start + SPAN].sum()))
