"""grad=True: gradients agree with finite differences, whether or not the weights want gradients."""

import pytest
import torch

import innerworks as iw
from families import ALL, MIXTURES, OWN_CODE, build
from innerworks.errors import UsageError
from innerworks.model import ablate, freeze, patch, scale, steer

EVERYWHERE = torch.ones(1, 6, dtype=torch.bool)


@pytest.fixture(params=[True, False], ids=["trainable", "frozen"])
def double(request, tiny_hf):
    """A tiny model in float64, its weights trainable or frozen."""

    def build(family):
        return iw.Model(tiny_hf(family).double().requires_grad_(request.param), None, certified=False)

    return build


@pytest.mark.parametrize("site", ["embed", "L0.resid_post", "L1.attn_out", "L1.z", "L1H2.v", "L1.neurons", "L2.q", "L1.pattern"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_gradients_agree_with_finite_differences(double, tokens, family, site):
    model, tokens = double(family), tokens[:1, :6]
    opened = dict(record=[site, "L1.pattern"], logits="last")  # one and the same computation in every run
    done = model.run(tokens, **opened, grad=True)
    gradient = torch.autograd.grad(done.logits[0, 7], done[site] if "H" not in site else done.recorded["v", 1])[0]
    gradient = gradient[:, :, 2] if "H" in site else gradient
    start = done[site].detach()
    direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    step = 1e-3
    ends = [
        model.run(tokens, **opened, edit=[patch(site, start + sign * step * direction, positions=EVERYWHERE)]).logits[0, 7]
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert torch.isclose((gradient * direction).sum(), slope, atol=2e-4, rtol=1e-3)
    assert slope.abs() > 5e-3


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_gradients_reach_a_value_that_was_patched_in(double, tokens, family):
    model, tokens = double(family), tokens[:1, :6]
    value = torch.zeros(32, dtype=torch.float64, requires_grad=True)
    run = model.run(tokens, edit=[patch("L1.resid_post", value)], logits="last", grad=True)
    gradient = torch.autograd.grad(run.logits[0, 7], value)[0]
    assert gradient.abs().max() > 1e-3


def test_without_grad_nothing_is_kept_for_gradients(model, tokens):
    run = model.run(tokens, record=["L*.z", "L1.pattern"])
    assert not run.logits.requires_grad and not run["L1.pattern"].requires_grad and not run.final.requires_grad
    assert torch.is_grad_enabled()


def test_gradients_are_those_of_the_plain_model(tiny_model, plain, tokens, family):
    run = tiny_model(family).run(tokens, grad=True)
    weight = next(tiny_model(family).hf.parameters())
    ours = torch.autograd.grad(run.logits.square().sum(), weight)[0]
    hf = plain(family).hf
    theirs = torch.autograd.grad(hf(input_ids=tokens).logits.square().sum(), next(hf.parameters()))[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-2)
    assert weight.grad is None


# --- every family, every kind: what `run.gradient` says against the real intervention ---------------------------------

KINDS = ("resid_pre", "attn_norm_scale", "q", "k", "v", "scores", "pattern", "z", "attn_out", "mlp_norm_scale", "neurons")
KINDS += ("expert_neurons", "mlp_out", "resid_post")
STEP = 1e-5


@pytest.fixture
def wide(monkeypatch):
    """Let code that computes norms and probabilities in float32 compute them in float64: differences are small."""
    for name in ("float", "float32"):
        monkeypatch.setattr(torch, name, torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def in_double(family):
    hf = build(family).double()
    if family in MIXTURES:
        hf.set_experts_implementation("eager")  # the fast one knows no float64
    return iw.Model(hf, None, certified=False)


def places(model):
    """The editable sites of a model, of every kind one."""
    found = {kind: [f"L{i}" for i in range(1, model.anatomy.layers) if model.lacks(kind, i) is None] for kind in KINDS}
    if model.adapter.attention_code == "own":
        found["pattern"] = []
    final = ["norm_scale"] if model.adapter.final_norm in dict(model.hf.named_modules()) else []
    return ["embed", *(f"{layers[0]}.{kind}" for kind, layers in found.items() if layers), *final]


def metric(run):
    return run.logits[:, 7].sum() - run.logits[:, 11].square().mean()


@pytest.mark.parametrize("family", ALL)
def test_the_gradient_of_any_place_is_the_slope_of_the_intervention(wide, tokens, family):
    """In float64, along random directions: `(metric(site + step v) - metric(site - step v)) / 2 step`."""
    model, tokens = in_double(family), tokens[:, :8]
    run = model.run(tokens, record=places(model), logits="last", grad=True)
    noise = torch.Generator().manual_seed(3)
    for site in places(model):
        gradient, value = run.gradient(metric(run), site), run[site].detach()
        assert gradient.shape == value.shape and gradient.abs().max() > 0, site
        direction = torch.randn(value.shape, generator=noise, dtype=torch.float64)
        if site.endswith("expert_neurons"):
            direction = torch.where(value == 0, 0.0, direction)
        ends = []
        for step in (STEP, -STEP):
            moved = torch.where(value > torch.finfo(torch.float64).min / 2, value + step * direction, value)
            ends.append(metric(model.run(tokens, record=places(model), logits="last", edit=patch(site, moved))))
        slope = (ends[0] - ends[1]) / (2 * STEP)
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-4, atol=1e-6, msg=f"{site}: {slope}")


@pytest.mark.parametrize("family", ALL)
def test_the_gradient_foretells_a_steered_vector_and_a_small_ablation(wide, tokens, family):
    model, tokens = in_double(family), tokens[:, :8]
    run = model.run(tokens, record=places(model), logits="last", grad=True)
    before = metric(run).detach()
    for site in places(model):
        gradient, value = run.gradient(metric(run), site), run[site].detach()
        rows, first = (
            (gradient, value) if not site.endswith(("scores", "pattern")) else (gradient.movedim(2, 1), value.movedim(2, 1))
        )
        if site.endswith("scores"):
            continue  # the lowest number cannot be scaled; steering is tested above
        taken = model.run(tokens, record=places(model), logits="last", edit=scale(site, 1 - STEP))
        estimate = -(rows * first)[:, 1:].sum()
        torch.testing.assert_close((metric(taken) - before) / STEP, estimate, rtol=2e-3, atol=2e-3, msg=site)
        if not site.endswith(("pattern", "expert_neurons")) and value.ndim > 2:
            vector = torch.linspace(-1, 1, value.shape[-1], dtype=torch.float64)
            pushed = model.run(tokens, record=places(model), logits="last", edit=steer(site, vector, STEP))
            torch.testing.assert_close(
                (metric(pushed) - before) / STEP, (rows * vector)[:, 1:].sum(), rtol=2e-3, atol=2e-3, msg=site
            )


@pytest.mark.parametrize("family", ALL)
def test_a_head_or_a_neuron_has_its_part_of_the_gradient(tiny_model, tokens, family):
    model = tiny_model(family)
    neurons = [site for site in places(model) if site.endswith("neurons")]
    parts = {"L1H2": ("L1.z", (slice(None), slice(None), 2))}
    parts |= {f"{site[:2]}N7": (site, (slice(None), slice(None), 7)) for site in neurons if not site.endswith("expert_neurons")}
    parts |= {f"{site[:2]}E1N3": (site, (slice(None), slice(None), 1, 3)) for site in neurons if site.endswith("expert_neurons")}
    if family not in OWN_CODE:
        parts |= {"L1H2.pattern": ("L1.pattern", (slice(None), 2)), "L1H3.k": ("L1.k", (slice(None), slice(None), 3))}
    run = model.run(tokens, record=list(parts), grad=True)
    for part, (whole, index) in parts.items():
        assert torch.equal(run.gradient(run.logits.sum(), part), run.gradient(run.logits.sum(), whole)[index])


@pytest.mark.parametrize("family", ALL)
def test_looking_for_gradients_changes_no_logit(tiny_model, tokens, family):
    model = tiny_model(family)
    run = model.run(tokens, record=places(model), grad=True)
    assert torch.equal(run.logits, model.run(tokens, record=places(model)).logits)


@pytest.mark.parametrize("family", ALL)
def test_gradients_stop_where_an_activation_is_frozen(wide, tokens, family):
    """With the scales of all norms and all patterns held, the gradient along the stream is that of the values alone."""
    model, tokens = in_double(family), tokens[:, :8]
    last = f"L{model.anatomy.layers - 1}.resid_post"
    if "norm_scale" in places(model):
        clean = model.run(tokens, record="norm_scale")
        run = model.run(tokens, record=[last, "norm_scale"], edit=freeze("norm_scale"), grad=True)
        free = model.run(tokens, record=[last, "norm_scale"], grad=True)
        assert torch.equal(run.logits, free.logits)
        vector = torch.linspace(-1, 1, 32, dtype=torch.float64)
        logit = model.readout(run.final, capped=False)[0, -1, 7]
        slope = run.gradient(logit, last)[0, -1] @ vector
        far = [steer(last, vector, 100.0, positions=[7]), freeze("norm_scale", clean)]
        exact = model.readout(model.run(tokens, edit=far).final, capped=False)[0, -1, 7]
        torch.testing.assert_close((exact - logit) / 100, slope, rtol=1e-9, atol=1e-9)  # linear: as good at any distance
        assert (
            run.gradient(logit, last) - free.gradient(model.readout(free.final, capped=False)[0, -1, 7], last)
        ).abs().max() > 1e-4
    run = model.run(tokens, record=["L0.resid_post", "L1.z"], edit=freeze("L1.z"), grad=True)
    assert run.gradient(run["L1.z"].sum() + run.logits.sum(), "L1.z").abs().max() > 0
    cut = [freeze("L1.attn_out"), freeze("L1.mlp_out")]
    if model.anatomy.sums:  # then block 1 hands the stream on and no more
        run = model.run(tokens, record=["L1.resid_pre", "L1.resid_post"], edit=cut, grad=True)
        before, after = (run.gradient(metric(_last(run)), site) for site in ("L1.resid_pre", "L1.resid_post"))
        torch.testing.assert_close(before, after)


def _last(run):
    from dataclasses import replace

    return replace(run, logits=run.logits[:, -1])


def test_a_copy_has_no_gradient_and_says_so(tiny_model, tokens):
    model = tiny_model("llama")
    model.run(tokens, record="L1.z", grad=True, dtype=torch.float32)  # no copy: it is float32
    with pytest.raises(UsageError, match="no gradient would reach it"):
        model.run(tokens, record="L1.z", grad=True, dtype=torch.float64)


def test_a_gradient_needs_a_graph_and_a_recording(tiny_model, tokens):
    model = tiny_model("llama")
    plain, run = model.run(tokens, record="L1.z"), model.run(tokens, record="L1.z", grad=True)
    with pytest.raises(UsageError, match="run with grad=True"):
        plain.gradient(plain.logits.sum(), "L1.z")
    with pytest.raises(UsageError, match="compute the number from run.logits"):
        run.gradient(run.logits.detach().sum(), "L1.z")
    with pytest.raises(UsageError, match="was not recorded"):
        run.gradient(run.logits.sum(), "L1.neurons")
    assert run.gradient(run.logits[:, :3].sum(), "L1.z")[:, 3:].abs().max() == 0  # later positions have no say
    edited = model.run(tokens, record="L1.z", edit=ablate("L1H2", "zero"), grad=True)
    assert edited.gradient(edited.logits.sum(), "L1H2").abs().max() > 0  # of the value that was put there
