"""GPT-NeoX (Pythia): attention and feed-forward read the same stream, each through its own norm; rotation of some dimensions."""

from innerworks.model.adapters.adapter import Adapter

GPT_NEOX = Adapter(
    family="gpt_neox",
    classes=("GPTNeoXForCausalLM",),
    decoder="gpt_neox",
    blocks="gpt_neox.layers",
    embedding="gpt_neox.embed_in",
    final_norm="gpt_neox.final_layer_norm",
    unembedding="lm_head",
    attention="attention",
    attention_added="attention",
    attention_out="attention.dense",
    query=None,
    key=None,
    value=None,
    fused="attention.query_key_value",
    fused_order="groups",
    parallel=lambda config: config.use_parallel_residual,
    mlp_in="mlp.dense_h_to_4h",
    mlp_gate=None,
    mlp_out="mlp.dense_4h_to_h",
)
