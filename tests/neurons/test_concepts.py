"""Concept neurons: rankings and probes against slow sums, planted neurons that are found and forced, nulls that find nothing."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from scipy.optimize import minimize

from families import build
from innerworks import Model
from innerworks.claims.claim import judge
from innerworks.claims.neurons import NEURONS
from innerworks.errors import BrokenModel
from innerworks.findings import frame
from innerworks.model.study import Given, Kept
from innerworks.neurons.concepts import Concepts, decide, force, study
from innerworks.neurons.concepts.precision import above_chance, average_precision, by_chance, p_above
from innerworks.neurons.concepts.probe import RIDGE, SIZES, auc, auc_gap, furthest, logistic, probes
from innerworks.neurons.concepts.respond import responses
from innerworks.scan.engine import begin, observe
from innerworks.text import Reading
from innerworks.text.reading import Unit, Window
from innerworks.text.tasks.concepts import CLASSES, FRAMES, HALVES, NEGATIONS, concepts, examples, first_place, known

CLAIM = next(claim for claim in NEURONS if claim.id == "F3")


# --- sentences ----------------------------------------------------------------------------------------------------


def test_every_concept_has_units_and_frames_of_its_own_on_either_half() -> None:
    some = examples(frames=3)
    assert set(concepts(some)) == {*CLASSES, "plural", "past", "negation"}
    for concept, group in concepts(some).items():
        units = {half: {one.unit for one in some if one.concept == concept and one.half == half} for half in HALVES}
        assert len(units["discovery"]) == len(units["confirmation"]) == 12 and not units["discovery"] & units["confirmation"]
        for frames in [FRAMES[group]] if group in FRAMES else [one.frames for one in NEGATIONS]:
            assert not set(frames["discovery"]) & set(frames["confirmation"])
    assert len({word for words in CLASSES.values() for word in words.split()}) == 24 * len(CLASSES)
    assert all(len(one.sentences) == 3 for one in some)


def test_negators_are_units_and_no_part_of_some_is_enough() -> None:
    """Of each half, what knows but *n't*, or but one negator, is not specific to negation."""
    for half in HALVES:
        some = [one for one in examples(frames=1) if one.group == "negation" and one.half == half]
        positive, units = np.array([one.concept == "negation" for one in some]), [one.unit for one in some]
        for part in ("n't", "never" if half == "discovery" else "without"):
            values = np.array([float(any(word.endswith(part) for word in one.sentences[0][1].split())) for one in some])
            assert values.any() and not values[~positive].any()
            assert p_above(above_chance(values, positive, units), values, positive, decide.FLOOR) > 0.5
        known_all = positive + 0.001 * np.arange(len(some))
        found = above_chance(known_all, positive, units)
        assert found.n == 12 and p_above(found, known_all, positive, decide.FLOOR) < 0.01


def test_words_that_a_tokenizer_does_not_know_are_left_out(tokenizer_of: Callable[..., Any]) -> None:
    some = examples(frames=1)
    words = {word for one in some for _, whole in one.sentences for word in whole.split()}
    assert known(tokenizer_of(words=sorted(words)), some) == some
    left = known(tokenizer_of(words=sorted(words - {"red", "dogs", "walked"})), some)
    assert set(concepts(left)) == {*CLASSES, "negation"} - {"colour"}  # eleven on a half are too few
    assert "dog" not in {one.unit for one in left if one.group == "plural"} and known(tokenizer_of(words=["red"]), some) == []


@pytest.mark.parametrize("opening", [None, "<end>"])
def test_the_first_place_that_can_tell(tokenizer_of: Callable[..., Any], opening: str | None) -> None:
    tokenizer = tokenizer_of(opening=opening, words="the cat sat on red blue mats".split())
    start = 0 if opening is None else 1
    tokens, first = first_place(tokenizer, "the cat sat on ", "the cat sat on red mats")
    assert (first, tokenizer.decode(tokens[first:])) == (start + 4, "red mats")
    assert first_place(tokenizer, "", "red mats")[1] == 1  # never the first position


