"""Padding, left or right, and which logits come back."""

import pytest
import torch
from torch import testing

from innerworks.errors import UsageError
from innerworks.model import ablate

CLOSE = dict(atol=1e-5, rtol=1e-4)


@pytest.fixture(params=["gpt2", "llama", "opt", "gpt_neox", "gemma2", "mixtral"])
def family(request):
    """One family of each kind (all of them, with every site, are in test_families.py)."""
    return request.param


@pytest.fixture(scope="module")
def padded(tokens):
    """`padded("left")`: tokens with the second sequence cut to 8, and the mask; beside it that sequence alone."""

    def make(side):
        short, filler = tokens[1:, :8], torch.full((1, 4), 5)
        row = torch.cat([filler, short] if side == "left" else [short, filler], dim=1)
        real = torch.arange(12) >= 4 if side == "left" else torch.arange(12) < 8
        return torch.cat([tokens[:1], row]), torch.stack([torch.ones(12, dtype=torch.bool), real]), short

    return make


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("edit", [[], [ablate("L1.attn_out", "zero"), ablate("L2H1.pattern", "zero")]], ids=["clean", "edited"])
@pytest.mark.parametrize("opened", [False, True])
def test_a_padded_sequence_is_as_if_it_were_alone(model, padded, side, edit, opened):
    together, mask, short = padded(side)
    record = ["L*.z", "L*.mlp_out", *(["L*.pattern", "L*.k"] if opened else [])]
    batch = model.run(together, mask=mask, record=record, edit=edit)
    alone = model.run(short, record=record, edit=edit)
    where = mask[1]
    testing.assert_close(batch.logits[1, where], alone.logits[0], **CLOSE)
    for layer in range(3):
        testing.assert_close(batch[f"L{layer}.z"][1, where], alone[f"L{layer}.z"][0], **CLOSE)
        if opened:
            pattern = batch[f"L{layer}.pattern"][1][:, where]
            testing.assert_close(pattern[:, :, where], alone[f"L{layer}.pattern"][0], **CLOSE)
            assert pattern[:, :, ~where].abs().max() == 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_other_sequence_does_not_notice_the_padding(model, padded, tokens, side):
    together, mask, _ = padded(side)
    batch = model.run(together, mask=mask)
    testing.assert_close(batch.logits[:1], model.run(tokens[:1]).logits, **CLOSE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_logits_are_those_of_the_last_real_token(model, padded, side):
    together, mask, short = padded(side)
    last = model.run(together, mask=mask, logits="last")
    assert last.logits.shape == (2, 320)
    testing.assert_close(last.logits[1], model.run(short).logits[0, -1], **CLOSE)
    testing.assert_close(last.logits[0], model.run(together[:1]).logits[0, -1], **CLOSE)


def test_the_last_logits_of_a_single_real_token_are_its_own(model, tokens):
    mask = torch.tensor([[True] * 12, [False] * 11 + [True]])
    last = model.run(tokens, mask=mask, logits="last").logits[1]
    testing.assert_close(last, model.run(tokens[1:, -1:]).logits[0, -1], **CLOSE)


def test_logits_come_for_the_positions_asked_for(model, tokens):
    where = torch.zeros(2, 12, dtype=torch.bool)
    where[0, [2, 7]] = where[1, 11] = True
    every = model.run(tokens).logits
    testing.assert_close(model.run(tokens, logits=where).logits, every[where], **CLOSE)
    nothing = model.run(tokens, logits="none")
    assert nothing.logits is None
    with pytest.raises(UsageError, match="no logits"):
        nothing.require_logits  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"logits": torch.ones(2, 5, dtype=torch.bool)}, r"\(2, 5\)"),
        ({"logits": torch.ones(2, 12, dtype=torch.long)}, "int64"),
        ({"logits": "some"}, "logits='some'"),
        ({"mask": torch.zeros(2, 12, dtype=torch.bool)}, "mask is False everywhere"),
        ({"mask": torch.ones(2, 5, dtype=torch.bool)}, r"\(2, 12\) and \(2, 5\)"),
        ({"keep": "everything"}, "keep='everything'"),
    ],
)
def test_an_argument_that_does_not_fit_the_tokens_is_refused(tiny_model, tokens, unchecked, arguments, says):
    with pytest.raises(UsageError, match=says):
        tiny_model("gpt2").run(tokens, **arguments)


def test_a_single_sequence_needs_its_batch_axis(tiny_model, tokens, unchecked):
    with pytest.raises(UsageError, match=r"\[batch, seq\]"):
        tiny_model("gpt2").run(tokens[0])


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (torch.full((1, 4), 320), r"0\.\.319; got 320\.\.320"),
        (torch.tensor([[1, -1]]), r"0\.\.319; got -1\.\.1"),
        (torch.ones(1, 193, dtype=torch.long), "193 tokens is longer than the 192 positions of tiny-gpt2"),
        (torch.ones(1, 0, dtype=torch.long), "no tokens"),
        (torch.ones(0, 3, dtype=torch.long), "no tokens"),
        ("", "no token in ''"),
        (["the cat", ""], "no token in ''"),
        ([], "empty list"),
    ],
)
def test_tokens_that_the_model_cannot_read_are_refused(tiny_model, tokens, says):
    with pytest.raises(UsageError, match=says):
        tiny_model("gpt2").run(tokens)


def test_a_long_batch_is_read_where_its_real_tokens_fit(tiny_model):
    tokens = torch.ones(1, 200, dtype=torch.long)
    tiny_model("gpt2").run(tokens, mask=torch.arange(200)[None] < 192)


def test_a_model_in_training_mode_is_not_run(tiny_hf, tokens):
    import innerworks as iw

    model = iw.Model(tiny_hf("gpt2").train(), None)  # wrapping puts it in eval mode
    model.run(tokens)
    model.hf.train()
    with pytest.raises(UsageError, match="training mode"):
        model.run(tokens)


def test_text_needs_a_tokenizer(tiny_hf, tokens):
    import innerworks as iw

    model = iw.Model(tiny_hf("gpt2"), None)
    with pytest.raises(UsageError, match="without a tokenizer"):
        model.run("the cat")
    assert model.run(tokens).logits.shape == (2, 12, 320)
