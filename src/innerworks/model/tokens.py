"""Text in: which token ids a text becomes, said openly.

Special tokens are the tokenizer's own business (Llama puts a BOS in front, Qwen has none), and a chat template is only applied
when asked for: what is studied by default is plain text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from innerworks.errors import UsageError


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: str | Sequence[str], *, bos: bool | None, chat: bool, device: torch.device
) -> tuple[Int[Tensor, "batch seq"], Bool[Tensor, "batch seq"]]:
    """Token ids and mask of texts, padded on the right; see `Model.tokenize`."""
    texts = [texts] if isinstance(texts, str) else texts
    if isinstance(texts, Mapping) or not all(isinstance(text, str) for text in texts):
        raise UsageError(
            f"Give a text, a list of texts, or token ids as a tensor [batch, seq]; got {type(texts).__name__}. "
            "Of what a tokenizer returned, give ['input_ids'], and mask=['attention_mask']."
        )
    texts = list(texts)
    ids = [_with_bos(tokenizer, _ids(tokenizer, text, chat=chat), bos) for text in texts]
    if not ids or not all(ids):
        raise UsageError("There is no token in " + ("an empty list of texts." if not ids else f"{texts[ids.index([])]!r}."))
    length = max(map(len, ids))
    tokens = torch.tensor([one + [0] * (length - len(one)) for one in ids], device=device)
    lengths = torch.tensor([len(one) for one in ids], device=device)
    return tokens, torch.arange(length, device=device) < lengths[:, None]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, chat: bool) -> list[int]:
    if not chat:
        return _encode(tokenizer, text)
    if not tokenizer.chat_template:
        raise UsageError("chat=True, but this tokenizer has no chat template: it does not belong to an instruct model.")
    message = [{"role": "user", "content": text}]
    wrapped = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert isinstance(wrapped, str)
    return _encode(tokenizer, wrapped, special=False)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = True) -> list[int]:
    ids: Any = tokenizer(text, add_special_tokens=special)["input_ids"]
    return list(ids)


def _with_bos(tokenizer: PreTrainedTokenizerBase, ids: list[int], bos: bool | None) -> list[int]:
    if bos is None:
        return ids
    token: Any = tokenizer.bos_token_id
    if token is None:
        if bos:
            raise UsageError("bos=True, but this tokenizer has no BOS token.")
        return ids
    without = ids[1:] if ids[:1] == [token] else ids
    return [token, *without] if bos else without
