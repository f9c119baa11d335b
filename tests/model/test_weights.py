"""Weights as matrices must give what the model computes: values, queries, neurons, embeddings, logits, on every family."""

import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn, testing
from transformers.activations import ACT2FN
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

import families
import innerworks as iw
from innerworks.errors import UnknownSite, UnsupportedModel, UsageError
from innerworks.model import readout
from innerworks.model.factored import Factored
from innerworks.model.norms import Norm
from innerworks.model.peft import adapter_off, unwrap

CLOSE = dict(atol=2e-5, rtol=2e-5)
every_family = pytest.mark.parametrize("family", families.ALL)
REGISTRY = [name for name in families.ALL if name not in families.OWN_CODE]
MASK = torch.tensor([[True] * 12, [False] * 3 + [True] * 9])
NORMED = ("qwen3", "gemma3_text", "gemma3", "phi-query-norm", "olmo2", "stablelm-parallel", "qwen3_moe")
STRAIGHT = {"gpt2": 0, "gpt2-inverse-layer": 2, "opt": 1, "opt-post-norm": 1, "smollm3": 1}  # a layer whose scores are bilinear


@pytest.fixture
def streams(tiny_model, tokens):
    """`streams("llama")`: a model and a run that recorded its streams and what reads them."""

    def run(family):
        model = tiny_model(family)
        kinds = ["resid_pre", "resid_mid", "z", "neurons", "expert_neurons", "attn_out", "mlp_out", "pattern", "v", "q", "scores"]
        return model, model.run(tokens, record=[site for kind in kinds for site in model.sites(kind)])

    return run


def read(model, norm_module, stream):
    """What the model's own norm module makes of a stream."""
    return stream if norm_module is None or not model.anatomy.sums else norm_module(stream).detach()


def before_scale(norm, stream):
    """The stream divided by its scale: what folded matrices read."""
    return stream if norm is None else stream / norm.scale(stream)[..., None]


def projected(stream, weight, bias):
    return torch.einsum("bsd,hde->bshe", stream, weight) + bias


def mlp_reads(model, run, layer):
    return run[f"L{layer}.resid_pre" if model.anatomy.parallel else f"L{layer}.resid_mid"]


