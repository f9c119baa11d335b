"""Calibration: scan models whose inner workings are known, and count what was found of what was planted.

1. Build phantoms of both architectures (`build.py`), each with planted parts, decoys that only look alike, and fillers.
2. Read and decide exactly as a scan does, on each phantom's own text; raise labels by ablation as a quick scan does.
3. Count labels by what a head truly is: the confusion matrix.

A head without anything to do rests on the first token, in phantoms as in real models: `first_token` beside another row is no
mistake, everything else off its own column is.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from innerworks.findings import Finding
from innerworks.heads import KINDS
from innerworks.model import Model
from innerworks.phantoms.build import Phantom, build
from innerworks.phantoms.stream import Architecture
from innerworks.scan import Step, measure
from innerworks.sites import head_site
from innerworks.text import Corpus, Document, read

DOCUMENTS = 80
ARCHITECTURES: tuple[Architecture, Architecture] = ("gpt2", "llama")
FILLER = "filler"
NOTHING = "none"
SHORT = {
    "previous_token": "prev",
    "current_token": "curr",
    "offset_2": "2 back",
    "offset_3": "3 back",
    "first_token": "first",
    "duplicate_token": "dupl",
    "induction": "induct",
    "subword_joiner": "joiner",
    "punctuation": "punct",
}
PLAIN: dict[str, Any] = {"title_justify": "left", "box": None, "pad_edge": False}


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was found of what was planted, over all phantoms."""

    phantoms: int
    heads: Mapping[str, int]  # what a head truly is -> how many there were
    labels: Mapping[tuple[str, str], int]  # (truth, label) -> how many heads
    rungs: Mapping[tuple[str, int], int]  # (planted behaviour, at least this rung) -> how many of its heads
    missed: tuple[str, ...] = field(default=())  # planted heads that were not seen, as `llama seed 3: L1H4 induction`

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "phantoms": self.phantoms,
            "heads": dict(self.heads),
            "labels": [{"truth": truth, "label": label, "heads": n} for (truth, label), n in sorted(self.labels.items())],
            "rungs": [{"planted": planted, "rung": rung, "heads": n} for (planted, rung), n in sorted(self.rungs.items())],
            "missed": list(self.missed),
        }

    def in_words(self) -> RenderableType:
        """Return it as tables for a terminal."""
        columns = [*KINDS, NOTHING]
        title = f"{self.phantoms} phantoms: what a head is, and how often it was labelled what"
        confusion = Table("what it is", "heads", *(SHORT.get(name, name) for name in columns), title=title, **PLAIN)
        for truth, count in self.heads.items():
            cells = [str(self.labels.get((truth, label), "·")) for label in columns]
            confusion.add_row(truth, str(count), *cells)
        headings = ("planted", "heads", "seen", "necessary", "selective")
        rungs = Table(*headings, title="Of what was planted, how much reaches which rung", **PLAIN)
        for planted in (truth for truth in self.heads if truth in KINDS):
            cells = [str(self.rungs.get((planted, rung), 0)) if rung == 1 or KINDS[planted].causal else "-" for rung in (1, 2, 3)]
            rungs.add_row(planted, str(self.heads[planted]), *cells)
        missed = Text("Missed: " + ("; ".join(self.missed) or "nothing"))
        return Group(confusion, Text(), rungs, missed)


def calibrate(
    *,
    draws: int = 5,
    amplitude: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
    progress: Callable[[Step], None] = lambda step: None,
) -> Calibration:
    """Scan `draws` phantoms of each architecture."""
    heads: Counter[str] = Counter()
    labels: Counter[tuple[str, str]] = Counter()
    rungs: Counter[tuple[str, int]] = Counter()
    missed: list[str] = []
    phantoms: list[tuple[Architecture, int]] = [
        (architecture, seed + draw) for draw in range(draws) for architecture in ARCHITECTURES
    ]
    for done, (architecture, draw) in enumerate(phantoms, start=1):
        phantom = build(architecture, seed=draw, amplitude=amplitude, noise=noise)
        given = labels_given(scan_phantom(phantom))
        for site, truth in truths(phantom).items():
            heads[truth] += 1
            labels.update((truth, label) for label in given.get(site, {NOTHING: 0}))
            rung = given.get(site, {}).get(truth, 0)
            rungs.update((truth, r) for r in range(1, rung + 1))
            if truth in KINDS and rung == 0:
                missed.append(f"{architecture} seed {draw}: {site} {truth}")
        progress(Step(stage="phantoms", done=done, total=len(phantoms), unit="phantoms"))
    order = [*(k for k in KINDS if k in heads), *sorted(t for t in heads if t not in KINDS and t != FILLER), FILLER]
    return Calibration(
        phantoms=len(phantoms),
        heads={truth: heads[truth] for truth in order},
        labels=labels,
        rungs=rungs,
        missed=tuple(missed),
    )


def scan_phantom(phantom: Phantom) -> list[Finding]:
    """Read, decide and ablate as a quick scan does, on the phantom's own text; nothing is written."""
    model = Model(phantom.hf, phantom.tokenizer, name=f"{phantom.architecture} phantom {phantom.seed}")
    texts = phantom.documents(DOCUMENTS, seed=phantom.seed)
    corpus = Corpus.of("phantom", [Document(id=f"{i:03d}", text=text) for i, text in enumerate(texts)])
    a = model.anatomy
    reading = read(corpus, model.tokenizer, vocab=a.vocab, max_positions=a.max_positions, seed=phantom.seed)
    return measure(model, reading, depth="quick", seed=phantom.seed)


def labels_given(findings: list[Finding]) -> dict[str, dict[str, int]]:
    """Labels by head: site -> behaviour -> rung."""
    given: dict[str, dict[str, int]] = {}
    for one in findings:
        if one.measure == "attention" and one.rung >= 1:
            given.setdefault(one.site, {})[one.behaviour] = one.rung
    return given


def truths(phantom: Phantom) -> dict[str, str]:
    """What each head truly is: a planted behaviour, a decoy's name, or a filler."""
    config = phantom.hf.config
    truth = {head_site(*head): FILLER for head in np.ndindex(config.num_hidden_layers, config.num_attention_heads)}
    truth.update({site: name for name, site in phantom.decoys.items()})
    truth.update({site: behaviour for behaviour, sites in phantom.truth.items() for site in sites})
    return truth
