"""The planted neurons: how a model comes to know its first position, and drowns it in one massive signal.

What you can learn here: why trained models have massive activations at the first token (Sun et al. 2024,
arXiv:2402.17762), and how a network without position embeddings can know where a text begins.

1. GPT-2's position embedding holds a faint flag at position 0. Llama has to work it out: a head in layer 0 averages the
   token codes so far (`parts.average`). The mean of one unit code has length 1; of two different ones, .7; and so on.
2. `squared_length` (Llama, layer 0): a gated neuron computes `silu(z) * z`, and `silu(z) z + silu(-z) (-z) = z**2`, so
   a pair of neurons per dimension adds up the squared length of the mean: the flag, 1 at position 0, elsewhere less.
3. `amplify`: neurons that fire only above a threshold of the flag write the massive signal `first`.

What this does not do: a text that begins with the same token twice has two first positions for Llama.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from innerworks.phantoms.stream import Stream

AMPLIFIERS = 16  # neurons that share the work of `amplify`, so that none needs large weights
STEEPNESS = {"gpt2": 30.0, "llama": 60.0}  # slope of their input over the flag
THRESHOLD = {"gpt2": 0.5, "llama": 0.78}  # of the flag; in Llama a second token of another code reaches .66
UP = 5.0  # Llama's second factor


@dataclass(frozen=True, kw_only=True)
class Neurons:
    """Weights of a few neurons in named coordinates: `f(gate @ x) * (up @ x)`, or `f(gate @ x)` in GPT-2.

    gate, up: `[neuron, named]`; down: `[named, neuron]`.
    """

    gate: Tensor
    up: Tensor
    down: Tensor


def squared_length(stream: Stream) -> Neurons:
    """Write the squared length of the code in `scratch` to the flag: two neurons per dimension (Llama only)."""
    scale = 3.0  # keeps pre-activations near those of other neurons
    rows = scale * torch.cat([stream.read("scratch"), -stream.read("scratch")])
    return Neurons(gate=rows, up=rows, down=stream.write("flag").expand(-1, len(rows)) / scale**2)


def amplify(stream: Stream) -> Neurons:
    """Turn a flag above the threshold into `first`, a signal a hundred times as large as all others together."""
    steepness, threshold = STEEPNESS[stream.architecture], THRESHOLD[stream.architecture]
    constant = stream.read("constant")
    gate = (steepness * (stream.read("flag") - threshold * constant)).expand(AMPLIFIERS, -1)
    up = (UP * constant).expand(AMPLIFIERS, -1)
    fired = steepness * (1 - threshold)
    if stream.architecture == "llama":  # there the flag itself and what it wrote make the norm larger, and readings smaller
        fired = steepness * (0.90 - 0.955 * threshold) * 0.955 * UP
    return Neurons(gate=gate, up=up, down=stream.write("first").expand(-1, AMPLIFIERS) / (AMPLIFIERS * fired))
