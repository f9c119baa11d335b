"""`innerworks universal` as people use it: the table and the verdict, machines, the folder it writes, and what is refused."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from innerworks.findings import COLUMNS


@pytest.fixture(scope="module")
def command(verb: Callable[..., Any]) -> Callable[..., Any]:
    """`innerworks universal` with these arguments."""
    return functools.partial(verb, "universal")


@pytest.fixture(scope="module")
def here(tiny_hf: Callable[..., Any], tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a/`, `b/`, `experts/` and `text.jsonl`, as a person would have them."""
    folder = tmp_path_factory.mktemp("universal")
    for name, family in (("a", "gpt2"), ("b", "opt"), ("experts", "mixtral")):
        tiny_hf(family).save_pretrained(folder / name)
        tiny_tokenizer.save_pretrained(folder / name)
    lines = [{"text": " ".join(f"w{30 + (i * j * j) % 281}" for j in range(60)), "domain": "ab"[i % 2]} for i in range(1, 41)]
    (folder / "text.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_help_teaches_with_examples(command: Callable[..., Any]) -> None:
    done = command("--help")
    assert done.code == 0 and "innerworks universal ./seed-0 ./seed-1" in done.out and "random basis" in done.out
    assert "neurons.parquet" in done.out


def test_a_table_by_layer_and_what_it_comes_to(command: Callable[..., Any], here: Path) -> None:
    done = command(here / "a", here / "b", "--corpus", f"file:{here / 'text.jsonl'}", "--tokens", 2000)
    assert done.code == 0, done.err
    assert "144 neurons of" in done.err and "about 1 min here" in done.err
    rows = [line.split() for line in done.out.splitlines() if line.startswith(("L", "all"))]
    assert [row[:3] for row in rows] == [
        [name, *cells] for name, cells in zip(("L0", "L1", "L2", "all"), (["48", "0.0%"],) * 3 + (["144", "0.0%"],), strict=True)
    ]
    assert "0.0% of the neurons are shown to be universal" in done.out and "F9" in done.out and "does not hold" in done.out


def test_a_folder_and_machines(command: Callable[..., Any], here: Path) -> None:
    options = ("--corpus", f"file:{here / 'text.jsonl'}", "--tokens", 2000, "--json", "-o", here / "found")
    done = command(here / "a", here / "a", *options)
    said, kept = json.loads(done.out), json.loads((here / "found" / "result.json").read_text())
    assert {key: kept[key] for key in said} == said and said["claim"]["id"] == "F9"
    assert said["documents"] == {"discovery": 20, "confirmation": 20} and len(said["by_layer"]) == 3
    assert kept["digests"][0] == kept["digests"][1] and kept["seed"] == 0
    neurons = pl.read_parquet(here / "found" / "neurons.parquet")
    assert neurons["site"].to_list() == neurons["match"].to_list() and (neurons["correlation"] > 0.999).all()
    assert list(pl.read_parquet(here / "found" / "findings.parquet").columns) == list(COLUMNS)
    again = command(here / "a", here / "a", *options)
    assert again.code == 1 and "is there already: it is left alone" in again.err
    assert sorted(path.name for path in here.iterdir()) == ["a", "b", "experts", "found", "text.jsonl"]


def test_what_cannot_be_is_refused_in_one_line(command: Callable[..., Any], here: Path) -> None:
    text = f"file:{here / 'text.jsonl'}"
    for arguments, code, says in (
        ((here / "a",), 2, "Missing argument 'B'"),
        ((here / "a", here / "none", "--corpus", text), 2, "none"),
        ((here / "a", here / "b", "--corpus", text, "--tokens", 100), 2, "Read at least 320"),
        ((here / "a", here / "b", "--corpus", "file:nothing.jsonl"), 1, "There is no file"),
        ((here / "a", here / "experts", "--corpus", text), 1, "it has no plain neurons to compare"),
    ):
        done = command(*arguments)
        assert done.code == code and says in done.err, done


def test_an_interruption_decides_nothing(command: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import innerworks.neurons.universal as chapter

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chapter, "universality", interrupted)
    done = command(here / "a", here / "b", "--corpus", f"file:{here / 'text.jsonl'}", "-o", here / "interrupted")
    assert done.code == 1 and "Interrupted: nothing was decided" in done.err and not (here / "interrupted").exists()
