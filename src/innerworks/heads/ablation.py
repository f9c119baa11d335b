"""What is lost without some heads? Ablates sets of heads and reads several losses off the same runs.

1. A fixed set of confirmation units is run once as it is, every block's output kept.
2. Each ablation puts the heads' discovery mean in their place (never at position 0) and resumes from the first of their layers.
3. Per unit it reads off: the loss on second copies and the attention match of the confirmed induction heads (generated repeats);
   the loss on tokens that occurred before, on tokens that did not, where the current token has no earlier copy, and after the
   last piece of words of several pieces and of one (real text).

Every set of heads is ablated once; results are kept by the heads' names, so a scan can stop and go on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import special_ortho_group
from torch import Tensor

from innerworks.heads import masks
from innerworks.heads.means import HeadReference
from innerworks.model import Mean, Model, Run, ablate
from innerworks.model.call import Handler, Positions
from innerworks.model.run import Watch
from innerworks.sites import Site, head_site
from innerworks.stats import CONSTANTS, Array
from innerworks.text import Reading, TextBatch
from innerworks.text.reading import Window, batch_of

Head = tuple[int, int]  # layer, head
Rotated = tuple[int, int, int]  # layer, head, draw: what ablating the head removes, under a fixed random rotation
Heads = frozenset[Head | Rotated]

#: metric -> the material it is measured on. `induction_match@5` is the match averaged over the watched heads above layer 5.
METRICS = {
    "second_copy_loss": "random",
    "induction_match": "random",
    "repeated_loss": "text",
    "fresh_loss": "text",
    "unmatched_loss": "text",
    "joined_loss": "text",
    "single_loss": "text",
}
MATERIALS = ("random", "text")
ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The units on which ablations are judged, run once as they are."""

    batches: Mapping[str, TextBatch]  # by material
    clean: Mapping[str, Run]
    rows: Mapping[str, Bool[Tensor, "batch seq"]]  # by metric: positions whose prediction counts
    strata: Mapping[str, tuple[str, ...]]  # by material, one per unit
    watchers: tuple[Head, ...]  # the confirmed induction heads


def trial(model: Model, reading: Reading, *, units: Mapping[str, int], text_tokens: int, watchers: Sequence[Head]) -> Trial:
    """Choose confirmation units, spread over the strata, and run them clean.

    units: how many of each material. text_tokens: how much of each document is read.
    """
    batches, clean, rows, strata = {}, {}, {}, {}
    for material in MATERIALS:
        chosen = _chosen_units(reading, material, units[material], text_tokens)
        batch = _batch(reading, chosen, material, text_tokens)
        batches[material], strata[material] = batch, tuple(reading.units[unit].stratum for unit in chosen)
        clean[material] = model.run(batch.tokens, mask=batch.mask, keep="resume", logits="none")
        rows.update(_rows(batch))
    return Trial(batches=batches, clean=clean, rows=rows, strata=strata, watchers=tuple(watchers))


def _chosen_units(reading: Reading, material: str, count: int, text_tokens: int) -> list[int]:
    """Confirmation units that have rows for every metric, one of each stratum in turn.

    A metric that fewer units have than can decide anything is not asked for: it would cost the others their units.
    """
    all_units = [i for i, unit in enumerate(reading.units) if (unit.material, unit.half) == (material, "confirmation")]
    rows = _rows(_batch(reading, all_units, material, text_tokens))
    complete = torch.ones(len(all_units), dtype=torch.bool)
    for one in rows.values():
        narrower = complete & one.any(dim=1)
        complete = narrower if int(narrower.sum()) >= CONSTANTS.least_units else complete
    rank: dict[str, int] = {}
    order = []
    for number in (unit for unit, usable in zip(all_units, complete.tolist(), strict=True) if usable):
        stratum = reading.units[number].stratum
        rank[stratum] = rank.get(stratum, -1) + 1
        order.append((rank[stratum], stratum, number))
    return sorted(number for _, _, number in sorted(order)[:count])


def _batch(reading: Reading, units: list[int], material: str, text_tokens: int) -> TextBatch:
    windows = {window.unit: window for window in reversed(reading.windows) if window.unit in units}
    longest = None if material == "random" else text_tokens
    return batch_of([_cut(windows[unit], longest) for unit in units], material, "", "confirmation")


