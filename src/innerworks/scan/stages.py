"""The stages of a scan of attention heads, without a word about files: read, then ablate."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from innerworks.findings import Finding
from innerworks.heads import ablation, decide, effect, seen
from innerworks.heads.ablation import Ablations, Head, Rotated
from innerworks.heads.kinds import KINDS
from innerworks.heads.means import HeadMeans, reference
from innerworks.heads.patterns import Patterns, heads_by_unit
from innerworks.model import Model
from innerworks.model.observe import Instrument
from innerworks.scan.engine import AfterBatch, Pass, begin, observe
from innerworks.stats import Array
from innerworks.text import Reading

Recorded = dict[str, dict[str, Array]]  # set of heads -> metric -> values per unit


def instruments() -> list[Instrument]:
    """What watches a reading."""
    return [Patterns(), HeadMeans()]


def start(model: Model, reading: Reading) -> Pass:
    """An empty pass of all instruments."""
    return begin(model, reading, instruments())


def finish_pass(
    model: Model, reading: Reading, current: Pass, *, after_batch: AfterBatch = lambda current, batch: None
) -> decide.HeadsByUnit:
    """Read to the end and return what was seen of every head in every unit."""
    observe(model, reading, instruments(), current, after_batch=after_batch)
    return heads_by_unit(current.states["heads"], reading)


@dataclass(frozen=True, kw_only=True)
class Ablated:
    """Findings of all rungs, and the ablations they rest on."""

    findings: list[Finding]
    recorded: Recorded
    removed: dict[str, Array]  # norm that an ablation removes, per material `[layer, head]`
    strata: dict[str, list[str]]  # of the units, per material
    watchers: list[Head]  # the confirmed induction heads


def ablate(
    model: Model,
    reading: Reading,
    table: decide.HeadsByUnit,
    current: Pass,
    effort: effect.Effort,
    *,
    seed: int,
    recorded: Recorded | None = None,
    after: Callable[[Recorded], None] = lambda recorded: None,
) -> Ablated:
    """Label heads, and raise the labels to rungs 2 and 3 where they earn it.

    recorded: ablations done before an interruption. after: called after each ablation.
    """
    labels = seen.findings(table)
    references = {material: reference(model, current.states["head_means"], material) for material in ablation.MATERIALS}
    removed = {material: one.removed.numpy(force=True) for material, one in references.items()}
    watchers = [label.head for label in effect.labels_of(labels) if label.behaviour == "induction"]
    trial = ablation.trial(model, reading, units=effort.units, text_tokens=effort.text_tokens, watchers=watchers)
    ablations = Ablations(model, trial, references, {} if recorded is None else recorded)

    def without(heads: Iterable[Head | Rotated], metric: str) -> Array:
        heads, before = frozenset(heads), ablations.runs
        result = ablations.without(heads, metric)
        if ablations.runs > before:
            after(ablations.done)
        return result

    bench = effect.Bench(without=without, strata=trial.strata, watchers=watchers, suspects=suspects(table), removed=removed)
    findings = effect.climb(labels, bench, effort, seed)
    strata = {material: list(names) for material, names in trial.strata.items()}
    return Ablated(findings=findings, recorded=ablations.done, removed=removed, strata=strata, watchers=watchers)


def measure(model: Model, reading: Reading, effort: effect.Effort, *, seed: int = 0) -> list[Finding]:
    """Both stages, in memory: the findings that a scan would write."""
    current = start(model, reading)
    table = finish_pass(model, reading, current)
    return ablate(model, reading, table, current, effort, seed=seed).findings


def suspects(table: decide.HeadsByUnit) -> set[Head]:
    """Candidates of every kind that is tested by ablation: none of them is a control."""
    found = [decide.candidates(table, kind) for kind in KINDS.values() if kind.causal]
    return {(int(layer), int(head)) for layer, head in np.argwhere(np.any(found, axis=0))}
