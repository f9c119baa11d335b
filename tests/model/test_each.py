"""Many edits, each in a run of its own: computed together, they are what one run per edit is."""

import pytest
import torch
from torch import testing

from families import ALL, OWN_CODE
from innerworks.errors import UnknownSite, UsageError
from innerworks.model import ablate, freeze, knockout, patch, scale, steer

REGISTRY = [family for family in ALL if family not in OWN_CODE]
CLOSE = dict(atol=2e-5, rtol=1e-5)
SUFFIX = dict(atol=1e-4, rtol=1e-4)
PADDED = torch.ones(2, 12, dtype=torch.bool)
PADDED[0, :3] = PADDED[1, 9:] = False


def edits_of(model, clean, positions=None):
    """Alternatives of all kinds, in an order that mixes layers: single edits and groups."""
    vector, last = torch.linspace(-1, 1, 32), model.anatomy.layers - 1
    found = [ablate(f"L{layer}H{head}", "zero", positions=positions) for head in (0, 3) for layer in (2, 0, 1)]
    found += [
        steer("L1.resid_post", vector, positions=positions),
        [scale("L2.mlp_out", 0.5, positions=positions), ablate("L1H1", "zero", positions=positions)],
        [
            scale("L1H1", 2.0, positions=positions),
            scale("L1H2", 3.0, positions=positions),
            scale("L1.z", -1.0, positions=positions),
        ],
        scale("embed", 1.5, positions=positions),
        patch(f"L{last}.resid_post", clean[f"L{last}.resid_post"].flip(0), positions=positions or "all"),
    ]
    if model.lacks("neurons", 1) is None:
        found += [scale("L1N7", 0.0, positions=positions)]
    if model.lacks("expert_neurons", 2) is None:
        found += [scale("L2E1N3", 0.0, positions=positions), scale("L2.expert_neurons", 2.0, positions=positions)]
    if model.lacks("mlp_norm_scale", 1) is None:
        found += [scale("L1.mlp_norm_scale", 2.0, positions=positions)]
    if model.adapter.attention_code == "registry":
        found += [steer(f"L1H{head}.{letter}_in", vector, positions=positions) for head, letter in enumerate("qkv")]
        found += [[steer("L1.k_in", vector, positions=positions), scale("L1H2.k_in", 0.5, positions=positions)]]
        found += [
            knockout("L1H2", positions, 0),
            knockout("L2", positions, [1, 2]),
            scale("L1H3.pattern", 0.5, positions=positions),
        ]
        found += [[scale("L1H1.k", 2.0, positions=positions), scale("L0H1.v", 2.0, positions=positions)]]
    return found


@pytest.mark.parametrize("family", ALL)
def test_each_run_is_the_run_of_its_edit(tiny_model, tokens, family):
    model = tiny_model(family)
    record = ["L1.z", f"L{model.anatomy.layers - 1}.resid_post"]
    clean = model.run(tokens, mask=PADDED, keep="resume", record=record)
    edits = edits_of(model, clean)
    for rows, logits in ((64, "last"), (5, "all")):
        runs = model.run_each(edits, resume=clean, record=record, rows=rows, logits=logits)
        for number, (edit, run) in enumerate(zip(edits, runs, strict=True)):
            alone = model.run(tokens, mask=PADDED, record=record, edit=edit, logits=logits)
            real = PADDED if logits == "all" else slice(None)
            testing.assert_close(run.logits[real], alone.logits[real], **CLOSE, msg=f"{number}")
            for site in record:
                testing.assert_close(run[site][PADDED], alone[site][PADDED], **CLOSE)
            assert torch.equal(run.tokens, tokens) and torch.equal(run.mask, PADDED) and not run.clean and run.start == 0


@pytest.mark.parametrize("family", ALL)
def test_each_run_of_a_suffix_is_the_run_of_its_edit(tiny_model, tokens, family):
    model = tiny_model(family)
    clean = model.run(tokens, keep="resume", record=f"L{model.anatomy.layers - 1}.resid_post")
    edits = edits_of(model, clean, positions=[7, 10])
    for edit, run in zip(edits, model.run_each(edits, resume=clean, record="L2.z", suffix=True, rows=8), strict=True):
        alone = model.run(tokens, record="L2.z", edit=edit, logits="last")
        assert run.start == 7
        testing.assert_close(run.logits, alone.logits, **SUFFIX)
        testing.assert_close(run["L2.z"], alone["L2.z"][:, 7:], **SUFFIX)


@pytest.mark.parametrize("rows", [1, 2, 3, 6, 100])
def test_few_rows_at_once_change_nothing(tiny_model, tokens, rows):
    model = tiny_model("gemma2")
    clean = model.run(tokens, keep="resume")
    heads = [ablate(f"L{layer}H{head}", "zero") for layer in range(4) for head in range(4)]
    runs = list(model.run_each(heads, resume=clean, rows=rows))
    for edit, run in zip(heads, runs, strict=True):
        testing.assert_close(run.logits, model.run(tokens, edit=edit, logits="last").logits, **CLOSE)


def test_no_more_rows_than_asked_for_are_computed_at_once(tiny_model, tokens):
    model, seen = tiny_model("llama"), []
    clean = model.run(tokens, keep="resume")
    handle = model.block(2).register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    try:
        list(
            model.run_each([ablate(f"L{layer}H{head}", "zero") for head in range(4) for layer in range(3)], resume=clean, rows=6)
        )
    finally:
        handle.remove()
    assert sorted(seen) == [2, 2, 2, 6, 6, 6]  # three layers of four edits, three copies of two texts at once


