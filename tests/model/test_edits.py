"""Edits: they do what an independent hook on the Hugging Face module does, where they say, and leave nothing behind."""

import pytest
import torch
from torch import testing

from families import ALL, MIXTURES, OWN_CODE
from innerworks.errors import UnknownSite, UsageError
from innerworks.model import Mean, ablate, freeze, knockout, patch, scale, steer
from innerworks.sites import Site

REGISTRY = [family for family in ALL if family not in OWN_CODE]
ATTENTION = ("resid_pre", "attn_norm_scale", "q", "k", "v", "scores", "pattern", "z", "attn_out")
FEED_FORWARD = ("mlp_norm_scale", "neurons", "expert_neurons", "mlp_out")
IN_A_BLOCK = (*ATTENTION, *FEED_FORWARD, "resid_post")
STAGE = {kind: stage for stage, kind in enumerate(IN_A_BLOCK)} | {"q": 3, "k": 3, "v": 3}

SITES = [
    "embed",
    *("L1.resid_pre", "L1.resid_post", "L1.attn_out", "L1.mlp_out"),
    *("L1.q", "L1.k", "L1.v", "L1.pattern", "L1.z", "L1.neurons"),
    *("L1H2.q", "L1H2.k", "L1H2.v", "L1H2.pattern", "L1H2.z", "L1H2", "L1N7", "L1D3"),
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
    clean = model.run(tokens, keep="resume", record=["L*.z", "L0.resid_post"])
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


# --- every family, every kind ----------------------------------------------------------------------------------------


def places(model):
    """The editable sites of a model in the order in which they pass: of every kind one, in the first layer from 1 on with it."""
    found = {"embed": 0}
    for kind in IN_A_BLOCK:
        own_pattern = kind == "pattern" and model.adapter.attention_code == "own"
        layers = [layer for layer in range(1, model.anatomy.layers) if model.lacks(kind, layer) is None and not own_pattern]
        found |= {f"L{layer}.{kind}": layer for layer in layers[:1]}
    return [*found, *(["norm_scale"] if has_final_norm(model) else [])]


def kind_of(site):
    return Site.parse(site).activation


def has_final_norm(model):
    return model.adapter.final_norm in dict(model.hf.named_modules())


def parts_of(model):
    """Sites that are one head or one neuron of a place."""
    of = {"z": "H2.z", "q": "H2.q", "k": "H2.k", "v": "H2.v", "scores": "H2.scores", "pattern": "H2.pattern"}
    of |= {"neurons": "N7", "expert_neurons": "E1N3"}
    split = [site.partition(".") for site in places(model)]
    return [layer + of[kind] for layer, _, kind in split if kind in of]


def seen(model):
    """What is recorded beside: all editable places, and the end of the block before."""
    return ["L0.resid_pre", "L0.resid_post", *(site for site in places(model) if site != "embed")]


def untouched(model, place, edited):
    """Must a place not move when another is edited?"""
    (kind, layer), (edited_kind, edited_layer) = model.place(Site.parse(place)), model.place(Site.parse(edited))
    if layer != edited_layer:
        return layer < edited_layer
    beside = model.anatomy.parallel and edited_kind not in ("resid_pre", "attn_norm_scale") and kind != "resid_post"
    if beside and (kind in FEED_FORWARD) != (edited_kind in FEED_FORWARD):
        return True
    return STAGE.get(kind, 0) <= STAGE.get(edited_kind, 0) and kind != edited_kind


def vector_for(run, site, seed=0):
    """A random vector that can be added at a site."""
    width = 1 if run[site].ndim == 2 else run[site].shape[-1]
    return 0.1 + torch.rand(width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", ALL)
def test_patching_any_place_of_any_family_with_itself_changes_nothing(tiny_model, tokens, family):
    model = tiny_model(family)
    clean = model.run(tokens, record=seen(model))
    for site in places(model) + parts_of(model):
        again = model.run(tokens, record=seen(model), edit=patch(site, clean[site], positions="all" if "H2" in site else None))
        assert torch.equal(clean.logits, again.logits), site
        assert all(torch.equal(clean[place], again[place]) for place in seen(model)), site


@pytest.mark.parametrize("family", ALL)
def test_an_edit_changes_what_it_names_and_nothing_before_it(tiny_model, tokens, family):
    model = tiny_model(family)
    clean = model.run(tokens, record=seen(model))
    for site in places(model) + parts_of(model):
        vector = vector_for(clean, site)
        edited = model.run(tokens, record=seen(model), edit=steer(site, vector, 2.0, positions=[3, 8]))
        whole = str(Site.parse(model.site(model.place(Site.parse(site)))))
        expected = clean[whole].clone()
        part = rows_first(narrowed_by_hand(expected, site), site)
        part[:, [3, 8]] += vector * 2.0 if part.ndim > 2 else vector[0] * 2.0
        assert torch.equal(edited[whole], expected), site
        for place in seen(model):
            if untouched(model, place, site):
                assert torch.equal(edited[place], clean[place]), (site, place)
        moved = (edited.logits - clean.logits).abs().amax(dim=(0, 2))
        assert moved[:3].max() <= 1e-5 and moved[3:].max() > 1e-5, site
    assert torch.equal(model.run(tokens, record=seen(model)).logits, clean.logits)


def narrowed_by_hand(activation, site):
    """A view of the part of a recorded activation that a site names."""
    site = Site.parse(site)
    if site.head is not None:
        return activation[:, site.head] if site.activation in ("scores", "pattern") else activation[:, :, site.head]
    if site.expert is not None:
        return activation[:, :, site.expert, site.neuron]
    return activation if site.neuron is None else activation[:, :, site.neuron]


def rows_first(part, site):
    """A view as `[batch, seq, ...]`."""
    return part.movedim(-2, 1) if kind_of(site) in ("scores", "pattern") else part


@pytest.mark.parametrize("family", ALL)
def test_zero_mean_and_another_text_are_put_everywhere_but_at_the_first_token(tiny_model, tokens, family):
    model = tiny_model(family)
    sites = [site for site in places(model) + parts_of(model) if "norm_scale" not in site]
    clean = model.run(tokens, record=seen(model))
    kinds = {kind_of(site) for site in sites} - {"embed", "scores", "pattern"}
    mean = model.mean(["the cat sat on the mat .", "a dog ran"], kinds=sorted(kinds))
    for site in sites:
        zero = model.run(tokens, record=site, edit=ablate(site, "zero"))
        times = model.run(tokens, record=site, edit=scale(site, 0.0))
        expected = clean[site].clone()
        rows_first(expected, site)[:, 1:] = 0
        assert rows_first(zero[site], site)[:, 1:].abs().max() == 0, site
        testing.assert_close(zero[site], expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(times[site], zero[site]), site
        if family not in MIXTURES or kind_of(site) not in ("embed", "resid_pre", "resid_post"):  # where all experts tie
            assert torch.equal(times.logits, zero.logits), site
        other = model.run(tokens, record=site, edit=ablate(site, "resample", source=clean))
        rows_first(expected, site)[:, 1:] = rows_first(clean[site].flip(0), site)[:, 1:]  # of two texts, the other one
        testing.assert_close(other[site], expected, atol=1e-5, rtol=1e-5)
        if kind_of(site) in kinds:
            usual = model.run(tokens, record=site, edit=ablate(site, mean=mean))
            assert torch.equal(usual[site][:, 1:], mean.of(Site.parse(site)).expand_as(usual[site][:, 1:])), site
            testing.assert_close(usual[site][:, 0], clean[site][:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ALL)
def test_edits_of_several_heads_are_edits_of_each_in_any_order(tiny_model, tokens, family):
    model, vector = tiny_model(family), torch.linspace(-1, 1, tiny_model(family).anatomy.d_head)
    clean = model.run(tokens, record="L1.z")
    group = [steer("L1H0", vector, positions="all"), scale("L1H2", 3.0, positions="all"), ablate("L1H3", "zero", positions=[5])]
    by_hand = clean["L1.z"].clone()
    by_hand[:, :, 0] += vector
    by_hand[:, :, 2] *= 3
    by_hand[:, 5, 3] = 0
    together = model.run(tokens, edit=group).logits
    assert torch.equal(together, model.run(tokens, edit=group[::-1]).logits)
    assert torch.equal(together, model.run(tokens, edit=patch("L1.z", by_hand)).logits)


PADDED = torch.ones(2, 12, dtype=torch.bool)
PADDED[0, :3] = PADDED[1, 9:] = False  # nine tokens each, padded in front and behind


@pytest.mark.parametrize("family", ALL)
def test_edits_of_padded_texts_are_those_of_the_texts_alone(tiny_model, tokens, family):
    model = tiny_model(family)
    chosen = torch.zeros(2, 12, dtype=torch.bool)
    chosen[0, [3, 8]] = chosen[1, [0, 5]] = True  # positions 0 and 5
    wheres = {"all": range(9), None: range(1, 9), (2, 7): (2, 7), chosen: (0, 5)}
    sites = ["L1H2", "L1.resid_post", *(["L1H1.k", "L1H1.scores"] if family not in OWN_CODE else [])]
    alone = [tokens[:1, 3:], tokens[1:, :9]]
    for site in sites:
        whole = str(Site.parse(site).layer).join(("L", "." + kind_of(site)))
        clean = model.run(tokens, mask=PADDED, record=whole)
        for where, hit in wheres.items():
            run = model.run(tokens, mask=PADDED, record=whole, edit=scale(site, 1.5, positions=where))
            changed = rows_first(run[whole] != clean[whole], site).flatten(2).any(dim=-1)
            assert changed[0].nonzero().flatten().tolist() == [3 + position for position in hit], (site, where)
            assert changed[1].nonzero().flatten().tolist() == list(hit), (site, where)
            for one, text in enumerate(alone):
                single = model.run(text, edit=scale(site, 1.5, positions=list(hit))).logits[0]
                testing.assert_close(run.logits[one][PADDED[one]], single, atol=2e-5, rtol=0)


# --- scores, knockouts, norms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", REGISTRY)
def test_a_knockout_takes_the_probability_and_gives_it_to_the_others(tiny_model, tokens, family):
    model = tiny_model(family)
    clean = model.run(tokens, record=["L1.pattern", "L1.z"])
    for site, heads in (("L1H2", [2]), ("L1", [0, 1, 2, 3])):
        cut = model.run(tokens, record=["L1.pattern", "L1.z"], edit=knockout(site, [5, 7], [3, 4]))
        expected = clean["L1.pattern"].clone()
        for head in heads:
            for query in (5, 7):
                expected[:, head, query, [3, 4]] = 0
                expected[:, head, query] /= expected[:, head, query].sum(dim=-1, keepdim=True)
        pattern = cut["L1.pattern"]
        assert pattern[:, heads][:, :, [5, 7]][..., [3, 4]].abs().max() == 0
        testing.assert_close(pattern.sum(dim=-1), torch.ones(2, 4, 12))
        testing.assert_close(pattern, expected, atol=1e-6, rtol=1e-5)
        left = [head for head in range(4) if head not in heads]
        assert torch.equal(pattern[:, left], clean["L1.pattern"][:, left])
        by_hand = model.run(tokens, edit=patch("L1.pattern", expected))
        testing.assert_close(cut.logits, by_hand.logits, atol=2e-5, rtol=0)
        assert (cut.logits - clean.logits)[:, [5, 7]].abs().max() > 1e-4


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "opt"])
def test_a_knockout_counts_positions_in_padded_texts_and_spares_padding(tiny_model, tokens, family):
    model = tiny_model(family)
    cut = model.run(tokens, mask=PADDED, record="L1.pattern", edit=knockout("L1H2", None, 7))  # padding may see nothing else
    assert cut["L1H2.pattern"][0, 3:, 10].abs().max() == 0 and cut["L1H2.pattern"][1, :9, 7].abs().max() == 0
    single = model.run(tokens[1:, :9], edit=knockout("L1H2", range(1, 9), [7]))
    testing.assert_close(cut.logits[1, :9], single.logits[0], atol=2e-5, rtol=0)
    single = model.run(tokens[:1, 3:], edit=knockout("L1H2", None, [7]))
    testing.assert_close(cut.logits[0, 3:], single.logits[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize(("query", "key"), [(0, 0), ([0, 5], "all"), (None, "all"), ([2], [0, 1, 2])])
def test_a_knockout_leaves_every_query_a_key(tiny_model, tokens, query, key):
    for site in ("L1H2", "L1"):
        with pytest.raises(UsageError, match="no key left to look at"):
            tiny_model("llama").run(tokens, edit=knockout(site, query, key))


def test_a_knockout_within_a_sliding_window_leaves_every_query_a_key(tiny_model, tokens):
    model = tiny_model("mistral")
    model.run(tokens, edit=knockout("L1H2", 8, range(5)))
    with pytest.raises(UsageError, match="no key left"):
        model.run(tokens, edit=knockout("L1H2", 8, range(3, 9)))  # keys 0 to 2 are out of sight


@pytest.mark.parametrize("site", ["L1.z", "L1N7", "embed", "L1E1N2", "L1H2.q"])
def test_a_knockout_is_of_heads(site):
    with pytest.raises(UsageError, match="give a head such as L5H3"):
        knockout(site, None, 0)


@pytest.mark.parametrize("family", OWN_CODE)
def test_attention_code_of_a_familys_own_is_not_edited(tiny_model, tokens, family):
    model = tiny_model(family)
    for kind in ("q", "k", "v", "scores", "pattern", "q_in", "k_in", "v_in"):
        with pytest.raises(UnknownSite, match="code of its own"):
            model.run(tokens, edit=scale(f"L1H2.{kind}", 2.0))
    with pytest.raises(UnknownSite, match="code of its own"):
        model.run(tokens, edit=knockout("L1H2", None, 0))


@pytest.mark.parametrize("family", REGISTRY)
def test_edited_scores_never_show_what_the_mask_hides(tiny_model, tokens, family):
    model = tiny_model(family)
    clean = model.run(tokens, record="L1.pattern")["L1.pattern"]
    for edit in (ablate("L1.scores", "zero"), scale("L1.scores", -1.0), steer("L1.scores", torch.linspace(-9, 9, 12))):
        pattern = model.run(tokens, record="L1.pattern", edit=edit)["L1.pattern"]
        assert pattern.isfinite().all() and pattern[clean == 0].abs().max() == 0
        testing.assert_close(pattern.sum(dim=-1), torch.ones(2, 4, 12))
    even = model.run(tokens, record="L1.pattern", edit=ablate("L1.scores", "zero"))["L1.pattern"]
    seen = (clean > 0).float()
    testing.assert_close(even[:, :, 1:], (seen / seen.sum(dim=-1, keepdim=True))[:, :, 1:])


@pytest.mark.parametrize("family", ALL)
def test_twice_the_scale_of_a_norm_is_half_of_what_it_returns(tiny_model, tokens, family):
    model = tiny_model(family)
    for kind, reader in (("attn_norm_scale", "attention"), ("mlp_norm_scale", "mlp")):
        if model.lacks(kind, 1) is not None:
            continue
        module, seen = model.part(reader, 1), []
        module = model.part("mlp_in", 1) if module is None else module  # OPT's feed-forward is no module of its own
        handle = module.register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
        try:
            model.run(tokens)
            model.run(tokens, edit=scale(f"L1.{kind}", 2.0))
        finally:
            handle.remove()
        whole, half = (one.view(2, 12, -1) for one in seen)
        bias = getattr(model.norm_module(kind, 1), "bias", None)
        bias = torch.zeros(()) if bias is None else bias.detach()
        testing.assert_close((half - bias)[:, 1:], (whole - bias)[:, 1:] / 2)
        assert torch.equal(half[:, 0], whole[:, 0])
    if has_final_norm(model):
        bias = getattr(model.norm_module("norm_scale", 0), "bias", None)
        bias = torch.zeros(()) if bias is None else bias.detach()
        whole, half = (model.run(tokens, edit=edit).final for edit in ([], scale("norm_scale", 2.0, positions="all")))
        testing.assert_close(half - bias, (whole - bias) / 2)


@pytest.mark.parametrize("family", ALL)
def test_frozen_activations_hold_their_values_whatever_happens_before(tiny_model, tokens, family):
    model, push = tiny_model(family), steer("embed", torch.ones(32), positions="all")
    last = f"L{model.anatomy.layers - 1}.resid_post"
    clean = model.run(tokens, record=[*seen(model), last])
    for site in places(model)[1:]:
        held = model.run(tokens, record=site, edit=[push, freeze(site, clean)])
        assert torch.equal(held[site], clean[site]), site
    everywhere = model.run(tokens, edit=[push, freeze(last, clean)])
    testing.assert_close(everywhere.logits, clean.logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", [one for one in ALL if one != "opt-post-norm"])  # that one has no final norm
def test_with_its_scale_frozen_the_final_norm_is_linear(tiny_model, tokens, family):
    model = tiny_model(family)
    last, vector = f"L{model.anatomy.layers - 1}.resid_post", torch.randn(32, generator=torch.Generator().manual_seed(5))
    clean = model.run(tokens, record=["norm_scale", last])
    before = model.readout(clean.final, capped=False)
    moved = {}
    for strength in (1.0, 100.0):
        run = model.run(tokens, edit=[steer(last, vector, strength, positions="all"), freeze("norm_scale", clean)])
        moved[strength] = (model.readout(run.final, capped=False) - before) / strength
    testing.assert_close(moved[1.0], moved[100.0], atol=2e-4, rtol=1e-3)
    free = model.run(tokens, edit=steer(last, vector, 100.0, positions="all"))
    assert ((model.readout(free.final, capped=False) - before) / 100 - moved[1.0]).abs().max() > 1e-2


def test_a_norm_cannot_be_made_to_divide_by_nothing(tiny_model, tokens):
    with pytest.raises(UsageError, match="divides by it"):
        tiny_model("llama").run(tokens, edit=[ablate("L1.attn_norm_scale", "zero")])


@pytest.mark.parametrize("kind", ["norm_scale", "embed", "zz"])
def test_a_mean_is_over_activations_of_layers(tiny_model, kind):
    with pytest.raises(UnknownSite, match="no activation of layers"):
        tiny_model("llama").mean(["the cat sat"], kinds=(kind,))
