"""Numbers, tokens and sentences: printed with care, and claiming no more than was shown."""

import math
from dataclasses import replace

import pytest

from innerworks.atlas import Atlas, Example
from innerworks.findings import frame
from innerworks.show import numbers
from innerworks.show.behaviours import BEHAVIOURS, behaviour_of, in_order
from innerworks.show.examples import at_query, strongest
from innerworks.show.facts import facts, sentences
from innerworks.show.measures import CAUSAL, MEASURES, measure_of, where
from innerworks.show.tokens import visible
from innerworks.show.verdicts import Verdict, headline, kind_of_model, kindred, sentence, verdicts, would_have_been_found
from invented_neurons import row as neuron


@pytest.fixture(scope="module")
def found(atlas: Atlas) -> dict[str, Verdict]:
    return {verdict.behaviour.name: verdict for verdict in verdicts(atlas.findings)}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "–"), (1e-60, "< 1e-6"), (3.14e-5, "3.1e−5"), (0.0266, "0.027"), (1.0, "1.0")],
)
def test_q_is_never_printed_as_zero(value: float | None, text: str):
    assert numbers.q_value(value) == text


@pytest.mark.parametrize(
    ("numbers_given", "text"),
    [
        ((0.6802, 0.6601, 0.7003), "0.68 [0.66, 0.70]"),
        ((-0.00139, -0.00188, -0.00089), "−0.0014 [−0.0019, −0.0009]"),
        ((-0.0001, -0.02, 0.02), "0.00 [−0.02, 0.02]"),
        ((0.5, math.nan, math.nan), "0.500"),
        ((math.nan, math.nan, math.nan), "–"),
        ((0.81, 0.81, 0.81), "0.810"),
        ((5400.0, 4860.0, 5940.0), "5400 [4860, 5940]"),
        ((42.0, 38.0, 46.0), "42.0 [38.0, 46.0]"),
    ],
)
def test_an_estimate_has_the_digits_its_interval_supports(numbers_given: tuple[float, float, float], text: str):
    assert numbers.estimate(*numbers_given) == text


def test_other_numbers():
    assert [numbers.rounded(x) for x in (0.0703, 1234.0, 0.0, None)] == ["0.070", "1200", "0", "–"]
    assert [numbers.constant(x) for x in (0.02, 0.1)] == ["0.02", "0.1"]
    assert [numbers.small(x) for x in (0.0, 2e-6)] == ["0", "2.0e−6"]
    assert numbers.count(44064) == "44\u202f064"
    assert [numbers.duration(x) for x in (0.8, 73.4, 512.0)] == ["0.80 s", "73 s", "8 min 32 s"]


def test_tokens_are_visible_short_and_harmless(evil: str):
    assert [visible(token) for token in (" the", "\n           ", "\t", "", "\u202e")] == [
        "·the",
        "⏎·×11",
        "⇥",
        "∅",
        "U+202E",
    ]
    assert len(visible(evil)) == 16
    assert "\x1b" not in visible("\x1b[31mred")


def test_strongest_links_say_where_a_head_looks(example: Example):
    (first,) = strongest(example)
    assert (first.query, first.key, round(first.probability, 2)) == ("·cat", "⏎", 0.8)
    assert len(strongest(example, most=2, least=0.0)) == 2


def test_sentences_claim_no_more_than_their_rung(found: dict[str, Verdict]):
    said = {name: sentence(verdict) for name, verdict in found.items()}
    assert said["induction"] == "3 induction heads were seen; 1 of 2 ablated is shown to be necessary and selective."
    assert said["previous_token"] == "2 previous-token heads were seen; 1 of 1 ablated is shown to be necessary."
    assert said["first_token"] == "3 heads that rest on the first token were seen."
    assert said["offset_2"] == "No two-back head was found."


def test_what_was_not_found_says_what_would_have_been(found: dict[str, Verdict]):
    said = would_have_been_found(found["offset_2"])
    assert "at least 0.061 on real text and 0.061 on random tokens would be found about nine times in ten" in said
    assert "The nearest was L0H3: " in said


def test_headline(atlas: Atlas, empty_atlas: Atlas):
    assert headline(verdicts(atlas.findings)) == (
        "Of 12 attention heads, 4 show a known behaviour; of 3 ablated, 2 are shown to be necessary for it, and losing 1 of "
        "these harms little where it does not apply. A further 2 rest on the first token."
    )
    assert (
        headline(verdicts(empty_atlas.findings))
        == "In 12 attention heads, none of the 1 behaviours that were looked for was found."
    )
    assert "llama family with 1.23 million parameters: 3 layers of 4 attention heads" in kind_of_model(atlas)


def test_a_second_null_is_no_ablation_and_decides_with_the_first(joiner_atlas: Atlas):
    (joiner,) = verdicts(joiner_atlas.findings)  # that a sink gives way is no behaviour of its own
    assert (joiner.behaviour.name, joiner.at_least(1), joiner.tried) == ("subword_joiner", 1, 0)
    assert sentence(joiner) == "1 subword-joiner head was seen."
    label, other = joiner.heads[:2]
    assert label.site == "L1H0" and label.causal == other.causal == ()
    assert label.strength == pytest.approx(0.225 / 0.05) and other.strength == pytest.approx(0.01 / 0.05)
    assert joiner.detectable == {"text": 0.0777}
    assert headline([joiner]) == "Of 12 attention heads, 1 shows a known behaviour."


def test_counts_by_rung(found: dict[str, Verdict]):
    assert [found["induction"].at_least(rung) for rung in (1, 2, 3)] == [3, 1, 1]
    assert (found["induction"].tried, found["first_token"].tried) == (2, 0)
    assert found["induction"].labels[0].site == "L2H1"


