"""`innerworks stream` as people use it: what is a model and what a prompt, Ctrl-C, machines, and the comparison."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from innerworks.heads import streaming


@pytest.fixture(scope="module")
def command(verb: Callable[..., Any]) -> Callable[..., Any]:
    """`innerworks stream` with these arguments."""
    return functools.partial(verb, "stream")


@pytest.fixture(scope="module")
def here(tiny_hf: Callable[..., Any], tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model/`, `gpt2/` and `text.jsonl`, as a person would have them."""
    folder = tmp_path_factory.mktemp("stream")
    for name, family in (("model", "llama"), ("gpt2", "gpt2")):
        tiny_hf(family).save_pretrained(folder / name)
        tiny_tokenizer.save_pretrained(folder / name)
    lines = [{"text": " ".join(f"w{30 + (i * j) % 280}" for j in range(75)), "domain": "ab"[i % 2]} for i in range(1, 17)]
    (folder / "text.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_help_teaches_with_examples(command: Callable[..., Any]) -> None:
    done = command("--help")
    assert done.code == 0 and 'innerworks stream "Once upon a time"' in done.out and "innerworks stream --compare" in done.out
    assert "--sinks" in done.out and "forgotten" in done.out


def test_tokens_come_after_the_prompt(command: Callable[..., Any], here: Path) -> None:
    done = command(here / "model", "the cat sat", "--window", 12, "--tokens", 30)
    assert done.code == 0 and done.out.startswith("the cat sat ") and len(done.out.split()) == 33
    assert "done: 30 tokens" in done.err and "kept 4 first and 12 latest" in done.err
    assert done.out == command(here / "model", "the cat sat", "--window", 12, "--tokens", 30).out


def test_a_line_of_json_per_token(command: Callable[..., Any], here: Path) -> None:
    options = ("--window", 12, "--tokens", 5, "--temperature", 1.0, "--json")
    rows = [json.loads(line) for line in command(here / "model", "the cat", *options, "--seed", 1).out.splitlines()]
    assert [row["position"] for row in rows] == [2, 3, 4, 5, 6] and set(rows[0]) == {"id", "position", "text", "log_probability"}
    others = [json.loads(line) for line in command(here / "model", "the cat", *options, "--seed", 2).out.splitlines()]
    assert [row["id"] for row in rows] != [row["id"] for row in others]


def test_control_c_is_how_it_ends(command: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Iterator[streaming.Token]:
        assert options["max_new_tokens"] is None
        yield streaming.Token(id=1, position=2, text=" dog", log_probability=-1.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(streaming, "stream", interrupted)
    done = command(here / "model", "the cat")
    assert (done.code, done.out) == (0, "the cat dog\n") and "interrupted: 1 tokens" in done.err


def test_what_is_asked_must_make_sense(command: Callable[..., Any], here: Path) -> None:
    for arguments, says in (
        ((), "got 0 words"),
        (("a", "b", "c"), "one prompt in quotes; got 3 words"),
        ((here / "model", "the cat", "--tokens", 0), "--tokens 0: at least 1"),
        ((here / "model", "the cat", "--temperature", -1), "temperature=-1.0"),
        ((here / "model", "the cat"), "A cache of 256 tokens is longer than the 192 positions"),
        ((here / "model", "the cat", "--compare"), "takes no prompt"),
    ):
        done = command(*arguments)
        assert done.code == 2 and says in done.err, done


def test_a_family_that_cannot_is_refused(command: Callable[..., Any], here: Path) -> None:
    done = command(here / "gpt2", "the cat", "--window", 12)
    assert done.code == 1 and "cached tokens cannot be moved" in done.err


def test_the_ways_are_compared(command: Callable[..., Any], here: Path) -> None:
    options = ("--compare", "--window", 20, "--corpus", f"file:{here / 'text.jsonl'}", "--limit", 6)
    done = command(here / "model", *options)
    assert done.code == 0, done.err
    assert "6 ways of keeping 24 tokens, on 12 texts of 72" in done.err and "about 1 min here" in done.err
    assert "recomputation" in done.out and "sinks 8" in done.out and "Without sinks the loss is higher than with four" in done.out
    said = json.loads(command(here / "model", *options, "--json").out)
    assert said["cache"] == 24 and set(said["beyond_recomputation"]) == {way.name for way in streaming.WAYS}
    assert said["beyond_recomputation"]["recomputation"] == {"nats": 0.0, "low": 0.0, "high": 0.0}
    assert [row["measure"] for row in said["findings"]] == ["loss"] * 6 + ["loss_without_sinks", "closeness_with_sinks"]


def test_an_interrupted_comparison_decides_nothing(
    command: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(streaming, "streaming_losses", interrupted)
    options = ("--compare", "--window", 20, "--corpus", f"file:{here / 'text.jsonl'}")
    done = command(here / "model", *options)
    assert done.code == 1 and "Interrupted: nothing was decided" in done.err
