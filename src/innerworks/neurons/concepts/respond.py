"""How does every neuron respond to each example? The most it does from the word in question on, in either direction.

`up = max over positions of the activation`, `down = max of minus the activation`, from the first token that tells to the end of
the sentence, averaged over the frames of an example. (Suau et al. 2020 take the maximum over the whole sentence; before the
word all of ours are alike.) Neurons of gated feed-forwards are as good with their sign turned, so that each counts as two.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from innerworks.errors import BrokenModel
from innerworks.model import Model
from innerworks.sites import Site
from innerworks.text.tasks.concepts import Example, first_place

SIGNS = (1, -1)  # up, down
AT_ONCE = 32  # sentences


def responses(
    model: Model, some: Sequence[Example], *, step: Callable[[int], None] = lambda sentences: None
) -> Float[Tensor, "example sign layer neuron"]:
    """One response per example, direction and neuron, in half precision, on the CPU."""
    rows = [(number, *first_place(model.tokenizer, *one)) for number, example in enumerate(some) for one in example.sentences]
    rows.sort(key=lambda row: len(row[1]))
    found = torch.zeros(len(some), len(SIGNS), model.anatomy.layers, model.anatomy.neurons, dtype=torch.float16)
    share = torch.tensor([1 / len(example.sentences) for example in some])
    for start in range(0, len(rows), AT_ONCE):
        chosen = rows[start : start + AT_ONCE]
        _add(model, found, share, chosen)
        step(len(chosen))
    if not bool(found.isfinite().all()):
        where = sorted({int(layer) for layer in (~found.isfinite()).nonzero()[:, 2]})
        raise BrokenModel(
            f"{model.name} has activations that are no numbers, or beyond {torch.finfo(found.dtype).max:.0f}, in layers {where}: "
            "nothing can be ranked by them. See whether its weights are damaged; heads can be scanned alone (--only heads)."
        )
    return found


def longest(model: Model, some: Sequence[Example]) -> int:
    """Tokens of the longest sentence."""
    return max(len(first_place(model.tokenizer, *one)[0]) for example in some for one in example.sentences)


@torch.no_grad()
def _add(model: Model, found: Tensor, share: Tensor, rows: Sequence[tuple[int, tuple[int, ...], int]]) -> None:
    longest = max(len(tokens) for _, tokens, _ in rows)
    tokens = torch.tensor([[*one, *[0] * (longest - len(one))] for _, one, _ in rows])
    mask = torch.arange(longest) < torch.tensor([len(one) for _, one, _ in rows])[:, None]
    asked = mask & (torch.arange(longest) >= torch.tensor([first for *_, first in rows])[:, None])
    numbers = torch.tensor([number for number, *_ in rows])
    watch = [
        (Site(layer=layer, kind="neurons"), _watcher(found, share, numbers, asked.to(model.device), layer))
        for layer in range(model.anatomy.layers)
    ]
    model.run(tokens, mask=mask, watch=watch, logits="none")


def _watcher(
    found: Tensor, share: Tensor, numbers: Tensor, asked: Bool[Tensor, "row seq"], layer: int
) -> Callable[[Tensor, slice], None]:
    def see(activation: Tensor, queries: slice) -> None:
        outside = ~asked[..., None]
        for place, sign in enumerate(SIGNS):
            most = (sign * activation.float()).masked_fill(outside, float("-inf")).amax(dim=1).cpu()
            found[:, place, layer].index_add_(0, numbers, (most * share[numbers, None]).half())

    return see
