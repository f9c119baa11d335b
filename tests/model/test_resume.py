"""Resumed runs: only what an edit can reach is computed again, and the result is the same."""

import pytest
import torch

from innerworks.errors import UsageError
from innerworks.model import ablate, patch
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
