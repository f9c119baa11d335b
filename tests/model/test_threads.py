"""Threads share a model: each call sees its own recordings and edits, and no other's."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from families import MIXTURES, OWN_CODE
from innerworks.model import ablate, scale
from innerworks.sites import Site

PATIENCE = 20  # seconds until a test that hangs fails


@pytest.fixture(params=["gpt2", "llama", "gemma2", "phi", "qwen3_moe", "bloom", "falcon"])
def family(request):
    """One family of each kind: fused or not, post-norm, parallel, a mixture of experts, attention code of its own."""
    return request.param


def test_two_threads_with_other_recordings_and_edits_get_their_own_results(model, tokens, family):
    clean = model.run(tokens, keep="resume")
    own = family in OWN_CODE
    neurons = "L2E1N3" if family in MIXTURES else "L2N3"
    asked = [
        dict(record=["L*.pattern", "L1.z"], edit=[ablate("L1H2", "zero")]),
        dict(
            record=[*model.sites("neurons"), *model.sites("expert_neurons")],
            edit=[ablate("L0.attn_out", "zero"), ablate(neurons, "zero")],
        ),
        dict(record=["L2.resid_pre"], edit=[ablate("L1H2.z" if own else "L1H2.pattern", "zero")], resume=clean),
        dict(record=["L*.z" if own else "L*.k"], grad=True),
        dict(record=model.sites("attn_norm_scale"), edit=[] if own else [scale("L1H0.q_in", 2.0), scale("L1H1.v_in", 2.0)]),
    ]
    expected = [model.run(tokens, **one) for one in asked]
    start = threading.Barrier(len(asked))

    def work(i):
        start.wait(PATIENCE)
        return [model.run(tokens, **asked[i]) for _ in range(8)]

    with ThreadPoolExecutor(len(asked)) as pool:
        for alone, runs in zip(expected, pool.map(work, range(len(asked))), strict=True):
            for run in runs:
                assert torch.equal(run.logits, alone.logits)
                assert run.recorded.keys() == alone.recorded.keys()
                assert all(torch.equal(run.recorded[place], alone.recorded[place]) for place in alone.recorded)


@pytest.mark.parametrize("family", ["llama", "bloom"], indirect=True)
def test_a_run_beside_a_resumed_one_does_not_get_its_cached_stream(model, tokens):
    other = tokens.flip(1)
    clean, alone = model.run(tokens, keep="resume"), model.run(other)
    inside, done = threading.Event(), threading.Event()

    def wait(activation, queries):  # in block 2 of the resumed run, while blocks 0 and 1 hand on its stream
        inside.set()
        assert done.wait(PATIENCE)

    with ThreadPoolExecutor(2) as pool:
        resumed = pool.submit(model.run, tokens, watch=[(Site(layer=2, kind="resid_pre"), wait)], resume=clean)
        assert inside.wait(PATIENCE)
        beside = pool.submit(lambda: (model.run(other), model.hf(input_ids=other, use_cache=False)))
        run, foreign = beside.result(PATIENCE)
        done.set()
        assert torch.equal(resumed.result(PATIENCE).logits, clean.logits)
    assert torch.equal(run.logits, alone.logits) and torch.equal(foreign.logits, alone.logits)


def test_a_run_that_ends_while_another_is_between_hooks_does_not_disturb_it(tiny_model, tokens):
    model = tiny_model("gpt2")
    expected = model.run(tokens)
    first_in, second_in, second_done = threading.Event(), threading.Event(), threading.Event()

    def after(event, *, announce):
        def handler(activation, queries):
            announce.set()
            assert event.wait(PATIENCE)

        return handler

    def nothing(activation, queries):
        return None

    first = [(Site(layer=0, kind="resid_pre"), after(second_in, announce=first_in))]
    first += [(Site(layer=1, kind="resid_pre"), after(second_done, announce=threading.Event()))]
    second = [(Site(layer=0, kind="resid_pre"), lambda activation, queries: second_in.set())]
    second += [(Site(layer=1, kind="resid_pre"), nothing)]
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(model.run, tokens, watch=first)  # its hook at block 1 is the first ...
        assert first_in.wait(PATIENCE)
        quick = pool.submit(model.run, tokens, watch=second)  # ... and is waiting there when the second is taken off
        assert torch.equal(quick.result(PATIENCE).logits, expected.logits)
        second_done.set()
        assert torch.equal(slow.result(PATIENCE).logits, expected.logits)
