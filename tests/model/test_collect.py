"""Collections: rows are what a plain run records, a kill at any moment changes no bit, and memory does not grow."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

import innerworks as iw
from innerworks.errors import AtlasError, BrokenModel, TextError, UnknownSite, UsageError
from innerworks.model.collect import Activations, Rows, collect, reading, recipe, writing

SITES = ["L1.resid_post", "L*.mlp_out", "L2H3.z", "L2.z", "L0.neurons", "embed", "L1N7", "L1.q"]
TOLERANCE = dict(rtol=2e-4, atol=2e-5)  # batches of another shape round differently


def texts(count: int = 12, longest: int = 90) -> list[str]:
    """Texts of 1 to about 90 words, in no order of length."""
    lengths = [1 + (37 * i) % longest for i in range(count)]
    return [" ".join(f"w{30 + (7 * i + j * j) % 280}" for j in range(length)) for i, length in enumerate(lengths)]


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, hidden files included."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def small(tiny_model: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A collection in several shards, in windows of 24, made without interruption."""
    made = SimpleNamespace(model=tiny_model("llama"), texts=texts(), path=tmp_path_factory.mktemp("small") / "acts")
    made.options = dict(window=24, shard_tokens=100, batch_tokens=64)
    made.collect = lambda out, **more: collect(made.model, made.texts, SITES, out, **{**made.options, **more})
    made.read = made.collect(made.path)
    return made


def run_of_a_row(model: Any, words: list[str], position: int, window: int, site: str) -> torch.Tensor:
    """The activation at a position of a text, from a plain run on the window that it lies in."""
    start = position // window * window
    run = model.run(" ".join(words[start : start + window]), record=[site], logits="none")
    return run[site][0, position - start]


# --- what is stored ----------------------------------------------------------------------------------------------


def test_rows_are_what_a_plain_run_of_each_window_records(model: Any, tmp_path: Path) -> None:
    read = collect(model, texts(), SITES, tmp_path / "a", window=24, shard_tokens=100, batch_tokens=64)
    row = 0
    for text in texts():
        words = text.split()
        for start in range(0, len(words), 24):
            run = model.run(" ".join(words[start : start + 24]), record=SITES, logits="none")
            count = run.tokens.shape[1]
            for site in read.sites:
                torch.testing.assert_close(read[site][row : row + count], run[site][0], **TOLERANCE)
            assert torch.equal(read.tokens[row : row + count].long(), run.tokens[0])
            row += count
    assert row == len(read) == sum(len(text.split()) for text in texts())


def test_every_row_can_be_traced(small: SimpleNamespace) -> None:
    read = small.read
    expected = [(i, j) for i, text in enumerate(small.texts) for j in range(len(text.split()))]
    assert list(zip(read.document[:].tolist(), read.position[:].tolist(), strict=True)) == expected
    words = small.model.tokenizer.convert_ids_to_tokens(read.tokens[:].tolist())
    assert words == [word for text in small.texts for word in text.split()]
    assert read.documents == tuple(str(i) for i in range(12)) and read.domains == ("text",) * 12


def test_shapes_have_no_batch_and_no_position(small: SimpleNamespace) -> None:
    shapes = {site: tuple(small.read[site].shape[1:]) for site in small.read.sites}
    layers = {f"L{layer}.mlp_out": (32,) for layer in range(3)}
    expected = {"L1.resid_post": (32,), **layers, "L2H3.z": (8,), "L2.z": (4, 8), "L0.neurons": (48,), "embed": (32,), "L1N7": ()}
    assert shapes == {**expected, "L1.q": (4, 8)}
    assert small.read.index["sites"]["L2.z"]["axes"] == ["head", "d_head"]
    assert torch.equal(small.read["L2.z"][:][:, 3], small.read["L2H3.z"][:])


def test_shards_are_plain_safetensors_with_as_many_rows_as_said(small: SimpleNamespace) -> None:
    shards = [load_file(path) for path in sorted(small.path.glob("*.safetensors"))]
    assert len(shards) == len(small.read.index["shards"]) > 4
    for shard in shards:
        assert shard.keys() == {"tokens", "document", "position", *small.read.sites}
        assert {len(tensor) for tensor in shard.values()} == {len(shard["tokens"])} and len(shard["tokens"]) <= 100
    assert torch.equal(torch.cat([shard["L2.z"] for shard in shards]), small.read["L2.z"].load())


