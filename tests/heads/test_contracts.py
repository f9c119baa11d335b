"""What the statistics promise, tried on models whose truth is known: nothing is there, or the null is exactly true."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from innerworks.findings import Finding
from innerworks.heads import patterns
from innerworks.heads.kinds import CONTENT, KINDS
from innerworks.heads.seen import findings
from innerworks.heads.syntax import Syntax, shuffled
from innerworks.model import Model
from innerworks.model.observe import State, zeros
from innerworks.model.study import Given, units_of
from innerworks.scan.engine import begin, observe
from innerworks.stats import estimate, upper_tail
from innerworks.text import Corpus, Reading, read
from innerworks.text.pieces import kind_of_each_token, word_of_each_token
from innerworks.text.reading import Unit, Window
from twins import twin

SHUFFLES = 30


# --- an untrained twin -------------------------------------------------------------------------------------------


def decided(model: Model, corpus: Corpus, seed: int = 0) -> list[Finding]:
    anatomy = model.anatomy
    reading = read(corpus, model.tokenizer, vocab=anatomy.vocab, max_positions=anatomy.max_positions, seed=seed)
    instruments = [patterns.Patterns()]
    done = observe(model, reading, instruments, begin(model, reading, instruments))
    return findings(patterns.heads_by_unit(done.states["heads"], reading))


def check_twins(tokenizer: Any, corpus: Corpus, seeds: range, most: int) -> None:
    labelled = 0
    for seed in seeds:
        found = decided(twin(tokenizer, seed), corpus, seed)
        labelled += any(one.rung for one in found)
        large = [(one.behaviour, one.site, one.material, one.effect) for one in found if abs(one.effect) >= one.floor / 2]
        worst = [entry for entry in large if entry[3] > 0]
        assert not worst, (seed, worst[:5])
    assert labelled <= most


def test_an_untrained_model_has_no_labels_and_no_effect_of_half_a_floor(tokenizer: Any) -> None:
    check_twins(tokenizer, Corpus.open("builtin").sample(6), range(2), most=0)


def followed(model: Model, *, shuffle: int | None = None) -> list[Finding]:
    """What the study of syntactic heads finds on the annotated part of the built-in corpus."""
    documents = [document for document in Corpus.open("builtin").documents if document.trees]
    a = model.anatomy
    reading = read(Corpus.of("english", documents), model.tokenizer, vocab=a.vocab, max_positions=a.max_positions, sequences=0)
    reading = reading if shuffle is None else shuffled(reading, np.random.default_rng(shuffle))
    study = Syntax()
    instruments = study.instruments(model)
    current = observe(model, reading, instruments, begin(model, reading, instruments))
    given = Given(model=model, reading=reading, states=current.states, before=[], depth="quick", seed=0)
    return study.findings(study.measure(given), units_of(reading), [])


@pytest.mark.parametrize("seed", [0, 1])
def test_an_untrained_model_follows_no_relation(tokenizer: Any, seed: int) -> None:
    found = followed(twin(tokenizer, seed))
    assert len({one.behaviour for one in found}) >= 12
    assert not [one for one in found if one.rung]
    assert max(one.effect / one.floor for one in found) < 0.5


@pytest.mark.slow
@pytest.mark.specimen
def test_arcs_of_the_specimen_that_point_elsewhere_as_far_back_are_followed_by_none(specimen: Model) -> None:
    found = followed(specimen, shuffle=0)
    assert len(found) > 12 * 270 and not [one for one in found if one.rung]


@pytest.mark.slow
def test_at_most_three_of_twenty_untrained_models_have_any_label(tokenizer: Any) -> None:
    check_twins(tokenizer, Corpus.open("builtin"), range(20), most=3)


# --- shuffled text -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.specimen
def test_the_specimens_own_untrained_twin_has_no_effect_of_half_a_floor(specimen: Model) -> None:
    config = copy.deepcopy(specimen.hf.config)
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf = type(specimen.hf)(config)
    found = decided(Model(hf, specimen.tokenizer, name="twin of the specimen"), Corpus.open("builtin").sample(8))
    assert not [one for one in found if one.rung]
    assert max(one.effect / one.floor for one in found) < 0.5


def test_shuffled_text_gives_no_content_label_in_a_random_model_of_sharp_patterns(tokenizer: Any) -> None:
    random = np.random.default_rng(0)
    corpus = Corpus.open("builtin").sample(6)
    documents = [replace(d, text=" ".join(random.permutation(d.text.split())), trees=()) for d in corpus.documents]
    model = twin(tokenizer, 1)
    with torch.no_grad():
        for layer in range(4):
            attention = model.block(layer).get_submodule("self_attn")
            for name in ("q_proj", "k_proj"):
                attention.get_submodule(name).weight *= 6
    found = decided(model, Corpus.of("shuffled", documents))
    masses = [one.value for one in found if one.behaviour == "duplicate_token" and one.material == "text"]
    assert max(masses) > 2 * min(masses)  # heads do differ: there is something to be mistaken for content
    assert [one.site for one in found if one.rung and KINDS[one.behaviour].null == "pattern swap"] == []


# --- an exact null -----------------------------------------------------------------------------------------------


class Pairs:
    """Every document's mask under every other document's pattern: the instrument's own contraction, partner by partner."""

    name = "pairs"
    kinds = ("pattern",)

    def __init__(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps, self.monkeypatch = range(1, size), monkeypatch

    def begin(self, anatomy: Any, reading: Reading) -> State:
        shape = (len(reading.units), len(CONTENT), len(self.steps))
        return {"mass": zeros(*shape, anatomy.layers, anatomy.heads), "rows": zeros(*shape)}

    def begin_batch(self, batch: Any) -> None:
        self.references = []
        for step in self.steps:
            self.monkeypatch.setattr(patterns, "PARTNERS", (step,))
            self.references.append(patterns._references(batch))

    def observe(self, state: State, batch: Any, site: Any, activation: torch.Tensor, queries: slice) -> None:
        for i, step in enumerate(self.steps):
            self.monkeypatch.setattr(patterns, "PARTNERS", (step,))
            mass = patterns._content_mass(activation, self.references[i], queries)  # batch (own, swapped per kind) head
            state["mass"][batch.units, :, i, site.layer] += mass[:, 1::2].double()

    def end_batch(self, state: State, batch: Any) -> None:
        for i, references in enumerate(self.references):
            state["rows"][batch.units, :, i] += references.rows.double()

    def findings(self, state: State, reading: Reading) -> list[Finding]:
        return []


def even_reading(model: Model, *, domains: int, per_domain: int, tokens: int) -> Reading:
    """The first tokens of built-in documents, all as long as each other: every document may be every other's partner."""
    documents = Corpus.open("builtin").documents
    names = list(dict.fromkeys(document.domain for document in documents))[:domains]
    units, windows = [], []
    for name in names:
        for document in [d for d in documents if d.domain == name][:per_domain]:
            encoded = model.tokenizer(document.text, return_offsets_mapping=True)
            ids, places = encoded["input_ids"][:tokens], encoded["offset_mapping"][:tokens]
            assert len(ids) == tokens
            words, kinds = word_of_each_token(document.text, places), kind_of_each_token(document.text, places)
            one = Window(unit=len(units), tokens=tuple(ids), words=tuple(words), kinds=tuple(kinds), alike=len(units))
            windows.append(one)
            units.append(Unit(id=document.id, stratum=name, material="text", half="discovery"))
    return Reading(units=tuple(units), windows=tuple(windows))


def null_p_values(state: State, kind: int, size: int, random: np.random.Generator) -> np.ndarray:
    """p of every head where S_d is a third partner's pattern under d's mask: the documents dealt anew around their table."""
    mass, rows = state["mass"][:, kind].numpy(), state["rows"][:, kind].numpy()
    effects, strata = [], []
    for first in range(0, len(mass), size):
        order = random.permutation(size)
        for place in range(size):
            me = order[place]
            steps = [(order[(place + k) % size] - me) % size - 1 for k in (1, 2, 3)]
            with np.errstate(invalid="ignore"):
                one, two, third = (mass[first + me, step] / rows[first + me, step] for step in steps)
            if np.isfinite(third).all():
                effects.append(third - (one + two) / 2)
                strata.append(str(first))
    found = estimate(np.stack(effects), strata)
    return upper_tail(found.mean, found.se, found.df)


def exact_null(model: Model, reading: Reading, monkeypatch: pytest.MonkeyPatch, size: int = 8) -> dict[str, np.ndarray]:
    instrument = Pairs(size, monkeypatch)
    state = observe(model, reading, [instrument], begin(model, reading, [instrument])).states["pairs"]
    random = np.random.default_rng(0)
    return {
        name: np.stack([null_p_values(state, kind, size, random) for _ in range(SHUFFLES)]) for kind, name in enumerate(CONTENT)
    }


def test_a_third_partners_pattern_is_no_effect_in_untrained_models(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in CONTENT}
    for seed in range(3):
        model = twin(tokenizer, seed)
        reading = even_reading(model, domains=6, per_domain=8, tokens=150)
        for kind, p in exact_null(model, reading, monkeypatch).items():
            found[kind].append(p)
    for kinds in (("duplicate", "induction"), ("join", "join_far", "punctuation")):
        p = np.concatenate([one for kind in kinds for one in found[kind]])  # pooled: 32 heads alone say little
        assert 0.03 <= (p < 0.05).mean() <= 0.06 and (p < 0.001).mean() <= 0.003, kinds


@pytest.mark.specimen
def test_a_third_partners_pattern_is_no_effect_in_the_specimen(specimen: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, p in exact_null(specimen, even_reading(specimen, domains=6, per_domain=8, tokens=96), monkeypatch).items():
        assert (p < 0.05).mean() <= 0.06, (name, (p < 0.05).mean())
        assert (p < 0.001).mean() <= 0.003, (name, (p < 0.001).mean())
