"""GPT-2: learned positions, LayerNorm, one fused projection for q, k and v."""

from innerworks.model.adapters.adapter import Adapter

GPT2 = Adapter(
    family="gpt2",
    classes=("GPT2LMHeadModel",),
    decoder="transformer",
    blocks="transformer.h",
    embedding="transformer.wte",
    final_norm="transformer.ln_f",
    positions="transformer.wpe",
    attention="attn",
    attention_norm="ln_1",
    attention_added="attn",
    attention_out="attn.c_proj",
    query=None,
    key=None,
    value=None,
    fused="attn.c_attn",
    rotary=lambda config, layer: False,
    mlp_norm="ln_2",
    mlp_in="mlp.c_fc",
    mlp_gate=None,
    mlp_out="mlp.c_proj",
    refused={
        "add_cross_attention": (False, "cross-attention adds to the stream from a second text"),
        "reorder_and_upcast_attn": (False, "its scores are computed outside the attention registry"),
    },
)
