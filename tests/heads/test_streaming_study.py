"""Streaming as part of a scan: the three clauses of A12 from kept arrays, generation judged, refusals said."""

from typing import Any

import numpy as np
import pytest
import torch

import innerworks as iw
from innerworks.claims.attention import ATTENTION
from innerworks.claims.claim import judge
from innerworks.findings import frame
from innerworks.heads.streaming import Streaming, generation, generation_findings
from innerworks.heads.streaming import study as study_file
from innerworks.heads.streaming.generation import repeated
from innerworks.heads.streaming.study import Effort, joined
from innerworks.model.study import Given, Kept, units_of
from innerworks.text import Reading
from innerworks.text.reading import Unit, Window

CACHE = 16


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(study_file.EFFORTS, "standard", Effort(cache=CACHE, times=3, texts=16, new=8))


def reading_of(*, domains: int = 4, per_domain: int = 16, length: int = 30) -> Reading:
    """Documents of random words, half of them to confirm on, the later part of some in a second window."""
    random = np.random.default_rng(0)
    units, windows = [], []
    for number in range(domains * per_domain):
        half = ("discovery", "confirmation")[number // domains % 2]
        units.append(Unit(id=f"d/{number}", stratum=f"domain {number % domains}", material="text", half=half))  # type: ignore[arg-type]
        for part in (length, 5 * (number % 3 == 0)):
            tokens = tuple(int(t) for t in random.integers(2, 300, part))
            if part:
                windows.append(Window(unit=number, tokens=tokens, words=(None,) * part, kinds=(None,) * part, alike=number))
    return Reading(units=tuple(units), windows=tuple(windows))


def given_of(model: Any, reading: Reading, **more: Any) -> Given:
    return Given(**{"model": model, "reading": reading, "states": {}, "before": [], "depth": "standard", "seed": 0, **more})


def test_texts_are_documents_end_to_end_each_in_one_text(tiny_model: Any) -> None:
    reading = reading_of()
    texts = joined(tiny_model("llama"), reading, length=48, most=16)
    assert len(texts) == 16 and {len(text.tokens) for text in texts} == {48}
    assert [text.stratum for text in texts[:4]] == [f"domain {i}" for i in range(4)]
    used = [id for text in texts for id in text.id.split("+")]
    assert len(used) == len(set(used))
    halves = {unit.id: unit.half for unit in reading.units}
    assert {halves[id] for id in used} == {"confirmation"}
    first = next(number for number, unit in enumerate(reading.units) if unit.id == texts[0].id.split("+")[0])
    whole = [token for window in reading.windows if window.unit == first for token in window.tokens]
    assert list(texts[0].tokens[: len(whole)]) == whole
    assert [text.id for text in joined(tiny_model("llama"), reading, length=48, most=3)] == [text.id for text in texts[:3]]


def test_texts_of_a_tokenizer_that_opens_them(tiny_hf: Any, opening_tokenizer: Any) -> None:
    model, reading = iw.Model(tiny_hf("llama"), opening_tokenizer, certified=False), reading_of()
    opened = Reading(
        units=reading.units,
        windows=tuple(
            Window(unit=w.unit, tokens=(1, *w.tokens), words=(None, *w.words), kinds=(None, *w.kinds), alike=w.alike)
            for w in reading.windows
        ),
    )
    [text] = joined(model, opened, length=48, most=1)
    assert text.tokens[0] == 1 and 1 not in text.tokens[1:]


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bloom"])
def test_the_study_measures_all_clauses(tiny_model: Any, family: str) -> None:
    model, reading, steps = tiny_model(family), reading_of(), []
    given = given_of(model, reading, step=lambda done, total, unit: steps.append((done, total, unit)))
    kept = Streaming().measure(given)
    rows = Streaming().findings(kept, units_of(reading), [])
    by_measure = {row.measure: row for row in rows if row.target is None}
    assert set(by_measure) == {"loss_without_sinks", "closeness_with_sinks", "generation", "generation_without_sinks"}
    assert all(row.n == 16 and np.isfinite(row.effect) for row in rows)
    assert {row.target for row in rows if row.measure == "loss"} == {"window", "sinks_4", "recomputation"}
    assert {row.target for row in rows if row.measure == "repetition"} == {"window", "sinks_4"}
    assert "cache of 16 tokens" in by_measure["generation"].note
    ends = {unit: (done, total) for done, total, unit in steps}
    assert ends["tokens streamed"][0] == ends["tokens streamed"][1] and ends["tokens generated"] == (16, 16)
    [claim] = [claim for claim in ATTENTION if claim.id == "A12"]
    answers = [one.answer for one in judge(claim, frame(rows)).evidence]
    assert len(answers) == 3 and all(one.n == 16 for one in judge(claim, frame(rows)).evidence)


def test_it_goes_on_from_what_was_saved(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reading, saved = tiny_model("llama"), reading_of(), []
    whole = Streaming().measure(given_of(model, reading, save=saved.append))
    monkeypatch.setattr(study_file, "streaming_losses", lambda *_, **__: pytest.fail("streamed again"))
    again = Streaming().measure(given_of(model, reading, saved=saved[0]))
    assert again.about == whole.about
    assert all(np.array_equal(again.arrays[name], one, equal_nan="losses" in name) for name, one in whole.arrays.items())


@pytest.mark.parametrize(
    ("family", "says"),
    [("gpt2", "learned an embedding for each position"), ("gptj", "table of its own"), ("mistral", "no window")],
)
def test_what_cannot_stream_says_so(tiny_model: Any, family: str, says: str) -> None:
    kept = Streaming().measure(given_of(tiny_model(family), reading_of()))
    assert not kept.arrays and says in kept.about["not measured"]
    assert Streaming().findings(kept, [], []) == []


def test_too_little_text_and_a_quick_scan_say_so(tiny_model: Any) -> None:
    little = reading_of(domains=1, per_domain=4, length=16)
    assert "add documents" in Streaming().measure(given_of(tiny_model("llama"), little)).about["not measured"]
    assert "quick" in Streaming().measure(given_of(tiny_model("llama"), little, depth="quick")).about["not measured"]


# --- generation ---------------------------------------------------------------------------------------------------


def test_a_stream_that_forgets_nothing_that_counts_does_not_diverge(tiny_hf: Any) -> None:
    """Where attention writes nothing, no window is too small; where it writes, forgetting shows."""
    hf = tiny_hf("llama")
    prompts = torch.randint(2, 300, (4, CACHE), generator=torch.Generator().manual_seed(0))
    forgetting = generation(iw.Model(hf, None, certified=False), prompts, new=8)
    assert all(one.min() > -1e-6 and one.mean() > 1e-4 for one in forgetting.divergence.values())
    with torch.no_grad():
        for layer in hf.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    found = generation(iw.Model(hf, None, certified=False), prompts, new=8)
    assert found.tokens["window"].shape == (4, 8)
    assert np.array_equal(found.tokens["window"], found.tokens["sinks_4"])
    assert all(np.abs(one).max() < 1e-5 for one in found.divergence.values())


def test_repeats_are_runs_of_three_that_were_there_before() -> None:
    assert repeated(torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8]])).tolist() == [
        [0, 0, 0, 0, 0, 0, 1, 1],
        [0] * 8,
    ]


