"""Weights as matrices that read left to right: `stream @ W`.

`model.weights.OV(5, 3)` is what head L5H3 copies, `QK(5, 3)` what it looks for, `W_in(5)` what neurons read, `W_out(5)` what they
write. How it is done:

1. The family's adapter says which module holds a matrix, and how a fused projection is split into q, k and v (or gate and up).
2. What comes out has the field's axes: `[head, d_model, d_head]`, `[d_model, neuron]`, ...; where it can be a view, it is one.
3. `fold=True` takes the linear part of the norm that lies before (or behind) into the matrix and its bias. A norm is
   `gain * centred(x) / scale(x) + bias`, so `norm(x) @ W + b = x @ folded(W) / scale(x) + folded(b)`: only the division by the
   scale of the token is left out, and that is all that is left out.

What it does not do: pretend that attention scores are bilinear where they are not (rotation, norms on queries and keys, capped
scores): `QK` says so and names the activations to record. Elhage et al. 2021 (transformer-circuits.pub/2021/framework).
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from innerworks.errors import UnsupportedModel, UsageError
from innerworks.model.anatomy import find
from innerworks.model.factored import Factored
from innerworks.model.norms import Norm
from innerworks.model.peft import effective_weight, plain_module
from innerworks.sites import Site

if TYPE_CHECKING:
    from innerworks.model.model import Model


@dataclass(frozen=True)
class Weights:
    """The matrices of a model, `model.weights`. Do not write into them: most are views of the model's own.

    Each is in the model's dtype; folded ones are in float32 at least. Biases that a family does not have are zero.
    Where attention or feed-forward read the stream without a norm before them (OLMo 2), there is nothing to fold there, and
    nothing to divide by. Where a norm lies behind them (Gemma 2 and 3, OLMo 2), `fold=True` takes its gain into what is
    written: `attn_out = (sum of z @ W_O + b_O) / scale`, with the scale of that sum.
    With adapters (PEFT) they are the weights that are applied right now: `with adapter_off(model)` they are the base's.
    Every method raises UnsupportedModel where there is no matrix to read: quantised or offloaded weights.
    """

    model: "Model" = field(repr=False)

    # --- attention -----------------------------------------------------------------------------------------------

    def W_Q(self, layer: int, *, fold: bool = False) -> Float[Tensor, "head d_model d_head"]:
        """What does each head read for its queries? Before any norm on queries, any rotation, and (OPT) any scaling."""
        return self._reading(layer, "query", fold)[0]

    def W_K(self, layer: int, *, fold: bool = False, per_head: bool = False) -> Float[Tensor, "kv_head d_model d_head"]:
        """What is read for the keys? As `W_Q`. per_head: repeated to one per query head."""
        return self._repeated(self._reading(layer, "key", fold)[0], per_head)

    def W_V(self, layer: int, *, fold: bool = False, per_head: bool = False) -> Float[Tensor, "kv_head d_model d_head"]:
        """What is read for the values? `norm(stream) @ W_V + b_V = v`. per_head: repeated to one per query head."""
        return self._repeated(self._reading(layer, "value", fold)[0], per_head)

    def W_O(self, layer: int, *, fold: bool = False) -> Float[Tensor, "head d_head d_model"]:
        """What does each head write, per unit of what it read? `attn_out = sum over heads of z @ W_O, + b_O`."""
        a, weight = self._in_layer(layer).anatomy, self._matrix("attention_out", layer)
        weight = weight.reshape(a.heads, a.d_head, a.d_model)
        return behind(self._post_norm("attention_added", layer), weight) if fold else weight

    def b_Q(self, layer: int, *, fold: bool = False) -> Float[Tensor, "head d_head"]:
        """The bias of the queries."""
        return self._reading(layer, "query", fold)[1]

    def b_K(self, layer: int, *, fold: bool = False, per_head: bool = False) -> Float[Tensor, "kv_head d_head"]:
        """The bias of the keys. per_head: repeated to one per query head."""
        return self._repeated(self._reading(layer, "key", fold)[1], per_head)

    def b_V(self, layer: int, *, fold: bool = False, per_head: bool = False) -> Float[Tensor, "kv_head d_head"]:
        """The bias of the values: since a pattern sums to one, every `z` holds it once. per_head: one per query head."""
        return self._repeated(self._reading(layer, "value", fold)[1], per_head)

    def b_O(self, layer: int, *, fold: bool = False) -> Float[Tensor, " d_model"]:
        """The bias of attention's output, which belongs to no head."""
        bias = self._bias(self._in_layer(layer).require_part("attention_out", layer), self.model.anatomy.d_model)
        return behind(self._post_norm("attention_added", layer), bias) if fold else bias

    def OV(self, layer: int, head: int, *, fold: bool = False) -> Factored:
        """What does a head copy from where it looks to where it is? `W_V W_O`, `d_model x d_model` of rank `d_head`.

        `(norm(stream) @ OV).full()` is what attending fully to a token writes, `b_V W_O` apart. fold=True: reads the raw stream
        divided by its scale, and where a norm lies behind attention, writes what is then divided by that norm's scale.
        """
        self.model.check(Site(layer=layer, head=head))
        return Factored(self.W_V(layer, fold=fold, per_head=True)[head], self.W_O(layer, fold=fold)[head])

    def QK(self, layer: int, head: int, *, fold: bool = False, content_only: bool = False) -> Factored:
        """What does a head look for? `W_Q W_Kᵀ`: `norm(query stream) @ QK @ norm(key stream)ᵀ` is the score before its scaling.

        The biases `b_Q`, `b_K` and the scaling (mostly `1 / sqrt(d_head)`) are apart. Raises UnsupportedModel where scores are
        not bilinear in the streams: rotation, slopes over distance, soft caps, norms on queries and keys. content_only=True
        gives what is left without rotation, slope and cap: before the cap, exact where query and key are one position, and no
        statement about other distances. With norms on queries and keys there is no such part.
        """
        self.model.check(Site(layer=layer, head=head))
        self._refuse_bent_scores(layer, head, content_only)
        return Factored(self.W_Q(layer, fold=fold)[head], self.W_K(layer, fold=fold, per_head=True)[head].mT)

    # --- feed-forward --------------------------------------------------------------------------------------------

    def W_in(self, layer: int, *, fold: bool = False) -> Float[Tensor, "*expert d_model neuron"]:
        """What does each neuron read (in gated families: for what it is multiplied with)? With a leading `expert` in mixtures."""
        return self._feeding(layer, "in", fold)[0]

    def W_gate(self, layer: int, *, fold: bool = False) -> Float[Tensor, "*expert d_model neuron"]:
        """What does each neuron's gate read? `neurons = act(x @ W_gate) * (x @ W_in)`. UsageError in families without gates."""
        return self._feeding(layer, "gate", fold)[0]

    def W_out(self, layer: int, *, fold: bool = False) -> Float[Tensor, "*expert neuron d_model"]:
        """What does each neuron write, per unit of activation? `mlp_out = neurons @ W_out + b_out`."""
        experts: Any = self._in_layer(layer).part("experts", layer)
        if experts is None:
            weight = self._matrix("mlp_out", layer)
        else:
            weight = self._readable(experts.down_proj, f"the experts of layer {layer}").mT
        return behind(self._post_norm("mlp_added", layer), weight) if fold else weight

    def b_in(self, layer: int, *, fold: bool = False) -> Float[Tensor, "*expert neuron"]:
        """The bias of what neurons read."""
        return self._feeding(layer, "in", fold)[1]

    def b_gate(self, layer: int, *, fold: bool = False) -> Float[Tensor, "*expert neuron"]:
        """The bias of what gates read."""
        return self._feeding(layer, "gate", fold)[1]

    def b_out(self, layer: int, *, fold: bool = False) -> Float[Tensor, " d_model"]:
        """The bias of the feed-forward's output, which belongs to no neuron."""
        module = self._in_layer(layer).part("mlp_out", layer)
        bias = self._zeros(self.model.anatomy.d_model) if module is None else self._bias(module, self.model.anatomy.d_model)
        return behind(self._post_norm("mlp_added", layer), bias) if fold else bias

    # --- in and out ----------------------------------------------------------------------------------------------

    def W_E(self) -> Float[Tensor, "vocab d_model"]:
        """What does each token bring into the stream? Scaled, projected or normed as the family does; positions apart."""
        module = self.model.hf.get_submodule(self.model.adapter.embedding)
        weight = self._readable(module.weight, "the embedding")
        then = find(self.model.hf, self.model.adapter.embedding_then)
        if type(module) is nn.Embedding and then is None:
            return weight
        with torch.no_grad():
            embedded = module(torch.arange(len(weight), device=weight.device))
            return embedded if then is None else then(embedded)

    def W_pos(self) -> Float[Tensor, "position d_model"]:
        """What does each position bring into the stream? UsageError in families that learn no embeddings of positions."""
        module = find(self.model.hf, self.model.adapter.positions)
        if module is None:
            raise UsageError(f"{self.model.name} adds no embeddings of positions to the stream.")
        return self._readable(effective_weight(module), "the embeddings of positions")[getattr(module, "offset", 0) :]

    def W_U(self, *, fold: bool = False) -> Float[Tensor, "d_model vocab"]:
        """What raises each token's logit? `norm(final stream) @ W_U + b_U` are the logits before any soft cap."""
        weight = self._of(self.model.hf.get_submodule(self.model.adapter.unembedding), "the unembedding")
        then = find(self.model.hf, self.model.adapter.final_then)
        weight = weight if then is None else self._of(then, "the projection of the final stream") @ weight
        return before(self.final_norm, weight.mT).mT if fold else weight

    def b_U(self, *, fold: bool = False) -> Float[Tensor, " vocab"]:
        """The bias of the logits."""
        module = self.model.hf.get_submodule(self.model.adapter.unembedding)
        bias = self._bias(module, self._of(module, "the unembedding").shape[-1])
        return _with_norm_bias(self.final_norm, self.W_U(), bias) if fold else bias

    # --- what is not bilinear ------------------------------------------------------------------------------------

    def _refuse_bent_scores(self, layer: int, head: int, content_only: bool) -> None:
        """Raise where a head's scores are not a bilinear function of two streams, and say what to record instead."""
        adapter, config, at = self.model.adapter, self.model.config, f"L{layer}H{head}"
        cap = getattr(config, adapter.score_softcap, None) if adapter.score_softcap else None
        normed = self.model.part("query_norm", layer) is not None
        bent = [
            why
            for why, is_so in (
                ("queries and keys are normed after they are read", normed),
                ("queries and keys are rotated by their positions", adapter.rotary(config, layer)),
                ("scores fall with distance", adapter.score_slopes),
                (f"scores are softly capped at {cap}", cap is not None),
            )
            if is_so
        ]
        if not bent or (content_only and not normed):
            return
        twin = f"{at}.pattern" if adapter.attention_code == "own" else f"{at}.q and {at}.k, or {at}.scores"
        partly = "" if normed else ", or take the part that holds where query and key are one position: content_only=True"
        raise UnsupportedModel(
            f"{at} of {self.model.name} has no QK matrix: {' and '.join(bent)}. Record what it computes, {twin}{partly}."
        )

    @property
    def unreadable(self) -> str | None:
        """Why the weights cannot be read, or None where they can."""
        if self.model.quantised:
            return f"its weights are quantised ({self.model.quantised})"
        away = any(weight.device.type == "meta" for weight in self.model.hf.parameters())
        return "some of its weights are not in memory (offloaded by device_map)" if away else None

    # --- norms ---------------------------------------------------------------------------------------------------

    @property
    def final_norm(self) -> Norm | None:
        """The norm between the final stream and the unembedding, where there is one."""
        module = find(self.model.hf, self.model.adapter.final_norm)
        return None if module is None else Norm.of(module)

    def attention_norm(self, layer: int) -> Norm | None:
        """The norm through which attention reads the stream, where there is one."""
        module = self._in_layer(layer).part("attention_norm", layer) if self.model.anatomy.sums else None
        return None if module is None else Norm.of(module)

    def mlp_norm(self, layer: int) -> Norm | None:
        """The norm through which the feed-forward reads the stream, where there is one: its own, or attention's."""
        if not self._in_layer(layer).anatomy.sums:  # post-LN: the stream itself is normed
            return None
        module = self.model.part("mlp_norm", layer)
        if module is None and self.model.anatomy.parallel:
            return self.attention_norm(layer)
        return None if module is None else Norm.of(module)

    def _post_norm(self, name: str, layer: int) -> Norm | None:
        return Norm.of(self.model.require_part(name, layer)) if self.model.adapter.post_norms else None

    # --- from modules to matrices --------------------------------------------------------------------------------

    def _in_layer(self, layer: int) -> "Model":
        self.model.check(Site(layer=layer))
        return self.model

    def _reading(self, layer: int, which: str, fold: bool) -> tuple[Tensor, Tensor]:
        """The matrix `[head, d_model, d_head]` and bias `[head, d_head]` of queries, keys or values."""
        model, d_head = self._in_layer(layer), self.model.anatomy.d_head
        if model.part("fused", layer) is None:
            weight = self._matrix(which, layer)
            bias = self._bias(model.require_part(which, layer), weight.shape[-1])
            weight, bias = weight.unflatten(-1, (-1, d_head)), bias.unflatten(-1, (-1, d_head))
        else:
            weight = self._matrix("fused", layer)
            bias = self._bias(model.require_part("fused", layer), weight.shape[-1])
            weight, bias = self._split(weight, which), self._split(bias, which)
        weight = weight.movedim(0, 1)
        norm = self.attention_norm(layer) if fold else None
        return _folded(norm, weight, bias) if fold else (weight, bias)

    def _split(self, fused: Float[Tensor, "*rows out"], which: str) -> Float[Tensor, "*rows some_head d_head"]:
        """Queries, keys or values out of one projection: all q, all k, all v; or per kv head its queries, its key, its value."""
        a = self.model.anatomy
        if self.model.adapter.fused_order == "blocks":
            counts = {"query": a.heads, "key": a.kv_heads, "value": a.kv_heads}
            parts = fused.unflatten(-1, (-1, a.d_head)).split(list(counts.values()), dim=-2)
            return parts[list(counts).index(which)]
        groups = fused.unflatten(-1, (a.kv_heads, a.heads // a.kv_heads + 2, a.d_head))
        if which == "query":
            return groups[..., :-2, :].flatten(-3, -2)
        return groups[..., {"key": -2, "value": -1}[which], :]

    def _repeated(self, per_kv_head: Tensor, per_head: bool) -> Tensor:
        return per_kv_head.repeat_interleave(self.model.anatomy.heads // len(per_kv_head), dim=0) if per_head else per_kv_head

    def _feeding(self, layer: int, which: str, fold: bool) -> tuple[Tensor, Tensor]:
        """The matrix `[d_model, neuron]` and bias of what neurons or their gates read."""
        weight, bias = self._unfolded(layer, which)
        return _folded(self.mlp_norm(layer), weight, bias) if fold else (weight, bias)

    def _unfolded(self, layer: int, which: str) -> tuple[Tensor, Tensor]:
        experts: Any = self._in_layer(layer).part("experts", layer)
        half = {"gate": 0, "in": 1}[which]
        if experts is not None:
            weight = self._readable(experts.gate_up_proj, f"the experts of layer {layer}").chunk(2, dim=-2)[half].mT
            return weight, weight.new_zeros(weight.shape[0], weight.shape[-1])
        both = self.model.part("mlp_gate_in", layer)
        if both is not None:
            weight = self._matrix("mlp_gate_in", layer)
            return weight.chunk(2, dim=-1)[half], self._bias(both, weight.shape[-1]).chunk(2, dim=-1)[half]
        module = self.model.part(f"mlp_{which}", layer)
        if module is None:
            raise UsageError(f"The neurons of {self.model.name} have no gates: they read through W_in alone.")
        weight = self._matrix(f"mlp_{which}", layer)
        return weight, self._bias(module, weight.shape[-1])

    def _matrix(self, part: str, layer: int) -> Float[Tensor, "inputs outputs"]:
        return self._of(self.model.require_part(part, layer), f"{part} of layer {layer}")

    def _of(self, module: nn.Module, what: str) -> Float[Tensor, "inputs outputs"]:
        """The matrix of a projection, inputs first."""
        plain = plain_module(module)
        with torch.no_grad():
            weight = self._readable(effective_weight(module), what)
        if isinstance(plain, nn.Linear):
            return weight.T
        if isinstance(plain, Conv1D):
            return weight
        raise UnsupportedModel(f"{what} of {self.model.name} is a {type(plain).__name__}, whose weights we cannot read.")

    def _readable(self, weight: Tensor | nn.Module, what: str) -> Tensor:
        """The numbers of a weight; UnsupportedModel where there are none."""
        quantised = self.model.quantised
        if quantised or not isinstance(weight, Tensor) or not weight.is_floating_point():
            raise UnsupportedModel(
                f"{what} of {self.model.name} is quantised ({quantised or getattr(weight, 'dtype', 'packed')}), so there is no "
                "matrix to read. Load the model unquantised, or call model.hf.dequantize() and wrap it again."
            )
        if weight.device.type == "meta":
            raise UnsupportedModel(
                f"{what} of {self.model.name} is not in memory (offloaded by device_map). Load the model on one device."
            )
        return weight.detach()

    def _bias(self, module: nn.Module, width: int) -> Tensor:
        bias = getattr(module, "bias", None)
        return self._zeros(width) if bias is None else self._readable(bias, "a bias")

    def _zeros(self, width: int) -> Tensor:
        here = next(self.model.hf.parameters())
        return torch.zeros(width, dtype=here.dtype, device=self.model.device)


def before(norm: Norm | None, after: Float[Tensor, "*some d_model"]) -> Float[Tensor, "*some d_model"]:
    """Which directions of the scaled stream are these directions of what a norm returns? `centred(gain * after)`."""
    wide = after.to(torch.promote_types(after.dtype, torch.float32))
    if norm is None:
        return wide
    wide = wide * norm.gain.to(wide)
    return wide - wide.mean(dim=-1, keepdim=True) if norm.centred else wide


def behind(norm: Norm | None, written: Float[Tensor, "*some d_model"]) -> Float[Tensor, "*some d_model"]:
    """What do vectors become in a norm that lies behind them, its scale and bias left out?"""
    wide = written.to(torch.promote_types(written.dtype, torch.float32))
    return wide if norm is None else norm.linear(wide)


def _folded(norm: Norm | None, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return before(norm, weight.mT).mT, _with_norm_bias(norm, weight, bias)


def _with_norm_bias(norm: Norm | None, weight: Tensor, bias: Tensor) -> Tensor:
    wide = bias.to(torch.promote_types(bias.dtype, torch.float32))
    return wide if norm is None or norm.bias is None else wide + norm.bias.to(wide) @ weight.to(wide)