def _cut(window: Window, longest: int | None) -> Window:
    part = slice(longest)
    return replace(window, tokens=window.tokens[part], words=window.words[part], kinds=window.kinds[part])


def _rows(batch: TextBatch) -> dict[str, Bool[Tensor, "batch seq"]]:
    """For each metric of the batch's material, the positions whose next token counts."""
    copies = masks.same_token(batch.tokens, batch.mask)
    followed = batch.mask & batch.mask.roll(-1, dims=1)  # has a next token
    followed[:, -1] = False
    followed[:, 0] = False
    next_copies = copies.roll(-1, dims=1)  # row: the next token's earlier copies
    if batch.material == "random":
        continued = copies & next_copies.roll(-1, dims=2)  # an earlier copy whose next token is ours, too
        return {
            "second_copy_loss": continued.any(dim=2) & followed,
            "induction_match": masks.induction(batch.tokens, batch.mask).any(dim=2),
        }
    before = next_copies.any(dim=2)
    ends = (batch.words >= 0) & (batch.words != batch.words.roll(-1, dims=1))  # the last piece of a word
    joined = masks.same_word(batch.words).any(dim=2)
    return {
        "repeated_loss": before & followed,
        "fresh_loss": ~before & followed,
        "unmatched_loss": ~copies.any(dim=2) & followed,
        "joined_loss": ends & joined & followed,
        "single_loss": ends & ~joined & followed,
    }


def measure(
    model: Model, trial: Trial, references: Mapping[str, HeadReference], heads: Iterable[Head | Rotated], material: str
) -> dict[str, Array]:
    """Run one material of the trial without some heads: `{metric: [unit]}`; NaN where a unit has no row for a metric.

    The match of the watched induction heads comes by head, `match_by_head [head, unit]`; NaN for heads whose layers were not run.
    """
    heads, batch = sorted(heads), trial.batches[material]
    mean = references[material].mean
    places = torch.arange(batch.tokens.shape[1]).expand(batch.tokens.shape)  # padded on the right
    edits = [ablate(Site(layer=one[0], head=one[1]), mean=mean) for one in heads if len(one) == 2]
    replaced = [(edit.site, edit.handler(Positions(ids=places))) for edit in edits]
    rotated = [watch for one in heads if len(one) == 3 for watch in remove_rotated(model, mean, one)]
    wanted = [metric for metric, of in METRICS.items() if of == material and metric != "induction_match"]
    rows = torch.stack([trial.rows[metric] for metric in wanted]).any(dim=0)
    match = _Match(trial) if material == "random" else None
    run = model.run(
        batch.tokens,
        mask=batch.mask,
        watch=[  # rotations first: they read what a head would have written, though it may be ablated beside them
            *rotated,
            *replaced,
            *(match.watch(after=heads[0][0] if heads else 0) if match else ()),
        ],
        logits="none",
        resume=trial.clean[material],
    )
    loss = torch.zeros(batch.tokens.shape, dtype=torch.float64)
    loss[rows] = _loss(model, run.final[rows], batch.tokens.roll(-1, dims=1)[rows])
    out = {metric: _per_unit(loss, trial.rows[metric]) for metric in wanted}
    return {**out, "match_by_head": match.per_unit()} if match else out


def remove_rotated(model: Model, mean: Mean, one: Rotated) -> list[Watch]:
    """Take from the stream what ablating a head would take, turned by a Haar rotation of the stream: a control of equal size.

    Only for models with too few other heads: such a control flatters, since no part of the model ever writes like that.
    """
    layer, head, draw = one
    rng = np.random.default_rng([layer, head, draw])
    rotation = torch.from_numpy(special_ortho_group.rvs(model.anatomy.d_model, random_state=rng)).float()
    writes = model.weights.W_O(layer)[head].float() @ rotation.to(model.device)
    centre = mean.of(Site(layer=layer, head=head)).to(model.device)
    removed: list[Tensor] = []

    def read(z: Tensor, queries: slice) -> None:
        removed[:] = [(z[:, :, head].float() - centre) @ writes]
        removed[0][:, 0] = 0.0

    def write(attention: Tensor, queries: slice) -> Tensor:
        return attention - removed[0].to(attention.dtype)

    return [(Site(layer=layer, kind="z"), read), (Site(layer=layer, kind="attn_out"), write)]


