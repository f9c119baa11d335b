"""Digests: exactly which weights and which tokenizer were studied."""

import hashlib
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase


def weights_digest(hf: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of all parameters and buffers that are saved."""
    digest = hashlib.sha256()
    for name, tensor in sorted(hf.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over the vocabulary and everything else that a fast tokenizer is made of."""
    backend: Any = getattr(tokenizer, "backend_tokenizer")  # noqa: B009 what `is_fast` promises
    return hashlib.sha256(backend.to_str().encode()).hexdigest()
