"""Calibration: scan models whose inner workings are known, and count what was found of what was planted.

1. Build phantoms of both architectures and every kit (`build.py`, `kits.py`), each with planted parts, decoys that only look
   alike, and fillers.
2. Read and decide exactly as a scan does, on each phantom's own text, with the studies of the kit's chapter; raise labels by
   ablation as a quick scan does.
3. Count labels by what a head or a neuron truly is: the confusion matrix; and how much of each kind was found, with exact
   intervals.

A head without anything to do rests on the first token, in phantoms as in real models: `first_token` beside another row is no
mistake. Nor is what a decoy truly is: a head that copies from a fixed distance copies, though it is no induction head. Nor is any
label of a helper: the neurons that find the first position do know positions.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from innerworks.findings import Finding
from innerworks.heads import KINDS
from innerworks.heads.harms import judged
from innerworks.model import Model
from innerworks.model.study import Study
from innerworks.phantoms.build import Phantom, build, family_of
from innerworks.phantoms.kits import KITS, kit_of
from innerworks.phantoms.recall import PLAIN, Recall
from innerworks.phantoms.stream import Architecture
from innerworks.scan import Step
from innerworks.scan.engine import begin, observe
from innerworks.scan.studies import ask, studies, watch
from innerworks.sites import Site, head_site
from innerworks.text import Corpus, read

DOCUMENTS = 80
ARCHITECTURES: tuple[Architecture, Architecture] = ("gpt2", "llama")
FILLERS = {"heads": "filler head", "neurons": "filler neuron"}
HELPER = "helper"
NOTHING = "none"
LISTED = 12  # exceptions, in words
RESTING = "first_token"  # no mistake beside another kind
RAISING = ("ablations", "composition", "neuron_necessity")  # studies that raise the rungs of labels, and give none
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
    "copying": "copy",
    "anti_copying": "anti",
    "copy_suppression": "suppr",
    "successor": "succ",
    "position_neuron": "posit",
    "alphabet_neuron": "letter",
    "token_class_neuron": "class",
    "token_neuron": "token",
    "token_detector": "detect",
    "previous_token_neuron": "prev n",
    "dead_neuron": "dead",
    "token_frequency": "freq",
    "entropy": "entropy",
}


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was found of what was planted, over all phantoms."""

    phantoms: int
    parts: Mapping[str, int]  # what a head or a neuron truly is -> how many there were
    labels: Mapping[tuple[str, str], int]  # (truth, label) -> how many of them
    rungs: Mapping[tuple[str, int], int]  # (planted behaviour, at least this rung) -> how many of its parts
    measured: tuple[str, ...]  # planted kinds that this version can find
    missed: tuple[str, ...] = field(default=())  # planted parts that were not seen, as `llama seed 3: L1H4 induction`
    mistaken: tuple[str, ...] = field(default=())  # labels that are not true of their parts

    @property
    def recall(self) -> dict[str, Recall]:
        """By planted kind that is measured."""
        return {kind: Recall(found=self.rungs.get((kind, 1), 0), planted=self.parts[kind]) for kind in self.measured}

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "phantoms": self.phantoms,
            "parts": dict(self.parts),
            "labels": [{"truth": truth, "label": label, "parts": n} for (truth, label), n in sorted(self.labels.items())],
            "rungs": [{"planted": planted, "rung": rung, "parts": n} for (planted, rung), n in sorted(self.rungs.items())],
            "recall": {kind: recall.as_dict() for kind, recall in self.recall.items()},
            "missed": list(self.missed),
            "mistaken": list(self.mistaken),
        }

    def in_words(self) -> RenderableType:
        """Return it as tables for a terminal."""
        return Group(self._confusion(), Text(), self._found(), *(Text(line) for line in self._exceptions()))

    def _confusion(self) -> Table:
        given = {label for _, label in self.labels}
        columns = [*(k for k in SHORT if k in given), *sorted(given - {*SHORT, NOTHING}), NOTHING]
        title = f"{self.phantoms} phantoms: what a part is, and how often it was labelled what"
        table = Table("what it is", "parts", *(SHORT.get(name, name) for name in columns), title=title, **PLAIN)
        for truth, count in self.parts.items():
            table.add_row(truth, str(count), *(str(self.labels.get((truth, label), "·")) for label in columns))
        return table

    def _found(self) -> Table:
        headings = ("planted", "parts", "seen", "95 % interval", "necessary", "selective")
        table = Table(*headings, title="Of what was planted, how much reaches which rung", **PLAIN)
        for planted, recall in self.recall.items():
            causal = [str(self.rungs.get((planted, rung), 0)) if self._tried(planted) else "-" for rung in (2, 3)]
            interval = f"{recall.low:.2f} to {recall.high:.2f}"
            table.add_row(planted, str(recall.planted), str(recall.found), interval, *causal)
        return table

    def _tried(self, planted: str) -> bool:
        return (planted in KINDS and judged(planted) is not None) or (planted, 2) in self.rungs

    def _exceptions(self) -> list[str]:
        unmeasured = [kind for kind in self.parts if kind in planted_kinds() and kind not in self.measured]
        lines = [f"Missed: {_listed(self.missed)}", f"Mistaken: {_listed(self.mistaken)}"]
        return lines + ([f"Planted, and not measured by this version: {', '.join(unmeasured)}"] if unmeasured else [])


def _listed(lines: Sequence[str]) -> str:
    """The first of many; all are in the JSON."""
    more = f"; and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
    return ("; ".join(lines[:LISTED]) or "nothing") + more


