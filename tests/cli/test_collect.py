"""`innerworks collect` as people use it: model and sites told apart, exit codes, how to go on."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import innerworks as iw


@pytest.fixture(scope="module")
def command(verb: Callable[..., Any]) -> Callable[..., Any]:
    """`innerworks collect` with these arguments."""
    return functools.partial(verb, "collect")


@pytest.fixture(scope="module")
def here(tiny_hf: Callable[..., Any], tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model/` and `text.jsonl`, as a person would have them."""
    folder = tmp_path_factory.mktemp("collect")
    tiny_hf("llama").save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    lines = [{"text": " ".join(f"w{30 + (i * j) % 280}" for j in range(40 + i)), "id": f"d{i}"} for i in range(1, 9)]
    (folder / "text.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def text(here: Path) -> tuple[str, str]:
    return "--corpus", f"file:{here / 'text.jsonl'}"


def test_help_teaches_with_examples(command: Callable[..., Any]) -> None:
    done = command("--help")
    assert done.code == 0 and "[MODEL] [SITE]..." in done.out and "innerworks collect L12.resid_post -o acts" in done.out
    assert "Activations.open" in done.out and "--positions" in done.out


def test_a_collection_is_written_and_said(command: Callable[..., Any], here: Path) -> None:
    done = command(here / "model", "L1.resid_post", "L*.mlp_out", "-o", here / "a", *text(here))
    assert done.code == 0, done.err
    assert "356 rows of 8 documents" in done.out and "L1.resid_post" in done.out and "collecting: 356 / 356 tokens" in done.err
    read = iw.Activations.open(here / "a")
    assert len(read) == 356 and read.sites == ("L1.resid_post", "L0.mlp_out", "L1.mlp_out", "L2.mlp_out")
    again = command(here / "model", "L1.resid_post", "L*.mlp_out", "-o", here / "a", *text(here), "--json")
    said = json.loads(again.out)
    assert said["rows"] == 356 and said["sites"]["L1.resid_post"] == [356, 32] and "collecting" not in again.err


def test_options_reach_the_collection(command: Callable[..., Any], here: Path) -> None:
    options = (
        "--window",
        "16",
        "--store",
        "float16",
        "--shard",
        "50",
        "--batch",
        "99",
        "--skip-first",
        "--limit",
        "5",
        "--dtype",
        "bfloat16",
    )
    done = command(here / "model", "L1H2.z", "-o", here / "b", *text(here), *options, "--json")
    assert done.code == 0, done.err
    settings = iw.Activations.open(here / "b").settings
    said = {key: settings[key] for key in ("window", "dtype", "shard_tokens", "batch_tokens", "skip_first")}
    assert said == {"window": 16, "dtype": "float16", "shard_tokens": 50, "batch_tokens": 99, "skip_first": True}
    assert settings["computed_in"] == "bfloat16"
    assert json.loads(done.out)["documents"] == 5 and json.loads(done.out)["dtype"] == "float16"
    last = command(here / "model", "L1H2.z", "-o", here / "b", *text(here), "--positions", "last", "--force", "--json")
    assert json.loads(last.out)["rows"] == 8


def test_without_a_model_the_first_word_is_a_site() -> None:
    from innerworks.cli.collect import _told_apart
    from innerworks.model.specimen import DEFAULT

    assert _told_apart(["L12.resid_post", "embed"]) == (DEFAULT, ["L12.resid_post", "embed"])
    assert _told_apart(["L*.mlp_out"]) == (DEFAULT, ["L*.mlp_out"])
    assert _told_apart(["embed"]) == (DEFAULT, ["embed"])
    assert _told_apart(["blocks.3.hook_resid_post"]) == (DEFAULT, ["blocks.3.hook_resid_post"])
    assert _told_apart(["meta-llama/Llama-3.2-1B", "L1.z"]) == ("meta-llama/Llama-3.2-1B", ["L1.z"])
    assert _told_apart(["LLaMA", "L1.z"]) == ("LLaMA", ["L1.z"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("{model}",), 2, "Which sites of"),
        (("{model}", "L1.pattern"), 2, "no row per token"),
        (("{model}", "L1.resid_pots"), 2, "Did you mean resid_post"),
        (("{model}", "L7.z"), 2, "3 layers"),
        (("{model}", "L1.z", "--store", "float8"), 2, "one of float32"),
        (("{model}", "L1.z", "--positions", "frist"), 2, "one of all, last"),
        (("{model}", "L1.z", "--limit", "0"), 2, "at least 1"),
        (("{model}", "L1.z", "--window", "999"), 2, "192 positions"),
        (("./none", "L1.z"), 2, "There is no folder ./none"),
        ((), 2, "Which sites?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_an_exit_code_and_writes_nothing(
    arguments: tuple[str, ...], code: int, says: str, command: Callable[..., Any], here: Path, tmp_path: Path
) -> None:
    words = [word.format(model=here / "model") for word in arguments]
    done = command(*words, "-o", tmp_path / "c", *text(here))
    assert done.code == code and says in done.err and done.out == ""
    assert not (tmp_path / "c").exists()


def test_a_folder_with_another_collection_is_a_failure(command: Callable[..., Any], here: Path, tmp_path: Path) -> None:
    assert command(here / "model", "L1.z", "-o", tmp_path / "c", *text(here)).code == 0
    done = command(here / "model", "L2.z", "-o", tmp_path / "c", *text(here))
    assert done.code == 1 and "sites: L1.z there, L2.z now" in done.err
    assert command(here / "model", "L2.z", "-o", tmp_path / "c", *text(here), "--force").code == 0


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(
    command: Callable[..., Any], here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from innerworks.model.collect.writing import Collecting

    arguments = (here / "model", "L1.z", "-o", tmp_path / "c", *text(here), "--shard", "60")
    with monkeypatch.context() as patch:
        whole, calls = Collecting._shard, iter(range(99))

        def interrupted(self: Any, shard: Any) -> bytes:
            if next(calls) == 2:
                raise KeyboardInterrupt
            return whole(self, shard)

        patch.setattr(Collecting, "_shard", interrupted)
        done = command(*arguments)
    assert done.code == 1 and "the same command goes on" in done.err and done.out == ""
    assert len(list((tmp_path / "c").glob("*.safetensors"))) == 2
    assert command(*arguments).code == 0 and len(iw.Activations.open(tmp_path / "c")) == 356
