"""Gemma 2: a norm before and after each sub-layer, soft caps on scores and logits, a sliding window in every other layer."""

from innerworks.model.adapters.adapter import Adapter

GEMMA2 = Adapter(
    family="gemma2",
    classes=("Gemma2ForCausalLM",),
    attention_added="post_attention_layernorm",
    implementation="eager",  # the fast one knows no soft cap
    mlp_norm="pre_feedforward_layernorm",
    mlp_added="post_feedforward_layernorm",
    post_norms=True,
    softcap="final_logit_softcapping",
    score_softcap="attn_logit_softcapping",
)
