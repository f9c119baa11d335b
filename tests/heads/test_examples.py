"""What a labelled head shows: the right document and stretch, and what it writes there equals its share of the logits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import innerworks as iw
from innerworks.findings import Finding
from innerworks.heads import examples
from innerworks.heads.decide import HeadsByUnit
from innerworks.heads.kinds import MEASURES
from innerworks.heads.seen import Seen
from innerworks.model.readout.attribution import attribute
from innerworks.model.study import units_of
from innerworks.scan.engine import begin, observe
from innerworks.scan.studies import ask, watch
from innerworks.text import Corpus, Reading, read
from innerworks.text.corpus import Document

FAMILIES = ("gpt2", "llama", "gemma2", "olmo2", "gpt_neox", "gptj", "opt", "falcon")


def finding(behaviour: str, site: str, **changes: Any) -> Finding:
    number = {"effect": 0.5, "effect_low": 0.4, "effect_high": 0.6, "null": 0.0, "floor": 0.1, "value": 0.5}
    place = {"layer": int(site[1]), "index": int(site[3]), "measure": "attention", "material": "text", "unit": "probability"}
    values = {**number, **place, "n": 40, "p": 0.0, "mde": 0.1, "null_kind": "pattern swap", "rung": 1, **changes}
    return Finding(chapter="heads", behaviour=behaviour, site=site, **values)


def no_table(model: iw.Model, reading: Reading) -> HeadsByUnit:
    """For kinds that have none."""
    shape = len(reading.units), len(MEASURES), model.anatomy.layers, model.anatomy.heads
    return HeadsByUnit.of(np.zeros(shape, np.float32), np.ones(shape[:2], np.float32), units_of(reading))


# --- which labels -------------------------------------------------------------------------------------------------


def test_the_strongest_labels_of_every_kind_are_shown_and_pairs_are_none() -> None:
    rows = [
        *(finding("copying", f"L0H{i}", effect=0.1 * i, measure="eigenvalue", material="weights") for i in range(6)),
        *(finding("copying", f"L0H{i}", effect=9.0, measure="direct_effect") for i in range(6)),
        finding("copying", "L1H0", effect=0.01, rung=2),
        finding("induction", "L1H1", target="L0H0", measure="k_composition"),
        finding("syntactic:nsubj", "L1H2"),
        finding("syntactic:det<", "L1H3", rung=0),
        replace(finding("position_neuron", "L1N700"), chapter="neurons"),
    ]
    assert examples.best_labels(rows) == [
        ("copying", "L1H0"),
        ("copying", "L0H5"),
        ("copying", "L0H4"),
        ("copying", "L0H3"),
        ("syntactic:nsubj", "L1H2"),
    ]


# --- what is written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_head_writes_is_its_share_of_the_logits(
    family: str, tiny_hf: Callable[..., Any], tiny_tokenizer: Any, make_reading: Callable[..., Reading]
) -> None:
    """Against an independent account of the same: direct logit attribution, of the difference of two tokens."""
    model = iw.Model(tiny_hf(family), tiny_tokenizer, name=family)
    reading = make_reading(documents=8, longest=30)
    labels = [("copying", "L1H1"), ("anti_copying", "L2H3"), ("domain:stratum 1", "L0H2")]
    found = examples.shown(model, reading, no_table(model, reading), labels)
    assert [(one.behaviour, one.site) for one in found] == labels
    for one in found:
        assert one.query is not None and len(one.raised) == len(one.lowered) == examples.WRITTEN
        unit = next(i for i, unit in enumerate(reading.units) if unit.id == one.unit)
        assert reading.units[unit].half == "confirmation"
        text = next(window.tokens for window in reading.windows if window.unit == unit)
        assert len(text) <= examples.SPAN  # so that the stretch is the text
        up, down = (model.tokenizer.convert_tokens_to_ids(changed[0][0]) for changed in (one.raised, one.lowered))
        shares = attribute(model, torch.tensor([text]), up, down, position=one.query, by="head").stack("head")
        share = float(shares[int(one.site[1]), 0, int(one.site[3])])
        assert share == pytest.approx(one.raised[0][1] - one.lowered[0][1], rel=1e-3, abs=2e-4)
        assert [logit for _, logit in one.raised] == sorted((logit for _, logit in one.raised), reverse=True)


def test_copying_looks_where_it_raises_most_and_anti_copying_where_it_lowers(
    tiny_model: Callable[[str], Any], make_reading: Callable[..., Reading]
) -> None:
    model, reading = tiny_model("llama"), make_reading(documents=8, longest=30)
    both = examples.shown(model, reading, no_table(model, reading), [("copying", "L1H1"), ("anti_copying", "L1H1")])
    up, down = both
    assert (up.unit, up.query) != (down.unit, down.query)
    assert all(logit > 0 for _, _, logit in up.rows) and all(logit < 0 for _, _, logit in down.rows)
    assert len(up.rows) == examples.WRITTEN


def test_where_the_logits_cannot_be_told_only_the_pattern_is_shown(
    tiny_hf: Callable[..., Any], tiny_tokenizer: Any, make_reading: Callable[..., Reading]
) -> None:
    model = iw.Model(tiny_hf("opt-post-norm"), tiny_tokenizer, name="opt-post-norm")
    reading = make_reading(documents=8, longest=30)
    (one,) = examples.shown(model, reading, no_table(model, reading), [("domain:stratum 0", "L0H2")])
    assert one.query is None and one.raised == one.lowered == one.rows == () and one.pattern.shape[0] == len(one.tokens)


# --- known truth --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phantom() -> tuple[iw.Model, Reading, HeadsByUnit, dict[str, str]]:
    from innerworks.phantoms import build

    made = build("llama", seed=0)
    model = iw.Model(made.hf, made.tokenizer, name="phantom")
    documents = [Document(id=f"{i:02d}", text=text, domain="phantom") for i, text in enumerate(made.documents(30, words=80))]
    corpus = Corpus(name="phantom", documents=tuple(documents))
    reading = read(corpus, model.tokenizer, vocab=model.anatomy.vocab, max_positions=model.anatomy.max_positions, sequences=32)
    seen = [Seen()]
    watching = watch(model, seen)
    state = observe(model, reading, watching, begin(model, reading, watching))
    results = ask(seen, model, reading, state, depth="quick", seed=0)
    kept = results.kept[Seen.name].arrays
    sites = {one.behaviour: one.site for one in results.findings if one.rung and one.measure == "attention"}
    return model, reading, HeadsByUnit.of(kept["mass"], kept["rows"], units_of(reading)), sites


def test_the_planted_induction_head_raises_what_it_looks_at(phantom: tuple) -> None:
    model, reading, table, sites = phantom
    (one,) = examples.shown(model, reading, table, [("induction", sites["induction"])])
    assert one.query is not None
    after = [key for key in range(1, one.query + 1) if one.tokens[key - 1] == one.tokens[one.query]]
    assert one.pattern[one.query, after].sum() > 0.5
    assert one.raised[0][0] in {one.tokens[key] for key in after} and one.raised[0][1] > 1


def test_the_planted_previous_token_head_writes_next_to_nothing(phantom: tuple) -> None:
    """It feeds another head: what it writes reaches no logit."""
    model, reading, table, sites = phantom
    one, other = examples.shown(
        model, reading, table, [("previous_token", sites["previous_token"]), ("induction", sites["induction"])]
    )
    assert one.query is not None and int(one.pattern[one.query].argmax()) == one.query - 1
    assert abs(one.raised[0][1]) < 0.2 * other.raised[0][1]


def test_the_arcs_of_a_relation_choose_the_stretch(phantom: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reading, table, sites = phantom
    arc = {"query": 9, "targets": ((3, 5),), "words_back": (2,)}
    from innerworks.text.syntax import Arc

    def arcs(behaviour: str, window: Any) -> list[Arc]:
        return [Arc(relation="nsubj", **arc)] if window.unit % 3 == 0 else []  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(examples, "_arcs", arcs)
    (one,) = examples.shown(model, reading, table, [("syntactic:nsubj", sites["induction"])])
    assert one.query == 9 and int(one.unit[-2:]) % 3 == 0
