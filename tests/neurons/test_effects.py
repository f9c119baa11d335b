"""What depends on neurons: planted ones that predictions need are necessary, idle ones are not, and of a random model none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import innerworks as iw
from innerworks.claims.claim import judge
from innerworks.claims.neurons import NEURONS
from innerworks.findings import Finding, frame
from innerworks.model.losses import counted, document_losses
from innerworks.model.study import Given, Kept, units_of
from innerworks.neurons.effects import Effects, decide, study
from innerworks.neurons.effects.ablate import Way, rises
from innerworks.neurons.effects.families import FAMILIES, Family, families_of, labels_of
from innerworks.neurons.effects.screen import screened
from innerworks.neurons.effects.study import Effort, beginnings
from innerworks.neurons.inputs import Inputs, NeuronInputs
from innerworks.neurons.inputs.design import Design
from innerworks.neurons.means import NeuronMeans, neuron_reference
from innerworks.neurons.necessity import without
from innerworks.scan.engine import begin, observe
from innerworks.scan.studies import watch
from innerworks.text import Corpus, Reading, read
from innerworks.text.reading import Unit, Window
from invented_neurons import row
from planted import phantom, place

SMALL = Effort(documents=28, tokens=48, alone=3, controlled=3)


def given_of(model: Any, reading: Reading, before: list[Finding], **more: Any) -> Given:
    watching = watch(model, [Effects()])
    states = observe(model, reading, watching, begin(model, reading, watching)).states
    shape: dict[str, Any] = {"model": model, "reading": reading, "states": states, "depth": "standard", "seed": 0}
    return Given(**{**shape, "before": before, **more})


# --- planted ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted() -> tuple[Any, Given, Kept, list[Finding]]:
    """The phantom of all kinds of neuron: what the study keeps of it, and all findings."""
    torch.set_num_threads(1)
    made = phantom("gpt2", 0, kit="neurons")
    model = iw.Model(made.hf, made.tokenizer, name="phantom")
    a = model.anatomy
    reading = read(Corpus.of("phantom", made.corpus(80, seed=0)), model.tokenizer, vocab=a.vocab, max_positions=a.max_positions)
    given = given_of(model, reading, [])
    before = NeuronInputs().findings(NeuronInputs().measure(given), units_of(reading), [])
    given = replace(given, before=before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(study.EFFORTS, "standard", SMALL)
        kept = Effects().measure(given)
    return made, given, kept, Effects().findings(kept, units_of(reading), before)


def rungs(rows: list[Finding]) -> dict[tuple[str, str], int]:
    """By kind and site, of labels."""
    return {(one.behaviour, one.site): one.rung for one in rows if one.rung and one.behaviour in FAMILIES}


def test_planted_neurons_that_predictions_depend_on_are_necessary_and_idle_ones_and_decoys_are_not(
    planted: tuple[Any, Given, Kept, list[Finding]],
) -> None:
    made, _, _, rows = planted
    triggers, single = made.truth["token_detector"]
    (after,) = made.truth["previous_token_neuron"]
    assert {triggers, after} <= set(made.necessary) and single not in made.necessary
    found = rungs(rows)
    assert found["token_detector", triggers] == found["token_neuron", triggers] == found["previous_token_neuron", after] == 3
    assert found["token_detector", single] == found["token_detector", made.decoys["comma"]] == 1
    assert {site for (_, site), rung in found.items() if rung >= 2} <= set(made.necessary)
    harms = {(one.behaviour, one.site): one for one in rows if one.measure == "harm"}
    assert harms["token_detector", triggers].effect > 1 and abs(harms["token_detector", single].effect) < 0.1
    assert "where the token before is" in harms["previous_token_neuron", after].note
    assert "no controls run" in harms["token_detector", single].note
    assert all(np.isfinite([one.value, one.effect, one.effect_low, one.effect_high]).all() for one in harms.values())


def test_families_are_on_where_neurons_were_planted(planted: tuple[Any, Given, Kept, list[Finding]]) -> None:
    made, given, _, _ = planted
    design = Design.of(given.model.tokenizer, given.reading, vocab=given.model.anatomy.vocab)
    families = {(one.behaviour, one.neuron): one for one in families_of(given, design)}
    near, _ = made.truth["position_neuron"]
    edges = [design.columns[column] for column in families["position_neuron", place(near)].columns]
    assert edges[0] == ("position", "from 1") and ("position", "from 64") not in edges
    detector = families["token_detector", place(made.truth["token_detector"][0])]
    neuron = families["token_neuron", place(made.truth["token_detector"][0])]
    words = {design.columns[column][1] for column in neuron.columns}
    assert words == {made.tokenizer.decode([token]) for token in detector.tokens} and len(words) == 3
    (letter,) = made.truth["alphabet_neuron"]
    assert len(families["alphabet_neuron", place(letter)].columns) == 1


def test_claims_ask_whether_predictions_depend_on_them(planted: tuple[Any, Given, Kept, list[Finding]]) -> None:
    *_, rows = planted
    answers = {claim.id: judge(claim, frame(rows)).evidence[-1] for claim in NEURONS if claim.id in ("F7", "F10", "F11")}
    assert {name: one.answer for name, one in answers.items()} == {"F7": "yes", "F10": "open", "F11": "yes"}
    assert all(one.clause.startswith("predictions depend") for one in answers.values())


def test_a_joint_trial_raises_no_label(planted: tuple[Any, Given, Kept, list[Finding]]) -> None:
    made, given, kept, rows = planted
    joint = next(one for one in rows if one.measure == "joint_harm" and one.behaviour == "token_detector")
    assert joint.site == "model" and joint.rung == 0 and joint.q is not None and joint.q < 0.05
    assert joint.target is not None and made.truth["token_detector"][0] in joint.target.split(", ")
    alone = [i for i, about in enumerate(kept.about["trials"]) if len(about["neurons"]) == 1]
    quiet = {**kept.arrays, "harm": kept.arrays["harm"].copy()}
    quiet["harm"][alone] = -0.1
    found = Effects().findings(replace(kept, arrays=quiet), units_of(given.reading), list(given.before))
    assert any(one.measure == "joint_harm" and one.q is not None and one.q < 0.05 for one in found)
    assert max(rungs(found).values()) == 1


def test_it_goes_on_from_what_was_saved(planted: tuple[Any, Given, Kept, list[Finding]]) -> None:
    _, given, kept, rows = planted
    stopped = {name: one for name, one in kept.arrays.items() if "/" not in name}
    saved: list[Kept] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(study.EFFORTS, "standard", replace(SMALL, controlled=1))
        again = Effects().measure(replace(given, saved=replace(kept, arrays=stopped), save=saved.append))
    assert len(saved) == 2 and any(name.startswith("by_control/") for name in again.arrays)
    for name, one in again.arrays.items():
        np.testing.assert_allclose(one, kept.arrays[name], err_msg=name)


# --- what is measured -----------------------------------------------------------------------------------------------


def reading_of(documents: int = 56, length: int = 24) -> Reading:
    """Documents of few different tokens, in two strata."""
    random, units, windows = np.random.default_rng(4), [], []
    for number in range(documents):
        half = ("discovery", "confirmation")[number // 2 % 2]
        units.append(Unit(id=f"d/{number}", stratum=f"s {number % 2}", material="text", half=half))  # type: ignore[arg-type]
        tokens, nothing = tuple(int(t) for t in random.integers(2, 14, length)), (None,) * length
        windows.append(Window(unit=number, tokens=tokens, words=nothing, kinds=nothing, alike=number))
    return Reading(units=tuple(units), windows=tuple(windows))


def invented(model: Any) -> list[Finding]:
    """Labels of every kind, eight of each, on neurons of nobody's choice."""
    random = np.random.default_rng(0)
    sites = [f"L{random.integers(model.anatomy.layers)}N{neuron}" for neuron in range(8)]
    return [row(kind, site, "variance_explained", 0.5) for kind in FAMILIES for site in sites]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_nothing_depends_on_neurons_of_a_random_model(tiny_model: Any, family: str) -> None:
    model, reading = tiny_model(family), reading_of()
    before = invented(model)
    given = given_of(model, reading, before)
    kept = Effects().measure(given)
    rows = Effects().findings(kept, units_of(reading), before)
    harms = [one for one in rows if "harm" in one.measure]
    assert len(harms) >= 10 and {one.measure for one in harms} == {"harm", "joint_harm"}
    assert set(rungs(rows).values()) == {1} and all(one.q is not None and one.q > 0.05 for one in harms)
    labelled = [one for one in rows if one.rung]
    assert {one.note for one in labelled} == {"rung 2 tried, not shown", "rung 2 not tried"}


