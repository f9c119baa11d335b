"""Decide again, from an atlas alone: no model, no text, the same findings."""

import json
from collections.abc import Iterable

import numpy as np

from innerworks.atlas import Atlas, schema
from innerworks.findings import Finding
from innerworks.heads import decide, effect
from innerworks.heads.ablation import Head, Rotated, set_name
from innerworks.scan.depth import depth_of
from innerworks.scan.run import unpack
from innerworks.scan.stages import picked_heads


def decide_again(atlas: Atlas) -> list[Finding]:
    """Recompute every effect, interval, p, q and rung of an atlas from the arrays it keeps."""
    arrays, metadata = atlas.arrays(schema.HEADS_BY_UNIT)
    table = decide.HeadsByUnit.of(arrays["mass"], arrays["rows"], json.loads(metadata["units"]))
    kept, about = atlas.arrays(schema.ABLATIONS)
    done = unpack(kept)
    removed = {name.removeprefix("removed/"): x for name, x in kept.items() if name.startswith("removed/")}

    def without(heads: Iterable[Head | Rotated], metric: str) -> np.ndarray:
        return done[set_name(frozenset(heads))][metric]

    settings = atlas.manifest["settings"]
    bench = effect.Bench(without=without, strata=json.loads(about["strata"]))
    effort = depth_of(settings["depth"]).effort
    return effect.climb(decide.findings(table), picked_heads(table), removed, bench, effort, settings["seed"])