def _loss(model: Model, final: Float[Tensor, "row d_model"], targets: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    """Loss of the next token in nats, a few rows of logits at a time."""
    losses = []
    with torch.no_grad():
        for streams, wanted in zip(final.split(ROWS_AT_ONCE), targets.to(final.device).split(ROWS_AT_ONCE), strict=True):
            losses.append(torch.nn.functional.cross_entropy(model.readout(streams).float(), wanted, reduction="none"))
    return torch.cat(losses).double().cpu()


def _per_unit(values: Tensor, rows: Tensor) -> Array:
    with np.errstate(invalid="ignore"):
        return ((values * rows).sum(dim=1) / rows.sum(dim=1)).numpy(force=True)


class _Match:
    """Mean attention of the watched induction heads on their targets, per unit."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        batch = trial.batches["random"]
        self.targets = masks.induction(batch.tokens, batch.mask)
        self.mass: dict[Head, Array] = {}

    def watch(self, *, after: int) -> list[Watch]:
        """Watch the layers from `after` on: an ablation there cannot reach those before."""
        layers = sorted({layer for layer, _ in self.trial.watchers})
        return [(Site(layer=layer, kind="pattern"), self._handler(layer)) for layer in layers if layer >= after]

    def _handler(self, layer: int) -> Handler:
        heads = [head for at, head in self.trial.watchers if at == layer]
        rows = self.trial.rows["induction_match"].sum(dim=1)
        summed = {head: torch.zeros(len(rows), dtype=torch.float64) for head in heads}

        def handle(pattern: Tensor, queries: slice) -> None:
            targets = self.targets[:, queries].to(pattern.device)
            for head in heads:
                summed[head] += (pattern[:, head] * targets).float().sum(dim=(-2, -1)).double().cpu()
                self.mass[layer, head] = (summed[head] / rows).numpy(force=True)

        return handle

    def per_unit(self) -> Array:
        """Match `[watched head, unit]`; NaN for heads whose layers were not run."""
        batch = self.trial.batches["random"]
        found = [self.mass.get(head, np.full(len(batch.tokens), np.nan)) for head in self.trial.watchers]
        return np.stack(found) if found else np.zeros((0, len(batch.tokens)))


@dataclass
class Ablations:
    """Results by set of heads and metric; `without` runs what has not been run."""

    model: Model
    trial: Trial
    references: Mapping[str, HeadReference]
    done: dict[str, dict[str, Array]]
    runs: int = 0  # how many runs this took, so far

    def without(self, heads: Iterable[Head | Rotated], metric: str) -> Array:
        """One metric per unit, without these heads."""
        heads = frozenset(heads)
        known = self.done.setdefault(set_name(heads), {})
        if _kept_as(metric) not in known:
            known.update(self._measure(heads, material_of(metric)))
            self.runs += 1
        return read_off(known, metric, self.trial.watchers)

    def _measure(self, heads: Heads, material: str) -> dict[str, Array]:
        found = measure(self.model, self.trial, self.references, heads, material)
        if material == "random" and heads:  # layers that the ablation cannot reach were not run again
            self.without((), "second_copy_loss")
            by_head = found["match_by_head"]
            found["match_by_head"] = np.where(np.isnan(by_head), self.done["clean"]["match_by_head"], by_head)
        return found


def material_of(metric: str) -> str:
    """What a metric is measured on."""
    return METRICS[metric.partition("@")[0]]


def _kept_as(metric: str) -> str:
    return "match_by_head" if metric.startswith("induction_match") else metric


def read_off(measured: Mapping[str, Array], metric: str, watchers: Sequence[Head]) -> Array:
    """One metric per unit of a recorded ablation."""
    name, _, layer = metric.partition("@")
    if name != "induction_match":
        return measured[name]
    above = [number for number, (at, _) in enumerate(watchers) if at > int(layer)]
    return measured["match_by_head"][above].mean(axis=0)


def set_name(heads: Heads) -> str:
    """A set of heads as text: `L17H3+L18H6`, `L17H3~4` for a rotated one, or `clean` for none."""
    names = [head_site(one[0], one[1]) + (f"~{one[2]}" if len(one) == 3 else "") for one in sorted(heads)]
    return "+".join(names) or "clean"
