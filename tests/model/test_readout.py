"""The logit lens ends at the model's own logits, and shares of a logit add up to it and mean what they say, on every family."""

import polars as pl
import pytest
import torch
from torch import testing

import families
import innerworks as iw
from innerworks.errors import ModelError, UnknownSite, UnsupportedModel, UsageError
from innerworks.model import readout
from innerworks.model.edit import freeze, patch
from innerworks.model.readout import lens
from innerworks.sites import Site

CLOSE = dict(atol=2e-5, rtol=2e-5)
MASK = torch.tensor([[True] * 12, [False] * 4 + [True] * 8])
SUMS = [name for name in families.ALL if name != "opt-post-norm"]
REGISTRY = [name for name in SUMS if name not in families.OWN_CODE]
every_family = pytest.mark.parametrize("family", families.ALL)
every_sum = pytest.mark.parametrize("family", SUMS)


class TestLens:
    @every_family
    def test_after_the_last_layer_it_is_what_the_model_says(self, tiny_model, tokens, family):
        model = tiny_model(family)
        seen = readout.logit_lens(model, tokens, mask=MASK)
        assert seen.shape == (model.anatomy.layers, 2, 12, model.anatomy.vocab)
        testing.assert_close(seen[-1][MASK], model.run(tokens, mask=MASK).logits[MASK], **CLOSE)

    @pytest.mark.parametrize(("family", "kind"), [("gpt2", "resid_mid"), ("llama", "resid_pre"), ("gemma2", "resid_post")])
    def test_it_is_the_final_norm_and_the_unembedding_of_a_stream(self, tiny_model, tokens, family, kind):
        model = tiny_model(family)
        run = model.run(tokens, record=f"L*.{kind}")
        norm, unembed = model.norm_module("norm_scale", 0), model.hf.get_submodule(model.adapter.unembedding)
        found = readout.logit_lens(model, run, kind=kind, layers=[2, 0], capped=False)
        for ours, layer in zip(found, (2, 0), strict=True):
            testing.assert_close(ours, unembed(norm(run[f"L{layer}.{kind}"])).detach(), **CLOSE)

    def test_positions_are_those_of_the_logits_of_a_run(self, tiny_model, tokens):
        model = tiny_model("llama")
        run = model.run(tokens, mask=MASK, record="L*.resid_post")
        everything = readout.logit_lens(model, run)
        for where in ("last", [0, 3], MASK & (torch.arange(12) > 9)):
            found = readout.logit_lens(model, run, positions=where)
            testing.assert_close(found[-1], model.run(tokens, mask=MASK, logits=where).logits, **CLOSE)
        assert torch.equal(readout.logit_lens(model, run, positions=MASK), everything[:, MASK])

    @pytest.mark.parametrize("where", ["all", "last", [1, 2]])
    def test_the_top_is_that_of_the_lens_in_bounded_memory(self, tiny_model, tokens, monkeypatch, where):
        model = tiny_model("gemma2")
        logits = readout.logit_lens(model, tokens, positions=where)
        rows, unembed = [], type(model).readout
        monkeypatch.setattr(lens, "LOGITS_AT_ONCE", 5 * model.anatomy.vocab)
        monkeypatch.setattr(type(model), "readout", lambda *a, **b: rows.append(len(a[1])) or unembed(*a, **b))
        best = readout.top(model, tokens, k=3, positions=where)
        assert max(rows) <= 5
        testing.assert_close(best.logits, logits.topk(3).values)
        assert torch.equal(best.tokens, logits.topk(3).indices)
        testing.assert_close(best.probability, logits.softmax(dim=-1).gather(-1, best.tokens))
        testing.assert_close(best.entropy, torch.distributions.Categorical(logits=logits).entropy())

    def test_a_translated_stream_is_read_in_its_place(self, tiny_model, tokens):
        model = tiny_model("llama")
        run = model.run(tokens, record="L*.resid_post")
        found = readout.logit_lens(model, run, layers=[0, 2], translate=lambda layer, stream: run[f"L{2 - layer}.resid_post"])
        testing.assert_close(found, readout.logit_lens(model, run, layers=[2, 0]))

    def test_the_top_as_a_table(self, tiny_model, tokens):
        best = readout.top(tiny_model("gpt2"), tokens, k=2)
        table = best.frame()
        assert table.columns == ["site", "batch", "seq", "rank", "token", "value", "unit", "probability", "entropy"]
        assert len(table) == best.tokens.numel() == 3 * 2 * 12 * 2
        row = table.row(-1, named=True)
        assert (row["site"], row["batch"], row["seq"], row["rank"], row["unit"]) == ("L2.resid_post", 1, 11, 1, "logits")
        assert (row["token"], row["value"]) == (best.tokens[-1, -1, -1, -1], best.logits[-1, -1, -1, -1])
        assert table["entropy"].to_list()[:4] == [*[float(best.entropy[0, 0, 0])] * 2, *[float(best.entropy[0, 0, 1])] * 2]
        last = readout.top(tiny_model("gpt2"), tokens, k=2, positions="last").frame()
        assert last.columns[:3] == ["site", "batch", "rank"]

    def test_unknown_positions_are_refused(self, tiny_model, tokens, unchecked):
        with pytest.raises(UsageError, match="positions='none': 'all', 'last'"):
            readout.logit_lens(tiny_model("gpt2"), tokens, positions="none")

    def test_a_stream_that_the_model_does_not_have_is_refused(self, tiny_model, tokens):
        with pytest.raises(UnknownSite, match="no resid_mid in tiny-gpt_neox: attention and feed-forward read the same"):
            readout.top(tiny_model("gpt_neox"), tokens, kind="resid_mid")

    def test_what_is_no_stream_or_was_not_recorded_is_refused(self, tiny_model, tokens):
        model = tiny_model("gpt2")
        with pytest.raises(UsageError, match="kind='mlp_out': the lens reads streams"):
            readout.logit_lens(model, tokens, kind="mlp_out")
        with pytest.raises(UnknownSite, match="was not recorded"):
            readout.logit_lens(model, model.run(tokens))
        with pytest.raises(UsageError, match="k=0"):
            readout.top(model, tokens, k=0)


