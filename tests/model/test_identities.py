"""What is recorded adds up, in every family: parts to the whole, rows to one, reading and writing to what attention puts out."""

import pytest
import torch
from torch import testing

import families
from families import ALL, MIXTURES, OWN_CODE, PARALLEL, VOCAB, WINDOW
from innerworks.errors import UsageError
from innerworks.model.norms import Norm

CLOSE = dict(atol=5e-6, rtol=2e-5)
LENGTH = 20  # well beyond the sliding windows of six tokens
EVERY = range(4)
#: the layers whose attention sees the last six tokens only
SLIDING = {
    **{name: EVERY for name in ("mistral", "phi3", "starcoder2", "mixtral")},
    "qwen2": (2,),
    **{name: (0, 2) for name in ("gemma2", "gemma3_text", "gemma3")},
    "gpt_neo": (1, 3),
}


@pytest.fixture(params=ALL)
def family(request):
    """Every family in turn."""
    return request.param


@pytest.fixture(scope="module")
def seen(tiny_model):
    """`seen("llama")`: a run of 20 tokens with every site recorded that the family has."""
    from innerworks.sites import INPUTS, LAYER_KINDS

    runs = {}
    text = torch.randint(2, VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(2))

    def look(family):
        if family not in runs:
            model = tiny_model(family)
            sites = [site for kind in LAYER_KINDS if kind not in INPUTS for site in model.sites(kind)]
            last = [] if family == "opt-post-norm" else ["norm_scale"]
            with torch.no_grad():
                runs[family] = model.run(text, record=["embed", *last, *sites])
        return runs[family]

    return look


@pytest.fixture
def run(seen, family):
    return seen(family)


@pytest.fixture
def layers(model):
    return range(model.anatomy.layers)


def only(*names):
    return pytest.mark.parametrize("family", names, indirect=True)


def but(*names):
    return only(*(name for name in ALL if name not in names))


# --- attention ---------------------------------------------------------------------------------------------------


def test_rows_of_a_pattern_sum_to_one(run):
    rows = run.stack("pattern").sum(dim=-1)
    testing.assert_close(rows, torch.ones_like(rows), **CLOSE)


def test_no_query_sees_the_future(run):
    pattern = run.stack("pattern")
    assert pattern.triu(diagonal=1).abs().max() == 0
    assert pattern.diagonal(dim1=-2, dim2=-1).min() > 0


def test_queries_see_the_window_in_sliding_layers_and_everything_before_in_the_others(run, layers, family):
    ago = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    for layer in layers:
        visible = (ago >= 0) & (ago < (WINDOW if layer in SLIDING.get(family, ()) else LENGTH))
        pattern = run[f"L{layer}.pattern"]
        assert pattern[..., ~visible].abs().max() == 0, f"layer {layer} sees beyond what it should"
        assert pattern[..., visible].min() > 0, f"layer {layer} does not see what it should"


def test_every_sliding_window_of_a_configuration_is_among_those_tested():
    windows = {name for name in ALL if getattr(families.build(name).config.get_text_config(), "sliding_window", None)}
    assert windows | {"gpt_neo"} == set(SLIDING)


@but(*OWN_CODE)
def test_pattern_times_v_is_z(run, layers):
    for layer in layers:
        read = torch.einsum("bhqk,bkhd->bqhd", run[f"L{layer}.pattern"], run[f"L{layer}.v"])
        testing.assert_close(read, run[f"L{layer}.z"], **CLOSE)


@but(*OWN_CODE)
def test_a_pattern_is_the_softmax_of_the_scores_and_these_are_queries_times_keys(run, model, layers, family):
    for layer in layers:
        scores, pattern = run[f"L{layer}.scores"], run[f"L{layer}.pattern"]
        testing.assert_close(scores.softmax(dim=-1), pattern, **CLOSE)
        lowest = torch.finfo(scores.dtype).min
        assert torch.equal(scores == lowest, pattern == 0)
        product = torch.einsum("bqhd,bkhd->bhqk", run[f"L{layer}.q"], run[f"L{layer}.k"])
        if not family.startswith("opt"):  # OPT scales its queries before
            product = product * model.anatomy.d_head**-0.5
        if family == "gpt2-inverse-layer":
            product = product / (layer + 1)
        if family == "gemma2":
            product = torch.tanh(product / 2.0) * 2.0
        visible = scores > lowest
        testing.assert_close(scores[visible], product[visible], **CLOSE)


