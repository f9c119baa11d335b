"""What is lost without some heads? Ablates sets of heads and reads several metrics off the same runs.

1. A fixed set of confirmation units of each material is run once as it is, every block's output kept. Generated repeats are read
   to the end of their second copy, since nothing counts behind it, and where not all are wanted, those that end first.
2. Each ablation puts the heads' discovery mean in their place (never at position 0) and resumes from the first of their layers.
3. Per unit it reads off every metric of the material (`harms.py`). Generated repeats: the loss on second copies, and the
   attention match of the confirmed induction heads. Real text: the loss on all tokens, on those that occurred before and those
   that did not, where the current token has no earlier copy, after the last piece of words of several pieces and of one; and the
   probability of wrong tokens that stand in context and are among the ten most likely. Prompts (`prompts.py`): the logits of
   right answers less wrong ones, and the loss of the right ones.

A head may also be put back: given, in a run without others, what it wrote in the clean run (`restored`).

Every set of heads is run once per material; results are kept by the heads' names, so a scan can stop and go on.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import special_ortho_group
from torch import Tensor

from innerworks.errors import TextError, UsageError
from innerworks.heads import masks, prompts
from innerworks.heads.harms import METRICS, Head, material_of
from innerworks.heads.means import HeadReference
from innerworks.model import Mean, Model, Run, ablate, patch
from innerworks.model.call import Handler, Positions
from innerworks.model.prompts import Asked
from innerworks.model.prompts import batch_of as batch_of_prompts
from innerworks.model.run import Watch
from innerworks.sites import Site, head_site
from innerworks.stats import CONSTANTS, Array
from innerworks.text import Reading, TextBatch
from innerworks.text.reading import Window, batch_of

Rotated = tuple[int, int, int]  # layer, head, draw: what ablating the head removes, under a fixed random rotation
Heads = frozenset[Head | Rotated]  # also layer, head, RESTORED: the head as it was in the clean run

RESTORED = -1
MATERIALS = ("random", "text")  # of a reading; others are prompts
ROWS_AT_ONCE = 256
UNITS_AT_ONCE = 64  # whose masks are held while some are chosen
KEPT_BYTES = 256e6  # of runs that may be asked for another metric
TOP = 10  # predictions that count as confident copies
CONTEXT = 256  # tokens that a copy may come from


def restored(head: Head) -> Rotated:
    """A head that writes what it wrote in the clean run, as a member of a set of ablated heads."""
    return (*head, RESTORED)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The units on which ablations are judged, run once as they are."""

    batches: Mapping[str, TextBatch]  # by material
    clean: Mapping[str, Run]
    rows: Mapping[str, Bool[Tensor, "batch seq"]]  # by metric: positions whose prediction counts
    strata: Mapping[str, tuple[str, ...]]  # by material, one per unit
    watchers: tuple[Head, ...]  # the confirmed induction heads
    asked: Mapping[str, Asked] = field(default_factory=dict)  # by material, of prompts
    absent: Mapping[str, str] = field(default_factory=dict)  # material -> why this model has none


def trial(model: Model, reading: Reading, *, units: Mapping[str, int], text_tokens: int, watchers: Sequence[Head]) -> Trial:
    """Choose confirmation units, spread over the strata, and run them clean.

    units: how many of each material. text_tokens: how much of each document is read.
    """
    batches, clean, rows, strata, asked, absent = {}, {}, {}, {}, {}, {}
    for material, count in units.items():
        if material in MATERIALS:
            windows = _beginnings(reading, material, text_tokens)
            chosen = _chosen_units(reading, windows, count, material)
            batch = _batch(windows, chosen, material)
            names = [reading.units[unit].stratum for unit in chosen]
        else:
            try:
                batch, asked[material], names = _prompts(model, material, count)
            except (TextError, UsageError) as error:
                absent[material] = str(error)
                continue
        batches[material], strata[material] = batch, tuple(names)
        clean[material] = model.run(batch.tokens, mask=batch.mask, keep="resume", logits="none")
        rows.update(_rows(batch))
    return Trial(batches=batches, clean=clean, rows=rows, strata=strata, watchers=tuple(watchers), asked=asked, absent=absent)


