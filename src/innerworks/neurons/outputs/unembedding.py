"""What does writing a direction to the stream do to the logits of all tokens at once? Without ever holding them.

1. The column of a token is what raises its logit, the gain of the final norm folded in; rows that pad the vocabulary are left
   out, and the mean over the vocabulary is taken off, since the softmax does not see it.
2. `gram` sums `column columnᵀ` over tokens, some thousand at a time: `w gram wᵀ` is how far `w` moves all logits, squared.
3. `hidden` are the directions that move them least: the smallest hundredth of the eigenvectors of `gram`.

Gurnee et al. 2024, arXiv:2401.12181; Stolfo et al. 2024, arXiv:2406.16254.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.errors import UsageError
from innerworks.model import Model
from innerworks.model.norms import Norm
from innerworks.model.weights import before

TOKENS_AT_ONCE = 4096
HIDDEN_SHARE = 0.01  # of all directions: 40 of 4,096 in Stolfo et al.


@dataclass(frozen=True, kw_only=True)
class Unembedding:
    """The columns of a model's unembedding, centred over the vocabulary."""

    raw: Float[Tensor, "d_model vocab"] = field(repr=False)
    norm: Norm | None
    tokens: int  # that the tokenizer has; what lies behind only pads
    mean: Float[Tensor, " d_model"] = field(repr=False)

    @classmethod
    def of(cls, model: Model) -> "Unembedding":
        """Read it off a model."""
        raw, norm, tokens = model.weights.W_U(), model.weights.final_norm, real_tokens(model)
        total = sum(before(norm, part.mT).double().sum(dim=0) for part in raw[:, :tokens].split(TOKENS_AT_ONCE, dim=1))
        assert isinstance(total, Tensor)
        return cls(raw=raw, norm=norm, tokens=tokens, mean=(total / tokens).float())

    def blocks(self, *, unit: bool = False) -> Iterator[tuple[slice, Float[Tensor, "some d_model"]]]:
        """Some thousand tokens at a time, and their columns; unit: each of length 1."""
        for start in range(0, self.tokens, TOKENS_AT_ONCE):
            some = slice(start, min(start + TOKENS_AT_ONCE, self.tokens))
            columns = before(self.norm, self.raw[:, some].mT).float() - self.mean
            yield some, torch.nn.functional.normalize(columns, dim=-1) if unit else columns

    def gram(self, *, unit: bool = False) -> Float[Tensor, "d_model d_model"]:
        """The sum of `column columnᵀ` over the vocabulary."""
        total = torch.zeros(len(self.mean), len(self.mean), dtype=torch.float64, device=self.mean.device)
        for _, columns in self.blocks(unit=unit):
            total += (columns.mT @ columns).double()
        return total

    def toward(self, scores: Float[Tensor, " vocab"]) -> Float[Tensor, " d_model"]:
        """The direction whose product with `w` is that of the logits of `w` with these scores of tokens."""
        return sum((scores[some].to(columns) @ columns for some, columns in self.blocks()), torch.zeros_like(self.mean))

    def hidden(self, gram: Float[Tensor, "d_model d_model"]) -> Float[Tensor, "hidden d_model"]:
        """The directions that move logits least. What a LayerNorm takes away before is none of them."""
        width, gone = len(gram), int(self.norm is not None and self.norm.centred)
        count = max(1, round(HIDDEN_SHARE * width))
        return torch.linalg.eigh(gram).eigenvectors[:, gone : gone + count].mT.float()

    def written(self, model: Model, layer: int) -> Float[Tensor, "neuron d_model"]:
        """What each neuron of a layer writes, per unit of activation, as the final norm lets it pass."""
        written = model.weights.W_out(layer, fold=True).float()
        centred = self.norm is not None and self.norm.centred
        return written - written.mean(dim=-1, keepdim=True) if centred else written


def real_tokens(model: Model) -> int:
    """How many rows of the vocabulary are tokens; all of them where a model was wrapped without a tokenizer."""
    vocab = model.weights.W_U().shape[-1]
    try:
        return min(vocab, len(model.tokenizer))
    except UsageError:
        return vocab
