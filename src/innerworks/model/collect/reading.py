"""Reading a collection: every site is one tensor over all shards, which stays on disk until some of its rows are asked for.

1. `Activations` opens a finished folder by its index; no model is needed.
2. `Rows` is one tensor of it: a row, a slice, picked rows, batches in order or at random, or the whole if not too large.
3. Shards are mapped into memory when rows of them are first needed; no more than `OPEN_FILES` stay open.
"""

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import safetensors
import torch
from jaxtyping import Int
from torch import Tensor

from innerworks.errors import AtlasError, UnknownSite, UsageError, near_misses
from innerworks.model.collect.folder import DOCUMENTS, INDEX, MAKE_AGAIN, read_index, short, size_in_words
from innerworks.model.load import DTYPES
from innerworks.sites import Site

LOADED_BYTES = 4 * 2**30  # that Rows.load() loads without being told to
OPEN_FILES = 16


class Activations:
    """A finished collection, opened for reading; nothing is loaded before it is asked for, and no model is needed.

    >>> activations = Activations.open("acts")                           # doctest: +SKIP
    >>> stream = activations["L12.resid_post"]                           # doctest: +SKIP
    >>> stream.shape, stream.dtype                                       # doctest: +SKIP
    (torch.Size([31240, 576]), torch.float32)
    >>> stream[1000:2000].mean(dim=0)                                    # doctest: +SKIP
    >>> for batch in stream.batches(4096, generator=torch.Generator()):  # doctest: +SKIP
    ...     train(batch)

    Row i of every site is token `tokens[i]`, at `position[i]` of `documents[document[i]]`. An index tensor picks the same rows
    of several: `for rows in torch.randperm(len(activations)).split(4096): stream[rows], activations.tokens[rows]`.
    """

    def __init__(self, path: Path, index: Mapping[str, Any]) -> None:
        self.path, self.index = path, index
        self._files = _Files(path, index["shards"])

    @classmethod
    def open(cls, path: str | Path) -> "Activations":
        """Open a folder that `collect` finished; raises AtlasError for anything else, and where a shard is missing."""
        path = Path(path)
        if not path.is_dir():
            raise AtlasError(f"There is no folder {path}. Make a collection with: innerworks collect SITE... -o {path}")
        if not (path / INDEX).is_file():
            raise AtlasError(f"{path} is no collection of activations: it has no {INDEX}.")
        index = read_index(path)
        missing = [shard["file"] for shard in index["shards"] if not (path / shard["file"]).is_file()]
        if not index["finished"]:
            there = len(index["shards"]) - len(missing)
            raise AtlasError(
                f"{path} is an unfinished collection: {there} of {len(index['shards'])} shards are there. "
                "Go on with the same call of iw.collect(...), or the same innerworks collect command."
            )
        if missing:
            raise AtlasError(f"{path} lacks {len(missing)} shards ({', '.join(missing[:3])}). {MAKE_AGAIN}")
        return cls(path, index)

    def __repr__(self) -> str:
        return (
            f"Activations({str(self.path)!r}: {len(self):,} rows of {len(self.documents):,} documents; {', '.join(self.sites)})"
        )

    def __len__(self) -> int:
        return self.index["rows"]

    def __getitem__(self, site: str | Site) -> "Rows":
        name = str(Site.parse(site))
        if name not in self.index["sites"]:
            near = near_misses(name, self.sites)
            raise UnknownSite(f"{name} was not collected in {self.path} (there are: {short(list(self.sites))}).{near}")
        shape = tuple(self.index["sites"][name]["shape"])
        return Rows(self._files, name, shape, DTYPES[self.index["settings"]["dtype"]])

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that were collected."""
        return tuple(self.index["sites"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was collected: model, digests of weights, tokenizer and corpus, window, and the rest."""
        return self.index["settings"]

    @cached_property
    def documents(self) -> tuple[str, ...]:
        """The ids of the documents, in order."""
        return tuple(self._documents["id"])

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domain of each document."""
        return tuple(self._documents["domain"])

    @property
    def tokens(self) -> "Rows":
        """The token id of each row."""
        return Rows(self._files, "tokens", (), torch.int32)

    @property
    def document(self) -> "Rows":
        """The number of each row's document in `documents`."""
        return Rows(self._files, "document", (), torch.int32)

    @property
    def position(self) -> "Rows":
        """The position of each row in its document; the tokenizer's opening, if any, counts."""
        return Rows(self._files, "position", (), torch.int32)

    @cached_property
    def _documents(self) -> Mapping[str, list[str]]:
        try:
            documents = json.loads((self.path / DOCUMENTS).read_text(encoding="utf-8"))
            assert documents.keys() == {"id", "domain"}
        except (OSError, ValueError, AssertionError, AttributeError) as error:
            raise AtlasError(f"{self.path / DOCUMENTS} is missing or damaged ({error}). {MAKE_AGAIN}") from error
        return documents


