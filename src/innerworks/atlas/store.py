"""Read and write an atlas: parquet, safetensors and JSON in a folder; never pickle.

Every file appears whole or not at all (temporary name, fsync, rename).
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors import safe_open
from safetensors.numpy import save

from innerworks.atlas import neurons, schema
from innerworks.claims import LEDGER, judge
from innerworks.errors import AtlasError
from innerworks.findings import COLUMNS, Finding, frame

Arrays = Mapping[str, np.ndarray]


Changed = tuple[tuple[str, float], ...]  # tokens and by how many logits each is changed

_CHANGED = pl.List(pl.Struct({"token": pl.String, "logit": pl.Float64}))
_EXAMPLE_TYPES = {
    "tokens": pl.List(pl.String),
    "query": pl.Int32,
    "raised": _CHANGED,
    "lowered": _CHANGED,
    "rows": pl.List(pl.Struct({"read": pl.String, "token": pl.String, "logit": pl.Float64})),
}
_NEURON_TYPES = {
    "site": pl.String,
    "side": pl.Int32,
    "contexts": pl.List(
        pl.Struct({"unit": pl.String, "tokens": pl.List(pl.String), "at": pl.Int32, "position": pl.Int32, "value": pl.Float64})
    ),
    "raised": _CHANGED,
    "lowered": _CHANGED,
}


@dataclass(frozen=True)
class Example:
    """A stretch of real text, a head's pattern `[query, key]` on it, and what the head writes.

    query: the token, counted in the stretch, at which the head does most; raised, lowered: the tokens whose logits its output
    there changes most by itself (less the mean over the vocabulary), the final norm's scale held; None and empty where that was
    not measured. rows: by its weights alone, `(token read, token changed most, by how many logits for a stream of unit scale)`.
    """

    behaviour: str
    site: str
    unit: str
    tokens: tuple[str, ...]
    pattern: np.ndarray
    query: int | None = None
    raised: Changed = ()
    lowered: Changed = ()
    rows: tuple[tuple[str, str, float], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As plain data, the pattern as lists."""
        return {**asdict(self), "pattern": np.round(self.pattern.astype(float), 4).tolist()}


@dataclass(frozen=True, kw_only=True)
class Context:
    """A stretch of real text on which a neuron is strong: which of its tokens it is strong `at`, and its activation there.

    position: of that token in the whole text that the model was given.
    """

    unit: str
    tokens: tuple[str, ...]
    at: int
    position: int
    value: float


@dataclass(frozen=True, kw_only=True)
class NeuronExample:
    """Where a neuron is strongest, one context per document, and what it writes there.

    side: 1 or -1, the side of zero that its contexts are on. raised, lowered: the tokens whose logits an activation of one on
    that side changes most by itself (less the mean over the vocabulary), in a stream of unit scale; empty where weights do not
    show it.
    """

    site: str
    side: int
    contexts: tuple[Context, ...] = ()
    raised: Changed = ()
    lowered: Changed = ()

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


