"""Qwen3: Llama with a norm on each head's queries and keys."""

from innerworks.model.adapters.adapter import Adapter

QWEN3 = Adapter(family="qwen3", classes=("Qwen3ForCausalLM",), query_norm="self_attn.q_norm")
