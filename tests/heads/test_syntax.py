"""Syntactic heads: what is counted, against slow sums and hand-made patterns whose truth is known; and what is decided."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import families
from innerworks.findings import Finding, frame
from innerworks.heads.syntax import Arcs, ArcsByUnit, Syntax, decide, findings, shuffled, watching
from innerworks.heads.syntax.watching import askable, counts, measured
from innerworks.model import attention
from innerworks.model.observe import merge, numpy
from innerworks.model.study import Kept, units_of
from innerworks.scan.engine import begin, observe
from innerworks.scan.studies import Results, ask, watch
from innerworks.scan.studies import decide as decide_all
from innerworks.sites import Site
from innerworks.text import Corpus, Document, Reading, TextBatch, read
from innerworks.text.syntax import ALL_OFFSETS, Arc, Offset

HALVES = ("discovery", "confirmation")
HEADS = ("subject", "offset", "anything", "object, barely", "sink")


# --- a treebank whose distances vary, so that no fixed offset does -------------------------------------------------------


def sentence(random: np.random.Generator) -> list[tuple[str, int, str]]:
    """(form, head, relation): a subject one to six words before its verb, an object one to four words after it."""
    before, after = int(random.integers(0, 6)), int(random.integers(0, 4))
    verb = before + 2
    relations = ["nsubj", *["obl"] * before, "root", *["obl"] * after, "obj"]
    return [(f"w{random.integers(40, 300)}", 0 if r == "root" else verb, r) for r in relations]


def conllu(documents: int, sentences: int, *, seed: int = 0) -> str:
    random, lines = np.random.default_rng(seed), []
    for i in range(documents):
        lines.append(f"# newdoc id = d{i}")
        for _ in range(sentences):
            for j, (form, head, relation) in enumerate(sentence(random), start=1):
                lines.append(f"{j}\t{form}\t_\tNOUN\t_\t_\t{head}\t{relation}\t_\t_")
            lines.append("")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def treebank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trees") / "made.conllu"
    path.write_text(conllu(48, 6))
    return path


@pytest.fixture(scope="module", params=["plain", "opening"])
def planted(request: Any, treebank: Path, tiny_tokenizer: Any, opening_tokenizer: Any) -> Reading:
    """The treebank as a model reads it, with and without a token in front."""
    tokenizer = tiny_tokenizer if request.param == "plain" else opening_tokenizer
    return read(Corpus.open(f"file:{treebank}"), tokenizer, vocab=320, max_positions=192, sequences=0)


def pattern_of(batch: TextBatch, random: np.random.Generator) -> torch.Tensor:
    """One layer of `HEADS`; the first follows nsubj<, the fourth obj, but with what sinks leave it."""
    texts, length = batch.tokens.shape
    causal = np.tri(length)
    noise = random.random((texts, length, length)) ** 8 * causal
    noise /= noise.sum(axis=-1, keepdims=True)
    pattern = np.zeros((texts, len(HEADS), length, length))
    pattern[:, 0] = 0.4 * noise
    pattern[:, 1] = np.eye(length, k=-1)
    pattern[:, 2] = noise
    pattern[:, 3] = 0.02 * noise
    pattern[:, 4, :, 0] = 1.0
    pattern[:, 0, :, 0] += 0.2
    pattern[:, 3, :, 0] += 0.6
    for text, arcs in enumerate(batch.arcs):
        for arc in arcs:
            start, end = arc.targets[-1]
            target = int(random.integers(start, end))
            for head, relation, mass in ((0, "nsubj<", 0.4), (3, "obj", 0.08)):
                if arc.relation == relation and random.random() < 0.9:
                    pattern[text, head, arc.query, target] += mass
    pattern[:, 3] += 0.3 * np.eye(length)
    return torch.from_numpy(pattern).float()


def by_hand(reading: Reading, anatomy: Any, *, truth: Reading | None = None) -> Kept:
    """What the study keeps of the hand-made layer: patterns follow the arcs of `truth`, counted are those of `reading`."""
    one, random = Arcs(), np.random.default_rng(5)
    state = one.begin(replace(anatomy, layers=1, heads=len(HEADS)), reading)
    for half in HALVES:
        for batch, true in zip(reading.batches(half), (truth or reading).batches(half), strict=True):
            one.begin_batch(batch)
            pattern = pattern_of(true, random)
            one.observe(state, batch, Site(layer=0, kind="pattern"), pattern, slice(0, pattern.shape[2]))
            one.end_batch(state, batch)
    return Kept(arrays=numpy(state), about={"relations": list(measured(reading))})


def test_a_head_that_follows_a_relation_at_any_distance_is_found_and_a_fixed_offset_is_not(
    planted: Reading, tiny_model: Any
) -> None:
    assert set(measured(planted)) >= {"nsubj<", "obj"}
    kept = by_hand(planted, tiny_model("gpt2").anatomy)
    found = Syntax().findings(kept, units_of(planted), [])
    labels = {(one.behaviour, one.site) for one in found if one.rung}
    assert labels == {("syntactic:nsubj<", "L0H0"), ("syntactic:obj", "L0H3")}  # the sink is taken out before the answer
    rows = {(one.behaviour, one.site): one for one in found}
    subject, offset, rests = (rows["syntactic:nsubj<", f"L0H{head}"] for head in (0, 1, 4))
    assert subject.value > 0.85 and subject.null < 0.3 and subject.q is not None and subject.q < 1e-6
    assert subject.effect == pytest.approx(subject.value - subject.null) and "best on discovery" in subject.note
    assert offset.effect < 0.06 and offset.q is None and rests.value == 0.0
    assert {one.null_kind for one in found} == {"best fixed offset"} and {one.unit for one in found} == {"accuracy"}
    assert all(one.n == 24 for one in found if one.behaviour == "syntactic:nsubj<")


def test_arcs_that_point_elsewhere_as_far_back_label_nothing(planted: Reading, tiny_model: Any) -> None:
    null = shuffled(planted, np.random.default_rng(0))
    back = {relation: [] for relation in ("nsubj<", "obj")}  # distances are the same, but for those that lead out of the text
    for reading in (planted, null):
        for relation, kept in back.items():
            kept.append(np.mean([a.words_back[0] for w in reading.windows for a in w.arcs if a.relation == relation]))
    assert all(one == pytest.approx(other, abs=0.1) for one, other in back.values())
    found = Syntax().findings(by_hand(null, tiny_model("gpt2").anatomy, truth=planted), units_of(planted), [])
    assert found and not [one for one in found if one.rung]
    followers = [one for one in found if (one.behaviour, one.site) in {("syntactic:nsubj<", "L0H0"), ("syntactic:obj", "L0H3")}]
    assert len(followers) == 2 and all(one.effect < decide.FLOOR for one in followers)


# --- counts, slowly ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_arcs(make_reading: Callable[..., Reading]) -> Reading:
    """Random arcs on random texts: words of several tokens, several right words, rows and columns that do not count."""
    random, reading = np.random.default_rng(3), make_reading()

    def arcs(length: int) -> tuple[Arc, ...]:
        found = []
        for query in range(1, length):
            for relation in ("one<", "two", "rare"):
                if random.random() < (0.02 if relation == "rare" else 0.8):
                    starts = sorted({int(start) for start in random.integers(0, query, 1 + int(random.integers(2)))})
                    words = tuple((start, min(query, start + 1 + int(random.integers(3)))) for start in starts)
                    found.append(Arc(relation=relation, query=query, targets=words, words_back=tuple(range(len(words), 0, -1))))
        return tuple(found)

    text = [reading.units[window.unit].material == "text" for window in reading.windows]
    windows = [replace(w, arcs=arcs(len(w.tokens))) if of else w for w, of in zip(reading.windows, text, strict=True)]
    return replace(reading, windows=tuple(windows))


@pytest.fixture
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small readings have as few as six documents in a half."""
    monkeypatch.setattr("innerworks.text.syntax.LEAST_ARCS", 50)
    monkeypatch.setattr("innerworks.text.syntax.LEAST_DOCUMENTS", 4)
    monkeypatch.setattr(watching, "CONSTANTS", replace(watching.CONSTANTS, least_units=4))