def test_later_windows_are_opened_as_the_tokenizer_opens_a_text(tiny_hf: Any, opening_tokenizer: Any, tmp_path: Path) -> None:
    model = iw.Model(tiny_hf("llama"), opening_tokenizer)
    words = texts(12)[3].split()[:20]
    read = collect(model, [" ".join(words)], "L2.resid_post", tmp_path / "a", window=8)
    assert read.tokens[:].tolist() == opening_tokenizer(" ".join(words))["input_ids"]  # each once, the opening too
    assert read.position[:].tolist() == list(range(21))
    second = model.run(" ".join(words[7:14]), record="L2.resid_post", logits="none")  # <end> and seven words
    torch.testing.assert_close(read["L2.resid_post"][8:15], second["L2.resid_post"][0, 1:], **TOLERANCE)


@pytest.mark.parametrize("opened", [False, True])
def test_skip_first_leaves_out_what_stands_first_in_a_window(
    opened: bool, tiny_hf: Any, tiny_tokenizer: Any, opening_tokenizer: Any, tmp_path: Path
) -> None:
    model = iw.Model(tiny_hf("gpt2"), opening_tokenizer if opened else tiny_tokenizer)
    text = " ".join(f"w{i}" for i in range(40, 60))
    read = collect(model, [text, "cat"], "L0.mlp_out", tmp_path / "a", window=8, skip_first=True)
    first = [0] if opened else [0, 8, 16]  # of 20 words; with an opening, position 0 is the opening's
    expected = [i for i in range(20 + opened) if i not in first] + [1] * opened
    assert read.position[:].tolist() == expected
    whole = collect(model, [text, "cat"], "L0.mlp_out", tmp_path / "b", window=8)
    keep = [i for i in range(len(whole)) if (int(whole.document[i]), int(whole.position[i])) in traces(read)]
    torch.testing.assert_close(whole["L0.mlp_out"][torch.tensor(keep)], read["L0.mlp_out"][:], **TOLERANCE)


def traces(read: Activations) -> set[tuple[int, int]]:
    return set(zip(read.document[:].tolist(), read.position[:].tolist(), strict=True))


def test_last_is_the_last_token_of_each_document_with_all_that_fits_before_it(small: SimpleNamespace, tmp_path: Path) -> None:
    read = small.collect(tmp_path / "last", positions="last", shard_tokens=5)
    assert read.document[:].tolist() == list(range(12))
    assert read.position[:].tolist() == [len(text.split()) - 1 for text in small.texts]
    assert len(read.index["shards"]) == 3
    for i, text in enumerate(small.texts):
        run = small.model.run(" ".join(text.split()[-24:]), record="L2.z", logits="none")
        torch.testing.assert_close(read["L2.z"][i], run["L2.z"][0, -1], **TOLERANCE)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 8e-3)])
def test_storage_is_rounded_and_nothing_else(dtype: str, tolerance: float, small: SimpleNamespace, tmp_path: Path) -> None:
    read = small.collect(tmp_path / "half", dtype=dtype)
    for site in read.sites:
        assert read[site].dtype == getattr(torch, dtype) == read[site][3:5].dtype
        assert torch.equal(read[site].load(), small.read[site].load().to(read[site].dtype))
        torch.testing.assert_close(read[site].load().float(), small.read[site].load(), rtol=tolerance, atol=1e-4)


def test_a_corpus_and_a_file_give_documents_and_domains(tiny_model: Any, tmp_path: Path) -> None:
    lines = [{"text": text, "id": f"d{i}", "domain": f"about{i % 2}"} for i, text in enumerate(texts(16))]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    corpus = iw.Corpus.open(f"file:{tmp_path / 't.jsonl'}")
    by_name = collect(tiny_model("gpt2"), corpus.name, "L0.z", tmp_path / "a")
    by_hand = collect(tiny_model("gpt2"), corpus, ["blocks.0.attn.hook_z"], tmp_path / "b")
    assert by_name.documents == tuple(d.id for d in corpus.documents) and set(by_name.domains) == {"about0", "about1"}
    assert by_name.settings["corpus"] == corpus.digest
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert torch.equal(by_hand["blocks.0.attn.hook_z"].load(), by_name["L0.z"].load())


