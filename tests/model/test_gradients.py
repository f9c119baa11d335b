"""grad=True: gradients agree with finite differences, whether or not the weights want gradients."""

import pytest
import torch

import innerworks as iw
from innerworks.model import patch

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
