"""A whole scan of a phantom: everything is written, can be decided again, and is the same every time."""

import copy
import errno
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import innerworks as iw
from innerworks.atlas import Atlas, schema
from innerworks.errors import AtlasError, BrokenModel, InnerworksError, TextError, UsageError
from innerworks.findings import COLUMNS, frame
from innerworks.heads.ablations_study import EFFORTS
from innerworks.scan import decide_again, measure, plan, prepare, run
from innerworks.scan.depth import DEPTHS
from innerworks.scan.studies import studies


def same(a: pl.DataFrame, b: pl.DataFrame) -> bool:
    return a.equals(b, null_equal=True)


# --- what a scan leaves ------------------------------------------------------------------------------------------


def test_a_scan_ends_with_every_file_and_nothing_else(atlas: Atlas) -> None:
    found = {str(file.relative_to(atlas.path)) for file in atlas.path.rglob("*") if file.is_file()}
    assert found == {
        "manifest.json",
        "claims.parquet",
        "findings.parquet",
        "examples.parquet",
        "report.html",
        "neurons.parquet",
        "units.parquet",
        "arrays/heads_by_unit.safetensors",
        *(f"arrays/{study.name}.safetensors" for study in studies()),
        "arrays/ablations.safetensors",
        "arrays/patterns.safetensors",
    }
    assert not (atlas.path / schema.PARTIAL).exists()


def test_every_file_can_be_read(atlas: Atlas, model: iw.Model) -> None:
    again = Atlas.open(atlas.path)
    assert again.findings.columns == list(COLUMNS) and again.findings.height > 13 * 48
    seen, metadata = again.arrays(schema.of_study("heads_by_unit"))
    units = again.units
    assert tuple(units.columns) == schema.UNIT_COLUMNS and set(units["half"]) == {"discovery", "confirmation"}
    assert seen["mass"].shape == (len(units), len(metadata["measures"]), model.anatomy.layers, model.anatomy.heads)
    assert seen["rows"].shape == seen["mass"].shape[:2]
    kept, _ = again.arrays(schema.of_study("ablations"))
    assert "clean/second_copy_loss" in kept and kept["removed/text"].shape == (model.anatomy.layers, model.anatomy.heads)
    assert "plotly" in (atlas.path / "report.html").read_text().lower()
    for one in again.examples:
        assert one.pattern.shape == (len(one.tokens), len(one.tokens)) and np.allclose(one.pattern, np.tril(one.pattern))


def test_neurons_that_were_tested_are_shown_on_text(atlas: Atlas) -> None:
    tested = atlas.findings.filter((pl.col("chapter") == "neurons") & pl.col("index").is_not_null())
    shown = {one.site: one for one in atlas.neuron_examples}
    assert set(shown) <= set(tested["site"]) and (tested.is_empty() or shown)
    assert all(one.tokens[one.at] and len(one.tokens) <= 19 for example in shown.values() for one in example.contexts)


def test_the_planted_heads_are_found_and_the_induction_head_is_necessary(atlas: Atlas) -> None:
    from innerworks.phantoms import build

    rungs = {(row["behaviour"], row["site"]): row["rung"] for row in atlas.labels.iter_rows(named=True)}
    truth = build("llama", seed=0).truth
    for behaviour, sites in truth.items():
        for site in sites:
            assert rungs.get((behaviour, site), 0) >= 1, (behaviour, site)
    assert rungs["induction", truth["induction"][0]] >= 2


def test_the_manifest_says_what_was_scanned_and_how(atlas: Atlas, model: iw.Model) -> None:
    manifest = atlas.manifest
    assert manifest["model"]["name"] == "model" and manifest["model"]["layers"] == model.anatomy.layers
    assert len(manifest["model"]["digest"]) == len(manifest["tokenizer"]["digest"]) == len(manifest["corpus"]["digest"]) == 64
    assert manifest["settings"]["depth"] == "quick" and manifest["settings"]["seed"] == 0
    halves = {"text": {"discovery": 15, "confirmation": 15}, "random": {"discovery": 16, "confirmation": 16}}
    assert manifest["units"] == halves
    assert {"torch", "transformers", "numpy", "scipy", "polars", "innerworks"} == set(manifest["versions"])
    assert manifest["certificate"] and manifest["timings"]["reading"] > 0


