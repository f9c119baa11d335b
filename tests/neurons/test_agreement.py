"""Agreement neurons: in a model made by hand the neuron that carries the number is found, and neurons like it are not."""

from typing import Any

import numpy as np
import pytest
import torch

import innerworks as iw
from innerworks.claims.claim import judge
from innerworks.claims.neurons import NEURONS
from innerworks.findings import frame
from innerworks.model.prompts import difference
from innerworks.model.study import Given, Kept, units_of
from innerworks.neurons.agreement import Agreement, study
from innerworks.neurons.agreement.measure import contributions, sides
from innerworks.neurons.groups import how_alike, matched_groups, times_as_much
from innerworks.neurons.means import NeuronMeans, reference_of
from innerworks.scan.engine import begin, observe
from innerworks.text import Reading
from innerworks.text.reading import Unit, Window
from innerworks.text.tasks.agreement import NOUNS, VERBS

CARRIES, HELPS, DECOY, CONSTANT = (1, 5), (1, 8), (1, 6), (1, 7)
SUBJECT, READ, VERB, ONE, ELSEWHERE = range(5)  # coordinates of the stream


def handmade(tiny_hf: Any, tokenizer: Any) -> Any:
    """Attention in layer 0 brings the number of the subject to all later tokens; in layer 1 two neurons turn it into that of the
    verb. A decoy reads the same and writes as much where no verb reads; another neuron always prefers the plural."""
    hf = tiny_hf("llama", vocab_size=len(tokenizer), num_hidden_layers=2, num_key_value_heads=4, tie_word_embeddings=False)
    random = torch.Generator().manual_seed(0)
    ids = tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        for norm in hf.modules():
            if "RMSNorm" in type(norm).__name__:
                norm.weight.fill_(1.0)
        hf.model.embed_tokens.weight.copy_(0.1 * torch.randn(hf.model.embed_tokens.weight.shape, generator=random))
        hf.model.embed_tokens.weight[:, : ELSEWHERE + 1] = 0.0
        hf.model.embed_tokens.weight[:, ONE] = 1.0
        hf.lm_head.weight.copy_(0.1 * torch.randn(hf.lm_head.weight.shape, generator=random))
        hf.lm_head.weight[:, : ELSEWHERE + 1] = 0.0
        for number, sign in ((0, -1.0), (1, 1.0)):
            hf.model.embed_tokens.weight[[ids(noun[number]) for noun in NOUNS], SUBJECT] = sign
            hf.lm_head.weight[[ids(verb[number]) for verb in VERBS], VERB] = sign
        for block in hf.model.layers:
            for weight in (block.self_attn.q_proj.weight, block.self_attn.k_proj.weight, block.self_attn.o_proj.weight):
                weight.zero_()
            for weight in (block.mlp.gate_proj.weight, block.mlp.up_proj.weight, block.mlp.down_proj.weight):
                weight.copy_(0.02 * torch.randn(weight.shape, generator=random))
        first, second = hf.model.layers
        first.self_attn.v_proj.weight[0] = 0.0
        first.self_attn.v_proj.weight[0, SUBJECT] = 1.0
        first.self_attn.o_proj.weight[READ, 0] = 8.0
        for (_, neuron), reads, writes, size in (
            (CARRIES, READ, VERB, 0.3),
            (HELPS, READ, VERB, 0.1),
            (DECOY, READ, ELSEWHERE, 0.3),
            (CONSTANT, ONE, VERB, 0.02),
        ):
            second.mlp.gate_proj.weight[neuron] = 0.0
            second.mlp.up_proj.weight[neuron] = 0.0
            second.mlp.down_proj.weight[:, neuron] = 0.0
            second.mlp.gate_proj.weight[neuron, ONE] = 1.0
            second.mlp.up_proj.weight[neuron, reads] = 1.0
            second.mlp.down_proj.weight[writes, neuron] = size
    return hf


