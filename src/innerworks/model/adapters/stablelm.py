"""StableLM: Llama with LayerNorm, rotation of some dimensions, and optionally parallel blocks and norms on queries and keys."""

from innerworks.model.adapters.adapter import Adapter

STABLELM = Adapter(
    family="stablelm",
    classes=("StableLmForCausalLM",),
    query_norm="self_attn.q_layernorm",
    parallel=lambda config: config.use_parallel_residual,
)