class TestAttention:
    @pytest.mark.parametrize("family", REGISTRY)
    def test_values_are_what_the_model_computes_per_query_head(self, streams, family):
        model, run = streams(family)
        w = model.weights
        for layer in range(model.anatomy.layers):
            stream, recorded = run[f"L{layer}.resid_pre"], run[f"L{layer}.v"]
            assert recorded.abs().max() > 0.1
            normed = read(model, model.part("attention_norm", layer), stream)
            made = projected(normed, w.W_V(layer, per_head=True), w.b_V(layer, per_head=True))
            testing.assert_close(made, recorded, **CLOSE)
            scaled = before_scale(w.attention_norm(layer), stream)
            folded = projected(scaled, w.W_V(layer, fold=True, per_head=True), w.b_V(layer, fold=True, per_head=True))
            testing.assert_close(folded, recorded, **CLOSE)
            assert w.W_V(layer).shape[0] == model.anatomy.kv_heads

    @pytest.mark.parametrize("family", REGISTRY)
    def test_queries_are_what_the_model_computes_up_to_their_rotation(self, streams, family):
        model, run = streams(family)
        w, opt = model.weights, family.startswith("opt")  # OPT scales its queries by itself
        for layer in range(model.anatomy.layers):
            stream, recorded = run[f"L{layer}.resid_pre"], run[f"L{layer}.q"]
            folded = projected(before_scale(w.attention_norm(layer), stream), w.W_Q(layer, fold=True), w.b_Q(layer, fold=True))
            plain = projected(read(model, model.part("attention_norm", layer), stream), w.W_Q(layer), w.b_Q(layer)) * (
                model.anatomy.d_head**-0.5 if opt else 1.0
            )
            testing.assert_close(folded * (model.anatomy.d_head**-0.5 if opt else 1.0), plain, **CLOSE)
            if family not in NORMED:
                testing.assert_close(plain.norm(dim=-1), recorded.norm(dim=-1), **CLOSE)
            if not model.adapter.rotary(model.config, layer):
                testing.assert_close(plain, recorded, **CLOSE)

    @pytest.mark.parametrize("family", families.OWN_CODE)
    def test_values_of_families_that_show_none_give_their_z(self, streams, family):
        model, run = streams(family)
        w = model.weights
        for layer in range(model.anatomy.layers):
            scaled = before_scale(w.attention_norm(layer), run[f"L{layer}.resid_pre"])
            v = projected(scaled, w.W_V(layer, fold=True, per_head=True), w.b_V(layer, fold=True, per_head=True))
            testing.assert_close(torch.einsum("bhqk,bkhd->bqhd", run[f"L{layer}.pattern"], v), run[f"L{layer}.z"], **CLOSE)

    @pytest.mark.parametrize("family", ["falcon", "falcon-new", "falcon-sequential"])
    def test_fused_projections_are_split_as_falcon_does(self, streams, family):
        model, run = streams(family)
        w, module = model.weights, model.require_part("attention", 1)
        normed = read(model, model.part("attention_norm", 1), run["L1.resid_pre"])
        theirs = [x.detach() for x in module._split_heads(module.query_key_value(normed))]
        theirs = [x.expand(-1, -1, 4, -1) if x.shape[2] == 1 else x for x in theirs]
        ours = [
            projected(normed, w.W_Q(1), w.b_Q(1)),
            projected(normed, w.W_K(1, per_head=True), w.b_K(1, per_head=True)),
            projected(normed, w.W_V(1, per_head=True), w.b_V(1, per_head=True)),
        ]
        for mine, their in zip(ours, theirs, strict=True):
            testing.assert_close(mine, their, **CLOSE)

    def test_the_pattern_of_bloom_follows_from_its_queries_keys_and_slopes(self, streams, tokens):
        model, run = streams("bloom")
        w = model.weights
        slopes = build_alibi_tensor(torch.ones_like(tokens), 4, torch.float32).view(2, 4, 1, -1)
        for layer in range(model.anatomy.layers):
            normed = read(model, model.part("attention_norm", layer), run[f"L{layer}.resid_pre"])
            q, k = projected(normed, w.W_Q(layer), w.b_Q(layer)), projected(normed, w.W_K(layer), w.b_K(layer))
            scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * model.anatomy.d_head**-0.5 + slopes
            testing.assert_close(causal_softmax(scores), run[f"L{layer}.pattern"], **CLOSE)

    @pytest.mark.parametrize("layer", [0, 2])
    def test_the_pattern_of_gpt_neos_global_layers_follows_from_QK_unscaled(self, streams, layer):
        model, run = streams("gpt_neo")
        scaled = before_scale(model.weights.attention_norm(layer), run[f"L{layer}.resid_pre"])
        bias = model.weights.b_Q(layer, fold=True), model.weights.b_K(layer, fold=True)
        for head in range(4):
            scores = bilinear(model, layer, head, scaled, bias)
            testing.assert_close(causal_softmax(scores), run[f"L{layer}H{head}.pattern"], **CLOSE)

    @pytest.mark.parametrize("family", STRAIGHT)
    def test_scores_follow_from_QK_where_they_are_bilinear(self, streams, family):
        model, run = streams(family)
        layer = STRAIGHT[family]
        scaled = before_scale(model.weights.attention_norm(layer), run[f"L{layer}.resid_pre"])
        bias = model.weights.b_Q(layer, fold=True), model.weights.b_K(layer, fold=True, per_head=True)
        factor = model.anatomy.d_head**-0.5 / (layer + 1 if family == "gpt2-inverse-layer" else 1)
        seen = torch.ones(12, 12, dtype=torch.bool).tril()
        for head in range(4):
            scores = bilinear(model, layer, head, scaled, bias) * factor
            testing.assert_close(scores[:, seen], run[f"L{layer}H{head}.scores"][:, seen], **CLOSE)

    @pytest.mark.parametrize("family", [name for name in REGISTRY if name not in (*STRAIGHT, *NORMED)])
    def test_the_content_of_QK_is_the_score_of_a_token_with_itself(self, streams, family):
        model, run = streams(family)
        layer, w = 2, model.weights
        scaled = before_scale(w.attention_norm(layer), run[f"L{layer}.resid_pre"])
        bias = w.b_Q(layer, fold=True), w.b_K(layer, fold=True, per_head=True)
        for head in range(4):
            scores = bilinear(model, layer, head, scaled, bias, content_only=True)
            scores = scores.diagonal(dim1=-2, dim2=-1) * model.require_part("attention", layer).scaling
            scores = 2.0 * torch.tanh(scores / 2.0) if family == "gemma2" else scores
            testing.assert_close(scores, run[f"L{layer}H{head}.scores"].diagonal(dim1=-2, dim2=-1), **CLOSE)

    @every_family
    def test_heads_and_bias_are_the_output_and_folding_takes_in_the_norm_behind(self, streams, family):
        model, run = streams(family)
        w = model.weights
        for layer in range(model.anatomy.layers):
            z, added = run[f"L{layer}.z"], run[f"L{layer}.attn_out"]
            made = torch.einsum("bshe,hem->bsm", z, w.W_O(layer)) + w.b_O(layer)
            folded = torch.einsum("bshe,hem->bsm", z, w.W_O(layer, fold=True)) + w.b_O(layer, fold=True)
            if model.adapter.post_norms:
                folded = folded / Norm.of(model.part("attention_added", layer)).scale(made)[..., None]
            testing.assert_close(folded, added, **CLOSE)

    @pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "olmo2", "falcon-new"])
    def test_OV_is_what_attending_to_a_token_writes(self, streams, family):
        model, run = streams(family)
        w, stream = model.weights, run["L1.resid_pre"]
        for head in range(4):
            v = (before_scale(w.attention_norm(1), stream) @ w.OV(1, head, fold=True)).full()
            normed = read(model, model.part("attention_norm", 1), stream)
            W_O, b_V = w.W_O(1, fold=True)[head], w.b_V(1, fold=True, per_head=True)[head] - w.b_V(1, per_head=True)[head]
            testing.assert_close(v + b_V @ W_O, normed @ w.W_V(1, per_head=True)[head] @ W_O, **CLOSE)
            testing.assert_close(w.OV(1, head).full(), w.W_V(1, per_head=True)[head] @ w.W_O(1)[head], **CLOSE)