@but(*OWN_CODE)
def test_query_heads_that_share_keys_and_values_have_the_same_ones(run, model, layers):
    a = model.anatomy
    for kind in "kv":
        for layer in layers:
            grouped = run[f"L{layer}.{kind}"].unflatten(2, (a.kv_heads, -1))
            assert torch.equal(grouped, grouped[:, :, :, :1].expand_as(grouped))
            heads = grouped[:, :, :, 0]
            assert a.kv_heads == 1 or not torch.equal(heads[:, :, 0], heads[:, :, 1])


def test_what_heads_write_and_the_bias_are_the_output_of_attention(run, model, layers):
    for layer in layers:
        written = torch.einsum("bqhd,hdm->bqm", run[f"L{layer}.z"], model.weights.W_O(layer))
        bias = model.require_part("attention_out", layer).bias
        written = written if bias is None else written + bias
        if model.adapter.post_norms:
            written = model.require_part("attention_added", layer)(written)
        testing.assert_close(written, run[f"L{layer}.attn_out"], **CLOSE)


# --- feed-forward ------------------------------------------------------------------------------------------------


@but(*MIXTURES)
def test_neurons_through_the_down_projection_are_the_output_of_the_feed_forward(run, model, layers):
    for layer in layers:
        written = model.require_part("mlp_out", layer)(run[f"L{layer}.neurons"])
        if model.adapter.post_norms:
            written = model.require_part("mlp_added", layer)(written)
        testing.assert_close(written, run[f"L{layer}.mlp_out"], **CLOSE)


@only(*MIXTURES)
def test_neurons_of_experts_through_their_down_projections_are_the_output_of_the_feed_forward(run, model, layers):
    for layer in layers:
        experts = model.part("experts", layer)
        if experts is None:
            assert layer == 1
            continue
        neurons = run[f"L{layer}.expert_neurons"]
        written = sum(neurons[:, :, expert] @ experts.down_proj[expert].T for expert in range(model.anatomy.experts))
        testing.assert_close(written, run[f"L{layer}.mlp_out"], **CLOSE)
        at_work = (neurons != 0).any(dim=-1).sum(dim=-1)
        assert torch.equal(at_work, torch.full_like(at_work, 2))  # two experts per token; the others are silent


@only(*MIXTURES)
def test_neurons_of_experts_are_what_gate_and_up_make_of_the_stream_times_the_routing_weight(run, model, layers, family):
    for layer in layers:
        experts = model.part("experts", layer)
        if experts is None:
            continue
        reads = model.part("mlp_norm", layer)(run[f"L{layer}.resid_mid"])
        chances = (reads @ model.block(layer).mlp.gate.weight.T).softmax(dim=-1)
        best = chances >= chances.topk(2, dim=-1).values[..., -1:]
        weights = torch.where(best, chances, 0.0)
        weights = weights / weights.sum(dim=-1, keepdim=True) if family == "mixtral" else weights
        for expert in range(model.anatomy.experts):
            gate, up = (reads @ experts.gate_up_proj[expert].T).chunk(2, dim=-1)
            neurons = torch.nn.functional.silu(gate) * up * weights[..., expert, None]
            testing.assert_close(run[f"L{layer}E{expert}.expert_neurons"], neurons, **CLOSE)


# --- the stream --------------------------------------------------------------------------------------------------


@but("opt-post-norm")
def test_embedding_and_everything_added_are_the_final_stream(run, layers):
    total = run["embed"] + run.stack("attn_out").sum(dim=0) + run.stack("mlp_out").sum(dim=0)
    testing.assert_close(total, run[f"L{layers[-1]}.resid_post"], atol=2e-5, rtol=2e-5)


def test_the_stream_passes_from_block_to_block(run, layers):
    assert torch.equal(run["embed"], run["L0.resid_pre"])
    for layer in layers[1:]:
        assert torch.equal(run[f"L{layer - 1}.resid_post"], run[f"L{layer}.resid_pre"])


@but("opt-post-norm", *PARALLEL)
def test_each_sub_layer_adds_to_the_stream(run, layers):
    for layer in layers:
        pre, mid, post = (run[f"L{layer}.resid_{where}"] for where in ("pre", "mid", "post"))
        testing.assert_close(pre + run[f"L{layer}.attn_out"], mid, **CLOSE)
        testing.assert_close(mid + run[f"L{layer}.mlp_out"], post, **CLOSE)


@only(*PARALLEL)
def test_both_sub_layers_add_to_the_stream_at_once(run, layers):
    for layer in layers:
        added = run[f"L{layer}.attn_out"] + run[f"L{layer}.mlp_out"]
        testing.assert_close(run[f"L{layer}.resid_pre"] + added, run[f"L{layer}.resid_post"], **CLOSE)


