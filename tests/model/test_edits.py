"""Edits: they do what an independent hook on the Hugging Face module does, where they say, and leave nothing behind."""

import pytest
import torch
from torch import testing

from innerworks.errors import UnknownSite, UsageError
from innerworks.model import Mean, ablate, patch

SITES = [
    "embed",
    *("L1.resid_pre", "L1.resid_post", "L1.attn_out", "L1.mlp_out"),
    *("L1.q", "L1.k", "L1.v", "L1.pattern", "L1.z", "L1.neurons"),
    *("L1H2.q", "L1H2.k", "L1H2.v", "L1H2.pattern", "L1H2.z", "L1H2", "L1N7"),
]
EVERYWHERE = torch.ones(2, 12, dtype=torch.bool)
MODULES = {  # site -> module of a block, whether its input is meant, and which part of it
    "gpt2": {
        "L1.resid_pre": ("", True, slice(None)),
        "L1.resid_post": ("", False, slice(None)),
        "L1.attn_out": ("attn", False, slice(None)),
        "L1.mlp_out": ("mlp", False, slice(None)),
        "L1.z": ("attn.c_proj", True, slice(None)),
        "L1H2": ("attn.c_proj", True, slice(16, 24)),
        "L1.neurons": ("mlp.c_proj", True, slice(None)),
        "L1N7": ("mlp.c_proj", True, 7),
    },
    "llama": {
        "L1.resid_pre": ("", True, slice(None)),
        "L1.resid_post": ("", False, slice(None)),
        "L1.attn_out": ("self_attn", False, slice(None)),
        "L1.mlp_out": ("mlp", False, slice(None)),
        "L1.z": ("self_attn.o_proj", True, slice(None)),
        "L1H2": ("self_attn.o_proj", True, slice(16, 24)),
        "L1.neurons": ("mlp.down_proj", True, slice(None)),
        "L1N7": ("mlp.down_proj", True, 7),
    },
}


@pytest.fixture(params=["gpt2", "llama"])
def family(request):
    """One family of each kind: what this file tests does not depend on their options."""
    return request.param


def rows(run, site):
    """A recorded site as `[batch, seq, ...]`."""
    activation = run[site]
    if "pattern" in site:
        activation = activation.movedim(-2, 1)
    return activation


@pytest.mark.parametrize("site", SITES)
def test_patching_with_itself_changes_nothing(model, tokens, site):
    clean = model.run(tokens, record=[site])
    again = model.run(tokens, record=[site], edit=[patch(site, clean[site], positions=EVERYWHERE)])
    assert torch.equal(clean.logits, again.logits)
    assert torch.equal(clean[site], again[site])


@pytest.mark.parametrize("site", SITES)
def test_patching_with_another_value_puts_it_there(model, tokens, site):
    clean = model.run(tokens, record=[site])
    other = clean[site].flip(0)  # of the other sequence
    patched = model.run(tokens, record=[site], edit=[patch(site, other, positions=EVERYWHERE)])
    assert torch.equal(patched[site], other)
    assert (patched.logits - clean.logits).abs().max() > 1e-3


