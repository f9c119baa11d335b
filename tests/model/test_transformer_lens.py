"""TransformerLens' ways of running a model are `Model.run` under other names, and the page that says so tells the truth."""

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import testing

import families
import innerworks as iw
from innerworks.errors import UnknownSite, UsageError
from innerworks.model import ablate, attention, patch
from innerworks.model.transformer_lens import INSTEAD, Cache, Hook, hook_names, run_with_cache, run_with_hooks, table
from innerworks.sites import INPUTS, LAYER_KINDS, Site

PAGE = Path(__file__).parents[2] / "docs" / "transformer_lens.md"


@pytest.fixture(params=["gpt2", "llama"])
def family(request):
    """One family that rotates its queries and one that does not."""
    return request.param


def zero_head(tensor, hook):
    tensor = tensor.clone()
    tensor[:, :, 2] = 0
    return tensor


# --- the cache -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", families.ALL)
def test_a_cache_holds_what_a_run_records_in_their_shapes(tiny_model, tokens, family):
    model = tiny_model(family)
    logits, cache = run_with_cache(model, tokens)
    names = hook_names(model)
    run = model.run(tokens, record=list(names.values()))
    assert list(cache) == list(names) and len(cache) == len(names) > 20
    assert torch.equal(logits, run.logits)
    for name, site in names.items():
        expected = run[site].unsqueeze(-1) if name.endswith("hook_scale") else run[site]
        assert torch.equal(cache[name], expected) and torch.equal(cache[str(site)], expected)


def test_every_kind_that_is_recorded_has_a_name(tiny_model):
    kinds = {site.kind for site in hook_names(tiny_model("llama")).values()}
    assert kinds == {*LAYER_KINDS, "norm_scale"} - {*INPUTS, "expert_neurons"}


def test_queries_are_named_as_in_transformer_lens(tiny_model):
    assert hook_names(tiny_model("llama"))["blocks.1.attn.hook_rot_q"] == Site(layer=1, kind="q")
    assert hook_names(tiny_model("gpt2"))["blocks.1.attn.hook_q"] == Site(layer=1, kind="q")
    assert "blocks.1.attn.hook_rot_q" not in hook_names(tiny_model("gpt2"))


@pytest.mark.parametrize(
    ("key", "site"),
    [
        ("blocks.1.attn.hook_z", "L1.z"),
        ("L1.z", "L1.z"),
        ("L1H2.z", "L1H2.z"),
        ("L1H2", "L1H2.z"),
        ("L2N7", "L2N7"),
        (Site(layer=1, kind="v"), "L1.v"),
        (("pattern", 1), "L1.pattern"),
        (("attn", 1), "L1.pattern"),
        (("attn_scores", 0), "L0.scores"),
        (("resid_post", -1), "L2.resid_post"),
        (("post", -3), "L0.neurons"),
        (("post", 0, "mlp"), "L0.neurons"),
    ],
)
def test_a_cache_is_read_by_either_name_or_a_short_form(model, tokens, key, site):
    cache = run_with_cache(model, tokens)[1]
    everything = model.run(tokens, record=list(hook_names(model).values()))
    assert torch.equal(cache[key], everything[site])
    assert key in cache and torch.equal(cache.get(key), cache[key])


def test_norm_scales_say_which_norm(model, tokens):
    cache = run_with_cache(model, tokens)[1]
    assert cache["scale", 1, "ln1"].shape == (2, 12, 1)
    assert torch.equal(cache["scale", 1, "ln2"], cache["blocks.1.ln2.hook_scale"])
    assert torch.equal(cache["scale", None], cache["ln_final.hook_scale"]) and torch.equal(cache["scale",], cache["norm_scale"])


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("blocks.1.hook_resid_pre", "not in this cache"),
        ("blocks.9.attn.hook_z", "not in this cache"),
        ("blocks.1.attn.hook_zz", "Did you mean attn.hook_z"),
        ("hook_embed", "blocks.0.hook_resid_pre"),
        ("embed", "blocks.0.hook_resid_pre"),
        ("blocks.2.mlp.hook_pre", "blocks.2.mlp.hook_post"),
        ("logits", "not in this cache"),
        ("L1", "is a layer"),
        (("patern", 1), "Did you mean pattern"),
        (("z", 3), "layers 0 to 2"),
        (("scale", 1), r"Say which: \('scale', 1, 'ln1'\)"),
        (("normalized", 1, "ln2"), "blocks.1.ln2.hook_scale"),
    ],
)
def test_what_is_not_in_a_cache_is_refused_by_name(model, tokens, key, says):
    cache = run_with_cache(model, tokens, "blocks.1.attn.hook_z")[1]
    with pytest.raises(UnknownSite, match=says):
        cache[key]
    assert key not in cache and cache.get(key) is None


