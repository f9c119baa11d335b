"""The inputs of a head's reading: an altered stream reaches the query, key or value of that head, and nothing else."""

import pytest
import torch
from torch import testing

from families import ALL, OWN_CODE
from innerworks.errors import UnknownSite, UsageError
from innerworks.model import ablate, freeze, patch, scale, steer

REGISTRY = [family for family in ALL if family not in OWN_CODE]
READ = ["L1.q", "L1.k", "L1.v", "L1.pattern", "L1.z", "L1.attn_out"]
PUSH = torch.linspace(-1, 1, 32) + 0.3
CLOSE = dict(atol=1e-5, rtol=1e-5)


def others(head):
    return [other for other in range(4) if other != head]


@pytest.mark.parametrize("family", REGISTRY)
@pytest.mark.parametrize("letter", ["q", "k", "v"])
def test_an_edited_input_moves_one_head_alone(tiny_model, tokens, family, letter):
    model, head = tiny_model(family), 2
    clean = model.run(tokens, record=READ)
    whole = model.run(tokens, record=READ, edit=steer("L1.resid_pre", PUSH))
    run = model.run(tokens, record=[*READ, "L1.resid_pre"], edit=steer(f"L1H{head}.{letter}_in", PUSH))
    for kind in "qkv":
        same = others(head) if kind == letter else range(4)  # group mates that share its keys and values stay, too
        assert torch.equal(run[f"L1.{kind}"][:, :, same], clean[f"L1.{kind}"][:, :, same])
    testing.assert_close(run[f"L1H{head}.{letter}"], whole[f"L1H{head}.{letter}"], **CLOSE)
    assert (run[f"L1H{head}.{letter}"] - clean[f"L1H{head}.{letter}"])[:, 1:].abs().max() > 1e-2
    assert torch.equal(run["L1.z"][:, :, others(head)], clean["L1.z"][:, :, others(head)])
    testing.assert_close(run[f"L1H{head}.{letter}"][:, 0], clean[f"L1H{head}.{letter}"][:, 0], **CLOSE)
    assert (run.logits - clean.logits).abs().max() > 1e-4


@pytest.mark.parametrize("family", REGISTRY)
def test_an_input_that_is_the_stream_itself_changes_nothing(tiny_model, tokens, family):
    model = tiny_model(family)
    clean = model.run(tokens, record=[*READ, "L1.resid_pre"])
    for site in ("L1H1.q_in", "L1H2.k_in", "L1H3.v_in", "L1.q_in", "L1.k_in", "L1.v_in"):
        run = model.run(tokens, record=READ, edit=patch(site, clean["L1.resid_pre"]))
        assert all(torch.equal(run[place], clean[place]) for place in READ), site
        assert torch.equal(run.logits, clean.logits), site


@pytest.mark.parametrize("family", REGISTRY)
def test_all_inputs_edited_are_the_block_reading_another_stream(tiny_model, tokens, family):
    model = tiny_model(family)
    altered = steer("L1.resid_pre", PUSH, positions=[2, 5, 9])
    whole = model.run(tokens, record=READ, edit=altered)
    together = [steer(f"L1.{letter}_in", PUSH, positions=[2, 5, 9]) for letter in "qkv"]
    apart = [steer(f"L1H{head}.{letter}_in", PUSH, positions=[2, 5, 9]) for head in range(4) for letter in "qkv"]
    by_hand = model.run(tokens, edit=patch("L1.z", whole["L1.z"])).logits  # the stream itself stays as it is
    for edits in (together, apart, apart[::-1]):
        run = model.run(tokens, record=READ, edit=edits)
        for place in READ:
            testing.assert_close(run[place], whole[place], atol=2e-5, rtol=1e-4)
        testing.assert_close(run.logits, by_hand, atol=3e-5, rtol=1e-4)
    own = attention_by_hand(model, whole_stream(model, tokens, PUSH), tokens)
    testing.assert_close(run["L1.attn_out"], own, atol=2e-5, rtol=1e-4)


def whole_stream(model, tokens, push):
    stream = model.run(tokens, record="L1.resid_pre")["L1.resid_pre"].clone()
    stream[:, [2, 5, 9]] += push
    return stream


