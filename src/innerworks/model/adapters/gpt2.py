"""GPT-2: learned positions, LayerNorm, one fused projection for q, k and v."""

from innerworks.model.adapters.adapter import Adapter

GPT2 = Adapter(
    family="gpt2",
    classes=("GPT2LMHeadModel",),
    blocks="transformer.h",
    final_norm="transformer.ln_f",
    unembedding="lm_head",
    attention="attn",
    attention_out="attn.c_proj",
    mlp="mlp",
    mlp_norm="ln_2",
    mlp_out="mlp.c_proj",
    refused={
        "add_cross_attention": (False, "cross-attention adds to the stream from a second text"),
        "reorder_and_upcast_attn": (False, "its scores are computed outside the attention registry"),
    },
)
