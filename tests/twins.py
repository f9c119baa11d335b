"""Untrained twins: tiny models as Hugging Face initialises them, and a tokenizer for the built-in corpus."""

from typing import Any

import pytest
import torch

from innerworks.model import Model
from innerworks.text import Corpus

VOCAB = 2000


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level, with words and pieces of words, learned from the built-in corpus itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False)
    made.train_from_iterator([document.text for document in Corpus.open("builtin").documents], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


def twin(tokenizer: Any, seed: int) -> Model:
    """4 layers of 8 heads as Hugging Face initialises them, GPT-2 and Llama in turn."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    ends: dict[str, Any] = dict(bos_token_id=0, eos_token_id=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf: Any
        if seed % 2:
            sizes: dict[str, Any] = dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=8, intermediate_size=256)
            hf = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, max_position_embeddings=256, **sizes, **ends))
        else:
            hf = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=256, n_embd=128, n_layer=4, n_head=8, **ends))
    return Model(hf.eval(), tokenizer, name=f"twin {seed}")