def test_rises_are_those_of_plain_runs(tiny_model: Any) -> None:
    model, reading = tiny_model("llama"), reading_of()
    given = given_of(model, reading, [])
    design = Design.of(model.tokenizer, reading, vocab=model.anatomy.vocab)
    mean = neuron_reference(model, given.states[NeuronMeans.name], "text").mean
    families = tuple(Family(behaviour="token_detector", neuron=(1, n), says="", tokens=(n,)) for n in (3, 4, 299))
    some = beginnings(reading, "confirmation", Effort(documents=12, tokens=20, alone=1, controlled=1))
    ways = [Way(neurons=((1, 3), (0, 2)), families=(one,)) for one in (families[0], families[2])]
    ways.append(Way(neurons=((0, 2),), families=families[:2]))
    found = rises(model, some, mean, ways, design)
    assert found.on.shape == (3, 12) and {one.tokens.shape[1] for one in some} == {20}
    assert np.isnan(found.on[1]).all()  # no such token
    row = 0
    for batch in some:
        clean = model.run(batch.tokens, mask=batch.mask, keep="resume", logits="none")
        changed = without(model, mean, ways[0].neurons)(clean)
        for on, side in ((batch.tokens == 3, found.on), (batch.tokens != 3, found.off)):
            before, after = (document_losses(model, one.final, batch, rows=on & counted(batch)) for one in (clean, changed))
            expected = (after - before).numpy(force=True)
            np.testing.assert_allclose(side[0, row : row + len(expected)], expected, atol=1e-5)
        row += len(batch.tokens)


