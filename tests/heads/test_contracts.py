"""What the statistics promise, tried on models whose truth is known: nothing is there, or the null is exactly true."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from innerworks.findings import Finding
from innerworks.heads import patterns
from innerworks.heads.kinds import CONTENT, KINDS
from innerworks.model import Model
from innerworks.model.observe import State, zeros
from innerworks.scan.engine import begin, observe
from innerworks.scan.stages import finish_pass, start
from innerworks.heads.decide import findings
from innerworks.stats import estimate, upper_tail
from innerworks.text import Corpus, Reading, read
from innerworks.text.reading import Unit, Window

VOCAB = 2000
SHUFFLES = 30


# --- an untrained twin -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
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

    ends = dict(bos_token_id=0, eos_token_id=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf: Any
        if seed % 2:
            sizes = dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=8, intermediate_size=256)
            hf = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, max_position_embeddings=256, **sizes, **ends))
        else:
            hf = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=256, n_embd=128, n_layer=4, n_head=8, **ends))
    return Model(hf.eval(), tokenizer, name=f"twin {seed}")


def decided(model: Model, corpus: Corpus, seed: int = 0) -> list[Finding]:
    anatomy = model.anatomy
    reading = read(corpus, model.tokenizer, vocab=anatomy.vocab, max_positions=anatomy.max_positions, seed=seed)
    return findings(finish_pass(model, reading, start(model, reading)))


def check_twins(tokenizer: Any, corpus: Corpus, seeds: range, most: int) -> None:
    labelled = 0
    for seed in seeds:
        found = decided(twin(tokenizer, seed), corpus, seed)
        labelled += any(one.rung for one in found)
        large = [(one.behaviour, one.site, one.material, one.effect) for one in found if abs(one.effect) >= one.floor / 2]
        worst = [entry for entry in large if entry[3] > 0]
        assert not worst, (seed, worst[:5])
    assert labelled <= most


def test_an_untrained_model_has_no_labels_and_no_effect_of_half_a_floor(tokenizer: Any) -> None:
    check_twins(tokenizer, Corpus.open("builtin").sample(6), range(2), most=0)


@pytest.mark.slow
def test_at_most_three_of_twenty_untrained_models_have_any_label(tokenizer: Any) -> None:
    check_twins(tokenizer, Corpus.open("builtin"), range(20), most=3)
