"""Gemma: Llama with scaled embeddings and norms whose gain is one plus their weight."""

from innerworks.model.adapters.adapter import Adapter

GEMMA = Adapter(family="gemma", classes=("GemmaForCausalLM",))
