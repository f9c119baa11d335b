"""Which neurons is a metric lost without? Exact mean ablation of few neurons, each against 20 matched controls.

1. The harm of each candidate is measured on confirmation units. Controls are run only where it exceeds the floor over units: else
   the neuron is not necessary, whatever controls do, and p is 1.
2. Controls are the 20 neurons of neighbouring layers that are most alike in what their ablation removes, none of them suspected.
3. `decided` turns what was measured into `stats.Necessity`, without a model.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from innerworks.findings import joined
from innerworks.model import Mean, Model, Run, ablate
from innerworks.model.harms import Metric, Way, changes
from innerworks.model.matched import Place, how_alike, nearest
from innerworks.sites import Site
from innerworks.stats import CONSTANTS, Array, Necessity, estimate, harm_alone, necessity
from innerworks.text import TextBatch

Neuron = Place


def without(model: Model, mean: Mean, neurons: Collection[Neuron]) -> Way:
    """Run again with some neurons at their mean, at every position but the first."""
    edits = [ablate(Site(layer=layer, neuron=neuron), mean=mean) for layer, neuron in sorted(neurons)]

    def way(clean: Run) -> Run:
        return model.run(clean.tokens, mask=clean.mask, edit=edits, resume=clean, logits="none")

    return way


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One candidate: its harm per unit, and that of its controls, unless the harm alone is too small to ask for them."""

    neuron: Neuron
    harm: Float[np.ndarray, " unit"]
    controls: tuple[Neuron, ...]
    by_control: Float[np.ndarray, "control unit"] | None


def tried(
    model: Model,
    batches: Sequence[TextBatch],
    mean: Mean,
    removed: Float[np.ndarray, "layer neuron"],
    neurons: Sequence[Neuron],
    suspects: Collection[Neuron],
    metric: Metric,
    strata: Sequence[str],
    *,
    falls: bool = False,
    by_unit: Callable[[Array], Array] = lambda by_row: by_row,
    floor: float = CONSTANTS.harm_floor,
    step: Callable[[], None] = lambda: None,
) -> list[Tried]:
    """Ablate each neuron, and its controls where its own harm exceeds the floor.

    metric: a loss; or a score, with `falls`. strata: of the units. by_unit: averages rows of the batches to units, `[way, row]`
    to `[way, unit]`, where several rows are one unit.
    """
    sign = -1.0 if falls else 1.0

    def harms(which: Sequence[Neuron]) -> Array:
        ways = [without(model, mean, [one]) for one in which]
        return sign * by_unit(changes(model, batches, ways, metric, step=step))

    found = []
    for neuron, harm in zip(neurons, harms(neurons), strict=True):
        worth = float(estimate(harm, strata).p_above(floor)) <= CONSTANTS.level
        controls = nearest([neuron], suspects, removed) if worth else []
        by_control = harms(controls) if controls else None
        found.append(Tried(neuron=neuron, harm=harm, controls=tuple(controls), by_control=by_control))
    return found


def decided(one: Tried, strata: Sequence[str], *, floor: float = CONSTANTS.harm_floor) -> Necessity:
    """Test a harm against its controls; without them, it is only said how large it is, and p is 1."""
    if one.by_control is not None:
        return necessity(one.harm, one.by_control, strata, floor=floor)
    return harm_alone(one.harm, strata, floor=floor)


def note_of(one: Tried, removed: Float[np.ndarray, "layer neuron"]) -> str:
    """What must be said beside a harm."""
    return joined(
        "" if one.controls else "the harm itself is not shown to exceed the floor: no controls run",
        how_alike(one.neuron, one.controls, removed) if one.controls else "",
    )


# --- as arrays, for an atlas -------------------------------------------------------------------------------------


def packed(some: Sequence[Tried], prefix: str) -> dict[str, np.ndarray]:
    """What was measured as arrays: `PREFIX/neurons`, `PREFIX/harm`, and `PREFIX/L3N5/controls` and `.../by_control`."""
    arrays = {
        f"{prefix}/neurons": np.array([one.neuron for one in some], dtype=np.int64).reshape(-1, 2),
        f"{prefix}/harm": np.stack([one.harm for one in some]) if some else np.zeros((0, 0)),
    }
    for one in some:
        if one.by_control is not None:
            arrays[f"{_name(prefix, one.neuron)}/controls"] = np.array(one.controls, dtype=np.int64).reshape(-1, 2)
            arrays[f"{_name(prefix, one.neuron)}/by_control"] = one.by_control
    return arrays


def unpacked(arrays: Mapping[str, np.ndarray], prefix: str) -> list[Tried]:
    """Read them back."""
    found = []
    for (layer, neuron), harm in zip(arrays[f"{prefix}/neurons"].tolist(), arrays[f"{prefix}/harm"], strict=True):
        name = _name(prefix, (layer, neuron))
        controls = [(at, part) for at, part in arrays.get(f"{name}/controls", np.zeros((0, 2), np.int64)).tolist()]
        by_control = arrays.get(f"{name}/by_control")
        found.append(Tried(neuron=(layer, neuron), harm=harm, controls=tuple(controls), by_control=by_control))
    return found


def _name(prefix: str, neuron: Neuron) -> str:
    return f"{prefix}/{Site(layer=neuron[0], neuron=neuron[1])}"
