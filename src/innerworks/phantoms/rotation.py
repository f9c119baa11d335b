"""Rotate the residual stream of a finished phantom: another basis, the same model.

What you can learn here: that the stream has no privileged basis (Elhage et al. 2021). With norm gains of one and biases
of zero, turning what every matrix writes to the stream, and what every matrix reads from it, by the same orthogonal Q
changes no logit and no attention pattern; LayerNorm asks in addition that Q leave the direction (1, ..., 1) where it is.
A detector whose findings move under such a rotation has looked at the basis. Neurons keep theirs.
"""

from copy import deepcopy

import torch
from transformers import PreTrainedModel

from innerworks.errors import UsageError
from innerworks.phantoms.stream import D_MODEL, haar

STREAM_AXIS = {  # which axis of each matrix is the stream
    "gpt2": {"wte": 1, "wpe": 1, "lm_head": 1, "c_attn": 0, "attn.c_proj": 1, "c_fc": 0, "mlp.c_proj": 1},
    "llama": {
        **dict.fromkeys(("embed_tokens", "lm_head", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"), 1),
        **dict.fromkeys(("o_proj", "down_proj"), 0),
    },
}


def rotated(hf: PreTrainedModel, *, seed: int) -> PreTrainedModel:
    """Copy a phantom's model with its stream turned by a random rotation; logits agree to 1e-4."""
    family = hf.config.model_type
    if family not in STREAM_AXIS or hf.config.hidden_size != D_MODEL:
        raise UsageError(f"A {family} model of width {hf.config.hidden_size} is no phantom: only those can be rotated.")
    fixed = torch.ones(D_MODEL, 1) / D_MODEL**0.5 if family == "gpt2" else torch.zeros(D_MODEL, 0)
    basis = haar(D_MODEL, torch.Generator().manual_seed(seed), fixed=fixed)
    rotation = basis @ haar(D_MODEL, torch.Generator().manual_seed(seed + 1), fixed=fixed).T
    turned = deepcopy(hf)
    for name, parameter in turned.named_parameters():
        if parameter.ndim == 2:
            axis = next(axis for part, axis in STREAM_AXIS[family].items() if f".{part}.weight" in f".{name}")
            parameter.data = rotation @ parameter.data if axis == 0 else parameter.data @ rotation.T
    return turned