class Rows:
    """One tensor over all shards, `[tokens, ...]`, which stays on disk: `rows[1000:2000]`, `rows[7]`, `rows[index]`."""

    def __init__(self, files: "_Files", name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.name, self.dtype = name, dtype
        self.shape = torch.Size([files.rows, *shape])
        self._files = files

    def __repr__(self) -> str:
        return f"Rows({self.name} {list(self.shape)}, {self.dtype}, {size_in_words(self.nbytes)})"

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """What the whole would take in memory."""
        return prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, which: int | slice | Tensor | list[int]) -> Tensor:
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step == 1:
                return self._stretch(start, max(start, stop))
            return self._picked(torch.tensor(range(start, stop, step), dtype=torch.long))
        if isinstance(which, int):
            return self._picked(torch.tensor([which]))[0]
        if isinstance(which, list) or (isinstance(which, Tensor) and which.ndim == 1):
            rows = torch.as_tensor(which).cpu()
            if rows.dtype != torch.bool:
                return self._picked(rows.long())
            if len(rows) == len(self):
                return self._picked(rows.nonzero()[:, 0])
        raise UsageError(
            f"{self.name}: rows are picked by a number, a slice, a list or tensor of numbers, or one of {len(self):,} booleans. "
            "Narrow the rest afterwards, as in rows[100:200][:, 3]."
        )

    def batches(self, size: int, *, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """Every row once, `size` at a time: in order, or with a generator in a random order of all rows."""
        if size < 1:
            raise UsageError(f"Batches of {size} rows: at least 1.")
        if generator is None:
            for start in range(0, len(self), size):
                yield self[start : start + size]
            return
        for rows in torch.randperm(len(self), generator=generator, device=generator.device).cpu().split(size):
            yield self[rows]

    def load(self, *, limit: int = LOADED_BYTES) -> Tensor:
        """Load the whole; raises UsageError where it takes more than `limit` bytes (4 GiB)."""
        if self.nbytes > limit:
            raise UsageError(
                f"{self.name} of {len(self):,} rows takes {size_in_words(self.nbytes)}, more than limit={limit:,} bytes. "
                "Read it in .batches(...), take a slice, or raise the limit."
            )
        return self[:]

    def _stretch(self, start: int, stop: int) -> Tensor:
        out = torch.empty(stop - start, *self.shape[1:], dtype=self.dtype)
        for number, first, last in self._files.within(start, stop):
            begin = self._files.starts[number]
            out[first - start : last - start] = self._files.tensor(number, self)[first - begin : last - begin]
        return out

    def _picked(self, rows: Int[Tensor, " rows"]) -> Tensor:
        rows = torch.where(rows < 0, rows + len(self), rows)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(f"{self.name} has {len(self):,} rows; row {int(rows.max()):,} was asked for.")
        out = torch.empty(len(rows), *self.shape[1:], dtype=self.dtype)
        number = torch.bucketize(rows, torch.tensor(self._files.starts[1:]), right=True)
        for one in number.unique().tolist():
            here = number == one
            out[here] = self._files.tensor(one, self)[rows[here] - self._files.starts[one]]
        return out


class _Files:
    """The shards of a folder, mapped into memory when first needed; the last few stay so."""

    def __init__(self, path: Path, shards: Sequence[Mapping[str, Any]]) -> None:
        self.path, self.names = path, [shard["file"] for shard in shards]
        self.starts = list(accumulate((shard["rows"] for shard in shards), initial=0))
        self.rows = self.starts[-1]
        self._open: OrderedDict[int, Any] = OrderedDict()

    def within(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The shards that hold rows `start` to `stop`, with the first of these rows and the one after the last."""
        number = max(0, bisect_right(self.starts, start) - 1)
        while start < stop:
            last = min(stop, self.starts[number + 1])
            yield number, start, last
            start, number = last, number + 1

    def tensor(self, number: int, rows: Rows) -> Tensor:
        """One tensor of a shard, as it lies in the mapped file: only what is then read of it is loaded."""
        file = self.path / self.names[number]
        try:
            tensor = self._file(number).get_tensor(rows.name)
        except Exception as error:  # safetensors raises a type of its own
            raise AtlasError(f"{file} is missing or damaged: {error}. {MAKE_AGAIN}") from error
        expected = (self.starts[number + 1] - self.starts[number], *rows.shape[1:])
        if tuple(tensor.shape) != expected or tensor.dtype != rows.dtype:
            raise AtlasError(f"{file} holds {rows.name} as {tuple(tensor.shape)} {tensor.dtype}, not {expected}. {MAKE_AGAIN}")
        return tensor

    def _file(self, number: int) -> Any:
        if number not in self._open:
            self._open[number] = safetensors.safe_open(self.path / self.names[number], framework="pt")
        self._open.move_to_end(number)
        while len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)
        return self._open[number]
