"""Resumed runs: only what an edit can reach is computed again, and the result is the same."""

import pytest
import torch
from torch import testing

from families import ALL, OWN_CODE
from innerworks.errors import UsageError
from innerworks.model import ablate, freeze, knockout, patch, scale, steer
from innerworks.sites import Site

KINDS = ["resid_pre", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "pattern", "z", "neurons"]


@pytest.fixture(params=["gpt2", "llama"])
def family(request):
    """One family of each kind: what this file tests does not depend on their options."""
    return request.param


@pytest.fixture
def clean(model, tokens):
    return model.run(tokens, keep="resume")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", range(3))
def test_a_resumed_run_equals_the_full_run(model, tokens, clean, layer, kind):
    asked = dict(record=[f"L{layer}.{kind}", "L2.resid_post"], edit=[ablate(f"L{layer}.{kind}", "zero")])
    full = model.run(tokens, **asked)
    resumed = model.run(tokens, **asked, resume=clean)
    assert torch.equal(full.logits, resumed.logits)
    assert all(torch.equal(full.recorded[place], resumed.recorded[place]) for place in full.recorded)


def test_a_resumed_run_of_a_padded_batch_equals_the_full_run(model, tokens):
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[0, :3] = mask[1, 9:] = False
    clean = model.run(tokens, mask=mask, keep="resume")
    for edit in (ablate("L1H2", "zero"), ablate("L2.pattern", "zero"), patch("L1N7", torch.tensor(2.0))):
        full = model.run(tokens, mask=mask, edit=[edit])
        assert torch.equal(full.logits, model.run(tokens, mask=mask, edit=[edit], resume=clean).logits)


@pytest.mark.parametrize("first", range(3))
def test_blocks_before_the_first_place_are_not_computed(tiny_model, tokens, first):
    model, ran = tiny_model("llama"), []
    clean = model.run(tokens, keep="resume")
    handles = [model.block(i).mlp.register_forward_hook(lambda *_, i=i: ran.append(i)) for i in range(3)]
    try:
        model.run(tokens, watch=[(Site(layer=first, kind="z"), lambda z, queries: None)], resume=clean)
        model.run(tokens, record=[f"L{first}.pattern"], resume=clean)
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [*range(first, 3), *range(first, 3)]


def test_a_resumed_run_with_nothing_to_do_equals_the_clean_one(model, tokens, clean):
    assert torch.equal(model.run(tokens, resume=clean).logits, clean.logits)


def test_an_edited_run_is_no_ground_to_resume_from(model, tokens, clean):
    edited = model.run(tokens, edit=[ablate("L1H2", "zero")], keep="resume", resume=clean)
    with pytest.raises(UsageError, match="without edits or watchers"):
        model.run(tokens, edit=[ablate("L2.mlp_out", "zero")], resume=edited)


def test_a_resumed_run_can_be_kept_and_resumed(model, tokens, clean):
    edit = [ablate("L1H2", "zero")]
    again = model.run(tokens, keep="resume", resume=clean)
    assert torch.equal(model.run(tokens, edit=edit, resume=again).logits, model.run(tokens, edit=edit).logits)


def test_a_watched_run_is_no_ground_to_resume_from(model, tokens):
    watched = model.run(tokens, watch=[(Site(layer=1, kind="z"), lambda z, queries: None)], keep="resume")
    with pytest.raises(UsageError, match="without edits or watchers"):
        model.run(tokens, resume=watched)


def test_another_models_run_is_no_ground_to_resume_from(tiny_hf, tokens):
    import innerworks as iw

    one, other = iw.Model(tiny_hf("llama"), None), iw.Model(tiny_hf("llama"), None)
    with pytest.raises(UsageError, match="of this very model"):
        one.run(tokens, edit=[ablate("L1H2", "zero")], resume=other.run(tokens, keep="resume"))


def test_gradients_flow_through_a_resumed_run_as_through_the_full_one(tiny_model, tokens):
    model = tiny_model("gpt2")
    clean = model.run(tokens, keep="resume")
    grads = []
    for resume in (None, clean):
        run = model.run(tokens, record=["L2.z"], grad=True, resume=resume)
        grads.append(torch.autograd.grad(run.logits.sum(), run["L2.z"])[0])
    assert torch.equal(*grads)


