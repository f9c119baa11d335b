"""Llama and its likes (SmolLM, SmolLM2, TinyLlama): rotary positions, RMSNorm, gated feed-forward, shared key heads.

The defaults of `Adapter` describe Llama: the families that followed it say only where they differ.
"""

from innerworks.model.adapters.adapter import Adapter

LLAMA = Adapter(
    family="llama",
    classes=("LlamaForCausalLM",),
    refused={"pretraining_tp": (1, "split projections add in another order")},
)