def test_every_behaviour_has_its_own_look():
    looks = [(one.colour, one.mark) for one in BEHAVIOURS.values()]
    assert len(set(looks)) == len(looks)
    assert all(one.link and one.meaning for one in BEHAVIOURS.values())
    assert behaviour_of("s_inhibition").title == "s inhibition"
    assert [one.name for one in in_order(["s_inhibition", "first_token", "induction"])] == [
        "induction",
        "first_token",
        "s_inhibition",
    ]


def test_every_behaviour_has_its_mark_in_the_report() -> None:
    from importlib.resources import files

    from innerworks.show.behaviours import BEHAVIOURS

    template = (files("innerworks.show.report") / "template.html").read_text(encoding="utf-8")
    assert [one.name for one in BEHAVIOURS.values() if f'id="mark-{one.mark}"' not in template] == []


# --- every kind ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every(rich_atlas: Atlas) -> dict[str, Verdict]:
    return {verdict.behaviour.name: verdict for verdict in verdicts(rich_atlas.findings)}


def test_a_label_is_a_row_with_a_rung_whatever_was_measured(every: dict[str, Verdict]):
    assert [head.site for head in every["copying"].labels] == ["L2H1"]
    assert every["copying"].labels[0].decides == {("eigenvalue", "weights"), ("direct_effect", "text")}
    assert every["copying"].labels[0].note == "" and every["syntactic:nsubj"].labels[0].note == "1 word back"
    assert every["copying"].labels[0].strength == pytest.approx(min(0.8 / 0.1, 0.4 / 0.05))
    assert [head.site for head in every["domain:python"].labels] == ["L2H0"] and every["domain:python"].tried == 1
    assert {head.site for head in every["induction"].labels} == {"L2H1", "L2H2", "L1H0"}  # a pair is no label


def test_facts_are_no_kinds_of_head(every: dict[str, Verdict], rich_atlas: Atlas):
    told = {one.behaviour.name: one for one in facts(rich_atlas.findings)}
    assert set(told) == {"attention_sink", "massive_activation", "composition", "streaming"} and not set(told) & set(every)
    assert len(told["composition"].scores) == 2 + 3 + 1
    said = sentences(told["composition"])
    assert (
        "Composition through keys (by its weights): 3 of 3 above the floor of 0.04; the strongest is L2H1 with L0H3, 0.300 score."
        in said
    )
    (said,) = sentences(told["attention_sink"])
    assert said.startswith("Rest on the first token that gives way (on real text), L2H1, induction: 0.30 [0.27, 0.33]")


def test_what_was_not_put_to_a_test_is_said_to_be_a_description():
    shape = {"unit": "share of neurons", "floor": 0.5, "p": None, "q": None, "rung": 0}
    rows = [neuron("polysemantic_neuron", "model", "several_tokens", 0.9, **shape)]
    rows.append(replace(rows[0], measure="early_share", effect=0.4, effect_low=0.2, effect_high=0.6, p=0.8))
    (told,) = facts(frame(rows), "neurons")
    several, early = sorted(sentences(told), key=lambda said: "first half" in said)
    assert several.endswith("model: 0.90 [0.81, 0.99] share of neurons; a description, which was not put to a test.")
    assert early.endswith("not shown to be above the floor of 0.5.")


def test_families_are_told_together(every: dict[str, Verdict]):
    told = {one.behaviour.name: one for one in kindred(list(every.values()))}
    assert list(told)[:4] == ["induction", "previous_token", "copying", "anti_copying"]
    syntax = told["syntactic"]
    assert syntax.is_family and syntax.at_least(1) == 3 and syntax.sites == {"L1H0", "L0H2"} and len(syntax.labels) == 3
    assert sentence(syntax) == "3 of 6 relations have heads of their own (2 heads in all)."
    assert not told["copying"].is_family and sentence(told["copying"]) == "1 copying head was seen."
    assert "Nearest of all came" in would_have_been_found(replace(syntax, verdicts=syntax.verdicts[1:2]))


def test_a_family_without_labels_says_so(every: dict[str, Verdict]):
    (told,) = kindred([every["syntactic:obj"], every["syntactic:case"]])
    assert sentence(told) == "No head that follows a syntactic relation was found, for any of 2 relations."


def test_members_of_families_are_named_in_words():
    subject, object = behaviour_of("syntactic:nsubj"), behaviour_of("syntactic:obj<")
    assert (subject.title, object.title) == ("subject → head (nsubj)", "head → object (obj<)")
    assert subject.says == "looks from a word (subject) at the one it depends on" and subject.plural == "nsubj heads"
    assert (subject.family, subject.kin, subject.colour) == ("syntactic", "syntactic", BEHAVIOURS["syntactic"].colour)
    assert behaviour_of("domain:python").says == "matters for python more than for all other domains"
    assert behaviour_of("syntactic:new").title == "new → head (new)" and behaviour_of("composition:k").kin == "composition"


def test_measures_answer_questions_known_or_not():
    assert set(CAUSAL) == {"harm", "joint_harm", "marginal_harm", "collateral"}
    assert {measure.question for measure in MEASURES.values()} == {"looks", "writes", "breaks", "partners"}
    assert measure_of("new_one", ablation="mean").question == "breaks"
    assert measure_of("new_one", material="weights").question == "writes" and measure_of("new_one").title == "new one"
    assert measure_of("composition", behaviour="composition:q").of_pair == "reads {} in its queries"
    assert [where(name) for name in ("text", "weights", "agreement")] == ["on real text", "by its weights", "on agreement"]


def test_an_example_begins_with_its_own_query(example: Example):
    asked = replace(example, query=6)
    assert [(link.query_position, link.key_position) for link in at_query(asked)] == [(6, 2)]
    assert at_query(example) == strongest(example)