def reading_of(vocab: int, documents: int = 48, length: int = 24) -> Reading:
    """Documents of random tokens, in two strata."""
    random, units, windows = np.random.default_rng(4), [], []
    for number in range(documents):
        half = ("discovery", "confirmation")[number // 2 % 2]
        units.append(Unit(id=f"d/{number}", stratum=f"s {number % 2}", material="text", half=half))  # type: ignore[arg-type]
        tokens, nothing = tuple(int(t) for t in random.integers(2, vocab, length)), (None,) * length
        windows.append(Window(unit=number, tokens=tokens, words=nothing, kinds=nothing, alike=number))
    return Reading(units=tuple(units), windows=tuple(windows))


def given_of(model: Any, reading: Reading, **more: Any) -> Given:
    watching = Agreement().instruments(model)
    state = observe(model, reading, watching, begin(model, reading, watching)).states
    return Given(**{"model": model, "reading": reading, "states": state, "before": [], "depth": "standard", "seed": 0, **more})


@pytest.fixture(scope="module")
def planted(tiny_hf: Any, agreeing_tokenizer: Any) -> tuple[Given, Kept]:
    """The model made by hand, and what the study keeps of it."""
    tokenizer = agreeing_tokenizer()
    model = iw.Model(handmade(tiny_hf, tokenizer), tokenizer, certified=False)
    given = given_of(model, reading_of(len(tokenizer)))
    return given, Agreement().measure(given)


def test_the_neurons_that_carry_the_number_are_found_and_matched_decoys_are_not(planted: tuple[Given, Kept]) -> None:
    given, kept = planted
    rows = Agreement().findings(kept, units_of(given.reading), [])
    rungs = {(row.layer, row.index): row.rung for row in rows if row.measure == "contribution" and row.rung}
    assert set(rungs) == {CARRIES, HELPS}
    assert rungs[CARRIES] >= 2
    [harm] = [row for row in rows if row.measure == "harm" and (row.layer, row.index) == CARRIES]
    assert DECOY in map(tuple, kept.arrays["ablation/L1N5/controls"].tolist())
    assert harm.effect > 10 * abs(harm.null) and harm.q is not None and harm.q < 0.001
    [joint] = [row for row in rows if row.measure == "joint_harm"]
    assert joint.target == "L1N5, L1N8" and joint.value > harm.value
    assert how_alike(kept.arrays["joint/times_as_much"]) in joint.note
    [claim] = [claim for claim in NEURONS if claim.id == "F5"]
    verdict = judge(claim, frame(rows))
    assert [one.answer for one in verdict.evidence][:3] == ["yes", "yes", "yes"], verdict.summary


def test_the_ceiling_is_above_every_contribution_there_is(planted: tuple[Given, Kept]) -> None:
    given, kept = planted
    rows = Agreement().findings(kept, units_of(given.reading), [])
    [ceiling] = [row for row in rows if row.measure == "ceiling"]
    assert ceiling.effect_high >= max(row.effect for row in rows if row.measure == "contribution")
    assert ceiling.n == 14 and "96 neurons" in ceiling.note


def test_a_scan_goes_on_from_what_was_saved(planted: tuple[Given, Kept]) -> None:
    given, kept = planted
    saved: list[Kept] = []
    whole = Agreement().measure(given_of(given.model, given.reading, save=saved.append))
    for stop in saved:
        again = Agreement().measure(given_of(given.model, given.reading, saved=stop))
        assert set(again.arrays) == set(whole.arrays)
        assert Agreement().findings(again, [], []) == Agreement().findings(whole, [], [])
    assert len(saved) >= 3


def test_contributions_are_what_the_difference_falls_by_where_everything_is_linear(planted: tuple[Given, Kept]) -> None:
    """The last layer's neurons go through the final norm only: a step of a thousandth, against the exact difference."""
    given, _ = planted
    model, asked = given.model, sides(given.model, 2)
    mean = reference_of(model, [one for one, _ in asked["discovery"].parts], over="prompts").mean
    side = asked["confirmation"]
    found = contributions(model, side, mean)
    metric, small = difference(model, side.asked), 1e-3
    clean = model.run(side.batch.tokens, mask=side.batch.mask, record="L1.neurons", logits="none")
    for neuron in (5, 6, 20):
        own = clean["L1.neurons"].clone()
        rows = side.batch.mask.clone()
        rows[:, 0] = False
        moved = own[..., neuron] + small * (mean.values["neurons"][1, neuron] - own[..., neuron])
        own[..., neuron] = torch.where(rows, moved, own[..., neuron])
        after = model.run(side.batch.tokens, mask=side.batch.mask, edit=iw.model.patch("L1.neurons", own), logits="none")
        fall = (metric(side.batch, clean.final) - metric(side.batch, after.final)).double().numpy(force=True) / small
        np.testing.assert_allclose(found[:, 1, neuron], side.by_unit(fall[None])[0], atol=2e-2)


def test_a_random_model_has_no_agreement_neurons(tiny_hf: Any, agreeing_tokenizer: Any) -> None:
    tokenizer = agreeing_tokenizer()
    labels = 0
    for family in ("llama", "gpt2"):
        model = iw.Model(tiny_hf(family, vocab_size=len(tokenizer)), tokenizer, certified=False)
        given = given_of(model, reading_of(len(tokenizer)), depth="quick")
        rows = Agreement().findings(Agreement().measure(given), [], [])
        labels += sum(row.rung > 0 for row in rows)
        assert any(row.measure == "ceiling" for row in rows)
    assert labels == 0


def test_what_cannot_be_asked_is_not_measured(tiny_model: Any) -> None:
    reading = reading_of(300)
    for family, why in (("mixtral", "mixture of experts"), ("llama", "keeps 0 units")):
        kept = Agreement().measure(given_of(tiny_model(family), reading))
        assert why in kept.about["not measured"] and Agreement().findings(kept, [], []) == []


def test_groups_have_no_neuron_in_common_and_each_is_like_the_members() -> None:
    removed = np.random.default_rng(0).gamma(2.0, 1.0, (4, 200))
    members, suspects = [(1, 3), (1, 4), (3, 7)], [(0, 1), (3, 8)]
    groups = matched_groups(members, suspects, removed)
    flat = [one for group in groups for one in group]
    assert len(groups) == 20 and len(set(flat)) == 60 and not set(flat) & {*members, *suspects}
    ratios = [np.hypot.reduce([removed[one] for one in some]) for some in (members, *groups)]
    assert times_as_much(members, groups, removed) == pytest.approx(np.array(ratios[1:]) / ratios[0])
    twice = np.stack([removed, removed, 2 * removed])  # the third member is changed in another way, and so are its controls
    assert matched_groups(members, suspects, twice) == groups
    for group in groups:
        for member, control in zip(members, group, strict=True):
            assert abs(member[0] - control[0]) <= 1
            assert abs(np.log(removed[control] / removed[member])) < np.log(2)


def test_one_group_is_no_comparison() -> None:
    assert matched_groups([(0, 0), (0, 1)], [], np.ones((2, 3))) == []
    assert matched_groups([(0, 0)], [], np.ones((1, 2))) == []
    assert len(matched_groups([(0, 0)], [], np.ones((1, 3)))) == 2


def test_without_control_groups_neurons_are_not_necessary_together(planted: tuple[Given, Kept], monkeypatch: Any) -> None:
    given, kept = planted
    monkeypatch.setattr(study, "matched_groups", lambda *some: [])
    alone = Kept(arrays={name: one for name, one in kept.arrays.items() if not name.startswith("joint/")}, about=kept.about)
    rows = Agreement().findings(Agreement().measure(given_of(given.model, given.reading, saved=alone)), [], [])
    [joint] = [row for row in rows if row.measure == "joint_harm"]
    assert joint.effect > 0.1 and (joint.p, joint.null_kind) == (1.0, "none") and "too few neurons" in joint.note


def test_the_instrument_is_asked_for_where_there_are_neurons(tiny_model: Any) -> None:
    assert [one.name for one in Agreement().instruments(tiny_model("llama"))] == [NeuronMeans.name]
    assert Agreement().instruments(tiny_model("mixtral")) == []
