"""Phantoms for tests, what their heads look at and their neurons do: by plain Hugging Face calls, not the package's own way."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from innerworks.phantoms import Phantom, build
from innerworks.phantoms.stream import D_HEAD


@cache
def phantom(architecture: Any, seed: int, amplitude: float = 1.0, kit: str = "patterns") -> Phantom:
    return build(architecture, seed=seed, amplitude=amplitude, kit=kit)


def repeats(vocabulary: int, *, rows: int = 6, length: int = 128, seed: int = 0) -> Tensor:
    """Random tokens; a stretch of 16 to 32 comes again after a gap of 16 to 96."""
    generator = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    tokens = torch.randint(vocabulary, (rows, length), generator=generator)
    for row in tokens:
        gap = whole(16, 96)
        stretch = min(whole(16, 32), gap, length - gap)
        start = whole(0, length - gap - stretch)
        row[start + gap : start + gap + stretch] = row[start : start + stretch]
    return tokens


def documents(phantom: Phantom, *, n: int = 6, length: int = 120) -> Tensor:
    return torch.tensor([ids[:length] for ids in phantom.tokenizer(phantom.documents(n, words=160))["input_ids"]])


def targets(tokens: Tensor) -> dict[str, Tensor]:
    """Where each behaviour looks, `[batch, query, key]`; column 0 belongs to the sink alone."""
    batch, length = tokens.shape
    earlier = torch.ones(length, length, dtype=torch.bool).tril(diagonal=-1)
    copies = (tokens[:, :, None] == tokens[:, None, :]) & earlier
    after = torch.zeros_like(copies)
    after[:, :, 1:] = copies[:, :, :-1]
    masks = {"duplicate_token": copies.clone(), "induction": after & earlier}
    masks["previous_token"] = (earlier & ~earlier.tril(diagonal=-2)).repeat(batch, 1, 1)
    for mask in masks.values():
        mask[:, :, 0] = False
    masks["first_token"] = torch.zeros_like(copies)
    masks["first_token"][:, :, 0] = True
    for positional in ("previous_token", "first_token"):
        masks[positional][:, :16] = False
    return masks


def patterns(hf: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Attention of every head, `[batch, layer, head, query, key]`."""
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        return torch.stack(hf(tokens, output_attentions=True).attentions, dim=1)


def masses(hf: PreTrainedModel, tokens: Tensor) -> dict[str, Tensor]:
    """Mean mass of each head on each behaviour's targets, over rows that have one: `[layer, head]`."""
    pattern, found = patterns(hf, tokens), {}
    for behaviour, mask in targets(tokens).items():
        mass = torch.einsum("blhqk,bqk->lhbq", pattern, mask.float())
        found[behaviour] = mass[:, :, mask.any(dim=-1)].mean(dim=-1)
    return found


def place(site: str) -> tuple[int, int]:
    """Layer and head, or layer and neuron."""
    layer, index = site.removeprefix("L").replace("N", "H").split("H")
    return int(layer), int(index)


def activations(hf: PreTrainedModel, tokens: Tensor) -> Tensor:
    """What enters the down projections, `[layer, batch, seq, neuron]`."""
    found: list[Tensor] = []
    hooks = [one.register_forward_pre_hook(lambda _, given: found.append(given[0])) for one in _downs(hf)]
    with torch.no_grad():
        hf(tokens)
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


def _downs(hf: Any) -> list[Any]:
    if hf.config.model_type == "gpt2":
        return [block.mlp.c_proj for block in hf.transformer.h]
    return [layer.mlp.down_proj for layer in hf.model.layers]


def silence(hf: PreTrainedModel, site: str) -> PreTrainedModel:
    """Copy the model with what one head or neuron writes set to zero."""
    layer, index = place(site)
    copy: Any = type(hf)(hf.config)
    copy.load_state_dict(hf.state_dict())
    gpt2 = hf.config.model_type == "gpt2"
    if "N" in site:
        weight, inputs = _downs(copy)[layer].weight.data, slice(index, index + 1)
    else:
        weight = (copy.transformer.h[layer].attn.c_proj if gpt2 else copy.model.layers[layer].self_attn.o_proj).weight.data
        inputs = slice(index * D_HEAD, (index + 1) * D_HEAD)
    if gpt2:  # which keeps its matrices transposed
        weight[inputs] = 0
    else:
        weight[:, inputs] = 0
    return copy.eval()


def losses(hf: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Loss of each next token, `[batch, seq - 1]`, nats."""
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(hf(tokens).logits[:, :-1].mT, tokens[:, 1:], reduction="none")
