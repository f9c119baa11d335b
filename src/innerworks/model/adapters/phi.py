"""Phi 1, 1.5 and 2: attention and feed-forward share one norm and read the same stream; biases everywhere."""

from innerworks.model.adapters.adapter import Adapter

PHI = Adapter(
    family="phi",
    classes=("PhiForCausalLM",),
    final_norm="model.final_layernorm",
    attention_out="self_attn.dense",
    query_norm="self_attn.q_layernorm",
    parallel=lambda config: True,
    mlp_norm=None,
    mlp_in="mlp.fc1",
    mlp_gate=None,
    mlp_out="mlp.fc2",
)
