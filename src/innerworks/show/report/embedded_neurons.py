"""What the page knows of every feed-forward neuron: JSON, and numbers as columns that the script unpacks when they are needed.

1. Neurons go by number, `layer * across + place`. Labels, rows and texts are as for heads (`embedded.py`).
2. Columns: one typed array for each number of a neuron, compressed (zlib) and in base64. Numbers of any size keep eight binary
   digits, shares three decimals: what a reader sees.
3. At most `MOST` neurons are embedded, those with labels first, then those whose activation is explained best; what is left out
   is counted, `atlas.neurons` has all.
4. Examples: tokens by number, each once.
"""

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from innerworks.atlas import Atlas, Context, NeuronExample
from innerworks.atlas import neurons as every
from innerworks.show import numbers
from innerworks.show.behaviours import RUNGS, in_order
from innerworks.show.describe import described
from innerworks.show.facts import Facts
from innerworks.show.head import labels_of
from innerworks.show.neuron import FAMILIES, QUESTIONS
from innerworks.show.report.embedded import Numbered, changed, chosen, deciding, label_of, looks_of, row_of
from innerworks.show.tokens import visible
from innerworks.show.verdicts import Head, Verdict
from innerworks.sites import Site

MOST = 150_000


def embedded_neurons(atlas: Atlas, found: Sequence[Verdict], told: Sequence[Facts]) -> dict[str, Any]:
    """Gather everything that the script needs; see the top of this file."""
    table, left_out = _largest(atlas.neurons)
    layers, across = (int(atlas.manifest.get("model", {}).get(name, 0)) for name in ("layers", "neurons"))
    rows, rows_left, below = chosen(found, told)
    examples = atlas.neuron_examples
    sites = {score.site for _, score in rows} | {head.site for one in found for head in one.heads} | {x.site for x in examples}
    number = {site: _number(site, across) for site in sites if Site.parse(site).neuron is not None}
    series, texts = Numbered(), Numbered()
    texts("")
    names = [verdict.behaviour.name for verdict in found] + [score.behaviour for _, score in rows]
    behaviours = {one.name: i for i, one in enumerate(in_order(names))}
    labels = [head for verdict in found for head in verdict.labels]
    decides, tokens = deciding(found), Numbered()
    return {
        "layers": layers,
        "across": across,
        "families": [FAMILIES.get(name, name.replace("_", " ")) for name in _families(table)],
        "columns": _columns(table, across),
        "left_out": left_out,
        "behaviours": [looks_of(name) for name in behaviours],
        "questions": list(QUESTIONS.values()),
        "rungs": list(RUNGS.values()),
        "rows": [row_of(score, number, behaviours, series, texts, decides) for _, score in rows],
        "series": list(series.of),
        "labels": [label_of(head, number, behaviours, texts) for head in labels],
        "says": _says(labels, examples, number),
        "examples": [_example(one, number, texts, tokens) for one in examples],
        "texts": list(texts.of),
        "tokens": [visible(token) for token in tokens.of],
        "rows_left": rows_left,
        "below": below,
    }


def _number(site: str, across: int) -> int:
    place = Site.parse(site)
    return (place.layer or 0) * across + (place.neuron or 0)


def _families(table: pl.DataFrame) -> list[str]:
    return [name for name in table.columns if name not in every.COLUMNS]


def _largest(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The neurons that are embedded, in their order, and how many are not."""
    if table.height <= MOST:
        return table, 0
    order = pl.struct(pl.col("rung"), pl.col("explained"))
    kept = table.with_row_index("row").sort(order, descending=True).head(MOST).sort("row").drop("row")
    return kept, table.height - MOST


def _columns(table: pl.DataFrame, across: int) -> dict[str, str]:
    """By name: `place` as steps from one number to the next, sizes as 32-bit floats, shares in thousandths."""
    places = (table["layer"].cast(pl.Int64) * across + table["neuron"]).to_numpy()
    found = {"place": _packed(np.diff(places, prepend=-1).astype(np.uint32))}
    for name in ("largest", "writes"):
        found[name] = _packed(_coarse(table[name].fill_null(np.nan).to_numpy()))
    for i, name in enumerate(("active", *_families(table))):
        thousandths = np.nan_to_num(table[name].to_numpy().astype(np.float64) * 1000).clip(-1000, 1000)
        found["active" if not i else f"share{i - 1}"] = _packed(np.round(thousandths).astype(np.int16))
    return found


def _coarse(numbers_given: np.ndarray) -> np.ndarray:
    """Eight binary digits of each number are enough to be read, and compress to half."""
    bits = numbers_given.astype(np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFF8000)).view(np.float32)


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(array.astype(array.dtype.newbyteorder("<")).tobytes(), 9)).decode()


def _says(labels: Sequence[Head], examples: Sequence[NeuronExample], number: dict[str, int]) -> dict[int, str]:
    """What the labels of each neuron come to."""
    shown = {one.site: one for one in examples}
    by_site: dict[str, list[Head]] = {}
    for head in labels:
        by_site.setdefault(head.site, []).append(head)
    return {number[site]: described(labels_of(mine), shown.get(site)) for site, mine in by_site.items()}


def _example(one: NeuronExample, number: dict[str, int], texts: Numbered, tokens: Numbered) -> list[Any]:
    """An example as `[neuron, side, contexts, raised, lowered]`; a context as `[unit, tokens, at, position, value]`."""
    contexts = [_context(context, texts, tokens) for context in one.contexts]
    return [number[one.site], one.side, contexts, changed(one.raised), changed(one.lowered)]


def _context(one: Context, texts: Numbered, tokens: Numbered) -> list[Any]:
    shown = [tokens(token) for token in one.tokens]
    return [texts(one.unit), shown, one.at, one.position, numbers.rounded(one.value)]