def bilinear(model, layer, head, stream, biases, **options):
    """Scores from QK, and from the biases that it leaves apart."""
    w, (b_Q, b_K) = model.weights, (bias[head] for bias in biases)
    query, key = w.W_Q(layer, fold=True)[head], w.W_K(layer, fold=True, per_head=True)[head]
    both = stream @ w.QK(layer, head, fold=True, **options).full() @ stream.mT
    return both + (stream @ query @ b_K)[..., None] + (stream @ key @ b_Q)[:, None] + b_Q @ b_K


def causal_softmax(scores):
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(dim=-1)


class TestFeedForward:
    @pytest.mark.parametrize("family", [name for name in families.ALL if name not in families.MIXTURES])
    def test_neurons_are_what_the_model_computes(self, streams, family):
        model, run = streams(family)
        w = model.weights
        for layer in range(model.anatomy.layers):
            wanted = run[f"L{layer}.neurons"]
            if model.anatomy.sums:
                scaled = before_scale(w.mlp_norm(layer), mlp_reads(model, run, layer))
                testing.assert_close(active(model, layer, scaled, fold=True), wanted, **CLOSE)
            testing.assert_close(active(model, layer, seen_by_mlp(model, run, layer)), wanted, **CLOSE)

    @pytest.mark.parametrize("family", families.MIXTURES)
    def test_neurons_of_experts_are_what_the_model_computes_times_the_routing(self, streams, family):
        model, run = streams(family)
        scaled = before_scale(model.weights.mlp_norm(2), run["L2.resid_mid"])
        for expert in range(4):
            made, wanted = active(model, 2, scaled, fold=True)[expert], run["L2.expert_neurons"][:, :, expert]
            routed = wanted.abs().sum(dim=-1) > 0
            factor = (made * wanted).sum(dim=-1, keepdim=True) / made.square().sum(dim=-1, keepdim=True)
            assert routed.any() and factor[routed].min() > 0 and factor.max() < 1.0001
            testing.assert_close(made * factor, wanted, **CLOSE)

    @every_family
    def test_neurons_and_bias_are_the_output_and_folding_takes_in_the_norm_behind(self, streams, family):
        model, run = streams(family)
        w = model.weights
        for layer in range(model.anatomy.layers):
            kind = "neurons" if model.part("experts", layer) is None else "expert_neurons"
            neurons = run[f"L{layer}.{kind}"].flatten(2)
            made = neurons @ w.W_out(layer).flatten(0, -2) + w.b_out(layer)
            folded = neurons @ w.W_out(layer, fold=True).flatten(0, -2) + w.b_out(layer, fold=True)
            if model.adapter.post_norms:
                folded = folded / Norm.of(model.part("mlp_added", layer)).scale(made)[..., None]
            testing.assert_close(folded, run[f"L{layer}.mlp_out"], atol=5e-5, rtol=2e-5)

    def test_what_has_no_gate_says_so(self, tiny_model):
        with pytest.raises(UsageError, match="tiny-gpt2 have no gates"):
            tiny_model("gpt2").weights.W_gate(0)