@pytest.mark.parametrize(
    ("names_filter", "names"),
    [
        ("blocks.1.attn.hook_z", ["blocks.1.attn.hook_z"]),
        ("L1H2.z", ["blocks.1.attn.hook_z"]),
        (["blocks.2.hook_resid_post", "L0.neurons"], ["blocks.2.hook_resid_post", "blocks.0.mlp.hook_post"]),
        (lambda name: name.endswith("hook_pattern"), [f"blocks.{layer}.attn.hook_pattern" for layer in range(3)]),
        ("ln_final.hook_scale", ["ln_final.hook_scale"]),
        ([], []),
    ],
)
def test_a_filter_of_names_says_what_is_kept(model, tokens, names_filter, names):
    cache = run_with_cache(model, tokens, names_filter=names_filter)[1]
    assert list(cache) == names and list(cache.run.recorded) == [model.place(Site.parse(name)) for name in names]


@pytest.mark.parametrize(
    ("names_filter", "says"),
    [
        (lambda name: "hook_zz" in name, "fits none"),
        ("blocks.1.attn.hook_patern", "hook_pattern"),
        ("blocks.7.attn.hook_z", "numbered 0 to 2"),
        ("L1E0.expert_neurons", "no TransformerLens hook name"),
        (["blocks.1.attn.hook_result"], "output projection"),
        ("blocks.1.hook_q_input", "L1H3.q_in"),
        ("L1.q_in", "L1H3.q_in"),
        ("logits", "logits"),
    ],
)
def test_a_filter_that_names_nothing_is_refused(model, tokens, names_filter, says):
    with pytest.raises(UsageError, match=says):
        run_with_cache(model, tokens, names_filter)


def test_queries_before_their_rotation_are_refused(tiny_model, tokens):
    with pytest.raises(UnknownSite, match=r"blocks.1.attn.hook_rot_k \(L1.k\)"):
        run_with_cache(tiny_model("llama"), tokens, "blocks.1.attn.hook_k")


def test_a_cache_can_be_a_plain_dict_without_its_batch(model, tokens):
    kept = run_with_cache(model, tokens[0], ["L1.z", "L1.pattern"], return_cache_object=False, remove_batch_dim=True)[1]
    assert type(kept) is dict
    shapes = {name: tuple(tensor.shape) for name, tensor in kept.items()}
    assert shapes == {"blocks.1.attn.hook_z": (12, 4, 8), "blocks.1.attn.hook_pattern": (4, 12, 12)}
    with pytest.raises(UsageError, match="there are 2"):
        run_with_cache(model, tokens, remove_batch_dim=True)


def test_a_cache_shows_its_names_and_sees_edits(model, tokens):
    cache = run_with_cache(model, tokens, "L1.z", edit=[ablate("L1H2", "zero", positions="all")])[1]
    assert repr(cache) == "Cache(blocks.1.attn.hook_z)" and isinstance(cache, Cache)
    assert cache["L1H2"].abs().max() == 0


def test_text_masks_and_gradients_go_through(model, tokens):
    text = ["the cat sat on the mat", "a dog ran"]
    logits, cache = run_with_cache(model, text, "L0.z")
    assert torch.equal(logits, model.run(text).logits) and cache["z", 0].shape[:2] == (2, 6)
    mask = torch.arange(12) >= torch.tensor([[0], [4]])
    assert torch.equal(run_with_hooks(model, tokens, mask=mask), model.run(tokens, mask=mask).logits)
    loss, cache = run_with_cache(model, tokens, "L0.z", return_type="loss", grad=True)
    assert torch.autograd.grad(loss, cache["z", 0])[0].abs().max() > 0


