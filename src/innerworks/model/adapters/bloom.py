"""BLOOM: positions as a slope on the scores. Its attention code is its own, and adds the stream itself."""

from innerworks.model.adapters.adapter import Adapter

BLOOM = Adapter(
    family="bloom",
    classes=("BloomForCausalLM",),
    decoder="transformer",
    blocks="transformer.h",
    embedding="transformer.word_embeddings",
    final_norm="transformer.ln_f",
    embedding_then="transformer.word_embeddings_layernorm",
    attention="self_attention",
    attention_added="self_attention.dense",
    attention_out="self_attention.dense",
    query=None,
    key=None,
    value=None,
    fused="self_attention.query_key_value",
    fused_order="groups",
    rotary=lambda config, layer: False,
    attention_code="own",
    implementation="eager",
    score_slopes=True,
    mlp_added="mlp.dense_4h_to_h",
    mlp_in="mlp.dense_h_to_4h",
    mlp_gate=None,
    mlp_out="mlp.dense_4h_to_h",
    refused={
        "apply_residual_connection_post_layernorm": (False, "the stream is replaced by its norm, so parts do not add up"),
        "slow_but_exact": (False, "split projections add in another order"),
    },
)