def active(model, layer, stream, *, fold=False):
    """Activations from the matrices, with a leading axis of experts in mixtures."""
    w, experts = model.weights, model.part("experts", layer) is not None
    stream = stream[None] if experts else stream
    weight = (lambda one: one[:, None]) if experts else (lambda one: one)  # expert batch d_model neuron
    up = stream @ weight(w.W_in(layer, fold=fold)) + (0 if experts else w.b_in(layer, fold=fold))
    if model.part("mlp_gate", layer) is None and model.adapter.mlp_gate_in is None and not experts:
        return ACT2FN[activation(model)](up)
    gate = stream @ weight(w.W_gate(layer, fold=fold)) + (0 if experts else w.b_gate(layer, fold=fold))
    return ACT2FN[activation(model)](gate) * up


def activation(model):
    """The name of the function in the configuration, which families call by many names."""
    if model.anatomy.family == "bloom":
        return "gelu_new"
    names = ("hidden_activation", "activation_function", "hidden_act", "activation")
    return next(getattr(model.config, name) for name in names if hasattr(model.config, name)) or "gelu_pytorch_tanh"


def seen_by_mlp(model, run, layer):
    """What the first projection of a feed-forward is given, seen by a foreign hook."""
    module = model.part("mlp_in", layer) or model.part("mlp_gate_in", layer)
    seen = []
    handle = module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.run(run.tokens)
    handle.remove()
    return seen[0].detach().view(*run.tokens.shape, -1)


class TestInAndOut:
    @every_family
    def test_token_and_position_embeddings_are_the_stream_that_enters(self, tiny_model, tokens, family):
        model = tiny_model(family)
        stream = model.run(tokens, mask=MASK, record="embed")["embed"]
        made = model.weights.W_E()[tokens]
        if model.adapter.positions:
            made = made + model.weights.W_pos()[(MASK.long().cumsum(dim=1) - 1).clamp(min=0)]
        testing.assert_close(made[MASK], stream[MASK], **CLOSE)

    @pytest.mark.parametrize(
        ("family", "changes"), [*((name, {}) for name in families.ALL), ("opt", {"word_embed_proj_dim": 16})]
    )
    def test_the_unembedding_gives_the_logits_before_any_cap(self, tiny_hf, tokens, family, changes):
        model = iw.Model(tiny_hf(family, **changes), None)
        w, last = model.weights, f"L{model.anatomy.layers - 1}.resid_post"
        run = model.run(tokens, record=last)
        logits = model.readout(run.final, capped=False).detach()
        stream = run[last]
        normed = stream if w.final_norm is None else model.norm_module("norm_scale", 0)(stream).detach()
        testing.assert_close(normed @ w.W_U() + w.b_U(), logits, **CLOSE)
        folded = before_scale(w.final_norm, stream) @ w.W_U(fold=True) + w.b_U(fold=True)
        testing.assert_close(folded, logits, **CLOSE)

    def test_a_model_without_learned_positions_says_so(self, tiny_model):
        with pytest.raises(UsageError, match="no embeddings of positions"):
            tiny_model("llama").weights.W_pos()