@pytest.mark.parametrize("mask", [None, torch.arange(12) >= torch.tensor([[0], [4]])])
def test_the_loss_is_the_mean_surprise_at_real_next_tokens(model, tokens, mask):
    logits = model.run(tokens, mask=mask).logits.log_softmax(dim=-1)
    first = [0, 0 if mask is None else 4]
    surprises = [-logits[row, t, tokens[row, t + 1]] for row in range(2) for t in range(first[row], 11)]
    loss = run_with_hooks(model, tokens, mask=mask, return_type="loss")
    testing.assert_close(loss, torch.stack(surprises).mean())
    both = run_with_cache(model, tokens, "L0.z", mask=mask, return_type="both")[0]
    assert torch.equal(both[0], model.run(tokens, mask=mask).logits) and torch.equal(both[1], loss)


def test_a_run_can_answer_nothing_and_answers_nothing_else(model, tokens):
    assert run_with_hooks(model, tokens, return_type=None) is None
    logits, cache = run_with_cache(model, tokens, "L0.z", return_type=None)
    assert logits is None and cache.run.logits is None


# --- hooks -----------------------------------------------------------------------------------------------------------


def test_a_hook_on_a_head_is_its_ablation(model, tokens):
    hooked = run_with_hooks(model, tokens, fwd_hooks=[("blocks.1.attn.hook_z", zero_head)])
    assert torch.equal(hooked, model.run(tokens, edit=[ablate("L1H2", "zero", positions="all")]).logits)
    assert (hooked - model.run(tokens).logits).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [kind for kind in LAYER_KINDS if kind not in (*INPUTS, "resid_mid", "expert_neurons")])
def test_a_hook_that_returns_another_value_is_a_patch(model, tokens, kind):
    value = model.run(tokens, record=[f"L1.{kind}"])[f"L1.{kind}"].flip(0)
    theirs = value.unsqueeze(-1) if kind.endswith("norm_scale") else value
    hooked = run_with_hooks(model, tokens, [(f"L1.{kind}", lambda tensor, hook: theirs)])
    assert torch.equal(hooked, model.run(tokens, edit=[patch(f"L1.{kind}", value)]).logits)


def test_a_hook_may_write_into_what_it_is_given(model, tokens):
    def zero(z, hook):
        z[:, :, 2] = 0

    wrote, returned = (run_with_hooks(model, tokens, [("blocks.1.attn.hook_z", one)]) for one in (zero, zero_head))
    assert torch.equal(wrote, returned)