def test_a_forward_that_someone_put_on_a_block_stays_there(tiny_hf, tokens):
    import innerworks as iw

    model = iw.Model(tiny_hf("llama"), None)
    block = model.block(0)
    original, calls = block.forward, []
    block.forward = own = lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs)
    clean = model.run(tokens, keep="resume")
    model.run(tokens, edit=[ablate("L2H1", "zero")], resume=clean)
    assert vars(block)["forward"] is own and calls == [1]


def test_resuming_on_other_tokens_or_without_the_streams_is_refused(tiny_model, tokens):
    model, edit = tiny_model("gpt2"), [ablate("L2H1", "zero")]
    clean = model.run(tokens, keep="resume")
    with pytest.raises(UsageError, match="other tokens"):
        model.run(tokens.flip(0), edit=edit, resume=clean)
    with pytest.raises(UsageError, match="other tokens"):
        model.run(tokens[:, :5], edit=edit, resume=clean)
    with pytest.raises(UsageError, match="another mask"):
        model.run(tokens, mask=torch.arange(12).expand(2, 12) < 9, edit=edit, resume=clean)
    with pytest.raises(UsageError, match="keep='resume'"):
        model.run(tokens, edit=edit, resume=model.run(tokens))


# --- every family ----------------------------------------------------------------------------------------------------

LEFT, RIGHT = torch.ones(2, 12, dtype=torch.bool), torch.ones(2, 12, dtype=torch.bool)
LEFT[0, :4] = RIGHT[1, 8:] = False
MASKS = {"whole": torch.ones(2, 12, dtype=torch.bool), "left": LEFT, "right": RIGHT}
SUFFIX = dict(atol=1e-4, rtol=0)  # what a run of a suffix promises in float32


def edits_at(model, layer, positions):
    """Edits of every way of changing something at some positions."""
    vector = torch.linspace(-1, 1, 32)
    found = [ablate(f"L{layer}H1", "zero", positions=positions), steer(f"L{layer}.resid_post", vector, positions=positions)]
    found += [scale(f"L{layer}.resid_pre", 1.5, positions=positions), scale(f"L{layer}.mlp_out", -1.0, positions=positions)]
    if model.adapter.attention_code == "registry":
        found += [scale(f"L{layer}H{head}.{kind}", 2.0, positions=positions) for head, kind in enumerate(("q", "k", "v"))]
        found += [steer(f"L{layer}H0.{letter}_in", vector, positions=positions) for letter in "qkv"]
        found += [scale(f"L{layer}H3.pattern", 0.5, positions=positions), knockout(f"L{layer}", positions, [1, 2])]
    if model.lacks("attn_norm_scale", layer) is None:
        found += [scale(f"L{layer}.attn_norm_scale", 2.0, positions=positions)]
    neurons = "neurons" if model.lacks("neurons", layer) is None else "expert_neurons"
    return [*found, scale(f"L{layer}.{neurons}", 0.0, positions=positions)]


def everything(model):
    kinds = ("resid_pre", "q", "k", "v", "scores", "pattern", "z", "attn_out", "attn_norm_scale", "neurons", "expert_neurons")
    return [site for kind in (*kinds, "mlp_out", "mlp_norm_scale", "resid_post") for site in model.sites(kind)]