class Atlas:
    """A finished atlas, opened for reading. Needs no torch.

    >>> atlas = Atlas.open("smollm2.atlas")         # doctest: +SKIP
    >>> atlas.labels.filter(pl.col("rung") == 3)    # doctest: +SKIP
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def open(cls, path: str | Path) -> "Atlas":
        """Open a finished atlas; raises AtlasError for anything else."""
        path = Path(path)
        if not path.is_dir():
            raise AtlasError(f"There is no folder {path}. Make an atlas with: innerworks scan -o {path}")
        if not (path / schema.MANIFEST).is_file():
            if (path / schema.PARTIAL).is_dir():
                raise AtlasError(
                    f"{path} is the beginning of an atlas, not a finished one. Go on with: innerworks scan -o {path} --resume"
                )
            raise AtlasError(f"{path} is no atlas: it has no {schema.MANIFEST}.")
        try:
            manifest = json.loads((path / schema.MANIFEST).read_text(encoding="utf-8"))
        except ValueError as error:
            raise AtlasError(f"{path / schema.MANIFEST} is damaged: {error}. Scan again.") from error
        if not isinstance(manifest, dict):
            raise AtlasError(f"{path / schema.MANIFEST} is damaged: it holds no JSON object. Scan again.")
        if manifest.get("schema") != schema.SCHEMA_VERSION:
            raise AtlasError(
                f"{path} has schema {manifest.get('schema')}; this version of innerworks reads {schema.SCHEMA_VERSION}. "
                "Scan again."
            )
        return cls(path, manifest)

    def _table(self, name: str) -> pl.DataFrame:
        try:
            return pl.read_parquet(self.path / name, glob=False)  # [, * and ? are letters of a folder's name
        except (OSError, pl.exceptions.PolarsError) as error:
            raise AtlasError(f"{self.path / name} is missing or damaged: {error}. Scan again.") from error

    @cached_property
    def findings(self) -> pl.DataFrame:
        """Every measured statement; columns in `innerworks.findings.COLUMNS`."""
        return self._table(schema.FINDINGS)

    @cached_property
    def labels(self) -> pl.DataFrame:
        """One row per label of any kind: behaviour, site, rung, q, note, what was measured first, and the effects by material.

        `measure` and `effect` are those of the first row that bears the label; `effect_text`, `effect_random`,
        `effect_weights`, ... of the first such row on each material. Rows about pairs only repeat the label of their first head.
        """
        keys = ["behaviour", "site"]
        seen = self.findings.filter((pl.col("rung") >= 1) & pl.col("target").is_null()).with_row_index("row")
        highest = seen.sort("rung", "row", descending=[True, False]).group_by(keys, maintain_order=True).first()
        labels = highest.select(*keys, "layer", "index", "rung", "q", "note", "measure", "effect")
        for material in dict.fromkeys(("text", "random", "weights", *seen["material"].unique(maintain_order=True))):
            mine = seen.filter(pl.col("material") == material).group_by(keys, maintain_order=True).first()
            labels = labels.join(mine.select(*keys, pl.col("effect").alias(f"effect_{material}")), on=keys, how="left")
        return labels.sort("behaviour", "rung", "q", descending=[False, True, False], nulls_last=True)

    @cached_property
    def heads(self) -> pl.DataFrame:
        """Attention mass of every head for every kind and material: the rows behind the labels."""
        return self.findings.filter((pl.col("chapter") == "heads") & (pl.col("measure") == "attention"))

    @cached_property
    def neurons(self) -> pl.DataFrame:
        """One row per feed-forward neuron, with labels and numbers; columns in `innerworks.atlas.neurons.COLUMNS`.

        Without rows where neurons were not measured, as in a model whose layers are all mixtures of experts.
        """
        name = schema.of_study(neurons.STUDY)
        arrays, about = self.arrays(name) if (self.path / name).is_file() else ({}, {})
        return neurons.table(self.findings, arrays, about)

    @property
    def neuron_examples(self) -> list[NeuronExample]:
        """Where labelled neurons, and those near a label, are strongest on real text, and what they write."""
        return [_neuron_example(row) for row in self._table(schema.NEURONS).iter_rows(named=True)]

    @cached_property
    def claims(self) -> pl.DataFrame:
        """The ledger: one row per claim of the literature, with its verdict in this model and the evidence as JSON."""
        return self._table(schema.CLAIMS)

    @cached_property
    def units(self) -> pl.DataFrame:
        """What was counted, in the order of arrays by unit: documents and generated sequences, with their stratum and half."""
        return self._table(schema.UNITS)

    @property
    def examples(self) -> list[Example]:
        """Real text on which labelled heads show what they do."""
        table = self._table(schema.EXAMPLES)
        if table.is_empty():
            return []
        patterns, _ = self.arrays(schema.PATTERNS)
        return [_example(row, patterns) for row in table.iter_rows(named=True)]

    def arrays(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays of one file, and what was written beside them."""
        try:
            with safe_open(self.path / name, framework="numpy") as file:
                about = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
                return {key: file.get_tensor(key) for key in file.keys()}, about
        except Exception as error:  # safetensors raises a type of its own
            raise AtlasError(f"{self.path / name} is missing or damaged: {error}. Scan again.") from error


