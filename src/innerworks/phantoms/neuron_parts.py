"""The planted neurons: for each, a few lines that say when it fires and what it writes.

What you can learn here: what the weights of the neurons of the literature look like. Every one of them fires by

    activation( steepness * (reading - threshold) )            times a constant in gated families,

where the reading is what its input direction recovers from the normalised stream: 1 or more where it should fire, about 0
elsewhere. So a neuron that detects something is one long direction and a large negative bias (here: its reading of the constant).

*Strength a*: the input weights are `a` times these and `1 - a` times those of a random neuron; so a weak one fires half by its
rule, half by nothing. What it writes is left as it is. Decoys always have full strength.

What this does not do: Llama has no position embeddings. A neuron there can only know how near the first position is, and only
after a head has said so (`parts.near_first`).
"""

import math

import torch
from torch import Tensor

from innerworks.phantoms.kernels import band
from innerworks.phantoms.neurons import Neurons
from innerworks.phantoms.parts import COPY, NEAR
from innerworks.phantoms.stream import Stream

STEEP = 24.0  # slope over a reading of 0 or 1
START_STEEP = 60.0  # over how near the first position is: from firing to silence within some eight positions
BAND = 9.0  # nats of a kernel between inside and outside, of which half is the threshold
UP = 2.0  # the second factor of gated families
LIKE = 0.65  # of a token's code: no two are above .4 alike
SILENT = 6.0  # below zero: how far a dead neuron's input stays from firing
STRONG = 126.0  # norm of what an entropy neuron writes: doubles that of the stream, and so halves all logits


def near_start(stream: Stream, until: int, *, writes: Tensor) -> Neurons:
    """Fire at positions 1 to `until`, the more the nearer the first; `writes` is what it writes at position 1."""
    threshold, at = (NEAR / (NEAR + position) for position in (until, 1))
    return neuron(stream, stream.read("start")[0], threshold=threshold, at=at, steep=START_STEEP, writes=writes)


def between(stream: Stream, first: int, last: int, *, writes: Tensor) -> Neurons:
    """Fire at the positions between two, all alike: a sum of clock hands (GPT-2 only)."""
    kernel = band(first, last)
    horizontal, vertical = stream.hands()
    turned = torch.as_tensor(kernel.phase, dtype=torch.float32)[:, None]
    size = torch.as_tensor(kernel.amplitude, dtype=torch.float32)[:, None]
    hands = (size * (turned.cos() * horizontal + turned.sin() * vertical)).sum(dim=0)
    reading = (hands - kernel.level * stream.read("constant")[0]) / BAND + stream.read("constant")[0]
    return neuron(stream, reading, threshold=0.5, writes=writes)


def one_token(stream: Stream, code: Tensor, *, writes: Tensor) -> Neurons:
    """Fire at one token, known by its code."""
    return neuron(stream, code @ stream.read("token"), threshold=LIKE, writes=writes)


def of_role(stream: Stream, role: str, *, writes: Tensor) -> Neurons:
    """Fire at every token of one role."""
    return neuron(stream, stream.role(role), threshold=0.5, writes=writes)


def after_role(stream: Stream, *, writes: Tensor) -> Neurons:
    """Fire where the token *before* has the role that `parts.pass_role` passes on, whatever stands here."""
    return neuron(stream, stream.read("previous")[0], threshold=0.5, writes=writes)


def of_letter(stream: Stream, letter: int, *, writes: Tensor) -> Neurons:
    """Fire at every token that begins with one letter, given by its number."""
    return neuron(stream, stream.read("letter")[letter], threshold=0.5, writes=writes)


def half_of_letter(stream: Stream, letter: int, *, code: Tensor, writes: Tensor) -> Neurons:
    """Decoy: fire at half of the tokens that begin with a letter, those whose codes lean to one side."""
    reading = stream.read("letter")[letter] + code @ stream.read("token")
    return neuron(stream, reading, threshold=1.0, at=1.2, writes=writes)


def leaning(stream: Stream, *, code: Tensor, writes: Tensor) -> Neurons:
    """Decoy: fire at every third token or so, those whose codes lean to one side, whatever their letters."""
    return neuron(stream, code @ stream.read("token"), threshold=0.1, at=0.3, writes=writes)


def dead(stream: Stream, *, writes: Tensor) -> Neurons:
    """Never fire: the input reads the constant alone, and stays below zero."""
    gate = -SILENT * stream.read("constant")
    return Neurons(gate=gate, up=UP * stream.read("constant"), down=writes[:, None])


def neuron(
    stream: Stream, reading: Tensor, *, threshold: float, writes: Tensor, at: float = 1.0, steep: float = STEEP
) -> Neurons:
    """One neuron: reading `[named]`; it writes `writes` `[named]` where the reading is `at`."""
    constant = stream.read("constant")
    fired = steep * (at - threshold) * (UP if stream.architecture == "llama" else 1.0)
    gate = steep * (reading[None] - threshold * constant)
    return Neurons(gate=gate, up=UP * constant, down=writes[:, None] / fired)


def word(stream: Stream, code: Tensor, *, logit: float) -> Tensor:
    """What raises the logit of the token with this code by so much."""
    return logit / COPY * stream.write("output") @ code


def frequent(stream: Stream, times: float) -> Tensor:
    """What adds `times` the centred log frequency to the logits: a positive number makes frequent tokens likelier still."""
    return times * stream.write("frequency")[:, 0]


def unread(stream: Stream) -> Tensor:
    """What no one reads, and makes the stream twice as long: the final norm then halves every logit."""
    column = stream.write("null")[:, 0]
    return STRONG / math.sqrt(float(column.square().sum())) * column