def test_responses_are_the_most_from_there_on(tokenizer_of: Callable[..., Any]) -> None:
    model = worded(tokenizer_of)
    some = [one for one in examples(frames=2) if one.group == "plural"][:5]
    found = responses(model, some)
    for number, example in enumerate(some):
        up, down = [], []
        for before, whole in example.sentences:
            tokens, first = first_place(model.tokenizer, before, whole)
            neurons = model.run(torch.tensor([tokens]), record="L1.neurons", logits="none")["L1.neurons"][0, first:]
            up.append(neurons.amax(dim=0))
            down.append((-neurons).amax(dim=0))
        for sign, slow in enumerate((up, down)):
            assert torch.allclose(found[number, sign, 1].float(), torch.stack(slow).mean(dim=0), atol=5e-3)


# --- average precision --------------------------------------------------------------------------------------------


def test_of_perfect_responses_the_one_furthest_apart_comes_first() -> None:
    """Whatever its number: three are perfect, the second by far, the last one in the other direction."""
    precise, apart = np.zeros((2, 1, 4)), np.zeros((2, 1, 4))
    precise[0, 0, [0, 2]], precise[1, 0, 3], apart[0, 0, 0], apart[0, 0, 2], apart[1, 0, 3] = 0.9, 0.9, 1.0, 5.0, 3.0
    precise[1, 0, 1], precise[1, 0, 2] = 0.5, 0.8
    told = study._Told(precise=precise, apart=apart)
    assert told.best_first()[:3].tolist() == [2, 7, 0]
    assert told.neurons(4) == [(0, 0, 2), (1, 0, 3), (0, 0, 0), (1, 0, 1)]


def test_average_precision_against_the_definition() -> None:
    """Also where responses are equal: then none of them comes before another."""
    random = np.random.default_rng(0)
    values, positive = random.standard_normal((30, 4)), random.random((2, 30)) < 0.3
    values[:, 2], values[:, 3] = np.round(values[:, 2]), 0.0
    found = average_precision(values, positive)
    for concept in range(2):
        for neuron in range(4):
            own = values[:, neuron]
            precise = [positive[concept, own >= own[at]].mean() for at in np.flatnonzero(positive[concept])]
            assert found[concept, neuron] == pytest.approx(np.mean(precise))


def test_the_jackknife_leaves_out_one_unit_after_the_other() -> None:
    random = np.random.default_rng(8)
    values, units = np.round(random.standard_normal(24), 1), [f"u{i // 2}" for i in range(24)]
    positive = random.random(24) < 0.5
    found = above_chance(values, positive, units)

    def excess(kept: np.ndarray) -> float:
        chance = by_chance(int(positive[kept].sum()), int(kept.sum()))
        return float(average_precision(values[kept][:, None], positive[None, kept])[0, 0]) - chance

    without = np.array([excess(np.array(units) != unit) for unit in dict.fromkeys(units)])
    assert float(found.mean) == pytest.approx(excess(np.ones(24, bool)))
    assert float(found.se) == pytest.approx(np.sqrt(11 / 12 * ((without - without.mean()) ** 2).sum()))


def test_chance_is_the_mean_over_orders() -> None:
    random, positive = np.random.default_rng(1), np.arange(40) < 6
    found = average_precision(random.standard_normal((40, 20000)), positive[None])
    assert by_chance(6, 40) == pytest.approx(found.mean(), abs=0.003)


@pytest.mark.parametrize("pairs", [False, True])
def test_without_a_concept_p_is_not_too_small(pairs: bool) -> None:
    """At a floor of nothing: words of classes, and nouns in two forms."""
    random, count = np.random.default_rng(2), 60
    units = [f"u{i // 2 if pairs else i}" for i in range(count)]
    positive = np.arange(count) % 2 == 0 if pairs else np.arange(count) < 12
    p = []
    for _ in range(300):
        values = random.standard_normal(count)
        p.append(p_above(above_chance(values, positive, units), values, positive, 0.0))
    assert (np.array(p) < 0.05).mean() <= 0.07 and (np.array(p) < 0.005).mean() <= 0.015


