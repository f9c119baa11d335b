"""What is recorded must add up: parts to the whole, rows to one, reading and writing to what attention puts out."""

import pytest
import torch
from torch import testing

from innerworks.errors import UsageError
from innerworks.model.weights import W_O

CLOSE = dict(atol=2e-6, rtol=2e-5)


@pytest.fixture
def run(recorded, family):
    return recorded(family)


def test_rows_of_a_pattern_sum_to_one(run):
    rows = run.stack("pattern").sum(dim=-1)
    testing.assert_close(rows, torch.ones_like(rows), **CLOSE)


def test_no_query_sees_the_future(run):
    pattern = run.stack("pattern")
    assert pattern.triu(diagonal=1).abs().max() == 0
    assert pattern.diagonal(dim1=-2, dim2=-1).min() > 0


def test_pattern_times_v_is_z(run):
    for layer in range(3):
        read = torch.einsum("bhqk,bkhd->bqhd", run[f"L{layer}.pattern"], run[f"L{layer}.v"])
        testing.assert_close(read, run[f"L{layer}.z"], **CLOSE)


def test_what_heads_write_and_the_bias_are_the_output_of_attention(run, model):
    for layer in range(3):
        written = torch.einsum("bqhd,hdm->bqm", run[f"L{layer}.z"], W_O(model, layer))
        bias = model.block(layer).get_submodule(model.adapter.attention_out).bias
        testing.assert_close(written if bias is None else written + bias, run[f"L{layer}.attn_out"], **CLOSE)


def test_neurons_through_the_down_projection_are_the_output_of_the_feed_forward(run, model):
    for layer in range(3):
        written = model.block(layer).get_submodule(model.adapter.mlp_out)(run[f"L{layer}.neurons"])
        assert torch.equal(written, run[f"L{layer}.mlp_out"])


def test_embedding_and_everything_added_are_the_final_stream(run):
    total = run["embed"] + run.stack("attn_out").sum(dim=0) + run.stack("mlp_out").sum(dim=0)
    testing.assert_close(total, run["L2.resid_post"], **CLOSE)


def test_the_stream_passes_from_block_to_block(run):
    assert torch.equal(run["embed"], run["L0.resid_pre"])
    for layer in range(3):
        testing.assert_close(run[f"L{layer}.resid_pre"] + run[f"L{layer}.attn_out"], run[f"L{layer}.resid_mid"], **CLOSE)
        testing.assert_close(run[f"L{layer}.resid_mid"] + run[f"L{layer}.mlp_out"], run[f"L{layer}.resid_post"], **CLOSE)
    assert torch.equal(run["L0.resid_post"], run["L1.resid_pre"])


def test_the_readout_of_the_final_stream_is_the_logits(run, model):
    norm = model.hf.get_submodule(model.adapter.final_norm)
    assert torch.equal(norm(run["L2.resid_post"]), run.final)
    assert torch.equal(model.readout(run.final), run.logits)


def test_the_mean_is_the_average_over_texts_from_the_second_token_on(model):
    texts = ["the cat sat on the mat .", "a dog ran"]
    mean = model.mean(texts, kinds=("z", "attn_out", "neurons"))
    for kind, values in mean.values.items():
        rows = [model.run(text, record=[f"L*.{kind}"]).stack(kind)[:, 0, 1:] for text in texts]
        testing.assert_close(values, torch.cat(rows, dim=1).mean(dim=1), **CLOSE)
    assert mean.over == "2 texts, positions 1 and later"


@pytest.mark.parametrize(("texts", "kinds", "says"), [(["the"], ("z",), "two tokens"), (["the cat"], ("pattern",), "no mean")])
def test_what_has_no_mean_is_refused(tiny_model, texts, kinds, says):
    with pytest.raises(UsageError, match=says):
        tiny_model("gpt2").mean(texts, kinds=kinds)
