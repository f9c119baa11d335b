"""A scan, from a model to an atlas, in one process.

1. Read: one pass over corpus and generated repeats, in two halves (`engine.py`).
2. Ablate: heads are labelled, and labels raised to rungs 2 and 3 where they earn it (`stages.py`).
3. Show: the best heads of each kind on real text.
4. Write the atlas, its manifest last.

What is done is saved every few seconds, so an interrupted scan goes on where it was, with the same result.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars
import scipy
import torch
import transformers

import innerworks
from innerworks.atlas import Atlas, Example, Unfinished, schema
from innerworks.findings import Finding
from innerworks.heads.decide import HeadsByUnit
from innerworks.heads.examples import shown
from innerworks.heads.kinds import KINDS, MEASURES
from innerworks.model import Model, load
from innerworks.model.certificate import certify
from innerworks.model.digest import tokenizer_digest, weights_digest
from innerworks.scan import stages
from innerworks.scan.depth import Depth, depth_of
from innerworks.scan.engine import HALVES, Pass
from innerworks.scan.plan import Plan, plan
from innerworks.show import report
from innerworks.text import Corpus, Reading, TextBatch, read

SAVE_EVERY = 15.0  # seconds
SHOWN = 4  # examples per kind
PASS_FILE = f"{schema.PARTIAL}/pass.safetensors"
ABLATIONS_FILE = f"{schema.PARTIAL}/ablations.safetensors"


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far a scan is: `done` of `total`, in `unit`; total is None where it is not known yet."""

    stage: str
    done: int
    total: int | None
    unit: str


Progress = Callable[[Step], None]


def prepare(
    model: Model, *, corpus: str | Corpus = "builtin", depth: str = "standard", seed: int = 0
) -> tuple[Reading, Corpus, Depth]:
    """What a scan will read."""
    chosen = depth_of(depth)
    opened = Corpus.open(corpus)
    per_domain = chosen.documents(len({document.domain for document in opened.documents}))
    if per_domain is not None:
        opened = opened.sample(per_domain)
    reading = read(opened, model.tokenizer, vocab=model.anatomy.vocab, max_positions=model.anatomy.max_positions, seed=seed)
    return reading, opened, chosen


def scan(
    model: Model | str | Path | None = None,
    *,
    out: str | Path,
    corpus: str | Corpus = "builtin",
    depth: str = "standard",
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    progress: Progress = lambda step: None,
    show_plan: Callable[[Plan], None] | None = None,
) -> Atlas:
    """Scan a model into an atlas.

    model: a Model, or anything `load` takes; None is the default specimen. out: the atlas' folder. corpus: see `Corpus.open`.
    depth: quick, standard or full. resume: go on with the unfinished scan in `out`. force: replace what is there.
    progress: called after every batch and ablation. show_plan: called with the estimated cost before the work begins.
    """
    if not isinstance(model, Model):
        model = load(model) if model is not None else load()
    if model.certificate is None:
        model.certificate = certify(model)
    reading, opened, chosen = prepare(model, corpus=corpus, depth=depth, seed=seed)
    settings = _settings(model, opened, chosen, seed)
    unfinished = Unfinished.create(out, settings, resume=resume, force=force)
    if show_plan is not None:
        show_plan(plan(model, reading, chosen))
    return _Scan(model, reading, opened, chosen, seed, unfinished, settings, progress).run()


def _settings(model: Model, corpus: Corpus, depth: Depth, seed: int) -> dict[str, Any]:
    return {
        "model": model.name,
        "weights": weights_digest(model.hf),
        "tokenizer": tokenizer_digest(model.tokenizer),
        "dtype": str(next(model.hf.parameters()).dtype).removeprefix("torch."),
        "corpus": corpus.digest,
        "depth": depth.name,
        "seed": seed,
        "innerworks": innerworks.__version__,
    }


