"""Composition of heads as a study of a scan: who reads whose output, by weights and in context."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from innerworks.errors import UnsupportedModel, UsageError
from innerworks.findings import Finding
from innerworks.heads import decide as labels
from innerworks.heads.circuits.embedding import refusal
from innerworks.heads.composition import decide, qk, scores, weigh
from innerworks.heads.composition.between import DISTANCES, rotary
from innerworks.heads.composition.measure import Matches, measure
from innerworks.heads.composition.plan import Plan, plans
from innerworks.heads.composition.removal import INPUT, Bench
from innerworks.heads.harms import Head
from innerworks.heads.kinds import KINDS
from innerworks.heads.means import HeadMeans, reference
from innerworks.heads.patterns import Patterns, heads_by_unit
from innerworks.model import Model
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Units
from innerworks.text import Reading
from innerworks.text.reading import batch_of
from innerworks.text.repeats import ordinary_tokens

#: depth -> (receivers, sequences); quick asks nothing
EFFORT = {"standard": (4, 12), "full": (8, 32)}


class Composition:
    """Which heads read which heads' output?"""

    name = "composition"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """What heads write on average, and the pattern scores that say who is no control."""
        return [Patterns(), HeadMeans()]

    def measure(self, given: Given) -> Kept:
        """Scores of weights, then removals and patches. What a model cannot be asked is told in `about`."""
        saved = {} if given.saved is None else dict(given.saved.arrays)
        about: dict[str, Any] = {"heads": given.model.anatomy.heads, "d_model": given.model.anatomy.d_model}
        refused = about["not measured"] = dict[str, str]()
        reason = refusal(given.model)
        if given.depth not in EFFORT:
            reason = f"a scan of depth {given.depth} does not ask which heads compose"
        if reason is not None:
            refused["all"] = reason
            return Kept(about=about)
        arrays = saved if "scores/can" in saved else {**saved, **of_weights(given.model, about, seed=given.seed)}
        if given.saved is not None:
            about = {**about, **given.saved.about}
            refused = about["not measured"]
        given.save(Kept(arrays=arrays, about=about))
        chosen = self._plans(given, refused)
        about["plans"] = [plan.as_json() for plan in chosen]
        if chosen:
            arrays |= self._in_context(given, chosen, arrays, about)
        return Kept(arrays=arrays, about=about)

    def _plans(self, given: Given, refused: dict[str, str]) -> list[Plan]:
        """What is asked in context; none, and why, where it cannot be."""
        receivers, _ = EFFORT[given.depth]
        lacking = given.model.lacks(INPUT["keys"], 0)
        if lacking is not None:
            refused["in context"] = lacking
            return []
        removed = reference(given.model, given.states[HeadMeans.name], "random").removed.numpy(force=True)
        found = plans(given.before, suspects=suspects(given), removed=removed, receivers=receivers, seed=given.seed)
        if not found:
            refused["in context"] = "no labelled induction head has a labelled previous-token head below it"
        return found

    def _in_context(self, given: Given, chosen: list[Plan], arrays: Matches, about: dict[str, Any]) -> Matches:
        """Remove and patch on the confirmation half of the generated repeats."""
        _, sequences = EFFORT[given.depth]
        units = confirmation(given.reading, sequences)
        about["units"] = [given.reading.units[unit].id for unit in units]
        windows = {window.unit: window for window in reversed(given.reading.windows) if window.unit in units}
        batch = batch_of([windows[unit] for unit in units], "random", "random", "confirmation")
        if not bool(batch.mask.all()):
            raise UsageError("Generated sequences of different lengths: none can take the place of another.")
        mean = reference(given.model, given.states[HeadMeans.name], "random").mean
        bench = Bench.of(given.model, batch, mean, layers=range(max(plan.receiver[0] for plan in chosen)))

        def step(found: Matches, done: int, total: int) -> None:
            given.step(done, total, "runs")
            given.save(Kept(arrays={**arrays, **found}, about=about))

        known = {name: x for name, x in arrays.items() if name.startswith("match/")}
        return measure(bench, chosen, done=known, step=step)

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """In context by labels' rungs as they are now; by weights without any."""
        rungs = {(one.site): one.rung for one in before if (one.behaviour, one.measure) == ("induction", "attention")}
        chosen = [Plan.from_json(plan) for plan in kept.about.get("plans", ())]
        rows = decide.findings(kept.arrays, chosen, rungs=rungs)
        return [*before, *rows, *weigh.findings(kept.arrays, kept.about)]


def of_weights(model: Model, about: dict[str, Any], *, seed: int = 0) -> Matches:
    """Composition scores of all pairs of heads, and QK circuits. What a model has none of goes to `about["not measured"]`."""
    refused: dict[str, str] = about["not measured"]
    about["between"] = ""
    found: Matches = {"scores/can": scores.can_compose(model).astype(np.float32)}
    if rotary(model):
        about["between"] = f"rotary: averaged over distances {', '.join(map(str, DISTANCES))} as far as the model looks"
    elif model.adapter.score_slopes:
        about["between"] = "scores also fall with distance, whatever the content"
    for kind in scores.KINDS:
        try:
            found[f"scores/{kind}"] = scores.scores(model, kind).numpy(force=True)
        except UnsupportedModel as error:
            refused[f"scores/{kind}"] = str(error)
    for behaviour, circuit in (
        ("previous_token", lambda: qk.previous_tokens(model, seed=seed)),
        ("duplicate_token", lambda: qk.duplicates(model, sample(model, seed), seed=seed)),
    ):
        try:
            one = circuit()
        except UnsupportedModel as error:
            refused[f"qk/{behaviour}"] = str(error)
        else:
            found |= {f"qk/{behaviour}": one.value, f"qk/{behaviour}/null": one.null.astype(np.float32)}
    return found


def sample(model: Model, seed: int) -> torch.Tensor:
    """Ordinary tokens that are scored against each other; any tokens where a model was wrapped without a tokenizer."""
    try:
        ordinary = ordinary_tokens(model.tokenizer, model.anatomy.vocab)
    except UsageError:
        ordinary = list(range(model.anatomy.vocab))
    drawn = np.random.default_rng([seed, 4]).permutation(len(ordinary))[: qk.SAMPLE]
    return torch.tensor(ordinary)[torch.from_numpy(drawn)]


def suspects(given: Given) -> set[Head]:
    """Candidates of every kind that is tested by ablation: none of them is a control."""
    table = heads_by_unit(given.states[Patterns.name], given.reading)
    found = [labels.candidates(table, kind) for kind in KINDS.values() if kind.causal]
    return {(int(layer), int(head)) for layer, head in np.argwhere(np.any(found, axis=0))}


def confirmation(reading: Reading, count: int) -> list[int]:
    """The first generated sequences of the confirmation half."""
    mine = [i for i, unit in enumerate(reading.units) if (unit.material, unit.half) == ("random", "confirmation")]
    return mine[:count]
