"""The two architectures as data: their sizes, and under which names Hugging Face keeps which weights.

A `Block` holds one layer's weights head by head and neuron by neuron; a family lays such blocks out as a state dict.
Norm gains are one and biases zero, so that rotating the stream is a symmetry of the whole model (`rotation`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel

from innerworks.phantoms.stream import D_HEAD, D_MODEL, POSITIONS, ROPE_THETA, Architecture


@dataclass(frozen=True, kw_only=True)
class Block:
    """Weights of one layer in the model's own coordinates.

    query: `[head, d_head, d_model]`; key, value: `[kv_head, d_head, d_model]`; output: `[head, d_model, d_head]`;
    gate, up: `[neuron, d_model]` (up is not used by GPT-2); down: `[d_model, neuron]`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor


@dataclass(frozen=True, kw_only=True)
class Family:
    """Sizes of an architecture, and how to make a model of it from blocks."""

    layers: int
    heads: int
    kv_heads: int
    neurons: int
    flag_layer: int  # whose neurons write `first`; heads rest on it in later layers
    activation: str  # by its name in Hugging Face
    config: Callable[["Family", int, int], PretrainedConfig]  # of a vocabulary size and the end token
    model: type[PreTrainedModel]
    state: Callable[[Sequence[Block], Mapping[str, Tensor]], dict[str, Tensor]]  # of blocks and embeddings


def load(family: Family, blocks: Sequence[Block], embeddings: Mapping[str, Tensor], *, end: int) -> PreTrainedModel:
    """Make the Hugging Face model; embeddings: `token`, `position` (GPT-2), `output`, each `[index, d_model]`."""
    with torch.random.fork_rng(devices=[]):  # its initialisation draws numbers, which are overwritten at once
        hf = family.model(family.config(family, len(embeddings["token"]), end))
    hf.load_state_dict(family.state(blocks, embeddings), strict=True)
    return hf.float().eval()


def _gpt2_config(family: Family, vocabulary: int, end: int) -> PretrainedConfig:
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    sizes = {"n_embd": D_MODEL, "n_layer": family.layers, "n_head": family.heads, "n_inner": family.neurons}
    ends = {"bos_token_id": None, "eos_token_id": end, "activation_function": family.activation}
    return GPT2Config(vocab_size=vocabulary, n_positions=POSITIONS, tie_word_embeddings=False, **sizes, **dropout, **ends)


def _gpt2_state(blocks: Sequence[Block], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = {"wte": embeddings["token"], "wpe": embeddings["position"]}
    state = {f"transformer.{name}.weight": table for name, table in names.items()}
    state |= {"lm_head.weight": embeddings["output"], **_norm("transformer.ln_f", bias=True)}
    for layer, block in enumerate(blocks):
        at = f"transformer.h.{layer}"
        inputs = torch.cat([block.query, block.key, block.value]).flatten(end_dim=1)
        matrices = {
            "attn.c_attn": inputs,
            "attn.c_proj": _beside(block.output),
            "mlp.c_fc": block.gate,
            "mlp.c_proj": block.down,
        }
        for name, matrix in matrices.items():  # GPT-2 keeps its matrices transposed
            state[f"{at}.{name}.weight"], state[f"{at}.{name}.bias"] = matrix.T.contiguous(), torch.zeros(len(matrix))
        state |= {**_norm(f"{at}.ln_1", bias=True), **_norm(f"{at}.ln_2", bias=True)}
    return state


def _llama_config(family: Family, vocabulary: int, end: int) -> PretrainedConfig:
    heads = {"num_attention_heads": family.heads, "num_key_value_heads": family.kv_heads, "head_dim": D_HEAD}
    sizes = {"hidden_size": D_MODEL, "num_hidden_layers": family.layers, "intermediate_size": family.neurons, **heads}
    rope = {"max_position_embeddings": POSITIONS, "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA}}
    ends = {"bos_token_id": None, "eos_token_id": end, "hidden_act": family.activation}
    return LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=False, **sizes, **rope, **ends)


def _llama_state(blocks: Sequence[Block], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {"model.embed_tokens.weight": embeddings["token"], "lm_head.weight": embeddings["output"]}
    state |= _norm("model.norm", bias=False)
    for layer, block in enumerate(blocks):
        at = f"model.layers.{layer}"
        inputs = {"q_proj": block.query, "k_proj": block.key, "v_proj": block.value}
        state |= {f"{at}.self_attn.{name}.weight": weights.flatten(end_dim=1) for name, weights in inputs.items()}
        state[f"{at}.self_attn.o_proj.weight"] = _beside(block.output)
        neurons = {"gate_proj": block.gate, "up_proj": block.up, "down_proj": block.down}
        state |= {f"{at}.mlp.{name}.weight": weights for name, weights in neurons.items()}
        state |= {**_norm(f"{at}.input_layernorm", bias=False), **_norm(f"{at}.post_attention_layernorm", bias=False)}
    return state


def _beside(output: Tensor) -> Tensor:
    """Heads' output weights `[head, d_model, d_head]` side by side: `[d_model, head * d_head]`."""
    return torch.cat(list(output), dim=1)


def _norm(name: str, *, bias: bool) -> dict[str, Tensor]:
    gain = {f"{name}.weight": torch.ones(D_MODEL)}
    return gain | ({f"{name}.bias": torch.zeros(D_MODEL)} if bias else {})


FAMILIES: dict[Architecture, Family] = {
    "gpt2": Family(
        layers=9,
        heads=4,
        kv_heads=4,
        neurons=64,
        flag_layer=0,
        activation="gelu_new",
        config=_gpt2_config,
        model=GPT2LMHeadModel,
        state=_gpt2_state,
    ),
    "llama": Family(
        layers=6,
        heads=8,
        kv_heads=4,
        neurons=96,
        flag_layer=1,
        activation="silu",
        config=_llama_config,
        model=LlamaForCausalLM,
        state=_llama_state,
    ),
}