def _prompts(model: Model, material: str, count: int) -> tuple[TextBatch, Asked, list[str]]:
    """So many confirmation units of prompts, of each stratum in turn."""
    found = [one for one in prompts.prompts(model, material) if one.half == "confirmation"]
    strata = {one.unit: one.stratum for one in found}
    units = list(strata)
    chosen = {units[i] for i in _in_turn(range(len(units)), list(strata.values()))[:count]}
    return batch_of_prompts([one for one in found if one.unit in chosen], material)


def _beginnings(reading: Reading, material: str, text_tokens: int) -> dict[int, Window]:
    """What may be read of each confirmation unit of a material: texts in the order of the units, repeats the shortest first."""
    windows = {window.unit: window for window in reversed(reading.windows)}  # the first of each unit
    units = [i for i, unit in enumerate(reading.units) if (unit.material, unit.half) == (material, "confirmation")]
    if material == "text":
        return {unit: _cut(windows[unit], text_tokens) for unit in units}
    repeats = {unit: _cut(windows[unit], _end_of_copies(windows[unit].tokens)) for unit in units}
    return dict(sorted(repeats.items(), key=lambda entry: len(entry[1].tokens)))


def _end_of_copies(tokens: Sequence[int]) -> int:
    """How many tokens lead to the end of the last copy of an earlier token."""
    return max((place + 1 for place, token in enumerate(tokens) if token in tokens[:place]), default=len(tokens))


def _chosen_units(reading: Reading, windows: Mapping[int, Window], count: int, material: str) -> list[int]:
    """Units that have rows for every metric, one of each stratum in turn.

    A metric that fewer units have than can decide anything is not asked for: it would cost the others their units. Masks of
    few units at once are held.
    """
    units = list(windows)
    parts = [_has(_batch(windows, units[i : i + UNITS_AT_ONCE], material)) for i in range(0, len(units), UNITS_AT_ONCE)]
    complete = torch.ones(len(units), dtype=torch.bool)
    for metric in parts[0]:
        narrower = complete & torch.cat([part[metric] for part in parts])
        complete = narrower if int(narrower.sum()) >= CONSTANTS.least_units else complete
    usable = [unit for unit, whole in zip(units, complete.tolist(), strict=True) if whole]
    return sorted(_in_turn(usable, [reading.units[unit].stratum for unit in usable])[:count])


def _has(batch: TextBatch) -> dict[str, Bool[Tensor, " batch"]]:
    """For each metric, the units that have a row for it."""
    return {metric: rows.any(dim=1) for metric, rows in _rows(batch).items()}


def _in_turn(units: Sequence[int], strata: Sequence[str]) -> list[int]:
    """One of each stratum in turn."""
    rank: dict[str, int] = {}
    order = []
    for unit, stratum in zip(units, strata, strict=True):
        rank[stratum] = rank.get(stratum, -1) + 1
        order.append((rank[stratum], stratum, unit))
    return [unit for _, _, unit in sorted(order)]


def _batch(windows: Mapping[int, Window], units: Sequence[int], material: str) -> TextBatch:
    return batch_of([windows[unit] for unit in units], material, "", "confirmation")


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
    if batch.material != "text":
        last = batch.mask & ~batch.mask.roll(-1, dims=1)
        last[:, -1] = batch.mask[:, -1]
        return {name: last for name, metric in METRICS.items() if metric.material == batch.material}
    before = next_copies.any(dim=2)
    ends = (batch.words >= 0) & (batch.words != batch.words.roll(-1, dims=1))  # the last piece of a word
    joined = masks.same_word(batch.words).any(dim=2)
    return {
        "text_loss": followed,
        "naive_copying": followed,
        "repeated_loss": before & followed,
        "fresh_loss": ~before & followed,
        "unmatched_loss": ~copies.any(dim=2) & followed,
        "joined_loss": ends & joined & followed,
        "single_loss": ends & ~joined & followed,
    }