def test_a_response_to_half_of_the_words_is_above_the_floor_and_to_few_is_not() -> None:
    random, positive = np.random.default_rng(3), np.arange(160) < 12
    units = [str(i) for i in range(160)]
    noise = random.standard_normal(160)
    for own, passes in ((4.0, True), (0.5, False)):
        values = noise + own * positive
        found = above_chance(values, positive, units)
        assert (p_above(found, values, positive, decide.FLOOR) < 0.01) == passes
        assert found.n == 12 and found.low <= found.mean <= found.high
    assert (
        p_above(above_chance(noise[:40], positive[:40] & (np.arange(40) < 9), units[:40]), noise[:40], positive[:40], 0.0) == 1.0
    )


# --- probes -------------------------------------------------------------------------------------------------------


def test_the_logistic_regression_is_the_best_of_its_loss() -> None:
    random = np.random.default_rng(4)
    values = random.standard_normal((50, 3))
    positive = values[:, 0] + random.standard_normal(50) > 0.8

    def loss(weights: np.ndarray) -> float:
        margin = np.where(positive, 1, -1) * (values @ weights[1:] + weights[0])
        share = np.where(positive, 0.5 / positive.mean(), 0.5 / (1 - positive.mean()))
        return float((share * np.log1p(np.exp(-margin))).sum() + RIDGE / 2 * (weights[1:] ** 2).sum())

    slow: Any = minimize(loss, np.zeros(4), tol=1e-10)
    assert logistic(values, positive) == pytest.approx(slow.x, abs=1e-3)


def test_areas_and_their_gap() -> None:
    random, positive = np.random.default_rng(5), np.arange(90) < 15
    weak, strong = random.standard_normal(90) + 0.5 * positive, random.standard_normal(90) + 2 * positive
    pairs = [(a > b) for a in weak[positive] for b in weak[~positive]]
    assert float(auc(weak, positive).mean) == pytest.approx(np.mean(pairs) - 0.5)
    gap = auc_gap(strong, weak, positive)
    assert float(gap.mean) == pytest.approx(float(auc(strong, positive).mean) - float(auc(weak, positive).mean))
    drawn = []  # the standard error is the spread over samples
    for _ in range(300):
        one = random.standard_normal(90) + 0.5 * positive
        drawn.append(float(auc(one, positive).mean))
    assert float(auc(weak, positive).se) == pytest.approx(np.std(drawn), rel=0.35)


def test_a_concept_spread_over_neurons_needs_several_and_one_with_a_neuron_does_not() -> None:
    random, positive = np.random.default_rng(6), np.arange(120) % 5 == 0

    def drawn(strength: np.ndarray) -> np.ndarray:
        return random.standard_normal((120, 40)) + positive[:, None] * strength

    own, spread = np.zeros(40), np.full(40, 0.9)
    own[3] = 4.0
    for strength, gap in ((own, False), (spread, True)):
        train, other = drawn(strength), drawn(strength)
        said = probes(train, positive, other)
        assert said.shape == (len(SIZES), 120)
        found = auc_gap(said[-1], said[0], positive)
        assert (float(found.p_above(decide.GAP_FLOOR)) < 0.05) == gap
        if not gap:
            assert furthest(train, positive)[0] == 3 and float(auc(said[0], positive).mean) > 0.45


# --- a whole study ------------------------------------------------------------------------------------------------


def worded(tokenizer_of: Callable[..., Any], **changes: Any) -> Model:
    """A tiny model whose tokenizer knows all words of all sentences and prompts."""
    sentences = [whole for one in examples(frames=3) for _, whole in one.sentences]
    words = sorted({word for text in (*sentences, *force.PROMPTS) for word in text.split()} | {"cat"})
    hf = build("llama", vocab_size=len(words) + 300, tie_word_embeddings=False, **changes)
    return Model(hf, tokenizer_of(words=words))


