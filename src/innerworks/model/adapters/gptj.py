"""GPT-J: attention and feed-forward share one norm and read the same stream. Its attention code is its own."""

from innerworks.model.adapters.adapter import Adapter

GPTJ = Adapter(
    family="gptj",
    classes=("GPTJForCausalLM",),
    decoder="transformer",
    blocks="transformer.h",
    embedding="transformer.wte",
    final_norm="transformer.ln_f",
    attention="attn",
    attention_norm="ln_1",
    attention_added="attn",
    attention_out="attn.out_proj",
    query="attn.q_proj",
    key="attn.k_proj",
    value="attn.v_proj",
    attention_code="own",
    implementation="eager",
    parallel=lambda config: True,
    mlp_norm=None,
    mlp_in="mlp.fc_in",
    mlp_gate=None,
    mlp_out="mlp.fc_out",
)
