"""The planted neurons: how a model comes to know its first position, and drowns it in one massive signal.

What you can learn here: why trained models have massive activations at the first token (Sun et al. 2024,
arXiv:2402.17762), and how a network without position embeddings can know where a text begins.

1. GPT-2's position embedding holds a faint flag at position 0. Llama has to work it out: a head in layer 0 averages the
   token codes so far (`parts.average`). The mean of one unit code has length 1; of two different ones, .7; and so on.
2. `squared_length` (Llama, layer 0): a gated neuron computes `silu(z) * z`, and `silu(z) z + silu(-z) (-z) = z**2`, so
   a pair of neurons per dimension adds up the squared length of the mean: the flag, 1 at position 0, elsewhere less.
3. `amplify`: neurons that fire only above a threshold of the flag write the massive signal `first`.
4. `order`: of each ordinal, a neuron that knows it writes which token comes after it and which before, in codes of their own:
   the numeric structure that successor heads read (Gould et al. 2023, arXiv:2312.09230).

What this does not do: a text that begins with the same token twice has two first positions for Llama.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from innerworks.phantoms.stream import Stream

AMPLIFIERS = 16  # neurons that share the work of `amplify`, so that none needs large weights
STEEPNESS = {"gpt2": 30.0, "llama": 60.0}  # slope of their input over the flag
THRESHOLD = {"gpt2": 0.5, "llama": 0.78}  # of the flag; in Llama a second token of another code reaches .66
UP = 5.0  # Llama's second factor
KNOWS, UNLIKE = (
    24.0,
    0.65,
)  # slope of an ordinal's neuron over the likeness of codes, and its threshold: no two are above .4 alike


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


def order(stream: Stream, codes: Tensor, ordered: Sequence[Sequence[int]], turns: Mapping[str, Tensor]) -> Neurons:
    """One neuron per ordinal: write the codes of its neighbours, turned, to `after` and `before`.

    codes: of all tokens; ordered: classes of tokens in order; turns: by subspace, what a head must undo.
    """
    known, written = [], []
    for one in ordered:
        for place, token in enumerate(one):
            beside = {"after": one[place + 1 : place + 2], "before": one[max(0, place - 1) : place]}
            columns = [stream.write(into) @ turns[into].T @ codes[next_to] for into, ids in beside.items() for next_to in ids]
            known.append(codes[token])
            written.append(torch.stack(columns).sum(dim=0))
    constant = stream.read("constant")
    gate = KNOWS * (torch.stack(known) @ stream.read("token") - UNLIKE * constant)
    fired = KNOWS * (1 - UNLIKE) * (UP if stream.architecture == "llama" else 1.0)
    return Neurons(gate=gate, up=(UP * constant).expand(len(known), -1), down=torch.stack(written, dim=1) / fired)


def together(parts: Sequence[Neurons]) -> Neurons:
    """The neurons of several parts, which share a layer."""
    gate, up = (torch.cat([getattr(one, name) for one in parts]) for name in ("gate", "up"))
    return Neurons(gate=gate, up=up, down=torch.cat([one.down for one in parts], dim=1))