def test_the_embedding_is_that_of_tokens_and_of_learned_positions(run, model, family):
    tokens = model.hf.get_submodule(model.adapter.embedding)(run.tokens)
    if family == "opt-post-norm":
        tokens = model.hf.model.decoder.project_in(tokens)
    if model.adapter.positions is not None:
        places = torch.arange(LENGTH).expand(2, -1)
        table = model.hf.get_submodule(model.adapter.positions).weight
        tokens = tokens + table[places + (2 if family.startswith("opt") else 0)]  # OPT's table begins with two that are not used
    if family == "bloom":
        tokens = model.hf.transformer.word_embeddings_layernorm(tokens)
    testing.assert_close(tokens, run["embed"], **CLOSE)


# --- norms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["attn_norm_scale", "mlp_norm_scale"])
def test_what_a_norm_returns_follows_from_the_scale_that_was_recorded(run, model, layers, kind):
    for layer in layers:
        if model.lacks(kind, layer) is not None:
            continue
        between = kind == "mlp_norm_scale" and not model.anatomy.parallel
        stream, module = run[f"L{layer}.resid_{'mid' if between else 'pre'}"], model.norm_module(kind, layer)
        assert_normed(module, stream, run[f"L{layer}.{kind}"])


@but("opt-post-norm")
def test_so_does_what_the_final_norm_returns(run, model, layers):
    module = model.norm_module("norm_scale", model.anatomy.layers)
    assert_normed(module, run[f"L{layers[-1]}.resid_post"], run["norm_scale"])


def assert_normed(module, stream, scale):
    norm = Norm.of(module)
    centred = stream - stream.mean(dim=-1, keepdim=True) if norm.centred else stream
    by_hand = norm.gain * centred / scale[..., None] + (0 if norm.bias is None else norm.bias)
    testing.assert_close(module(stream), by_hand, **CLOSE)
    deviation = stream.std(dim=-1, correction=0) if norm.centred else stream.square().mean(dim=-1).sqrt()
    testing.assert_close(scale, (deviation.square() + norm.epsilon).sqrt(), **CLOSE)


@but("opt-post-norm")
def test_the_readout_of_the_final_stream_is_the_logits(run, model, layers):
    norm = model.hf.get_submodule(model.adapter.final_norm)
    assert torch.equal(norm(run[f"L{layers[-1]}.resid_post"]), run.final)
    assert torch.equal(model.readout(run.final), run.logits)


@only("opt-post-norm")
def test_the_readout_of_a_stream_without_a_final_norm_is_the_logits(run, model, layers):
    assert torch.equal(model.readout(run.final), run.logits)


@only("gemma2")
def test_logits_before_and_after_the_soft_cap(run, model):
    before = model.readout(run.final, capped=False)
    assert before.abs().max() > 3.0 > run.logits.abs().max() and model.softcap == 3.0
    testing.assert_close(torch.tanh(before / 3.0) * 3.0, run.logits, **CLOSE)


# --- means -------------------------------------------------------------------------------------------------------


def test_the_mean_is_the_average_over_texts_from_the_second_token_on(model):
    texts = ["the cat sat on the mat .", "a dog ran"]
    kinds = [kind for kind in ("z", "attn_out", "neurons", "expert_neurons") if model.sites(kind)]
    mean = model.mean(texts, kinds=kinds)
    for kind, values in mean.values.items():
        rows = [model.run(text, record=model.sites(kind)).stack(kind)[:, 0, 1:] for text in texts]
        there = [int(site[1]) for site in model.sites(kind)]
        testing.assert_close(values[there], torch.cat(rows, dim=1).mean(dim=1), **CLOSE)
        elsewhere = [layer for layer in range(model.anatomy.layers) if layer not in there]
        assert len(values) == model.anatomy.layers and not values[elsewhere].any()
    assert mean.over == "2 texts, positions 1 and later"


@pytest.mark.parametrize(
    ("family", "texts", "kinds", "says"),
    [
        ("gpt2", ["the"], ("z",), "two tokens"),
        ("gpt2", ["the cat"], ("pattern",), "no mean"),
        ("gpt2", ["the cat"], ("z", "expert_neurons"), "There is no expert_neurons in tiny-gpt2: .*no mixture of experts"),
        ("mixtral", ["the cat"], ("neurons",), "There is no neurons in tiny-mixtral: .*Use L0.expert_neurons"),
        ("gptj", ["the cat"], ("q",), "There is no q in tiny-gptj: .*code of its own"),
    ],
    indirect=["family"],
)
def test_what_has_no_mean_is_refused(model, texts, kinds, says):
    with pytest.raises(UsageError, match=says):
        model.mean(texts, kinds=kinds)
