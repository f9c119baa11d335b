"""What is recorded equals what foreign hooks see on a Hugging Face model that innerworks never touched."""

import pytest
import torch
from torch import testing

from families import ALL, OWN_CODE
from innerworks.errors import UnknownSite, UsageError

CLOSE = dict(atol=3e-6, rtol=3e-5)
LAYERS = range(3)


def test_logits_are_bit_for_bit_those_of_the_plain_model(recorded, plain, family):
    assert torch.equal(recorded(family, opened=False).logits, plain(family).logits)


def test_logits_with_attention_opened_up_are_those_of_the_plain_model(recorded, plain, family):
    testing.assert_close(recorded(family).logits, plain(family).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_q_k_and_v_are_those_of_the_projections_one_per_query_head(recorded, plain, family, kind):
    for layer in LAYERS:
        testing.assert_close(recorded(family)[f"L{layer}.{kind}"], plain(family).qkv(layer)[kind], **CLOSE)


def test_patterns_are_the_softmax_of_scaled_causal_scores(recorded, plain, family):
    for layer in LAYERS:
        testing.assert_close(recorded(family)[f"L{layer}.pattern"], plain(family).pattern(layer), **CLOSE)


@pytest.mark.parametrize("opened", [False, True])
def test_what_modules_hand_on_is_recorded(recorded, plain, family, opened):
    run, seen = recorded(family, opened=opened), plain(family)
    for layer in LAYERS:
        pairs = {
            "resid_pre": seen.streams[layer],
            "resid_mid": seen.into(layer, seen.norm),
            "attn_out": seen.out_of(layer, seen.attention),
            "mlp_out": seen.out_of(layer, "mlp"),
            "neurons": seen.into(layer, seen.down),
            "z": seen.into(layer, seen.projection).unflatten(-1, (4, 8)),
            "resid_post": seen.seen[f"{seen.block}.{layer}"][1],
        }
        for kind, theirs in pairs.items():
            testing.assert_close(run[f"L{layer}.{kind}"], theirs, **({} if opened else dict(atol=0, rtol=0)))
    testing.assert_close(run.final, seen.streams[-1])


@pytest.mark.parametrize("family", ALL)
def test_streams_are_the_hidden_states_that_the_model_puts_out_itself(tiny_model, tiny_hf, tokens, family):
    model = tiny_model(family)
    with torch.no_grad():
        out = tiny_hf(family)(input_ids=tokens, output_hidden_states=True, use_cache=False)
    run = model.run(tokens, record=["embed", "L*.resid_pre", "L*.resid_post"])
    layers = range(model.anatomy.layers)
    assert len(out.hidden_states) == len(layers) + 1 and torch.equal(run["embed"], out.hidden_states[0])
    for layer in layers:
        assert torch.equal(run[f"L{layer}.resid_pre"], out.hidden_states[layer])
    for layer in layers[:-1]:
        assert torch.equal(run[f"L{layer}.resid_post"], out.hidden_states[layer + 1])
    if family != "opt-post-norm":  # it projects the last one down
        assert torch.equal(run.final, out.hidden_states[-1])  # after the final norm


@pytest.mark.parametrize("family", ALL)
def test_patterns_are_those_that_the_model_puts_out_itself(tiny_model, tiny_hf, tokens, family):
    """Independent of adapters and registries: the eager code of every family, asked for its attentions."""
    hf, model = tiny_hf(family), tiny_model(family)
    if family not in OWN_CODE:
        hf.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = hf(input_ids=tokens, output_attentions=True, use_cache=False).attentions
    assert len(attentions) == model.anatomy.layers
    run = model.run(tokens, record=["L*.pattern"])
    for layer, pattern in enumerate(attentions):
        testing.assert_close(run[f"L{layer}.pattern"], pattern, **CLOSE)


def test_a_head_or_a_neuron_is_its_slice(model, tokens):
    run = model.run(tokens, record=["L1H2.z", "L1H3.pattern", "L2N7", "L0H1.k"])
    assert run["L1H2"].shape == (2, 12, 8) and torch.equal(run["L1H2"], run["L1.z"][:, :, 2])
    assert run["L1H3.pattern"].shape == (2, 12, 12) and torch.equal(run["L1H3.pattern"], run["L1.pattern"][:, 3])
    assert run["L2N7"].shape == (2, 12) and torch.equal(run["L2N7"], run["L2.neurons"][:, :, 7])
    assert run["L0H1.k"].shape == (2, 12, 8)


def test_a_stack_has_one_entry_per_recorded_layer_in_order(model, tokens, recorded, family):
    run = model.run(tokens, record=["L2.mlp_out", "L0.mlp_out"])
    assert torch.equal(run.stack("mlp_out"), torch.stack([run["L0.mlp_out"], run["L2.mlp_out"]]))
    assert recorded(family).stack("pattern").shape == (3, 2, 4, 12, 12)


def test_transformer_lens_names_are_understood_in_a_run(model, tokens):
    run = model.run(tokens, record=["blocks.*.attn.hook_z", "blocks.1.hook_resid_post"])
    assert torch.equal(run["blocks.1.attn.hook_z"], run["L1.z"])
    assert run.stack("z").shape[0] == 3 and run["L1.resid_post"].shape == (2, 12, 32)


def test_a_site_asked_for_twice_is_recorded_once(model, tokens):
    run = model.run(tokens, record=["L1.z", "L1H0.z", "L*.z", "embed", "L0.resid_pre"])
    assert sorted(run.recorded) == [("resid_pre", 0), ("z", 0), ("z", 1), ("z", 2)]
    assert run["L1.z"].shape == (2, 12, 4, 8)


def test_attention_is_opened_only_in_the_layers_that_want_it(tiny_model, tokens, monkeypatch):
    from innerworks.model import attention

    opened = []
    monkeypatch.setattr(attention, "repeat_kv", lambda x, groups: opened.append(x.shape) or x.repeat_interleave(groups, dim=1))
    model = tiny_model("llama")
    model.run(tokens, record=["L*.z", "L*.neurons"])
    assert opened == []
    model.run(tokens, record=["L1.pattern"])
    assert len(opened) == 2  # k and v of one layer


@pytest.mark.parametrize(
    ("site", "says"),
    [
        ("L3.z", "3 layers, numbered 0 to 2"),
        ("L0H4.z", "4 heads per layer, numbered 0 to 3"),
        ("L0N48", "48 neurons per layer, numbered 0 to 47"),
        ("L1", "L1 is a layer"),
        ("model", "no activation"),
        ("L1.z.F3", "L1.z.F3"),
        ("L1.resid_pots", "Did you mean resid_post"),
    ],
)
def test_a_place_that_the_model_does_not_have_is_refused(tiny_model, tokens, site, says):
    with pytest.raises(UnknownSite, match=says):
        tiny_model("gpt2").run(tokens, record=[site])
    with pytest.raises(UnknownSite, match=says):
        tiny_model("gpt2").run(tokens, record=["L*.z", site])


def test_logits_are_not_a_thing_to_record(tiny_model, tokens):
    with pytest.raises(UsageError, match="run.logits"):
        tiny_model("gpt2").run(tokens, record=["logits"])


def test_what_was_not_recorded_says_what_was(tiny_model, tokens):
    run = tiny_model("gpt2").run(tokens, record=["L1.z"])
    with pytest.raises(UnknownSite, match=r"L2.z was not recorded in this run \(recorded: L1.z\)"):
        run["L2.z"]
    with pytest.raises(UnknownSite, match=r"L\*.pattern"):
        run.stack("pattern")


def test_a_place_that_never_fires_raises(tiny_hf, tiny_tokenizer, tokens, monkeypatch):
    import innerworks as iw

    model = iw.Model(tiny_hf("gpt2"), tiny_tokenizer)
    monkeypatch.setattr(model.block(1).mlp, "forward", lambda x: model.block(1).mlp.c_fc(x)[..., :32])
    with pytest.raises(UnknownSite, match="L1.neurons never fired"):
        model.run(tokens, record=["L*.neurons"])


def test_text_is_tokenized_padded_and_masked(tiny_model):
    model = tiny_model("llama")
    run = model.run(["the cat sat", "a dog ran on the mat"])
    assert run.tokens.shape == (2, 6) and run.mask.sum(dim=1).tolist() == [3, 6]
    alone = model.run("the cat sat")
    testing.assert_close(run.logits[0, :3], alone.logits[0], **CLOSE)


def test_the_model_says_what_it_is(tiny_model):
    model = tiny_model("llama")
    assert repr(model).startswith("Model('tiny-llama': llama, 3 layers x 4 heads, d_model 32, ")
    a = model.anatomy
    assert (a.layers, a.heads, a.kv_heads, a.d_head, a.d_model, a.neurons, a.vocab) == (3, 4, 2, 8, 32, 48, 320)
    assert a.max_positions == 192 and a.parameters == sum(p.numel() for p in model.hf.parameters())
    assert tiny_model("gpt2").anatomy.kv_heads == 4 and tiny_model("gpt2").anatomy.neurons == 48
