"""OPT: learned positions, ReLU; the 350m model norms the stream after each addition and has no sum to decompose."""

from innerworks.model.adapters.adapter import Adapter

OPT = Adapter(
    family="opt",
    classes=("OPTForCausalLM",),
    decoder="model.decoder",
    blocks="model.decoder.layers",
    embedding="model.decoder.embed_tokens",
    final_norm="model.decoder.final_layer_norm",
    embedding_then="model.decoder.project_in",
    positions="model.decoder.embed_positions",
    final_then="model.decoder.project_out",
    attention_norm="self_attn_layer_norm",
    attention_out="self_attn.out_proj",
    rotary=lambda config, layer: False,
    mlp_norm="final_layer_norm",
    mlp=None,
    mlp_added="fc2",
    mlp_in="fc1",
    mlp_gate=None,
    mlp_out="fc2",
    post_layer_norm=lambda config: not config.do_layer_norm_before,
)