class TestAttribution:
    @every_sum
    @pytest.mark.parametrize("by", ["component", "head", "neuron", "source"])
    def test_shares_add_up_to_the_models_own_logits(self, tiny_model, tokens, family, by):
        model = tiny_model(family)
        if by == "source" and family in families.OWN_CODE:
            with pytest.raises(UnsupportedModel, match="shows no values. Use by='head'"):
                readout.attribute(model, tokens, 5, by=by)
            return
        logits = model.readout(model.run(tokens, mask=MASK).final, capped=False).detach().double()
        one = readout.attribute(model, tokens, [5, 7], 9, mask=MASK, by=by)
        testing.assert_close(one.exact, logits[[0, 1], -1, [5, 7]] - logits[[0, 1], -1, 9], **CLOSE)
        testing.assert_close(one.total, one.exact, atol=1e-5, rtol=0)
        other = readout.attribute(model, tokens, 5, mask=MASK, by=by, position=3)
        testing.assert_close(other.exact, logits[[0, 1], [3, 7], 5], **CLOSE)
        assert other.residual_error < 1e-5
        summed = one.frame().group_by("batch").agg(total=pl.col("value").sum()).sort("batch")["total"].to_torch()
        testing.assert_close(summed, one.exact, atol=1e-5, rtol=0)

    @every_sum
    def test_the_share_of_a_head_is_the_effect_of_taking_its_output_from_the_final_stream(self, tiny_model, tokens, family):
        model = tiny_model(family)
        last = f"L{model.anatomy.layers - 1}.resid_post"
        clean = model.run(tokens, record=["L*.z", last, "norm_scale"])
        found = readout.attribute(model, tokens, 5, by="head").stack("head")
        for layer, head in ((0, 1), (1, 3), (2, 0)):
            without = clean[last] - written(model, clean[f"L{layer}.z"], layer, head)
            edited = model.run(tokens, edit=[patch(last, without), freeze("norm_scale", clean)])
            effect = [model.readout(run.final, capped=False)[:, -1, 5].detach() for run in (clean, edited)]
            testing.assert_close(found[layer, :, head].float(), effect[0] - effect[1], atol=2e-5, rtol=1e-4)

    @pytest.mark.parametrize("family", ["gpt2", "gemma2", "mixtral", "qwen3_moe", "falcon"])
    def test_the_share_of_a_neuron_is_the_effect_of_taking_its_output_from_the_final_stream(self, tiny_model, tokens, family):
        model = tiny_model(family)
        last = f"L{model.anatomy.layers - 1}.resid_post"
        kind = "neurons" if model.part("experts", 2) is None else "expert_neurons"
        clean = model.run(tokens, record=[f"L2.{kind}", last, "norm_scale"])
        neuron = int(clean[f"L2.{kind}"][0, -1].flatten().abs().argmax())
        groups = readout.attribute(model, tokens, 5, by="neuron").groups
        [group] = [one for one in groups if one.component == "neuron" and one.sites[0].startswith("L2")]
        active = clean[f"L2.{kind}"].flatten(2)
        less = active.clone()
        less[..., neuron] = 0
        without = clean[last] - (fed(model, active) - fed(model, less, like=active))
        edited = model.run(tokens, edit=[patch(last, without), freeze("norm_scale", clean)])
        effect = [model.readout(run.final, capped=False)[:, -1, 5].detach() for run in (clean, edited)]
        testing.assert_close(group.value[:, neuron].float(), effect[0] - effect[1], atol=2e-5, rtol=1e-4)
        assert group.value[0, neuron].abs() > 1e-4
        expert, index = divmod(neuron, model.anatomy.expert_neurons) if kind == "expert_neurons" else (None, neuron)
        assert group.sites[neuron] == str(Site(layer=2, expert=expert, neuron=index))

    @pytest.mark.parametrize("family", REGISTRY)
    def test_sources_add_up_to_their_head(self, tiny_model, tokens, family):
        model = tiny_model(family)
        heads = readout.attribute(model, tokens, 5, 9, mask=MASK, by="head", position=6)
        sources = readout.attribute(model, tokens, 5, 9, mask=MASK, by="source", position=6)
        testing.assert_close(sources.stack("head").sum(dim=-1), heads.stack("head"), atol=1e-6, rtol=1e-5)
        table = sources.frame().filter(component="head", site="L1H2")
        assert table["source"].to_list() == [*range(7), *range(7)]  # counted from each text's first token
        assert table.filter(batch=1)["value"].sum() == pytest.approx(float(heads.stack("head")[1, 1, 2]), abs=1e-6)

    def test_long_windows_are_read_block_by_block(self, tiny_model, tokens, monkeypatch):
        from innerworks.model import attention

        model = tiny_model("llama")
        found = [readout.attribute(model, tokens, 5, mask=MASK, by="source", position=4).stack("head")]
        monkeypatch.setattr(attention, "BLOCK_ELEMENTS", 2 * 4 * 12 * 3)  # three queries at once
        found.append(readout.attribute(model, tokens, 5, mask=MASK, by="source", position=4).stack("head"))
        testing.assert_close(*found, atol=1e-6, rtol=1e-5)

    def test_positions_and_tokens_bring_in_shares_of_their_own(self, tiny_model, tokens):
        model = tiny_model("gpt2")
        found = readout.attribute(model, tokens, 5, position=4)
        w, last = model.weights, model.run(tokens, record="L2.resid_post")["L2.resid_post"][:, 4]
        toward = w.W_U(fold=True)[:, 5] / w.final_norm.scale(last)[:, None]
        token = (w.W_E()[tokens[:, 4]] * toward).sum(dim=-1)
        testing.assert_close(found.stack("embedding")[0, :, 0].float(), token, **CLOSE)
        testing.assert_close(found.stack("position_embedding")[0, :, 0].float(), toward @ w.W_pos()[4], **CLOSE)

    def test_every_part_has_a_row(self, tiny_model, tokens):
        table = readout.attribute(tiny_model("gpt2"), tokens, 5, by="head").frame()
        assert table.columns == ["batch", "component", "site", "source", "value", "unit"]
        sites = table.filter(batch=0).select("component", "site").rows()
        assert sites[:3] == [("embedding", "embed"), ("position_embedding", "embed"), ("head", "L0H0")]
        assert sites[-2:] == [("final_norm_bias", "norm_scale"), ("unembedding_bias", "logits")]
        assert ("attention_bias", "L1.attn_out") in sites and ("feed_forward", "L2.mlp_out") in sites
        assert len(sites) == 2 + 3 * (4 + 1 + 1) + 2 and set(table["unit"]) == {"logits"}

    def test_answers_are_words_or_ids_one_or_one_per_text(self, tiny_model, tokens):
        model = tiny_model("gpt2")
        cat = model.tokenizer.convert_tokens_to_ids("cat")
        by_word = readout.attribute(model, ["the cat sat", "a dog"], "cat", "dog")
        assert by_word.answer.tolist() == [cat, cat] and by_word.rows.tolist() == [2, 1]
        one_each = readout.attribute(model, tokens, torch.tensor([3, 4]))
        assert one_each.answer.tolist() == [3, 4] and one_each.foil is None

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            ("the cat", r"'the cat' is 2 tokens \('the', 'cat'\), not one.*begin with a space: ' the cat'"),
            ("", "is 0 tokens"),
            ("zebra", "'zebra' is no token of tiny-gpt2"),
            (320, r"0\.\.319; got 320"),
            ([1, 2, 3], "3 answers for 2 texts"),
        ],
    )
    def test_what_is_not_one_token_is_refused(self, tiny_model, tokens, answer, says):
        with pytest.raises(UsageError, match=says):
            readout.attribute(tiny_model("gpt2"), tokens, answer)

    @pytest.mark.parametrize("position", [8, -9])
    def test_positions_outside_a_text_are_refused(self, tiny_model, tokens, position):
        with pytest.raises(UsageError, match=f"position={position} lies outside a text of 8 tokens"):
            readout.attribute(tiny_model("gpt2"), tokens, 5, mask=MASK, position=position)

    def test_a_stream_that_is_no_sum_is_refused(self, tiny_model, tokens):
        with pytest.raises(UnsupportedModel, match="norms its stream after each addition"):
            readout.attribute(tiny_model("opt-post-norm"), tokens, 5)

    def test_an_unknown_way_of_splitting_is_refused(self, tiny_model, tokens, unchecked):
        with pytest.raises(UsageError, match="by='layer': one of component, head, neuron, source"):
            readout.attribute(tiny_model("gpt2"), tokens, 5, by="layer")

    def test_shares_that_miss_the_logit_raise_with_the_numbers(self, tiny_hf, tokens):
        model = iw.Model(tiny_hf("llama").to(torch.bfloat16), None)
        with pytest.raises(ModelError, match=r"add up to \[.*off by .*, allowed 1e-05.*load it with dtype='float32'"):
            readout.attribute(model, tokens, 5, tolerance=1e-5)
        assert readout.attribute(model, tokens, 5, tolerance=1.0).residual_error > 1e-5

    def test_a_projection_behind_the_final_norm_is_taken_in(self, tiny_hf, tokens):
        model = iw.Model(tiny_hf("opt", word_embed_proj_dim=16), None)
        assert readout.attribute(model, tokens, 5, 9, by="head").residual_error < 1e-5

    @pytest.mark.parametrize("by", ["head", "source"])
    def test_the_model_is_left_as_it_was(self, tiny_hf, tokens, assert_untouched, by):
        model = iw.Model(tiny_hf("gemma2"), None)
        with assert_untouched(model):
            readout.attribute(model, tokens, 5, by=by)
            readout.top(model, tokens)


