"""How weak a head of each kind would a scan of this very model still have seen? Spike-ins: a known dose of a kind in real heads.

1. Take 20 heads that are not labelled with a kind. Mix into the pattern of one of them the kind's ideal pattern:
   `(1 - a_d) A + a_d target`, with a dose a_d of mean .05 to .8, which varies between documents by half its mean (at .8, where
   that would leave only 0 and 1, by a third).
2. Every measure of a pattern is linear in it. So neither model nor patterns are needed, only what an atlas keeps of the head and
   what the target itself scores: its masses on all measures, a contraction of the text's masks.
3. Decide again, by the very rules of a scan, one head at a time; count how often the kind is found.

The dose found in 9 of 10 heads belongs beside every "does not hold" of its kind. The target looks at all its keys alike, and at
the first token where it has none. Approximation: in a pattern swap the partners' patterns have their own doses; here they have
the document's. What it does not do: dose what heads write, or what depends on them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from innerworks.atlas import Atlas, schema
from innerworks.errors import UsageError
from innerworks.heads import decide, masks
from innerworks.heads.decide import HeadsByUnit
from innerworks.heads.kinds import KINDS, Kind
from innerworks.heads.patterns import Patterns
from innerworks.heads.seen import Seen
from innerworks.model import load
from innerworks.model.anatomy import Anatomy
from innerworks.model.observe import numpy
from innerworks.phantoms.recall import SHARES, Crossing, Recall, crossing
from innerworks.scan import prepare
from innerworks.sites import Site, head_site
from innerworks.stats import Array, Half
from innerworks.text import Reading, TextBatch

DOSES = (0.05, 0.1, 0.2, 0.4, 0.8)
VARIATION = 0.5  # standard deviation of the dose between documents over its mean
HEADS = 20
HALVES: tuple[Half, Half] = ("discovery", "confirmation")


@dataclass(frozen=True, kw_only=True)
class SpikeIns:
    """What was found of what was mixed in, by kind and dose."""

    recall: Mapping[tuple[str, float], Recall]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of which a head could be dosed."""
        return tuple(dict.fromkeys(kind for kind, _ in self.recall))

    def dose(self, kind: str, share: float) -> Crossing:
        """The mean dose at which this share of heads is found."""
        return crossing({dose: recall for (of, dose), recall in self.recall.items() if of == kind}, share, over="amplitude")

    def rows(self) -> list[dict[str, Any]]:
        """One row per kind and dose: what a figure draws."""
        return [
            {"kind": kind, "over": "amplitude", "level": dose, **recall.as_dict()} for (kind, dose), recall in self.recall.items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        crossings = [
            {"kind": kind, "share": share, **self.dose(kind, share).as_dict()} for kind in self.kinds for share in SHARES
        ]
        return {"recall": self.rows(), "crossings": crossings}

    def in_words(self) -> RenderableType:
        """Return it as a table for a terminal."""
        doses = sorted({dose for _, dose in self.recall})
        title = (
            "Found, of heads with so much of a kind mixed into their patterns (mean dose), and the dose found in 50 and 90 of 100"
        )
        table = Table(
            "kind", "heads", *(f"{dose:g}" for dose in doses), "50 %", "90 %", title=title, title_justify="left", box=None
        )
        for kind in self.kinds:
            of = [self.recall[kind, dose] for dose in doses]
            reached = [self.dose(kind, share).in_words("amplitude") for share in SHARES]
            table.add_row(kind, str(of[0].planted), *(str(one.found) for one in of), *reached)
        return Group(table, Text("The dose at 90 % belongs beside every no about its kind."))


def spike(
    table: HeadsByUnit,
    reading: Reading,
    *,
    doses: Sequence[float] = DOSES,
    heads: int = HEADS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SpikeIns:
    """Mix every kind of pattern into unlabelled heads, and count what a scan would find.

    table: of an atlas; reading: the text that it was measured on. Raises UsageError where the two do not belong together.
    """
    kinds = list(KINDS.values())
    target, rows = target_masses(reading, kinds)
    if table.rows.shape != rows.shape or not np.allclose(table.rows, rows):
        raise UsageError("This reading is not the one that the atlas was made of: other text, another tokenizer or another seed.")
    labelled = {(one.behaviour, one.site) for one in decide.findings(table) if one.rung >= 1}
    found: dict[tuple[str, float], Recall] = {}
    for number, kind in enumerate(kinds):
        chosen = _unlabelled(table, kind, labelled, heads)
        for level, dose in enumerate(doses):
            drawn = doses_of_units(dose, len(table.ids), np.random.default_rng([seed, number, level]))
            seen = sum(_is_found(dosed(table, head, target[:, :, number], drawn), kind, head) for head in chosen)
            if chosen:
                found[kind.behaviour, dose] = Recall(found=seen, planted=len(chosen))
            progress(number * len(doses) + level + 1, len(kinds) * len(doses))
    return SpikeIns(recall=found)


def spike_into(path: str | Path, *, seed: int = 0, progress: Callable[[int, int], None] = lambda done, total: None) -> SpikeIns:
    """The same for a finished atlas: its text is read again, with its model's tokenizer; the model is not run."""
    atlas = Atlas.open(path)
    arrays, _ = atlas.arrays(schema.of_study(Seen.name))
    table = HeadsByUnit.of(arrays["mass"], arrays["rows"], atlas.units.rows())
    settings, model = atlas.manifest["settings"], load(atlas.manifest["model"]["name"])
    reading, _, _ = prepare(model, corpus=atlas.manifest["corpus"]["name"], depth=settings["depth"], seed=settings["seed"])
    return spike(table, reading, seed=seed, progress=progress)


def doses_of_units(mean: float, units: int, rng: np.random.Generator) -> Array:
    """A dose for each unit, in [0, 1]: Beta-distributed, with one mode."""
    spread = min((VARIATION * mean) ** 2, mean * (1 - mean) / 3)
    strength = mean * (1 - mean) / spread - 1
    return rng.beta(mean * strength, (1 - mean) * strength, size=units)


def dosed(table: HeadsByUnit, head: tuple[int, int], target: NDArray[np.float32], doses: Array) -> HeadsByUnit:
    """The table with a dose of the target `[unit, measure]` in one head."""
    total = table.total.copy()
    own = total[:, :, head[0], head[1]]
    total[:, :, head[0], head[1]] = (1 - doses)[:, None] * own + doses[:, None] * target
    units = list(zip(table.ids, table.strata.tolist(), table.materials.tolist(), table.halves.tolist(), strict=True))
    return HeadsByUnit.of(total, table.rows, units)


def target_masses(reading: Reading, kinds: Sequence[Kind]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the kinds' ideal patterns score on every measure, summed over rows: `[unit, measure, kind]`; and rows, as in an atlas.

    The scan's own instrument looks at them as if they were the heads of a model of one layer.
    """
    instrument, one_layer = Patterns(), _one_layer(len(kinds))
    state = instrument.begin(one_layer, reading)
    for half in HALVES:
        for batch in reading.batches(half):
            instrument.begin_batch(batch)
            pattern = torch.stack([target_pattern(batch, kind) for kind in kinds], dim=1)
            instrument.observe(state, batch, Site(layer=0, kind="pattern"), pattern, slice(0, pattern.shape[2]))
            instrument.end_batch(state, batch)
    arrays = numpy(state)
    return arrays["mass"][:, :, 0].astype(np.float32), arrays["rows"].astype(np.float32)


def target_pattern(batch: TextBatch, kind: Kind) -> Float[Tensor, "batch seq key"]:
    """Where a pure head of a kind would look: at all its targets alike, and at the first token where it has none."""
    name, _, number = kind.measure.partition("_")
    length = batch.tokens.shape[1]
    wanted = torch.zeros(*batch.tokens.shape, length)
    if name == "offset":
        wanted.diagonal(-int(number), dim1=1, dim2=2)[:] = 1.0
    elif name != "column":
        wanted = masks.TARGETS[kind.measure](batch).float()
    wanted[:, :, 0] += (wanted.sum(dim=2) == 0).float()
    return wanted / wanted.sum(dim=2, keepdim=True)


def _unlabelled(table: HeadsByUnit, kind: Kind, labelled: set[tuple[str, str]], heads: int) -> list[tuple[int, int]]:
    """Heads without this label, spread evenly over the model."""
    layers, per_layer = table.total.shape[2:]
    free = [at for at in np.ndindex(layers, per_layer) if (kind.behaviour, head_site(*at)) not in labelled]
    places = np.unique(np.linspace(0, len(free) - 1, min(heads, len(free))).round().astype(int)) if free else []
    return [free[place] for place in places]


def _is_found(table: HeadsByUnit, kind: Kind, head: tuple[int, int]) -> bool:
    site = head_site(*head)
    return any(one.rung >= 1 and one.behaviour == kind.behaviour and one.site == site for one in decide.findings(table))


def _one_layer(heads: int) -> Anatomy:
    return Anatomy(
        family="target",
        layers=1,
        heads=heads,
        kv_heads=heads,
        d_head=1,
        d_model=heads,
        neurons=0,
        vocab=1,
        max_positions=None,
        parameters=0,
    )
