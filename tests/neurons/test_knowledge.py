"""Knowledge neurons: integrated gradients against plain ones, and a model made by hand in which one neuron carries each fact."""

from typing import Any

import numpy as np
import pytest
import torch

import innerworks as iw
from innerworks.claims.claim import judge
from innerworks.claims.neurons import NEURONS
from innerworks.findings import frame
from innerworks.model import patch, scale
from innerworks.model.study import Given, Kept
from innerworks.neurons.knowledge import Knowledge, decide, study
from innerworks.neurons.knowledge.facts import HALVES, RELATIONS, Fact, facts
from innerworks.neurons.knowledge.gradients import integrated_gradients
from innerworks.neurons.knowledge.known import known
from innerworks.neurons.knowledge.move import Question, moved
from innerworks.neurons.knowledge.refine import overlap, shared_neurons
from innerworks.text import Reading
from innerworks.text.tasks.agreement import BETWEEN, NOUNS, TEMPLATES, VERBS

WIDTH, NEURONS_EACH = 256, 240
PROMPTS = [(5, 9, 14, 3), (8, 30, 2, 40), (7, 9, 14, 3, 60, 22), (21, 19, 3)]


# --- pieces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_integrated_gradients_are_what_plain_ones_are(tiny_model: Any, family: str) -> None:
    model, answers, steps = tiny_model(family), [4, 17, 100, 250], 4
    found = integrated_gradients(model, PROMPTS, answers, steps=steps)
    for number, (tokens, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
        ids = torch.tensor([tokens])
        for layer in (0, model.anatomy.layers - 1):
            site = f"L{layer}.neurons"
            whole = model.run(ids, record=site)[site].detach()
            total = torch.zeros(model.anatomy.neurons)
            for k in range(steps):
                own = (whole[0, -1] * (k + 0.5) / steps).requires_grad_()
                value = torch.cat([whole[:, :-1], own[None, None]], dim=1)
                run = model.run(ids, edit=patch(site, value), logits="last", grad=True)
                probability = run.require_logits[0].float().softmax(dim=0)[answer]
                total += torch.autograd.grad(probability, own)[0] / steps
            torch.testing.assert_close(found.probability[number, layer], whole[0, -1] * total, atol=1e-6, rtol=1e-3)
            torch.testing.assert_close(found.activation[number, layer], whole[0, -1])


def test_attributions_add_up_to_what_a_silent_layer_loses(tiny_model: Any) -> None:
    model, tokens, answer = tiny_model("llama"), PROMPTS[0], 17
    found = integrated_gradients(model, [tokens], [answer], steps=64)
    ids, last = torch.tensor([tokens]), torch.tensor([[False, False, False, True]])
    for layer in range(model.anatomy.layers):
        silent = iw.model.ablate(f"L{layer}.neurons", "zero", positions=last)
        logits = [model.run(ids, edit=edit, logits="last").require_logits[0].float() for edit in ([], silent)]
        with_it, without = (one.log_softmax(dim=0)[answer] for one in logits)
        assert float(found.probability[0, layer].sum()) == pytest.approx(float(with_it.exp() - without.exp()), rel=1e-2, abs=1e-6)
        assert float(found.nats[0, layer].sum()) == pytest.approx(float(with_it - without), rel=1e-2, abs=1e-4)


def test_questions_are_answered_as_one_by_one(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    asked = [
        Question(tokens=PROMPTS[0], answers=(17,), neurons=((0, 3), (2, 11)), factor=0.0),
        Question(tokens=PROMPTS[2], answers=(4, 9), neurons=((1, 40),), factor=2.0),
        Question(tokens=PROMPTS[1], answers=(17,), neurons=((1, 40), (1, 2)), factor=2.0),
        Question(tokens=PROMPTS[0], answers=(1,), neurons=((2, 7),), factor=0.0),
    ]
    before, after = moved(model, asked)
    for i, one in enumerate(asked):
        ids = torch.tensor([one.tokens])
        last = torch.zeros_like(ids, dtype=torch.bool)
        last[:, -1] = True
        edits = [scale(f"L{layer}N{neuron}", one.factor, positions=last) for layer, neuron in one.neurons]
        for edit, found in (([], before[i]), (edits, after[i])):
            logits = model.run(ids, edit=edit, logits="last").require_logits[0].double()
            assert found == pytest.approx(float(logits.log_softmax(dim=0)[list(one.answers)].logsumexp(dim=0)), abs=1e-4)
    assert abs(after - before).min() > 1e-6


def test_a_fact_keeps_what_most_wordings_share() -> None:
    attributions = torch.zeros(3, 2, 10)
    attributions[:, 1, 4] = torch.tensor([0.9, 0.5, 0.6])  # the largest of every wording
    attributions[:2, 0, 2] = 0.2  # of two of three
    attributions[0, 0, 7] = 0.8  # of one alone
    attributions[:, 0, 8] = 0.1  # too small for all but one, where .1 is a fifth
    attributions[:, 1, 9] = -0.9
    assert shared_neurons(attributions) == ((1, 4), (0, 2))
    assert shared_neurons(torch.zeros(3, 2, 10)) == ()
    assert overlap(((1, 4), (0, 2)), ((1, 4),)) == 0.5


# --- a model made by hand -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tokenizer_of: Any) -> Any:
    """One token for each word of the facts and of the agreement task."""
    texts = [f"{way.format(subject)} {answer}" for one in RELATIONS.values() for way in one.ways for subject, answer in one.facts]
    texts += [template.format(subject="", between="") for some in TEMPLATES.values() for template in some]
    texts += [word for both in (*NOUNS, *BETWEEN, *VERBS) for word in both]
    return tokenizer_of(words=sorted({word for text in texts for word in text.split()}))


def handmade(tiny_hf: Any, tokenizer: Any, *, syntax: bool = False) -> Any:
    """Attention is even. Each fact has a neuron that fires where its subject and its relation were read, and writes the answer.

    syntax: the same neurons also speak against every verb: they move grammar as much as facts.
    """
    some = facts(tokenizer)
    sizes = dict(vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=NEURONS_EACH, num_hidden_layers=1)
    hf = tiny_hf("llama", **sizes, num_key_value_heads=4, tie_word_embeddings=False)
    random = torch.Generator().manual_seed(0)
    codes = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=random)).Q  # orthogonal codes, as rows
    ids = tokenizer.convert_tokens_to_ids
    subjects = list(dict.fromkeys(one.subject for one in some))
    answers, relations = sorted({one.answer for one in some}), list(RELATIONS)
    block = hf.model.layers[0]
    with torch.no_grad():
        for norm in (block.input_layernorm, block.post_attention_layernorm, hf.model.norm):
            norm.weight.fill_(1.0)
        for weight in (block.self_attn.q_proj.weight, block.self_attn.k_proj.weight):
            weight.zero_()
        hf.model.embed_tokens.weight.copy_(0.02 * torch.randn(len(tokenizer), WIDTH, generator=random))
        hf.lm_head.weight.copy_(0.02 * torch.randn(len(tokenizer), WIDTH, generator=random))
        for i, subject in enumerate(subjects):  # of the name's last word, with or without a comma
            for word in (subject.split()[-1], subject.split()[-1] + ","):
                if ids(word) != tokenizer.unk_token_id:
                    hf.model.embed_tokens.weight[ids(word)] = codes[i]
        for i, relation in enumerate(relations):  # of every other word of its ways to ask, as far as no other relation has it
            others = {word for name in relations if name != relation for way in RELATIONS[name].ways for word in way.split()}
            for word in {word for way in RELATIONS[relation].ways for word in way.split()} - others - {"{}", "{},"}:
                hf.model.embed_tokens.weight[ids(word)] = codes[WIDTH - 1 - i]
        for i, answer in enumerate(answers):
            hf.lm_head.weight[answer] = 0.4 * codes[100 + i]
        block.self_attn.v_proj.weight.copy_(torch.eye(WIDTH))
        block.self_attn.o_proj.weight.copy_(torch.eye(WIDTH))
        for weight in (block.mlp.gate_proj.weight, block.mlp.up_proj.weight, block.mlp.down_proj.weight):
            weight.copy_(0.01 * torch.randn(weight.shape, generator=random))
        for neuron, one in enumerate(some):
            block.mlp.gate_proj.weight[neuron] = 4.0 * codes[subjects.index(one.subject)]
            block.mlp.up_proj.weight[neuron] = codes[WIDTH - 1 - relations.index(one.relation)]
            block.mlp.down_proj.weight[:, neuron] = 0.2 * codes[100 + answers.index(one.answer)]
    return hf