def written(model, z, layer, head):
    """What a head adds to the stream, by the modules alone: the output with it less the output without it."""
    project, less = model.part("attention_out", layer), z.clone()
    less[:, :, head] = 0
    whole, without = project(z.flatten(-2)).detach(), project(less.flatten(-2)).detach()
    return whole - without if not model.adapter.post_norms else behind(model, "attention_added", layer, whole, whole - without)


def fed(model, active, like=None):
    """What neurons of layer 2 add to the stream, by the modules alone; a norm behind keeps the scale of `like`."""
    experts = model.part("experts", 2)
    if experts is not None:
        weight = experts.down_proj.detach()
        return torch.einsum("bsen,edn->bsd", active.unflatten(-1, (weight.shape[0], -1)), weight)
    project = model.part("mlp_out", 2)
    whole = project(active).detach()
    if not model.adapter.post_norms:
        return whole
    return behind(model, "mlp_added", 2, whole if like is None else project(like).detach(), whole)


def behind(model, name, layer, whole, part):
    """A part of a sub-layer's output through the RMSNorm behind it, at the scale of the whole."""
    norm = model.part(name, layer)
    epsilon = getattr(norm, "eps", getattr(norm, "variance_epsilon", None))
    scale = [(x.square().mean(dim=-1, keepdim=True) + epsilon).sqrt() for x in (part, whole)]
    return norm(part).detach() * scale[0] / scale[1]


@pytest.mark.specimen
def test_the_specimen_knows_who_gets_the_drink_and_shares_say_why(specimen):
    prompt = "When Mary and John went to the store, John gave a drink to"
    for by in ("component", "head", "neuron", "source"):
        found = readout.attribute(specimen, prompt, " Mary", " John", by=by)
        assert found.residual_error < 1e-3 and found.exact[0] > 0
    best = readout.top(specimen, prompt, k=1, positions="last")
    assert best.sites[-1] == "L29.resid_post" and specimen.tokenizer.decode(best.tokens[-1, 0, 0]) == " Mary"
