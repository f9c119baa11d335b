"""The command as people and machines use it: exit codes, one line for a mistake, JSON for machines, help that is quick."""

import contextlib
import functools
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VERBS = ("scan", "report", "show", "models", "collect", "phantoms", "lens", "attribute")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def command() -> Iterator[Callable[..., Done]]:
    """`command("show", folder)`: the whole command in this process, `main.run` included."""
    import torch

    import innerworks.scan.run as run
    from innerworks.cli import main, screen

    threads, whole, consoles = torch.get_num_threads(), run.read, (screen.errors, screen.output)
    torch.set_num_threads(1)
    run.read = functools.partial(whole, sequences=32)  # type: ignore[assignment]

    def call(*arguments: Any) -> Done:
        out, err = io.StringIO(), io.StringIO()
        before, sys.argv = sys.argv, ["innerworks", *map(str, arguments)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                screen.errors, screen.output = screen.console(stderr=True), screen.console()
                main.run()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            sys.argv = before
        return Done(code, out.getvalue(), err.getvalue())

    yield call
    run.read = whole
    screen.errors, screen.output = consoles
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model/` and `text.jsonl`, as a person would have them."""
    from innerworks.phantoms import build

    folder = tmp_path_factory.mktemp("cli")
    made = build("llama", seed=0)
    made.hf.save_pretrained(folder / "model")
    made.tokenizer.save_pretrained(folder / "model")
    lines = [json.dumps({"text": text}) for text in made.documents(26, words=60)]
    (folder / "text.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def scanned(command: Callable[..., Done], phantom: Path) -> Done:
    """What `innerworks scan --json` said; the atlas is in `phantom/a.atlas`."""
    return command("scan", phantom / "model", "-o", phantom / "a.atlas", *text(phantom), "--depth", "quick", "--json")


def text(phantom: Path) -> tuple[str, str]:
    return "--corpus", f"file:{phantom / 'text.jsonl'}"


def assert_mistake(done: Done, code: int, *says: str) -> None:
    """One message on standard error, nothing on standard output, no traceback."""
    assert done.code == code, done
    assert "Traceback" not in done.err and done.out == ""
    message = done.err[done.err.rindex("innerworks: ") :]
    for part in says:
        assert part in message, message
    assert len(message.strip().splitlines()) == 1


# --- help --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, command: Callable[..., Done]) -> None:
    done = command(verb, "--help")
    assert done.code == 0 and f"innerworks {verb}" in done.out and len(done.out) > 200 and done.err == ""


def test_the_help_names_every_verb(command: Callable[..., Done]) -> None:
    done = command("--help")
    assert done.code == 0 and all(f"  {verb}" in done.out for verb in VERBS)


def test_the_version_is_that_of_the_package(command: Callable[..., Done]) -> None:
    import innerworks

    assert command("--version").out.strip() == f"innerworks {innerworks.__version__}"


@pytest.mark.parametrize("arguments", [["--help"], ["scan", "--help"], ["show", "--help"], ["--version"]], ids=str)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nsys.argv = ['innerworks', *sys.argv[1:]]\nfrom innerworks.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "heavy = {'torch', 'transformers', 'polars', 'plotly', 'scipy', 'numpy', 'safetensors'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), code or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip().splitlines()[-1] == "HEAVY [] 0", done


def test_the_command_is_installed_and_exits_with_its_code() -> None:
    command = Path(sys.executable).with_name("innerworks")
    arguments = [str(command)] if command.exists() else [sys.executable, "-m", "innerworks.cli.main"]
    good = subprocess.run([*arguments, "--version"], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stderr) == (0, "") and good.stdout.startswith("innerworks ")
    bad = subprocess.run([*arguments, "show", "/no/such.atlas"], capture_output=True, text=True, check=False)
    assert bad.returncode == 1 and bad.stderr.startswith("innerworks: There is no folder /no/such.atlas")
    unknown = subprocess.run([*arguments, "scam"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2 and "Traceback" not in unknown.stderr


# --- what works --------------------------------------------------------------------------------------------------


def test_scan_prints_one_json_object_and_writes_an_atlas(scanned: Done, phantom: Path) -> None:
    assert scanned.code == 0, scanned.err
    said = json.loads(scanned.out)
    assert said["atlas"] == str(phantom / "a.atlas") and Path(said["report"]).is_file()
    assert {"behaviour", "site", "rung", "q", "note"} == set(said["labels"][0])
    assert any(label["behaviour"] == "induction" for label in said["labels"])
    assert "about" in scanned.err and "reading" in scanned.err  # the plan and the progress


def test_show_prints_the_summary_or_one_head(scanned: Done, command: Callable[..., Done], phantom: Path) -> None:
    site = next(label["site"] for label in json.loads(scanned.out)["labels"] if label["behaviour"] == "induction")
    summary, head = command("show", phantom / "a.atlas"), command("show", phantom / "a.atlas", site)
    assert summary.code == head.code == 0
    assert "induction" in summary.out and site in summary.out and site in head.out and "induction" in head.out


def test_show_as_json_is_json_without_nan(scanned: Done, command: Callable[..., Done], phantom: Path) -> None:
    labels = json.loads(command("show", phantom / "a.atlas", "--json").out, parse_constant=refuse)
    assert isinstance(labels, dict) and len(labels["labels"]) == len(json.loads(scanned.out)["labels"])
    head = json.loads(command("show", phantom / "a.atlas", "L1H0", "--json").out, parse_constant=refuse)
    assert head["site"] == "L1H0" and {row["site"] for row in head["findings"]} == {"L1H0"} and len(head["findings"]) >= 13
    assert {"labels", "partners", "layer", "examples"} <= head.keys()
    site = next(label["site"] for label in labels["labels"] if label["behaviour"] == "induction")
    shown = json.loads(command("show", phantom / "a.atlas", site, "--json").out, parse_constant=refuse)
    assert "induction" in {label["behaviour"] for label in shown["labels"]}
    example = next(one for one in shown["examples"] if one["behaviour"] == "induction")
    assert len(example["raised"]) == len(example["lowered"]) == 5 and len(example["pattern"]) == len(example["tokens"])


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_report_writes_the_page_again(scanned: Done, command: Callable[..., Done], phantom: Path) -> None:
    page = phantom / "a.atlas" / "report.html"
    page.unlink()
    done = command("report", phantom / "a.atlas")
    assert done.code == 0 and str(page) in done.out and page.stat().st_size > 100_000


def test_models_lists_families_and_specimens(command: Callable[..., Done]) -> None:
    words, data = command("models"), json.loads(command("models", "--json").out)
    assert words.code == 0
    assert {"gpt2", "llama"} <= set(data["families"]) and "smollm2-135m-instruct" in data["specimens"]
    assert all(family in words.out for family in data["families"])


def test_a_plan_is_said_and_nothing_is_written(command: Callable[..., Done], phantom: Path, tmp_path: Path) -> None:
    arguments = ("scan", phantom / "model", "-o", tmp_path / "b", *text(phantom), "--plan")
    done, data = command(*arguments), command(*arguments, "--json")
    assert done.code == data.code == 0 and "tokens/s" in done.out and not (tmp_path / "b").exists()
    assert json.loads(data.out)["documents"] == 26 and json.loads(data.out)["depth"] == "standard"


@pytest.mark.parametrize("name", ["model[v2].atlas", "a[bold]", ":x:", "b[/bold]"])
def test_names_of_folders_are_printed_letter_for_letter(
    name: str, scanned: Done, command: Callable[..., Done], phantom: Path, tmp_path: Path
) -> None:
    folder = tmp_path / name
    shutil.copytree(phantom / "a.atlas", folder)
    assert command("report", folder).out == f"Report: {folder / 'report.html'}\n"
    for verb in ("show", "claims"):
        assert command(verb, folder).code == 0
        assert json.loads(command(verb, folder, "--json").out)["atlas"] == str(folder)


def test_a_scan_says_the_names_of_its_folder_and_its_model_letter_for_letter(
    command: Callable[..., Done], phantom: Path, tmp_path: Path
) -> None:
    model, folder = tmp_path / "m[v2]", tmp_path / "a[bold]"
    shutil.copytree(phantom / "model", model)
    done = command("scan", model, "-o", folder, *text(phantom), "--depth", "quick")
    assert f"Atlas:    {folder}\n" in done.out and f"One part: innerworks show {folder} L" in done.out
    assert "m[v2], " in done.err  # the plan
    plan = command("scan", model, "-o", folder, *text(phantom), "--plan")
    assert plan.out.startswith("m[v2], ")


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_a_finished_atlas_is_not_replaced_without_force(scanned: Done, command: Callable[..., Done], phantom: Path) -> None:
    before = (phantom / "a.atlas" / "manifest.json").read_bytes()
    done = command("scan", phantom / "model", "-o", phantom / "a.atlas", *text(phantom))
    assert_mistake(done, 1, "finished atlas already", "--force")
    assert (phantom / "a.atlas" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--depth", "quik"), 2, "Did you mean quick"),
        (("--limit", "0"), 2, "at least 1"),
        (("--limit", "4"), 1, "documents"),
        (("--device", "warp"), 2, "no device"),
        (("--dtype", "float31"), 2, "float32"),
        (("--corpus", "bultin"), 2, "Did you mean builtin"),
        (("--corpus", "file:/no/such.jsonl"), 1, "There is no file /no/such.jsonl"),
        (("--corpus", "file:/etc/hostname"), 1, "what can be read is"),
        (("--corpus", "file:/dev/null/x.txt"), 1, "/dev/null/x.txt cannot be read: Not a directory"),
        (("--resume",), 1, "nothing to resume"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line_and_an_exit_code_and_writes_nothing(
    options: tuple[str, ...], code: int, says: str, command: Callable[..., Done], phantom: Path, tmp_path: Path
) -> None:
    corpus = () if "--corpus" in options else text(phantom)
    done = command("scan", phantom / "model", "-o", tmp_path / "b", *corpus, *options)
    assert_mistake(done, code, says)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("model", "code", "says"),
    [("./none", 2, "is no folder"), ("a/b/c", 2, "is no folder a/b/c"), ("", 2, "config.json")],
)
def test_a_model_that_is_not_there_is_a_mistake_of_usage(
    model: str, code: int, says: str, command: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_mistake(command("scan", model, "-o", tmp_path / "b"), code, says)


def test_a_folder_that_holds_something_else_is_left_alone(command: Callable[..., Done], phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    assert_mistake(command("scan", phantom / "model", "-o", tmp_path, *text(phantom), "--force"), 1, "left alone")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(("site", "says"), [("L99H0", "There is no L99H0"), ("L99N0", "There is no"), ("head 3", "head 3")])
def test_an_unknown_head_is_a_mistake_of_usage(
    site: str, says: str, scanned: Done, command: Callable[..., Done], phantom: Path
) -> None:
    for options in ((), ("--json",)):
        assert_mistake(command("show", phantom / "a.atlas", site, *options), 2, says)


def test_what_is_no_atlas_is_refused_by_show_and_report(command: Callable[..., Done], tmp_path: Path) -> None:
    for verb in ("show", "report"):
        assert_mistake(command(verb, tmp_path), 1, "is no atlas")
        assert_mistake(command(verb, tmp_path / "none"), 1, "There is no folder")


def test_ctrl_c_says_how_to_go_on(command: Callable[..., Done], phantom: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("innerworks.scan.run.plan", interrupt)
    done = command("scan", phantom / "model", "-o", tmp_path / "b", *text(phantom))
    assert done.code == 1 and "--resume" in done.err and "Traceback" not in done.err


def test_phantoms_that_make_no_sense_are_a_mistake_of_usage(command: Callable[..., Done]) -> None:
    assert_mistake(command("phantoms", "--draws", "1", "--amplitude", "0"), 2, "amplitude")
    assert_mistake(command("phantoms", "--draws", "0"), 2, "draws")


@pytest.mark.parametrize("figure", ["none/figure.html", "."])
def test_a_figure_that_cannot_be_written_is_said_before_the_work(
    figure: str, command: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("innerworks.phantoms.curves.curves", lambda **options: pytest.fail("the work has begun"))
    assert_mistake(command("phantoms", "--curves", "--figure", tmp_path / figure), 2, "--figure", figure)
