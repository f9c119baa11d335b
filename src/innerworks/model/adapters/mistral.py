"""Mistral: Llama with a sliding window (the window lies in the mask, which transformers makes)."""

from innerworks.model.adapters.adapter import Adapter

MISTRAL = Adapter(family="mistral", classes=("MistralForCausalLM",))