@pytest.fixture(scope="module")
def planted(tokenizer_of: Callable[..., Any]) -> Model:
    """Neuron 5 of the first layer is low where a food is read, and has foods said when it is."""
    model = worded(tokenizer_of)
    hf: Any = model.hf
    foods = [model.tokenizer.convert_tokens_to_ids(word) for word in CLASSES["food"].split()]
    with torch.no_grad():
        hf.model.embed_tokens.weight[:, :2] = 0.0
        hf.model.embed_tokens.weight[foods, 0] = 3.0
        hf.model.layers[0].self_attn.o_proj.weight.mul_(0.1)
        mlp = hf.model.layers[0].mlp
        for weight, value in ((mlp.gate_proj.weight, 1.0), (mlp.up_proj.weight, -1.0)):
            weight[5] = 0.0
            weight[5, 0] = value
        mlp.down_proj.weight[:, 5] = 0.0
        mlp.down_proj.weight[1, 5] = -3.0
        hf.lm_head.weight[:, 1] = 0.0
        hf.lm_head.weight[foods, 1] = 1.2
    return model


def measured(model: Model, depth: str, **changes: Any) -> Kept:
    units = tuple(Unit(id=f"d/{i}", stratum="text", material="text", half=HALVES[i % 2]) for i in range(4))
    nothing = (None,) * 9
    windows = tuple(Window(unit=i, tokens=tuple(range(2 + i, 11 + i)), words=nothing, kinds=nothing, alike=i) for i in range(4))
    reading, asked = Reading(units=units, windows=windows), Concepts()
    watching = asked.instruments(model)
    states = observe(model, reading, watching, begin(model, reading, watching)).states
    return asked.measure(Given(model=model, reading=reading, states=states, before=[], depth=depth, seed=0, **changes))


def test_the_planted_neuron_is_found_in_its_direction_and_forced(planted: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "FORCED", 3)
    monkeypatch.setitem(study.EFFORTS, "full", study.Effort(frames=1, forced=1, tokens=3))
    kept = measured(planted, "full")
    rows = Concepts().findings(kept, [], [])
    labels = {row.site: row for row in rows if row.rung and row.behaviour == "concept:food"}
    assert labels["L0N5"].note.startswith("down") and labels["L0N5"].value > 0.95
    assert "L0N5" not in {row.site for row in rows if row.rung and row.behaviour != "concept:food"}
    by_measure = {row.measure: row for row in rows if row.behaviour == "concept:food"}
    assert by_measure["probe"].q is not None and by_measure["probe"].q < 0.01
    assert by_measure["probe_gap"].q is not None and by_measure["probe_gap"].q > 0.5
    (forced,) = [row for row in rows if row.measure == "forcing"]
    assert (
        forced.behaviour == "concept:food" and "L0N5" in str(forced.target).split(", ") and forced.null_kind == "control groups"
    )
    assert forced.q is not None and forced.q < 0.01 and forced.value > 0.8 > 0.4 > forced.null
    assert "control groups remove" in forced.note
    assert judge(CLAIM, frame(rows)).verdict == "holds"
    in_an_atlas = Kept(arrays=load(save(dict(kept.arrays))), about=json.loads(json.dumps(kept.about)))
    assert Concepts().findings(in_an_atlas, [], []) == rows


def test_without_control_groups_forcing_shows_nothing(planted: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "FORCED", 3)
    monkeypatch.setitem(study.EFFORTS, "full", study.Effort(frames=1, forced=1, tokens=3))
    monkeypatch.setattr(study, "matched_groups", lambda *some: [])
    (forced,) = [row for row in Concepts().findings(measured(planted, "full"), [], []) if row.measure == "forcing"]
    assert (forced.p, forced.null_kind) == (1.0, "no forcing") and "no control groups" in forced.note
    assert forced.value > 0.8 and forced.effect == pytest.approx(forced.value - forced.null)


