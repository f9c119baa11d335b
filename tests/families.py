"""Every family as a tiny random model: three or four layers, four heads, weights that hide no mistake at zero or one.

Sliding windows are six tokens, so that every text of a test goes past them.
"""

from typing import Any

VOCAB = 320
POSITIONS = 192
WINDOW = 6

_OLD = dict(vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4)
_MANY = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48)
_SHARED = {**_MANY, "num_key_value_heads": 2, "max_position_embeddings": POSITIONS}  # keys and values are shared by two heads
_WINDOW = {**_SHARED, "sliding_window": WINDOW}
_GEMMA = dict(_WINDOW, num_hidden_layers=4, head_dim=12, query_pre_attn_scalar=12)
_MIXED = dict(layer_types=["sliding_attention", "full_attention"] * 2)
_OPT = dict(
    vocab_size=VOCAB, max_position_embeddings=POSITIONS, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, ffn_dim=48
)
_FALCON = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=3, num_attention_heads=4)

#: name -> (class of the model, class of its configuration, options). Before a dash stands the family.
CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", dict(_OLD, n_positions=POSITIONS, n_inner=48)),
    "gpt2-inverse-layer": (
        "GPT2LMHeadModel",
        "GPT2Config",
        dict(_OLD, n_positions=POSITIONS, n_inner=48, scale_attn_by_inverse_layer_idx=True),
    ),
    "llama": ("LlamaForCausalLM", "LlamaConfig", dict(_SHARED, tie_word_embeddings=True)),
    "llama-bias": ("LlamaForCausalLM", "LlamaConfig", dict(_SHARED, attention_bias=True, mlp_bias=True)),
    "mistral": ("MistralForCausalLM", "MistralConfig", _WINDOW),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", dict(_WINDOW, use_sliding_window=True, max_window_layers=2)),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", dict(_SHARED, head_dim=12)),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", dict(_SHARED, head_dim=12)),
    "gemma2": (
        "Gemma2ForCausalLM",
        "Gemma2Config",
        dict(_GEMMA, attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    ),
    "gemma3_text": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**_GEMMA, **_MIXED}),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", dict(_MANY, max_position_embeddings=POSITIONS)),
    "gpt_neox-sequential": (
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        dict(_MANY, max_position_embeddings=POSITIONS, use_parallel_residual=False),
    ),
    "opt": ("OPTForCausalLM", "OPTConfig", dict(_OPT, word_embed_proj_dim=32)),
    "opt-post-norm": ("OPTForCausalLM", "OPTConfig", dict(_OPT, word_embed_proj_dim=16, do_layer_norm_before=False)),
    "phi": ("PhiForCausalLM", "PhiConfig", _SHARED),
    "phi-query-norm": ("PhiForCausalLM", "PhiConfig", dict(_SHARED, qk_layernorm=True)),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", dict(_WINDOW, pad_token_id=0)),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", _SHARED),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", dict(_SHARED, use_qkv_bias=True)),
    "stablelm-parallel": ("StableLmForCausalLM", "StableLmConfig", dict(_SHARED, use_parallel_residual=True, qk_layernorm=True)),
    "starcoder2": ("Starcoder2ForCausalLM", "Starcoder2Config", _WINDOW),
    "smollm3": ("SmolLM3ForCausalLM", "SmolLM3Config", dict(_SHARED, pad_token_id=0, no_rope_layer_interval=2)),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", dict(_WINDOW, num_local_experts=4, num_experts_per_tok=2)),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        dict(_SHARED, head_dim=12, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=20, mlp_only_layers=[1]),
    ),
    "gptj": ("GPTJForCausalLM", "GPTJConfig", dict(_OLD, n_positions=POSITIONS, n_inner=48, rotary_dim=4)),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        dict(
            vocab_size=VOCAB,
            max_position_embeddings=POSITIONS,
            hidden_size=32,
            num_layers=4,
            num_heads=4,
            intermediate_size=48,
            attention_types=[[["global", "local"], 2]],
            window_size=WINDOW,
        ),
    ),
    "bloom": ("BloomForCausalLM", "BloomConfig", dict(vocab_size=VOCAB, hidden_size=32, n_layer=3, n_head=4)),
    "falcon": ("FalconForCausalLM", "FalconConfig", dict(_FALCON, multi_query=True)),
    "falcon-new": ("FalconForCausalLM", "FalconConfig", dict(_FALCON, num_kv_heads=2, new_decoder_architecture=True)),
    "falcon-sequential": (
        "FalconForCausalLM",
        "FalconConfig",
        dict(_FALCON, multi_query=False, parallel_attn=False, bias=True),
    ),
    "gemma3": ("Gemma3ForConditionalGeneration", "Gemma3Config", {**_GEMMA, **_MIXED}),
}
ALL = tuple(CONFIGS)
#: one of each way of being laid out: for tests that are about something else than families
FEW = ("gpt2", "gpt2-inverse-layer", "llama", "llama-bias")
OWN_CODE = ("gptj", "gpt_neo", "bloom", "falcon", "falcon-new", "falcon-sequential")
PARALLEL = ("gpt_neox", "phi", "phi-query-norm", "stablelm-parallel", "gptj", "falcon", "falcon-new")
MIXTURES = ("mixtral", "qwen3_moe")


def build(name: str, **changes: Any) -> Any:
    """A fresh random Hugging Face model, the same weights at every call."""
    import torch
    import transformers

    from innerworks.model.adapters import FAMILIES

    model, config, options = CONFIGS[name]
    ends = dict(bos_token_id=1, eos_token_id=1, initializer_range=0.2)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        options = {**options, **ends, **changes}
        made = getattr(transformers, config)(**(_around(options) if name == "gemma3" else options))
        made._attn_implementation = FAMILIES[name.partition("-")[0]].implementation
        hf = getattr(transformers, model)(made)
        for weight in hf.parameters():  # biases and norms too: at zero and one they would hide mistakes
            weight += 0.1 * torch.randn_like(weight)
    return hf.eval()


def _around(text: dict[str, Any]) -> dict[str, Any]:
    """The multimodal wrapper around a text model, with eyes as small as can be."""
    eyes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    return dict(text_config=text, vision_config=eyes, mm_tokens_per_image=4, image_token_index=310)
