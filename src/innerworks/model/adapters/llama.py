"""Llama and its likes (SmolLM, SmolLM2, TinyLlama): rotary positions, RMSNorm, gated feed-forward, shared key heads."""

from innerworks.model.adapters.adapter import Adapter

LLAMA = Adapter(
    family="llama",
    classes=("LlamaForCausalLM",),
    blocks="model.layers",
    final_norm="model.norm",
    unembedding="lm_head",
    attention="self_attn",
    attention_out="self_attn.o_proj",
    mlp="mlp",
    mlp_norm="post_attention_layernorm",
    mlp_out="mlp.down_proj",
    kv_heads="num_key_value_heads",
    refused={"pretraining_tp": (1, "split projections add in another order")},
)
