"""The anatomy of a model: how many layers, heads and neurons it has, and how wide it is."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from innerworks.errors import UnsupportedModel
from innerworks.model.adapters import Adapter
from innerworks.model.adapters.adapter import Path


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The sizes of a model; names of fields are the axes of `innerworks.sites.AXES`."""

    family: str
    layers: int
    heads: int
    kv_heads: int
    d_head: int
    d_model: int
    neurons: int  # per layer; 0 where every layer is a mixture of experts
    vocab: int
    max_positions: int | None  # longest sequence the configuration allows
    parameters: int
    experts: int = 0  # per layer that is a mixture
    expert_neurons: int = 0  # per expert
    parallel: bool = False  # attention and feed-forward read the same stream: there is none between them
    sums: bool = True  # the final stream is the sum of what was added to it


def anatomy_of(hf: PreTrainedModel, adapter: Adapter) -> Anatomy:
    """Read the sizes off the modules where they are certain, off the configuration elsewhere."""
    decoder: Any = hf.get_submodule(adapter.decoder)
    config = decoder.config
    blocks = hf.get_submodule(adapter.blocks)
    assert isinstance(blocks, nn.ModuleList)
    heads = config.num_attention_heads
    z_width, d_model = matrix_shape(blocks[0].get_submodule(adapter.attention_out))
    plain = [down for block in blocks if (down := find(block, adapter.mlp_out)) is not None]
    experts: list[Any] = [one for block in blocks if (one := find(block, adapter.experts)) is not None]
    embedding = hf.get_submodule(adapter.embedding)
    return Anatomy(
        family=adapter.family,
        layers=len(blocks),
        heads=heads,
        kv_heads=_kv_heads(blocks[0], adapter, heads, z_width // heads),
        d_head=z_width // heads,
        d_model=d_model,
        neurons=matrix_shape(plain[0])[0] if plain else 0,
        vocab=embedding.num_embeddings if isinstance(embedding, nn.Embedding) else config.vocab_size,
        max_positions=getattr(config, "max_position_embeddings", None),
        parameters=sum(parameter.numel() for parameter in hf.parameters()),
        experts=experts[0].down_proj.shape[0] if experts else 0,
        expert_neurons=experts[0].down_proj.shape[-1] if experts else 0,
        parallel=adapter.parallel(config),
        sums=not adapter.post_layer_norm(config),
    )


def every_module(model: nn.Module) -> list[nn.Module]:
    """Every module that a model has now, each once; `model.modules()` says the same and takes far longer, for every run."""
    found, known = [model], {model}
    for module in found:  # it grows as we go
        children = vars(module)["_modules"]
        if children:
            new = dict.fromkeys(child for child in children.values() if child is not None and child not in known)
            known.update(new)
            found += new
    return found


def find(block: nn.Module, path: Path) -> nn.Module | None:
    """The first of some submodules that a block has, if any."""
    for one in (path,) if isinstance(path, str) else path or ():
        try:
            found = block.get_submodule(one)
        except AttributeError:
            continue
        if found is not None:
            return found
    return None


def matrix_shape(module: nn.Module) -> tuple[int, int]:
    """Return the (inputs, outputs) of a projection: linear, quantised, with an adapter, or transformers' transposed `Conv1D`."""
    inputs, outputs = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(inputs, int) and isinstance(outputs, int):
        return inputs, outputs
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0], weight.shape[1]


def _kv_heads(block: nn.Module, adapter: Adapter, heads: int, d_head: int) -> int:
    key, fused = find(block, adapter.key), find(block, adapter.fused)
    if key is not None:
        return matrix_shape(key)[1] // d_head
    if fused is None:
        raise UnsupportedModel(f"The adapter of {adapter.family} names no projection of keys that is there.")
    return (matrix_shape(fused)[1] // d_head - heads) // 2
