"""Weights as matrices that read left to right: `stream @ W`."""

from jaxtyping import Float
from torch import Tensor, nn

from innerworks.model.model import Model


def W_O(model: Model, layer: int) -> Float[Tensor, "head d_head d_model"]:
    """What does each head write, per unit of what it read? The output projection, one matrix per head; no bias."""
    module = model.require_part("attention_out", layer)
    weight = module.weight.T if isinstance(module, nn.Linear) else module.weight
    assert isinstance(weight, Tensor)
    return weight.detach().reshape(model.anatomy.heads, model.anatomy.d_head, model.anatomy.d_model)
