"""Every family: hooks change nothing, every site is there or says why not, and what cannot be right is refused by name."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn, testing

import families
import innerworks as iw
from families import ALL, MIXTURES, OWN_CODE, PARALLEL, VOCAB, WINDOW
from innerworks.errors import CertificateFailed, UnknownSite, UnsupportedModel, UsageError
from innerworks.model import ablate, adapters, attention, knockout, patch, scale, steer
from innerworks.model.adapters import FAMILIES, described
from innerworks.model.adapters.adapter import Adapter, causal_families
from innerworks.model.anatomy import every_module
from innerworks.model.certificate import Certificate, check
from innerworks.sites import INPUTS, KINDS, LAYER_KINDS, Site

LENGTH = 20  # well beyond the sliding windows of six tokens
REGISTRY = tuple(name for name in ALL if name not in OWN_CODE)
EVERY_KIND = [kind for kind in LAYER_KINDS if kind not in INPUTS]
INSIDE = ("q", "k", "v", "scores", "pattern", "expert_neurons")  # what is only seen of a computation opened up
PAGE = Path(__file__).parents[2] / "docs" / "families.md"

every_family = pytest.mark.parametrize("family", ALL)


@pytest.fixture(scope="session")
def text():
    """Two sequences of 20 token ids."""
    return torch.randint(2, VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="session")
def masks():
    """`whole`, and the second sequence cut to 13 tokens, padded on the left or on the right."""
    place = torch.arange(LENGTH)
    real = {"whole": place >= 0, "left": place >= LENGTH - 13, "right": place < 13}
    return {side: torch.stack([place >= 0, one]) for side, one in real.items()}


@pytest.fixture(scope="session")
def theirs(text, masks):
    """`theirs("llama", "left")`: logits of a Hugging Face model that innerworks never touched."""
    logits = {}

    def look(family, side="whole"):
        if family not in logits:
            hf = families.build(family)
            with torch.no_grad():
                logits[family] = {one: _logits(hf, text, mask) for one, mask in masks.items()}
        return logits[family][side]

    return look


def _logits(hf, tokens, mask):
    places = [[max(0, sum(row[: i + 1]) - 1) for i in range(len(row))] for row in mask.tolist()]
    return hf(input_ids=tokens, attention_mask=mask.long(), position_ids=torch.tensor(places), use_cache=False).logits


def everything(model, kinds=EVERY_KIND):
    return [site for kind in kinds for site in model.sites(kind)]


def off(ours, theirs):
    """The norm of the difference, relative to the norm of what is compared."""
    return float((ours - theirs).norm() / theirs.norm())


# --- what runs is the model itself -------------------------------------------------------------------------------


def test_every_family_is_among_the_tiny_models():
    assert {name.partition("-")[0] for name in ALL} == set(FAMILIES)
    assert len(FAMILIES) == 23 and set(FAMILIES) <= {*causal_families(), "gemma3", "gemma3_text"}


@every_family
@pytest.mark.parametrize("side", ["whole", "left", "right"])
def test_logits_are_bit_for_bit_those_of_the_plain_model(tiny_model, text, masks, theirs, family, side):
    model = tiny_model(family)
    outside = everything(model, [kind for kind in EVERY_KIND if kind not in INSIDE])
    for record in ([], outside):
        assert torch.equal(model.run(text, mask=masks[side], record=record).logits, theirs(family, side))


@every_family
@pytest.mark.parametrize("side", ["whole", "left", "right"])
def test_with_every_site_recorded_logits_are_those_of_the_plain_model(tiny_model, text, masks, theirs, family, side):
    model, mask = tiny_model(family), masks[side]
    run = model.run(text, mask=mask, record=[*everything(model), "embed"])
    assert off(run.logits[mask], theirs(family, side)[mask]) < 1e-5


@every_family
def test_a_wrapped_model_called_by_others_computes_what_it_did(tiny_model, text, theirs, family):
    with torch.no_grad():
        assert torch.equal(tiny_model(family).hf(input_ids=text, use_cache=False).logits, theirs(family))


@every_family
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_sequence_is_as_if_it_were_alone(tiny_model, text, masks, family, side):
    model, mask = tiny_model(family), masks[side]
    record = everything(model)
    together, alone = model.run(text, mask=mask, record=record), model.run(text[1:, mask[1]], record=record)
    assert off(together.logits[1, mask[1]], alone.logits[0]) < 1e-5
    for site in record:
        axes = KINDS[Site.parse(site).activation][0][1:]
        ours, real = together[site][1], mask[1]
        ours = ours.index_select(axes.index("seq"), real.nonzero()[:, 0])
        if "key" in axes:
            assert site.endswith("scores") or ours[..., ~real].abs().max() == 0
            ours = ours[..., real]
        testing.assert_close(ours, alone[site][0], atol=2e-5, rtol=1e-4, msg=lambda said, site=site: f"{site}: {said}")


# --- every kind of site, or why not ------------------------------------------------------------------------------

LACKING = {
    **{kind: OWN_CODE for kind in ("q", "k", "v", "scores", *INPUTS)},
    "resid_mid": (*PARALLEL, "opt-post-norm"),
    "neurons": ("mixtral", "qwen3_moe"),
    "expert_neurons": tuple(name for name in ALL if name != "mixtral"),
    "attn_norm_scale": ("olmo2", "opt-post-norm"),
    "mlp_norm_scale": ("olmo2", "opt-post-norm", "phi", "phi-query-norm", "stablelm-parallel", "gptj", "falcon"),
}
REASONS = {
    "resid_mid": r"Use resid_pre",
    "neurons": r"mixture of experts. Use L\d.expert_neurons or L\dE0N0",
    "expert_neurons": r"no mixture of experts. Use L\d.neurons or L\dN0",
    "attn_norm_scale": "reads the stream without a norm",
    "mlp_norm_scale": "reads the stream without a norm|reads what attention's norm returns. Use attn_norm_scale",
    **{
        kind: "computes attention in code of its own, which shows z and the pattern only"
        for kind in ("q", "k", "v", "scores", *INPUTS)
    },
}


@every_family
def test_every_kind_has_the_shape_that_sites_promise_or_says_why_it_is_not_there(tiny_model, text, family):
    model = tiny_model(family)
    a = model.anatomy
    sizes = dict(batch=2, seq=LENGTH, key=LENGTH, head=a.heads, d_head=a.d_head, d_model=a.d_model, expert=a.experts)
    for kind in LAYER_KINDS:
        lacking = {layer for layer in range(a.layers) if model.lacks(kind, layer) is not None}
        if family == "qwen3_moe" and kind in ("neurons", "expert_neurons"):
            assert lacking == ({0, 2} if kind == "neurons" else {1})
        else:
            assert lacking == (set(range(a.layers)) if family in LACKING.get(kind, ()) else set()), kind
        assert model.sites(kind) == [f"L{layer}.{kind}" for layer in range(a.layers) if layer not in lacking]
        for layer in lacking:
            with pytest.raises(UnknownSite, match=rf"L{layer}.{kind} is not in tiny-{family}: .*({REASONS[kind]})"):
                model.run(text, record=[f"L{layer}.{kind}"])
            with pytest.raises(UnknownSite, match=f"L{layer}.{kind}"):
                model.run(text, edit=[scale(f"L{layer}.{kind}", 2.0)])
        if kind in INPUTS:
            continue
        sizes["neuron"] = a.expert_neurons if kind == "expert_neurons" else a.neurons
        run = model.run(text, record=model.sites(kind), logits="none")
        for site in model.sites(kind):
            assert run[site].shape == tuple(sizes[axis] for axis in KINDS[kind][0]), site
            assert run[site].isfinite().all() and run[site].std() > 0


@every_family
def test_what_a_head_reads_is_edited_and_not_recorded(tiny_model, text, family):
    model = tiny_model(family)
    if family in OWN_CODE:
        return  # there is none: said in the test above
    for kind in INPUTS:
        with pytest.raises(UsageError, match=rf"L1.{kind} is only edited.*L1.resid_pre"):
            model.run(text, record=[f"L1.{kind}"])


@every_family
def test_the_embedding_the_final_scale_and_the_logits(tiny_model, text, family):
    model = tiny_model(family)
    assert model.run(text, record=["embed"])["embed"].shape == (2, LENGTH, model.anatomy.d_model)
    if family == "opt-post-norm":
        with pytest.raises(UnknownSite, match="no final norm"):
            model.run(text, record=["norm_scale"])
    else:
        assert model.run(text, record=["norm_scale"])["norm_scale"].shape == (2, LENGTH)
    assert model.run(text).logits.shape == (2, LENGTH, VOCAB)


@every_family
def test_a_head_an_expert_or_a_neuron_is_its_slice(tiny_model, text, family):
    model = tiny_model(family)
    last = model.anatomy.layers - 1
    run = model.run(text, record=[f"L{last}H2.z", f"L{last}H3.pattern"])
    assert torch.equal(run[f"L{last}H2"], run[f"L{last}.z"][:, :, 2])
    assert torch.equal(run[f"L{last}H3.pattern"], run[f"L{last}.pattern"][:, 3])
    if family in MIXTURES:
        run = model.run(text, record=[f"L{last}E1N7", f"L{last}E2.expert_neurons"])
        assert torch.equal(run[f"L{last}E1N7"], run[f"L{last}.expert_neurons"][:, :, 1, 7])
        assert torch.equal(run[f"L{last}E2.expert_neurons"], run[f"L{last}.expert_neurons"][:, :, 2])
        for site, says in ((f"L{last}E4N0", "4 experts per layer"), (f"L{last}E0N99", r"\d+ neurons per expert")):
            with pytest.raises(UnknownSite, match=says):
                model.run(text, record=[site])
    else:
        assert torch.equal(model.run(text, record=[f"L{last}N7"])[f"L{last}N7"], _neurons(model, text, last)[..., 7])
        with pytest.raises(UnknownSite, match=r"no mixture of experts. Use"):
            model.run(text, record=[f"L{last}E0N0"])


def _neurons(model, text, layer):
    return model.run(text, record=[f"L{layer}.neurons"])[f"L{layer}.neurons"]


# --- afterwards the model is what it was -------------------------------------------------------------------------


@every_family
def test_after_runs_edits_and_failures_the_model_is_bit_for_bit_what_it_was(tiny_model, text, theirs, family, assert_untouched):
    model = tiny_model(family)
    edits = [ablate("L1.z", "zero"), ablate("L0.mlp_out", "zero"), scale("L1.resid_pre", 2.0)]
    edits += [] if family in OWN_CODE else [ablate("L1H1.pattern", "zero"), steer("L1H0.q_in", torch.ones(32))]

    def fail(activation, queries):
        raise ZeroDivisionError

    with assert_untouched(model):
        model.run(text, record=everything(model), edit=edits)
        model.run(text, keep="resume")
        for kind in EVERY_KIND:
            if f"L1.{kind}" in model.sites(kind):
                with pytest.raises(ZeroDivisionError):
                    model.run(text, record=["L*.z"], edit=edits, watch=[(Site(layer=1, kind=kind), fail)])
        with torch.no_grad(), model.edited(edits) as hf:
            assert not torch.equal(hf(input_ids=text, use_cache=False).logits, theirs(family))
        with pytest.raises(ZeroDivisionError), model.edited(edits):
            raise ZeroDivisionError
        with torch.no_grad():
            assert torch.equal(model.hf(input_ids=text, use_cache=False).logits, theirs(family))
    assert torch.equal(model.run(text).logits, theirs(family))


@every_family
def test_certifying_leaves_the_configuration_as_it_was(tiny_hf, family):
    hf = tiny_hf(family)
    model = iw.Model(hf, None, certified=False)
    before = copy.deepcopy(model.config.to_dict())
    names = (model.config._attn_implementation, model.config._experts_implementation_internal)
    assert not check(model).failed
    assert model.config.to_dict() == before
    assert (model.config._attn_implementation, model.config._experts_implementation_internal) == names


# --- attention code of a family's own ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", OWN_CODE)
class TestAttentionCodeOfAFamilysOwn:
    def test_the_pattern_is_the_one_that_it_puts_out(self, tiny_model, text, masks, family):
        model, hf = tiny_model(family), families.build(family)
        for mask in masks.values():
            run = model.run(text, mask=mask, record=["L*.pattern"])
            ids = (mask.long().cumsum(1) - 1).clamp(min=0)
            with torch.no_grad():
                out = hf(input_ids=text, attention_mask=mask.long(), position_ids=ids, output_attentions=True, use_cache=False)
            assert len(out.attentions) == model.anatomy.layers
            for layer, pattern in enumerate(out.attentions):
                assert torch.equal(run[f"L{layer}.pattern"], pattern)

    @pytest.mark.parametrize("kind", ["q", "k", "v", "scores", "q_in", "k_in", "v_in"])
    def test_what_it_does_not_show_is_refused(self, tiny_model, text, family, kind):
        for site in (f"L1.{kind}", f"L1H2.{kind}"):
            with pytest.raises(UnknownSite, match=f"{site} is not in tiny-{family}: .*code of its own, which shows z and"):
                tiny_model(family).run(text, edit=[ablate(site, "zero")])

    def test_patterns_cannot_be_edited_and_z_is_what_to_edit(self, tiny_model, text, family):
        model = tiny_model(family)
        for edit in (ablate("L1H2.pattern", "zero"), patch("L1.pattern", torch.ones(LENGTH))):
            with pytest.raises(UnknownSite, match=rf"cannot be edited: {model.anatomy.family} computes .* Edit L1.z instead"):
                model.run(text, edit=[edit])
        with pytest.raises(UnknownSite, match="code of its own"):
            model.run(text, edit=[knockout("L1H2", None, 0)])

    def test_edits_of_z_reach_the_logits(self, tiny_model, text, family):
        model, hf = tiny_model(family), families.build(family)
        width = model.anatomy.d_head
        module = hf.get_submodule(f"{model.adapter.blocks}.1.{model.adapter.attention_out}")

        def without_head_2(module, args):
            z = args[0].clone()
            z[:, :, 2 * width : 3 * width] = 0
            return (z,)

        module.register_forward_pre_hook(without_head_2)
        with torch.no_grad():
            expected = hf(input_ids=text, use_cache=False).logits
        assert torch.equal(model.run(text, edit=[ablate("L1H2", "zero", positions="all")]).logits, expected)

    def test_an_implementation_that_hides_patterns_is_refused_with_the_remedy(self, tiny_hf, family):
        hf = tiny_hf(family)
        hf.config._attn_implementation = "sdpa"
        with pytest.raises(UnsupportedModel, match="sdpa.*shows no patterns. Load it with attn_implementation='eager'"):
            iw.Model(hf, None)


# --- ways of computing the same ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [name for name in REGISTRY if not name.startswith("gemma2")])
def test_fast_and_eager_attention_are_both_served_with_equal_results(tiny_hf, tiny_model, text, family):
    hf = tiny_hf(family)
    hf.set_attn_implementation("eager")
    eager, fast = iw.Model(hf, None), tiny_model(family)
    assert eager.config._attn_implementation == "innerworks_eager"
    record = everything(fast)
    ours, other = eager.run(text, record=record), fast.run(text, record=record)
    assert torch.equal(ours.logits, other.logits)  # opened up, both are the same computation
    assert all(torch.equal(ours.recorded[place], one) for place, one in other.recorded.items())
    assert 0 <= off(eager.run(text).logits, fast.run(text).logits) < 1e-5
    plain = families.build(family)
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        assert torch.equal(eager.run(text).logits, plain(input_ids=text, use_cache=False).logits)


@pytest.mark.parametrize("how", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("family", MIXTURES)
def test_every_way_of_computing_experts_is_served_with_equal_results(tiny_hf, tiny_model, text, family, how):
    hf = tiny_hf(family)
    hf.config._experts_implementation = how
    model = iw.Model(hf, None)
    assert model.config._experts_implementation == f"innerworks_{how}"
    sites = everything(model)
    ours, other = model.run(text, record=sites), tiny_model(family).run(text, record=sites)
    assert all(off(ours[site], other[site]) < 1e-5 for site in sites) and off(ours.logits, other.logits) < 1e-5
    plain = families.build(family)
    plain.config._experts_implementation = how
    with torch.no_grad():
        assert torch.equal(model.run(text).logits, plain(input_ids=text, use_cache=False).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_family
def test_every_family_is_certified_in_half_precision(tiny_hf, family, dtype):
    even = {"moe_intermediate_size": 24} if family == "qwen3_moe" else {}  # its kernel wants rows of 16 bytes
    model = iw.Model(tiny_hf(family, **even).to(dtype), None)
    assert model.certificate.dtype == str(dtype).removeprefix("torch.") and not model.certificate.failed


OPTIONS = [
    ("llama", {"num_key_value_heads": 1}),
    ("llama", {"mlp_bias": True, "attention_bias": True, "head_dim": 16}),
    ("llama", {"rope_parameters": dict(rope_type="linear", rope_theta=1e4, factor=2.0)}),
    ("gpt2", {"scale_attn_weights": False}),
    ("gpt2", {"tie_word_embeddings": False}),
    ("opt", {"enable_bias": False}),
    ("opt", {"_remove_final_layer_norm": True}),
    ("opt", {"layer_norm_elementwise_affine": False}),
    ("falcon", {"bias": True}),
    ("falcon-new", {"num_ln_in_parallel_attn": 1}),
    ("gemma2", {"query_pre_attn_scalar": 48}),
    ("gemma3", {"final_logit_softcapping": 3.0}),
    ("gemma3_text", {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0}),
    ("qwen2", {"use_sliding_window": False}),
    ("qwen3", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    ("smollm3", {"use_sliding_window": True, "sliding_window": WINDOW}),
    ("mistral", {"sliding_window": None}),
    ("mistral", {"sliding_window": 1000}),
    ("gpt_neox", {"attention_bias": False}),
    ("starcoder2", {"use_bias": False}),
    ("qwen3_moe", {"norm_topk_prob": True, "decoder_sparse_step": 2}),
    ("olmo2", {"attention_bias": True}),
    ("phi", {"tie_word_embeddings": True}),
]


@pytest.mark.parametrize(("family", "options"), OPTIONS, ids=lambda value: value if isinstance(value, str) else ", ".join(value))
def test_options_that_change_the_arithmetic_are_followed(tiny_hf, text, family, options):
    model, plain = iw.Model(tiny_hf(family, **options), None), tiny_hf(family, **options)
    with torch.no_grad():
        logits = plain(input_ids=text, use_cache=False).logits
    assert torch.equal(model.run(text).logits, logits)
    assert off(model.run(text, record=everything(model)).logits, logits) < 1e-5


# --- refused, by name --------------------------------------------------------------------------------------------

REFUSED = [
    ("llama", {"pretraining_tp": 2}),
    ("gpt2", {"add_cross_attention": True}),
    ("gpt2", {"reorder_and_upcast_attn": True}),
    ("bloom", {"apply_residual_connection_post_layernorm": True}),
    ("bloom", {"slow_but_exact": True}),
    ("falcon", {"alibi": True}),
    ("llama", {"is_causal": False}),
    ("qwen2", {"is_causal": False}),
    ("gemma3_text", {"use_bidirectional_attention": True}),
    ("gemma3", {"use_bidirectional_attention": True}),
]


@pytest.mark.parametrize(("family", "option"), REFUSED, ids=lambda value: value if isinstance(value, str) else next(iter(value)))
def test_an_option_that_is_not_handled_is_refused_by_name(tiny_hf, family, option):
    ((name, value),) = option.items()
    with pytest.raises(UnsupportedModel, match=rf"has {name}={value}: \w+.*Only {name}=\w+ is handled"):
        iw.Model(tiny_hf(family, **option), None)


def test_every_refused_option_is_tested():
    asked = {(family, next(iter(option))) for family, option in REFUSED}
    assert {(family, option) for family, one in FAMILIES.items() for option in one.refused} <= asked


@pytest.mark.parametrize(("family", "says"), [("lama", "llama"), ("gpt3", "gpt2"), ("qwen4", "qwen3"), ("gemma", None)])
def test_an_unknown_family_is_refused_with_the_near_misses(family, says):
    if says is None:
        adapters.refuse_unknown_family(family)
        return
    with pytest.raises(
        UnsupportedModel, match=rf"No adapter for the family '{family}'. Did you mean .*{says}.*Known families: "
    ) as caught:
        adapters.refuse_unknown_family(family)
    assert "transformers knows no causal LM of that name, either" in str(caught.value)
    assert "adapters/<family>.py" in str(caught.value)


def test_a_family_that_transformers_knows_and_we_do_not_is_not_called_a_typing_error():
    assert "mamba" in causal_families()
    with pytest.raises(UnsupportedModel, match="No adapter for the family 'mamba'") as caught:
        adapters.refuse_unknown_family("mamba")
    assert "either" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "name"),
    [("llama", "LlamaModel"), ("llama", "LlamaForSequenceClassification"), ("gpt2", "GPT2Model"), ("opt", "OPTModel")],
)
def test_a_class_that_is_no_causal_lm_is_refused(tiny_hf, family, name):
    import transformers

    config = tiny_hf(family).config
    config.pad_token_id = 0
    with pytest.raises(UnsupportedModel, match=rf"{name} is of the family '{family}' but no causal LM .* load one of: \w+"):
        iw.Model(getattr(transformers, name)(config), None)


@pytest.mark.parametrize("family", REGISTRY)
@pytest.mark.parametrize("implementation", ["flash_attention_2", "flex_attention"])
def test_attention_that_cannot_be_opened_up_is_refused_with_the_remedy(tiny_hf, family, implementation):
    hf = tiny_hf(family)
    hf.get_submodule(FAMILIES[family.partition("-")[0]].decoder).config._attn_implementation = implementation
    with pytest.raises(UnsupportedModel, match=rf"attn_implementation='{implementation}'.*hf.set_attn_implementation\('sdpa'\)"):
        iw.Model(hf, None)


# --- states of a model -------------------------------------------------------------------------------------------


def test_a_model_in_training_mode_as_a_whole_is_not_run(tiny_hf, text):
    model = iw.Model(tiny_hf("llama").train(), None)  # wrapping puts it in eval mode
    assert not any(module.training for module in model.hf.modules())
    model.run(text)
    model.hf.train()
    with pytest.raises(UsageError, match=r"training mode.*model.hf.eval\(\) first"):
        model.run(text)


@every_family
def test_every_module_is_looked_at_once(tiny_hf, family):
    hf = tiny_hf(family)
    hf.register_module("again", hf.get_submodule(FAMILIES[hf.config.model_type].blocks)[1])  # in two places, yet one module
    found = every_module(hf)
    assert set(found) == set(hf.modules()) and len(found) == len(set(found))


@pytest.mark.parametrize(("family", "path"), [("gpt2", "transformer.h.1.attn.resid_dropout"), ("opt", "model.decoder.layers.2")])
def test_one_part_in_training_mode_is_enough_to_refuse(tiny_hf, text, family, path):
    model = iw.Model(tiny_hf(family), None)
    clean = model.run(text, keep="resume")
    module = model.hf.get_submodule(path)
    module.training = True  # this module alone
    for call in (lambda: model.run(text), lambda: list(model.run_each([ablate("L1.z", "zero")], resume=clean))):
        with pytest.raises(UsageError, match="training mode, at least in parts"):
            call()
    module.training = False
    assert torch.equal(model.run(text).logits, clean.logits)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "falcon", "qwen3_moe"])
def test_gradient_checkpointing_is_harmless_in_eval_mode_and_refused_in_training_mode(tiny_hf, text, theirs, family):
    model = iw.Model(tiny_hf(family), None)
    getattr(model.hf, "activation_checkpointing_enable", model.hf.gradient_checkpointing_enable)()
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.hf.modules())
    assert torch.equal(model.run(text).logits, theirs(family)) and not check(model).failed
    run = model.run(text, record=["L0.resid_pre", "L1.z"], grad=True)
    assert run.gradient(run.logits[:, -1].square().sum(), "L1.z").abs().max() > 0
    model.hf.train()
    with pytest.raises(UsageError, match="gradient checkpointing"):
        model.run(text)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "falcon"])
@pytest.mark.parametrize("as_object", [False, True])
def test_a_quantised_model_is_run_recorded_and_edited_and_says_what_it_is(tiny_hf, text, theirs, family, as_object):
    hf = tiny_hf(family)
    hf.config.quantization_config = _Quantised() if as_object else {"quant_method": "bitsandbytes"}
    model = iw.Model(hf, None)
    assert model.quantised == "bitsandbytes" and not model.certificate.failed
    run = model.run(text, record=["L*.z", "L*.pattern", "L1.neurons"], edit=[ablate("L1H2", "zero", positions="all")])
    assert run["L1H2"].abs().max() == 0 and run.stack("pattern").shape[0] == model.anatomy.layers
    assert torch.equal(model.run(text).logits, theirs(family)) and not torch.equal(run.logits, theirs(family))


class _Quantised:
    quant_method = "bitsandbytes"

    def to_dict(self):
        return {"quant_method": self.quant_method}


def test_a_model_that_is_not_quantised_says_so(tiny_model):
    assert all(tiny_model(family).quantised is None for family in ("llama", "gpt2"))


# --- layouts that have no sum, or no stream between ---------------------------------------------------------------


def test_post_ln_models_record_everything_but_sums_and_are_certified_without_them(tiny_model, text):
    model = tiny_model("opt-post-norm")
    assert not model.anatomy.sums
    assert any("normed after each addition" in one for one in model.certificate.left_out)
    assert not any("stream +" in one.what or "everything" in one.what for one in model.certificate.checks)
    run = model.run(text, record=["L*.resid_pre", "L*.resid_post", "L*.attn_out", "L*.mlp_out", "L*.pattern"])
    total = run["L1.resid_pre"] + run["L1.attn_out"] + run["L1.mlp_out"]
    assert off(total, run["L1.resid_post"]) > 0.1  # and indeed they do not add up
    with pytest.raises(UnknownSite, match="normed after each addition. Use resid_pre and resid_post"):
        model.run(text, record=["L1.resid_mid"])


@pytest.mark.parametrize("family", PARALLEL)
def test_there_is_no_stream_between_where_both_read_the_same(tiny_model, text, family):
    with pytest.raises(UnknownSite, match="read the same stream, so there is none between them. Use resid_pre"):
        tiny_model(family).run(text, record=["L1.resid_mid"])


# --- adapters as data --------------------------------------------------------------------------------------------


@every_family
def test_every_path_of_an_adapter_leads_somewhere(tiny_model, family):
    model = tiny_model(family)
    adapter = model.adapter
    for name in ("decoder", "blocks", "embedding", "unembedding"):
        assert isinstance(model.hf.get_submodule(getattr(adapter, name)), nn.Module)
    for name in ("attention", "attention_added", "attention_out", "mlp_added"):
        for layer in range(model.anatomy.layers):
            assert isinstance(model.require_part(name, layer), nn.Module)
    assert (adapter.fused is None) == (adapter.query is not None) == (adapter.key is not None) == (adapter.value is not None)
    tables = {name for name, module in model.decoder.named_modules() if isinstance(module, nn.Embedding)}
    named = [adapter.embedding, *([adapter.positions] if adapter.positions else [])]
    assert tables == {one.removeprefix(f"{adapter.decoder}.") for one in named}


def test_every_adapter_names_only_paths_that_some_tiny_model_has(tiny_model):
    """A path that no model has is dead data, or a slip of the pen."""
    for family in FAMILIES:
        models = [tiny_model(name) for name in ALL if name.partition("-")[0] == family]
        for field in BLOCK_PATHS:
            paths = getattr(FAMILIES[family], field)
            blocks = [model.block(layer) for model in models for layer in range(model.anatomy.layers)]
            for path in (paths,) if isinstance(paths, str) else paths or ():
                assert any(_has(block, path) for block in blocks), f"{family}.{field} = {path}"


BLOCK_PATHS = (
    *("attention", "attention_norm", "attention_added", "attention_out", "query", "key", "value", "fused", "query_norm"),
    *("mlp_norm", "mlp", "mlp_added", "mlp_in", "mlp_gate", "mlp_gate_in", "mlp_out", "experts"),
)


def _has(block, path):
    try:
        return block.get_submodule(path) is not None
    except AttributeError:
        return False


# --- in words ----------------------------------------------------------------------------------------------------


def test_the_table_of_families_is_the_one_in_the_page():
    assert described.markdown() in PAGE.read_text()


def test_every_field_of_an_adapter_is_explained_in_the_page():
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    named = {line.split("`")[1] for line in table}
    assert set(Adapter.__dataclass_fields__) <= named


def test_every_check_of_a_certificate_is_explained_in_the_page(tiny_model):
    page = PAGE.read_text()
    assert all(one.what in page for family in ALL for one in tiny_model(family).certificate.checks)


def test_the_worked_example_of_the_page_is_the_adapter_itself():
    source = Path(adapters.__file__).with_name("starcoder2.py").read_text()
    assert f"```python\n{source}```" in PAGE.read_text()


@pytest.mark.parametrize(
    ("family", "patterns", "layout"),
    [
        ("gpt2", "edited", ["learned positions"]),
        ("llama", "edited", ["rotary"]),
        ("opt", "edited", ["learned positions", "post-LN stream (without do_layer_norm_before)"]),
        ("gpt_neox", "edited", ["rotary", "parallel (use_parallel_residual)"]),
        ("smollm3", "edited", ["rotary (no_rope_layers)"]),
        ("phi", "edited", ["rotary", "parallel", "QK-norm"]),
        ("mixtral", "edited", ["rotary", "mixture of experts"]),
        ("qwen3_moe", "edited", ["rotary", "QK-norm", "mixture of experts in some layers"]),
        ("bloom", "recorded only", ["slopes on the scores"]),
        ("falcon", "recorded only", ["rotary", "parallel (new_decoder_architecture, parallel_attn)"]),
        (
            "gemma2",
            "edited",
            ["rotary", "post-norm", "scores capped (attn_logit_softcapping)", "logits capped (final_logit_softcapping)"],
        ),
    ],
)
def test_a_family_is_described_from_its_adapter(family, patterns, layout):
    found = described.described(FAMILIES[family])
    assert (found.patterns, list(found.layout)) == (patterns, layout)


@every_family
def test_what_is_said_of_a_family_is_so(tiny_model, family):
    model = tiny_model(family)
    found = described.described(model.adapter)
    words = " ".join(found.layout)
    assert not model.anatomy.parallel or "parallel" in words
    assert model.anatomy.sums or "post-LN" in words
    assert (model.anatomy.experts > 0) == ("mixture" in words)
    assert ("learned" in words) == (model.adapter.positions is not None)
    assert type(model.hf).__name__ in found.classes
    assert model.softcap is None or "logits capped" in words


# --- the certificate as a value ----------------------------------------------------------------------------------


def test_checks_can_be_looked_at_without_raising(tiny_hf, monkeypatch):
    model = iw.Model(tiny_hf("llama"), None, name="mine", certified=False)
    good = check(model)
    assert isinstance(good, Certificate) and good.require() is good and good.failed == ()
    sound = attention.repeat_kv
    monkeypatch.setattr(attention, "repeat_kv", lambda x, groups: sound(x, groups).flip(1))
    bad = check(model)
    assert [one.what for one in bad.checks] == [one.what for one in good.checks] and bad.failed
    with pytest.raises(CertificateFailed, match=f"mine fails {len(bad.failed)} of {len(bad.checks)} checks") as caught:
        bad.require()
    assert caught.value.certificate is bad
