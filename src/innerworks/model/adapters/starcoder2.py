"""StarCoder2: Llama's attention with biases and LayerNorm, a plain feed-forward, a sliding window."""

from innerworks.model.adapters.adapter import Adapter

STARCODER2 = Adapter(
    family="starcoder2",
    classes=("Starcoder2ForCausalLM",),
    mlp_in="mlp.c_fc",
    mlp_gate=None,
    mlp_out="mlp.c_proj",
)
