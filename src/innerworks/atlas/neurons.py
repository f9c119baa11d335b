"""Every feed-forward neuron of an atlas in one table: its labels, what its activation goes with, how large it is, what it writes.

1. Numbers come from what the study of inputs keeps (`arrays/neuron_inputs.safetensors`): per neuron and *family* of features
   (where the token stands, which token it is, the token before, ...) the share of the activation's variance that the family
   explains beyond all others, on confirmation documents. An untested mean: a label has its test and floor in `findings`.
2. Labels come from the findings, whichever study gave them.

A table of 46,080 neurons has columns of 4 bytes: a few megabytes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

STUDY = "neuron_inputs"  # whose arrays these are
ON_TEXT = ("full", "types")  # fits that are tested on real text
TEXT_PARTS = slice(0, 2)  # of `peak`: discovery and confirmation, the two parts of real text

#: column -> (polars type, what it says)
COLUMNS: dict[str, tuple[Any, str]] = {
    "site": (pl.String, "L11N584"),
    "layer": (pl.Int32, "its layer"),
    "neuron": (pl.Int32, "its place in the layer"),
    "labels": (pl.List(pl.String), "the behaviours that it is labelled with, the highest rung first"),
    "rung": (pl.Int32, "the highest rung of these labels, 0 without any"),
    "family": (pl.String, "the family of features that explains most of its activation; null where none explains anything"),
    "explained": (pl.Float32, "the share of its variance that this family explains beyond all others"),
    "largest": (pl.Float32, "its largest activation on real text, whatever the sign"),
    "active": (pl.Float32, "share of tokens of real text on which it is above zero"),
    "writes": (pl.Float32, "norm of what one standard deviation of it adds to the stream; null where weights cannot be read"),
}


def table(findings: pl.DataFrame, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> pl.DataFrame:
    """One row per neuron, in the order of layers; behind the columns of `COLUMNS` one more for each family."""
    schema = {name: kind for name, (kind, _) in COLUMNS.items()}
    if "peak" not in arrays:
        return pl.DataFrame(schema=schema)
    layers, across = arrays["peak"].shape[-2:]
    layer, neuron = (place.astype(np.int32) for place in np.divmod(np.arange(layers * across), across))
    frame = pl.DataFrame({"layer": layer, "neuron": neuron, **_numbers(arrays, about), **_families(arrays, about)})
    frame = frame.with_columns(site=pl.format("L{}N{}", "layer", "neuron"))
    frame = frame.join(_labels(findings), on="site", how="left", maintain_order="left")
    frame = frame.with_columns(pl.col("labels").fill_null([]), pl.col("rung").fill_null(0))
    here = [number for number, there in enumerate(arrays["there"]) if there]
    families = [name for name in frame.columns if name not in schema]
    return frame.filter(pl.col("layer").is_in(here)).select(
        *(pl.col(name).cast(kind) for name, kind in schema.items()), *families
    )


def families(about: Mapping[str, Any]) -> dict[str, int]:
    """Family of features -> the test, among all that were kept, that says on real text how much it explains."""
    return {family: number for number, (fit, family) in enumerate(about.get("tests", ())) if fit in ON_TEXT}


def _numbers(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> dict[str, Any]:
    counts = arrays["histogram"]
    above = counts[..., counts.shape[-1] // 2 :].sum(axis=-1) / np.maximum(counts.sum(axis=-1), 1)
    tests = families(about)
    shares = np.nan_to_num(np.stack([arrays["mean"][number] for number in tests.values()]), nan=-np.inf)
    best = shares.argmax(axis=0).ravel()
    explained = shares.max(axis=0).ravel()
    names = np.array(list(tests), dtype=object)[best]
    written = arrays["written"] * arrays["spread"] if "written" in arrays else np.full(above.shape, np.nan)
    return {
        "family": [str(name) if share > 0 else None for name, share in zip(names, explained, strict=True)],
        "explained": np.where(explained > 0, explained, 0).astype(np.float32),
        "largest": np.abs(arrays["peak"][TEXT_PARTS]).max(axis=(0, 1)).ravel(),
        "active": above.ravel().astype(np.float32),
        "writes": pl.Series(written.ravel().astype(np.float32)).fill_nan(None),
    }


def _families(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {family: arrays["mean"][number].ravel() for family, number in families(about).items()}


def _labels(findings: pl.DataFrame) -> pl.DataFrame:
    """The labels of each neuron that has any."""
    mine = (pl.col("chapter") == "neurons") & (pl.col("rung") >= 1) & pl.col("target").is_null() & pl.col("index").is_not_null()
    each = (
        findings.filter(mine)
        .sort("rung", descending=True, maintain_order=True)
        .unique(["site", "behaviour"], maintain_order=True)
    )
    return each.group_by("site", maintain_order=True).agg(pl.col("behaviour").alias("labels"), pl.col("rung").max())
