"""Phi 3 and 4: Llama with q, k, v in one projection, and gate and up in another."""

from innerworks.model.adapters.adapter import Adapter

PHI3 = Adapter(
    family="phi3",
    classes=("Phi3ForCausalLM",),
    query=None,
    key=None,
    value=None,
    fused="self_attn.qkv_proj",
    mlp_in=None,
    mlp_gate=None,
    mlp_gate_in="mlp.gate_up_proj",
)