def test_the_screen_is_the_slope_of_the_loss_at_the_rows_of_a_family(tiny_model: Any) -> None:
    """In the last layer a row's activation moves the loss of no other row: a small step there, against the estimate."""
    model, reading = tiny_model("llama"), reading_of()
    given = given_of(model, reading, [])
    design = Design.of(model.tokenizer, reading, vocab=model.anatomy.vocab)
    mean = neuron_reference(model, given.states[NeuronMeans.name], "text").mean
    last, small = model.anatomy.layers - 1, 1e-2
    family = Family(behaviour="token_detector", neuron=(last, 5), says="", tokens=(3, 4))
    some = beginnings(reading, "discovery", Effort(documents=8, tokens=24, alone=1, controlled=1))
    (estimate,) = screened(model, some, mean, [family], design)
    away = {**mean.values}
    slopes = []
    for batch in some:
        clean = model.run(batch.tokens, mask=batch.mask, record=f"L{last}.neurons", logits="none")
        own = clean[f"L{last}.neurons"].clone()
        own[:, 1:, 5] += small * (away["neurons"][last, 5] - own[:, 1:, 5])
        changed = model.run(batch.tokens, mask=batch.mask, edit=iw.model.patch(f"L{last}.neurons", own), logits="none")
        on = torch.isin(batch.tokens, torch.tensor([3, 4]))
        before, after = (document_losses(model, one.final, batch, rows=on) for one in (clean, changed))
        slopes.append(((after - before) / small).detach())
    assert estimate == pytest.approx(float(torch.cat(slopes).mean()), rel=0.1, abs=1e-5)


def test_what_cannot_be_asked_is_not_measured(tiny_model: Any) -> None:
    reading = reading_of()
    for family, depth, why in (
        ("mixtral", "standard", "mixture"),
        ("llama", "quick", "depth"),
        ("llama", "standard", "no label"),
    ):
        given = given_of(tiny_model(family), reading, [], depth=depth)
        kept = Effects().measure(given)
        assert why in kept.about["not measured"]
        before = invented(tiny_model(family))
        assert Effects().findings(kept, units_of(reading), before) == before
    assert [one.name for one in Effects().instruments(tiny_model("llama"))] == [Inputs.name, NeuronMeans.name]


def test_only_labels_of_these_kinds_are_asked_about() -> None:
    label = row("token_detector", "L1N2", "on_triggers", 0.99)
    others = [replace(label, rung=0), row("entropy", "L1N3", "entropy_effect", 0.5), replace(label, site="model", layer=None)]
    assert labels_of([*others, label, label]) == [("token_detector", (1, 2))]


def test_harms_that_exceed_the_floor_get_controls_the_largest_first() -> None:
    random = np.random.default_rng(0)

    def trial(neuron: int, mean: float, kind: str = "token_neuron") -> decide.Trial:
        harm, strata = mean + 0.01 * random.standard_normal(20), ["s"] * 20
        own = {"harm": harm, "strata": strata, "elsewhere": harm, "elsewhere_strata": strata}
        return decide.Trial(behaviour=kind, neurons=((0, neuron),), says="", **own)

    trials = [trial(1, 0.1), trial(2, 0.021), trial(3, 0.5), trial(1, 0.2, "token_detector"), trial(4, -1.0)]
    assert decide.worth_controls(trials) == [[2], [3, 0]]
