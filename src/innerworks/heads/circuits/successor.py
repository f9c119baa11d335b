"""Does a head's OV circuit map an ordinal to its successor: Monday to Tuesday, three to four?

1. *Succession* (weights alone): with `E` what the first feed-forward makes of the tokens of a class (`embedding.py`), the
   share of tokens whose successor is the argmax of `E W_V W_O U` over the tokens of the same class. In [0, 1]; chance is 1 /
   size of the class. Heads of layer 0 read `W_E`. The null: mismatched parts (`nulls.py`).
2. *Through the first feed-forward*: the same of `W_E + MLP0(W_E)`, less the same of `W_E` alone.
3. *In context*, on lists of three items (`ordinals.py`; the unit is the list): the same share for the values that the head
   really reads at the items; and the *direct effect*: what the head adds at the last token to the logit of the right
   successor, less what it adds on average to the members of the class that the list does not show, with the final norm's
   scale held still. In logits. Members that the list shows are no foils: a head that merely lowers what it has read would
   look like a successor head.

Gould et al. 2023, arXiv:2312.09230. What it does not do: ablate; find heads that increment only tokens we have no list of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerworks.heads.circuits.direct import post_scale, value_handler, value_site
from innerworks.heads.circuits.embedding import Embedding, Through, as_read, effective, unembedding
from innerworks.heads.circuits.nulls import Circuits, Pairing
from innerworks.heads.circuits.ordinals import Ordered, Row
from innerworks.model import Model
from innerworks.model.call import Handler
from innerworks.model.run import Watch
from innerworks.sites import Site
from innerworks.stats import Array


@dataclass(frozen=True, kw_only=True)
class Ordinals:
    """All tokens of all classes, one after the other."""

    kind: Float[Tensor, "token token"]  # 0 where two tokens are of one class, minus infinity elsewhere
    successor: Tensor  # [token], -1 where there is none
    membership: Float[Tensor, "token class"]  # 1 for the class of a token that has a successor
    embedding: Embedding
    unembedding: Float[Tensor, "d_model token"]


def ordinals(model: Model, kept: Sequence[Ordered]) -> Ordinals:
    """Look up the tokens of some classes."""
    sizes = [len(one.tokens) for one in kept]
    which = torch.arange(len(kept)).repeat_interleave(torch.tensor(sizes))
    starts = np.cumsum([0, *sizes])
    successor = torch.tensor(
        [after + start if after >= 0 else -1 for one, start in zip(kept, starts, strict=False) for after in one.successor]
    )
    tokens = torch.tensor([token for one in kept for token in one.tokens], device=model.device)
    membership = torch.nn.functional.one_hot(which, len(kept)) * (successor >= 0)[:, None]
    return Ordinals(
        kind=torch.where(which[:, None] == which, 0.0, -torch.inf).to(model.device),
        successor=successor.to(model.device),
        membership=membership.float().to(model.device),
        embedding=effective(model, tokens),
        unembedding=unembedding(model, tokens),
    )


def succession(
    model: Model, circuits: Circuits, of: Ordinals, pairing: Pairing, *, through: Through = "mlp0"
) -> Float[np.ndarray, "pair class"]:
    """For which share of each class' tokens is the successor the argmax of the class? In [0, 1]; chance is 1 / size."""
    first, later = as_read(model, of.embedding.raw), as_read(model, of.embedding[through])
    layers = circuits.kv_layer.tolist()
    read = torch.stack([(first if at == 0 else later) @ v for at, v in zip(layers, circuits.value, strict=True)])
    written = torch.stack([one @ of.unembedding for one in circuits.output])
    size, shares = of.membership.sum(dim=0), []
    for some in pairing.batches(2 * read[0].numel() + len(of.successor) ** 2):
        logits = read[circuits.kv(some.reader)] @ some.turns[some.turn] @ written[some.writer] + of.kind
        right = (logits.argmax(dim=-1) == of.successor).float()
        shares.append(right @ of.membership / size)
    return torch.cat(shares).double().numpy(force=True)


@dataclass(frozen=True, kw_only=True)
class OnLists:
    """What heads do on lists, by list: `[list, layer, head]`."""

    direct: Array  # logits of the right successor over the mean of the other members that the list does not show
    share: Array  # of the items whose values give their successor the highest logit of the class
    chance: Array  # [list]: 1 / size of the class


