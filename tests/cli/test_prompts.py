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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("lens", PROMPT, "--top", 0), "--top 0: at least 1"),
        (("lens", PROMPT, "--site", "mlp_out"), "the lens reads streams"),
        (("lens", PROMPT, "--html", "/no/such/lens.html"), "no file can be written there"),
        (("lens", ""), "no token in ''"),
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


def test_an_answer_is_needed(verb: Callable[..., Any]) -> None:
    done = verb("attribute", PROMPT)
    assert done.code == 2 and "--answer" in done.err
