"""`innerworks models` and `innerworks certify` as people and machines use them: tables, JSON, exit codes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from innerworks.model.adapters import FAMILIES
from innerworks.model.adapters.described import COLUMNS


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def command() -> Iterator[Callable[..., Done]]:
    """`command("models", "--json")` in this process, on a wide screen; a failure's line as `main.run` would print it."""
    from innerworks.cli import screen
    from innerworks.cli.main import app
    from innerworks.errors import InnerworksError, UsageError

    threads, consoles = torch.get_num_threads(), (screen.errors, screen.output)
    torch.set_num_threads(1)

    def call(*arguments: Any, width: int = 220) -> Done:
        screen.errors = screen.console(stderr=True, width=width)
        screen.output = screen.console(width=width)
        done = CliRunner().invoke(app, [str(one) for one in arguments])
        if isinstance(done.exception, InnerworksError):
            return Done(2 if isinstance(done.exception, UsageError) else 1, done.stdout, f"{done.exception}")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    yield call
    screen.errors, screen.output = consoles
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def saved(tiny_hf: Callable[..., Any], tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`saved("llama")`: a folder that save_pretrained wrote."""

    def save(family: str) -> Path:
        folder = tmp_path_factory.getbasetemp() / f"certify-{family}"
        if not folder.exists():
            tiny_hf(family).save_pretrained(folder)
            tiny_tokenizer.save_pretrained(folder)
        return folder

    return save


# --- models ------------------------------------------------------------------------------------------------------


def test_every_family_has_a_row_with_all_that_its_adapter_says(command: Callable[..., Done]) -> None:
    lines = command("models").out.splitlines()
    assert lines[0].startswith("Families") and lines[1].split()[: len(COLUMNS)][:2] == ["family", "patterns"]
    rows = {line.split()[0]: line for line in lines if line.split() and line.split()[0] in FAMILIES}
    assert list(rows) == list(FAMILIES)
    for family, adapter in FAMILIES.items():
        assert ("recorded only" in rows[family]) == (adapter.attention_code == "own")
        assert all(name in rows[family] for name in adapter.classes)
        assert all(f"{option}={handled}" in rows[family] for option, (handled, _) in adapter.refused.items())
        assert ("mixture of experts" in rows[family]) == (adapter.experts is not None)
    assert "smollm2-135m-instruct" in lines[-1]


@pytest.mark.parametrize("width", [80, 60])
def test_on_a_narrow_screen_nothing_is_cut_off(command: Callable[..., Done], width: int) -> None:
    done = command("models", width=width)
    assert "…" not in done.out and all(len(line) <= width for line in done.out.splitlines())
    assert all(any(line.startswith(f"{family} ") for line in done.out.splitlines()) for family in FAMILIES)


def test_the_same_as_json(command: Callable[..., Done]) -> None:
    data = json.loads(command("models", "--json").out)
    assert list(data["families"]) == list(FAMILIES)
    assert data["families"]["falcon"] == {
        "family": "falcon",
        "patterns": "recorded only",
        "layout": ["rotary", "parallel (new_decoder_architecture, parallel_attn)"],
        "only_with": ["alibi=False"],
        "classes": ["FalconForCausalLM"],
    }
    assert set(data["specimens"]["smollm2-135m-instruct"]) == {"says", "cached"}


def test_the_help_says_what_the_words_of_the_table_mean(command: Callable[..., Done]) -> None:
    said = " ".join(command("models", "--help").out.split())
    table = " ".join(command("models").out.split())
    for word in ("rotary", "parallel", "post-norm", "post-LN stream", "QK-norm", "mixture of experts"):
        assert word in said and word in table
    assert "innerworks certify" in said and "docs/families.md" in said


# --- certify -----------------------------------------------------------------------------------------------------


def test_certify_shows_every_check_with_its_numbers(
    command: Callable[..., Done], saved: Callable[[str], Path], tiny_model: Any
) -> None:
    done = command("certify", saved("llama"))
    assert done.code == 0, done
    certificate = tiny_model("llama").certificate
    rows = [line for line in done.out.splitlines() if line.endswith("yes") or line.split()[-1:] == ["yes"]]
    assert len(rows) == len(certificate.checks)
    for row, check in zip(rows, certificate.checks, strict=True):
        assert row.startswith(check.what) and f"{check.allowed:.2g}" in row
    assert f"All {len(rows)} checks passed." in done.out and " s, loading included." in done.out
    assert "certify-llama in float32" in done.out and "left out" not in done.out


def test_certify_names_what_is_left_out(command: Callable[..., Done], saved: Callable[[str], Path]) -> None:
    done = command("certify", saved("opt-post-norm"))
    assert done.code == 0 and "left out: the stream is the sum of what is added: it is normed after each addition" in done.out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_certify_as_json(command: Callable[..., Done], saved: Callable[[str], Path], dtype: str) -> None:
    done = command("certify", saved("gpt2"), "--dtype", dtype, "--json")
    said = json.loads(done.out)
    assert done.code == 0 and set(said) == {"model", "dtype", "passed", "checks", "left_out", "seconds"}
    assert said["passed"] is True and said["dtype"] == dtype and said["left_out"] == [] and said["seconds"] > 0
    assert all(set(check) == {"what", "difference", "allowed", "passed"} and check["passed"] for check in said["checks"])
    assert {check["allowed"] for check in said["checks"]} == {0, 1e-4 if dtype == "float32" else 0.05}


def test_a_failure_shows_the_same_table_and_is_an_exit_code(
    command: Callable[..., Done], saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from innerworks.model import attention

    monkeypatch.setattr(attention, "repeat_kv", lambda x, groups: x.repeat(1, groups, 1, 1))
    done, data = command("certify", saved("llama")), command("certify", saved("llama"), "--json")
    assert done.code == data.code == 1
    failed = [line for line in done.out.splitlines() if line.split()[-1:] == ["NO"]]
    passed = [line for line in done.out.splitlines() if line.split()[-1:] == ["yes"]]
    assert any(line.startswith("logits with attention and experts opened up") for line in failed) and len(passed) > 5
    assert f"{len(failed)} of {len(failed) + len(passed)} checks failed" in done.out
    said = json.loads(data.out, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert said["passed"] is False and [check["passed"] for check in said["checks"]].count(False) == len(failed)


def test_a_difference_that_is_no_number_is_said_so(
    command: Callable[..., Done], saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from innerworks.model import attention

    monkeypatch.setattr(attention, "repeat_kv", lambda x, groups: x.repeat(1, groups, 1, 1) * float("nan"))
    done, data = command("certify", saved("llama")), command("certify", saved("llama"), "--json")
    assert done.code == data.code == 1 and "no number" in done.out
    said = json.loads(data.out, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert any(check["difference"] is None and not check["passed"] for check in said["checks"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("/no/such",), 2, "no folder /no/such"),
        (("LLAMA", "--dtype", "int3"), 2, "dtype='int3'"),
        (("LLAMA", "--device", "warp"), 2, "no device"),
    ],
)
def test_a_mistake_is_said_and_is_another_exit_code(
    command: Callable[..., Done], saved: Callable[[str], Path], arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = command("certify", *(saved("llama") if one == "LLAMA" else one for one in arguments))
    assert done.code == code and says in done.err and done.out == ""


def test_broken_weights_are_an_error_and_no_table(
    command: Callable[..., Done], tiny_hf: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    hf = tiny_hf("llama")
    with torch.no_grad():
        hf.model.norm.weight[0] = float("nan")
    hf.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    done = command("certify", tmp_path)
    assert done.code == 1 and "model.norm.weight" in done.err and done.out == ""


def test_the_help_teaches(command: Callable[..., Done]) -> None:
    said = " ".join(command("certify", "--help").out.split())
    for part in (
        "Exit code: 0 all passed, 1 some failed, 2 bad usage",
        "difference",
        "allowed",
        "left out",
        "--revision",
        "--json",
    ):
        assert part in said
    assert "certify" in command("--help").out