class TestRefusals:
    @pytest.mark.parametrize("family", NORMED)
    def test_scores_of_normed_queries_have_no_matrix_at_all(self, tiny_model, family):
        for options in ({}, {"content_only": True}):
            with pytest.raises(UnsupportedModel, match=r"L1H3 .* normed after they are read.* L1H3\.q and L1H3\.k"):
                tiny_model(family).weights.QK(1, 3, **options)

    @pytest.mark.parametrize(
        ("family", "why"),
        [
            ("llama", r"rotated by their positions.*L1H3\.q and L1H3\.k, or L1H3\.scores.*content_only=True"),
            ("smollm3", "rotated"),
            ("gemma2", r"rotated by their positions and scores are softly capped at 2\.0"),
            ("bloom", r"fall with distance.*Record what it computes, L1H3\.pattern"),
            ("gptj", r"rotated.*L1H3\.pattern"),
        ],
    )
    def test_scores_that_are_not_bilinear_have_no_matrix_but_a_content(self, tiny_model, family, why):
        layer = 0 if family == "smollm3" else 1
        with pytest.raises(UnsupportedModel, match=why):
            tiny_model(family).weights.QK(layer, 3)
        assert tiny_model(family).weights.QK(layer, 3, content_only=True).shape == (32, 32)

    @pytest.mark.parametrize("call", [lambda w: w.W_V(3), lambda w: w.OV(0, 4), lambda w: w.W_in(-1), lambda w: w.QK(0, -1)])
    def test_what_is_not_there_is_refused(self, tiny_model, call):
        with pytest.raises(UnknownSite, match="has"):
            call(tiny_model("gpt2").weights)

    def test_quantised_weights_are_refused(self, tiny_hf):
        model = iw.Model(tiny_hf("llama"), None, certified=False)
        model.hf.config.quantization_config = {"quant_method": "gptq"}
        with pytest.raises(UnsupportedModel, match=r"query of layer 0 .* quantised \(gptq\).*dequantize"):
            model.weights.W_Q(0)
        assert "gptq" in model.weights.unreadable

    def test_weights_that_are_not_in_memory_are_refused(self, tiny_hf):
        model = iw.Model(tiny_hf("llama"), None)
        model.hf.to("meta")
        with pytest.raises(UnsupportedModel, match="attention_out of layer 2 .* not in memory"):
            model.weights.W_O(2)

    def test_a_strange_projection_is_refused(self, tiny_hf):
        model = iw.Model(tiny_hf("llama"), None, certified=False)
        model.block(0).self_attn.q_proj = nn.LayerNorm(32)
        with pytest.raises(UnsupportedModel, match="is a LayerNorm, whose weights we cannot read"):
            model.weights.W_Q(0)

    def test_values_split_in_the_wrong_order_fail_the_certificate(self, tiny_hf, monkeypatch):
        from innerworks.errors import CertificateFailed
        from innerworks.model.weights import Weights

        sound = Weights._repeated
        monkeypatch.setattr(Weights, "_repeated", lambda self, x, per_head: sound(self, x.flip(0), per_head))
        for family in ("llama", "gpt_neox", "gemma2"):
            with pytest.raises(CertificateFailed, match=r"norm\(stream\) @ W_V \+ b_V = v: off by"):
                iw.Model(tiny_hf(family), None)


@pytest.mark.parametrize(
    ("family", "names"), [("gpt2", ["c_attn", "c_proj", "wte"]), ("llama", ["v_proj", "o_proj", "down_proj"])]
)
def test_matrices_are_those_that_adapters_make_of_them(tiny_hf, tokens, family, names):
    options = LoraConfig(r=2, target_modules=names, init_lora_weights=False, fan_in_fan_out=family == "gpt2")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # peft's own
        torch.manual_seed(0)
        model = iw.Model(unwrap(get_peft_model(tiny_hf(family), options).eval()), None)
    record = ["L1.resid_pre", "L1.v", "L1.z", "L1.attn_out", "L1.neurons", "L1.mlp_out"]

    def agrees():
        w, run = model.weights, model.run(tokens, record=record)
        stream = before_scale(w.attention_norm(1), run["L1.resid_pre"])
        v = projected(stream, w.W_V(1, fold=True, per_head=True), w.b_V(1, fold=True, per_head=True))
        testing.assert_close(v, run["L1.v"], **CLOSE)
        testing.assert_close(torch.einsum("bshe,hem->bsm", run["L1.z"], w.W_O(1)) + w.b_O(1), run["L1.attn_out"], **CLOSE)
        testing.assert_close(run["L1.neurons"] @ w.W_out(1) + w.b_out(1), run["L1.mlp_out"], **CLOSE)
        assert readout.attribute(model, tokens, 5, by="head").residual_error < 1e-5
        return w.OV(1, 0).full(), w.W_E()

    on = agrees()
    with adapter_off(model):
        off = agrees()
    assert not torch.equal(on[0], off[0])
    assert torch.equal(on[1], off[1]) == (family == "llama")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_matrices_have_the_models_precision_and_folded_ones_at_least_float32(tiny_hf, dtype):
    w = iw.Model(tiny_hf("gpt2").to(dtype), None).weights
    assert w.W_Q(0).dtype == w.b_O(0).dtype == w.W_U().dtype == dtype
    wide = torch.promote_types(dtype, torch.float32)
    assert w.W_Q(0, fold=True).dtype == w.b_in(0, fold=True).dtype == w.W_U(fold=True).dtype == wide