def on_lists(model: Model, kept: Sequence[Ordered], rows: Sequence[Row]) -> OnLists:
    """Run the lists, those of one class together."""
    a = model.anatomy
    direct, share = (np.full((len(rows), a.layers, a.heads), np.nan) for _ in range(2))
    for kind, one in enumerate(kept):
        mine = [i for i, row in enumerate(rows) if row.kind == kind]
        if mine:
            found = _Lists(model, one, [rows[i] for i in mine])
            direct[mine], share[mine] = found.run()
    return OnLists(direct=direct, share=share, chance=np.array([1 / len(kept[row.kind].tokens) for row in rows]))


class _Lists:
    """The lists of one class, run together."""

    def __init__(self, model: Model, one: Ordered, rows: Sequence[Row]) -> None:
        length = max(len(row.tokens) for row in rows)
        self.model = model
        self.tokens = torch.tensor([[*row.tokens, *[0] * (length - len(row.tokens))] for row in rows], device=model.device)
        self.last = torch.tensor([len(row.tokens) - 1 for row in rows], device=model.device)
        self.mask = torch.arange(length, device=model.device) <= self.last[:, None]
        self.answer = torch.tensor([row.answer for row in rows], device=model.device)
        self.members = torch.tensor(one.tokens, device=model.device)
        self.successor = torch.tensor(one.successor, device=model.device)
        self.columns = unembedding(model, self.members).float()  # d_model member
        foil = torch.tensor([[i not in row.shown and i != row.answer for i in range(len(one.tokens))] for row in rows]).float()
        self.toward = self.columns[:, self.answer].mT - (foil / foil.sum(dim=1, keepdim=True)).to(self.columns) @ self.columns.mT
        self.direct, self.share = [torch.zeros(model.anatomy.layers, len(rows), model.anatomy.heads) for _ in range(2)]

    def run(self) -> tuple[Array, Array]:
        """The direct effect and the share, each `[list, layer, head]`."""
        layers = range(self.model.anatomy.layers)
        watch: list[Watch] = [
            (Site(layer=layer, kind=value_site(self.model)), value_handler(self.model, layer, self._read)) for layer in layers
        ]
        watch += [(Site(layer=layer, kind="z"), self._written(layer)) for layer in layers]
        scale: list[Tensor] = []
        watch.append((Site(layer=layers[-1], kind="resid_post"), self._final_scale(scale)))
        self.model.run(self.tokens, mask=self.mask, watch=watch, logits="none")
        direct = self.direct / scale[0].cpu()[:, None]
        return tuple(one.transpose(0, 1).double().numpy(force=True) for one in (direct, self.share))  # pyright: ignore[reportReturnType]

    def _read(self, layer: int, values: Float[Tensor, "batch seq head d_head"]) -> None:
        """Share of the items whose successor has the highest logit of the class."""
        found = self.tokens[:, :, None] == self.members
        item = found.float().argmax(dim=-1)
        counts = found.any(dim=-1) & (self.successor[item] >= 0) & self.mask
        written = self.model.weights.W_O(layer, fold=True) @ self.columns  # head d_head member
        best = torch.einsum("bshe,hec->bshc", values.float(), written.float()).argmax(dim=-1)
        right = (best == self.successor[item][:, :, None]) & counts[:, :, None]
        self.share[layer] = (right.sum(dim=1) / counts.sum(dim=1, keepdim=True)).cpu()

    def _written(self, layer: int) -> Handler:
        def handle(z: Tensor, queries: slice) -> None:
            at = torch.arange(len(z), device=z.device)
            last = z[at, self.last].float()
            added = torch.einsum("bhe,hed,bd->bh", last, self.model.weights.W_O(layer, fold=True).float(), self.toward)
            self.direct[layer] = (added / post_scale(self.model, layer, last)[:, None]).cpu()

        return handle

    def _final_scale(self, into: list[Tensor]) -> Handler:
        def handle(stream: Tensor, queries: slice) -> None:
            norm = self.model.weights.final_norm
            last = stream[torch.arange(len(stream), device=stream.device), self.last]
            into.append(torch.ones_like(last[:, 0]).float() if norm is None else norm.scale(last))

        return handle
