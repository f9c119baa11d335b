"""Digests stand for exactly these weights, and exactly this tokenizer."""

import pytest
import torch

from innerworks.model.digest import tokenizer_digest, weights_digest


def test_equal_weights_have_one_digest_and_any_other_weight_another(tiny_hf, family):
    first, second = tiny_hf(family), tiny_hf(family)
    assert weights_digest(first) == weights_digest(second) and len(weights_digest(first)) == 64
    with torch.no_grad():
        list(second.parameters())[-1].view(-1)[-1] += 1e-3
    assert weights_digest(first) != weights_digest(second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_precision_is_part_of_a_digest(tiny_hf, dtype):
    assert weights_digest(tiny_hf("gpt2").to(dtype)) not in {weights_digest(tiny_hf("gpt2"))}


def test_wrapping_and_running_a_model_does_not_change_its_digest(tiny_hf, tiny_model, tokens):
    tiny_model("llama").run(tokens, record=["L*.pattern"])
    assert weights_digest(tiny_model("llama").hf) == weights_digest(tiny_hf("llama"))


def test_tokenizers_that_differ_have_other_digests(tiny_tokenizer, opening_tokenizer, tmp_path):
    from transformers import AutoTokenizer

    assert tokenizer_digest(tiny_tokenizer) != tokenizer_digest(opening_tokenizer)
    tiny_tokenizer("the cat")
    before = tokenizer_digest(tiny_tokenizer)
    tiny_tokenizer.save_pretrained(tmp_path)
    assert tokenizer_digest(AutoTokenizer.from_pretrained(tmp_path)) == before