def test_matrices_are_views_where_they_can_be(tiny_hf):
    hf = tiny_hf("llama")
    w = iw.Model(hf, None).weights
    pairs = [
        (w.W_V(1), hf.model.layers[1].self_attn.v_proj),
        (w.W_O(1), hf.model.layers[1].self_attn.o_proj),
        (w.W_U(), hf.lm_head),
    ]
    assert all(ours.data_ptr() == module.weight.data_ptr() for ours, module in pairs)


SHAPES = [((6, 3), (3, 6)), ((4, 5), (5, 4)), ((2, 6, 3), (2, 3, 6)), ((7, 2), (2, 7))]


class TestFactored:
    @pytest.fixture(params=SHAPES, ids=str)
    def product(self, request):
        generator = torch.Generator().manual_seed(0)
        return Factored(*(torch.randn(shape, generator=generator) for shape in request.param))

    def test_it_is_the_product(self, product):
        dense = product.A @ product.B
        assert product.shape == dense.shape
        testing.assert_close(product.full(), dense)
        testing.assert_close(product.T.full(), dense.mT)
        testing.assert_close(product.norm(), torch.linalg.matrix_norm(dense))

    def test_its_singular_values_are_those_of_the_product(self, product):
        dense, found = product.full(), product.svd()
        values = torch.linalg.svdvals(dense)[..., : found.values.shape[-1]]
        testing.assert_close(found.values, values, **CLOSE)
        testing.assert_close(product.singular_values, values, **CLOSE)
        testing.assert_close((found.left * found.values[..., None, :]) @ found.right, dense, **CLOSE)
        rank = torch.eye(found.values.shape[-1]).expand(*found.values.shape, -1)
        testing.assert_close(found.left.mT @ found.left, rank, **CLOSE)
        testing.assert_close(found.right @ found.right.mT, rank, **CLOSE)

    def test_its_eigenvalues_are_those_of_the_product(self, product):
        found, dense = product.eigenvalues, torch.linalg.eigvals(product.full())
        for power in (1, 2, 3):  # sums of powers, since eigenvalues come in no order
            testing.assert_close((found**power).sum(dim=-1), (dense**power).sum(dim=-1), atol=1e-3, rtol=1e-4)

    def test_products_stay_thin(self):
        generator = torch.Generator().manual_seed(0)
        one, other = (Factored(torch.randn(9, n, generator=generator), torch.randn(n, 9, generator=generator)) for n in (2, 4))
        left, right = torch.randn(5, 9, generator=generator), torch.randn(9, 6, generator=generator)
        for both in (one @ other, other @ one):
            assert both.A.shape[-1] == 2
        testing.assert_close((one @ other).full(), one.full() @ other.full(), **CLOSE)
        testing.assert_close((other @ one).full(), other.full() @ one.full(), **CLOSE)
        testing.assert_close((left @ one @ right).full(), left @ one.full() @ right, **CLOSE)
        stream = torch.randn(2, 3, 9, generator=generator)
        testing.assert_close((stream @ one).full(), stream @ one.full(), **CLOSE)
        assert repr(left @ one) == "Factored(5 x 9 through 2)" and (stream @ one).shape == (2, 3, 9)

    def test_half_precision_is_computed_wide(self):
        thin = Factored(torch.ones(4, 2, dtype=torch.bfloat16), torch.ones(2, 4, dtype=torch.bfloat16))
        assert thin.norm() == 8 and thin.singular_values.dtype == torch.float32 and thin.full().dtype == torch.bfloat16

    def test_what_is_not_square_has_no_eigenvalues(self):
        with pytest.raises(UsageError, match="4 x 5 has no eigenvalues"):
            _ = Factored(torch.ones(4, 2), torch.ones(2, 5)).eigenvalues
