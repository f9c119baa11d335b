"""The study of ablations on a phantom: what is planted is necessary, decided from what was kept alone, and resumable."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from innerworks.findings import Finding
from innerworks.heads import ablations_study, decide
from innerworks.heads.ablations_study import EFFORTS, AblationStudy, watchers_of
from innerworks.heads.harms import judged
from innerworks.heads.kinds import KINDS
from innerworks.heads.labels import labels_of, suspects_of
from innerworks.heads.patterns import heads_by_unit
from innerworks.heads.seen import Seen
from innerworks.model import Model
from innerworks.model.study import Given, Kept, Study, units_of
from innerworks.phantoms import build
from innerworks.scan.engine import begin, observe
from innerworks.text import Corpus, Document, read

DOCUMENTS, SEQUENCES = 40, 32


@pytest.fixture(scope="module")
def phantom() -> Any:
    return build("llama", seed=0)


@pytest.fixture(scope="module")
def given(phantom: Any) -> Given:
    """What was read of a phantom, and seen of its heads."""
    torch.set_num_threads(1)  # before the fixture of each test does so
    model = Model(phantom.hf, phantom.tokenizer, name="phantom")
    documents = [Document(id=f"d{i}", text=text) for i, text in enumerate(phantom.documents(DOCUMENTS, words=80))]
    limits = dict(vocab=model.anatomy.vocab, max_positions=model.anatomy.max_positions)
    reading = read(Corpus.of("own", documents), model.tokenizer, sequences=SEQUENCES, **limits)
    instruments = [*Seen().instruments(model), *AblationStudy().instruments(model)]
    states = observe(model, reading, instruments, begin(model, reading, instruments)).states
    empty = Given(model=model, reading=reading, states=states, before=[], depth="quick", seed=0)
    return replace(empty, before=Seen().findings(Seen().measure(empty), units_of(reading), []))


@pytest.fixture(scope="module", autouse=True)
def smaller() -> Iterator[None]:
    """Fewer and shorter units at standard, which asks for the most: seconds instead of half a minute."""
    whole = dict(EFFORTS)
    units = {"random": 12, "text": 12, "agreement": 14, "lists": 24}
    EFFORTS["standard"] = replace(whole["standard"], units=units, text_tokens=48)
    yield
    EFFORTS.update(whole)


@pytest.fixture(scope="module")
def kept(given: Given) -> dict[str, Kept]:
    return {depth: AblationStudy().measure(replace(given, depth=depth)) for depth in ("quick", "standard")}


def found(given: Given, kept: Kept) -> list[Finding]:
    return AblationStudy().findings(kept, units_of(given.reading), given.before)


def rungs(findings: list[Finding], behaviour: str) -> dict[str, int]:
    return {one.site: one.rung for one in findings if one.behaviour == behaviour and one.measure == "attention" and one.rung}


def test_it_is_a_study_and_needs_the_means_alone(given: Given) -> None:
    assert isinstance(AblationStudy(), Study)
    assert [one.name for one in AblationStudy().instruments(given.model)] == ["head_means"]


@pytest.mark.parametrize("depth", ["quick", "standard"])
def test_the_planted_heads_that_others_depend_on_are_necessary_and_the_one_that_nothing_uses_is_not(
    depth: str, phantom: Any, given: Given, kept: dict[str, Kept]
) -> None:
    findings = found(given, kept[depth])
    pair, lone = phantom.truth["previous_token"]
    previous, (induction,) = rungs(findings, "previous_token"), phantom.truth["induction"]
    assert previous[pair] >= 2 and previous[lone] == 1
    assert rungs(findings, "induction")[induction] >= 2
    assert rungs(findings, "duplicate_token")[phantom.truth["duplicate_token"][0]] >= 2
    assert {one.rung for one in findings if one.behaviour in ("first_token", "punctuation")} <= {0, 1}


def test_what_was_found_before_is_found_still_and_new_rows_only_follow(given: Given, kept: dict[str, Kept]) -> None:
    findings = found(given, kept["standard"])
    bare = [replace(one, rung=min(one.rung, 1), note="") for one in findings[: len(given.before)]]
    assert bare == [replace(one, note="") for one in given.before]
    new = {one.measure for one in findings[len(given.before) :]}
    assert {"harm", "collateral"} <= new <= {"harm", "collateral", "joint_harm", "marginal_harm", "sufficiency"}


def test_what_is_kept_can_be_written_as_arrays_and_json_and_decided_again(given: Given, kept: dict[str, Kept]) -> None:
    for one in kept.values():
        copied = Kept(arrays={name: x.copy() for name, x in one.arrays.items()}, about=json.loads(json.dumps(one.about)))
        assert found(given, copied) == found(given, one)
        assert all(isinstance(x, np.ndarray) for x in one.arrays.values())


def test_an_interrupted_study_goes_on_where_it_was(given: Given, kept: dict[str, Kept]) -> None:
    states: list[Kept] = []
    again = AblationStudy().measure(replace(given, save=states.append))
    assert len(states) > 10
    runs: list[int] = []
    half = replace(given, saved=states[len(states) // 2], step=lambda done, total, unit: runs.append(done))
    resumed = AblationStudy().measure(half)
    missing = len(states) - len(states) // 2
    assert len(runs) <= missing + 1 and runs[0] > 1  # only what was missing, and the clean run
    for one in (again, resumed):
        assert set(one.arrays) == set(kept["quick"].arrays) and one.about == kept["quick"].about
        for name, values in kept["quick"].arrays.items():
            np.testing.assert_array_equal(one.arrays[name], values, err_msg=name)


def test_suspects_are_what_discovery_picked(given: Given) -> None:
    table = heads_by_unit(given.states["heads"], given.reading)
    picked = [decide.candidates(table, kind) for kind in KINDS.values() if judged(kind.behaviour)]
    assert suspects_of(given.before) == {(int(layer), int(head)) for layer, head in np.argwhere(np.any(picked, axis=0))}
    assert watchers_of(given.before) == [one.head for one in labels_of(given.before) if one.behaviour == "induction"]


def test_without_labels_nothing_is_run(given: Given) -> None:
    none = replace(given, before=[replace(one, rung=0) for one in given.before], step=_fail)
    kept = AblationStudy().measure(none)
    assert not unpacked(kept) and AblationStudy().findings(kept, units_of(given.reading), none.before) == list(none.before)


def unpacked(kept: Kept) -> dict[str, Any]:
    return ablations_study.unpack(kept.arrays)


def _fail(done: int, total: int | None, unit: str) -> None:
    raise AssertionError("something was run")


def test_a_relation_on_a_tokenizer_that_cuts_words_stays_at_rung_1_and_says_why(given: Given) -> None:
    label = next(one for one in given.before if one.behaviour == "induction" and one.rung)
    relation = replace(label, behaviour="syntactic:nsubj", material="text", unit="accuracy")
    asked = replace(given, before=[relation], depth="standard")
    kept = AblationStudy().measure(asked)
    (row,) = AblationStudy().findings(kept, units_of(given.reading), asked.before)
    assert row.rung == 1 and "rung 2 not measured: the tokenizer keeps 0 units of the material agreement" in row.note


def test_depths_ask_for_what_they_say() -> None:
    assert set(EFFORTS) == {"quick", "standard", "full"}
    quick, standard, full = EFFORTS.values()
    assert quick.candidates == 10 and quick.shared_controls and not quick.joint and not quick.sufficiency
    assert standard.candidates is full.candidates is None and standard.sufficiency and full.sufficiency
    assert all(units >= 12 for effort in EFFORTS.values() for units in effort.units.values())


@pytest.fixture
def relations(agreeing_tokenizer: Callable[..., Any], tiny_hf: Any, make_reading: Any) -> Given:
    """A random model that knows the words of the agreement task, with labels that nothing bears out."""
    model = Model(tiny_hf("llama"), agreeing_tokenizer(), name="tiny")
    reading = make_reading(documents=60, shortest=20)
    states = observe(model, reading, [m := AblationStudy().instruments(model)[0]], begin(model, reading, [m])).states
    rows = [
        Finding(
            chapter="heads", behaviour=f"syntactic:{relation}", site=f"L{at}H{head}", layer=at, index=head, measure="attention",
            material="text", value=0.5, unit="accuracy", effect=0.3, effect_low=0.2, effect_high=0.4, n=30, null=0.2,
            null_kind="offset", floor=0.1, p=0.0, mde=0.1, q=0.0, rung=1,
        )
        for relation in ("nsubj", "obj") for at, head in ((0, 1), (1, 2))
    ]  # fmt: skip
    return Given(model=model, reading=reading, states=states, before=rows, depth="standard", seed=0)


def test_on_a_random_model_no_relation_is_necessary_for_agreement(relations: Given) -> None:
    kept = AblationStudy().measure(relations)
    assert len(kept.about["strata"]["agreement"]) == 14 and "removed/agreement" in kept.arrays
    findings = AblationStudy().findings(kept, units_of(relations.reading), relations.before)
    assert {one.rung for one in findings if one.measure == "attention"} == {1}
    harms = [one for one in findings if one.measure == "harm"]
    assert len(harms) == 4 and {one.material for one in harms} == {"agreement"} and {one.unit for one in harms} == {"logits"}
