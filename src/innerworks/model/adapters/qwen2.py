"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and a sliding window in some layers."""

from innerworks.model.adapters.adapter import Adapter

QWEN2 = Adapter(family="qwen2", classes=("Qwen2ForCausalLM",))
