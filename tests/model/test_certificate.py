"""The certificate passes sound models, and each kind of mistake that it is there for fails the right check."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import innerworks as iw
from innerworks.errors import BrokenModel, CertificateFailed, UnsupportedModel
from innerworks.model import adapters, attention, certificate
from innerworks.model import run as run_module

CHECKS = {
    "plain": "hooks that do nothing leave the logits bit for bit",
    "opened": "logits with attention opened up",
    "future": "no query sees the future",
    "rows": "rows of a pattern sum to one",
    "read": "pattern @ v = z",
    "heads": "heads \\+ bias = attention's output",
    "neurons": "neurons through the down projection = feed-forward's output",
    "middle": "stream \\+ attention's output = stream between",
    "after": "stream between \\+ feed-forward's output = stream after",
    "joined": "stream after a block = stream before the next",
    "left": "padding on the left changes nothing",
    "right": "padding on the right changes nothing",
    "gradients": "gradients arrive",
}


def refuses(hf, *checks):
    """Wrapping fails, and the message names these checks, each with its numbers."""
    with pytest.raises(CertificateFailed) as caught:
        iw.Model(hf, None, name="broken")
    assert "broken fails" in str(caught.value)
    for check in checks:
        assert caught.match(CHECKS[check] + r": off by \S+, allowed \S+")


def test_a_sound_model_passes_every_check(model):
    found = model.certificate
    assert found.dtype == "float32" and found.model == model.name
    assert all(check.passed for check in found.checks)
    assert len(found.as_dict()["checks"]) == len(CHECKS)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_a_sound_model_passes_in_any_precision(tiny_hf, family, dtype):
    assert iw.Model(tiny_hf(family).to(getattr(torch, dtype)), None).certificate.dtype == dtype


def test_a_model_as_transformers_initialises_it_passes(tiny_hf, family):
    iw.Model(tiny_hf(family, initializer_range=0.02), None)


@pytest.mark.parametrize("spread", [0.2, 0.02], ids=["wide weights", "weights as initialised"])
class TestAMistakeIsCaught:
    """On models with weights of ordinary size, and on one fresh from initialisation, whose activations are small."""

    @pytest.fixture
    def hf(self, tiny_hf, spread):
        return lambda family: _shrunk(tiny_hf(family), spread / 0.2)

    @pytest.mark.parametrize("family", ["gpt2", "llama"])
    def test_a_dropped_causal_mask(self, hf, family, monkeypatch):
        mask = attention.sdpa_mask
        monkeypatch.setattr(attention, "sdpa_mask", lambda *args, **kwargs: torch.ones_like(mask(*args, **kwargs)))
        refuses(hf(family), "future")

    def test_a_mask_function_that_was_never_registered(self, hf, monkeypatch):
        masks = attention.AttentionMaskInterface
        monkeypatch.setattr(masks, "register", lambda *_: None)
        monkeypatch.delitem(masks._global_mapping, "innerworks_sdpa", raising=False)
        with pytest.raises((CertificateFailed, AssertionError)):
            iw.Model(hf("llama"), None)

    def test_forgotten_position_ids(self, hf, monkeypatch):
        forward = run_module._forward

        def forgetful(model, tokens, mask, position_ids, logits):
            return forward(model, tokens, mask, torch.arange(tokens.shape[1]).expand_as(tokens), logits)

        monkeypatch.setattr(run_module, "_forward", forgetful)
        refuses(hf("gpt2"), "left")

    def test_a_padding_mask_that_never_arrives(self, hf, monkeypatch):
        forward = run_module._forward
        monkeypatch.setattr(
            run_module,
            "_forward",
            lambda model, tokens, mask, *rest: forward(model, tokens, torch.ones_like(mask), *rest),
        )
        refuses(hf("llama"), "left")

    def test_swapped_groups_of_shared_keys(self, hf, monkeypatch):
        monkeypatch.setattr(attention, "repeat_kv", lambda x, groups: x.repeat(1, groups, 1, 1))
        refuses(hf("llama"), "opened")

    @pytest.mark.parametrize("opened", [True, False])
    def test_a_forgotten_scale(self, hf, opened, monkeypatch):
        sound = attention._attention

        def unscaled(module, query, *args, scaling, **rest):
            call = attention.current()
            forgets = (call is not None and call.opens(module.layer_idx)) == opened
            return sound(module, query, *args, scaling=query.shape[-1] ** -0.5 if forgets else scaling, **rest)

        monkeypatch.setattr(attention, "_attention", unscaled)
        monkeypatch.setitem(attention.AttentionInterface._global_mapping, "innerworks_sdpa", unscaled)
        refuses(hf("gpt2-inverse-layer"), "opened", *([] if opened else ["plain"]))

    @pytest.mark.parametrize(
        ("family", "wrong", "checks"),
        [
            ("llama", {"attention_out": "self_attn.q_proj"}, ["read", "heads"]),
            ("llama", {"mlp": "self_attn"}, ["after", "neurons"]),
            ("llama", {"attention": "mlp"}, ["heads", "middle"]),
            ("llama", {"mlp_norm": "input_layernorm"}, ["middle", "after"]),
            ("gpt2", {"mlp": "ln_2"}, ["after", "neurons"]),
            ("gpt2", {"mlp_norm": "ln_1"}, ["middle", "after"]),
        ],
    )
    def test_an_adapter_that_names_the_wrong_module(self, hf, monkeypatch, family, wrong, checks):
        monkeypatch.setitem(adapters.FAMILIES, family, replace(adapters.FAMILIES[family], **wrong))
        refuses(hf(family), *checks)

    def test_attention_taken_before_something_that_is_added_to_the_stream_with_it(self, hf, monkeypatch):
        gpt2 = hf("gpt2")
        for block in gpt2.transformer.h:  # a family that doubles what its projection puts out
            block.attn.resid_dropout = _Doubled()
        monkeypatch.setitem(adapters.FAMILIES, "gpt2", replace(adapters.FAMILIES["gpt2"], attention="attn.c_proj"))
        refuses(gpt2, "middle")

    @pytest.mark.parametrize(
        ("module", "checks"),
        [("", ["after"]), (".attn.c_proj", ["heads"]), (".mlp", ["neurons"]), (".ln_2", ["middle"])],
    )
    def test_a_hook_left_behind_that_changes_something(self, hf, module, checks):
        gpt2 = hf("gpt2")
        block = gpt2.get_submodule(f"transformer.h.1{module}")
        if module == ".ln_2":
            block.register_forward_pre_hook(lambda module, args: (1.1 * args[0],))
        else:
            block.register_forward_hook(lambda module, args, out: 1.1 * out)
        refuses(gpt2, *checks)


def test_gradients_that_do_not_arrive(tiny_hf, monkeypatch):
    forward = run_module._forward

    def cut(model, *rest):
        with torch.no_grad():
            final, scores = forward(model, *rest)
        return final, scores.requires_grad_() if scores is not None else None

    monkeypatch.setattr(run_module, "_forward", cut)
    with pytest.raises(CertificateFailed, match=CHECKS["gradients"]):
        iw.Model(tiny_hf("gpt2"), None)


def test_numbers_that_are_not_numbers_fail(tiny_hf):
    probe = certificate._Probe(iw.Model(tiny_hf("gpt2"), None))
    nan = torch.tensor([[float("nan")]])
    assert probe.relative((nan, torch.zeros(1, 1))) == float("inf")
    assert not certificate.Check(what="anything", difference=float("nan"), allowed=1.0).passed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(tiny_hf, value):
    hf = tiny_hf("llama")
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.weight[3, 5] = value
    with pytest.raises(BrokenModel, match="model.layers.1.mlp.down_proj.weight"):
        iw.Model(hf, None)


def test_many_broken_weights_are_counted(tiny_hf):
    hf = tiny_hf("gpt2")
    with torch.no_grad():
        for weight in hf.parameters():
            weight.fill_(float("nan"))
    with pytest.raises(BrokenModel, match=r"transformer.wte.weight, .* and \d+ more"):
        iw.Model(hf, None)


def test_a_certificate_can_be_left_out(tiny_hf):
    assert iw.Model(tiny_hf("gpt2"), None, certified=False).certificate is None


def test_a_context_shorter_than_the_probe_is_no_obstacle(tiny_hf):
    assert iw.Model(tiny_hf("gpt2", n_positions=10), None).anatomy.max_positions == 10


def test_wrapping_twice_is_wrapping_once(tiny_hf, tokens):
    hf = tiny_hf("llama")
    first, second = iw.Model(hf, None), iw.Model(hf, None)
    assert torch.equal(first.run(tokens).logits, second.run(tokens).logits)


def test_a_model_loaded_with_eager_attention_is_refused_with_the_remedy_and_served_after_it(tiny_hf, tokens, recorded):
    hf = tiny_hf("llama", attn_implementation="eager")
    with pytest.raises(UnsupportedModel, match=r"attn_implementation='eager'.*hf.set_attn_implementation\('sdpa'\)"):
        iw.Model(hf, None)
    hf.set_attn_implementation("sdpa")
    assert torch.equal(iw.Model(hf, None).run(tokens).logits, recorded("llama", opened=False).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_in_every_precision_a_sound_model_passes_and_heads_in_the_wrong_order_are_caught(tiny_hf, monkeypatch, family, dtype):
    hf = tiny_hf(family).to(dtype)
    iw.Model(hf, None)
    from innerworks.model import weights

    sound = weights.W_O
    monkeypatch.setattr(weights, "W_O", lambda model, layer: sound(model, layer).flip(0))
    refuses(hf, "heads")


def test_attention_that_keeps_its_probabilities_to_itself_is_refused(tiny_hf):
    hf = tiny_hf("llama")
    hf.config._attn_implementation = "flex_attention"
    with pytest.raises(UnsupportedModel, match="attn_implementation='flex_attention'"):
        iw.Model(hf, None)


def test_differences_are_relative_to_each_layers_own_size(tiny_hf):
    probe = certificate._Probe(iw.Model(tiny_hf("gpt2"), None))
    theirs = torch.tensor([[3.0, 4.0], [3e-3, 4e-3], [0.0, 0.0]])
    assert probe.relative((theirs, theirs)) == 0
    assert probe.relative((theirs + torch.tensor([[0.0], [1e-3], [0.0]]), theirs)) == pytest.approx(2**0.5 / 5)
    assert probe.relative((theirs + torch.tensor([[0.0], [0.0], [1e-3]]), theirs)) == pytest.approx(2**0.5 * 1e-3)


def test_a_stream_that_changes_between_blocks_is_caught(tiny_hf):
    hf = tiny_hf("gpt2")
    hf.transformer.h[1].register_forward_pre_hook(lambda module, args: (1.1 * args[0], *args[1:]))
    refuses(hf, "joined")


def test_a_model_of_one_layer_passes(tiny_hf):
    assert iw.Model(tiny_hf("llama", num_hidden_layers=1), None).certificate is not None


def test_a_model_that_lies_on_several_devices_or_nowhere_is_refused(tiny_hf):
    hf = tiny_hf("llama")
    hf.lm_head.to("meta")
    with pytest.raises(UnsupportedModel, match="lies on .*meta.*: one device is needed"):
        iw.Model(hf, None)


def test_a_quantised_model_is_refused(tiny_hf):
    hf = tiny_hf("llama")
    hf.config.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(UnsupportedModel, match="LlamaForCausalLM is quantised"):
        iw.Model(hf, None)


def test_a_wrapped_model_can_generate_and_be_saved_as_before(tiny_hf, tokens, tmp_path):
    from transformers import AutoModelForCausalLM

    hf = tiny_hf("llama")
    ask = dict(max_new_tokens=5, do_sample=False, pad_token_id=1, attention_mask=torch.ones_like(tokens))
    before = hf.generate(tokens, **ask)
    iw.Model(hf, None)
    assert torch.equal(hf.generate(tokens, **ask), before)
    hf.save_pretrained(tmp_path)
    assert "innerworks" not in (tmp_path / "config.json").read_text()
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path).generate(tokens, **ask), before)


class _Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def _shrunk(hf, factor):
    """Make every weight but the norms' smaller, as far as a fresh model's are."""
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            if "ln_" not in name and "norm" not in name:
                weight *= factor
    return hf
