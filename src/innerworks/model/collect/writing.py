"""Activations of any sites over any corpus, on disk: what probes, sparse coders and steering vectors are made from.

1. Documents become tokens as the tokenizer itself makes them; long ones are cut into windows one after the other, each opened
   as the tokenizer opens a text. Openings that are repeated for later windows are read, not stored: every token is stored once.
2. Windows are dealt, in order, to shards of about as many rows; a shard's windows run in batches of similar length, padded on
   the right. What a shard holds depends on nothing outside of it, so any shard can be made at any time, bit for bit the same.
3. A shard is a safetensors file with one row per token: `tokens`, `document`, `position`, and a tensor per site. It appears
   whole or not at all, and is never written again: a collection that was killed goes on with the first shard it lacks.
4. `index.json` says what was collected, and at the end that it is finished.

`Activations` reads the folder without a model, and nothing before it is asked for. Attention patterns are not collected: they
have no row per token. Bit for bit is meant for one machine: another number of threads or another device rounds differently.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, islice
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from innerworks.atlas import Unfinished
from innerworks.errors import AtlasError, BrokenModel, TextError, UsageError
from innerworks.model.collect import folder
from innerworks.model.collect.reading import Activations
from innerworks.model.collect.recipe import TRACE, Options, Recipe, corpus_of, recipe_of
from innerworks.model.collect.shards import Shard, Window, batches_of, shards_of, windows_of
from innerworks.model.load import DTYPES, load
from innerworks.model.model import Model
from innerworks.sites import Site
from innerworks.text import Corpus


@dataclass(frozen=True, kw_only=True)
class Headway:
    """How far a collection is: tokens read of all that are to be read, and how many per second since this run began."""

    done: int
    total: int
    rate: float


Progress = Callable[[Headway], None]


def collect(
    model: Model | str | Path | None,
    corpus: str | Corpus | Sequence[str],
    sites: str | Site | Sequence[str | Site],
    out: str | Path,
    *,
    dtype: str | None = None,
    window: int | None = None,
    positions: str = "all",
    skip_first: bool = False,
    shard_tokens: int | None = None,
    batch_tokens: int | None = None,
    force: bool = False,
    progress: Progress = lambda headway: None,
) -> Activations:
    """Collect the activations of sites over a corpus into a folder, one row per token.

    model: a Model, or anything `load` takes; None is the default specimen. corpus: see `Corpus.open`, or a list of texts,
    each of which is a document named by its number. sites: `["L12.resid_post", "L*.mlp_out", "L5H3.z"]`.
    dtype: float32, float16 or bfloat16, in which activations are stored (the model's own where not said).
    window: tokens that the model sees at once, at most (512, or what it allows).
    positions: all, or last: only the last token of each document, with as much before it as a window holds.
    skip_first: leave out what stands first in its window, where many models keep a huge activation that means nothing.
    shard_tokens: rows of a shard (16,384, or fewer where they would take more than 256 MiB; at least one window).
    batch_tokens: tokens of one forward, padding included (4,096, or fewer likewise; at least one window).
    Memory: the model, one forward, and about three shards, however long the corpus is.
    force: replace the collection in `out`. progress: called after every forward.

    Called again with the same arguments it goes on where it was stopped; a finished collection is just opened. Raises
    AtlasError where `out` holds something else, UnknownSite for a site without rows per token, BrokenModel for NaN or infinity,
    UsageError for activations too large for `dtype`.
    """
    if not isinstance(model, Model):
        model = load(model) if model is not None else load()
    options = Options(
        dtype=dtype or str(next(model.hf.parameters()).dtype).removeprefix("torch."),
        window=window,
        positions=positions,
        skip_first=skip_first,
        shard_tokens=shard_tokens,
        batch_tokens=batch_tokens,
    )
    read = corpus_of(corpus)
    recipe = recipe_of(model, sites, options)
    return Collecting(model, read, recipe, Path(out), progress).run(force=force)


class Collecting:
    """One collection on its way into a folder."""

    def __init__(self, model: Model, corpus: Corpus, recipe: Recipe, path: Path, progress: Progress) -> None:
        self.model, self.corpus, self.recipe, self.path, self.progress = model, corpus, recipe, path, progress
        self.settings = folder.settings_of(model, corpus, recipe)
        self.done = self.fresh = self.total = 0
        self.started = time.perf_counter()

    def run(self, *, force: bool) -> Activations:
        """Make what is not there yet, and open the whole."""
        index = None if force else folder.taken(self.path, self.settings)
        shards = shards_of(self.windows(), self.recipe)
        if not shards:
            raise TextError(f"{self.corpus.name}: nothing is left to store: skip_first leaves out the only token of every text.")
        missing = [shard for shard in shards if force or not folder.is_there(self.path, shard, self.settings)]
        if index is not None and index["finished"] and not missing:
            return Activations.open(self.path)
        self.total = sum(shard.tokens for shard in shards)
        self.done = self.total - sum(shard.tokens for shard in missing)
        self._claim(sum(shard.rows for shard in missing), force)
        index = {**(index or folder.index_of(self.model, self.corpus, self.recipe, self.settings, shards)), "finished": False}
        self._write(folder.INDEX, folder.as_json(index))
        documents = self.corpus.documents
        self._write(folder.DOCUMENTS, folder.as_json({"id": [d.id for d in documents], "domain": [d.domain for d in documents]}))
        self._say()
        for shard in missing:
            self._write(shard.file, self._shard(shard))
        self._write(folder.INDEX, folder.as_json({**index, "finished": True}))
        return Activations.open(self.path)

    def windows(self, document: int = 0) -> Iterator[Window]:
        """The windows of the corpus from a document on."""
        for number in range(document, len(self.corpus.documents)):
            one = self.corpus.documents[number]
            ids: list[int] = self.model.tokenizer(one.text, verbose=False)["input_ids"]  # pyright: ignore[reportAssignmentType]
            if not ids:
                raise TextError(f"Document {one.id!r} of {self.corpus.name} holds no token. Leave it out.")
            yield from windows_of(ids, number, self.recipe)

    def _shard(self, shard: Shard) -> bytes:
        """A shard as the bytes of its file."""
        wanted = dropwhile(lambda one: one.document == shard.document and one.number < shard.begin, self.windows(shard.document))
        windows = list(islice(wanted, shard.windows))
        dtype = DTYPES[self.recipe.dtype]
        tensors = {name: torch.empty(shard.rows, *shape, dtype=dtype) for name, shape in self.recipe.shapes.items()}
        trace = [(w.tokens[i], w.document, w.first + i) for w in windows for i in w.kept]
        tensors |= {name: torch.tensor([row[i] for row in trace], dtype=torch.int32) for i, name in enumerate(TRACE)}
        for batch in batches_of(windows, self.recipe.batch_tokens):
            self._fill(tensors, batch)
            tokens = sum(len(window.tokens) for _, window in batch)
            self.done, self.fresh = self.done + tokens, self.fresh + tokens
            self._say()
        label = folder.label(shard, self.settings)
        return save(tensors, metadata={"innerworks": label})  # one key: safetensors writes several in any order

    def _fill(self, tensors: dict[str, Tensor], batch: list[tuple[int, Window]]) -> None:
        """Run a batch, and put its rows in their places."""
        longest = max(len(window.tokens) for _, window in batch)
        tokens = torch.tensor([[*window.tokens, *[0] * (longest - len(window.tokens))] for _, window in batch])
        mask = torch.arange(longest) < torch.tensor([[len(window.tokens)] for _, window in batch])
        kept = torch.zeros_like(mask)
        for i, (_, window) in enumerate(batch):
            kept[i, window.kept.start : window.kept.stop] = True
        rows = torch.cat([torch.arange(row, row + len(window.kept)) for row, window in batch])
        run = self.model.run(tokens, mask=mask, record=list(self.recipe.shapes), logits="none")
        for name in self.recipe.shapes:
            activation = run[name]
            activation = activation[kept.to(activation.device)]  # a model may lie on several devices
            stored = activation.to("cpu", DTYPES[self.recipe.dtype])
            if not bool(stored.isfinite().all()):
                self._refuse(name, activation, stored, tensors, rows)
            tensors[name][rows] = stored

    def _refuse(self, site: str, activation: Tensor, stored: Tensor, tensors: Mapping[str, Tensor], rows: Tensor) -> None:
        """Say where a value is not finite, and whether the model or the type of storage is to blame."""
        bad = int(rows[(~stored.isfinite()).reshape(len(stored), -1).any(dim=-1)][0])
        document = self.corpus.documents[int(tensors["document"][bad])].id
        where = f"{site} at position {int(tensors['position'][bad])} of document {document!r}"
        if not bool(activation.isfinite().all()):
            raise BrokenModel(
                f"{self.model.name} computes NaN or infinity: {where}. Nothing collected there would mean anything."
            )
        raise UsageError(
            f"{where} reaches {float(activation.abs().max()):,.0f}, which is more than {self.recipe.dtype} can hold "
            f"({torch.finfo(stored.dtype).max:,.0f}). Store as bfloat16 or float32 instead, with force to replace what is there."
        )

    def _say(self) -> None:
        seconds = time.perf_counter() - self.started
        self.progress(Headway(done=self.done, total=self.total, rate=self.fresh / seconds))

    def _claim(self, rows: int, force: bool) -> None:
        """Make the folder, and see before any work that it can be written to and that there is room."""
        try:
            if self.path.is_dir():
                folder.clear(self.path, everything=force)
            self.path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise AtlasError(f"{self.path} cannot be written: {error.strerror}. Give another folder.") from error
        needed = rows * self.recipe.row_bytes
        if needed > free:
            takes, left = folder.size_in_words(needed), folder.size_in_words(free)
            raise AtlasError(
                f"{rows:,} rows of {self.recipe.row_bytes:,} bytes take {takes}, and {self.path} has {left} left. "
                "Make room, or take fewer sites, a smaller dtype or a part of the corpus."
            )

    def _write(self, name: str, data: bytes) -> None:
        try:
            Unfinished(self.path).write(name, data)
        except AtlasError as error:
            reason = getattr(error.__cause__, "strerror", None) or error.__cause__
            raise AtlasError(
                f"{self.path / name} could not be written: {reason}. What was collected is kept; make room and call again."
            ) from error
