"""Direct logit attribution: which parts of the model gave this token its logit, and how much each?

1. The final stream is a sum: embedding, what every head, neuron and bias added.
2. The final norm divides it by one number per token, its scale; with that number held at what it was, the norm and the
   unembedding are linear, so each part has its own share: `share = norm(part) @ (W_U[answer] - W_U[foil])`.
3. Norms behind a sub-layer (Gemma 2 and 3, OLMo 2) are taken alike, each with its own scale held still.
4. What is left are the final norm's bias and the unembedding's.
5. All shares add up to the logit (difference) before any soft cap; where they do not, an error says by how much.

Elhage et al. 2021 (transformer-circuits.pub/2021/framework); Wang et al. 2022, arXiv:2211.00593. What it does not do: say what
would happen without a part. Later parts read earlier ones, may undo them or stand in for them: ablate to find out. A share of
a single logit also holds what raises all logits alike; a difference to a foil does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from innerworks.errors import ModelError, UnsupportedModel, UsageError, near_misses
from innerworks.model.call import Handler, Place, position_ids
from innerworks.model.model import Model
from innerworks.model.norms import Norm
from innerworks.model.readout.answers import Answer, token_ids
from innerworks.model.run import Watch
from innerworks.model.weights import before
from innerworks.sites import Site

if TYPE_CHECKING:
    import polars

By = Literal["component", "head", "neuron", "source"]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The shares of parts of one kind, of one layer."""

    component: str  # what the parts are: head, attention, neuron, feed_forward, a bias, ...
    sites: tuple[str, ...]  # where they are
    value: Float[Tensor, "batch part *source"]  # in logits; with a source axis, by the token that was read


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Who contributed what to the logit of `answer` (less that of `foil`) at one position of each text, in logits."""

    model: str
    mask: Bool[Tensor, "batch seq"] = field(repr=False)  # real tokens
    rows: Int[Tensor, " batch"]  # where in each row of tokens the logits were read
    answer: Int[Tensor, " batch"]
    foil: Int[Tensor, " batch"] | None
    exact: Float[Tensor, " batch"]  # the model's own logit (difference), before any soft cap
    groups: tuple[Group, ...] = field(repr=False)

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """All shares together, in logits."""
        return torch.stack([group.value.flatten(1).sum(dim=1) for group in self.groups]).sum(dim=0)

    @property
    def residual_error(self) -> float:
        """By how much the shares miss the model's own logit, in logits: the worst text."""
        return float((self.total - self.exact).abs().max())

    def stack(self, component: str) -> Float[Tensor, "layer batch part *source"]:
        """The shares of one kind of part over the layers that have it: `stack("head")` is `[layer, batch, head]`."""
        found = [group.value for group in self.groups if group.component == component]
        if not found:
            known = ", ".join(dict.fromkeys(group.component for group in self.groups))
            raise UsageError(f"There are no shares of {component!r} here; there are {known}.")
        return torch.stack(found)

    def frame(self) -> "polars.DataFrame":
        """One row per text and part (and source token): `batch component site source value unit`.

        source: the position of the token that was read, counted from the text's first token; null where parts have none.
        """
        import polars as pl

        return pl.concat([self._rows_of(group) for group in self.groups]).with_columns(unit=pl.lit("logits"))

    def _rows_of(self, group: Group) -> "polars.DataFrame":
        import polars as pl

        shape = group.value.shape
        index = [one.flatten().numpy() for one in torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")]
        table = pl.DataFrame({"batch": index[0], "component": [group.component] * len(index[0])}).with_columns(
            site=pl.Series(group.sites)[index[1]],
            source=pl.lit(None, pl.Int64),
            value=pl.Series(group.value.flatten().numpy()),
        )
        if len(shape) == 2:
            return table
        source = position_ids(self.mask)[:, None].expand(shape).flatten()
        seen = self.mask & (torch.arange(shape[2]) <= self.rows[:, None])
        return table.with_columns(source=pl.Series(source.numpy())).filter(
            pl.Series(seen[:, None].expand(shape).flatten().numpy())
        )


def attribute(
    model: Model,
    tokens: Int[Tensor, "batch seq"] | str | Sequence[str],
    answer: Answer,
    foil: Answer | None = None,
    *,
    position: int = -1,
    by: By = "component",
    mask: Bool[Tensor, "batch seq"] | None = None,
    tolerance: float = 1e-3,
) -> Attribution:
    """Which parts of the model gave the answer its logit, and how much each? See the top of this file for the method.

    answer, foil: a token id, or a string that is one token; one for all texts or one per text. With a foil, shares are of the
    difference between their logits. position: where the logits are read, counted from each text's first token; negative
    from its last. by: what is split into its parts. `component`: nothing, one share per attention and feed-forward;
    `head`: attention into heads and its bias; `source`: heads into the tokens they read, `pattern * (v @ W_O)`;
    `neuron`: feed-forwards into neurons and bias. tolerance: by how many logits the sum may miss the model's own.

    Returns: shares in logits. A random model has shares of both signs and of the size of its logits.
    Raises UnsupportedModel where the stream is no sum, or weights cannot be read; ModelError where the sum misses.
    """
    _refuse(model, by)
    if not isinstance(tokens, Tensor):
        tokens, mask = model.tokenize(tokens)
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.to(torch.bool)
    ends = [None if one is None else token_ids(model, one, len(tokens)) for one in (answer, foil)]
    assert ends[0] is not None
    seen = _Seen(model=model, rows=_rows(mask, position).to(model.device))
    exact = seen.look(tokens, mask, ends[0], ends[1], by)
    toward = _difference(model.weights.W_U().mT, ends[0], ends[1])
    found = Attribution(
        model=model.name,
        mask=mask.cpu(),
        rows=seen.rows.cpu(),
        answer=ends[0].cpu(),
        foil=None if ends[1] is None else ends[1].cpu(),
        exact=exact,
        groups=(*_parts(seen, toward, mask, by), *_last_biases(model, toward, ends[0], ends[1])),
    )
    _check_sum(found, model, tolerance)
    return found


@dataclass(frozen=True)
class _Seen:
    """What one pass left at one position of each text."""

    model: Model
    rows: Int[Tensor, " batch"]
    kept: dict[Place, Tensor] = field(default_factory=dict)

    def __getitem__(self, place: Place) -> Tensor:
        return _wide(self.kept[place])

    def look(self, tokens: Tensor, mask: Tensor, answer: Tensor, foil: Tensor | None, by: By) -> Float[Tensor, " batch"]:
        """Run the model once, keep what is needed, and return the logit (difference) that it computes itself."""
        last = self.model.anatomy.layers - 1
        wanted = [(kind, layer) for kind in _kinds(self.model, by) for layer in range(last + 1)]
        here = [place for place in wanted if self.model.lacks(*place) is None]
        run = self.model.run(
            tokens,
            mask=mask,
            watch=[self._keep(*place) for place in (("resid_pre", 0), *here, ("resid_post", last))],
            logits="none",
        )
        final = run.final[torch.arange(len(self.rows)), self.rows.to(run.final.device)]
        with torch.no_grad():
            logits = _wide(self.model.readout(final, capped=False))
        return _difference(logits.mT, answer, foil).diagonal().cpu()

    def _keep(self, kind: str, layer: int) -> Watch:
        def whole(activation: Tensor, queries: slice) -> None:
            self.kept[kind, layer] = activation

        def row(activation: Tensor, queries: slice) -> None:
            rows = self.rows.to(activation.device)
            self.kept[kind, layer] = activation[torch.arange(len(rows), device=rows.device), rows]

        def query(activation: Tensor, queries: slice) -> None:
            rows = self.rows.to(activation.device) - (queries.start or 0)
            kept = self.kept.setdefault((kind, layer), torch.zeros_like(activation[:, :, 0]))
            here = ((rows >= 0) & (rows < activation.shape[2])).nonzero()[:, 0]
            kept[here] = activation[here, :, rows[here]]

        handler: Handler = {"v": whole, "pattern": query}.get(kind, row)
        return Site(layer=layer, kind=kind), handler


def _kinds(model: Model, by: By) -> tuple[str, ...]:
    """The activations that are split, and those that are not."""
    return {
        "component": ("attn_out", "mlp_out"),
        "head": ("z", "mlp_out"),
        "source": ("z", "pattern", "v", "mlp_out"),
        "neuron": ("attn_out", "neurons", "expert_neurons"),
    }[by]


def _parts(seen: _Seen, toward: Float[Tensor, "batch d_model"], mask: Tensor, by: By) -> list[Group]:
    """Everything that was added to the stream, from the embedding on."""
    last = seen.model.anatomy.layers - 1
    norm, final = seen.model.weights.final_norm, seen["resid_post", last]
    direction = before(norm, toward) / (1.0 if norm is None else norm.scale(final)[:, None])
    groups = _embedded(seen, direction, mask)
    for layer in range(last + 1):
        at = f"L{layer}"
        groups += (
            _heads(seen, layer, direction, by)
            if by in ("head", "source")
            else [_whole("attention", f"{at}.attn_out", seen["attn_out", layer], direction)]
        )
        groups += (
            _neurons(seen, layer, direction)
            if by == "neuron"
            else [_whole("feed_forward", f"{at}.mlp_out", seen["mlp_out", layer], direction)]
        )
    return groups


def _embedded(seen: _Seen, direction: Tensor, mask: Tensor) -> list[Group]:
    """The stream entering block 0; what positions bring into it apart, where the model learned that."""
    stream = seen["resid_pre", 0]
    if seen.model.adapter.positions is None:
        return [_whole("embedding", "embed", stream, direction)]
    at = position_ids(mask).to(seen.rows.device)[torch.arange(len(seen.rows)), seen.rows]
    position = _wide(seen.model.weights.W_pos()[at])
    token = stream - position.to(stream)
    return [_whole("embedding", "embed", token, direction), _whole("position_embedding", "embed", position, direction)]


def _heads(seen: _Seen, layer: int, direction: Tensor, by: By) -> list[Group]:
    """What each head wrote, in all or by the token it read, and the bias that belongs to none."""
    model, z = seen.model, seen["z", layer]
    output, bias = _wide(model.weights.W_O(layer)), _wide(model.weights.b_O(layer))
    written = torch.einsum("bhe,hem->bhm", z, output)
    inner = _through(model, "attention_added", layer, direction, written.sum(dim=1) + bias)
    if by == "head":
        value = torch.einsum("bhm,bm->bh", written, inner)
    else:
        read = torch.einsum("bkhe,hem,bm->bhk", seen["v", layer], output, inner)
        value = seen["pattern", layer] * read
    sites = tuple(str(Site(layer=layer, head=head)) for head in range(model.anatomy.heads))
    left = _bias_through(model, "attention_added", layer, bias, inner, direction)
    return [
        Group(component="head", sites=sites, value=value.cpu()),
        Group(component="attention_bias", sites=(f"L{layer}.attn_out",), value=left.cpu()[:, None]),
    ]


def _neurons(seen: _Seen, layer: int, direction: Tensor) -> list[Group]:
    """What each neuron wrote, in every expert where there are several, and the bias that belongs to none."""
    model, mixture = seen.model, ("expert_neurons", layer) in seen.kept
    active = seen["expert_neurons" if mixture else "neurons", layer].flatten(1)
    output, bias = _wide(model.weights.W_out(layer)).flatten(0, -2), _wide(model.weights.b_out(layer))
    inner = _through(model, "mlp_added", layer, direction, active @ output + bias)
    a = model.anatomy
    names = (
        [f"L{layer}E{expert}N{neuron}" for expert in range(a.experts) for neuron in range(a.expert_neurons)]
        if mixture
        else [f"L{layer}N{neuron}" for neuron in range(a.neurons)]
    )
    left = _bias_through(model, "mlp_added", layer, bias, inner, direction)
    return [
        Group(component="neuron", sites=tuple(names), value=(active * (inner @ output.mT)).cpu()),
        Group(component="feed_forward_bias", sites=(f"L{layer}.mlp_out",), value=left.cpu()[:, None]),
    ]


def _whole(component: str, site: str, added: Float[Tensor, "batch d_model"], direction: Tensor) -> Group:
    value = (added * direction.to(added)).sum(dim=-1, keepdim=True)
    return Group(component=component, sites=(site,), value=value.cpu())


def _through(model: Model, name: str, layer: int, direction: Tensor, computed: Tensor) -> Float[Tensor, "batch d_model"]:
    """The direction as it is before a norm that lies behind the sub-layer, whose scale is held at what it was."""
    direction = direction.to(computed)
    if not model.adapter.post_norms:
        return direction
    norm = Norm.of(model.require_part(name, layer))
    return before(norm, direction) / norm.scale(computed)[:, None]


def _bias_through(model: Model, name: str, layer: int, bias: Tensor, inner: Tensor, direction: Tensor) -> Float[Tensor, " batch"]:
    """What a sub-layer's bias comes to, and that of a norm behind it."""
    norm = Norm.of(model.require_part(name, layer)) if model.adapter.post_norms else None
    share = inner @ bias
    return share if norm is None or norm.bias is None else share + direction.to(inner) @ norm.bias.to(inner)


def _last_biases(model: Model, toward: Tensor, answer: Tensor, foil: Tensor | None) -> list[Group]:
    """The biases of the final norm and of the unembedding."""
    norm, ends = model.weights.final_norm, _difference(_wide(model.weights.b_U())[:, None], answer, foil)
    groups = [Group(component="unembedding_bias", sites=("logits",), value=ends.cpu())]
    if norm is not None and norm.bias is not None:
        value = (toward @ norm.bias.to(toward))[:, None]
        groups.insert(0, Group(component="final_norm_bias", sites=("norm_scale",), value=value.cpu()))
    return groups


def _difference(of: Float[Tensor, "vocab some"], answer: Tensor, foil: Tensor | None) -> Float[Tensor, "batch some"]:
    """Rows of the answers, less those of their foils."""
    row = _wide(of[answer.to(of.device)])
    return row if foil is None else row - _wide(of[foil.to(of.device)])


def _rows(mask: Bool[Tensor, "batch seq"], position: int) -> Int[Tensor, " batch"]:
    """Where in each row of tokens a position stands."""
    lengths = mask.sum(dim=1)
    at = lengths + position if position < 0 else torch.full_like(lengths, position)
    if not bool(((at >= 0) & (at < lengths)).all()):
        raise UsageError(f"position={position} lies outside a text of {int(lengths.min())} tokens.")
    return (mask & (mask.cumsum(dim=1) == at[:, None] + 1)).long().argmax(dim=1)


def way(by: str) -> By:
    """The way of splitting that was meant. Raises UsageError for what is none."""
    for one in get_args(By):
        if by == one:
            return one
    raise UsageError(f"by={by!r}: one of {', '.join(get_args(By))}.{near_misses(by, get_args(By))}")


def _refuse(model: Model, by: By) -> None:
    way(by)
    if not model.anatomy.sums:
        raise UnsupportedModel(
            f"{model.name} norms its stream after each addition, so its logits are no sum of what was added. "
            "Use the logit lens, or ablate."
        )
    if by == "source" and model.adapter.attention_code == "own":
        raise UnsupportedModel(
            f"{model.anatomy.family} computes attention in code of its own, which shows no values. Use by='head'."
        )


def _check_sum(found: Attribution, model: Model, tolerance: float) -> None:
    error = found.residual_error
    if error <= tolerance:
        return
    dtype = next(model.hf.parameters()).dtype
    why = (
        "Please report this with the model's name."
        if dtype in (torch.float32, torch.float64)
        else f"In {dtype} the model rounds its stream after every addition: load it with dtype='float32'."
    )
    raise ModelError(
        f"The shares of {model.name} add up to {found.total.tolist()}, its logits are {found.exact.tolist()}: "
        f"off by {error:.2g}, allowed {tolerance:.2g}. {why} Or allow more with tolerance=."
    )


def _wide(tensor: Tensor) -> Tensor:
    """In float64, so that adding many shares costs nothing; float32 where the device knows no more."""
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)
