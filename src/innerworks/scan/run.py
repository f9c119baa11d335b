"""A scan, from a model to an atlas, in one process.

1. Read: one pass over corpus and generated repeats, in two halves (`engine.py`), watched by the instruments of all studies.
2. Ask: every study in turn (`studies.py`).
3. Show: the best heads of each kind on real text.
4. Write the atlas, its manifest last.

What is done is saved every few seconds, so an interrupted scan goes on where it was, with the same result.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars
import scipy
import torch
import transformers

import innerworks
from innerworks.atlas import Atlas, Unfinished, schema
from innerworks.atlas.neurons import STUDY as NEURON_INPUTS
from innerworks.heads.decide import HeadsByUnit
from innerworks.heads.examples import best_labels, shown
from innerworks.heads.seen import Seen
from innerworks.model import Model, load
from innerworks.model.certificate import certify
from innerworks.model.digest import tokenizer_digest, weights_digest
from innerworks.model.study import Kept, Study, units_of
from innerworks.neurons import examples as neuron_examples
from innerworks.scan.depth import Depth, depth_of
from innerworks.scan.engine import HALVES, Pass, begin, observe
from innerworks.scan.plan import Plan, plan
from innerworks.scan.studies import Begun, Results, ask, studies, watch
from innerworks.show import report
from innerworks.text import Corpus, Reading, TextBatch, read

SAVE_EVERY = 15.0  # seconds; less often where saving would take more than a few per cent of the time
SAVING = 0.03
PASS_FILE = f"{schema.PARTIAL}/pass.safetensors"
BESIDE = "scan"  # beside what a study keeps: is that all of it, and the seconds it took


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
    only: Sequence[str] | None = None,
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    progress: Progress = lambda step: None,
    show_plan: Callable[[Plan], None] | None = None,
) -> Atlas:
    """Scan a model into an atlas.

    model: a Model, or anything `load` takes; None is the default specimen. out: the atlas' folder. corpus: see `Corpus.open`.
    depth: quick, standard or full. only: these chapters (heads, neurons, residual); None is all. resume: go on with the
    unfinished scan in `out`. force: replace what is there.
    progress: called after every batch and ablation. show_plan: called with the estimated cost before the work begins.
    """
    chapters = studies(only)
    if not isinstance(model, Model):
        model = load(model) if model is not None else load()
    if model.certificate is None:
        model.certificate = certify(model)
    reading, opened, chosen = prepare(model, corpus=corpus, depth=depth, seed=seed)
    settings = _settings(model, opened, chosen, only, seed)
    unfinished = Unfinished.create(out, settings, resume=resume, force=force)
    if show_plan is not None:
        show_plan(plan(model, reading, chosen, only))
    return _Scan(model, reading, opened, chosen, seed, unfinished, settings, progress).run(chapters)


def _settings(model: Model, corpus: Corpus, depth: Depth, only: Sequence[str] | None, seed: int) -> dict[str, Any]:
    return {
        "model": model.name,
        "weights": weights_digest(model.hf),
        "tokenizer": tokenizer_digest(model.tokenizer),
        "dtype": str(next(model.hf.parameters()).dtype).removeprefix("torch."),
        "corpus": corpus.digest,
        "depth": depth.name,
        "only": sorted(only) if only is not None else None,
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
    spent: dict[str, float] = field(default_factory=dict, init=False)  # seconds by stage, over interruptions

    def run(self, chosen: Sequence[Study]) -> Atlas:
        this_run = _Clock()
        current = self.read(chosen)
        self.spent["reading"] = current.seconds
        results = ask(
            chosen, self.model, self.reading, current, depth=self.depth.name, seed=self.seed, begun=self.begun, stage=self.stage
        )
        self.write(results)
        manifest = self.manifest({**self.spent, "this_run": this_run.total()})
        return self.out.finish(manifest, before=lambda atlas: report.write(atlas, atlas.path / schema.REPORT))

    def read(self, chosen: Sequence[Study]) -> Pass:
        instruments = watch(self.model, chosen)
        current = begin(self.model, self.reading, instruments)
        saved = self.out.read_arrays(PASS_FILE)
        if saved is not None:
            _restore(current, *saved)
        sizes = [batch.size for half in HALVES for batch in self.reading.batches(half)]
        clock = _Clock(current.seconds)

        def after_batch(current: Pass, batch: TextBatch) -> None:
            current.seconds = clock.total()
            tokens = sum(sizes[: current.batches])
            self.progress(Step(stage="reading", done=tokens, total=self.reading.tokens, unit="tokens"))
            clock.save(lambda: self.save_pass(current))

        observe(self.model, self.reading, instruments, current, after_batch=after_batch)
        self.save_pass(current)
        return current

    def save_pass(self, current: Pass) -> None:
        arrays = {f"{name}.{key}": x.numpy(force=True) for name, state in current.states.items() for key, x in state.items()}
        self.out.write_arrays(PASS_FILE, arrays, {"batches": current.batches, "seconds": current.seconds})

    def begun(self, name: str) -> Begun:
        """Where a study is taken up; from now on its time counts, and what it keeps is written as it goes."""
        found = self.out.read_arrays(partial_file(name))
        arrays, about = ({}, {}) if found is None else found
        beside = about.pop(BESIDE, {"done": False, "seconds": 0.0})
        clock = _Clock(beside["seconds"])
        self.spent[name] = beside["seconds"]

        def save(kept: Kept, done: bool) -> None:
            seconds = self.spent[name] = clock.total()
            about = {**kept.about, BESIDE: {"done": done, "seconds": seconds}}
            clock.save(lambda: self.out.write_arrays(partial_file(name), kept.arrays, about), now=done)

        return Begun(kept=None if found is None else Kept(arrays=arrays, about=about), done=beside["done"], save=save)

    def stage(self, name: str, done: int, total: int | None, unit: str) -> None:
        self.progress(Step(stage=name, done=done, total=total, unit=unit))

    def write(self, results: Results) -> None:
        units = units_of(self.reading)
        seen = results.kept.get(Seen.name, Kept()).arrays
        table = HeadsByUnit.of(seen["mass"], seen["rows"], units) if seen else None
        examples = shown(self.model, self.reading, table, best_labels(results.findings)) if table is not None else []
        arrays = results.kept.get(NEURON_INPUTS, Kept()).arrays
        self.out.write_neurons(neuron_examples.shown(self.model, self.reading, arrays, results.findings))
        self.out.write_findings(results.findings)
        self.out.write_units(units)
        self.out.write_examples(examples)
        for name, kept in results.kept.items():
            self.out.write_arrays(schema.of_study(name), kept.arrays, kept.about)

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
                "only": self.settings["only"],
                "seed": self.seed,
                "says": self.depth.says,
            },
            "certificate": self.model.certificate.as_dict(),
            "versions": versions(),
            "timings": {name: round(seconds, 2) for name, seconds in timings.items()},
            "units": units,
        }


def partial_file(name: str) -> str:
    """Where a study's arrays lie while the scan is under way."""
    return f"{schema.PARTIAL}/{name}.safetensors"


def versions() -> dict[str, str]:
    """What computed the numbers."""
    modules = (innerworks, torch, transformers, np, scipy, polars)
    return {module.__name__: str(module.__version__) for module in modules}


# --- saving ------------------------------------------------------------------------------------------------------


class _Clock:
    """Seconds spent, over interruptions, and when to save next."""

    def __init__(self, before: float = 0.0) -> None:
        self._start = time.perf_counter() - before
        self._due = time.perf_counter() + SAVE_EVERY

    def total(self) -> float:
        return time.perf_counter() - self._start

    def save(self, write: Callable[[], None], *, now: bool = False) -> None:
        """Save if it is time to."""
        began = time.perf_counter()
        if not now and began < self._due:
            return
        write()
        ended = time.perf_counter()
        self._due = ended + max(SAVE_EVERY, (ended - began) / SAVING)


def _restore(current: Pass, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    for name, state in current.states.items():
        for key in state:
            state[key] = torch.from_numpy(arrays[f"{name}.{key}"].copy())
    current.batches, current.seconds = metadata["batches"], metadata["seconds"]