def attention_by_hand(model, stream, tokens):
    """What attention adds when its block is called by foreign code on a stream: with the model's own arguments."""
    seen = []
    block = model.block(1)
    into = block.register_forward_pre_hook(
        lambda module, args, kwargs: (
            (stream, *args[1:]) if args else args,
            {**kwargs, "hidden_states": stream} if "hidden_states" in kwargs else kwargs,
        ),
        with_kwargs=True,
    )
    out = model.part("attention_added", 1).register_forward_hook(
        lambda module, args, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    try:
        with torch.no_grad():
            model.hf(input_ids=tokens, use_cache=False)
    finally:
        into.remove()
        out.remove()
    return seen[0]


@pytest.mark.parametrize("family", REGISTRY)
def test_several_edits_of_inputs_follow_each_other_and_those_of_all_heads_come_first(tiny_model, tokens, family):
    model, clean = tiny_model(family), tiny_model(family).run(tokens, record="L1.resid_pre")["L1.resid_pre"]
    edits = [steer("L1H1.k_in", PUSH), scale("L1.k_in", 2.0), steer("L1H1.k_in", PUSH, -0.5)]
    run = model.run(tokens, record="L1.k", edit=edits)
    doubled = torch.cat([clean[:, :1], 2 * clean[:, 1:]], dim=1)
    pushed = torch.cat([clean[:, :1], doubled[:, 1:] + 0.5 * PUSH], dim=1)
    for head, stream in ((0, doubled), (1, pushed), (3, doubled)):
        whole = model.run(tokens, record="L1.k", edit=patch("L1.resid_pre", stream))
        testing.assert_close(run[f"L1H{head}.k"], whole[f"L1H{head}.k"], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", [one for one in REGISTRY if one not in ("olmo2", "opt-post-norm")])
def test_an_edited_input_is_normed_with_the_scale_that_is_frozen(tiny_model, tokens, family):
    model = tiny_model(family)
    clean = model.run(tokens, record=["L1.attn_norm_scale", "L1.v", "L1.q"])
    hold = freeze("L1.attn_norm_scale", clean)
    moved = {}
    for strength in (1.0, 50.0):  # v is linear in the stream once the norm's scale is held
        run = model.run(tokens, record="L1.v", edit=[hold, steer("L1H2.v_in", PUSH, strength)])
        moved[strength] = (run["L1H2.v"] - clean["L1H2.v"]) / strength
        assert torch.equal(run["L1.v"][:, :, others(2)], clean["L1.v"][:, :, others(2)])
    testing.assert_close(moved[1.0], moved[50.0], atol=1e-4, rtol=1e-3)
    free = model.run(tokens, record="L1.v", edit=steer("L1H2.v_in", PUSH, 50.0))
    assert ((free["L1H2.v"] - clean["L1H2.v"]) / 50 - moved[1.0]).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["olmo2", "opt-post-norm"])
def test_attention_that_reads_the_raw_stream_has_no_scale_to_freeze(tiny_model, tokens, family):
    model = tiny_model(family)
    with pytest.raises(UnknownSite, match="without a norm"):
        model.run(tokens, record="L1.attn_norm_scale")


@pytest.mark.parametrize("family", REGISTRY)
def test_an_edited_input_in_a_padded_batch_is_that_of_the_text_alone(tiny_model, tokens, family):
    model, mask = tiny_model(family), torch.ones(2, 12, dtype=torch.bool)
    mask[0, :3] = mask[1, 9:] = False
    edits = [steer("L1H2.q_in", PUSH, positions=[7]), ablate("L1H0.v_in", "zero"), scale("L2H3.k_in", 0.5)]
    run = model.run(tokens, mask=mask, edit=edits)
    for row, text in enumerate((tokens[:1, 3:], tokens[1:, :9])):
        testing.assert_close(run.logits[row][mask[row]], model.run(text, edit=edits).logits[0], atol=3e-5, rtol=1e-4)


def test_an_input_is_edited_but_not_recorded(tiny_model, tokens):
    with pytest.raises(UsageError, match="every head reads L1.resid_pre"):
        tiny_model("llama").run(tokens, record="L1H2.q_in")


def test_an_input_can_come_from_another_run(tiny_model, tokens):
    """Path patching: a head reads the stream of another text."""
    model, other = tiny_model("llama"), tokens.flip(0)
    streams = model.run(other, record=["L1.resid_pre", "L1.q"])
    run = model.run(tokens, record="L1.q", edit=patch("L1H2.q_in", streams["L1.resid_pre"]))
    testing.assert_close(run["L1H2.q"], streams["L1H2.q"], **CLOSE)


@pytest.mark.parametrize("letter", ["q", "k", "v"])
def test_nothing_is_left_behind(tiny_model, tokens, assert_untouched, letter):
    model = tiny_model("gemma3_text")
    before = model.run(tokens).logits
    with assert_untouched(model):
        model.run(tokens, edit=steer(f"L1H2.{letter}_in", PUSH))
        with pytest.raises(UsageError, match=r"\(5,\)"):
            model.run(tokens, edit=patch(f"L1H2.{letter}_in", torch.zeros(5)))
    assert torch.equal(model.run(tokens).logits, before)