def test_progress_counts_up_to_all_tokens_and_then_ablations(atlas: Atlas, steps: list[Any]) -> None:
    reading = [step for step in steps if step.stage == "reading"]
    assert [step.done for step in reading] == sorted({step.done for step in reading})
    read = atlas.manifest["corpus"]
    assert reading[-1].done == reading[-1].total == read["tokens"] + read["generated_tokens"]
    ablating = [step for step in steps if step.stage == "ablations"]
    assert ablating and steps.index(ablating[0]) == len(reading) and ablating[-1].total is None


def test_examples_belong_to_labels_and_come_from_confirmation_text(atlas: Atlas) -> None:
    labels = {(row["behaviour"], row["site"]) for row in atlas.labels.iter_rows(named=True)}
    confirmation = {id for id, _, material, half in atlas.units.rows() if (material, half) == ("text", "confirmation")}
    assert atlas.examples
    for one in atlas.examples:
        assert (one.behaviour, one.site) in labels and one.unit in confirmation


# --- the same again ----------------------------------------------------------------------------------------------


def test_everything_can_be_decided_again_from_the_atlas_alone(atlas: Atlas) -> None:
    assert same(frame(decide_again(atlas)), atlas.findings)


def test_the_findings_in_memory_are_those_of_the_scan(atlas: Atlas, model: iw.Model, phantom_folder: Path) -> None:
    reading, _, depth = prepare(model, corpus=f"file:{phantom_folder / 'text.jsonl'}", depth="quick")
    assert same(frame(measure(model, reading, depth=depth.name)), atlas.findings)


def test_another_seed_draws_other_repeats_and_reads_the_same_text(atlas: Atlas, model: iw.Model, phantom_folder: Path) -> None:
    first, again, other = (
        prepare(model, corpus=f"file:{phantom_folder / 'text.jsonl'}", depth="quick", seed=seed)[0] for seed in (0, 0, 1)
    )
    assert first == again and first != other
    texts = [[w for w in reading.windows if reading.units[w.unit].material == "text"] for reading in (first, other)]
    assert texts[0] == texts[1]


# --- interruptions -----------------------------------------------------------------------------------------------


class Interruption(Exception):
    pass


def interrupt_at(stage: str, number: int) -> Callable[[Any], None]:
    seen = []

    def progress(step: Any) -> None:
        seen.append(step.stage)
        if seen.count(stage) == number:
            raise Interruption

    return progress


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the report out: it is most of the time such a small scan takes."""
    monkeypatch.setattr("innerworks.scan.run.report.write", lambda atlas, path: path)


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every batch and ablation."""
    monkeypatch.setattr("innerworks.scan.run.SAVE_EVERY", 0.0)
    monkeypatch.setattr("innerworks.scan.run.SAVING", math.inf)


def assert_equal(resumed: Atlas, atlas: Atlas) -> None:
    assert same(resumed.findings, atlas.findings)
    for name in (schema.of_study("heads_by_unit"), schema.of_study("ablations"), schema.PATTERNS):
        (arrays, metadata), (expected, expected_metadata) = resumed.arrays(name), atlas.arrays(name)
        assert metadata == expected_metadata and arrays.keys() == expected.keys()
        assert all(arrays[key].tobytes() == expected[key].tobytes() for key in expected), name


def test_a_scan_interrupted_while_reading_and_while_ablating_goes_on_to_the_same_findings_bit_for_bit(
    saving: None, no_report: None, atlas: Atlas, scan: Callable[..., Atlas], tmp_path: Path
) -> None:
    out = tmp_path / "a"
    with pytest.raises(Interruption):
        scan(out, progress=interrupt_at("reading", 2))
    with pytest.raises(AtlasError, match="beginning of an atlas"):
        Atlas.open(out)
    with pytest.raises(AtlasError, match="--resume"):
        scan(out)
    for other in ({"seed": 1}, {"depth": "standard"}):
        with pytest.raises(AtlasError, match=f"{next(iter(other))} differ"):
            scan(out, resume=True, **other)
    second: list[Any] = []
    stop = interrupt_at("ablations", 7)
    with pytest.raises(Interruption):
        scan(out, resume=True, progress=lambda step: (second.append(step), stop(step)))
    batches = sum(step.stage == "reading" for step in second)
    third: list[Any] = []
    resumed = scan(out, resume=True, progress=third.append)
    assert_equal(resumed, atlas)
    ablated = [step.done for step in third if step.stage == "ablations"]
    names = [study.name for study in studies()]
    assert not {step.stage for step in third} & {"reading", *names[: names.index("ablations")]}  # nothing was done twice
    assert batches >= 4 and ablated[0] > 1
    assert not (out / schema.PARTIAL).exists()


