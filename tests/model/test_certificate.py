"""The certificate passes sound models, and each kind of mistake that it is there for fails the right check."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers.masking_utils import causal_mask_function

import innerworks as iw
from families import ALL, MIXTURES, OWN_CODE, PARALLEL
from innerworks.errors import BrokenModel, CertificateFailed, UnsupportedModel
from innerworks.model import adapters, attention, call, certificate, experts
from innerworks.model import run as run_module

CHECKS = {
    "plain": "hooks that do nothing leave the logits bit for bit",
    "opened": "logits with attention and experts opened up",
    "past": "no token changes what comes before it",
    "future": "no query sees the future",
    "rows": "rows of a pattern sum to one",
    "read": "pattern @ v = z",
    "values": "norm(stream) @ W_V + b_V = v",
    "by weights": "pattern @ (norm(stream) @ W_V + b_V) = z",
    "heads": "heads + bias = attention's output",
    "neurons": "neurons through the down projection = feed-forward's output",
    "middle": "stream + attention's output = stream between",
    "after": "stream between + feed-forward's output = stream after",
    "block": "stream + attention's output + feed-forward's output = stream after",
    "total": "everything that was added = the final stream",
    "joined": "stream after a block = stream before the next",
    "final": "norm of the final stream = what is read out",
    "left": "padding on the left changes nothing",
    "right": "padding on the right changes nothing",
    "gradients": "gradients arrive",
}
LEARNED = ("gpt2", "opt", "gpt_neo")  # positions that are added, not rotated by
SEVERAL = ("gpt2", "llama", "qwen2", "gemma2", "gemma3", "opt", "phi", "olmo2", "mixtral")
SLIDING = ("mistral", "qwen2", "gemma2", "gemma3_text", "gemma3", "phi3", "starcoder2", "mixtral")
EVERYWHERE = ("plain", "opened", "past", "future", "rows", "heads", "neurons", "joined", "left", "right", "gradients")


def refuses(hf, *checks):
    """Wrapping fails, and the message names these checks, each with its numbers."""
    with pytest.raises(CertificateFailed) as caught:
        iw.Model(hf, None, name="broken")
    assert "broken fails" in str(caught.value)
    for check in checks:
        assert caught.match(re.escape(CHECKS[check]) + r": off by \S+, allowed \S+")
    failed = {check.what for check in caught.value.certificate.failed}
    assert failed >= {CHECKS[check] for check in checks}


@pytest.mark.parametrize("family", ALL)
def test_a_sound_model_passes_every_check_and_what_is_left_out_is_named(tiny_model, family):
    model = tiny_model(family)
    found = model.certificate
    assert found.dtype == "float32" and found.model == model.name
    own, sums = family in OWN_CODE, family != "opt-post-norm"
    expected = [*EVERYWHERE, *(["by weights"] if own else ["read", "values"]), *(["total", "final"] if sums else [])]
    expected += ["block"] if family in PARALLEL else ["middle", "after"] if sums else []
    assert sorted(check.what for check in found.checks) == sorted(CHECKS[check] for check in expected)
    assert all(check.passed for check in found.checks) and found.failed == ()
    exact = ("plain", "future", "middle", "after", "joined", "gradients")
    assert {check.what for check in found.checks if check.allowed == 0} == {CHECKS[check] for check in exact if check in expected}
    assert all(check.difference <= check.allowed / 10 for check in found.checks)  # room to spare, so the tolerance hides nothing
    assert len(found.left_out) == own + 2 * (not sums)
    assert sums or any("no final norm" in one for one in found.left_out)
    assert not own or any("its attention code is its own" in one for one in found.left_out)
    assert sums or any("normed after each addition" in one for one in found.left_out)
    assert [one["what"] for one in found.as_dict()["checks"]] == [check.what for check in found.checks]


@pytest.mark.parametrize("family", [name for name in ALL if name not in (*MIXTURES, "gemma2", "bloom")])
def test_a_sound_model_passes_in_double_precision(tiny_hf, family):
    assert iw.Model(tiny_hf(family).double(), None).certificate.dtype == "float64"


@pytest.mark.parametrize("family", ["gemma2", "bloom"])
def test_eager_attention_that_makes_no_numbers_of_padding_in_double_precision_is_caught(tiny_hf, family):
    """Transformers puts float64's lowest number at masked scores and takes their softmax in float32, where that is infinite."""
    refuses(tiny_hf(family).double(), "left")


@pytest.mark.parametrize("family", ALL)
def test_a_model_as_transformers_initialises_it_passes(tiny_hf, family):
    iw.Model(tiny_hf(family, initializer_range=0.02), None)