@pytest.mark.parametrize("family", ALL)
def test_resuming_from_any_layer_of_any_family_changes_no_bit(tiny_model, tokens, family):
    model = tiny_model(family)
    cleans = {name: model.run(tokens, mask=mask, keep="resume") for name, mask in MASKS.items()}
    for layer in range(model.anatomy.layers):
        for number, edit in enumerate(edits_at(model, layer, [3, 5])[layer % 3 :: 3]):
            name = list(MASKS)[number % 3]
            record = [f"L{layer}.z", f"L{model.anatomy.layers - 1}.resid_post"]
            full = model.run(tokens, mask=MASKS[name], record=record, edit=edit)
            resumed = model.run(tokens, mask=MASKS[name], record=record, edit=edit, resume=cleans[name])
            assert torch.equal(full.logits, resumed.logits), (edit.says, name)
            assert all(torch.equal(full[site], resumed[site]) for site in record), (edit.says, name)


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("name", list(MASKS))
def test_a_run_of_a_suffix_of_any_family_equals_the_full_run(tiny_model, tokens, family, name):
    model, mask = tiny_model(family), MASKS[name]
    clean = model.run(tokens, mask=mask, keep="resume")
    for turn, (layer, positions) in enumerate(((0, [7]), (1, [4]), (model.anatomy.layers - 1, [7]))):
        for edit in edits_at(model, layer, positions)[(turn + list(MASKS).index(name)) % 3 :: 3]:
            if name == "whole":
                edit = edit if layer else moved(edit, [11])
            full = model.run(tokens, mask=mask, edit=edit)
            run = model.run(tokens, mask=mask, edit=edit, resume=clean, suffix=True)
            assert run.start >= (4 if layer == 1 else 7) and run.logits.shape[1] == 12 - run.start, edit.says
            real = mask[:, run.start :]
            testing.assert_close(run.logits[real], full.logits[:, run.start :][real], **SUFFIX, msg=f"{edit.says}, {name}")


def moved(edit, positions):
    """The same edit at other positions."""
    from dataclasses import replace

    return replace(edit, **{"queries" if hasattr(edit, "queries") else "positions": positions})


@pytest.mark.parametrize("family", ALL)
def test_recordings_of_a_suffix_line_up(tiny_model, tokens, family):
    model = tiny_model(family)
    clean = model.run(tokens, keep="resume")
    edit = steer("L1.resid_pre", torch.ones(32), positions=[6, 9])
    full = model.run(tokens, record=everything(model), edit=edit)
    run = model.run(tokens, record=everything(model), edit=edit, resume=clean, suffix=True)
    assert run.start == 6 and run.final.shape[1] == 6
    for site in everything(model):
        over_keys = site.partition(".")[2] in ("k", "v")  # keys and values cover the whole text
        start = 0 if over_keys else 6
        expected = full[site][:, :, start:] if site.endswith(("pattern", "scores")) else full[site][:, start:]
        testing.assert_close(run[site], expected, atol=1e-4, rtol=1e-4, msg=site)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mixtral", "falcon", "opt"])
@pytest.mark.parametrize("name", list(MASKS))
def test_logits_of_a_suffix_are_those_asked_for(tiny_model, tokens, family, name):
    model, mask = tiny_model(family), MASKS[name]
    clean = model.run(tokens, mask=mask, keep="resume")
    chosen = torch.zeros(2, 12, dtype=torch.bool)
    chosen[0, 11] = chosen[1, 7] = True
    for positions in ([5], [7]):
        edit = ablate("L1H1", "zero", positions=positions)
        for logits in ("last", "all", [7], chosen):
            full = model.run(tokens, mask=mask, edit=edit, logits=logits)
            run = model.run(tokens, mask=mask, edit=edit, logits=logits, resume=clean, suffix=True)
            expected = full.logits[:, run.start :] if logits == "all" else full.logits
            real = mask[:, run.start :] if isinstance(logits, str) and logits == "all" else slice(None)
            testing.assert_close(run.logits[real], expected[real], **SUFFIX)
    assert model.run(tokens, mask=mask, resume=clean, suffix=True, logits="none").logits is None


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "mistral", "falcon"])
def test_a_run_of_a_suffix_leaves_the_clean_runs_keys_alone(tiny_model, tokens, family):
    model = tiny_model(family)
    clean = model.run(tokens, keep="resume")
    before = [(keys.clone(), values.clone()) for keys, values in clean.cache]
    for layer in range(3):
        edits = [ablate(f"L{layer}H{head}", "zero", positions=[7]) for head in range(2)]
        model.run(tokens, edit=edits, resume=clean, suffix=True)
        assert len(list(model.run_each(edits, resume=clean, suffix=True))) == 2
    for kept, was in zip(clean.cache, before, strict=True):
        assert all(torch.equal(*pair) for pair in zip(kept, was, strict=True))


