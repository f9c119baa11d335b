"""Threads share a model: each call sees its own recordings and edits, and no other's."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from innerworks.model import ablate
from innerworks.sites import Site

PATIENCE = 20  # seconds until a test that hangs fails


@pytest.fixture(params=["gpt2", "llama"])
def family(request):
    """One family of each kind: what this file tests does not depend on their options."""
    return request.param


def test_two_threads_with_other_recordings_and_edits_get_their_own_results(model, tokens):
    clean = model.run(tokens, keep="resume")
    asked = [
        dict(record=["L*.pattern", "L1.z"], edit=[ablate("L1H2", "zero")]),
        dict(record=["L*.neurons"], edit=[ablate("L0.attn_out", "zero"), ablate("L2N3", "zero")]),
        dict(record=["L2.resid_pre"], edit=[ablate("L1H2.pattern", "zero")], resume=clean),
        dict(record=["L*.k"], grad=True),
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


def test_a_run_beside_a_resumed_one_does_not_get_its_cached_stream(tiny_model, tokens):
    model, other = tiny_model("llama"), tokens.flip(1)
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