def calibrate(
    *,
    draws: int = 5,
    amplitude: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
    kits: Sequence[str] = tuple(KITS),
    architectures: Sequence[Architecture] = ARCHITECTURES,
    causal: bool = True,
    progress: Callable[[Step], None] = lambda step: None,
) -> Calibration:
    """Scan `draws` phantoms of each architecture and kit. causal: try the rungs above the first, too."""
    count = _Count()
    wanted = list(product(kits, range(seed, seed + draws), architectures))
    for done, (kit, draw, architecture) in enumerate(wanted, start=1):
        phantom = build(architecture, seed=draw, amplitude=amplitude, noise=noise, kit=kit)
        count.add(phantom, scan_phantom(phantom, causal=causal))
        progress(Step(stage="phantoms", done=done, total=len(wanted), unit="phantoms"))
    return count.calibration()


class _Count:
    """Labels counted so far."""

    def __init__(self) -> None:
        self.phantoms = 0
        self.parts: Counter[str] = Counter()
        self.labels: Counter[tuple[str, str]] = Counter()
        self.rungs: Counter[tuple[str, int]] = Counter()
        self.measured: dict[str, None] = {}
        self.missed: list[str] = []
        self.mistaken: list[str] = []

    def add(self, phantom: Phantom, findings: Sequence[Finding]) -> None:
        """Count one phantom's heads and neurons."""
        self.phantoms += 1
        given, asked = labels_given(findings), {one.behaviour for one in findings}
        self.measured |= dict.fromkeys(kind for kind in phantom.truth if kind in asked)
        named = f"{phantom.architecture} {phantom.kit} seed {phantom.seed}"
        for site, truth in truths(phantom).items():
            mine, planted = given.get(site, {}), truth in phantom.truth and truth in asked
            self.parts[truth] += 1
            self.labels.update((truth, label) for label in mine or {NOTHING: 0})
            self.rungs.update((truth, rung) for rung in range(1, mine.get(truth, 0) + 1) if planted)
            if planted and truth not in mine:
                self.missed.append(f"{named}: {site} {truth}")
            if truth == HELPER:
                continue
            false = [label for label in mine if label not in (RESTING, *phantom.behaviours.get(site, ()))]
            self.mistaken += [f"{named}: {site} {truth} for {label}" for label in false]

    def calibration(self) -> Calibration:
        """What it comes to."""
        planted = planted_kinds()
        last = (HELPER, *FILLERS.values())
        others = sorted(truth for truth in self.parts if truth not in (*planted, *last))
        order = [truth for truth in (*planted, *others, *last) if truth in self.parts]
        return Calibration(
            phantoms=self.phantoms,
            parts={truth: self.parts[truth] for truth in order},
            labels=self.labels,
            rungs=self.rungs,
            measured=tuple(kind for kind in planted if kind in self.measured),
            missed=tuple(self.missed),
            mistaken=tuple(self.mistaken),
        )


def planted_kinds() -> tuple[str, ...]:
    """Every kind of part of which some kit has one."""
    planted = [part.behaviours[0] for kit in KITS.values() for part in kit.planted]
    return tuple(sorted(dict.fromkeys(planted), key=lambda kind: [*SHORT, kind].index(kind)))


def scan_phantom(phantom: Phantom, *, causal: bool = True) -> list[Finding]:
    """Read and decide as a scan does, on the phantom's own text, with rungs above the first or without; nothing is written."""
    model = Model(phantom.hf, phantom.tokenizer, name=f"{phantom.architecture} phantom {phantom.seed}")
    corpus = Corpus.of("phantom", phantom.corpus(DOCUMENTS, seed=phantom.seed))
    a = model.anatomy
    reading = read(corpus, model.tokenizer, vocab=a.vocab, max_positions=a.max_positions, seed=phantom.seed)
    mine = [study for study in studies() if chapter_of(study) == kit_of(phantom.kit).chapter]
    chosen = [study for study in mine if causal or study.name not in RAISING]
    watching = watch(model, chosen)
    current = observe(model, reading, watching, begin(model, reading, watching))
    return ask(chosen, model, reading, current, depth=kit_of(phantom.kit).depth, seed=phantom.seed).findings


def chapter_of(study: Study) -> str:
    """The chapter that a study is of: the packages are the chapters."""
    return type(study).__module__.split(".")[1]


def labels_given(findings: Sequence[Finding]) -> dict[str, dict[str, int]]:
    """Labels by place: site -> behaviour -> highest rung."""
    given: dict[str, dict[str, int]] = {}
    for one in findings:
        if one.rung >= 1:
            mine = given.setdefault(one.site, {})
            mine[one.behaviour] = max(one.rung, mine.get(one.behaviour, 0))
    return given


def truths(phantom: Phantom) -> dict[str, str]:
    """What each head truly is, or each neuron if the kit is of these: a planted kind, a decoy by name, a helper, a filler."""
    kit = kit_of(phantom.kit)
    family = family_of(kit, phantom.architecture)
    if kit.chapter == "heads":
        sites = [head_site(*head) for head in np.ndindex(family.layers, family.heads)]
    else:
        sites = [str(Site(layer=layer, neuron=neuron)) for layer, neuron in np.ndindex(family.layers, family.neurons)]
    named = dict.fromkeys(phantom.helpers, HELPER) | {site: name for name, site in phantom.decoys.items()}
    named |= {site: behaviour for behaviour, planted in phantom.truth.items() for site in planted}
    return {site: named.get(site, FILLERS[kit.chapter]) for site in sites}
