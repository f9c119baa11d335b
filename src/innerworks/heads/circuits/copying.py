"""Does a head's OV circuit raise what it reads? Two scores of weights alone.

With `E` what tokens bring (`embedding.py`; each row divided by the norm's scale, the mean row taken off, so that what all
tokens share does not count) and `U` the unembedding with the final norm's gain folded in:

1. *Eigenvalue score* `sum Re(lambda) / sum |lambda|` over the eigenvalues of `E W_V W_O U`, a token x token matrix of rank
   d_head (over the vocabulary, or 16,384 evenly spaced tokens of a larger one). Those that are not zero are the eigenvalues
   of the small `W_O (U E) W_V`. In [-1, 1]: 1 copies, -1 anti-copies, random weights give about 0. How far from 0 by chance is
   a matter of how many eigenvalues there are to speak of: a circuit with one (which writes the same whatever it reads) always
   scores 1 or -1. So p compares `score * sqrt(effective number of eigenvalues)`. Elhage et al. 2021,
   transformer-circuits.pub/2021/framework. Positive eigenvalues are necessary for copying, not sufficient: eigenvectors need
   not be orthogonal, hence
2. *top-k*: the share of a fixed sample of 256 ordinary tokens whose own logit is among the 10 highest (copying) or the 10
   lowest (anti-copying) of the whole vocabulary, when the head attends to that token alone. In [0, 1]; random weights give 10
   / vocab.

The scale of the final norm multiplies a whole row, and changes neither. What this does not do: look at any text.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerworks.heads.circuits.embedding import TOKENS_AT_ONCE, as_read, blocks, effective, unembedding
from innerworks.heads.circuits.nulls import Circuits, Pairing
from innerworks.model import Model

TOKENS = 16_384  # over which eigenvalues are taken, at most
SAMPLE = 256  # tokens whose rows are ranked
TOP = 10  # of the vocabulary
SCREEN = 2048  # columns that rule out most rows before the whole vocabulary is asked


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """From the unembedding back to the embedding: `U E`, all that eigenvalues need to know of the vocabulary.

    first: by `W_E`, for heads of layer 0; later: by the effective embedding. mean: of the rows of E, by the same names.
    """

    first: Float[Tensor, "d_model d_model"]
    later: Float[Tensor, "d_model d_model"]
    first_mean: Float[Tensor, " d_model"]
    later_mean: Float[Tensor, " d_model"]


def spaced(count: int, most: int) -> Int[Tensor, " some"]:
    """Of the numbers below count at most so many, evenly spaced."""
    return torch.from_numpy(np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)))


def bridge(model: Model) -> Bridge:
    """Sum `u_t e_t` over tokens in blocks, with the mean row of E taken off."""
    width, ids = model.anatomy.d_model, spaced(model.anatomy.vocab, TOKENS)
    product = torch.zeros(2, width, width, dtype=torch.float64)
    rows, columns = torch.zeros(2, width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for some, tokens in blocks(model, ids):
        u = unembedding(model, some)
        for which, e in enumerate((tokens.raw, tokens.whole)):
            read = as_read(model, e)
            product[which] += (u @ read.to(u)).double().cpu()
            rows[which] += read.double().sum(dim=0).cpu()
        columns += u.double().sum(dim=1).cpu()
    mean = rows / len(ids)
    product -= columns[:, None] * mean[:, None, :]
    first, later = product.float().to(model.device)
    first_mean, later_mean = mean.float().to(model.device)
    return Bridge(first=first, later=later, first_mean=first_mean, later_mean=later_mean)


def eigenvalue(circuits: Circuits, over: Bridge, pairing: Pairing) -> Float[np.ndarray, "2 pair"]:
    """How far do circuits copy, by their eigenvalues, and how many eigenvalues say so?

    First row: the score, in [-1, 1]; random circuits give about 0. Second: the effective number of eigenvalues,
    `(sum |lambda|)^2 / sum |lambda|^2`, from 1 to d_head. By chance the score spreads like one over its root.
    """
    product = torch.stack([over.first, over.later])[(circuits.kv_layer > 0).long()]
    read = torch.cat([p @ v for p, v in zip(product.split(16), circuits.value.split(16), strict=True)])  # U E W_V
    scores = []
    for some in pairing.batches(2 * read[0].numel()):
        small = some.turns[some.turn] @ circuits.output[some.writer] @ read[circuits.kv(some.reader)]
        values = torch.linalg.eigvals(small / small.norm(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(small.dtype).tiny))
        size = values.abs().sum(dim=-1).clamp(min=1e-12)
        count = size.square() / values.abs().square().sum(dim=-1).clamp(min=1e-24)
        scores.append(torch.stack([values.real.sum(dim=-1) / size, count.clamp(min=1.0)]))
    return torch.cat(scores, dim=1).double().numpy(force=True)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """The tokens whose rows are ranked, and what is needed of them. read: per W_V, after it."""

    tokens: Int[Tensor, " row"]
    read: Float[Tensor, "some_kv row d_head"]
    screen: Float[Tensor, "d_model column"]  # columns of U: those of the rows themselves come first


def sample(ordinary: list[int]) -> Int[Tensor, " row"]:
    """Of these tokens, 256 evenly spaced ones: by frequency, since most vocabularies are ordered by it."""
    return torch.tensor(ordinary)[spaced(len(ordinary), SAMPLE)]


def ranked(model: Model, circuits: Circuits, over: Bridge, ordinary: list[int]) -> Ranked:
    """Prepare the rows of the sampled tokens."""
    tokens = sample(ordinary)
    some = effective(model, tokens)
    first, later = as_read(model, some.raw) - over.first_mean, as_read(model, some.whole) - over.later_mean
    read = torch.stack(
        [(first if layer == 0 else later) @ v for layer, v in zip(circuits.kv_layer.tolist(), circuits.value, strict=True)]
    )
    more = spaced(model.anatomy.vocab, SCREEN)
    return Ranked(tokens=tokens, read=read, screen=unembedding(model, torch.cat([tokens, more]).to(model.device)))


def top_k(model: Model, circuits: Circuits, rows: Ranked, pairing: Pairing) -> Float[np.ndarray, "2 pair"]:
    """For how many of the sampled tokens is the own logit among the 10 highest, and among the 10 lowest, of the vocabulary?

    Shares in [0, 1]. Rows that cannot pass are ruled out by a part of the vocabulary; what is left is ranked in all of it.
    """
    screened = [_screened(circuits, rows, some, start) for start, some in _numbered(circuits, rows, pairing)]
    left = _Left.join(screened)
    vocab = model.anatomy.vocab
    for start in range(0, vocab, TOKENS_AT_ONCE):
        part = slice(start, min(start + TOKENS_AT_ONCE, vocab))
        left = left.against(unembedding(model, part), part, rows.tokens)
    counts = np.zeros((2, len(pairing.reader)))
    for which, passed in enumerate((left.above < TOP, left.below < TOP)):
        np.add.at(counts[which], left.pair[passed].numpy(force=True), 1)
    return counts / len(rows.tokens)


def _numbered(circuits: Circuits, rows: Ranked, pairing: Pairing) -> list[tuple[int, Pairing]]:
    size = circuits.output[0].numel() + 4 * len(rows.tokens) ** 2
    out, start = [], 0
    for some in pairing.batches(size):
        out.append((start, some))
        start += len(some.reader)
    return out


@dataclass(frozen=True, kw_only=True)
class _Left:
    """Rows that may still pass: what the circuit writes for each, its own logit, and how many logits lie above and below."""

    pair: Int[Tensor, " some"]
    row: Int[Tensor, " some"]
    written: Float[Tensor, "some d_model"]
    own: Float[Tensor, " some"]
    above: Int[Tensor, " some"]
    below: Int[Tensor, " some"]

    @classmethod
    def join(cls, parts: "list[_Left]") -> "_Left":
        return cls(**{name: torch.cat([getattr(one, name) for one in parts]) for name in cls.__dataclass_fields__})

    def only(self, which: Tensor) -> "_Left":
        return _Left(**{name: getattr(self, name)[which] for name in self.__dataclass_fields__})

    def against(self, columns: Float[Tensor, "d_model column"], part: slice, tokens: Int[Tensor, " row"]) -> "_Left":
        """Rank against more of the vocabulary, and drop what cannot pass any more."""
        logits = self.written @ columns
        token = tokens.to(logits.device)[self.row]
        mine = ((token >= part.start) & (token < part.stop)).nonzero()[:, 0]
        logits[mine, token[mine] - part.start] = self.own[mine]  # no token is above itself by rounding
        above = self.above + (logits > self.own[:, None]).sum(dim=1)
        below = self.below + (logits < self.own[:, None]).sum(dim=1)
        found = _Left(pair=self.pair, row=self.row, written=self.written, own=self.own, above=above, below=below)
        return found.only((above < TOP) | (below < TOP))


def _screened(circuits: Circuits, rows: Ranked, some: Pairing, start: int) -> _Left:
    """Rule out rows by the sampled tokens' own columns, then by the rest of the screen."""
    count = len(rows.tokens)
    read = rows.read[circuits.kv(some.reader)] @ some.turns[some.turn]  # pair row d_head
    output = circuits.output[some.writer]
    logits = read @ (output @ rows.screen[:, :count])
    own = logits.diagonal(dim1=-2, dim2=-1)
    pair, row = _may_pass(logits, own).nonzero(as_tuple=True)
    written = (
        torch.einsum("se,sed->sd", read[pair, row], output[pair]) if len(pair) < count else _written(read, output, pair, row)
    )
    nothing = torch.zeros_like(pair)
    left = _Left(pair=pair + start, row=row, written=written, own=own[pair, row], above=nothing, below=nothing)
    return left.only(_may_pass(written @ rows.screen[:, count:], left.own))


def _written(read: Tensor, output: Tensor, pair: Tensor, row: Tensor) -> Float[Tensor, "some d_model"]:
    """What circuits write for many rows: pair by pair, since gathering a matrix for every row would be large."""
    return torch.cat([read[p, row[pair == p]] @ output[p] for p in pair.unique_consecutive().tolist()])


def _may_pass(logits: Float[Tensor, "*rows column"], own: Float[Tensor, "*rows"]) -> Tensor:
    above = (logits > own[..., None]).sum(dim=-1)
    below = (logits < own[..., None]).sum(dim=-1)
    return (above <= TOP) | (below <= TOP)  # one more than is allowed: the token itself may be among the columns, rounded
