"""An atlas is whole or it is not there; nobody else's files are touched; what is damaged is said to be."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import invented_neurons
from innerworks.atlas import Atlas, Example, Unfinished, neurons, schema, store
from innerworks.errors import AtlasError
from innerworks.findings import COLUMNS, Finding, frame

HEADS_BY_UNIT = schema.of_study("heads_by_unit")
SETTINGS = {"model": "invented", "seed": 0, "depth": "quick"}


def finding(site: str = "L1H2", **changes: Any) -> Finding:
    values: dict[str, Any] = dict(
        chapter="heads",
        behaviour="induction",
        site=site,
        layer=1,
        index=2,
        measure="attention",
        material="text",
        value=0.5,
        unit="probability",
        effect=0.4,
        effect_low=0.3,
        effect_high=0.5,
        n=30,
        null=0.1,
        null_kind="pattern swap",
        floor=0.02,
        p=0.0,
        mde=0.1,
        q=0.01,
        rung=1,
    )
    return Finding(**{**values, **changes})


def example() -> Example:
    pattern = np.tril(np.full((3, 3), 0.25))
    return Example("induction", "L1H2", "doc/0", ("the", " cat", "\n"), pattern)


def written(path: Path) -> Atlas:
    made = Unfinished.create(path, SETTINGS)
    made.write_findings([finding(), finding(material="random", effect=0.6), finding("L0H0", rung=0, q=None, p=None)])
    made.write_examples([example()])
    made.write_arrays(HEADS_BY_UNIT, {"mass": np.arange(6.0).reshape(2, 3)}, {"units": [["a", "b"]]})
    return made.finish({"model": {"name": "invented"}})


def files(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def contents(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in files(path)}


def full_disk(*args: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# --- what is written is what is read -----------------------------------------------------------------------------


def test_a_finished_atlas_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    atlas = written(tmp_path / "a.atlas")
    again = Atlas.open(str(tmp_path / "a.atlas"))
    assert again.manifest == {"schema": schema.SCHEMA_VERSION, "model": {"name": "invented"}}
    assert again.findings.columns == list(COLUMNS) and again.findings.height == 3
    assert again.findings.row(0, named=True)["effect"] == 0.4 and again.findings["q"].null_count() == 1
    (one,) = atlas.examples
    assert one.tokens == example().tokens and np.allclose(one.pattern, example().pattern, atol=1e-3)
    arrays, metadata = again.arrays(HEADS_BY_UNIT)
    assert np.array_equal(arrays["mass"], np.arange(6.0).reshape(2, 3)) and metadata["units"] == [["a", "b"]]


@pytest.mark.parametrize("name", ["model[v2].atlas", "model*.atlas", "mode?.atlas"])
def test_a_folder_may_be_called_like_a_pattern(name: str, tmp_path: Path) -> None:
    written(tmp_path / "model.atlas")
    written(tmp_path / name)
    assert Atlas.open(tmp_path / name).findings.height == 3


def test_only_the_files_of_the_schema_are_left(tmp_path: Path) -> None:
    written(tmp_path / "a")
    expected = {schema.MANIFEST, schema.FINDINGS, schema.CLAIMS, schema.EXAMPLES, HEADS_BY_UNIT, schema.PATTERNS}
    assert files(tmp_path / "a") == expected and not (tmp_path / "a" / schema.PARTIAL).exists()


def test_labels_are_one_row_each_with_the_effect_on_both_materials(tmp_path: Path) -> None:
    labels = written(tmp_path / "a").labels
    assert labels.height == 1
    row = labels.row(0, named=True)
    assert (row["site"], row["effect_text"], row["effect_random"]) == ("L1H2", 0.4, 0.6)


def test_labels_of_every_kind_are_there_and_pairs_are_not(tmp_path: Path) -> None:
    made = Unfinished.create(tmp_path / "a", SETTINGS)
    weights = {"behaviour": "copying", "site": "L2H0", "measure": "eigenvalue", "material": "weights", "effect": 0.8}
    rows = [
        finding(rung=3, note="alone"),
        finding(material="random", effect=0.6, rung=3, note="alone"),
        finding(measure="k_composition", target="L0H0", material="random", effect=0.9, rung=3),
        finding("L2H0", measure="k_composition", target="L0H0", rung=2),
        finding(**{**weights, "q": 0.003, "note": "weights"}),
        finding(**{**weights, "measure": "direct_effect", "material": "text", "effect": 0.3}),
        finding("L0H1", behaviour="syntactic:nsubj", unit="accuracy"),
        finding("L0H2", behaviour="domain:python", measure="harm_contrast", unit="nats"),
        finding("L0H3", behaviour="domain:python", measure="harm_contrast", rung=0),
    ]
    made.write_findings(rows)
    labels = {(row["behaviour"], row["site"]): row for row in made.finish({}).labels.iter_rows(named=True)}
    assert set(labels) == {
        ("induction", "L1H2"),
        ("copying", "L2H0"),
        ("syntactic:nsubj", "L0H1"),
        ("domain:python", "L0H2"),
    }
    first = labels["induction", "L1H2"]
    assert (first["rung"], first["note"], first["measure"], first["effect_text"], first["effect_random"]) == (
        3,
        "alone",
        "attention",
        0.4,
        0.6,
    )
    copying = labels["copying", "L2H0"]
    assert (copying["measure"], copying["effect"], copying["q"]) == ("eigenvalue", 0.8, 0.003)
    assert (copying["effect_weights"], copying["effect_text"], copying["effect_random"]) == (0.8, 0.3, None)


def test_what_examples_write_is_read_back(tmp_path: Path) -> None:
    made = Unfinished.create(tmp_path / "a", SETTINGS)
    made.write_findings([finding()])
    plain = example()
    writes = replace(plain, query=2, raised=((" dog", 1.5), ("", 0.5)), lowered=(("\n", -2.0),), rows=((" a", " b", 3.0),))
    made.write_examples([plain, writes])
    before, after = made.finish({}).examples
    assert (before.query, before.raised, before.lowered, before.rows) == (None, (), (), ())
    assert (after.query, after.raised, after.lowered, after.rows) == (2, writes.raised, writes.lowered, writes.rows)
    assert after.as_dict()["pattern"] == [[0.25, 0.0, 0.0], [0.25, 0.25, 0.0], [0.25, 0.25, 0.25]]


def test_an_atlas_without_labels_or_examples_is_readable(tmp_path: Path) -> None:
    made = Unfinished.create(tmp_path / "a", SETTINGS)
    made.write_findings([finding(rung=0)])
    made.write_examples([])
    atlas = made.finish({})
    assert atlas.labels.is_empty() and atlas.examples == [] and atlas.heads.height == 1


# --- whose folder is it ------------------------------------------------------------------------------------------


def test_a_folder_with_foreign_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(AtlasError, match="is no atlas: it is left alone"):
            Unfinished.create(tmp_path, SETTINGS, force=force)
        assert contents(tmp_path) == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize("name", ["manifest.json", "partial/notes.txt"])
def test_a_foreign_folder_that_happens_to_hold_such_a_name_is_not_deleted(tmp_path: Path, name: str) -> None:
    (tmp_path / "index.html").write_text("my site")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"name": "my site"}')
    before = contents(tmp_path)
    with pytest.raises(AtlasError, match="index.html"):
        Unfinished.create(tmp_path, SETTINGS, force=True)
    assert contents(tmp_path) == before


def test_an_atlas_beside_which_somebody_put_a_file_is_not_deleted(tmp_path: Path) -> None:
    written(tmp_path / "a")
    (tmp_path / "a" / "my notes.md").write_text("mine")
    with pytest.raises(AtlasError, match=r"my notes\.md"):
        Unfinished.create(tmp_path / "a", SETTINGS, force=True)
    assert (tmp_path / "a" / "my notes.md").read_text() == "mine" and Atlas.open(tmp_path / "a").findings.height == 3


def test_a_finished_atlas_is_only_replaced_by_force(tmp_path: Path) -> None:
    written(tmp_path / "a")
    before = contents(tmp_path / "a")
    for resume in (False, True):
        with pytest.raises(AtlasError, match="--force to replace it"):
            Unfinished.create(tmp_path / "a", SETTINGS, resume=resume)
    assert contents(tmp_path / "a") == before
    Unfinished.create(tmp_path / "a", SETTINGS, force=True)
    assert files(tmp_path / "a") == {"partial/settings.json"}


def test_an_unfinished_atlas_is_gone_on_with_only_by_resume_and_only_with_the_same_settings(tmp_path: Path) -> None:
    Unfinished.create(tmp_path / "a", SETTINGS).write(f"{schema.PARTIAL}/some", b"work")
    with pytest.raises(AtlasError, match="--resume to go on"):
        Unfinished.create(tmp_path / "a", SETTINGS)
    with pytest.raises(AtlasError, match=r"\(depth, more, seed differ\)"):
        Unfinished.create(tmp_path / "a", {**SETTINGS, "depth": "full", "seed": 1, "more": 2}, resume=True)
    Unfinished.create(tmp_path / "a", dict(reversed(SETTINGS.items())), resume=True)
    assert (tmp_path / "a" / schema.PARTIAL / "some").read_bytes() == b"work"
    Unfinished.create(tmp_path / "a", SETTINGS, force=True)
    assert not (tmp_path / "a" / schema.PARTIAL / "some").exists()


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="nothing to resume"):
        Unfinished.create(tmp_path / "new", SETTINGS, resume=True)
    assert not (tmp_path / "new").exists()


def test_damaged_settings_of_an_unfinished_scan_are_refused_in_words(tmp_path: Path) -> None:
    Unfinished.create(tmp_path / "a", SETTINGS)
    (tmp_path / "a" / schema.PARTIAL / "settings.json").write_bytes(b'{"model": "inv')
    with pytest.raises(AtlasError, match="damaged"):
        Unfinished.create(tmp_path / "a", SETTINGS, resume=True)


def test_a_damaged_saved_state_is_refused_in_words(tmp_path: Path) -> None:
    made = Unfinished.create(tmp_path / "a", SETTINGS)
    made.write_arrays(f"{schema.PARTIAL}/pass.safetensors", {"x": np.ones(100)})
    whole = (tmp_path / "a" / schema.PARTIAL / "pass.safetensors").read_bytes()
    (tmp_path / "a" / schema.PARTIAL / "pass.safetensors").write_bytes(whole[:200])
    with pytest.raises(AtlasError, match=r"pass\.safetensors is missing or damaged"):
        made.read_arrays(f"{schema.PARTIAL}/pass.safetensors")
    assert made.read_arrays("partial/none.safetensors") is None


def test_a_file_where_the_folder_should_be_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(AtlasError, match="left alone"):
        Unfinished.create(tmp_path / "a", SETTINGS, force=True)
    with pytest.raises(AtlasError, match="cannot be written"):
        Unfinished.create(tmp_path / "a" / "b", SETTINGS)
    assert (tmp_path / "a").read_text() == "a file"


def test_a_folder_that_cannot_be_written_is_found_out_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(AtlasError, match="Permission denied. Give another folder with -o"):
        Unfinished.create(tmp_path / "a", SETTINGS)


# --- whole or not at all -----------------------------------------------------------------------------------------


def test_a_full_disk_keeps_what_was_there_and_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Unfinished.create(tmp_path / "a", SETTINGS)
    made.write("findings.parquet", b"before")
    before = contents(tmp_path / "a")
    monkeypatch.setattr(store.os, "fsync", full_disk)
    with pytest.raises(AtlasError, match="No space left on device. What was scanned so far is kept"):
        made.write("findings.parquet", b"after")
    with pytest.raises(AtlasError, match="No space"):
        made.finish({})
    assert contents(tmp_path / "a") == before
    with pytest.raises(AtlasError, match="the beginning of an atlas"):
        Atlas.open(tmp_path / "a")
    monkeypatch.undo()
    made.write("findings.parquet", b"after")
    assert (tmp_path / "a" / "findings.parquet").read_bytes() == b"after"


def test_an_interruption_while_writing_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Unfinished.create(tmp_path / "a", SETTINGS)

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.write("findings.parquet", b"data")
    assert files(tmp_path / "a") == {"partial/settings.json"}


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Unfinished.create(tmp_path / "a", SETTINGS)
    made.write("findings.parquet", b"before")
    seen, sync = [], os.fsync

    def look(descriptor: int) -> None:
        seen.append((tmp_path / "a" / "findings.parquet").read_bytes())
        sync(descriptor)

    monkeypatch.setattr(store.os, "fsync", look)
    made.write("findings.parquet", b"after" * 10_000)
    assert seen == [b"before"]  # it was synced before it took the old one's place


# --- what is no atlas is not opened ------------------------------------------------------------------------------


def test_what_is_no_finished_atlas_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="There is no folder"):
        Atlas.open(tmp_path / "none")
    with pytest.raises(AtlasError, match=r"it has no manifest\.json"):
        Atlas.open(tmp_path)
    Unfinished.create(tmp_path / "a", SETTINGS)
    with pytest.raises(AtlasError, match="--resume"):
        Atlas.open(tmp_path / "a")


@pytest.mark.parametrize("manifest", [b"", b'{"schema": 1', b"\xff\xfe", b"[]", b"null", b"7"])
def test_a_damaged_manifest_is_refused_in_words(tmp_path: Path, manifest: bytes) -> None:
    written(tmp_path / "a")
    (tmp_path / "a" / schema.MANIFEST).write_bytes(manifest)
    with pytest.raises(AtlasError, match="damaged"):
        Atlas.open(tmp_path / "a")


@pytest.mark.parametrize("version", ["null", "0", "1", "3"])
def test_another_schema_is_refused(tmp_path: Path, version: str) -> None:
    written(tmp_path / "a")
    (tmp_path / "a" / schema.MANIFEST).write_text(f'{{"schema": {version}}}')
    with pytest.raises(AtlasError, match="schema"):
        Atlas.open(tmp_path / "a")


@pytest.mark.parametrize("cut", [0, 1, 2], ids=["empty", "half", "missing"])
@pytest.mark.parametrize("name", [schema.FINDINGS, schema.EXAMPLES, schema.PATTERNS, HEADS_BY_UNIT])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, cut: int) -> None:
    atlas = written(tmp_path / "a")
    file = atlas.path / name
    whole = file.read_bytes()
    file.unlink() if cut == 2 else file.write_bytes(whole[: cut * len(whole) // 2])
    with pytest.raises(AtlasError, match=f"{Path(name).name} is missing or damaged"):
        if name == schema.FINDINGS:
            atlas.__dict__.pop("findings", None)
            atlas.findings  # noqa: B018
        elif name == HEADS_BY_UNIT:
            atlas.arrays(name)
        else:
            atlas.examples  # noqa: B018


def test_tables_are_parquet_and_arrays_safetensors_and_nothing_is_pickled(tmp_path: Path) -> None:
    atlas = written(tmp_path / "a")
    assert pl.read_parquet(atlas.path / schema.FINDINGS).height == 3
    assert (atlas.path / schema.FINDINGS).read_bytes()[:4] == b"PAR1"
    header = (atlas.path / schema.PATTERNS).read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


def test_neurons_are_one_table_of_labels_and_numbers(tmp_path: Path) -> None:
    made = Unfinished.create(tmp_path / "a", SETTINGS)
    made.write_findings([finding(), *invented_neurons.findings()])
    made.write_neurons(invented_neurons.examples())
    kept, about = invented_neurons.arrays(3, 16)
    kept["there"][2] = False  # a layer that is a mixture of experts
    made.write_arrays(schema.of_study("neuron_inputs"), kept, about)
    atlas = made.finish({})
    table = atlas.neurons
    assert table.height == 32 and table.columns[: len(neurons.COLUMNS)] == list(neurons.COLUMNS)
    one = table.row(by_predicate=pl.col("site") == "L1N3", named=True)
    assert (one["labels"], one["rung"], one["family"]) == (["position_neuron"], 2, "position")
    assert one["explained"] == pytest.approx(0.6) and one["largest"] == pytest.approx(42.0)
    assert one["writes"] == pytest.approx(float(kept["written"][1, 3] * kept["spread"][1, 3]))
    assert one["active"] == pytest.approx(float(kept["histogram"][1, 3, 16:].sum() / kept["histogram"][1, 3].sum()))
    assert atlas.neuron_examples == invented_neurons.examples()


def test_an_atlas_without_neurons_has_an_empty_table(tmp_path: Path) -> None:
    table = written(tmp_path / "a").neurons
    assert table.height == 0 and table.columns == list(neurons.COLUMNS)


def test_neurons_whose_weights_cannot_be_read_write_nothing_known(tmp_path: Path) -> None:
    kept, about = invented_neurons.arrays(3, 16)
    del kept["written"]
    kept["mean"][:, 0, 0] = -0.1
    table = neurons.table(frame([]), kept, about)
    assert table["writes"].null_count() == 48
    assert table.row(0, named=True)["family"] is None and table.row(0, named=True)["explained"] == 0