@pytest.mark.parametrize("spread", [0.2, 0.02], ids=["wide weights", "weights as initialised"])
class TestAMistakeIsCaught:
    """On models with weights of ordinary size, and on one fresh from initialisation, whose activations are small."""

    @pytest.fixture
    def hf(self, tiny_hf, spread):
        return lambda family, **options: _shrunk(tiny_hf(family, **options), spread / 0.2)

    @pytest.mark.parametrize("family", SEVERAL)
    def test_a_dropped_causal_mask(self, hf, family, monkeypatch):
        mask = attention.sdpa_mask
        monkeypatch.setattr(attention, "sdpa_mask", lambda *args, **kwargs: torch.ones_like(mask(*args, **kwargs)))
        refuses(hf(family), "future", "opened")

    @pytest.mark.parametrize("family", SEVERAL)
    def test_a_causal_mask_dropped_where_nothing_is_asked_of_attention(self, hf, family, monkeypatch):
        plain = attention._plain

        def unmasked(base, module, query, key, value, mask, **kwargs):
            seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool)[None, None].expand(len(query), 1, -1, -1)
            return plain(base, module, query, key, value, seen, **kwargs)

        monkeypatch.setattr(attention, "_plain", unmasked)
        refuses(hf(family), "plain", "opened", "past")

    @pytest.mark.parametrize("base", attention.BASES)
    def test_a_mask_function_that_was_never_registered(self, hf, base, monkeypatch):
        masks = attention.AttentionMaskInterface
        monkeypatch.setattr(masks, "register", lambda *_: None)
        monkeypatch.delitem(masks._global_mapping, f"innerworks_{base}", raising=False)
        llama = hf("llama")
        llama.set_attn_implementation(base)
        with pytest.raises(UnsupportedModel, match="LlamaAttention gives its attention no mask"):
            iw.Model(llama, None)

    @pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neo", "gptj", "falcon"])
    def test_forgotten_position_ids(self, hf, family, monkeypatch):
        monkeypatch.setattr(call, "position_ids", lambda mask: torch.arange(mask.shape[1]).expand(mask.shape))
        refuses(hf(family), "left") if family in LEARNED else iw.Model(hf(family), None)  # a rotation knows distances only

    def test_position_ids_that_are_not_handed_on(self, hf, monkeypatch):
        gpt2 = hf("gpt2")
        forward = gpt2.transformer.forward
        monkeypatch.setattr(gpt2.transformer, "forward", lambda *args, position_ids=None, **rest: forward(*args, **rest))
        refuses(gpt2, "left")

    @pytest.mark.parametrize("family", [*SEVERAL, *OWN_CODE])
    def test_a_padding_mask_that_never_arrives(self, hf, family, monkeypatch):
        decode = run_module._decode
        monkeypatch.setattr(
            run_module,
            "_decode",
            lambda model, tokens, mask, *rest: decode(model, tokens, torch.ones_like(mask), *rest),
        )
        refuses(hf(family), "left")

    @pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi", "phi3", "mixtral"])
    def test_swapped_groups_of_shared_keys(self, hf, family, monkeypatch):
        monkeypatch.setattr(attention, "repeat_kv", lambda x, groups: x.repeat(1, groups, 1, 1))
        refuses(hf(family), "opened", "values")

    @pytest.mark.parametrize("family", ["llama", "gemma2", "phi"])
    def test_keys_alone_repeated_in_the_wrong_order(self, hf, family, monkeypatch):
        sound, calls = attention.repeat_kv, []

        def keys_swapped(x, groups):
            calls.append(groups)
            return x.repeat(1, groups, 1, 1) if len(calls) % 2 else sound(x, groups)

        monkeypatch.setattr(attention, "repeat_kv", keys_swapped)
        refuses(hf(family), "opened")

    @pytest.mark.parametrize("opened", [True, False])
    def test_a_forgotten_scale(self, hf, opened, monkeypatch):
        name = "_opened" if opened else "_plain"
        sound = getattr(attention, name)
        monkeypatch.setattr(attention, name, lambda *args, scaling, **rest: sound(*args, scaling=None, **rest))
        refuses(hf("gpt2-inverse-layer"), "opened", *([] if opened else ["plain"]))

    def test_a_forgotten_scale_of_the_familys_own(self, hf, monkeypatch):
        opened = attention._opened
        monkeypatch.setattr(attention, "_opened", lambda *args, scaling, **rest: opened(*args, **rest))
        refuses(hf("gemma2", query_pre_attn_scalar=48), "opened")

    def test_a_forgotten_cap_on_scores(self, hf, spread, monkeypatch):
        opened = attention._opened
        monkeypatch.setattr(attention, "_opened", lambda *args, softcap, **rest: opened(*args, **rest))
        refuses(hf("gemma2", attn_logit_softcapping=2.0 if spread == 0.2 else 0.05), "opened")

    def test_a_forgotten_cap_on_logits(self, hf, monkeypatch):
        misread(monkeypatch, "gemma2", softcap=None)
        refuses(hf("gemma2"), "plain")

    def test_a_cap_on_logits_that_the_model_does_not_apply(self, hf, monkeypatch):
        misread(monkeypatch, "gemma3", softcap="final_logit_softcapping")
        refuses(hf("gemma3", final_logit_softcapping=3.0), "plain")

    @pytest.mark.parametrize("family", SLIDING)
    def test_a_sliding_window_ignored_where_attention_is_opened_up(self, hf, family, monkeypatch):
        mask = attention.sdpa_mask
        monkeypatch.setattr(
            attention, "sdpa_mask", lambda *args, **rest: mask(*args, **{**rest, "mask_function": causal_mask_function})
        )
        refuses(hf(family), "opened")

    @pytest.mark.parametrize("family", SLIDING)
    def test_a_sliding_window_longer_than_the_probe_is_tested_nonetheless(self, hf, family, monkeypatch):
        mask = attention.sdpa_mask
        monkeypatch.setattr(
            attention, "sdpa_mask", lambda *args, **rest: mask(*args, **{**rest, "mask_function": causal_mask_function})
        )
        refuses(hf(family, sliding_window=4096), "opened")

    @pytest.mark.parametrize("family", MIXTURES)
    def test_forgotten_routing_weights(self, hf, family, monkeypatch):
        opened = experts._opened
        monkeypatch.setattr(experts, "_opened", lambda *args: opened(*args[:-1], torch.ones_like(args[-1])))
        refuses(hf(family), "opened", "neurons")

    @pytest.mark.parametrize("family", MIXTURES)
    def test_experts_in_the_wrong_order(self, hf, family, monkeypatch):
        opened = experts._opened
        monkeypatch.setattr(experts, "_opened", lambda *args: opened(*args[:-2], (args[-2] + 1) % 4, args[-1]))
        refuses(hf(family), "opened", "neurons")

    @pytest.mark.parametrize(
        ("family", "wrong", "checks"),
        [
            ("llama", {"attention_out": "self_attn.q_proj"}, ["read", "heads"]),
            ("llama", {"mlp_added": "self_attn"}, ["after", "neurons"]),
            ("llama", {"attention_added": "mlp"}, ["heads", "middle"]),
            ("llama", {"mlp_norm": "input_layernorm"}, ["middle", "after"]),
            ("llama", {"attention_norm": "post_attention_layernorm"}, ["values"]),
            ("llama", {"value": "self_attn.k_proj"}, ["values"]),
            ("llama", {"final_norm": "model.layers.2.input_layernorm"}, ["final"]),
            ("gpt2", {"final_norm": "transformer.h.0.ln_1"}, ["final"]),
            ("gpt2", {"mlp_added": "ln_2"}, ["after", "neurons"]),
            ("gpt2", {"mlp_norm": "ln_1"}, ["middle", "after"]),
            ("gpt2", {"fused_order": "groups"}, ["values"]),
            ("gpt_neox", {"fused_order": "blocks"}, ["values"]),
            ("phi3", {"fused_order": "groups"}, ["values"]),
            ("gptj", {"value": "attn.k_proj"}, ["by weights"]),
            ("gpt_neo", {"attention_norm": "ln_2"}, ["by weights"]),
            ("bloom", {"fused_order": "blocks"}, ["by weights"]),
            ("falcon", {"attention_norm": None}, ["by weights"]),
            ("falcon-new", {"fused_order": "blocks"}, ["by weights"]),
            ("gpt_neox", {"parallel": lambda config: False}, ["middle"]),
            ("phi", {"attention_added": "mlp", "mlp_added": "self_attn"}, ["heads", "neurons"]),
            # raw outputs instead of what is added, and additions that are taken for raw outputs
            ("gemma2", {"attention_added": "self_attn", "post_norms": False}, ["middle", "total", "neurons"]),
            ("gemma3_text", {"mlp_added": "mlp", "post_norms": False}, ["after", "total", "heads"]),
            ("olmo2", {"attention_added": "self_attn", "mlp_added": "mlp", "post_norms": False}, ["middle", "after", "total"]),
            ("bloom", {"attention_added": "self_attention"}, ["heads", "middle", "total"]),
            ("bloom", {"mlp_added": "mlp"}, ["neurons", "after", "total"]),
            ("falcon-sequential", {"mlp_added": "mlp.act"}, None),
            # a post-norm that is forgotten
            ("gemma2", {"post_norms": False}, ["heads", "neurons"]),
            ("gemma3_text", {"post_norms": False}, ["heads", "neurons"]),
            ("olmo2", {"post_norms": False}, ["heads", "neurons"]),
            # what falcon's parallel blocks add to in place
            ("falcon", {"modified_in_place": ()}, ["neurons", "block", "total"]),
            ("falcon-new", {"modified_in_place": ()}, ["neurons", "block", "total"]),
            # a stream that is normed after each addition
            ("opt-post-norm", {"post_layer_norm": lambda config: False}, ["middle", "total"]),
        ],
    )
    def test_an_adapter_that_names_the_wrong_module(self, hf, monkeypatch, family, wrong, checks):
        misread(monkeypatch, family, **wrong)
        if checks is None:  # it does not even have the shape of a stream
            with pytest.raises((CertificateFailed, RuntimeError)):
                iw.Model(hf(family), None)
        else:
            refuses(hf(family), *checks)

    @pytest.mark.parametrize("family", ["gemma2", "olmo2"])
    def test_a_module_taken_for_a_post_norm(self, hf, monkeypatch, family):
        misread(monkeypatch, family, attention_added="self_attn")
        with pytest.raises(UnsupportedModel, match="Attention is neither a LayerNorm nor an RMSNorm"):
            iw.Model(hf(family), None)

    def test_attention_taken_before_something_that_is_added_to_the_stream_with_it(self, hf, monkeypatch):
        gpt2 = hf("gpt2")
        for block in gpt2.transformer.h:  # a family that doubles what its projection puts out
            block.attn.resid_dropout = _Doubled()
        misread(monkeypatch, "gpt2", attention_added="attn.c_proj")
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


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "bloom"])
def test_gradients_that_do_not_arrive(tiny_hf, monkeypatch, family):
    decode = run_module._decode

    def cut(*args):
        with torch.no_grad():
            final = decode(*args)
        return final.requires_grad_()

    monkeypatch.setattr(run_module, "_decode", cut)
    with pytest.raises(CertificateFailed, match=CHECKS["gradients"]):
        iw.Model(tiny_hf(family), None)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gptj"])
