"""GPT-Neo: GPT-2 with local attention in some layers. Its attention code is its own."""

from innerworks.model.adapters.adapter import Adapter

GPT_NEO = Adapter(
    family="gpt_neo",
    classes=("GPTNeoForCausalLM",),
    decoder="transformer",
    blocks="transformer.h",
    embedding="transformer.wte",
    final_norm="transformer.ln_f",
    positions="transformer.wpe",
    attention="attn",
    attention_norm="ln_1",
    attention_added="attn",
    attention_out="attn.attention.out_proj",
    query="attn.attention.q_proj",
    key="attn.attention.k_proj",
    value="attn.attention.v_proj",
    rotary=lambda config, layer: False,
    attention_code="own",
    implementation="eager",
    mlp_norm="ln_2",
    mlp_in="mlp.c_fc",
    mlp_gate=None,
    mlp_out="mlp.c_proj",
)