@pytest.fixture(scope="module")
def planted(tiny_hf: Any, tokenizer: Any) -> tuple[Any, Kept]:
    """The model made by hand, and what the study keeps of it."""
    model = iw.Model(handmade(tiny_hf, tokenizer), tokenizer, certified=False)
    return model, Knowledge().measure(given_of(model))


def given_of(model: Any, **more: Any) -> Given:
    nothing = Reading(units=(), windows=())
    return Given(**{"model": model, "reading": nothing, "states": {}, "before": [], "depth": "standard", "seed": 0, **more})


def found_alone(kept: Kept) -> Kept:
    """What the study has kept once it knows each fact's neurons."""
    return Kept(
        arrays={name: kept.arrays[name] for name in ("members", "strength", "controls", "times_as_much")}, about=kept.about
    )


def test_each_planted_fact_is_found_in_its_own_neuron(planted: tuple[Any, Kept], tokenizer: Any) -> None:
    _, kept = planted
    place = {one.name: neuron for neuron, one in enumerate(facts(tokenizer))}
    members = kept.arrays["members"].tolist()
    names = kept.about["facts"]
    own = [(number, 0, place[names[number]]) for number in range(len(names))]
    found = {tuple(one) for one in members}
    assert len(names) == 14 and sum(one in found for one in own) >= 13
    assert len(members) <= 24


