"""Decide again, from an atlas alone: no model, no text, the same findings."""

from innerworks.atlas import Atlas, schema
from innerworks.findings import Finding
from innerworks.model.study import Kept
from innerworks.scan.studies import decide, studies


def decide_again(atlas: Atlas) -> list[Finding]:
    """Recompute every effect, interval, p, q and rung of an atlas from the arrays it keeps."""
    chosen = studies()
    kept = {study.name: _kept(atlas, study.name) for study in chosen if (atlas.path / schema.of_study(study.name)).is_file()}
    return decide(chosen, kept, atlas.units.rows())


def _kept(atlas: Atlas, name: str) -> Kept:
    arrays, about = atlas.arrays(schema.of_study(name))
    return Kept(arrays=arrays, about=about)
