"""What neurons respond to: the one-pass sums against slow plain computations, hand-made neurons, and nulls."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from innerworks.claims import LEDGER, judge
from innerworks.findings import frame
from innerworks.model import Model, strongest
from innerworks.model.observe import State, merge
from innerworks.model.study import Given, Kept, units_of
from innerworks.neurons.inputs import Inputs, NeuronInputs, buckets, dead, decide, detectors, histogram, numbers, watch
from innerworks.neurons.inputs.contexts import tokens_at
from innerworks.neurons.inputs.decide import candidates
from innerworks.neurons.inputs.design import BUCKETS, TESTED, Design, type_bucket, type_part
from innerworks.neurons.inputs.detectors import BITS, FIRES, SUMS
from innerworks.neurons.inputs.fits import RIDGE
from innerworks.neurons.inputs.kept import contexts
from innerworks.neurons.inputs.kinds import KINDS, OVER_TYPES, SHARE, SHUFFLE
from innerworks.neurons.inputs.limits import TAIL, Limits, sample
from innerworks.neurons.inputs.shift import follows_position, shifted
from innerworks.neurons.inputs.shuffle import follows_the_token_before, shuffled
from innerworks.neurons.inputs.study import effects
from innerworks.neurons.inputs.watch import EVERY, TESTS
from innerworks.scan.engine import begin, observe
from innerworks.sites import Site
from innerworks.stats import adjust, estimate, family_q, simes
from innerworks.text import Corpus, Document, Reading, TextBatch, read

FAMILY = "llama"


@pytest.fixture(scope="module")
def reading(make_reading: Callable[..., Reading]) -> Reading:
    """48 documents of two strata, some of two windows; 24 generated sequences."""
    return make_reading(documents=48, sequences=24, longest=60)


@pytest.fixture(scope="module")
def tiny(tiny_model: Callable[[str], Any]) -> Model:
    return tiny_model(FAMILY)


@pytest.fixture(scope="module")
def watched(tiny: Model, reading: Reading) -> tuple[Inputs, State]:
    """The instrument after a pass, and its sums."""
    one = Inputs(tiny)
    return one, observe(tiny, reading, [one], begin(tiny, reading, [one])).states[one.name]


def activations(model: Model, reading: Reading) -> list[np.ndarray]:
    """Of every window, `[layer, seq, neuron]`."""
    found = []
    for window in reading.windows:
        run = model.run(torch.tensor([window.tokens]), record=model.sites("neurons"), logits="none")
        found.append(run.stack("neurons")[:, 0].double().numpy())
    return found


def first_windows(reading: Reading, material: str, half: str) -> list[int]:
    """The first window of each unit of a half."""
    first = {window.unit: i for i, window in reversed(list(enumerate(reading.windows)))}
    return [first[i] for i, unit in enumerate(reading.units) if (unit.material, unit.half) == (material, half)]


# --- sums ---------------------------------------------------------------------------------------------------------


def slow_features(design: Design, tokens: tuple[int, ...]) -> np.ndarray:
    return design.rows(torch.tensor([tokens]))[0].double().numpy()


def ridge(x: np.ndarray, a: np.ndarray, kept: np.ndarray, penalty: float) -> np.ndarray:
    """Plain ridge over some columns, the others zero."""
    found = np.zeros((x.shape[1], a.shape[1]))
    found[kept] = np.linalg.solve(x[:, kept].T @ x[:, kept] + penalty * np.eye(kept.sum()), x[:, kept].T @ a)
    return found


def slow_effects(model: Model, reading: Reading, state: State, fit: str, family: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean over documents of `(SSE without - SSE with) / mean SST`, by fitting twice; and n."""
    design = Design.of(model.tokenizer, reading, vocab=model.anatomy.vocab)
    low, high = (state[name].double().numpy()[:, None] for name in ("fixed_low", "fixed_high"))
    seen = [np.clip(a, low, high) for a in activations(model, reading)]
    material = "random" if fit == "generated" else "text"
    columns = watch.columns_of(design)[fit]
    told = np.array([design.columns[i][0] for i in columns])
    half = (design.part == TESTED).numpy()

    def rows(i: int, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return slow_features(design, reading.windows[i].tokens)[keep][:, columns], seen[i][:, keep]

    fitted, everything = [], []
    for i, window in enumerate(reading.windows):
        unit = reading.units[window.unit]
        if (unit.material, unit.half) == (material, "discovery"):
            keep = np.arange(len(window.tokens)) >= 1
            everything.append(rows(i, keep)[1])
            others = keep & ~half[list(window.tokens)] if fit == "types" else keep
            fitted.append(rows(i, others))
    x, a = np.concatenate([x for x, _ in fitted]), np.concatenate([a for _, a in fitted], axis=1)
    mean = np.concatenate(everything, axis=1).mean(axis=1)
    penalty = RIDGE * (x**2).sum(axis=0).mean()
    gains, total = [], []
    for i in first_windows(reading, material, "confirmation"):
        tokens = np.array(reading.windows[i].tokens)
        keep = np.arange(len(tokens)) % EVERY == 1
        keep = keep & half[tokens] if fit == "types" else keep
        if not keep.any():
            continue
        mine, b = rows(i, keep)
        errors = []
        for kept in (told != family, told == told):
            errors.append([((b[layer] - mine @ ridge(x, a[layer], kept, penalty)) ** 2).sum(axis=0) for layer in range(len(a))])
        gains.append(np.array(errors[0]) - np.array(errors[1]))
        total.append(((b - mean[:, None]) ** 2).sum(axis=1))
    return np.mean(gains, axis=0) / np.mean(total, axis=0), np.array(len(gains))


@pytest.mark.parametrize(("fit", "family"), [("full", "previous_token"), ("types", "frequency"), ("generated", "position")])
def test_effects_are_those_of_two_plain_fits(
    tiny: Model, reading: Reading, watched: tuple[Inputs, State], fit: str, family: str
) -> None:
    one, state = watched
    design = Design.of(tiny.tokenizer, reading, vocab=tiny.anatomy.vocab)
    arrays, about = effects(design, state, one.frozen(state))
    expected, n = slow_effects(tiny, reading, state, fit, family)
    test = TESTS.index((fit, family))
    np.testing.assert_allclose(arrays["mean"][test], expected, rtol=2e-2, atol=2e-4)
    assert about["n"][test] == n  # type: ignore[index]


def test_limits_are_quantiles_of_the_sample(tiny: Model, reading: Reading, watched: tuple[Inputs, State]) -> None:
    _, state = watched
    chosen = {tuple(row[mask].tolist()) for batch in sample(reading) for row, mask in zip(batch.tokens, batch.mask, strict=True)}
    texts = [i for i, window in enumerate(reading.windows) if window.tokens in chosen]
    seen = activations(tiny, reading)
    rows = np.sort(np.concatenate([seen[i][:, 1:] for i in texts], axis=1), axis=1)
    kept = max(1, round(TAIL * rows.shape[1]))
    np.testing.assert_allclose(state["fixed_high"], rows[:, -kept], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state["fixed_low"], rows[:, kept - 1], rtol=1e-4, atol=1e-6)


def test_strongest_contexts_are_those_of_each_document(tiny: Model, reading: Reading, watched: tuple[Inputs, State]) -> None:
    _, state = watched
    design = Design.of(tiny.tokenizer, reading, vocab=tiny.anatomy.vocab)
    found, seen = contexts(design, reading, state), activations(tiny, reading)
    by_unit = {
        unit: np.concatenate([seen[i][:, 1:] for i, window in enumerate(reading.windows) if window.unit == unit], axis=1)
        for unit, about in enumerate(reading.units)
        if about.material == "text"
    }
    largest = np.sort([a.max(axis=1) for a in by_unit.values()], axis=0)[::-1][:8]
    np.testing.assert_allclose(found["top_value"], largest.transpose(1, 2, 0), rtol=2e-3, atol=1e-6)
    smallest = np.sort([a.min(axis=1) for a in by_unit.values()], axis=0)[:8]
    np.testing.assert_allclose(found["bottom_value"], smallest.transpose(1, 2, 0), rtol=2e-3, atol=1e-6)
    for layer, neuron, k in ((0, 3, 0), (1, 17, 4), (2, 40, 7)):
        unit, window, position = (int(found[f"top_{name}"][layer, neuron, k]) for name in ("unit", "window", "position"))
        mine = [i for i, one in enumerate(reading.windows) if one.unit == unit]
        assert seen[mine[window]][layer, position, neuron] == pytest.approx(found["top_value"][layer, neuron, k], rel=2e-3)


def test_the_histogram_counts_every_sixteenth_token(tiny: Model, reading: Reading, watched: tuple[Inputs, State]) -> None:
    _, state = watched
    rows = [
        a[:, 8::16] for a, window in zip(activations(tiny, reading), reading.windows, strict=True) if _is_text(reading, window)
    ]
    chosen = np.concatenate(rows, axis=1)
    counts = state["histogram"].numpy()
    assert (counts.sum(axis=-1) == chosen.shape[1]).all()
    np.testing.assert_allclose(histogram.active(counts), (chosen > 0).mean(axis=1))
    low, high = state["fixed_low"].numpy(), state["fixed_high"].numpy()
    middle = histogram.quantile(counts, low, high, 0.5)
    assert np.median(np.abs(middle - np.median(chosen, axis=1)) / (high - low)) < 0.05


def _is_text(reading: Reading, window: Any) -> bool:
    return reading.units[window.unit].material == "text"


def test_shares_of_triggers_are_counted_document_by_document(
    tiny: Model, reading: Reading, watched: tuple[Inputs, State]
) -> None:
    one, state = watched
    chosen, seen = one.frozen(state).detectors, activations(tiny, reading)
    picked = np.argwhere(chosen.triggers[..., 0] >= 0)[:40]
    assert len(picked)
    for layer, neuron in picked:
        triggers = set(chosen.triggers[layer, neuron].tolist()) - {-1}
        on, fire = [], []
        for i in first_windows(reading, "text", "confirmation"):
            tokens = reading.windows[i].tokens[1:]
            fires = seen[i][layer, 1:, neuron] * chosen.sign[layer, neuron] > FIRES * chosen.peak[layer, neuron]
            hit = np.array([token in triggers for token in tokens])
            on += [(fires & hit).sum() / fires.sum()] if fires.any() else []
            fire += [(fires & hit).sum() / hit.sum()] if hit.any() else []
        assert state["share_units"][:2, layer, neuron].tolist() == [len(on), len(fire)]
        np.testing.assert_allclose(state["share"][:2, layer, neuron], [sum(on), sum(fire)], atol=1e-5)


def test_a_pass_taken_up_again_and_shards_added_up_give_the_same(
    tiny: Model, reading: Reading, watched: tuple[Inputs, State]
) -> None:
    _, whole = watched
    first = Inputs(tiny)
    states = []

    def save(current: Any, batch: TextBatch) -> None:
        states.append({name: value.clone() for name, value in current.states[first.name].items()})

    observe(tiny, reading, [first], begin(tiny, reading, [first]), after_batch=save)
    stop = len(states) * 3 // 4  # in confirmation
    again = Inputs(tiny)
    current = begin(tiny, reading, [again])
    current.states[again.name], current.batches = states[stop - 1], stop
    resumed = observe(tiny, reading, [again], current).states[again.name]
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    discovery = [i for i, unit in enumerate(reading.units) if unit.half == "discovery"]
    shards = [_some(reading, discovery[::2]), _some(reading, discovery[1::2])]
    parts = []
    for shard in shards:
        one = Inputs(tiny)
        one_pass = begin(tiny, reading, [one])  # limits and columns are of the whole reading
        parts.append(observe(tiny, shard, [one], one_pass).states[one.name])
    merged, direct = merge(*parts), Inputs(tiny)
    expected = observe(tiny, _some(reading, discovery), [direct], begin(tiny, reading, [direct])).states[direct.name]
    for name in expected:
        torch.testing.assert_close(merged[name], expected[name], rtol=1e-4, atol=1e-5)


def _some(reading: Reading, units: list[int]) -> Reading:
    return replace(reading, windows=tuple(window for window in reading.windows if window.unit in set(units)))


# --- hand-made neurons --------------------------------------------------------------------------------------------

WORDS = [f"{letter}{rest}" for letter in "abcdefghijkl" for rest in ("o", "uk", "im", "ern", "ost", "ilda", "ams", "ep")]
MADE = ("position", "previous", "letter", "one token", "rare token", "noise", "heavy tails", "late copies")


def spoken(tokenizer: Any, words: list[str], weights: np.ndarray) -> Reading:
    """Documents of words with these weights, in four domains."""
    rng = np.random.default_rng(0)
    documents = [
        Document(id=str(i), text=" ".join(rng.choice(words, 80, p=weights / weights.sum())), domain=f"domain {i % 4}")
        for i in range(96)
    ]
    return read(Corpus.of("made", documents), tokenizer, vocab=320, max_positions=192, sequences=40)


@pytest.fixture(scope="module")
def language(tokenizer_of: Callable[..., Any]) -> tuple[Any, Reading]:
    """Words that begin with twelve letters, of each letter the more frequent the shorter."""
    tokenizer = tokenizer_of(words=WORDS)
    return tokenizer, spoken(tokenizer, WORDS, np.array([1 / (1 + i % 8) for i in range(len(WORDS))]))


def by_hand(tokenizer: Any, batch: TextBatch) -> Tensor:
    """Activations of eight neurons: what `MADE` says, and noise."""
    rng = torch.Generator().manual_seed(int(batch.tokens.sum()))
    tokens, before = batch.tokens, batch.tokens.roll(1, dims=1)
    noise = torch.randn(*tokens.shape, len(MADE), generator=rng)
    position = torch.arange(tokens.shape[1])
    letter = torch.tensor([float(text[:1] == "c") for text in tokenizer.convert_ids_to_tokens(range(320))])
    common, rare = (tokenizer.convert_tokens_to_ids(word) for word in ("ao", "bep"))
    copies = torch.stack([(tokens[:, :i] == tokens[:, i : i + 1]).any(dim=1) for i in range(tokens.shape[1])], dim=1)
    found = 0.3 * noise
    found[..., 0] += (position < 12).float()
    found[..., 1] += 2.0 * (before == common)
    found[..., 2] += letter[tokens]
    found[..., 3] += 3.0 * (tokens == common)
    found[..., 4] += 8.0 * (tokens == rare)
    found[..., 6] = noise[..., 6] * torch.where(torch.rand(tokens.shape, generator=rng) < 0.001, 1000.0, 1.0)
    found[..., 7] += copies.float() if batch.material == "random" else (position > 30).float()
    return found


def through(
    language: tuple[Any, Reading], hf: Any, activations: Callable[[TextBatch], Tensor], neurons: int
) -> tuple[Inputs, State]:
    """Hand-made activations of one layer through the whole instrument."""
    tokenizer, reading = language
    model = Model(hf, tokenizer, certified=False)
    rows = torch.cat([activations(batch)[batch.mask] for batch in sample(reading)])
    edges = rows.quantile(torch.tensor([TAIL, 1 - TAIL]), dim=0)
    fixed = Limits(low=edges[:1], high=edges[1:], stream=torch.ones(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "limits", lambda model, batches: fixed)
        one = Inputs(model)
        state = one.begin(replace(model.anatomy, layers=1, neurons=neurons), reading)
    for half in ("discovery", "confirmation"):
        for batch in reading.batches(half):
            one.begin_batch(batch)
            one.observe(state, batch, Site(layer=0, kind="neurons"), activations(batch), slice(None))
            one.end_batch(state, batch)
    return one, state


@pytest.fixture(scope="module")
def known(language: tuple[Any, Reading], tiny_hf: Callable[..., Any]) -> tuple[State, Kept]:
    """The hand-made neurons through the whole instrument."""
    one, state = through(language, tiny_hf(FAMILY), lambda batch: by_hand(language[0], batch), len(MADE))
    arrays, about = effects(one.design, state, one.frozen(state))
    return state, Kept(arrays=arrays, about=about)


def effect(known: tuple[State, Kept], fit: str, family: str) -> dict[str, float]:
    return dict(zip(MADE, known[1].arrays["mean"][TESTS.index((fit, family)), 0].tolist(), strict=True))


@pytest.mark.parametrize(
    ("fit", "family", "found", "least"),
    [
        ("full", "position", {"position", "late copies"}, 0.15),
        ("generated", "position", {"position", "late copies"}, 0.1),
        ("full", "previous_token", {"previous"}, 0.3),
        ("types", "alphabet", {"letter"}, 0.2),
        ("full", "token", {"one token", "rare token"}, 0.1),
    ],
)
def test_hand_made_neurons_are_told_apart(
    known: tuple[State, Kept], fit: str, family: str, found: set[str], least: float
) -> None:
    values = effect(known, fit, family)
    assert {name for name in MADE if values[name] > SHARE} == found
    assert all(values[name] > least for name in found)
    assert all(abs(values[name]) < 0.02 for name in ("noise", "heavy tails"))  # without limits the tails give any number


def test_a_detector_fires_on_its_trigger_and_nothing_else(known: tuple[State, Kept]) -> None:
    state, _ = known
    shares = (state["share"] / state["share_units"].clamp(min=1))[:, 0]
    assert shares[:2, MADE.index("rare token")].tolist() == [1.0, 1.0]
    assert shares[:2, MADE.index("one token")].min() > 0.9
    units = state["share_units"][0, 0]
    assert units[MADE.index("rare token")] >= 12 and units[MADE.index("noise")] == 0  # no candidate


# --- token types as units -----------------------------------------------------------------------------------------

DRAWS, EACH = 100, 30  # of random neurons
FEW = [f"{letter}{one}{two}" for one, two in product("aeiou", "lnrs") for letter in "bdkm"]  # words, with as few letters


@pytest.fixture(scope="module")
def few(tokenizer_of: Callable[..., Any]) -> tuple[Any, Reading]:
    """A language of few words, the first ones frequent."""
    tokenizer = tokenizer_of(words=FEW)
    return tokenizer, spoken(tokenizer, FEW, 1 / (2.0 + np.arange(len(FEW))))


@pytest.fixture(scope="module")
def of_types(few: tuple[Any, Reading], tiny_hf: Callable[..., Any]) -> Kept:
    """Neurons that know nothing but which of few token types stands there, at random; the last ones letters, beside that."""
    rng = torch.Generator().manual_seed(3)
    of_token = torch.randn(320, DRAWS * EACH + EACH, generator=rng)
    letter = torch.tensor([ord(text[0]) for text in few[0].convert_ids_to_tokens(range(320))])
    of_token[:, DRAWS * EACH :] += 4.0 * torch.randn(256, EACH, generator=rng)[letter]
    one, state = through(few, tiny_hf(FAMILY), lambda batch: of_token[batch.tokens], of_token.shape[1])
    arrays, about = effects(one.design, state, one.frozen(state))
    of_buckets, n = buckets.moments(state)
    return Kept(arrays=arrays | of_buckets, about=about | {"types": n})


def p_of(kept: Kept, family: str, neurons: slice) -> tuple[np.ndarray, np.ndarray]:
    """What the tests of a kind say of the candidates among some neurons: over documents, over token types."""
    kind = next(kind for kind in KINDS if ("types", family) in kind.tests)
    tested = decide._tested(kind, {name: array[..., neurons] for name, array in kept.arrays.items()}, kept.about)
    assert tested is not None and [test[0] for test in tested.tests] == ["types", OVER_TYPES]
    documents, types = (numbers.p for numbers in tested.tests.values())
    return documents, types


@pytest.mark.parametrize("family", ["alphabet", "token_class"])
def test_accidents_of_few_token_types_are_no_property_of_letters_though_documents_agree(of_types: Kept, family: str) -> None:
    by_documents, by_both = 0, 0
    for draw in range(DRAWS):
        documents, types = p_of(of_types, family, slice(draw * EACH, (draw + 1) * EACH))
        by_documents += simes(documents) <= 0.05
        by_both += simes(np.maximum(documents, types)) <= 0.05
    assert by_both <= 5
    assert by_documents > 20 or family == "token_class"  # these words are all of one class


def test_letters_are_found_through_the_accidents_of_their_types(of_types: Kept) -> None:
    documents, types = p_of(of_types, "alphabet", slice(DRAWS * EACH, None))
    assert (adjust(np.maximum(documents, types)) <= 0.05).sum() >= EACH // 2


def test_buckets_add_up_to_what_documents_add_up_to(of_types: Kept, known: tuple[State, Kept]) -> None:
    for i, family in enumerate(buckets.FAMILIES):
        expected = of_types.arrays["mean"][TESTS.index(("types", family))]
        np.testing.assert_allclose(of_types.arrays["by_type_mean"][i], expected, rtol=1e-3, atol=1e-5)
    state, _ = known
    share, n = buckets.moments(state)
    gain, total = state["gain_by_type"].double().numpy(), state["total_by_type"].double().numpy()
    used = state["rows_by_type"].numpy() > 0
    assert n == used.sum() >= 12
    floor = 0.08
    apart = (gain[1] - floor * total)[used] / total[used].mean(axis=0)
    found = buckets.estimate(share, {"types": n}, "alphabet", floor)
    np.testing.assert_allclose(found.mean - floor, apart.mean(axis=0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.se, apart.std(axis=0, ddof=1) / np.sqrt(n), rtol=1e-3)


def test_one_very_frequent_type_decides_nothing() -> None:
    state = buckets.empty(1, 2)
    state["rows_by_type"] += 40
    state["total_by_type"] += 1.0
    state["gain_by_type"][1, :, 0, 0], state["gain_by_type"][1, :, 0, 1] = 0.5, 0.001
    state["total_by_type"][7, 0], state["gain_by_type"][1, 7, 0] = 900.0, 800.0
    arrays, n = buckets.moments(state)
    found = buckets.estimate(arrays, {"types": n}, "alphabet", 0.08)
    assert (found.mean > 0.8).all() and (found.p_above(0.08) > 0.1).all()
    assert {type_bucket(f"word {i}") for i in range(2000)} == set(range(BUCKETS))


# --- the token before, or what stands behind it -------------------------------------------------------------------

ARTICLES, OTHERS, FREQUENT = 2, 64, 4  # of WORDS; the other 30 are nouns, each as frequent as most of the others
BEHIND = ("a noun", "behind an article", "noise")


@pytest.fixture(scope="module")
def grammar(tokenizer_of: Callable[..., Any]) -> tuple[Any, Reading, list[str]]:
    """A language in which nouns stand behind one of two articles, and its words in another order."""
    rng = np.random.default_rng(1)
    words = rng.permutation(WORDS).tolist()
    articles, others, nouns = words[:ARTICLES], words[ARTICLES : ARTICLES + OTHERS], words[ARTICLES + OTHERS :]
    chance = np.array([1 / 12] * FREQUENT + [2 / 3 / (OTHERS - FREQUENT)] * (OTHERS - FREQUENT))

    def phrase() -> str:
        return f"{rng.choice(articles)} {rng.choice(nouns)}" if rng.random() < 0.25 else str(rng.choice(others, p=chance))

    def document() -> str:
        return " ".join(phrase() for _ in range(60))

    tokenizer = tokenizer_of(words=WORDS)
    corpus = Corpus.of("made", [Document(id=str(i), text=document(), domain=f"domain {i % 4}") for i in range(64)])
    return tokenizer, read(corpus, tokenizer, vocab=320, max_positions=192, sequences=24), words


def test_what_fires_at_nouns_is_not_told_by_the_article_before(
    grammar: tuple[Any, Reading, list[str]], tiny_hf: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, reading, words = grammar
    ids = torch.tensor(tokenizer.convert_tokens_to_ids(words))

    def fires(tokens: Tensor) -> Tensor:
        rng = torch.Generator().manual_seed(int(tokens.sum()))
        noun = torch.isin(tokens, ids[ARTICLES + OTHERS :])
        behind = torch.isin(tokens.roll(1, dims=1), ids[:ARTICLES])
        rules = torch.stack([noun, behind, torch.zeros_like(noun)], dim=-1)
        return rules + 0.3 * torch.randn(rules.shape, generator=rng)

    def run(tokens: Tensor, *, mask: Tensor, watch: Any, logits: str) -> None:
        for _, look in watch:
            look(fires(tokens), slice(None))

    hf = tiny_hf(FAMILY)
    one, state = through((tokenizer, reading), hf, lambda batch: fires(batch.tokens), len(BEHIND))
    model = Model(hf, tokenizer, certified=False)
    monkeypatch.setattr(model, "run", run)
    texts = shuffled(model, reading, documents=16, generator=np.random.default_rng(0))
    mixed = [sorted(row[mask].tolist()) for batch in texts for row, mask in zip(batch.tokens, batch.mask, strict=True)]
    units = [unit for batch in texts for unit in batch.units.tolist()]
    assert mixed == [sorted(next(one.tokens for one in reading.windows if one.unit == unit)) for unit in units]
    assert len(set(units)) == 16 and {reading.units[unit].half for unit in units} == {"confirmation"}
    arrays, about = effects(one.design, state, one.frozen(state))
    neurons = [(0, 0), (0, 1), (0, 2)]
    gain = follows_the_token_before(model, one.design, state, one.frozen(state), neurons, texts)
    arrays |= {"shuffle/neurons": np.array(neurons), "shuffle/gain": gain}
    tested = decide._tested(next(kind for kind in KINDS if SHUFFLE in kind.tests), arrays, about)
    assert tested is not None and sorted(tested.places[:, 1].tolist()) == [0, 1]  # by the text alone both would pass
    order = np.argsort(tested.places[:, 1])
    text, again = (tested.tests[test].p[order] for test in (("full", "previous_token"), SHUFFLE))
    assert text.max() < 1e-4 and again[0] == 1 and again[1] < 1e-4


# --- shares of firings --------------------------------------------------------------------------------------------


def of_shares(shares: np.ndarray, floor: float, least: float) -> numbers.Numbers:
    """Of shares `[document, candidate]`."""
    sums = (shares.sum(axis=0), (shares**2).sum(axis=0), (shares > 0).sum(axis=0), np.full(shares.shape[1], len(shares)))
    return numbers.of_shares(*(np.asarray(x, dtype=float) for x in sums), floor=floor, least=least)


def test_shares_without_any_spread_are_as_sure_as_there_are_documents() -> None:
    for n in (12, 40):
        found = of_shares(np.ones((n, 1)), 0.5, 0.95)
        assert found.p[0] == pytest.approx(0.5**n) and found.high[0] == found.effect[0] == 1
        assert found.low[0] == pytest.approx(0.025 ** (1 / n))  # Clopper and Pearson
    assert of_shares(np.ones((40, 1)), 0.95, 0.95).p[0] == pytest.approx(0.95**40) and 0.95**40 > 0.1
    assert of_shares(np.full((40, 1), 0.94), 0.5, 0.95).p[0] == 1  # sure, but not enough
    one_short = np.ones((40, 1))
    one_short[0] = 0.9
    assert 0.5**40 < of_shares(one_short, 0.5, 0.95).p[0] < 1e-9


def test_shares_that_are_hardly_ever_below_one_pass_no_more_often_than_they_may() -> None:
    drawn = np.random.default_rng(0).random((40, 4000)) < 0.95  # at the floor
    shares = drawn.astype(float)
    by_t = numbers.Numbers.of(estimate(shares, ["text"] * 40), 0.95).p
    found = of_shares(shares, 0.95, 0.0)
    assert (by_t < 1e-6).mean() > 0.1  # all of them one
    assert (found.p <= 0.05).mean() <= 0.05 and (found.low <= 0.95).mean() > 0.97 and (found.high >= 0.95).mean() > 0.97
    assert (found.mde > 0.999).all()  # 40 documents find nothing at p .005
    reached = of_shares(np.full((40, 1), 0.75), 0.5, 0.0).mde
    assert of_shares(np.tile(reached, (40, 1)), 0.5, 0.0).p[0] == pytest.approx(0.005, rel=1e-3)


# --- pairs of tokens ----------------------------------------------------------------------------------------------

PAIRED = ("pair", "its second", "its first, one later", "pair, and its second now and then", "noise")


def firing_on_pairs(tokenizer: Any, batch: TextBatch) -> Tensor:
    """Neurons that fire on a pair of common words, or only seem to."""
    rng = torch.Generator().manual_seed(int(batch.tokens.sum()))
    a, b = tokenizer.convert_tokens_to_ids(FEW[:2])
    first, second = batch.tokens.roll(1, dims=1) == a, batch.tokens == b
    seldom = second & (torch.rand(batch.tokens.shape, generator=rng) < 0.3)
    fires = torch.stack([first & second, second, first, first & second | seldom, torch.zeros_like(first)], dim=-1)
    return 8.0 * fires + 0.5 * torch.randn(fires.shape, generator=rng)


def test_pairs_are_told_from_single_tokens(few: tuple[Any, Reading], tiny_hf: Callable[..., Any]) -> None:
    one, state = through(few, tiny_hf(FAMILY), lambda batch: firing_on_pairs(few[0], batch), len(PAIRED))
    arrays = {name: state[name].numpy() for name in SUMS}
    chosen = one.frozen(state).detectors
    arrays |= {"triggers": chosen.triggers, "pairs": chosen.pairs}
    labels: dict[str, set[str]] = {}
    for kind in KINDS[-2:]:
        tested = decide._tested(kind, arrays, {"tests": TESTS})
        assert tested is not None
        p = np.max([numbers.p for numbers in tested.tests.values()], axis=0)
        labels[kind.behaviour] = {PAIRED[i] for (_, i), one_p in zip(tested.places, p, strict=True) if one_p < 0.001}
    assert labels == {"token_detector": {"its second"}, "pair_detector": {"pair"}}
    expected = [few[0].convert_tokens_to_ids(word) for word in FEW[:2]]
    assert [int(chosen.pairs[0, 0, 0]) >> BITS, int(chosen.pairs[0, 0, 0]) % 2**BITS] == expected


def test_a_token_that_always_has_the_same_neighbour_makes_no_pair() -> None:
    tokens = torch.tensor([5, 6, 7, 5, 6, 7])
    entries = np.array([[[6, -1, -1, -1, -1]], [[5 * 2**BITS + 6, -1, -1, -1, -1]]])
    chosen = detectors._candidates(entries[0], entries[1], np.ones(1, dtype=np.float32), np.ones(1))
    state = detectors.empty(1, 1)
    detectors._add_document(state, chosen, 0, (tokens[1:] == 6)[:, None], tokens)
    assert state["share"][:, 0, 0].tolist() == [1, 1, 1, 1, 0] and state["share_units"][:, 0, 0].tolist() == [1, 1, 1, 1, 0]


def test_candidates_are_above_every_floor_the_strongest_first() -> None:
    first, second = np.array([[0.2, 0.06, np.nan], [0.4, 0.01, 0.3]]), np.array([[0.3, 0.5, 0.5], [0.12, 0.9, 0.25]])
    assert candidates([first, second], [0.05, 0.1]).tolist() == [[0, 0], [1, 2], [0, 1], [1, 0]]
    assert candidates([first, second], [0.05, 0.1], most=2).tolist() == [[0, 0], [1, 2]]
    assert {type_part(f"word {i}") for i in range(99)} == {0, 1, 2} and type_part("owl") == type_part("owl")


# --- the shift ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def placed(tiny_hf: Callable[..., Any], tiny_tokenizer: Any, reading: Reading) -> tuple[Model, Inputs, State]:
    """A GPT-2 that hardly sees anything but the position: the first four are far from the others."""
    hf = tiny_hf("gpt2")
    with torch.no_grad():
        hf.transformer.wpe.weight[:] = hf.transformer.wpe.weight[20]
        hf.transformer.wpe.weight[:12] = hf.transformer.wpe.weight[20] * -1
        hf.transformer.wte.weight *= 0.1
    model = Model(hf, tiny_tokenizer, name="placed", certified=False)
    one = Inputs(model)
    return model, one, observe(model, reading, [one], begin(model, reading, [one])).states[one.name]


def test_what_tells_the_position_goes_with_it_when_the_text_is_shifted(
    placed: tuple[Model, Inputs, State], reading: Reading
) -> None:
    model, one, state = placed
    texts = shifted(model, reading, sequences=6)
    assert texts is not None and texts.tokens.shape == (6, 30 + 15)
    neurons = [(0, i) for i in range(12)]
    found = follows_position(model, state, one.frozen(state), neurons, texts)
    assert found.shape == (6, 12) and np.median(found) > 0.2


def test_a_context_without_room_is_not_shifted(
    tiny_hf: Callable[..., Any], tiny_tokenizer: Any, make_reading: Callable[..., Reading]
) -> None:
    reading = make_reading(documents=24, sequences=8)
    narrow = Model(tiny_hf(FAMILY), tiny_tokenizer, certified=False)
    narrow.anatomy = replace(narrow.anatomy, max_positions=34)
    assert shifted(narrow, reading, sequences=4) is None
    assert shifted(narrow, replace(reading, windows=reading.windows[:10]), sequences=4) is None


# --- the whole study ----------------------------------------------------------------------------------------------


def asked(model: Model, reading: Reading) -> tuple[Kept, list[Any]]:
    study = NeuronInputs()
    instruments = study.instruments(model)
    states = observe(model, reading, instruments, begin(model, reading, instruments)).states
    kept = study.measure(Given(model=model, reading=reading, states=states, before=[], depth="quick", seed=0))
    return kept, study.findings(kept, units_of(reading), [])


@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma2", "mixtral", "qwen3_moe", "gpt_neox"])
def test_every_sort_of_feed_forward_is_measured_or_said_not_to_be(
    tiny_model: Callable[[str], Any], reading: Reading, family: str
) -> None:
    kept, rows = asked(tiny_model(family), reading)
    if family == "mixtral":
        assert rows == [] and "mixtures" in kept.about["not measured"]
        return
    assert {row.behaviour for row in rows} >= {"position_neuron", "alphabet_neuron", "dead_neuron", "polysemantic_neuron"}
    assert {row.layer for row in rows if row.layer is not None} <= set(np.flatnonzero(kept.arrays["there"]).tolist())
    numbers = [getattr(row, name) for row in rows for name in ("value", "effect", "effect_low", "effect_high")]
    assert np.isfinite(numbers).all()
    assert any(row.measure == ("dead_share" if family == "opt" else "near_dead_share") for row in rows)


def test_dead_neurons_are_those_that_cannot_fire(
    tiny_hf: Callable[..., Any], tiny_tokenizer: Any, make_reading: Callable[..., Reading]
) -> None:
    hf, planted = tiny_hf("opt"), {"L0N3", "L0N5", "L2N0"}
    with torch.no_grad():
        for layer, neurons in ((0, [3, 5]), (2, [0])):
            hf.model.decoder.layers[layer].fc1.bias[neurons] = -1e4
    model, reading = Model(hf, tiny_tokenizer, name="dead", certified=False), make_reading(documents=140, sequences=4)
    _, rows = asked(model, reading)
    labels = {row.site for row in rows if row.behaviour == "dead_neuron" and row.rung}
    text = [a[:, 1:] for a, window in zip(activations(model, reading), reading.windows, strict=True) if _is_text(reading, window)]
    silent = np.argwhere((np.concatenate(text, axis=1) == 0).all(axis=1)).tolist()
    assert labels == {f"L{layer}N{neuron}" for layer, neuron in silent} >= planted  # a few never fire on these few words
    (share,) = [row for row in rows if row.measure == "dead_share" and row.site == "model"]
    assert share.note.startswith(f"{len(silent)} of 144") and share.value == len(silent) / 144


def test_forty_documents_show_that_a_neuron_is_dead_beside_all_other_kinds_or_that_none_is() -> None:
    arrays = {"peak": np.ones((3, 2, 1, 4)), "there": np.ones(1, dtype=bool)}
    about = {"documents": [40, 40]}
    for dead_ones in (0, 1):
        arrays["peak"][..., :dead_ones] = 0
        dying = dead.candidates(arrays, about)
        assert dying is not None and len(dying.places) == dead_ones
        q = family_q({kind.behaviour: np.ones(5) for kind in KINDS} | {"dead_neuron": dying.p})["dead_neuron"]
        assert (q <= 0.05).all()
        rows = dead.findings(arrays, about, dying, q)
        assert judge(LEDGER["F8"], frame(rows)).verdict == ("holds" if dead_ones else "does not hold")


# --- strongest ----------------------------------------------------------------------------------------------------


def test_entries_sort_like_values_and_keep_one_per_unit() -> None:
    rng = torch.Generator().manual_seed(0)
    value = torch.randn(50, generator=rng) * 10 ** torch.randint(-6, 6, (50,), generator=rng).float()
    value[:2] = torch.tensor([0.0, -0.0])
    unit = torch.randint(0, 20, (50,), generator=rng)
    window, position = torch.randint(0, 9, (50,), generator=rng), torch.randint(0, 256, (50,), generator=rng)
    entries = strongest.pack(value, unit, window, position)
    found = strongest.unpack(entries)
    np.testing.assert_allclose(found.value, value, rtol=2**-11)
    assert (found.unit == unit.numpy()).all() and (found.window == window.numpy()).all()
    assert (found.position == position.numpy()).all() and found.value[1] == 0
    held = strongest.join(strongest.join(torch.full((8,), strongest.EMPTY), entries[:30]), entries[30:])
    best: Mapping[int, float] = {int(u): float(value[unit == u].max()) for u in unit.unique()}
    np.testing.assert_allclose(strongest.unpack(held).value, sorted(best.values(), reverse=True)[:8], rtol=2**-11)
    nothing = strongest.unpack(torch.full((2,), strongest.EMPTY))
    assert nothing.unit.tolist() == [-1, -1] and nothing.value.tolist() == [0.0, 0.0]


def test_tokens_are_looked_up_in_the_right_window(reading: Reading) -> None:
    windows = [i for i, one in enumerate(reading.windows) if one.unit == 5]
    assert len(windows) == 2
    entries = strongest.pack(torch.ones(2), torch.tensor([5, 5]), torch.tensor([0, 1]), torch.tensor([3, 2]))
    expected = [reading.windows[windows[0]].tokens[3], reading.windows[windows[1]].tokens[2]]
    assert tokens_at(reading, strongest.unpack(entries)).tolist() == expected