class SlowTime:
    """A clock on which every look takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1.0
        return self.now


def test_the_time_of_a_finished_study_survives_an_interruption(
    saving: None, no_report: None, scan: Callable[..., Atlas], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("innerworks.scan.run.time", SlowTime())
    whole = scan(tmp_path / "whole").manifest["timings"]
    with pytest.raises(Interruption):
        scan(tmp_path / "a", progress=interrupt_at("ablations", 7))
    resumed = scan(tmp_path / "a", resume=True).manifest["timings"]
    assert set(resumed) == {"reading", "this_run", *(study.name for study in studies())}
    before = [study.name for study in studies()][:4]
    assert before[-1] == "suppression" and all(resumed[name] == whole[name] > 0 for name in ("reading", *before))
    assert abs(resumed["ablations"] - whole["ablations"]) < 10  # counted in both parts
    assert resumed["this_run"] < whole["this_run"]


@pytest.mark.parametrize(("cost", "saves"), [(0.0, 20), (0.1, 20), (6.0, 2)])
def test_what_takes_long_to_save_is_saved_less_often(cost: float, saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    time, done = SlowTime(), []
    time.perf_counter = lambda: time.now  # type: ignore[method-assign]
    monkeypatch.setattr(run, "time", time)

    def write() -> None:
        done.append(time.now)
        time.now += cost

    clock = run._Clock()
    for _ in range(320):
        time.now += 1.0
        clock.save(write)
    assert saves - 1 <= len(done) <= saves + 1


KILLED = """
import os, signal, sys, functools
import torch
torch.set_num_threads(1)
import innerworks as iw
import innerworks.scan.run as run
run.SAVE_EVERY, run.SAVING = 0.0, float("inf")
run.read = functools.partial(run.read, sequences={sequences})

def kill(step):
    if step.stage == "ablations" and step.done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