def _neuron_example(row: Mapping[str, Any]) -> NeuronExample:
    return NeuronExample(
        site=row["site"],
        side=row["side"],
        contexts=tuple(Context(**{**one, "tokens": tuple(one["tokens"])}) for one in row["contexts"]),
        raised=tuple((one["token"], one["logit"]) for one in row["raised"]),
        lowered=tuple((one["token"], one["logit"]) for one in row["lowered"]),
    )


def _example(row: Mapping[str, Any], patterns: Arrays) -> Example:
    raised, lowered = (tuple((one["token"], one["logit"]) for one in row[name]) for name in ("raised", "lowered"))
    return Example(
        behaviour=row["behaviour"],
        site=row["site"],
        unit=row["unit"],
        tokens=tuple(row["tokens"]),
        pattern=patterns[row["array"]],
        query=row["query"],
        raised=raised,
        lowered=lowered,
        rows=tuple((one["read"], one["token"], one["logit"]) for one in row["rows"]),
    )


def _example_row(one: Example, array: str) -> dict[str, Any]:
    changed = {name: [{"token": token, "logit": logit} for token, logit in getattr(one, name)] for name in ("raised", "lowered")}
    by_weights = [{"read": read, "token": token, "logit": logit} for read, token, logit in one.rows]
    about = {name: getattr(one, name) for name in ("behaviour", "site", "unit", "query")}
    return {**about, "tokens": list(one.tokens), "array": array, **changed, "rows": by_weights}


def ledger(findings: pl.DataFrame) -> pl.DataFrame:
    """Judge every claim by a table of findings: the rows of `claims.parquet`."""
    rows = []
    for claim in LEDGER.values():
        found = judge(claim, findings)
        evidence = json.dumps([one.as_dict() for one in found.evidence], ensure_ascii=False)
        rows.append((claim.id, claim.title, claim.statement, claim.citation, found.verdict, found.summary, evidence))
    return pl.DataFrame(rows, schema=dict.fromkeys(schema.CLAIM_COLUMNS, pl.String), orient="row")