def test_the_last_token_of_a_short_text_is_not_cut_off(tiny_model, tokens):
    model, mask = tiny_model("llama"), RIGHT  # eight tokens beside twelve
    clean = model.run(tokens, mask=mask, keep="resume")
    for edit in ([], ablate("L1H1", "zero", positions=[10])):
        full = model.run(tokens, mask=mask, edit=edit, logits="last").logits
        run = model.run(tokens, mask=mask, edit=edit, logits="last", resume=clean, suffix=True)
        testing.assert_close(run.logits, full, **SUFFIX)
        assert run.start == 7


def test_edits_of_several_places_begin_at_the_first(tiny_model, tokens):
    model = tiny_model("qwen3")
    clean = model.run(tokens, keep="resume", record="norm_scale")
    edits = [ablate("L2H1", "zero", positions=[9]), scale("L1.mlp_out", 0.5, positions=[6]), knockout("L1H2", [8], None)]
    with pytest.raises(UsageError, match="no key left"):
        model.run(tokens, edit=knockout("L1H2", [8], "all"), resume=clean, suffix=True)
    run = model.run(tokens, edit=edits, resume=clean, suffix=True)
    assert run.start == 6
    testing.assert_close(run.logits, model.run(tokens, edit=edits).logits[:, 6:], **SUFFIX)
    assert model.run(tokens, edit=[*edits, freeze("norm_scale", clean)], resume=clean, suffix=True).start == 0
    assert model.run(tokens, edit=scale("L1H1", 0.5), resume=clean, suffix=True).start == 1  # every position but 0


def test_positions_before_the_suffix_have_no_logits(tiny_model, tokens):
    model = tiny_model("llama")
    clean = model.run(tokens, keep="resume")
    before = torch.zeros(2, 12, dtype=torch.bool)
    before[1, 3] = True
    for logits in ([3], [3, 8], before):
        with pytest.raises(UsageError, match="before token 6"):
            model.run(tokens, edit=scale("L1H1", 0.5, positions=[6]), resume=clean, suffix=True, logits=logits)


def test_a_run_of_a_suffix_needs_a_clean_run_and_is_none(tiny_model, tokens):
    model, edit = tiny_model("llama"), scale("L1H1", 0.5, positions=[6])
    clean = model.run(tokens, keep="resume")
    with pytest.raises(UsageError, match="needs resume="):
        model.run(tokens, edit=edit, suffix=True)
    with pytest.raises(UsageError, match="keep='resume' needs a run of all"):
        model.run(tokens, resume=clean, suffix=True, keep="resume")
    with pytest.raises(UsageError, match="keep='resume'"):
        model.run(tokens, edit=edit, resume=model.run(tokens, resume=clean, suffix=True))
    with pytest.raises(UsageError, match="the only thing to keep"):
        model.run(tokens, keep="cache")


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neo", "mixtral"])
def test_a_suffix_leaves_the_clean_run_and_the_model_alone(tiny_model, tokens, family, assert_untouched):
    model = tiny_model(family)
    clean = model.run(tokens, keep="resume")
    kept = [(keys.clone(), values.clone()) for keys, values in clean.cache], {i: x.clone() for i, x in clean.streams.items()}
    with assert_untouched(model):
        for layer in range(model.anatomy.layers):
            for edit in edits_at(model, layer, [6, 8]):
                model.run(tokens, edit=edit, resume=clean, suffix=True)
    assert all(
        torch.equal(a, b) for before, after in zip(kept[0], clean.cache, strict=True) for a, b in zip(before, after, strict=True)
    )
    assert all(torch.equal(kept[1][layer], clean.streams[layer]) for layer in kept[1])


@pytest.mark.parametrize("family", [one for one in ALL if one not in OWN_CODE])
def test_gradients_flow_through_a_suffix(tiny_model, tokens, family):
    model = tiny_model(family)
    clean = model.run(tokens, keep="resume")
    edit = scale("L1H1", 0.5, positions=[6])
    full = model.run(tokens, record="L1.z", edit=edit, logits="last", grad=True)
    run = model.run(tokens, record="L1.z", edit=edit, logits="last", grad=True, resume=clean, suffix=True)
    expected = full.gradient(full.logits.square().mean(), "L1.z")[:, 6:]
    testing.assert_close(run.gradient(run.logits.square().mean(), "L1.z"), expected, atol=1e-4, rtol=1e-3)
