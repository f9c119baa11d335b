"""Decide again, from an atlas alone: no model, no text, the same findings."""

import json
from collections.abc import Iterable

import numpy as np

from innerworks.atlas import Atlas, schema
from innerworks.findings import Finding
from innerworks.heads import decide, effect, seen
from innerworks.heads.ablation import read_off, set_name
from innerworks.heads.controls import Control
from innerworks.scan.run import unpack
from innerworks.scan.stages import suspects


def decide_again(atlas: Atlas) -> list[Finding]:
    """Recompute every effect, interval, p, q and rung of an atlas from the arrays it keeps."""
    arrays, metadata = atlas.arrays(schema.HEADS_BY_UNIT)
    table = decide.HeadsByUnit.of(arrays["mass"], arrays["rows"], json.loads(metadata["units"]))
    kept, about = atlas.arrays(schema.ABLATIONS)
    done = unpack(kept)
    watchers = [(layer, head) for layer, head in json.loads(about["watchers"])]

    def without(heads: Iterable[Control], metric: str) -> np.ndarray:
        return read_off(done[set_name(frozenset(heads))], metric, watchers)

    bench = effect.Bench(
        without=without,
        strata=json.loads(about["strata"]),
        watchers=watchers,
        suspects=suspects(table),
        removed={name.removeprefix("removed/"): x for name, x in kept.items() if name.startswith("removed/")},
    )
    settings = atlas.manifest["settings"]
    return effect.climb(seen.findings(table), bench, effect.Effort(**settings["effort"]), settings["seed"])