iw.scan(sys.argv[1] + "/model", out=sys.argv[2], corpus="file:" + sys.argv[1] + "/text.jsonl", depth="quick", progress=kill)
"""


def test_a_killed_scan_goes_on_in_another_process_to_the_same_findings_bit_for_bit(
    no_report: None, atlas: Atlas, scan: Callable[..., Atlas], phantom_folder: Path, tmp_path: Path
) -> None:
    script = KILLED.format(sequences=32)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", script, str(phantom_folder), str(tmp_path / "a")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "a" / schema.MANIFEST).exists()
    steps: list[Any] = []
    assert_equal(scan(tmp_path / "a", resume=True, progress=steps.append), atlas)
    names = [study.name for study in studies()]
    assert not {step.stage for step in steps} & {"reading", *names[: names.index("ablations")]}


def test_other_weights_another_tokenizer_and_other_text_are_not_gone_on_with(
    model: iw.Model, scan: Callable[..., Atlas], phantom_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interruption):
        scan(tmp_path / "a", progress=interrupt_at("reading", 1))
    other = iw.load(phantom_folder / "model")
    with torch.no_grad():
        next(other.hf.parameters())[0, 0] += 0.01
    with pytest.raises(AtlasError, match="weights differ"):
        scan(tmp_path / "a", resume=True, model=other)
    extended = copy.deepcopy(model.tokenizer)
    extended.add_tokens(["owl"])
    with pytest.raises(AtlasError, match=r"\(tokenizer differ\)"):
        scan(tmp_path / "a", resume=True, model=iw.Model(model.hf, extended, name=model.name))
    lines = (phantom_folder / "text.jsonl").read_text().splitlines()
    (tmp_path / "other.jsonl").write_text("\n".join(lines[1:]))
    with pytest.raises(AtlasError, match="corpus differ"):
        scan(tmp_path / "a", resume=True, corpus=f"file:{tmp_path / 'other.jsonl'}")


def test_a_full_disk_stops_the_scan_in_words_and_what_was_saved_serves_later(
    saving: None, no_report: None, atlas: Atlas, scan: Callable[..., Atlas], tmp_path: Path
) -> None:
    out, full = tmp_path / "a", pytest.MonkeyPatch()

    def fill(step: Any) -> None:
        if step.stage == "ablations" and not full._setattr:
            full.setattr("innerworks.atlas.store.os.fsync", lambda descriptor: _no_space(errno.ENOSPC))

    with pytest.raises(AtlasError, match="No space left on device"):
        scan(out, progress=fill)
    full.undo()
    left = {file.name for file in out.rglob("*") if file.is_file()}
    names = [study.name for study in studies()]
    asked = names[: names.index("ablations") + 1]  # the first ablation was saved before the disk was full
    assert left == {"settings.json", "pass.safetensors", *(f"{name}.safetensors" for name in asked)}
    steps: list[Any] = []
    assert same(scan(out, resume=True, progress=steps.append).findings, atlas.findings)
    assert not any(step.stage == "reading" for step in steps)


def _no_space(number: int) -> None:
    raise OSError(number, "No space left on device")


def test_a_finished_scan_is_refused_without_force_before_any_work(
    atlas: Atlas, scan: Callable[..., Atlas], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (atlas.path / schema.MANIFEST).read_bytes()
    steps: list[Any] = []
    with pytest.raises(AtlasError, match="--force"):
        scan(atlas.path, progress=steps.append)
    assert steps == [] and (atlas.path / schema.MANIFEST).read_bytes() == before


# --- what cannot be scanned --------------------------------------------------------------------------------------


def test_nan_weights_are_refused_and_leave_nothing(phantom_folder: Path, tmp_path: Path, model: iw.Model) -> None:
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(phantom_folder / "model")
    with torch.no_grad():
        hf.model.layers[3].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(InnerworksError, match="(?i)nan"):
        iw.scan(iw.Model(hf, model.tokenizer), out=tmp_path / "a", depth="quick")
    assert not (tmp_path / "a").exists()


def test_nan_that_only_appears_while_reading_stops_the_scan(
    phantom_folder: Path, tmp_path: Path, scan: Callable[..., Atlas]
) -> None:
    broken = iw.load(phantom_folder / "model")
    with torch.no_grad():
        broken.hf.model.layers[3].mlp.down_proj.weight[0, 0] = float("nan")  # after the certificate
    with pytest.raises(BrokenModel, match="NaN or infinity on text of the stratum"):
        scan(tmp_path / "a", model=broken)
    assert not (tmp_path / "a" / schema.MANIFEST).exists()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "there is no document"),
        (['{"text": "12 34 56"}'] * 30, "hold no word"),
        (['{"id": "a", "text": "ba"}', '{"id": "a", "text": "du"}'], "more than once"),
        (['{"text": "ba du"}'], "1 documents, which leaves 0 to confirm on"),
        (['{"text": 7}'], "line 1: not a JSON object"),
    ],
    ids=["empty", "wordless", "same id", "too few", "no text"],
)
def test_a_corpus_on_which_nothing_can_be_decided_is_refused_and_leaves_nothing(
    lines: list[str], says: str, scan: Callable[..., Atlas], tmp_path: Path
) -> None:
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    with pytest.raises(TextError, match=says):
        scan(tmp_path / "a", corpus=f"file:{tmp_path / 'text.jsonl'}")
    assert not (tmp_path / "a").exists()


def test_documents_of_one_word_are_scanned_and_undecided(scan: Callable[..., Atlas], tmp_path: Path) -> None:
    words = [a + b + c for a in ("ba", "du", "ki") for b in ("ta", "mo", "be", "du") for c in ("", "ki", "ta")]
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": word}) for word in words))
    atlas = scan(tmp_path / "a", corpus=f"file:{tmp_path / 'text.jsonl'}")
    assert atlas.labels.is_empty()
    text = atlas.heads.filter(pl.col("material") == "text")
    others = text.filter(pl.col("behaviour") != "subword_joiner")
    assert others["n"].max() == 0 and set(others["note"]) == {"only 0 units: not decided"}
    assert all(row["n"] <= 2 and row["note"] == f"only {row['n']} units: not decided" for row in text.iter_rows(named=True))


def test_a_model_with_too_short_a_context_is_refused(tiny_hf: Callable[..., Any], tiny_tokenizer: Any, tmp_path: Path) -> None:
    short = iw.Model(tiny_hf("gpt2", n_positions=40), tiny_tokenizer)
    with pytest.raises(TextError, match="reads 40 tokens at most"):
        iw.scan(short, out=tmp_path / "a", depth="quick")
    assert not (tmp_path / "a").exists()


def test_a_chapter_can_be_scanned_alone_and_finds_the_same(atlas: Atlas, scan: Callable[..., Atlas], tmp_path: Path) -> None:
    for chapter in ("heads", "neurons"):
        alone = scan(tmp_path / chapter, only=[chapter])
        mine = atlas.findings.filter(pl.col("chapter") == chapter)
        where = ["behaviour", "site", "target", "measure", "material"]
        both = alone.findings.join(mine, on=where, nulls_equal=True)  # attention is computed another way: all but equal
        assert 0 < 0.95 * mine.height <= both.height and alone.findings.height == mine.height
        np.testing.assert_allclose(both["effect"], both["effect_right"], atol=1e-3)
        assert both["rung"].to_list() == both["rung_right"].to_list()
        assert alone.manifest["settings"]["only"] == [chapter] and (alone.path / schema.REPORT).is_file()


def test_an_unknown_chapter_names_the_known_ones(scan: Callable[..., Atlas], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only=haeds: the chapters of a scan are heads, neurons"):
        scan(tmp_path / "a", only=["haeds", "neurons"])
    assert not (tmp_path / "a").exists()


def test_an_unknown_depth_names_the_known_ones(scan: Callable[..., Atlas], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"quick, standard, full.*Did you mean standard"):
        scan(tmp_path / "a", depth="standart")
    assert not (tmp_path / "a").exists()


def test_the_depths_are_those_of_the_design() -> None:
    quick, standard = DEPTHS["quick"], DEPTHS["standard"]
    some, every = EFFORTS["quick"], EFFORTS["standard"]
    assert (quick.per_domain, some.candidates, some.joint, some.shared_controls) == (8, 10, False, True)
    assert (standard.per_domain, every.candidates, every.joint) == (None, None, True)
    assert set(EFFORTS) == set(DEPTHS)
    assert all(units >= 12 for effort in EFFORTS.values() for units in effort.units.values())  # or nothing is ever necessary


def test_quick_reads_eighty_documents_of_a_corpus_without_domains_and_eight_of_each_builtin_domain() -> None:
    quick = DEPTHS["quick"]
    assert [quick.documents(domains) for domains in (1, 2, 10, 30)] == [80, 40, 8, 8]
    assert DEPTHS["standard"].documents(1) is None


def test_a_plan_is_made_without_writing_and_says_what_a_scan_reads(model: iw.Model, phantom_folder: Path, atlas: Atlas) -> None:
    reading, _, depth = prepare(model, corpus=f"file:{phantom_folder / 'text.jsonl'}", depth="quick")
    made = plan(model, reading, depth)
    read = atlas.manifest["corpus"]
    assert made.tokens == read["tokens"] + read["generated_tokens"] and made.documents == read["documents"]
    assert made.seconds > 0 and 0.5 < made.gigabytes < 2 and json.dumps(made.as_dict()) and "tokens/s" in made.in_words()
    assert made.as_dict() == asdict(made)


@pytest.mark.specimen
def test_the_plan_of_the_specimen_is_what_a_scan_of_it_took_on_two_idle_threads(
    specimen: iw.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 585 tokens/s: read 98 s, suppression and circuits 45 s, 690 ablations 1,150 s, the rest (by its parts) 290 s."""
    monkeypatch.setattr(sys.modules["innerworks.scan.plan"], "_tokens_per_second", lambda model: 585.0)
    reading, _, depth = prepare(specimen, depth="standard")
    assert 1580 / 1.5 < plan(specimen, reading, depth).seconds < 1580 * 1.5
