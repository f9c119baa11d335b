"""Queries in several blocks give what one block gives: for recording, for watching and for edits of patterns."""

import pytest
import torch
from torch import testing

from innerworks.model import ablate, attention, knockout, patch, scale
from innerworks.sites import Site

CLOSE = dict(atol=5e-6, rtol=1e-5)
EDITS = {
    "nothing": lambda clean: [],
    "pattern ablated": lambda clean: [ablate("L1.pattern", "zero")],
    "some rows ablated": lambda clean: [ablate("L1H2.pattern", "zero", positions=[0, 5, 6, 11])],
    "rows of each sequence": lambda clean: [ablate("L1H2.pattern", "zero", positions=torch.arange(24).view(2, 12) % 5 == 0)],
    "pattern of the other": lambda clean: [patch("L1.pattern", clean["L1.pattern"].flip(0))],
    "a head's pattern": lambda clean: [patch("L1H1.pattern", clean["L1H1.pattern"].flip(0))],
    "one row for all": lambda clean: [patch("L1H1.pattern", torch.full((12,), 1 / 12))],
    "the same in both": lambda clean: [patch("L1H1.pattern", clean["L1H1.pattern"][:1])],
    "one row per sequence": lambda clean: [patch("L1H1.pattern", clean["L1H1.pattern"][:, -1:])],
    "a head forbidden to look": lambda clean: [knockout("L1H1", [5, 6, 11], [0, 4])],
    "a layer forbidden to look at the first": lambda clean: [knockout("L1", None, 0)],
    "a head's scores doubled": lambda clean: [scale("L1H2.scores", 2.0, positions=[0, 5, 11])],
    "one head reads its queries elsewhere": lambda clean: [scale("L1H2.q_in", -1.0)],
    "queries and values": lambda clean: [ablate("L1.q", "zero"), patch("L1H3.v", clean["L1H3.v"].flip(0))],
}


@pytest.fixture(params=[1, 5, 12, 13])
def rows(request, monkeypatch):
    """Let a block hold so many of the 12 queries."""

    def shrink():
        monkeypatch.setattr(attention, "BLOCK_ELEMENTS", request.param * 2 * 4 * 12)
        return request.param

    return shrink


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_several_blocks_equal_one(tiny_model, tokens, family, rows, edits):
    model = tiny_model(family)
    record = ["L*.q", "L*.v", "L*.scores", "L*.pattern", "L*.z"]
    edit = edits(model.run(tokens, record=record))
    one = model.run(tokens, record=record, edit=edit)
    rows()
    several = model.run(tokens, record=record, edit=edit)
    testing.assert_close(several.logits, one.logits, atol=1e-5, rtol=1e-4)
    for place, activation in one.recorded.items():
        testing.assert_close(several.recorded[place], activation, **CLOSE)


def test_a_watcher_sees_every_query_once_and_in_order(tiny_model, tokens, rows):
    model, seen = tiny_model("llama"), []
    pattern = model.run(tokens, record=["L1.pattern"])["L1.pattern"]
    held = rows()
    model.run(tokens, watch=[(Site.parse("L1.pattern"), lambda block, queries: seen.append((queries, block)))])
    assert [queries.indices(12)[:2] for queries, _ in seen] == [(i, min(i + held, 12)) for i in range(0, 12, held)]
    testing.assert_close(torch.cat([block for _, block in seen], dim=2), pattern, **CLOSE)


def test_gradients_through_several_blocks_equal_those_through_one(tiny_model, tokens, monkeypatch):
    model, found = tiny_model("llama"), []
    for elements in (1 << 25, 5 * 2 * 4 * 12):
        monkeypatch.setattr(attention, "BLOCK_ELEMENTS", elements)
        run = model.run(tokens, record=["embed", "L1.pattern"], grad=True)
        found.append(torch.autograd.grad(run.logits[:, -1].square().sum(), run["embed"])[0])
    testing.assert_close(*found, atol=1e-4, rtol=1e-4)