def slow_counts(reading: Reading, hf: Any, relations: tuple[str, ...]) -> dict[str, np.ndarray]:
    hf.set_attn_implementation("eager")
    shape = (len(reading.units), len(relations))
    sums = {"arcs": np.zeros(shape), "offsets": np.zeros((*shape, len(ALL_OFFSETS))), "found": np.zeros((*shape, 3, 4))}
    for window in reading.windows:
        with torch.no_grad():
            patterns = torch.stack([layer[0] for layer in hf(torch.tensor([window.tokens]), output_attentions=True).attentions])
        for arc in window.arcs:
            right = {key for start, end in arc.targets for key in range(start, end)} - {0}
            if arc.relation not in relations or arc.query < 2 or not right:
                continue
            cell = window.unit, relations.index(arc.relation)
            sums["arcs"][cell] += 1
            keys = list(range(1, arc.query))  # neither the first nor its own
            answer = patterns[:, :, arc.query, keys].argmax(dim=-1).numpy() + 1
            sums["found"][cell] += np.isin(answer, list(right))
            words = [b for (_, end), b in zip(arc.targets, arc.words_back, strict=True) if end > 1]
            for i, offset in enumerate(ALL_OFFSETS):
                hit = offset.back in words if offset.unit == "word" else arc.query - offset.back in right
                sums["offsets"][(*cell, i)] += hit
    return sums


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_count_is_the_slow_count_arc_by_arc(family: str, with_arcs: Reading, tiny_model: Any, tiny_hf: Any) -> None:
    model, one = tiny_model(family), Arcs()
    state = numpy(observe(model, with_arcs, [one], begin(model, with_arcs, [one])).states["syntax"])
    assert measured(with_arcs) == ("one<", "two") or measured(with_arcs) == ("two", "one<")
    for name, expected in slow_counts(with_arcs, tiny_hf(family), measured(with_arcs)).items():
        np.testing.assert_array_equal(state[name], expected, err_msg=name)
    assert state["arcs"].sum() > 200 and 0.05 < state["found"].mean(axis=(2, 3)).sum() / state["arcs"].sum() < 0.6
    assert state["arcs"].dtype == state["found"].dtype == np.float32


