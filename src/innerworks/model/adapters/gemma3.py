"""Gemma 3: as Gemma 2, with a norm on queries and keys; alone, or as the text model inside the multimodal wrapper."""

from dataclasses import replace

from innerworks.model.adapters.adapter import Adapter

GEMMA3_TEXT = Adapter(
    family="gemma3_text",
    classes=("Gemma3ForCausalLM",),
    attention_added="post_attention_layernorm",
    query_norm="self_attn.q_norm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_added="post_feedforward_layernorm",
    post_norms=True,
    softcap="final_logit_softcapping",
    score_softcap="attn_logit_softcapping",
)
GEMMA3 = replace(  # text goes in as token ids; images are not read
    GEMMA3_TEXT,
    family="gemma3",
    classes=("Gemma3ForConditionalGeneration",),
    decoder="model.language_model",
    blocks="model.language_model.layers",
    embedding="model.language_model.embed_tokens",
    final_norm="model.language_model.norm",
    softcap=None,  # the wrapper puts its text model's logits out uncapped, whatever the configuration says
)