def test_sites_asked_for_twice_are_stored_once(small: SimpleNamespace, tmp_path: Path) -> None:
    read = collect(small.model, ["cat dog"], ["L1.mlp_out", "L*.mlp_out", iw.Site.parse("L1.mlp_out")], tmp_path / "a")
    assert read.sites == ("L1.mlp_out", "L0.mlp_out", "L2.mlp_out")


def test_many_sites_make_small_shards(small: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "SHARD_BYTES", 40 * 32 * 4)
    read = collect(small.model, small.texts, "L0.mlp_out", tmp_path / "a", window=16)
    assert read.settings["shard_tokens"] == read.settings["batch_tokens"] == 40
    assert max(shard["rows"] for shard in read.index["shards"]) <= 40


def test_the_model_is_left_as_it_was(small: SimpleNamespace, tmp_path: Path, assert_untouched: Any) -> None:
    with assert_untouched(small.model):
        small.collect(tmp_path / "a")


# --- going on ----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def killed_at(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, nth: int, *, after: bool) -> None:
    whole, calls = getattr(where, name), iter(range(10_000))

    def call(*arguments: Any, **options: Any) -> Any:
        dies = next(calls) == nth
        if dies and not after:
            raise Killed
        done = whole(*arguments, **options)
        if dies:
            raise Killed
        return done

    monkeypatch.setattr(where, name, call)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("stage", "nth"),
    [("write", 0), ("write", 1), ("write", 2), ("write", 4), ("write", -1), ("run", 0), ("run", 1), ("run", 9), ("rename", 3)],
)
def test_a_kill_at_any_moment_changes_no_bit(
    stage: str, nth: int, after: bool, small: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nth = nth if nth >= 0 else 2 + len(small.read.index["shards"])  # the last write: that it is finished
    where, name = {"write": (writing.Unfinished, "write"), "run": (iw.Model, "run"), "rename": (Path, "replace")}[stage]
    with monkeypatch.context() as patch:
        killed_at(patch, where, name, nth, after=after)
        with pytest.raises(Killed):
            small.collect(tmp_path / "a")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").glob("shard-*.safetensors")}
    small.collect(tmp_path / "a")
    assert files(tmp_path / "a") == files(small.path)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # finished shards are not written again


def test_a_real_kill_in_the_middle_of_a_write_changes_no_bit(small: SimpleNamespace, tmp_path: Path) -> None:
    small.model.hf.save_pretrained(tmp_path / "m")
    small.model.tokenizer.save_pretrained(tmp_path / "m")
    (tmp_path / "t.json").write_text(json.dumps(small.texts))
    script = (
        "import json, os, signal, sys, torch, innerworks as iw\n"
        "torch.set_num_threads(1)\n"
        "whole, calls = os.fsync, iter(range(99))\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL) if next(calls) == 4 else whole(file)\n"
        "iw.collect(sys.argv[1], json.load(open(sys.argv[2])), ['L1.resid_post', 'L2.z'], sys.argv[3],\n"
        "           window=24, shard_tokens=100, batch_tokens=64)\n"
    )
    arguments = [sys.executable, "-c", script, *map(str, (tmp_path / "m", tmp_path / "t.json", tmp_path / "a"))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [name for name in files(tmp_path / "a") if name.startswith(".shard-00002")]  # half written
    model = iw.load(tmp_path / "m")
    for folder in ("a", "b"):
        collect(model, small.texts, ["L1.resid_post", "L2.z"], tmp_path / folder, **small.options)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_finished_collection_is_opened_without_running_the_model(
    small: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.path.iterdir()}
    monkeypatch.setattr(writing.Collecting, "_fill", None)
    assert len(small.collect(small.path)) == len(small.read)
    assert {path: path.stat().st_mtime_ns for path in small.path.iterdir()} == before


@pytest.mark.parametrize("how", ["missing", "cut short", "empty", "of another collection"])
def test_a_shard_that_is_missing_or_damaged_is_made_again(how: str, small: SimpleNamespace, tmp_path: Path) -> None:
    shutil.copytree(small.path, tmp_path / "a")
    shard = tmp_path / "a" / "shard-00002.safetensors"
    damage(shard, how)
    small.collect(tmp_path / "a")
    assert files(tmp_path / "a") == files(small.path)


def damage(shard: Path, how: str) -> None:
    content = shard.read_bytes()
    shard.unlink()
    if how == "cut short":
        shard.write_bytes(content[:-1])
    elif how == "empty":
        shard.write_bytes(b"")
    elif how == "of another collection":
        save_file({"tokens": torch.zeros(3)}, shard)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"window": 25}, "window: 24 there, 25 now"),
        ({"dtype": "float16"}, "dtype: float32 there, float16 now"),
        ({"skip_first": True}, "skip_first: False there, True now"),
        ({"positions": "last"}, "positions: all there, last now"),
        ({"shard_tokens": 99}, "shard_tokens: 100 there, 99 now"),
    ],
)
def test_other_settings_are_refused_by_name(changes: dict[str, Any], says: str, small: SimpleNamespace) -> None:
    before = files(small.path)
    with pytest.raises(AtlasError, match=says):
        small.collect(small.path, **changes)
    assert files(small.path) == before


