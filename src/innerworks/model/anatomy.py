"""The anatomy of a model: how many layers, heads and neurons it has, and how wide it is."""

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel

from innerworks.model.adapters import Adapter


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The sizes of a model; names of fields are the axes of `innerworks.sites.AXES`."""

    family: str
    layers: int
    heads: int
    kv_heads: int
    d_head: int
    d_model: int
    neurons: int
    vocab: int
    max_positions: int | None  # longest sequence the configuration allows
    parameters: int


def anatomy_of(hf: PreTrainedModel, adapter: Adapter) -> Anatomy:
    """Read the sizes off the modules where they are certain, off the configuration elsewhere."""
    config = hf.config
    blocks = hf.get_submodule(adapter.blocks)
    assert isinstance(blocks, nn.ModuleList)
    neurons, d_model = matrix_shape(blocks[0].get_submodule(adapter.mlp_out))
    z_width, _ = matrix_shape(blocks[0].get_submodule(adapter.attention_out))
    heads = config.num_attention_heads
    return Anatomy(
        family=adapter.family,
        layers=len(blocks),
        heads=heads,
        kv_heads=getattr(config, adapter.kv_heads) if adapter.kv_heads else heads,
        d_head=z_width // heads,
        d_model=d_model,
        neurons=neurons,
        vocab=config.vocab_size,
        max_positions=getattr(config, "max_position_embeddings", None),
        parameters=sum(parameter.numel() for parameter in hf.parameters()),
    )


def matrix_shape(module: nn.Module) -> tuple[int, int]:
    """Return the (inputs, outputs) of a projection, be it `nn.Linear` or transformers' transposed `Conv1D`."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0], weight.shape[1]