@pytest.mark.usefixtures("few_are_enough")
def test_queries_in_blocks_and_shards_of_a_pass_give_the_same_counts(
    with_arcs: Reading, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, one = tiny_model("llama"), Arcs()
    whole = observe(model, with_arcs, [one], begin(model, with_arcs, [one])).states["syntax"]
    parts = [begin(model, with_arcs, [one]) for _ in range(2)]
    parts[1].batches = 2
    observe(model, with_arcs, [one], parts[1])
    for batch in with_arcs.batches("discovery")[:2]:
        monkeypatch.setattr(attention, "BLOCK_ELEMENTS", 4 * 4 * 39 * 5)
        one.begin_batch(batch)
        pattern = model.run(batch.tokens, mask=batch.mask, record=model.sites("pattern"), logits="none")
        for layer in range(3):
            seen = pattern[Site(layer=layer, kind="pattern")]
            for start in range(0, seen.shape[2], 5):
                block = slice(start, min(start + 5, seen.shape[2]))
                one.observe(parts[0].states["syntax"], batch, Site(layer=layer, kind="pattern"), seen[:, :, block], block)
        one.end_batch(parts[0].states["syntax"], batch)
    merged = merge(parts[0].states["syntax"], parts[1].states["syntax"])
    for name, expected in whole.items():
        torch.testing.assert_close(merged[name], expected, rtol=0, atol=0)


def test_the_first_rows_and_the_first_column_are_not_asked() -> None:
    arcs = [
        Arc(relation="a", query=1, targets=((0, 1),), words_back=(1,)),
        Arc(relation="b", query=4, targets=((0, 1),), words_back=(2,)),
        Arc(relation="c", query=4, targets=((0, 1), (2, 3)), words_back=(3, 1)),
        Arc(relation="d", query=4, targets=((0, 2),), words_back=(1,)),
    ]
    assert askable(arcs) == [
        Arc(relation="c", query=4, targets=((2, 3),), words_back=(1,)),
        Arc(relation="d", query=4, targets=((1, 2),), words_back=(1,)),
    ]


def test_what_is_measured_needs_a_hundred_arcs_in_twenty_documents(planted: Reading) -> None:
    there = counts(planted, "confirmation")
    assert {relation for relation, count in there.items() if count.enough} == set(measured(planted))
    assert there["nsubj<"].documents == 24 and there["nsubj<"].arcs >= 24 * 5
    one_unit = next(i for i, unit in enumerate(planted.units) if unit.half == "confirmation")

    def without(window: Any) -> Any:
        arcs = [arc for arc in window.arcs if arc.relation != "nsubj<" or window.unit == one_unit]
        return replace(window, arcs=tuple(arcs))

    assert "nsubj<" not in measured(replace(planted, windows=tuple(map(without, planted.windows))))


# --- as a study, on every family -----------------------------------------------------------------------------------------


def asked(model: Any, reading: Reading) -> Results:
    study = [Syntax()]
    watching = watch(model, study)
    return ask(study, model, reading, observe(model, reading, watching, begin(model, reading, watching)), depth="quick", seed=0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Reading:
    path = tmp_path_factory.mktemp("trees") / "small.conllu"
    path.write_text(conllu(24, 5))
    return read(Corpus.open(f"file:{path}"), tiny_tokenizer, vocab=320, max_positions=60, sequences=2)


@pytest.mark.usefixtures("few_are_enough")
@pytest.mark.parametrize("family", families.ALL)
def test_every_family_is_asked_and_decided_again_from_what_is_kept(family: str, small: Reading, tiny_model: Any) -> None:
    model, reading = tiny_model(family), small
    results = asked(model, reading)
    kept, shape = results.kept["syntax"], (model.anatomy.layers, model.anatomy.heads)
    assert kept.arrays["found"].shape == (26, len(kept.about["relations"]), *shape)
    assert (kept.arrays["found"] <= kept.arrays["arcs"][..., None, None]).all() and kept.arrays["found"].any()
    assert len(results.findings) == len(kept.about["relations"]) * shape[0] * shape[1]
    assert all(0 <= one.value <= 1 and one.material == "text" and one.measure == "attention" for one in results.findings)
    again = decide_all([Syntax()], {"syntax": kept}, units_of(reading))
    assert frame(again).equals(frame(results.findings))
    assert not [one for one in results.findings if one.rung]


def test_text_without_trees_costs_nothing_and_says_so(tiny_model: Any, tiny_tokenizer: Any) -> None:
    documents = [Document(id=str(i), text=" ".join(f"w{30 + (i * j) % 200}" for j in range(30))) for i in range(24)]
    reading = read(Corpus.of("made", documents), tiny_tokenizer, vocab=320, max_positions=60, sequences=2)
    results = asked(tiny_model("gpt2"), reading)
    assert results.findings == [] and not results.kept["syntax"].arrays
    assert results.kept["syntax"].about["not measured"].startswith("no relation has 100 arcs in 20 documents")


def test_relations_that_are_too_rare_have_no_rows_but_their_numbers(treebank: Path, tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    documents = list(Corpus.open(f"file:{treebank}").documents)
    for i in range(0, 48, 4):  # twelve documents in which some subject is called a clause
        trees = [replace(t, relations=tuple(r.replace("nsubj", "csubj") for r in t.relations)) for t in documents[i].trees]
        documents[i] = replace(documents[i], trees=tuple(trees))
    reading = read(Corpus.of("made", documents), model.tokenizer, vocab=320, max_positions=192, sequences=0)
    kept = asked(model, reading).kept["syntax"]
    assert "csubj<" not in kept.about["relations"] and kept.about["too rare"]["csubj<"]["documents"] <= 12


# --- what is decided -----------------------------------------------------------------------------------------------------


def table(
    arcs: np.ndarray, found: np.ndarray, offset: np.ndarray, *, best: int = 0, halves: np.ndarray | None = None
) -> ArcsByUnit:
    """One relation, one layer; `found [unit, head]`, `offset [unit]`: hits of one of the offsets."""
    units = len(arcs)
    offsets = np.zeros((units, 1, len(ALL_OFFSETS)), dtype=np.float32)
    offsets[:, 0, best] = offset
    dealt = np.array([HALVES[i % 2] for i in range(units)]) if halves is None else halves
    return ArcsByUnit(
        relations=("obj",),
        found=found.astype(np.float32)[:, None, None, :],
        arcs=arcs.astype(np.float32)[:, None],
        offsets=offsets,
        strata=np.array(["text"] * units),
        halves=dealt,
    )


def simulated(effect: float, *, heads: int, units: int = 160, seed: int = 0) -> ArcsByUnit:
    """Heads whose true accuracy is so much above the offset's .3, on one to three arcs per document."""
    random = np.random.default_rng(seed)
    arcs = random.integers(1, 4, units)
    found = random.binomial(arcs[:, None], 0.3 + effect, (units, heads))
    return table(arcs, found, random.binomial(arcs, 0.3))


def p_values(one: ArcsByUnit) -> np.ndarray:
    return decide.effect(one, 0, "confirmation").estimate.p_above(decide.FLOOR)


def test_where_documents_have_few_arcs_the_test_is_as_strict_as_it_says_and_still_finds() -> None:
    at_floor = np.concatenate([p_values(simulated(0.10, heads=20, seed=seed)).ravel() for seed in range(150)])
    assert 0.02 < (at_floor < 0.05).mean() < 0.065 and (at_floor < 0.005).mean() < 0.01
    strong = simulated(0.45, heads=50)
    assert np.mean([one.rung for one in findings(strong)]) > 0.9
    literal = decide.effect(strong, 0, "confirmation").estimate  # ties counted as failures would leave nothing
    own, null = (strong.accuracy(counts, 0, "confirmation") for counts in (strong.found, strong.offsets))
    share = (own[:, 0] > null[:, :1]).mean(axis=0)
    assert (share < 2 / 3).mean() > 0.5 and (literal.positive[0] > share).all()


def test_the_offset_is_the_one_that_discovery_prefers() -> None:
    units = 48
    arcs, halves = np.full(units, 4), np.array([HALVES[i % 2] for i in range(units)])
    one = table(
        arcs, np.full((units, 1), 4), np.where(halves == "discovery", 1, 4), best=ALL_OFFSETS.index(Offset(unit="word", back=3))
    )
    one.offsets[:, 0, 0] = np.where(halves == "discovery", 0, 4)  # another is best on confirmation
    (row,) = findings(one)
    assert row.note.startswith("3 words back") and (row.value, row.null, row.effect) == (1.0, 1.0, 0.0)


def test_documents_without_an_arc_say_nothing() -> None:
    one = simulated(0.4, heads=1)
    one.arcs[:40] = one.found[:40] = one.offsets[:40] = 0
    (row,) = findings(one)
    assert row.n == 60 and row.rung == 1


def test_a_label_needs_both_halves() -> None:
    for half in HALVES:
        one = simulated(0.5, heads=1)
        mine = one.halves == half
        one.found[mine, 0, 0, 0] = one.offsets[mine, 0, 0]
        (row,) = findings(one)
        assert row.rung == 0 and (row.q is None) == (half == "discovery")
        assert isinstance(row, Finding)