def test_another_model_other_text_and_other_sites_are_refused_by_name(
    small: SimpleNamespace, tiny_hf: Any, tiny_model: Any
) -> None:
    other = tiny_hf("llama")
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    twin = iw.Model(other, small.model.tokenizer, name=small.model.name)
    with pytest.raises(AtlasError, match=r"something else \(weights: [0-9a-f]{12}\.\.\. there, [0-9a-f]{12}\.\.\. now\)"):
        collect(twin, small.texts, SITES, small.path, **small.options)
    with pytest.raises(AtlasError, match="model: tiny-llama there, tiny-gpt2 now"):
        collect(tiny_model("gpt2"), small.texts, SITES, small.path, **small.options)
    with pytest.raises(AtlasError, match="corpus: "):
        collect(small.model, small.texts[:-1], SITES, small.path, **small.options)
    with pytest.raises(AtlasError, match=r"sites: .* now\)"):
        collect(small.model, small.texts, SITES[:2], small.path, **small.options)


def test_force_replaces_a_collection_and_nothing_else(small: SimpleNamespace, tmp_path: Path) -> None:
    shutil.copytree(small.path, tmp_path / "a")
    small.collect(tmp_path / "a", shard_tokens=10_000, force=True)
    assert sorted(files(tmp_path / "a")) == ["documents.json", "index.json", "shard-00000.safetensors"]
    (tmp_path / "a" / "thesis.tex").write_text("years")
    before = files(tmp_path / "a")
    with pytest.raises(AtlasError, match=r"thesis\.tex.*left alone"):
        small.collect(tmp_path / "a", force=True)
    assert files(tmp_path / "a") == before


