"""OLMo 2: sub-layers read the raw stream, and what they compute is normed before it is added; a norm on all queries, all keys."""

from innerworks.model.adapters.adapter import Adapter

OLMO2 = Adapter(
    family="olmo2",
    classes=("Olmo2ForCausalLM",),
    attention_norm=None,
    attention_added="post_attention_layernorm",
    query_norm="self_attn.q_norm",
    mlp_norm=None,
    mlp_added="post_feedforward_layernorm",
    post_norms=True,
)