def test_in_every_precision_a_sound_model_passes_and_heads_in_the_wrong_order_are_caught(tiny_hf, monkeypatch, family, dtype):
    hf = tiny_hf(family).to(dtype)
    iw.Model(hf, None)
    from innerworks.model import weights

    sound = weights.Weights.W_O
    monkeypatch.setattr(weights.Weights, "W_O", lambda self, layer: sound(self, layer).flip(0))
    refuses(hf, "heads")


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


@pytest.mark.parametrize(
    ("family", "one"),
    [("llama", {"num_hidden_layers": 1}), ("gpt2", {"n_layer": 1}), ("phi", {"num_hidden_layers": 1}), ("bloom", {"n_layer": 1})],
)
def test_a_model_of_one_layer_passes(tiny_hf, family, one):
    assert iw.Model(tiny_hf(family, **one), None).certificate is not None


@pytest.mark.parametrize("weights", ["lm_head", "model.layers.1.mlp", "model.embed_tokens"])
def test_a_model_with_weights_that_were_never_loaded_is_refused(tiny_hf, weights):
    """Multiplied by weights that lie nowhere, tensors become whatever was in memory: zeros would pass every comparison."""
    hf = tiny_hf("llama", tie_word_embeddings=False)
    hf.get_submodule(weights).to("meta")
    with pytest.raises(BrokenModel, match=rf"never loaded.*: {weights}\.\w+"):
        iw.Model(hf, None)


def test_weights_that_are_offloaded_and_fetched_when_needed_are_no_obstacle(tiny_hf, tokens):
    from accelerate import cpu_offload

    plain = tiny_hf("llama", tie_word_embeddings=False)
    hf = cpu_offload(tiny_hf("llama", tie_word_embeddings=False), execution_device=torch.device("cpu"))
    assert any(weight.device.type == "meta" for weight in hf.parameters())
    model = iw.Model(hf, None)
    with torch.no_grad():
        assert torch.equal(model.run(tokens).logits, plain(input_ids=tokens, use_cache=False).logits)


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


def misread(monkeypatch, family, **wrong):
    """Let the adapter of a family say something else."""
    name = family.partition("-")[0]
    monkeypatch.setitem(adapters.FAMILIES, name, replace(adapters.FAMILIES[name], **wrong))


def _shrunk(hf, factor):
    """Make every weight but the norms' smaller, as far as a fresh model's are."""
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            if "ln_" not in name and "norm" not in name:
                weight *= factor
    return hf
