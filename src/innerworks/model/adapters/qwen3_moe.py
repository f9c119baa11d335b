"""Qwen3-MoE: Qwen3 with a mixture of experts in most layers, and a plain feed-forward in the others."""

from innerworks.model.adapters.adapter import Adapter

QWEN3_MOE = Adapter(
    family="qwen3_moe",
    classes=("Qwen3MoeForCausalLM",),
    query_norm="self_attn.q_norm",
    experts="mlp.experts",
)