def run_without(
    model: Model,
    trial: Trial,
    references: Mapping[str, HeadReference],
    heads: Iterable[Head | Rotated],
    material: str,
    *,
    clean_z: Callable[[str, int], Tensor],
) -> tuple[Float[Tensor, "batch seq d_model"], Array | None]:
    """Run one material of the trial without some heads: the stream after the final norm, and the match of watched heads.

    clean_z: what a layer's heads wrote in the clean run of a material, for those that are put back. The match is of generated
    repeats, `[head, unit]`; NaN for heads whose layers were not run.
    """
    heads, batch = sorted(heads), trial.batches[material]
    mean = references[material].mean
    places = torch.arange(batch.tokens.shape[1]).expand(batch.tokens.shape)  # padded on the right
    edits = [ablate(Site(layer=one[0], head=one[1]), mean=mean) for one in heads if len(one) == 2]
    for layer, head, *_ in (one for one in heads if one[2:] == (RESTORED,)):
        edits.append(patch(Site(layer=layer, head=head), clean_z(material, layer)[:, :, head]))
    replaced = [(edit.site, edit.handler(Positions(ids=places))) for edit in edits]
    rotated = [watch for one in heads if len(one) == 3 and one[2] != RESTORED for watch in remove_rotated(model, mean, one)]
    match = _Match(trial) if material == "random" else None
    final = model.run(
        batch.tokens,
        mask=batch.mask,
        watch=[  # rotations first: they read what a head would have written, though it may be ablated beside them
            *rotated,
            *replaced,
            *(match.watch(after=heads[0][0] if heads else 0) if match else ()),
        ],
        logits="none",
        resume=trial.clean[material],
    ).final
    return final, match.per_unit() if match else None


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


# --- what is read off predictions --------------------------------------------------------------------------------


def read(model: Model, trial: Trial, final: Float[Tensor, "batch seq d_model"], metric: str) -> dict[str, Array]:
    """A metric per unit, and every other that needs no further predictions: `{metric: [unit]}`; NaN for units without a row."""
    material = material_of(metric)
    rows, batch = trial.rows[metric], trial.batches[material]
    others = [name for name, one in METRICS.items() if one.material == material and one.reading != "match"]
    wanted = [name for name in others if not bool((trial.rows[name] & ~rows).any())]
    values = _readings(model, trial, material, final, rows, {METRICS[name].reading for name in wanted})
    return {name: _per_unit(values[METRICS[name].reading], trial.rows[name], batch.units) for name in wanted}