@pytest.mark.parametrize("site", SITES)
def test_an_ablation_zeroes_every_position_but_the_first(model, tokens, site):
    clean = model.run(tokens, record=[site])
    ablated = model.run(tokens, record=[site], edit=[ablate(site, "zero")])
    assert torch.equal(rows(ablated, site)[:, 0], rows(clean, site)[:, 0])
    assert rows(ablated, site)[:, 1:].abs().max() == 0
    assert (ablated.logits - clean.logits)[:, 1:].abs().max() > 1e-3
    testing.assert_close(ablated.logits[:, 0], clean.logits[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("site", list(MODULES["gpt2"]))
def test_an_ablation_does_what_an_independent_hook_does(tiny_model, plain, family, tokens, site):
    ours = tiny_model(family).run(tokens, edit=[ablate(site, "zero")])
    seen = plain(family)
    name, reads, part = MODULES[family][site]

    def zeroed(tensor):
        tensor = tensor.clone()
        tensor[:, 1:, part] = 0
        return tensor

    module = seen.hf.get_submodule(f"{seen.block}.1.{name}".removesuffix("."))
    if reads:
        handle = module.register_forward_pre_hook(lambda module, args: (zeroed(args[0]), *args[1:]))
    else:
        handle = module.register_forward_hook(
            lambda module, args, out: (zeroed(out[0]), *out[1:]) if isinstance(out, tuple) else zeroed(out)
        )
    with torch.no_grad():
        theirs = seen.hf(input_ids=tokens, use_cache=False)
    handle.remove()
    testing.assert_close(ours.logits, theirs.logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", range(4))
def test_editing_one_head_inside_attention_moves_no_other_head(model, tokens, head):
    record = ["L1.q", "L1.k", "L1.v", "L1.pattern", "L1.z"]
    clean = model.run(tokens, record=record)
    others = [other for other in range(4) if other != head]
    weight = torch.arange(1, 13.0)  # how many keys each query sees
    expected = {
        "q": (torch.ones(12, 12).tril() / weight[:, None])[1:],  # no query: every visible key alike
        "v": None,
        "k": None,
        "pattern": torch.zeros(11, 12),
    }
    for kind, pattern in expected.items():
        run = model.run(tokens, record=record, edit=[ablate(f"L1H{head}.{kind}", "zero")])
        for seen in ("q", "k", "v"):
            assert torch.equal(run[f"L1.{seen}"][:, :, others], clean[f"L1.{seen}"][:, :, others])
        assert torch.equal(run["L1.pattern"][:, others], clean["L1.pattern"][:, others])
        assert torch.equal(run["L1.z"][:, :, others], clean["L1.z"][:, :, others])
        if pattern is not None:
            testing.assert_close(run[f"L1H{head}.pattern"][:, 1:], pattern.expand(2, 11, 12))
        read = run[f"L1H{head}.pattern"] @ run[f"L1H{head}.v"]
        testing.assert_close(read, run[f"L1H{head}.z"])
    run = model.run(tokens, record=record, edit=[ablate(f"L1H{head}.v", "zero")])
    first = clean[f"L1H{head}.pattern"][:, :, :1] * clean[f"L1H{head}.v"][:, :1]
    testing.assert_close(run[f"L1H{head}.z"], first)


def test_ablating_all_of_z_is_ablating_each_head_in_turn(model, tokens):
    whole = model.run(tokens, edit=[ablate("L1.z", "zero")])
    each = model.run(tokens, edit=[ablate(f"L1H{head}", "zero") for head in range(4)])
    assert torch.equal(whole.logits, each.logits)


@pytest.mark.parametrize(
    ("positions", "hit"),
    [
        ([3, 5], [3, 5]),
        ((0,), [0]),
        (torch.tensor([2]), [2]),
        (torch.tensor([[False, True] * 6] * 2), [1, 3, 5, 7, 9, 11]),
        (None, list(range(1, 12))),
    ],
)
@pytest.mark.parametrize("site", ["L1.resid_post", "L1H2", "L1N7", "L1H2.pattern", "L1.k"])
def test_only_the_positions_named_are_edited(tiny_model, tokens, recorded, site, positions, hit):
    model = tiny_model("llama")
    clean = model.run(tokens, record=[site])
    edited = model.run(tokens, record=[site], edit=[ablate(site, "zero", positions=positions)])
    left = [position for position in range(12) if position not in hit]
    assert rows(edited, site)[:, hit].abs().max() == 0
    assert torch.equal(rows(edited, site)[:, left], rows(clean, site)[:, left])


def test_a_boolean_names_positions_of_each_sequence(tiny_model, tokens):
    model, where = tiny_model("llama"), torch.zeros(2, 12, dtype=torch.bool)
    where[0, 3] = where[1, 7] = True
    clean = model.run(tokens, record=["L1.mlp_out"])
    edited = model.run(tokens, record=["L1.mlp_out"], edit=[ablate("L1.mlp_out", "zero", positions=where)])
    changed = (edited["L1.mlp_out"] != clean["L1.mlp_out"]).any(dim=-1)
    assert torch.equal(changed, where)


def test_positions_count_from_the_first_token_of_a_sequence_padded_on_the_left(tiny_model, tokens):
    model = tiny_model("gpt2")
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, :4] = False
    clean = model.run(tokens, mask=mask, record=["L1.mlp_out"])
    for positions, first in ((None, 1), ([3], 3)):
        run = model.run(tokens, mask=mask, record=["L1.mlp_out"], edit=[ablate("L1.mlp_out", "zero", positions=positions)])
        changed = (run["L1.mlp_out"] != clean["L1.mlp_out"]).any(dim=-1) & mask
        last = 12 if positions is None else first + 1
        expected = [[first <= i < last for i in range(12)], [first <= i - 4 < last for i in range(12)]]
        assert changed.tolist() == expected


@pytest.mark.parametrize("site", ["L1H2", "L1N7", "L1.attn_out", "L1.z", "L1H2.k"])
def test_a_mean_ablation_puts_the_mean_there(model, tokens, site):
    kinds = ("z", "neurons", "attn_out", "k")
    mean = model.mean(["the cat sat on the mat .", "a dog ran"], kinds=kinds)
    run = model.run(tokens, record=[site], edit=[ablate(site, mean=mean)])
    assert torch.equal(run[site][:, 1:], mean.of(ablate(site, mean=mean).site).expand_as(run[site][:, 1:]))
    assert "mean over 2 texts" in ablate(site, mean=mean).says


def test_a_patch_covers_every_position_unless_told_otherwise(tiny_model, tokens):
    model, one = tiny_model("llama"), torch.ones(8)
    every = model.run(tokens, record=["L1.z"], edit=[patch("L1H2", one)])
    assert (every["L1H2"] == 1).all()
    some = model.run(tokens, record=["L1.z"], edit=[patch("L1H2", one, positions=[0, 3])])
    assert (some["L1H2"] == 1).all(dim=-1).tolist() == [[i in (0, 3) for i in range(12)]] * 2


def test_edits_of_one_place_happen_in_the_order_given(tiny_model, tokens):
    model, one = tiny_model("gpt2"), torch.ones(8)
    first = model.run(tokens, record=["L1.z"], edit=[ablate("L1.z", "zero"), patch("L1H2", one)])
    second = model.run(tokens, record=["L1.z"], edit=[patch("L1H2", one), ablate("L1.z", "zero")])
    assert first["L1H2"][:, 1:].unique().tolist() == [1.0]
    assert second["L1.z"][:, 1:].abs().max() == 0


def test_recordings_and_watchers_see_the_edited_activation(tiny_model, tokens):
    model, seen = tiny_model("llama"), []
    site = ablate("L1.pattern", "zero").site
    model.run(tokens, edit=[ablate("L1.pattern", "zero")], watch=[(site, lambda pattern, queries: seen.append(pattern))])
    assert torch.cat(seen, dim=2)[:, :, 1:].abs().max() == 0


def test_a_watcher_that_returns_a_tensor_edits(tiny_model, tokens):
    from innerworks.sites import Site

    model = tiny_model("llama")
    run = model.run(tokens, watch=[(Site.parse("L1.mlp_out"), lambda x, queries: torch.zeros_like(x))])
    expected = model.run(tokens, edit=[ablate("L1.mlp_out", "zero", positions=EVERYWHERE)])
    assert torch.equal(run.logits, expected.logits)


@pytest.mark.parametrize("site", SITES)
def test_after_an_edit_the_model_is_bit_for_bit_what_it_was(model, tokens, plain, family, assert_untouched, site):
    with assert_untouched(model):
        clean = model.run(tokens, keep="resume")
        model.run(tokens, record=["L1.pattern"], edit=[ablate(site, "zero")], resume=clean)
        with torch.no_grad():
            after = model.hf(input_ids=tokens, use_cache=False)
    assert torch.equal(after.logits, plain(family).logits)


@pytest.mark.parametrize("resumed", [False, True])
def test_an_exception_inside_a_run_leaves_nothing_behind(model, tokens, plain, family, assert_untouched, resumed):
    from innerworks.sites import Site

    def fail(activation, queries):
        raise ZeroDivisionError

    clean = model.run(tokens, keep="resume")
    with assert_untouched(model):
        for kind in ("pattern", "z", "resid_post"):
            with pytest.raises(ZeroDivisionError):
                model.run(
                    tokens,
                    record=["L2.z"],
                    edit=[ablate("L1.mlp_out", "zero")],
                    watch=[(Site(layer=2, kind=kind), fail)],
                    resume=clean if resumed else None,
                )
        assert torch.is_grad_enabled()
    assert torch.equal(model.run(tokens).logits, plain(family).logits)


def test_an_edit_leaves_what_was_recorded_before_it_alone(model, tokens):
    clean = model.run(tokens, keep="resume", record=["L*.z"])
    kept = {place: activation.clone() for place, activation in clean.recorded.items()}
    for edit in (ablate("L1.resid_pre", "zero"), ablate("L1.z", "zero"), patch("L2.resid_pre", clean["L0.resid_post"])):
        edited = model.run(tokens, record=["L0.resid_post"], edit=[edit])
        assert torch.equal(edited["L0.resid_post"], kept["resid_post", 0])
        model.run(tokens, edit=[edit], resume=clean)
    assert all(torch.equal(clean.recorded[place], activation) for place, activation in kept.items())


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: ablate("L1.resid_mid", "zero"), UnknownSite, "edit attn_out or resid_pre"),
        (lambda: patch("logits", torch.zeros(1)), UnknownSite, "edit the returned logits"),
        (lambda: ablate("L1", "zero"), UnknownSite, "L1 is a layer"),
        (lambda: ablate("L1H2.patern", "zero"), UnknownSite, "Did you mean pattern"),
        (lambda: ablate("L1H2.mlp_out", "zero"), UnknownSite, "mlp_out has no head"),
        (lambda: ablate("L1H2"), UsageError, "needs the mean"),
        (lambda: ablate("L1N7", mean=Mean(values={"z": torch.zeros(3, 4, 8)}, over="nothing")), UsageError, "hold z"),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused_when_it_is_made(make, error, says):
    with pytest.raises(error, match=says):
        make()


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (ablate("L7H2", "zero"), "3 layers"),
        (ablate("L1H9", "zero"), "4 heads"),
        (ablate("L1.z.F3", "zero"), "L1.z.F3"),
        (ablate("L1H2", "zero", positions=torch.ones(2, 5, dtype=torch.bool)), r"\(2, 5\)"),
        (ablate("L1H2", "zero", positions=[-1]), "-1"),
        (ablate("L1H2", "zero", positions=[3, 12]), "12"),
        (patch("L1H2", torch.zeros(9)), r"\(9,\)"),
        (patch("L1.resid_post", torch.zeros(2, 5, 32)), r"\(2, 5, 32\)"),
        (patch("L1H2.pattern", torch.zeros(2, 5, 12)), r"\(2, 5, 12\)"),
    ],
)
def test_an_edit_that_does_not_fit_the_run_is_refused(tiny_model, tokens, assert_untouched, edit, says):
    model = tiny_model("llama")
    with assert_untouched(model), pytest.raises(UsageError, match=says):
        model.run(tokens, edit=[edit])
