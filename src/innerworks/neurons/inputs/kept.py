"""What an atlas keeps of every neuron beside its tests: how large it gets, where it is strongest, what fires it.

`[layer, neuron]`: `low`, `high` (limits), `spread` (standard deviation of the clipped activation), `written` (norm of what one
unit of it writes), `sign` (side of zero where its peak is). `distinct [half, layer, neuron]`: different tokens there.
`peak [part, side, layer, neuron]`: largest and smallest activation on discovery, confirmation and random tokens.
`stream [layer]`: median norm of the stream behind the layer. `histogram [layer, neuron, bin]`.
`top_...` and `bottom_...` `[layer, neuron, k]`: the text's strongest contexts on either side, one per document: unit, window of
the unit, position in the window, value; unit -1 where there are fewer.
"""

import numpy as np
import torch

from innerworks.model import Model, strongest
from innerworks.model.observe import State
from innerworks.neurons.inputs.contexts import tokens_at
from innerworks.neurons.inputs.design import Design
from innerworks.neurons.inputs.detectors import SUMS
from innerworks.neurons.inputs.watch import Frozen
from innerworks.text import Reading

Arrays = dict[str, np.ndarray]


def described(model: Model, state: State, frozen: Frozen) -> Arrays:
    """Sizes, limits, histogram and triggers."""
    rows = state["gram"].sum(dim=0)[0, 0].clamp(min=1)
    spread = (state["squares"].sum(dim=0) / rows - frozen.mean.square()).clamp(min=0).sqrt()
    peak = strongest.unpack(state["strongest"][..., 0]).value
    peak[:, 1] *= -1
    fixed = {name: state[f"fixed_{name}"].numpy(force=True) for name in ("low", "high", "stream")}
    return {
        **fixed,
        "spread": spread.float().numpy(),
        "peak": peak,
        "histogram": state["histogram"].numpy(force=True),
        "triggers": frozen.detectors.triggers.astype(np.int32),
        "pairs": frozen.detectors.pairs,
        "sign": frozen.detectors.sign.astype(np.int8),
        **{name: state[name].numpy(force=True) for name in SUMS},
        **_written(model),
    }


def _written(model: Model) -> Arrays:
    """The norm of each neuron's row of the down projection, where weights can be read."""
    a = model.anatomy
    if model.weights.unreadable is not None:
        return {}
    norms = np.zeros((a.layers, a.neurons), dtype=np.float32)
    for layer in range(a.layers):
        if model.lacks("neurons", layer) is None:
            norms[layer] = model.weights.W_out(layer).float().norm(dim=-1).numpy(force=True)
    return {"written": norms}


def contexts(design: Design, reading: Reading, state: State) -> Arrays:
    """The strongest contexts of the text on either side of zero, and how many different tokens they are."""
    halves = state["strongest"][:2]
    found: Arrays = {}
    for side, name in enumerate(("top", "bottom")):
        one = strongest.unpack(torch.cat([halves[0, side], halves[1, side]], dim=-1).topk(halves.shape[-1], dim=-1).values)
        value = one.value if name == "top" else -one.value
        found |= {f"{name}_value": value, f"{name}_unit": one.unit}
        found |= {f"{name}_window": one.window, f"{name}_position": one.position}
    return found | {"distinct": _distinct(design, reading, state)}


def _distinct(design: Design, reading: Reading, state: State) -> np.ndarray:
    """Different token types (whatever the case, and the blank before) at the strongest contexts of each half."""
    numbers = {text: i for i, text in enumerate(dict.fromkeys(design.types))}
    of_token = np.array([*(numbers[text] for text in design.types), -1])
    found = strongest.unpack(state["strongest"][:2])
    types = of_token[tokens_at(reading, found)]  # half side layer neuron k
    side = (found.value[0, 1, ..., 0] > found.value[0, 0, ..., 0]).astype(int)[None, None, ..., None]
    mine = np.sort(np.take_along_axis(types, side, 1)[:, 0], axis=-1)
    new = (mine[..., 1:] != mine[..., :-1]).sum(axis=-1) + 1
    return (new - (mine[..., 0] < 0)).astype(np.int8)