class Unfinished:
    """An atlas being written. `finish` writes the manifest, which makes it one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: str | Path, settings: Mapping[str, Any], *, resume: bool = False, force: bool = False) -> "Unfinished":
        """Claim a folder before any work is done; what cannot be written to is found out now.

        settings: what the scan is of; a scan is only resumed with the same.
        """
        path = Path(path)
        try:
            if force and _is_ours(path):
                _refuse_foreign(path)
                shutil.rmtree(path)
            cls._refuse_taken(path, settings, resume)
            (path / "arrays").mkdir(parents=True, exist_ok=True)
            (path / schema.PARTIAL).mkdir(exist_ok=True)
            made = cls(path)
            made.write(f"{schema.PARTIAL}/settings.json", _json(settings))
        except OSError as error:
            raise AtlasError(f"{path} cannot be written: {error.strerror}. Give another folder with -o.") from error
        return made

    @staticmethod
    def _refuse_taken(path: Path, settings: Mapping[str, Any], resume: bool) -> None:
        partial = path / schema.PARTIAL / "settings.json"
        if (path / schema.MANIFEST).exists():
            raise AtlasError(f"{path} is a finished atlas already. Give another folder with -o, or --force to replace it.")
        if partial.exists():
            if not resume:
                raise AtlasError(
                    f"{path} holds a scan that was not finished. Add --resume to go on with it, or --force to start again."
                )
            try:
                before = dict(json.loads(partial.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise AtlasError(f"{partial} is damaged: {error}. Start again with --force.") from error
            now = json.loads(_json(settings))
            other = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            if other:
                raise AtlasError(
                    f"The unfinished scan in {path} was of something else ({', '.join(other)} differ). "
                    "Use the same options, or --force."
                )
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise AtlasError(f"{path} exists and is no atlas: it is left alone. Give another folder with -o.")
        elif resume and not path.exists():
            raise AtlasError(f"There is nothing to resume in {path}.")

    def write(self, name: str, data: bytes) -> None:
        """Write one file, whole or not at all."""
        target = self.path / name
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            raise AtlasError(
                f"{target} could not be written: {error.strerror}. What was scanned so far is kept; make room and add --resume."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def write_findings(self, findings: Sequence[Finding]) -> None:
        """Write `findings.parquet`, and `claims.parquet`: what they come to."""
        table = frame(findings).select(list(COLUMNS))
        self._write_table(schema.FINDINGS, table)
        self._write_table(schema.CLAIMS, ledger(table))

    def write_units(self, units: Sequence[Sequence[str]]) -> None:
        """Write `units.parquet`."""
        self._write_table(
            schema.UNITS, pl.DataFrame(list(units), schema=dict.fromkeys(schema.UNIT_COLUMNS, pl.String), orient="row")
        )

    def write_examples(self, examples: Sequence[Example]) -> None:
        """Write `examples.parquet` and the patterns beside it."""
        names = [f"{one.site}/{one.behaviour}/{i}" for i, one in enumerate(examples)]
        rows = [_example_row(one, name) for one, name in zip(examples, names, strict=True)]
        types = {name: _EXAMPLE_TYPES.get(name, pl.String) for name in schema.EXAMPLE_COLUMNS}
        self._write_table(schema.EXAMPLES, pl.DataFrame(rows, schema=types))
        patterns = {name: one.pattern.astype(np.float16) for one, name in zip(examples, names, strict=True)}
        self.write_arrays(schema.PATTERNS, patterns)

    def write_neurons(self, examples: Sequence[NeuronExample]) -> None:
        """Write `neurons.parquet`."""
        changed = ("raised", "lowered")
        rows = [
            {**one.as_dict(), **{name: [{"token": t, "logit": logit} for t, logit in getattr(one, name)] for name in changed}}
            for one in examples
        ]
        self._write_table(
            schema.NEURONS, pl.DataFrame(rows, schema={name: _NEURON_TYPES[name] for name in schema.NEURON_COLUMNS})
        )

    def write_arrays(self, name: str, arrays: Arrays, metadata: Mapping[str, Any] | None = None) -> None:
        """Write a safetensors file; metadata values are stored as JSON."""
        text = {key: json.dumps(value) for key, value in (metadata or {}).items()}
        self.write(name, save({key: np.ascontiguousarray(array) for key, array in arrays.items()}, metadata=text))

    def read_arrays(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Arrays and metadata written earlier, or None."""
        if not (self.path / name).is_file():
            return None
        return Atlas(self.path, {}).arrays(name)

    def _write_table(self, name: str, table: pl.DataFrame) -> None:
        buffer = BytesIO()
        table.write_parquet(buffer)
        self.write(name, buffer.getvalue())

    def finish(self, manifest: Mapping[str, Any], *, before: Callable[[Atlas], object] = lambda atlas: None) -> Atlas:
        """Write the manifest: from now on this is an atlas. before: what else must be there first, such as a report."""
        before(Atlas(self.path, {"schema": schema.SCHEMA_VERSION, **manifest}))
        self.write(schema.MANIFEST, _json({"schema": schema.SCHEMA_VERSION, **manifest}))
        shutil.rmtree(self.path / schema.PARTIAL, ignore_errors=True)
        return Atlas.open(self.path)


def _json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True).encode()


def _is_ours(path: Path) -> bool:
    return (path / schema.MANIFEST).is_file() or (path / schema.PARTIAL).is_dir()


def _refuse_foreign(path: Path) -> None:
    """Nothing is deleted in a folder that also holds what no scan wrote."""
    ours = {schema.PARTIAL, *(Path(name).parts[0] for name in schema.FILES)}
    foreign = sorted(one.name for one in path.iterdir() if one.name not in ours and not _temporary_of(one.name, ours))
    if foreign:
        raise AtlasError(
            f"{path} also holds what is no part of an atlas ({', '.join(foreign[:3])}): it is left alone. "
            "Move that elsewhere, or give another folder with -o."
        )


def _temporary_of(name: str, ours: set[str]) -> bool:
    return name.startswith(".") and name[1:].rpartition(".")[0] in ours
