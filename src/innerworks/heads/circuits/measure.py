"""From a model (and what watched it read) to the arrays that everything about circuits of weights is decided from.

Weights alone: `eigenvalue`, `top_k` and `succession` of every head and of mismatched parts. Short lists: successors in context. A
`DirectEffect`: direct effects on attended tokens. The arrays are plain numbers, so an atlas keeps them, and `decide.findings` can
be asked again.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from innerworks.errors import UsageError
from innerworks.heads.circuits import copying, nulls, successor
from innerworks.heads.circuits.embedding import Through, require
from innerworks.heads.circuits.nulls import Circuits, Pairing
from innerworks.heads.circuits.ordinals import Ordered, Row, classes, rows, shared_items
from innerworks.model import Model
from innerworks.model.observe import State, numpy
from innerworks.text.repeats import ordinary_tokens

Arrays = dict[str, np.ndarray]
TOP_K_DRAWS = 2_000  # at most: they cost most, and what they decide stands beside a label, not in it


def measure(model: Model, *, seen: State | None = None, seed: int = 0) -> Arrays:
    """Measure everything about the circuits of weights; see `decide.findings` for what comes of it.

    seen: the state of a `DirectEffect` that has watched a pass; without it no head is labelled as copying. Raises
    UnsupportedModel for post-LN models and unreadable weights.

    Returns: arrays by name: `copying/*` and `successor/*`. Axes `layer head` for weights, `unit side layer head` for text,
    `list layer head` for lists.
    """
    require(model)
    circuits = Circuits.of(model)
    found = {**_copying(model, circuits, seed), **_successor(model, circuits, seed)}
    if seen is not None:
        found |= {f"copying/{name}": one.astype(np.float32) for name, one in numpy(seen).items()}
    return found


def _copying(model: Model, circuits: Circuits, seed: int) -> Arrays:
    over, own = copying.bridge(model), nulls.own(circuits)
    mismatched = nulls.mismatched(circuits, nulls.draws_for(circuits.heads), seed=seed)
    shape = (circuits.layers, -1)
    found = {
        "copying/eigenvalue": copying.eigenvalue(circuits, over, own).reshape(2, *shape),
        "copying/eigenvalue_null": copying.eigenvalue(circuits, over, mismatched),
    }
    ordinary = _ordinary(model)
    if len(ordinary) > 4 * copying.TOP:
        ranked = copying.ranked(model, circuits, over, ordinary)
        fewer = nulls.mismatched(circuits, min(TOP_K_DRAWS, nulls.draws_for(circuits.heads, families=1)), seed=seed + 1)
        found["copying/top_k"] = copying.top_k(model, circuits, ranked, own).reshape(2, *shape)
        found["copying/top_k_null"] = copying.top_k(model, circuits, ranked, fewer)
    return found


def _ordinary(model: Model) -> list[int]:
    """Tokens of visible text; every token where a model was wrapped without a tokenizer."""
    try:
        return ordinary_tokens(model.tokenizer, model.anatomy.vocab)
    except UsageError:
        return list(range(model.anatomy.vocab))


def _successor(model: Model, circuits: Circuits, seed: int) -> Arrays:
    try:
        tokenizer = model.tokenizer
    except UsageError:
        return {}
    kept, dropped = classes(tokenizer)
    if not kept:
        return {}
    of, own = successor.ordinals(model, kept), nulls.own(circuits)
    mismatched = nulls.mismatched(circuits, nulls.draws_for(circuits.heads), seed=seed + 2)
    shape = (circuits.layers, -1, len(kept))
    names: dict[str, Through] = {"succession": "mlp0", "whole": "whole", "raw": "raw"}
    found: Arrays = {
        f"successor/{name}": successor.succession(model, circuits, of, own, through=through).reshape(shape)
        for name, through in names.items()
    }
    found["successor/succession_null"] = successor.succession(model, circuits, of, mismatched)
    if circuits.layers > 1:
        above = _above_the_first(circuits, mismatched)
        found["successor/whole_null"] = successor.succession(model, circuits, of, above, through="whole")
        found["successor/raw_null"] = successor.succession(model, circuits, of, above, through="raw")
    given = rows(tokenizer, kept)
    told = about(kept, dropped, shared_items(kept, given))
    return {**found, "successor/about": told, **_lists(model, kept, given)}


def _above_the_first(circuits: Circuits, pairing: Pairing) -> Pairing:
    """The pairs that read above layer 0: below, nothing has come from the first feed-forward that could be taken away."""
    some = circuits.layer(pairing.reader) > 0
    return replace(pairing, reader=pairing.reader[some], writer=pairing.writer[some], turn=pairing.turn[some])


def _lists(model: Model, kept: tuple[Ordered, ...], given: tuple[Row, ...]) -> Arrays:
    """What heads do on lists, per run of members: other ways of writing down the same run are no new evidence."""
    if not given:
        return {}
    found, runs = successor.on_lists(model, kept, given), list(dict.fromkeys(row.run for row in given))
    of_run = [[number for number, row in enumerate(given) if row.run == run] for run in runs]
    by_run = {"direct": found.direct, "share": found.share, "chance": found.chance}
    return {
        **{f"successor/lists_{name}": np.stack([one[rows].mean(axis=0) for rows in of_run]) for name, one in by_run.items()},
        "successor/lists_class": np.array([given[rows[0]].kind for rows in of_run]),
        "successor/lists_confirm": np.array([given[rows[0]].half == "confirmation" for rows in of_run]),
    }


def about(kept: tuple[Ordered, ...], dropped: tuple[str, ...], shared: tuple[str, ...] = ()) -> np.ndarray:
    """Which classes were used, with how many tokens, which were dropped, and of which lists of both halves share items.

    As JSON in bytes, so that arrays can hold it.
    """
    used = [[one.title, len(one.tokens), one.counted] for one in kept]
    return np.frombuffer(json.dumps({"classes": used, "dropped": dropped, "shared": shared}).encode(), dtype=np.uint8)


def read_about(arrays: Mapping[str, np.ndarray]) -> tuple[list[tuple[str, int, int]], list[str], list[str]]:
    """The classes (name, single tokens, those with a successor), those dropped, and those whose halves share items."""
    told = json.loads(np.asarray(arrays["successor/about"]).tobytes())
    return [(name, size, counted) for name, size, counted in told["classes"]], list(told["dropped"]), list(told["shared"])
