"""Mixtral: Mistral with a mixture of experts in every layer."""

from innerworks.model.adapters.adapter import Adapter

MIXTRAL = Adapter(
    family="mixtral",
    classes=("MixtralForCausalLM",),
    mlp_in=None,
    mlp_gate=None,
    mlp_out=None,
    experts="mlp.experts",
)
