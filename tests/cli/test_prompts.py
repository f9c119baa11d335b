"""`innerworks lens` and `innerworks attribute` as people use them: tables, pages, machines, mistakes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROMPT = "the cat sat and saw"


@pytest.fixture(scope="module")
def here(tiny_hf: Callable[..., Any], tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model/`, as a person would have it."""
    folder = tmp_path_factory.mktemp("prompts")
    tiny_hf("llama").save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    return folder


@pytest.mark.parametrize("name", ["lens", "attribute"])
def test_help_teaches_with_examples(verb: Callable[..., Any], name: str) -> None:
    done = verb(name, "--help")
    assert done.code == 0 and f'innerworks {name} "The capital of France is"' in done.out and "--html" in done.out


def test_the_lens_prints_a_row_per_layer(verb: Callable[..., Any], here: Path) -> None:
    done = verb("lens", PROMPT, "--model", here / "model", "--top", 2)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line[:2] for line in lines if line.startswith("L") and line[1].isdigit()] == ["L2", "L1", "L0"]
    assert "0 the" in done.out and "4 saw" in done.out and "entropy in nats" in done.out


def test_the_lens_for_machines_and_as_a_page(verb: Callable[..., Any], here: Path, tmp_path: Path) -> None:
    page = tmp_path / "lens[1].html"
    done = verb("lens", PROMPT, "-m", here / "model", "--site", "resid_mid", "--html", page, "--json")
    said = json.loads(done.out)
    assert said["tokens"] == PROMPT.split() and len(said["places"]) == 3 * 5 and said["places"][0]["site"] == "L0.resid_mid"
    assert page.read_text().startswith("<!doctype html>") and list(tmp_path.iterdir()) == [page]
    assert verb("lens", PROMPT, "-m", here / "model", "--html", page).out.endswith(f"\nPage: {page}\n")


def test_attribute_prints_parts_and_sums(verb: Callable[..., Any], here: Path, tmp_path: Path) -> None:
    arguments = ("attribute", PROMPT, "--answer", "dog", "--foil", "cat", "-m", here / "model", "--by", "head", "--top", 4)
    done = verb(*arguments, "--html", tmp_path / "shares.html")
    assert done.code == 0, done.err
    assert "the logit of dog less that of cat" in done.out and "The 4 strongest parts come to" in done.out
    assert "The 4 strongest parts come to" in (tmp_path / "shares.html").read_text()
    said = json.loads(verb(*arguments, "--json").out)
    assert len(said["parts"]) == 4 and said["by"] == "head" and abs(said["total"] - said["exact"]) < 1e-3
    assert sum(part["value"] for part in said["parts"]) + said["rest"] == pytest.approx(said["exact"], abs=1e-3)


def test_a_lens_is_trained_written_and_read_with(verb: Callable[..., Any], here: Path, tmp_path: Path) -> None:
    lines = [" ".join(f"w{30 + (i * j) % 280}" for j in range(1, 41)) for i in range(1, 49)]
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines))
    corpus, file = f"file:{tmp_path / 'text.jsonl'}", tmp_path / "my.lens"
    options = ("-m", here / "model", "--corpus", corpus, "--positions", 256)
    done = verb("lens", "--train", file, *options)
    assert done.code == 0, done.err
    assert "logit lens" in done.out and "tuned" in done.out and f"Lens: {file}\n" in done.out and "256 positions of" in done.out
    read = verb("lens", PROMPT, "-m", here / "model", "--tuned", file)
    assert read.code == 0 and read.out.startswith("Tuned lens of") and "as in the logit lens: L2" in " ".join(read.out.split())
    said = json.loads(verb("lens", "--train", file, *options, "--site", "resid_pre", "--json").out)
    assert said["kind"] == "resid_pre" and [row["site"] for row in said["held_out"]] == [f"L{i}.resid_pre" for i in range(3)]
    assert all(row["tuned_lens"] <= row["logit_lens"] for row in said["held_out"])


def test_training_that_is_interrupted_writes_nothing(
    verb: Callable[..., Any], here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("innerworks.residual.tune", interrupt)
    done = verb("lens", "--train", tmp_path / "my.lens", "-m", here / "model")
    assert done.code == 1 and "Interrupted: nothing was written" in done.err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("lens", PROMPT, "--top", 0), "--top 0: at least 1"),
        (("lens", PROMPT, "--site", "mlp_out"), "the lens reads streams"),
        (("lens", PROMPT, "--html", "/no/such/lens.html"), "no file can be written there"),
        (("lens", ""), "no token in ''"),
        (("lens",), "Which prompt?"),
        (("lens", PROMPT, "--train", "my.lens"), "--train reads a corpus: no PROMPT"),
        (("lens", PROMPT, "--positions", 64), "--positions goes with --train"),
        (("lens", "--train", "/no/such/my.lens"), "--train /no/such/my.lens: no file can be written there"),
        (("lens", "--train", "my.lens", "--positions", 1), "positions=1: at least 32"),
        (("attribute", PROMPT, "--answer", "the cat"), "is 2 tokens"),
        (("attribute", PROMPT, "--answer", "dog", "--by", "heads"), "by='heads': one of component, head, neuron, source."),
        (("attribute", PROMPT, "--answer", "dog", "--top", 0), "--top 0: at least 1"),
        (("attribute", PROMPT, "--answer", "dog", "--html", "/"), "no file can be written there"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(verb: Callable[..., Any], here: Path, arguments: tuple[Any, ...], says: str) -> None:
    done = verb(*arguments, "-m", here / "model")
    assert done.code == 2 and says in done.err and done.out == "", done


def test_a_file_that_is_no_lens_is_refused(verb: Callable[..., Any], here: Path) -> None:
    done = verb("lens", PROMPT, "-m", here / "model", "--tuned", here / "model" / "config.json")
    assert done.code == 1 and "config.json is no tuned lens, or damaged" in done.err


def test_an_answer_is_needed(verb: Callable[..., Any]) -> None:
    done = verb("attribute", PROMPT)
    assert done.code == 2 and "--answer" in done.err