def test_edits_that_begin_at_different_tokens_share_a_run_from_the_first(tiny_model, tokens):
    model = tiny_model("qwen3")
    clean = model.run(tokens, keep="resume")
    edits = [ablate("L1H1", "zero", positions=[9]), ablate("L1H2", "zero", positions=[5]), ablate("L2H1", "zero", positions=[11])]
    runs = list(model.run_each(edits, resume=clean, suffix=True, logits=[11]))
    assert [run.start for run in runs] == [5, 5, 11]
    for edit, run in zip(edits, runs, strict=True):
        testing.assert_close(run.logits, model.run(tokens, edit=edit, logits=[11]).logits, **SUFFIX)


@pytest.mark.parametrize("suffix", [False, True])
def test_logits_are_those_asked_for(tiny_model, tokens, suffix):
    model = tiny_model("llama")
    clean = model.run(tokens, mask=PADDED, keep="resume")
    chosen = torch.zeros(2, 12, dtype=torch.bool)
    chosen[0, [8, 11]] = chosen[1, 8] = True
    edits = [
        ablate("L1H1", "zero", positions=[4]),
        scale("L1.mlp_out", 0.0, positions=[6]),
        ablate("L0H1", "zero", positions=[5]),
    ]
    for logits in (chosen, [6, 7], "last"):
        for edit, run in zip(edits, model.run_each(edits, resume=clean, suffix=suffix, logits=logits), strict=True):
            alone = model.run(tokens, mask=PADDED, edit=edit, logits=logits).logits
            assert run.logits.shape == alone.shape
            testing.assert_close(run.logits, alone, **SUFFIX)
    assert all(run.logits is None for run in model.run_each(edits, resume=clean, logits="none"))


@pytest.mark.parametrize("suffix", [False, True])
def test_what_is_recorded_before_the_edits_is_there_too(tiny_model, tokens, suffix):
    model = tiny_model("llama")
    clean = model.run(tokens, keep="resume", record=["L0.z", "L1.pattern", "embed"])
    edits = [ablate("L2H1", "zero", positions=[6]), ablate("L2H2", "zero", positions=[6])]
    for record in (["L1.pattern"], ["L0.z", "L1.pattern"], ["embed"], ["L*.z"]):
        for run in model.run_each(edits, resume=clean, record=record, suffix=suffix):
            for site in set(record) & set(clean.sites):
                expected = clean[site][:, :, run.start :] if "pattern" in site else clean[site][:, run.start :]
                testing.assert_close(run[site], expected, **SUFFIX)


def test_edits_of_one_place_keep_their_order(tiny_model, tokens):
    model, vector = tiny_model("llama"), torch.linspace(-1, 1, 32)
    clean = model.run(tokens, keep="resume")
    add, double = steer("embed", vector), scale("L0.resid_pre", 2.0)  # two names of one place
    groups = [[add, double], [double, add], [double], [add, add, double]]
    for group, run in zip(groups, model.run_each(groups, resume=clean, record="embed"), strict=True):
        alone = model.run(tokens, edit=group, record="embed", logits="last")
        assert torch.equal(run["embed"], alone["embed"])
        testing.assert_close(run.logits, alone.logits, **CLOSE)


def test_values_of_another_run_are_put_in_every_copy(tiny_model, tokens):
    model = tiny_model("llama")
    clean = model.run(tokens, keep="resume", record=["L1.z", "norm_scale"])
    edits = [
        ablate("L1H1", "resample", source=clean),
        [freeze("norm_scale", clean), ablate("L1H2", "zero")],
        freeze("L1.z", clean),
    ]
    for edit, run in zip(edits, model.run_each(edits, resume=clean), strict=True):
        testing.assert_close(run.logits, model.run(tokens, edit=edit, logits="last").logits, **CLOSE)


def test_no_edits_are_no_runs_and_nonsense_is_refused(tiny_model, tokens):
    model = tiny_model("llama")
    clean = model.run(tokens, keep="resume")
    assert list(model.run_each([], resume=clean)) == []
    with pytest.raises(UsageError, match="empty group"):
        list(model.run_each([ablate("L1H1", "zero"), []], resume=clean))
    with pytest.raises(UnknownSite, match="4 heads"):
        next(model.run_each([ablate("L1H1", "zero"), ablate("L1H7", "zero")], resume=clean))
    with pytest.raises(UsageError, match="keep='resume'"):
        model.run_each([ablate("L1H1", "zero")], resume=model.run(tokens))
    with pytest.raises(UsageError, match="without edits"):
        model.run_each([ablate("L1H1", "zero")], resume=model.run(tokens, edit=ablate("L1H1", "zero"), keep="resume"))
    with pytest.raises(UsageError, match="no key left"):
        list(model.run_each([knockout("L1H1", [0], [0])], resume=clean))


@pytest.mark.parametrize("family", REGISTRY[::5])
def test_nothing_is_left_behind_even_when_one_stops_early(tiny_model, tokens, family, assert_untouched):
    model = tiny_model(family)
    clean = model.run(tokens, keep="resume")
    with assert_untouched(model):
        runs = model.run_each([ablate(f"L{layer}H1", "zero") for layer in range(3)], resume=clean, suffix=True)
        next(runs)
        runs.close()
    assert torch.equal(model.run(tokens).logits, clean.logits)