@pytest.mark.parametrize("name", ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_mid", "ln_final.hook_scale"])
def test_a_hook_that_only_looks_changes_nothing(model, tokens, name):
    seen = []
    hooked = run_with_hooks(model, tokens, [(name, lambda tensor, hook: seen.append(tensor))])
    assert torch.equal(hooked, model.run(tokens).logits)
    assert torch.equal(seen[0], run_with_cache(model, tokens, name)[1][name])


def test_hooks_at_one_place_see_each_others_changes_after_edits(model, tokens):
    seen = []
    hooks = [("L1.z", lambda z, hook: z + 1), ("L1.z", lambda z, hook: z * 2), ("L1.z", lambda z, hook: seen.append(z))]
    run_with_hooks(model, tokens, hooks, edit=[patch("L1.z", torch.tensor(3.0))])
    assert torch.equal(seen[0], torch.full((2, 12, 4, 8), 8.0))


def test_a_function_on_names_hooks_every_place_it_fits(model, tokens):
    places = []
    run_with_hooks(model, tokens, [(lambda name: name.endswith("hook_mlp_out"), lambda tensor, hook: places.append(hook))])
    assert places == [Hook(f"blocks.{layer}.hook_mlp_out") for layer in range(3)]
    assert [hook.layer() for hook in places] == [0, 1, 2]
    with pytest.raises(UsageError, match="no layer"):
        Hook("ln_final.hook_scale").layer()


def test_hooks_come_off_when_one_raises(model, tokens, assert_untouched):
    def fail(tensor, hook):
        raise RuntimeError(f"no luck at {hook.name}")

    before = model.run(tokens).logits
    with assert_untouched(model):
        for name in ("blocks.1.attn.hook_z", "blocks.1.attn.hook_pattern", "blocks.0.hook_resid_post"):
            with pytest.raises(RuntimeError, match=f"no luck at {name}"):
                run_with_hooks(model, tokens, [("L0.z", zero_head), (name, fail)])
    assert torch.equal(model.run(tokens).logits, before)


@pytest.mark.parametrize(
    ("name", "function", "says"),
    [
        ("blocks.1.attn.hook_zz", zero_head, "Did you mean attn.hook_z"),
        ("blocks.1.mlp.hook_pre", zero_head, "blocks.1.mlp.hook_post"),
        ("unembed.hook_out", zero_head, "take the logits"),
        ("blocks.1.hook_v_input", zero_head, "L1H3.v_in"),
        ("blocks.8.attn.hook_z", zero_head, "numbered 0 to 2"),
        ("L1H2.z", zero_head, "the whole of L1.z"),
        ("blocks.1.hook_resid_mid", lambda tensor, hook: tensor + 1, "attn_out or resid_pre"),
        (
            "blocks.1.attn.hook_z",
            lambda tensor, hook: tensor[:, :, 2],
            r"returned \(2, 12, 8\) in place of a tensor \(2, 12, 4, 8\)",
        ),
        ("blocks.1.attn.hook_z", lambda tensor, hook: tensor.numpy(), "returned ndarray"),
        (lambda name: False, zero_head, "fits none"),
    ],
)
def test_what_cannot_be_hooked_is_refused(model, tokens, name, function, says):
    with pytest.raises(UsageError, match=says):
        run_with_hooks(model, tokens, [(name, function)])


def test_a_return_type_must_be_known(model, tokens):
    with pytest.raises(Exception, match="return_type"):
        run_with_hooks(model, tokens, return_type="perplexity")


def test_patterns_in_blocks_are_refused_and_blocks_of_one_are_not(model, tokens, monkeypatch):
    name = "blocks.1.attn.hook_pattern"
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", 2 * 4 * 12 * 12)
    whole = run_with_hooks(model, tokens, [(name, lambda pattern, hook: pattern.flip(0))])
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", 2 * 4 * 12 * 5)
    seen = []
    with pytest.raises(UsageError, match=f"{name} comes in blocks of 5 of the 12 queries.*patch"):
        run_with_hooks(model, tokens, [(name, lambda pattern, hook: seen.append(pattern))])
    assert seen == []
    pattern = run_with_cache(model, tokens, name)[1][name]
    assert pattern.shape == (2, 4, 12, 12)  # a cache is always whole
    testing.assert_close(model.run(tokens, edit=[patch("L1.pattern", pattern.flip(0))]).logits, whole)


@pytest.mark.parametrize("family", families.ALL)
def test_no_name_says_to_use_a_name_that_is_not_there(tiny_model, family):
    known = {name.removeprefix("blocks.1.") for name in hook_names(tiny_model(family))}
    assert not known & set(INSTEAD) - {"attn.hook_q", "attn.hook_k"}
    assert all("{n}" in text or "blocks" not in text or "blocks.0" in text for text in INSTEAD.values())


# --- the page --------------------------------------------------------------------------------------------------------


def block(after):
    """The code block of the page that follows a comment."""
    return re.search(rf"<!-- {after} -->\s*```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]


def test_the_table_of_names_is_that_of_the_sites():
    shown = re.search(r"<!-- names: .*? -->\n\n(.*?)\n\n<!-- end of names -->", PAGE.read_text(), re.DOTALL)
    assert shown is not None and shown[1] == table()
    for theirs, ours in re.findall(r"^\| `(\S+)` \| `(\S+)` \|", table(), re.MULTILINE):
        assert Site.parse(theirs) == Site.parse(ours)


def test_the_loops_of_the_page_run_here_and_agree(model, tokens, monkeypatch):
    ways = {"run_with_cache": partial(run_with_cache, model), "run_with_hooks": partial(run_with_hooks, model)}
    theirs = SimpleNamespace(cfg=SimpleNamespace(n_layers=3), **ways)
    given = {"torch": torch, "clean_tokens": tokens, "corrupt_tokens": tokens.flip(0), "right": 5, "wrong": 7}
    monkeypatch.setattr(iw, "load", lambda name: model, raising=False)
    bridge = SimpleNamespace(boot_transformers=lambda name: theirs)
    monkeypatch.setitem(__import__("sys").modules, "transformer_lens.model_bridge", SimpleNamespace(TransformerBridge=bridge))
    before, after = dict(given), dict(given)
    exec(block("before"), before)
    exec(block("after"), after)
    testing.assert_close(before["moved"], after["moved"])
    assert before["moved"].shape == (3, 12) and before["moved"].std() > 1e-3