@dataclass
class _Scan:
    """What the stages of one scan share."""

    model: Model
    reading: Reading
    corpus: Corpus
    depth: Depth
    seed: int
    out: Unfinished
    settings: Mapping[str, Any]
    progress: Progress

    def run(self) -> Atlas:
        started = time.perf_counter()
        current, table = self.read()
        after_reading = time.perf_counter()
        ablated = self.ablate(table, current)
        timings = {"reading": current.seconds, "ablating": time.perf_counter() - after_reading}
        self.write(ablated, table)
        manifest = self.manifest({**timings, "this_run": time.perf_counter() - started})
        return self.out.finish(manifest, before=lambda atlas: report.write(atlas, atlas.path / schema.REPORT))

    def read(self) -> tuple[Pass, HeadsByUnit]:
        current = stages.start(self.model, self.reading)
        saved = self.out.read_arrays(PASS_FILE)
        if saved is not None:
            _restore(current, *saved)
        sizes = [batch.size for half in HALVES for batch in self.reading.batches(half)]
        clock = _Clock(current.seconds)

        def after_batch(current: Pass, batch: TextBatch) -> None:
            current.seconds = clock.total()
            tokens = sum(sizes[: current.batches])
            self.progress(Step(stage="reading", done=tokens, total=self.reading.tokens, unit="tokens"))
            if clock.save_due():
                self.save_pass(current)

        table = stages.finish_pass(self.model, self.reading, current, after_batch=after_batch)
        self.save_pass(current)
        return current, table

    def save_pass(self, current: Pass) -> None:
        arrays = {f"{name}.{key}": x.numpy(force=True) for name, state in current.states.items() for key, x in state.items()}
        self.out.write_arrays(PASS_FILE, arrays, {"batches": current.batches, "seconds": current.seconds})

    def ablate(self, table: HeadsByUnit, current: Pass) -> stages.Ablated:
        saved = self.out.read_arrays(ABLATIONS_FILE)
        clock = _Clock()

        def after(recorded: stages.Recorded) -> None:
            self.progress(Step(stage="ablating", done=len(recorded), total=None, unit="sets of heads"))
            if clock.save_due():
                self.out.write_arrays(ABLATIONS_FILE, _pack(recorded))

        recorded = unpack(saved[0]) if saved else None
        effort = self.depth.effort
        return stages.ablate(self.model, self.reading, table, current, effort, seed=self.seed, recorded=recorded, after=after)

    def write(self, ablated: stages.Ablated, table: HeadsByUnit) -> None:
        examples = shown(self.model, self.reading, table, best_labels(ablated.findings))
        self.out.write_findings(ablated.findings)
        self.out.write_examples([Example(x.behaviour, x.site, x.unit, x.tokens, x.pattern) for x in examples])
        units = [[unit.id, unit.stratum, unit.material, unit.half] for unit in self.reading.units]
        seen = {"mass": table.total, "rows": table.rows}
        self.out.write_arrays(schema.HEADS_BY_UNIT, seen, {"units": units, "measures": MEASURES})
        removed = {f"removed/{material}": one for material, one in ablated.removed.items()}
        self.out.write_arrays(
            schema.ABLATIONS, {**_pack(ablated.recorded), **removed}, {"strata": ablated.strata, "watchers": ablated.watchers}
        )

    def manifest(self, timings: Mapping[str, float]) -> dict[str, Any]:
        units = {
            material: {half: sum(u.material == material and u.half == half for u in self.reading.units) for half in HALVES}
            for material in ("text", "random")
        }
        assert self.model.certificate is not None  # scan() saw to it
        return {
            "model": {
                "name": self.model.name,
                "digest": self.settings["weights"],
                "dtype": self.settings["dtype"],
                **asdict(self.model.anatomy),
            },
            "tokenizer": {"digest": self.settings["tokenizer"]},
            "corpus": {
                "name": self.corpus.name,
                "digest": self.corpus.digest,
                "documents": len(self.corpus.documents),
                "tokens": self.reading.tokens_of("text"),
                "generated_tokens": self.reading.tokens_of("random"),
                "notes": list(self.corpus.notes),
            },
            "settings": {
                "depth": self.depth.name,
                "seed": self.seed,
                "says": self.depth.says,
                "effort": asdict(self.depth.effort),
            },
            "certificate": self.model.certificate.as_dict(),
            "versions": versions(),
            "timings": {name: round(seconds, 2) for name, seconds in timings.items()},
            "units": units,
        }


def best_labels(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """The strongest labels of each kind, those on the highest rung first."""
    out = []
    for behaviour in KINDS:
        labels = [
            f for f in findings if f.behaviour == behaviour and f.measure == "attention" and f.material == "text" and f.rung
        ]
        out += [(behaviour, one.site) for one in sorted(labels, key=lambda f: (-f.rung, -f.effect))[:SHOWN]]
    return out


def versions() -> dict[str, str]:
    """What computed the numbers."""
    modules = (innerworks, torch, transformers, np, scipy, polars)
    return {module.__name__: str(module.__version__) for module in modules}


# --- saving ------------------------------------------------------------------------------------------------------


class _Clock:
    """Seconds spent, over interruptions, and when to save next."""

    def __init__(self, before: float = 0.0) -> None:
        self._start = self._saved = time.perf_counter()
        self._before = before

    def total(self) -> float:
        return self._before + time.perf_counter() - self._start

    def save_due(self) -> bool:
        if time.perf_counter() - self._saved < SAVE_EVERY:
            return False
        self._saved = time.perf_counter()
        return True


def _restore(current: Pass, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    for name, state in current.states.items():
        for key in state:
            state[key] = torch.from_numpy(arrays[f"{name}.{key}"].copy())
    current.batches, current.seconds = metadata["batches"], metadata["seconds"]


def _pack(done: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {f"{name}/{metric}": values for name, metrics in done.items() for metric, values in metrics.items()}


def unpack(arrays: Mapping[str, np.ndarray]) -> stages.Recorded:
    """Recorded ablations as they were: set of heads -> metric -> values per unit."""
    done: stages.Recorded = {}
    for key, values in arrays.items():
        name, metric = key.rsplit("/", 1)
        if name != "removed":
            done.setdefault(name, {})[metric] = values
    return done