def test_what_was_forced_before_an_interruption_is_not_forced_again(planted: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "FORCED", 3)
    monkeypatch.setitem(study.EFFORTS, "full", study.Effort(frames=1, forced=2, tokens=3))
    saves: list[Kept] = []
    whole = measured(planted, "full", save=saves.append)
    later: list[Kept] = []
    again = measured(planted, "full", saved=saves[1], save=later.append)
    assert all(np.array_equal(again.arrays[name], whole.arrays[name]) for name in whole.arrays) and again.about == whole.about
    assert len(saves) - len(later) == 1  # the first way that was kept


def test_with_concepts_shuffled_nothing_is_found(planted: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words dealt to the classes at random: neither the planted neuron nor any other is specific to one."""
    words = np.random.default_rng(7).permutation([word for some in CLASSES.values() for word in some.split()])
    shuffled = {concept: " ".join(some) for concept, some in zip(CLASSES, words.reshape(len(CLASSES), -1), strict=True)}
    monkeypatch.setattr("innerworks.text.tasks.concepts.CLASSES", shuffled)
    rows = Concepts().findings(measured(planted, "quick"), [], [])
    assert [row.behaviour for row in rows if row.rung and row.behaviour.partition(":")[2] in CLASSES] == []


def test_a_random_model_has_no_class_of_words(tokenizer_of: Callable[..., Any]) -> None:
    rows = Concepts().findings(measured(worded(tokenizer_of), "quick"), [], [])
    assert [row.behaviour for row in rows if row.rung and row.behaviour.partition(":")[2] in CLASSES] == []
    assert sum(row.measure == "ceiling" for row in rows) == len(CLASSES) + 3


@pytest.mark.parametrize(
    ("family", "words", "says"),
    [("mixtral", True, "mixture of experts"), ("llama", True, "reads 5"), ("llama", False, "does not know")],
)
def test_what_cannot_be_asked_is_said(tokenizer_of: Callable[..., Any], family: str, words: bool, says: str) -> None:
    tokenizer = worded(tokenizer_of).tokenizer if words else tokenizer_of(words=["red"])
    model = Model(build(family, max_position_embeddings=5), tokenizer, certified=False)
    given = Given(model=model, reading=Reading(units=(), windows=()), states={}, before=[], depth="quick", seed=0)
    kept = Concepts().measure(given)
    assert says in kept.about["not measured"] and Concepts().findings(kept, [], []) == []


def test_a_quantised_model_is_asked_for_concepts_and_nothing_is_forced(
    tokenizer_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(study.EFFORTS, "standard", study.Effort(frames=1, forced=1, tokens=3))
    model = worded(tokenizer_of)
    model.hf.config.quantization_config = {"quant_method": "bitsandbytes"}
    kept = measured(model, "standard")
    rows = Concepts().findings(kept, [], [])
    assert "quantised (bitsandbytes)" in kept.about["nothing forced"]
    assert {"ceiling", "probe"} <= {row.measure for row in rows} and not any(row.measure == "forcing" for row in rows)


def test_responses_beyond_half_precision_are_not_ranked(tokenizer_of: Callable[..., Any]) -> None:
    model = worded(tokenizer_of)
    hf: Any = model.hf
    with torch.no_grad():
        hf.model.layers[1].mlp.up_proj.weight.mul_(1e7)
    with pytest.raises(BrokenModel, match=r"layers \[1\]"):
        responses(model, [one for one in examples(frames=1) if one.group == "plural"][:4])


def test_a_concept_is_mentioned_by_its_words_alone() -> None:
    said = ["Two dogs ran.", "A dogma.", "Dog!", "the Frogs", "frolic"]
    assert force.mentions(said, "animal").tolist() == [True, False, True, True, False]
    assert force.mentions(["in march", "in March"], "calendar").tolist() == [False, True]
    assert not any(force.mentions(force.PROMPTS, concept).any() for concept in CLASSES)
