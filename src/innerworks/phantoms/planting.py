"""From parts to layers: random weights everywhere, parts planted among them, noise on top.

Parts come in named coordinates and go into the model's own along the stream's basis. What is not planted stays random,
so a detector has to find the few known heads among many that do nothing.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from innerworks.phantoms.families import Block, Family
from innerworks.phantoms.neurons import Neurons
from innerworks.phantoms.parts import Head
from innerworks.phantoms.places import Place
from innerworks.phantoms.stream import D_HEAD, D_MODEL, WIDTHS, Stream

FIXED = ("constant", "first")  # subspaces whose signal is the same in every text
RANDOM_QUERY, RANDOM_KEY = 0.03, 0.08  # standard deviations: scores of random heads vary by about half a nat
RANDOM_VALUE = RANDOM_OUTPUT = 0.02  # as Hugging Face initialises
RANDOM_GATE, RANDOM_DOWN = 0.06, 0.02  # pre-activations of random neurons vary by about one


def random_block(
    family: Family, stream: Stream, generator: torch.Generator, *, neurons_know: Collection[str] | None = None
) -> Block:
    """One layer of random heads and neurons.

    Their values and pre-activations are blind to what is the same in every text: with it they would mostly write one
    fixed vector, which only shifts the codes that the parts read.

    neurons_know: the only subspaces that neurons read, where a random reading of all of them would be something with a name: of
    letters, or of positions. Then the second factor of gated ones is about 1, not a second reading, so that no product peaks.
    """

    def gaussian(*shape: int, sd: float) -> Tensor:
        return sd * torch.randn(*shape, generator=generator)

    known = [space for space in WIDTHS if neurons_know is None or space in neurons_know]
    unknown = [space for space in WIDTHS if space not in known or space in FIXED]
    constant = stream.basis @ stream.read("constant")[0] * (neurons_know is not None)

    return Block(
        query=gaussian(family.heads, D_HEAD, D_MODEL, sd=RANDOM_QUERY),
        key=gaussian(family.kv_heads, D_HEAD, D_MODEL, sd=RANDOM_KEY),
        value=blind(gaussian(family.kv_heads, D_HEAD, D_MODEL, sd=RANDOM_VALUE), stream),
        output=gaussian(family.heads, D_MODEL, D_HEAD, sd=RANDOM_OUTPUT),
        gate=blind(gaussian(family.neurons, D_MODEL, sd=RANDOM_GATE), stream, unknown),
        up=blind(gaussian(family.neurons, D_MODEL, sd=RANDOM_GATE), stream, unknown) + constant,
        down=gaussian(D_MODEL, family.neurons, sd=RANDOM_DOWN),
    )


def blind(weights: Tensor, stream: Stream, spaces: Sequence[str] = FIXED) -> Tensor:
    """Remove from weights `[..., d_model]` what reads some subspaces: if not others, the constant and `first`."""
    fixed = stream.basis @ torch.cat([stream.write(space) for space in spaces], dim=1)
    fixed = torch.nn.functional.normalize(fixed, dim=0)
    return weights - weights @ fixed @ fixed.T


def plant_head(block: Block, family: Family, stream: Stream, place: Place, head: Head) -> None:
    """Write a head into its layer, its key and value into the key head that it reads.

    Random heads on the same key head must not ask it the same thing at every position: that would make of the part's
    clocks, which are large, a preference for some distance. So their queries are made blind to the constant.
    """
    shared = family.heads // family.kv_heads
    kv_head = place.head // shared
    group = slice(kv_head * shared, (kv_head + 1) * shared)
    block.query[group] = blind(block.query[group], stream)
    block.query[place.head] = head.query @ stream.basis.T
    block.key[kv_head] = head.key @ stream.basis.T
    if head.value is not None and head.output is not None:
        block.value[kv_head] = head.value @ stream.basis.T
        block.output[place.head] = stream.basis @ head.output


def plant_neurons(block: Block, stream: Stream, neurons: Neurons, rng: np.random.Generator, strength: Tensor) -> list[int]:
    """Write neurons into randomly drawn places of their layer, and return these.

    strength: of each, in (0, 1]: what is missing to 1 is the random neuron that stood there, by the weights of its gate.
    """
    drawn = torch.as_tensor(rng.permutation(len(block.gate))[: len(neurons.gate)])
    share = strength[:, None]
    block.gate[drawn] = share * (neurons.gate @ stream.basis.T) + (1 - share) * block.gate[drawn]
    block.up[drawn] = neurons.up @ stream.basis.T
    block.down[:, drawn] = stream.basis @ neurons.down
    return drawn.tolist()


def add_noise(hf: PreTrainedModel, noise: float, generator: torch.Generator) -> None:
    """Add `noise * RMS(W) * N(0, 1)` to every weight matrix; the same draw at every strength."""
    for parameter in hf.parameters():
        if parameter.ndim == 2:
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.data += noise * parameter.data.square().mean().sqrt() * drawn
