"""What does every neuron do at every place, some layers at a time?

All activations of a model may not fit in memory (46,080 neurons at 10,000 places are 1.8 GB), so as many layers as do are
recorded at once, and the text is read again for the next ones. Nothing goes to disk: matching costs far more than reading.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.errors import BrokenModel
from innerworks.model import Model
from innerworks.neurons.universal.stretches import Side
from innerworks.sites import Site
from innerworks.text.reading import BATCH

BLOCK_BYTES = 2**30  # of activations held at once, of each model


def layers_of(model: Model) -> list[int]:
    """The layers that have plain neurons (those of a mixture of experts are not compared)."""
    return [layer for layer in range(model.anatomy.layers) if model.lacks("neurons", layer) is None]


def blocks(model: Model, places: int) -> list[list[int]]:
    """The layers that are held at once."""
    layers = layers_of(model)
    fit = max(1, BLOCK_BYTES // (4 * places * model.anatomy.neurons))
    return [layers[start : start + fit] for start in range(0, len(layers), fit)]


def by_block(
    model: Model, sides: Sequence[Side], *, device: torch.device, step: Callable[[int], None]
) -> Iterator[tuple[list[int], Float[Tensor, "layer place neuron"]]]:
    """The activations of all layers at the places, as many layers at once as memory allows. step: called with places read."""
    places = sum(len(side.places) for side in sides)
    for block in blocks(model, places):
        yield block, _activations(model, sides, block, places, device, step)


def _activations(
    model: Model, sides: Sequence[Side], layers: Sequence[int], places: int, device: torch.device, step: Callable[[int], None]
) -> Float[Tensor, "layer place neuron"]:
    found = torch.empty(len(layers), places, model.anatomy.neurons, device=device)
    done = 0
    for start in range(0, len(sides), BATCH):
        batch = sides[start : start + BATCH]
        longest = max(len(side.tokens) for side in batch)
        tokens = torch.tensor([[*side.tokens, *[0] * (longest - len(side.tokens))] for side in batch])
        mask = torch.arange(longest) < torch.tensor([len(side.tokens) for side in batch])[:, None]
        run = model.run(tokens, mask=mask, record=[Site(layer=layer, kind="neurons") for layer in layers], logits="none")
        rows = torch.tensor([row for row, side in enumerate(batch) for _ in side.places])
        columns = torch.tensor([place for side in batch for place in side.places])
        for i, layer in enumerate(layers):
            found[i, done : done + len(rows)] = run.recorded["neurons", layer][rows, columns].float().to(device)
        done += len(rows)
        step(len(rows))
    for layer, one in zip(layers, found, strict=True):
        if not bool(one.isfinite().all()):
            raise BrokenModel(f"L{layer}.neurons of {model.name} are not finite in its dtype: load it in float32 or bfloat16.")
    return found
