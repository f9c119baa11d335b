"""Where labelled neurons are strongest on real text, and what they write there: for a page about each of them.

1. Which: neurons with a label, the highest rungs first, then those that were tested and came nearest to one.
2. Where: the strongest contexts that the study of inputs has kept, one per document, on the side of zero where the peak is;
   with some tokens before and after.
3. What it writes: its row of the down projection through the final norm's gain and the unembedding, less the mean over the
   vocabulary: the tokens raised and lowered most by an activation of one on that side, in a stream of unit scale. It does not
   say what later layers make of it.

An example illustrates; nothing is decided by it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from innerworks.atlas import Context, NeuronExample
from innerworks.findings import Finding
from innerworks.model import Model
from innerworks.neurons.outputs.unembedding import Unembedding
from innerworks.sites import Site
from innerworks.text import Reading
from innerworks.text.reading import Window

MOST = 1000  # neurons
CONTEXTS = 4  # of each
BEFORE, AFTER = 14, 4  # tokens shown around the strongest
WRITTEN = 5  # tokens named as raised, as lowered

Neuron = tuple[int, int]
Changed = tuple[tuple[str, float], ...]


def shown(
    model: Model, reading: Reading, arrays: Mapping[str, np.ndarray], findings: Sequence[Finding], *, most: int = MOST
) -> list[NeuronExample]:
    """One example per neuron; see the top of this file. arrays: what the study of inputs kept; may be empty."""
    neurons = worth_showing(findings, most=most)
    sides = [int(arrays["sign"][neuron]) if "sign" in arrays else 1 for neuron in neurons]
    written = _written(model, neurons, sides) if neurons and refusal(model) is None else [((), ())] * len(neurons)
    windows = _windows(reading)
    return [
        NeuronExample(
            site=str(Site(layer=neuron[0], neuron=neuron[1])),
            side=side,
            contexts=_contexts(model, reading, windows, arrays, neuron, side),
            raised=raised,
            lowered=lowered,
        )
        for neuron, side, (raised, lowered) in zip(neurons, sides, written, strict=True)
    ]


def worth_showing(findings: Sequence[Finding], *, most: int = MOST) -> list[Neuron]:
    """Labelled neurons, the highest rungs first, then those nearest to a label (largest effects in units of their floors)."""
    best: dict[Neuron, tuple[int, float]] = {}
    for one in findings:
        if one.chapter == "neurons" and one.layer is not None and one.index is not None:
            over = one.effect / one.floor if one.floor and np.isfinite(one.effect) else 0.0
            key, before_ = (one.layer, one.index), best.get((one.layer, one.index), (0, 0.0))
            best[key] = max(before_, (one.rung, over))
    return sorted(best, key=lambda neuron: best[neuron], reverse=True)[:most]


def refusal(model: Model) -> str | None:
    """Why weights do not show what neurons write to the logits, or None where they do."""
    if not model.anatomy.sums:
        return f"{model.name} norms its stream after each addition"
    return model.weights.unreadable


# --- where they are strongest --------------------------------------------------------------------------------------


def _windows(reading: Reading) -> dict[int, list[Window]]:
    found: dict[int, list[Window]] = defaultdict(list)
    for window in reading.windows:
        found[window.unit].append(window)
    return found


def _contexts(
    model: Model,
    reading: Reading,
    windows: Mapping[int, Sequence[Window]],
    arrays: Mapping[str, np.ndarray],
    at: Neuron,
    side: int,
) -> tuple[Context, ...]:
    name = "top" if side > 0 else "bottom"
    if f"{name}_unit" not in arrays:
        return ()
    found = []
    places = [arrays[f"{name}_{what}"][at].tolist() for what in ("unit", "window", "position", "value")]
    for unit, window, position, value in list(zip(*places, strict=True))[:CONTEXTS]:
        if unit < 0 or not value:  # a dead neuron is strongest nowhere
            continue
        tokens = windows[unit][window].tokens
        start = max(0, position - BEFORE)
        words = tuple(str(model.tokenizer.decode([token])) for token in tokens[start : position + AFTER + 1])
        found.append(
            Context(
                unit=reading.units[unit].id, tokens=words, at=position - start, position=position, value=round(float(value), 4)
            )
        )
    return tuple(found)


# --- what they write -----------------------------------------------------------------------------------------------


def _written(model: Model, neurons: Sequence[Neuron], sides: Sequence[int]) -> list[tuple[Changed, Changed]]:
    """The tokens raised and lowered most by each neuron; the unembedding is never held as a whole."""
    rows = _rows(model, neurons) * torch.tensor(sides, device=model.weights.W_U().device)[:, None]
    most, least = (_furthest(model, sign * rows) for sign in (1, -1))
    return [
        (_words(model, most[1][row], most[0][row]), _words(model, least[1][row], -least[0][row])) for row in range(len(neurons))
    ]


def _rows(model: Model, neurons: Sequence[Neuron]) -> Tensor:
    """What some neurons write, `[neuron, d_model]`; the weights of each layer are read once."""
    found: dict[Neuron, Tensor] = {}
    for layer in {layer for layer, _ in neurons}:
        mine = [neuron for neuron in neurons if neuron[0] == layer]
        weights = model.weights.W_out(layer, fold=True)[[index for _, index in mine]].float()
        found |= dict(zip(mine, weights.to(model.weights.W_U().device), strict=True))
    return torch.stack([found[neuron] for neuron in neurons])


def _furthest(model: Model, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logits of each row over the vocabulary (less what is added to all logits alike), and whose they are."""
    values, tokens = rows.new_zeros(len(rows), 0), torch.zeros(len(rows), 0, dtype=torch.long, device=rows.device)
    for some, columns in Unembedding.of(model).blocks():
        values = torch.cat([values, rows @ columns.mT], dim=1)
        here = torch.arange(some.start, some.stop, device=rows.device)
        tokens = torch.cat([tokens, here.expand(len(rows), -1)], dim=1)
        values, places = values.topk(min(WRITTEN, values.shape[1]))
        tokens = tokens.gather(1, places)
    return values, tokens


def _words(model: Model, tokens: Tensor, logits: Tensor) -> Changed:
    words = (str(model.tokenizer.decode([token])) for token in tokens.tolist())
    return tuple((word, round(logit, 4)) for word, logit in zip(words, logits.tolist(), strict=True))