@pytest.mark.parametrize(("sinks", "answer"), [(0.2, "yes"), (0.9, "no")])
def test_the_ledger_reads_generation(sinks: float, answer: str) -> None:
    random = np.random.default_rng(0)
    divergence = {way: mean + 0.05 * random.standard_normal((16, 10)) for way, mean in (("window", 3.0), ("sinks_4", sinks))}
    rows = generation_findings(divergence, {way: np.zeros((16, 10)) for way in divergence}, ["a", "b"] * 8, cache=64)
    [claim] = [claim for claim in ATTENTION if claim.id == "A12"]
    assert next(one.answer for one in judge(claim, frame(rows)).evidence if "generation" in one.clause) == answer
    without = next(row for row in rows if row.measure == "generation_without_sinks")
    assert without.effect == pytest.approx(3.0 - sinks, abs=0.05) and (without.p or 1) < 1e-6


def test_arrays_alone_decide(tiny_model: Any, tmp_path: Any) -> None:
    from safetensors.numpy import load_file, save_file

    reading = reading_of()
    kept = Streaming().measure(given_of(tiny_model("llama"), reading))
    save_file({name: np.ascontiguousarray(one) for name, one in kept.arrays.items()}, tmp_path / "streaming.safetensors")
    again = Kept(arrays=load_file(tmp_path / "streaming.safetensors"), about=kept.about)
    assert Streaming().findings(again, [], []) == Streaming().findings(kept, [], [])
