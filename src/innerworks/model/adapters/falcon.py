"""Falcon: parallel or sequential blocks, one or two norms, rotation. Its attention code is its own."""

from innerworks.model.adapters.adapter import Adapter

FALCON = Adapter(
    family="falcon",
    classes=("FalconForCausalLM",),
    decoder="transformer",
    blocks="transformer.h",
    embedding="transformer.word_embeddings",
    final_norm="transformer.ln_f",
    attention="self_attention",
    attention_norm=("input_layernorm", "ln_attn"),
    attention_added="self_attention",
    attention_out="self_attention.dense",
    query=None,
    key=None,
    value=None,
    fused="self_attention.query_key_value",
    fused_order="groups",
    attention_code="own",
    implementation="eager",
    parallel=lambda config: config.new_decoder_architecture or config.parallel_attn,
    mlp_norm=("post_attention_layernorm", "ln_mlp"),
    mlp_in="mlp.dense_h_to_4h",
    mlp_gate=None,
    mlp_out="mlp.dense_4h_to_h",
    modified_in_place=("mlp_out",),  # the block adds attention's output to it
    refused={"alibi": (False, "transformers' eager attention adds the slopes twice, and its fast one shows no patterns")},
)
