"""SmolLM3: Llama without rotation in every fourth layer."""

from innerworks.model.adapters.adapter import Adapter

SMOLLM3 = Adapter(
    family="smollm3",
    classes=("SmolLM3ForCausalLM",),
    rotary=lambda config, layer: bool(config.no_rope_layers[layer]),
)