def test_planted_facts_are_lost_without_their_neurons_and_others_are_not(planted: tuple[Any, Kept]) -> None:
    rows = Knowledge().findings(planted[1], [], [])
    by_measure = {row.measure: row for row in rows if row.site == "model"}
    for name in ("suppression", "suppression_own", "amplification", "amplification_own", "beyond_agreement"):
        row = by_measure[name]
        assert row.effect_low > row.floor and row.q is not None and row.q < 0.01, name
        assert (row.n, row.df) == (12, 11)  # four relations, three ways to ask
    assert "control groups remove" in by_measure["suppression"].note
    assert abs(by_measure["suppression_own"].null) < 0.1 * by_measure["suppression_own"].value
    [claim] = [claim for claim in NEURONS if claim.id == "F4"]
    assert judge(claim, frame(rows)).verdict == "holds"


def test_neurons_that_move_grammar_as_much_are_not_of_facts_alone(planted: tuple[Any, Kept]) -> None:
    _, kept = planted
    arrays = {**kept.arrays, "suppression/agreement": -kept.arrays["suppression/own"] / 2}
    rows = decide.findings(Kept(arrays=arrays, about=kept.about))
    [row] = [row for row in rows if row.measure == "beyond_agreement"]
    assert row.effect_high < 0 and row.p is not None and row.p > 0.5
    [claim] = [claim for claim in NEURONS if claim.id == "F4"]
    assert judge(claim, frame(rows)).verdict == "holds in part"