def _readings(
    model: Model, trial: Trial, material: str, final: Tensor, rows: Bool[Tensor, "batch seq"], names: Collection[str]
) -> dict[str, Float[Tensor, "batch seq"]]:
    """What is read off the predictions at some rows, a few of them at a time."""
    batch, asked = trial.batches[material], trial.asked.get(material)
    found = {name: torch.zeros(batch.tokens.shape, dtype=torch.float64) for name in names}
    with torch.no_grad():
        for some in rows.nonzero().split(ROWS_AT_ONCE):
            text, place = some.unbind(dim=1)
            logits = model.readout(final[text.to(final.device), place.to(final.device)]).float()
            row = _Row(
                logits=logits, total=logits.logsumexp(dim=1), text=text, place=place, tokens=batch.tokens[text], asked=asked
            )
            for name, values in found.items():
                values[text, place] = READERS[name](row).double().cpu()
    return found


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Some predictions, and where they were made."""

    logits: Float[Tensor, "row vocab"]
    total: Float[Tensor, " row"]  # logsumexp of the logits
    text: Int[Tensor, " row"]
    place: Int[Tensor, " row"]
    tokens: Int[Tensor, "row seq"]  # of the row's text
    asked: Asked | None

    @property
    def targets(self) -> Int[Tensor, " row"]:
        """The token that comes next."""
        return self.tokens.gather(1, self.place[:, None] + 1)[:, 0]

    def of(self, ids: Int[Tensor, "row id"]) -> Float[Tensor, "row id"]:
        """The logits of some tokens."""
        return self.logits.gather(1, ids.to(self.logits.device))

    def of_asked(self, which: str) -> Float[Tensor, "row answer"]:
        """The logits of the answers, or of the foils."""
        assert self.asked is not None
        return self.of(getattr(self.asked, which)[self.text])


def _loss(row: _Row) -> Float[Tensor, " row"]:
    """Of the next token, in nats."""
    return row.total - row.of(row.targets[:, None])[:, 0]


def _copied(row: _Row) -> Float[Tensor, " row"]:
    """Probability of tokens that are wrong, stand among the last 256 tokens, and are among the ten most likely."""
    top = row.logits.topk(min(TOP, row.logits.shape[1]), dim=1)
    likely = top.indices.cpu()
    keys = torch.arange(row.tokens.shape[1])
    seen = (keys <= row.place[:, None]) & (keys > row.place[:, None] - CONTEXT)
    in_context = ((row.tokens[:, None] == likely[:, :, None]) & seen[:, None]).any(dim=2)
    probability = (top.values - row.total[:, None]).exp().cpu()
    return (probability * (in_context & (likely != row.targets[:, None]))).sum(dim=1)


def _difference(row: _Row) -> Float[Tensor, " row"]:
    """Logits of right answers less those of wrong ones."""
    return row.of_asked("answers").mean(dim=1) - row.of_asked("foils").mean(dim=1)


def _answer_loss(row: _Row) -> Float[Tensor, " row"]:
    """Of any right answer, in nats."""
    return row.total - row.of_asked("answers").logsumexp(dim=1)


READERS: dict[str, Callable[[_Row], Tensor]] = {
    "loss": _loss,
    "copied": _copied,
    "difference": _difference,
    "answer_loss": _answer_loss,
}


def _per_unit(values: Tensor, rows: Tensor, units: Tensor) -> Array:
    """Average over the rows of each unit, in the order of their numbers."""
    names, unit = units.unique(return_inverse=True)
    total, count = (
        torch.zeros(len(names), dtype=torch.float64).index_add(0, unit, one.sum(dim=1).double()) for one in (values * rows, rows)
    )
    return (total / count).numpy(force=True)


# --- attention of other heads ------------------------------------------------------------------------------------


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


# --- all that was run --------------------------------------------------------------------------------------------


@dataclass
class Ablations:
    """Results by set of heads and metric; `without` runs what has not been run."""

    model: Model
    trial: Trial
    references: Mapping[str, HeadReference]
    done: dict[str, dict[str, Array]]
    runs: int = 0  # how many runs this took, so far
    _finals: dict[tuple[str, str], Tensor] = field(default_factory=dict, init=False)  # runs that may be asked for more
    _clean_z: dict[tuple[str, int], Tensor] = field(default_factory=dict, init=False)

    def without(self, heads: Iterable[Head | Rotated], metric: str) -> Array:
        """One metric per unit, without these heads."""
        heads, material = frozenset(heads), material_of(metric)
        known = self.done.setdefault(set_name(heads), {})
        if _kept_as(metric) not in known:
            final = self._final(heads, material)
            if metric in METRICS:  # else it is a match, which came with the run
                known.update(read(self.model, self.trial, final, metric))
        return read_off(known, metric, self.trial.watchers)

    def _final(self, heads: Heads, material: str) -> Tensor:
        """The stream after the final norm without these heads. Kept for a while, since most are asked for one metric only."""
        key = set_name(heads), material
        if not heads and material != "random":
            return self.trial.clean[material].final
        if key not in self._finals:
            final, match = run_without(self.model, self.trial, self.references, heads, material, clean_z=self.clean_z)
            self.runs += 1
            if match is not None:
                self.done.setdefault(key[0], {})["match_by_head"] = self._whole(match, heads)
            self._finals[key] = final
            while sum(one.nbytes for one in self._finals.values()) > KEPT_BYTES and len(self._finals) > 1:
                del self._finals[next(iter(self._finals))]
        return self._finals[key]

    def _whole(self, match_by_head: Array, heads: Heads) -> Array:
        """Layers that an ablation cannot reach were not run again: their heads match as in the clean run."""
        if not heads:
            return match_by_head
        if "match_by_head" not in self.done.get("clean", {}):
            self._final(frozenset(), "random")
        return np.where(np.isnan(match_by_head), self.done["clean"]["match_by_head"], match_by_head)

    def clean_z(self, material: str, layer: int) -> Float[Tensor, "batch seq head d_head"]:
        """What the heads of a layer wrote in the clean run: all layers are read at once where that is little, else one by one."""
        if (material, layer) not in self._clean_z:
            clean, a = self.trial.clean[material], self.model.anatomy
            little = clean.final.nbytes * a.layers * a.heads * a.d_head <= KEPT_BYTES * a.d_model
            sites = [Site(layer=one, kind="z") for one in (range(a.layers) if little else [layer])]
            run = self.model.run(clean.tokens, mask=clean.mask, record=sites, logits="none", resume=clean)
            self._clean_z = {(material, site.layer or 0): run[site] for site in sites}
        return self._clean_z[material, layer]


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
    """A set of heads as text: `L17H3+L18H6`, `L17H3~4` for a rotated one, `L17H3=clean` for one put back, `clean` for none."""
    return "+".join(_member(one) for one in sorted(heads)) or "clean"


def _member(one: Head | Rotated) -> str:
    how = "" if len(one) == 2 else "=clean" if one[2] == RESTORED else f"~{one[2]}"
    return head_site(one[0], one[1]) + how
