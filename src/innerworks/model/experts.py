"""Mixtures of experts, opened up while a call asks for their neurons and untouched otherwise.

The experts of a layer are 3-D parameters of one module, whose forward goes through transformers' experts registry. At a layer
where `expert_neurons` is wanted, each token's activations in each expert are laid out as `[batch, seq, expert, neuron]`, times
the routing weight, so that the down projection of that is exactly what the layer computes.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from innerworks.errors import UnsupportedModel
from innerworks.model.call import Call, current

PREFIX = "innerworks_"
_LAYERS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def install(config: Any, experts: dict[int, nn.Module]) -> None:
    """Let the experts of a model (layer -> module) go through ours."""
    for layer, module in experts.items():
        if module.is_transposed or module.has_bias or not module.has_gate or module.has_post_expert_norm:
            raise UnsupportedModel(f"{type(module).__name__} of layer {layer} computes its experts in a way that is not handled.")
        _LAYERS[module] = layer
    base = config._experts_implementation or "eager"
    if not experts or base.startswith(PREFIX):
        return
    ALL_EXPERTS_FUNCTIONS.register(PREFIX + base, _over(base))
    config._experts_implementation_internal = PREFIX + base


def _over(base: str) -> Callable[..., Tensor]:
    def experts(module: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        call, layer = current(), _LAYERS.get(module)
        if call is None or layer is None or not call.wants("expert_neurons", layer):
            plain = type(module).forward.__wrapped__ if base == "eager" else ALL_EXPERTS_FUNCTIONS[base]
            return plain(module, hidden, chosen, weights)
        return _opened(call, layer, module, hidden, chosen, weights)

    return experts


def _opened(call: Call, layer: int, module: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    neurons = hidden.new_zeros(len(hidden), module.num_experts, module.down_proj.shape[-1])
    for expert in range(module.num_experts):
        rows, slot = torch.where(chosen == expert)
        active = module._apply_gate(nn.functional.linear(hidden[rows], module.gate_up_proj[expert]))
        neurons = neurons.index_put((rows, torch.full_like(rows, expert)), (active * weights[rows, slot, None]).to(hidden.dtype))
    batch = call.positions.ids.shape[0]
    neurons = call.at("expert_neurons", layer, neurons.unflatten(0, (batch, -1))).flatten(0, 1)
    return torch.einsum("ten,edn->td", neurons, module.down_proj)