def test_verb_forms_that_rise_and_fall_do_not_cancel(planted: tuple[Any, Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    def either_way(model: Any, questions: list[Question], **more: Any) -> np.ndarray:
        return np.stack([np.zeros(len(questions)), np.where(np.arange(len(questions)) % 2, 0.1, -0.1)])

    monkeypatch.setattr(study, "moved", either_way)
    model, kept = planted
    again = Knowledge().measure(given_of(model, saved=found_alone(kept)))
    assert np.allclose(again.arrays["suppression/agreement"], 0.1)
    assert abs(again.arrays["suppression/others"]).max() < 0.1


def test_a_unit_is_a_way_to_ask_for_the_facts_of_a_relation(planted: tuple[Any, Kept]) -> None:
    """Were facts the units, asking for one of them twice would add one."""
    _, kept = planted
    twice = {name: array.repeat(2, axis=-2) for name, array in kept.arrays.items() if name.count("/") and array.ndim > 1}
    numbers = np.arange(2 * len(decide.having(kept)))
    members = np.stack([numbers, 0 * numbers, 0 * numbers], axis=1)
    arrays = {**kept.arrays, **twice, "members": members, "strength": np.ones(len(numbers))}
    about = {name: np.repeat(kept.about[name], 2).tolist() for name in ("facts", "relations")}
    rows, again = decide.findings(kept), decide.findings(Kept(arrays=arrays, about=about))
    for one, other in zip(rows[:5], again[:5], strict=True):
        assert (one.measure, one.n) == (other.measure, other.n) and one.effect_low == pytest.approx(other.effect_low)


def test_without_control_groups_nothing_is_beyond_them(planted: tuple[Any, Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "matched_groups", lambda *some: [])
    rows = {row.measure: row for row in Knowledge().findings(Knowledge().measure(given_of(planted[0])), [], [])}
    for name in ("suppression", "amplification"):
        assert (rows[name].p, rows[name].null_kind) == (1.0, "none") and "too few neurons" in rows[name].note
    assert rows["suppression_own"].q is not None and rows["suppression_own"].q < 0.01


def test_neurons_that_harm_every_fact_alike_carry_none(planted: tuple[Any, Kept]) -> None:
    _, kept = planted
    arrays = {**kept.arrays, "suppression/others": kept.arrays["suppression/own"]}
    [row] = [one for one in decide.findings(Kept(arrays=arrays, about=kept.about)) if one.measure == "suppression_own"]
    assert row.effect == 0 and row.p == 1


def test_a_scan_goes_on_from_the_neurons_that_were_found(planted: tuple[Any, Kept]) -> None:
    model, kept = planted
    again = Knowledge().measure(given_of(model, saved=found_alone(kept)))
    assert decide.findings(again) == decide.findings(kept)


def test_what_a_model_does_not_know_is_not_asked_of_its_neurons(tiny_hf: Any, tokenizer: Any, tiny_model: Any) -> None:
    random = iw.Model(tiny_hf("gpt2", vocab_size=len(tokenizer)), tokenizer, certified=False)
    for model, why in (
        (random, "of our facts"),
        (tiny_model("llama"), "keeps 0 units"),
        (tiny_model("mixtral"), "mixture of experts"),
    ):
        kept = Knowledge().measure(given_of(model))
        assert why in kept.about["not measured"] and Knowledge().findings(kept, [], []) == []
    assert "quick" in Knowledge().measure(given_of(random, depth="quick")).about["not measured"]


def test_a_fact_is_known_where_its_answer_is_the_first_of_its_relation_more_often_than_not(planted: tuple[Any, Kept]) -> None:
    model, _ = planted
    some: list[Fact] = list(facts(model.tokenizer))[:12]
    found = {one.name for one in known(model, some)}
    for one in some:
        rivals = sorted({other.answer for other in some if other.relation == one.relation})
        shares = []
        for half in HALVES:
            logits = [model.run(torch.tensor([tokens]), logits="last").require_logits[0] for tokens in one.prompts[half]]
            shares.append(np.mean([rivals[int(row[rivals].argmax())] == one.answer for row in logits]))
        assert (one.name in found) == (min(shares) > 0.5)


def test_ways_of_asking_are_dealt_to_both_halves_and_none_gives_the_answer_away(tokenizer: Any) -> None:
    some = facts(tokenizer)
    assert {one.relation for one in some} == set(RELATIONS)
    for one in some:
        assert len(one.prompts["discovery"]) == len(one.prompts["confirmation"]) == 3
        assert not set(one.prompts["discovery"]) & set(one.prompts["confirmation"])
        assert all(one.answer not in tokens for half in HALVES for tokens in one.prompts[half])