def test_a_folder_that_holds_something_else_is_left_alone(small: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    for out, force in ((tmp_path, False), (tmp_path, True), (tmp_path / "thesis.tex", False), (tmp_path / "thesis.tex", True)):
        with pytest.raises(AtlasError):
            small.collect(out, force=force)
    assert files(tmp_path) == {"thesis.tex": b"years"}


# --- what cannot be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sites", "error", "says"),
    [
        ("L1.pattern", UnknownSite, r"no row per token.*model\.run\("),
        ("L1H2.pattern", UnknownSite, "no row per token"),
        ("logits", UnknownSite, "is not collected"),
        ("L1", UnknownSite, "say which of its activations"),
        ("L9.z", UnknownSite, "3 layers"),
        ("L1H9.z", UnknownSite, "4 heads"),
        ("L1.resid_pots", UnknownSite, "Did you mean resid_post"),
        ("L1.z.F3", UnknownSite, "no sparse features"),
        ([], UsageError, "Say which sites"),
    ],
)
def test_sites_without_rows_are_refused_and_nothing_is_written(
    sites: Any, error: type[Exception], says: str, small: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        collect(small.model, small.texts, sites, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "float61"}, "Did you mean float16"),
        ({"positions": "first"}, "one of all, last"),
        ({"window": 193}, "192 positions"),
        ({"window": 0}, "at least 1"),
        ({"shard_tokens": 0}, "shard_tokens=0: at least 1"),
        ({"batch_tokens": -1}, "batch_tokens=-1: at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused_and_nothing_is_written(
    options: dict[str, Any], says: str, small: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        collect(small.model, small.texts, "L0.z", tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


def test_text_without_tokens_is_refused(small: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(TextError, match="Document '1' of texts holds no token"):
        collect(small.model, ["cat", " "], "L0.z", tmp_path / "a")
    with pytest.raises(UsageError, match="an empty one"):
        collect(small.model, [], "L0.z", tmp_path / "a")
    with pytest.raises(TextError, match="nothing is left"):
        collect(small.model, ["cat", "dog"], "L0.z", tmp_path / "a", skip_first=True)
    assert not (tmp_path / "a").exists()


def test_nan_is_refused_and_says_where(tiny_hf: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    hf = tiny_hf("llama", tie_word_embeddings=False)
    hf.model.embed_tokens.weight.data[100] = float("nan")
    model = iw.Model(hf, tiny_tokenizer, name="sick", certified=False)
    with pytest.raises(BrokenModel, match="sick computes NaN or infinity: embed at position 2 of document '1'"):
        collect(model, ["cat dog", "cat dog w100 cat"], "embed", tmp_path / "a")
    with pytest.raises(AtlasError, match="unfinished"):
        Activations.open(tmp_path / "a")


def test_too_large_for_float16_proposes_bfloat16(tiny_hf: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    hf = tiny_hf("llama", tie_word_embeddings=False)
    hf.model.embed_tokens.weight.data[100, 3] = 123_456.0
    model = iw.Model(hf, tiny_tokenizer, certified=False)
    where = (model, ["cat dog w100 cat"], "embed", tmp_path / "a")
    with pytest.raises(UsageError, match=r"position 2 .* reaches 123,456, .* float16 can hold \(65,504\)\. .* bfloat16"):
        collect(*where, dtype="float16")
    assert float(collect(*where, dtype="bfloat16", force=True)["embed"][2][3]) == pytest.approx(123_456, rel=8e-3)


def test_a_disk_that_is_too_small_is_found_out_before_the_work(
    small: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000))
    with pytest.raises(AtlasError, match=r"rows of [\d,]+ bytes take .* has 0\.00 MB left"):
        small.collect(tmp_path / "a")
    assert files(tmp_path / "a") == {}


def test_a_disk_that_fills_up_keeps_what_is_there(
    small: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        whole, calls = writing.Unfinished.write, iter(range(99))

        def write(self: Any, name: str, data: bytes) -> None:
            if next(calls) == 4:
                raise AtlasError("scan") from OSError(28, "No space left on device")
            whole(self, name, data)

        patch.setattr(writing.Unfinished, "write", write)
        with pytest.raises(AtlasError, match=r"shard-00002.* could not be written: No space left on device\. .*call again"):
            small.collect(tmp_path / "a")
    small.collect(tmp_path / "a")
    assert files(tmp_path / "a") == files(small.path)


# --- progress and memory -----------------------------------------------------------------------------------------


def test_progress_counts_tokens_read_to_the_end(small: SimpleNamespace, tmp_path: Path) -> None:
    seen: list[Any] = []
    small.collect(tmp_path / "a", progress=seen.append)
    tokens = sum(len(text.split()) for text in small.texts)
    assert seen[0].done == 0 and seen[-1].done == tokens == seen[0].total and seen[-1].rate > 0
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    (tmp_path / "a" / "shard-00000.safetensors").unlink()
    seen.clear()
    small.collect(tmp_path / "a", progress=seen.append)
    assert 0 < seen[0].done < tokens == seen[-1].done and seen[0].rate == 0


def test_memory_does_not_grow_with_the_corpus(tiny_model: Any, tmp_path: Path, unchecked: Any) -> None:
    model, process = tiny_model("gpt2"), psutil.Process()
    everything = [f"L*.{kind}" for kind in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "neurons")]

    def peak(documents: int, folder: str) -> tuple[int, int]:
        corpus = [" ".join(f"w{30 + (i + j) % 290}" for j in range(100)) for i in range(documents)]
        seen = [process.memory_info().rss]
        read = collect(
            model,
            corpus,
            everything,
            tmp_path / folder,
            shard_tokens=2048,
            progress=lambda _: seen.append(process.memory_info().rss),
        )
        assert len(read) == 100 * documents
        return max(seen), sum(path.stat().st_size for path in (tmp_path / folder).iterdir())

    peak(60, "warm")
    (small, _), (large, written) = peak(60, "small"), peak(900, "large")
    assert written > 250e6  # what memory would have grown by
    assert large - small < 60e6, f"{(large - small) / 1e6:.0f} MB more for 15 times the text"


# --- reading -----------------------------------------------------------------------------------------------------


def test_slices_cross_shards(small: SimpleNamespace) -> None:
    rows = small.read["L2.z"]
    whole = rows.load()
    assert rows.shape == whole.shape and rows.dtype == whole.dtype == torch.float32 and len(rows) == len(small.read)
    last = len(rows)
    for part in (slice(90, 310), slice(0, 1), slice(None), slice(-5, None), slice(5, 5), slice(9, 3), slice(last - 1, last + 99)):
        assert torch.equal(rows[part], whole[part])
    for part in (slice(3, 400, 7), slice(0, 0, 3)):
        assert torch.equal(rows[part], whole[part])
    assert torch.equal(rows[::-1], whole.flip(0))
    assert torch.equal(rows[101], whole[101]) and torch.equal(rows[-1], whole[-1])
    picked = torch.tensor([400, 3, 3, -1, 120])
    assert torch.equal(rows[picked], whole[picked]) and rows[picked[:0]].shape == (0, 4, 8)
    assert torch.equal(rows[[7, 300]], whole[[7, 300]])
    about = small.read.document[:] == 5
    assert torch.equal(rows[about], whole[about]) and len(rows[about]) == len(small.texts[5].split())
    for odd in (torch.zeros(2, 2), torch.ones(3, dtype=torch.bool)):
        with pytest.raises(UsageError, match=r"rows\[100:200\]\[:, 3\]"):
            rows[odd]
    for outside in (last, -last - 1):
        with pytest.raises(IndexError, match="was asked for"):
            rows[outside]


def test_what_was_read_can_be_changed_without_changing_the_file(small: SimpleNamespace) -> None:
    before = small.read["L2.z"][10:20]
    small.read["L2.z"][10:20].zero_()
    assert torch.equal(small.read["L2.z"][10:20], before) and bool(before.any())


def test_batches_hold_every_row_once(small: SimpleNamespace) -> None:
    rows = small.read["L1.resid_post"]
    in_order = list(rows.batches(64))
    assert torch.equal(torch.cat(in_order), rows.load()) and {len(batch) for batch in in_order[:-1]} == {64}
    shuffled = torch.cat(list(rows.batches(64, generator=torch.Generator().manual_seed(3))))
    again = torch.cat(list(rows.batches(64, generator=torch.Generator().manual_seed(3))))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(3))
    assert torch.equal(shuffled, again) and torch.equal(shuffled, rows.load()[order])
    with pytest.raises(UsageError, match="at least 1"):
        next(rows.batches(0))


def test_load_refuses_what_is_too_much_and_says_how_much(small: SimpleNamespace) -> None:
    rows = small.read["L2.z"]
    assert rows.nbytes == len(rows) * 128
    with pytest.raises(UsageError, match=r"takes 0\.\d\d MB, more than limit=1,000 bytes"):
        rows.load(limit=1_000)


def test_only_so_many_files_are_open(small: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "OPEN_FILES", 2)
    read = Activations.open(small.path)
    rows = read["L2.z"]
    assert read._files._open == {}  # nothing is opened before it is asked for
    assert torch.equal(rows.load(), small.read["L2.z"].load()) and len(read._files._open) == 2


def test_representations_say_what_is_there(small: SimpleNamespace) -> None:
    assert "12 documents" in repr(small.read) and "L2.z" in repr(small.read)
    assert isinstance(small.read["L2.z"], Rows) and "torch.float32" in repr(small.read["L2.z"])


def test_a_site_that_was_not_collected_is_refused_with_near_misses(small: SimpleNamespace) -> None:
    with pytest.raises(UnknownSite, match=r"L1\.resid_pre was not collected .*Did you mean L1\.resid_post"):
        small.read["L1.resid_pre"]
    with pytest.raises(UnknownSite, match="no kind of site"):
        small.read["L1.residual"]


def test_what_is_no_finished_collection_is_not_opened(small: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="There is no folder"):
        Activations.open(tmp_path / "none")
    with pytest.raises(AtlasError, match="is no collection"):
        Activations.open(tmp_path)
    shutil.copytree(small.path, tmp_path / "a")
    index = json.loads((tmp_path / "a" / "index.json").read_text())
    for content, says in (
        ({**index, "finished": False}, r"unfinished collection: \d+ of \d+ shards are there\. Go on with the same"),
        ({**index, "schema": 99}, "has schema 99"),
        ({"schema": 1}, "damaged"),
        ([], "damaged"),
    ):
        (tmp_path / "a" / "index.json").write_text(json.dumps(content))
        with pytest.raises(AtlasError, match=says):
            Activations.open(tmp_path / "a")
    (tmp_path / "a" / "index.json").write_text("{")
    with pytest.raises(AtlasError, match="damaged"):
        Activations.open(tmp_path / "a")


def test_a_missing_shard_is_found_out_at_once_and_a_damaged_one_when_it_is_read(small: SimpleNamespace, tmp_path: Path) -> None:
    shutil.copytree(small.path, tmp_path / "a")
    shard = tmp_path / "a" / "shard-00002.safetensors"
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(AtlasError, match=r"lacks 1 shards \(shard-00002.*the same arguments"):
        Activations.open(tmp_path / "a")
    shard.write_bytes(content[:-7])
    read = Activations.open(tmp_path / "a")
    assert torch.equal(read["L2.z"][:50], small.read["L2.z"][:50])
    with pytest.raises(AtlasError, match=r"shard-00002.*damaged"):
        read["L2.z"].load()
    save_file({"L2.z": torch.zeros(3, 4, 8)}, shard)
    with pytest.raises(AtlasError, match=r"holds L2\.z as \(3, 4, 8\)"):
        Activations.open(tmp_path / "a")["L2.z"].load()
    (tmp_path / "a" / "documents.json").unlink()
    with pytest.raises(AtlasError, match=r"documents\.json is missing"):
        read.documents  # noqa: B018


# --- a real model ------------------------------------------------------------------------------------------------


@pytest.mark.specimen
def test_the_specimen_on_a_few_documents(specimen: Any, tmp_path: Path) -> None:
    corpus = iw.Corpus.open("builtin").sample(1)
    sites = ["L12.resid_post", "L5H3.z", "L29.neurons"]
    read = collect(specimen, corpus, sites, tmp_path / "a", window=64, dtype="bfloat16", skip_first=True)
    assert len(read.documents) == 10 and len(read) > 1_500 and read["L12.resid_post"].shape[1] == 576
    assert 0 not in read.position[:].tolist()
    text = corpus.documents[4].text
    ids = specimen.tokenizer(text)["input_ids"][64:128]
    run = specimen.run(torch.tensor([ids]), record=sites, logits="none")
    here = torch.nonzero((read.document[:] == 4) & (read.position[:] > 64) & (read.position[:] < 128)).flatten()
    assert read.tokens[here].tolist() == ids[1:]
    for site in sites:
        torch.testing.assert_close(read[site][here].float(), run[site][0, 1:], rtol=1e-2, atol=1e-2)
