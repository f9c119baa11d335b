"""Skill neurons: the exact test, thresholds chosen on one part and tested on another, and what is lost without a group."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from scipy import stats as scipy_stats

from innerworks import Model
from innerworks.claims.claim import judge
from innerworks.claims.neurons import NEURONS
from innerworks.findings import frame
from innerworks.model.study import Given, Kept, units_of
from innerworks.neurons.skills import Skills, decide, study
from innerworks.neurons.skills.accuracy import best_by_chance, interval, mde, p_above
from innerworks.neurons.skills.perturb import trial
from innerworks.neurons.skills.predict import Parts, predictivity
from innerworks.neurons.skills.watch import LATE, MOST, SkillReadings, bytes_of, readings, watched
from innerworks.scan.engine import begin, observe
from innerworks.text import Reading
from innerworks.text.reading import Unit, Window

KINDS, PER_KIND = 3, 32
CLAIM = next(claim for claim in NEURONS if claim.id == "F2")


# --- the exact test -----------------------------------------------------------------------------------------------


def slow_p(right: int, of: int, other: int, of_other: int, floor: float) -> float:
    """The same by adding up every outcome at every pair of true rates."""
    reached, worst = right / of + other / of_other, 0.0
    for rate in np.linspace(2 * floor, 1.0, 201):
        total = 0.0
        for k in range(of + 1):
            for j in range(of_other + 1):
                if k / of + j / of_other >= reached - 1e-9:
                    here = scipy_stats.binom.pmf(k, of, rate)
                    total += float(here * scipy_stats.binom.pmf(j, of_other, 1 + 2 * floor - rate))
        worst = max(worst, total)
    return worst


@pytest.mark.parametrize(("right", "other"), [(4, 9), (3, 7), (0, 0), (4, 5)])
def test_p_is_the_worst_case_over_pairs_of_rates(right: int, other: int) -> None:
    assert p_above(right, 4, other, 9, 0.1) == pytest.approx(slow_p(right, 4, other, 9, 0.1), abs=1e-9)


def test_thousands_of_documents_are_counted_exactly() -> None:
    """1,000 and 1,000: as the normal distribution has it, and nothing overflows."""
    p = p_above(730, 1000, 530, 1000, 0.1)
    se = np.sqrt((0.6 * 0.4 + 0.6 * 0.4) / 1000) / 2
    assert p == pytest.approx(float(scipy_stats.norm.sf(0.03 / se)), rel=0.3)
    assert p_above(1000, 1000, 1000, 1000, 0.4) == pytest.approx(0.8**1000, abs=1e-12)
    assert 0.1 < mde(1000, 1000, 0.1) < 0.16


def test_p_at_the_floor_is_not_too_small() -> None:
    """Whatever the two rates whose mean is the floor: at most the nominal share of small p values."""
    random = np.random.default_rng(0)
    for rate in (0.3, 0.6, 0.95):
        right, other = random.binomial(8, rate, 4000), random.binomial(72, 1.2 - rate, 4000)
        p = np.array([p_above(int(a), 8, int(b), 72, 0.1) for a, b in zip(right, other, strict=True)])
        assert (p < 0.05).mean() <= 0.05 + 0.01


def test_power_is_as_promised() -> None:
    promised = mde(8, 72, 0.1)
    rate, random = 0.5 + promised, np.random.default_rng(1)
    right, other = random.binomial(8, rate, 4000), random.binomial(72, rate, 4000)
    found = np.mean([p_above(int(a), 8, int(b), 72, 0.1) <= 0.005 for a, b in zip(right, other, strict=True)])
    assert 0.1 < promised < 0.5 and found == pytest.approx(0.9, abs=0.03)
    assert mde(2, 72, 0.1) == 0.5  # two documents that are told rightly could be luck


def test_the_interval_covers_and_the_best_of_many_coins_is_no_news() -> None:
    random = np.random.default_rng(2)
    right, other = random.binomial(8, 0.85, 4000) / 8, random.binomial(72, 0.75, 4000) / 72
    low, high = interval(right, 8, other, 72)
    assert 0.93 < np.mean((low <= 0.3) & (high >= 0.3)) <= 1.0
    best = [0.5 + np.abs(random.binomial(4, 0.5, 500) / 4 - random.binomial(36, 0.5, 500) / 36).max() / 2 for _ in range(200)]
    assert best_by_chance(4, 36, 2 * 250) <= np.median(best) <= best_by_chance(4, 36, 2 * 1000)


# --- predictivity -------------------------------------------------------------------------------------------------


def units_of_kinds(kinds: int = KINDS, per_kind: int = PER_KIND) -> list[tuple[str, str, str]]:
    return [(f"d/{i}", f"kind {i % kinds}", ("discovery", "confirmation")[i // kinds % 2]) for i in range(kinds * per_kind)]


def test_parts_are_dealt_within_each_kind() -> None:
    units = units_of_kinds()
    parts = Parts.of(units)
    strata = np.array([stratum for _, stratum, _ in units])
    for kind in set(strata):
        assert [int((one & (strata == kind)).sum()) for one in (parts.train, parts.choose, parts.confirm)] == [8, 8, 16]
    assert not (parts.train & parts.choose).any() and (parts.train | parts.choose | parts.confirm).all()


def test_predictivity_against_one_neuron_at_a_time() -> None:
    random, units = np.random.default_rng(3), units_of_kinds()
    parts, inside = Parts.of(units), np.array([stratum == "kind 1" for _, stratum, _ in units])
    values = random.standard_normal((len(units), 5)).astype(np.float32)
    values[:, 0] += 4 * inside
    values[:, 1] -= 4 * inside  # as good, the other way up
    found = predictivity(values, inside, parts)
    for at in range(5):
        threshold = (values[parts.train & inside, at].mean() + values[parts.train & ~inside, at].mean()) / 2
        share, other = (np.mean(values[parts.choose & side, at] > threshold) for side in (inside, ~inside))
        assert found.accuracy[at] == pytest.approx(max((share + 1 - other) / 2, (1 - share + other) / 2))
        said = (values[:, at] > threshold) == (share >= other)
        assert found.right[at] == pytest.approx(said[parts.confirm & inside].mean())
        assert found.right_elsewhere[at] == pytest.approx(1 - said[parts.confirm & ~inside].mean())
    assert set(found.best_first()[:2].tolist()) == {0, 1} and found.above[:2].tolist() == [True, False]
    assert min(found.right[:2]) > 0.9


def test_with_labels_shuffled_what_is_best_at_choosing_is_chance_afterwards() -> None:
    random, units = np.random.default_rng(4), units_of_kinds()
    parts = Parts.of(units)
    p = []
    for _ in range(40):
        values = random.standard_normal((len(units), 400)).astype(np.float32)
        inside = np.array([stratum == "kind 0" for _, stratum, _ in units])
        found = predictivity(values, inside, parts)
        best = found.best_first()[0]
        assert found.accuracy[best] > 0.7  # the best of 400 looks like something
        right, other = round(float(found.right[best]) * 16), round(float(found.right_elsewhere[best]) * 32)
        p.append(p_above(right, 16, other, 32, decide.FLOOR))
    assert np.mean(np.array(p) < 0.05) <= 0.05


# --- a whole study ------------------------------------------------------------------------------------------------

OF_KIND, LENGTH = 60, 16


def reading_of(per_kind: int = PER_KIND, *, length: int = LENGTH) -> Reading:
    """Documents of random tokens of their own kind."""
    random, units, windows = np.random.default_rng(5), [], []
    for number in range(KINDS * per_kind):
        kind, half = number % KINDS, ("discovery", "confirmation")[number // KINDS % 2]
        units.append(Unit(id=f"d/{number}", stratum=f"kind {kind}", material="text", half=half))  # type: ignore[arg-type]
        tokens = tuple(int(token) for token in 2 + OF_KIND * kind + random.integers(0, OF_KIND, length))
        nothing = (None,) * length
        windows.append(Window(unit=number, tokens=tokens, words=nothing, kinds=nothing, alike=number))
    return Reading(units=tuple(units), windows=tuple(windows))


def measured(model: Any, reading: Reading, depth: str = "quick", **saved: Any) -> Kept:
    study = Skills()
    watching = study.instruments(model)
    states = observe(model, reading, watching, begin(model, reading, watching)).states
    return study.measure(Given(model=model, reading=reading, states=states, before=[], depth=depth, seed=0, **saved))


def test_readings_are_means_and_one_late_activation(tiny_model: Any) -> None:
    model, reading = tiny_model("llama"), reading_of(2, length=LATE + 4)
    watching = [SkillReadings()]
    state = observe(model, reading, watching, begin(model, reading, watching)).states["skill_readings"]
    found = readings(state)
    tokens = torch.tensor([reading.windows[4].tokens])
    neurons = model.run(tokens, record="L2.neurons", logits="none")["L2.neurons"][0]
    assert np.allclose(found["mean"][4, 2], neurons[1:].mean(dim=0).numpy(force=True), atol=1e-5)
    assert np.allclose(found["late"][4, 2], neurons[LATE].numpy(force=True), atol=1e-5)
    short = observe(model, reading_of(2), watching, begin(model, reading_of(2), watching)).states["skill_readings"]
    assert set(readings(short)) == {"mean"}  # no document is that long


def test_of_a_large_corpus_so_many_documents_are_watched_whatever_their_order(tiny_model: Any) -> None:
    model, reading = tiny_model("llama"), reading_of(2 * MOST + 6)
    chosen, strata = watched(reading), [unit.stratum for unit in reading.units]
    for kind in set(strata):
        for half in ("discovery", "confirmation"):
            own = [i for i, unit in enumerate(reading.units) if (unit.stratum, unit.half) == (kind, half)]
            assert len(own) == MOST + 3 and sum(i in own for i in chosen) == MOST
    order = list(range(len(reading.units)))[::-1]
    place = {i: at for at, i in enumerate(order)}
    windows = tuple(replace(reading.windows[i], unit=place[i]) for i in order)
    turned = Reading(units=tuple(reading.units[i] for i in order), windows=windows)
    assert {turned.units[i].id for i in watched(turned)} == {reading.units[i].id for i in chosen}
    watching = [SkillReadings()]
    state = observe(model, reading, watching, begin(model, reading, watching)).states["skill_readings"]
    assert state["sum"].numel() * 4 == bytes_of(model.anatomy, reading) and state["sum"].shape[1] == len(chosen)
    tokens = torch.tensor([reading.windows[chosen[7]].tokens])
    neurons = model.run(tokens, record="L0.neurons", logits="none")["L0.neurons"][0]
    assert np.allclose(readings(state)["mean"][7, 0], neurons[1:].mean(dim=0).numpy(force=True), atol=1e-5)


@pytest.fixture(scope="module")
def handmade(tiny_hf: Any, tiny_tokenizer: Any) -> Model:
    """The first feed-forward has a neuron that is high where it reads kind 1, and the tokens of that kind are owed to it."""
    hf = tiny_hf("llama", num_hidden_layers=2, tie_word_embeddings=False)
    with torch.no_grad():
        kind = (torch.arange(hf.config.vocab_size) - 2) // OF_KIND
        hf.model.embed_tokens.weight.mul_(0.1)
        hf.lm_head.weight.mul_(0.1)
        hf.model.embed_tokens.weight[kind == 1, 0] = 2.0
        hf.lm_head.weight[kind == 1, 1] = 1.0
        for other in (0, 2):  # what these are owed to goes past the feed-forwards
            hf.model.embed_tokens.weight[kind == other, 8 + other] = 2.0
            hf.lm_head.weight[kind == other, 8 + other] = 1.0
        for block in hf.model.layers:
            block.self_attn.o_proj.weight.mul_(0.02)
            block.mlp.down_proj.weight.mul_(0.02)
            for norm in (block.input_layernorm, block.post_attention_layernorm):
                norm.weight.fill_(1.0)
        hf.model.norm.weight.fill_(1.0)
        mlp = hf.model.layers[0].mlp
        for weight in (mlp.gate_proj.weight, mlp.up_proj.weight):
            weight[7] = 0.0
            weight[7, 0] = 0.5
        mlp.down_proj.weight[:, 7] = 0.0
        mlp.down_proj.weight[1, 7] = 0.3
    return Model(hf, tiny_tokenizer)


def test_the_planted_neuron_is_found_and_what_is_lost_without_it(handmade: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    effort = study.Effort(skills=9, sizes=(1,), elsewhere=32, tokens=12, controlled=9)
    monkeypatch.setitem(study.EFFORTS, "full", effort)
    reading = reading_of(2 * MOST)
    kept = measured(handmade, reading, "full")
    rows = Skills().findings(kept, units_of(reading), [])
    labels = {(row.behaviour, row.site) for row in rows if row.rung and row.measure == "predictivity"}
    assert ("skill:kind 1", "L0N7") in labels
    (group,) = [row for row in rows if row.measure == "group_harm" and row.behaviour == "skill:kind 1"]
    assert group.target == "L0N7" and group.null_kind == "control groups" and group.effect > 0.1 and group.rung >= 2
    assert "control groups remove" in group.note
    assert judge(CLAIM, frame(rows)).verdict == "holds in part"  # no document is long enough for a late position
    [beside] = [row for row in rows if row.measure == "collateral"]
    assert (beside.behaviour, beside.target) == (group.behaviour, group.target)
    assert beside.note.startswith("fail") and 0.01 < beside.effect < 0.2 * group.effect  # it fires a little elsewhere, too
    in_an_atlas = Kept(arrays=load(save(dict(kept.arrays))), about=json.loads(json.dumps(kept.about)))
    assert Skills().findings(in_an_atlas, units_of(reading), []) == rows
    harm, inside = kept.arrays["kind 1/1/harm"][0], kept.arrays["kind 1/1/units"] % KINDS == 1
    assert harm[inside].min() > 0.1 > harm[~inside].mean()
    saves: list[Kept] = []
    again = measured(handmade, reading, "full", saved=Kept(arrays=dict(kept.arrays), about=kept.about), save=saves.append)
    assert not saves and all(np.array_equal(again.arrays[name], kept.arrays[name]) for name in kept.arrays)


def test_without_control_groups_no_group_is_necessary(handmade: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    effort = study.Effort(skills=1, sizes=(1,), elsewhere=32, tokens=12, controlled=1)
    monkeypatch.setitem(study.EFFORTS, "full", effort)
    monkeypatch.setattr(study, "matched_groups", lambda *some: [])
    kept = measured(handmade, reading_of(), "full")
    (group,) = [row for row in Skills().findings(kept, units_of(reading_of()), []) if row.measure == "group_harm"]
    assert group.effect > 0.1 and (group.p, group.null_kind, group.rung) == (1.0, "none", 0)


def test_in_shuffled_strata_nothing_is_found(handmade: Model) -> None:
    reading = reading_of()
    order = np.random.default_rng(6).permutation(len(reading.units))
    strata = [reading.units[i].stratum for i in order]
    units = tuple(Unit(id=u.id, stratum=s, material="text", half=u.half) for u, s in zip(reading.units, strata, strict=True))
    shuffled = Reading(units=units, windows=reading.windows)
    rows = Skills().findings(measured(handmade, shuffled), units_of(shuffled), [])
    assert not any(row.rung for row in rows) and {row.measure for row in rows} >= {"ceiling"}
    assert judge(CLAIM, frame(rows)).verdict == "not measured"


@pytest.mark.parametrize("elsewhere", [1, 2])
def test_a_kind_with_hardly_any_text_beside_it_is_not_measured(tiny_model: Any, elsewhere: int) -> None:
    kept = measured(tiny_model("llama"), one_kind_and(elsewhere), "full")
    assert "nothing to tell apart" in kept.about["not measured"] and Skills().findings(kept, [], []) == []


def test_a_kind_with_little_text_beside_it_is_told_and_not_taken_out(tiny_model: Any) -> None:
    reading = one_kind_and(6)
    kept = measured(tiny_model("llama"), reading, "full")
    assert kept.arrays["documents"].tolist() == [[8, 3]] and kept.about["perturbed"] == []
    assert all(np.isfinite(row.effect) for row in Skills().findings(kept, units_of(reading), []))


def one_kind_and(elsewhere: int) -> Reading:
    """Sixteen documents of one kind, and so many of another, dealt to the halves in turn."""
    reading = reading_of(16)
    first, others = ([i for i, unit in enumerate(reading.units) if unit.stratum == f"kind {kind}"] for kind in (0, 1))
    units = [Unit(id=f"d/{i}", stratum="kind 0", material="text", half=reading.units[i].half) for i in first]
    halves = ("discovery", "confirmation")
    units += [Unit(id=f"d/{i}", stratum="kind 1", material="text", half=halves[i % 2]) for i in range(elsewhere)]
    windows = [replace(reading.windows[i], unit=n) for n, i in enumerate((*first, *others[:elsewhere]))]
    return Reading(units=tuple(units), windows=tuple(windows))


@pytest.mark.parametrize(
    ("family", "kinds", "says"),
    [("mixtral", KINDS, "mixture of experts"), ("qwen3_moe", KINDS, "mixture of experts"), ("llama", 1, "tell apart")],
)
def test_what_cannot_be_asked_is_said(tiny_model: Any, family: str, kinds: int, says: str) -> None:
    reading = reading_of(8)
    units = tuple(Unit(id=u.id, stratum=f"kind {i % kinds}", material="text", half=u.half) for i, u in enumerate(reading.units))
    kept = measured(tiny_model(family), Reading(units=units, windows=reading.windows))
    assert says in kept.about["not measured"] and Skills().findings(kept, [], []) == []


@pytest.mark.parametrize("depth", ["quick", "standard"])
def test_a_quantised_model_is_asked_what_its_neurons_tell_and_not_perturbed(
    tiny_hf: Any, tiny_tokenizer: Any, depth: str
) -> None:
    hf, reading = tiny_hf("llama"), reading_of()
    plain = measured(Model(hf, tiny_tokenizer, certified=False), reading)
    hf.config.quantization_config = {"quant_method": "bitsandbytes"}
    kept = measured(Model(hf, tiny_tokenizer, certified=False), reading, depth)
    assert "quantised (bitsandbytes)" in kept.about["no neurons taken out"] and set(kept.arrays) == set(plain.arrays)
    assert np.array_equal(kept.arrays["ceilings"], plain.arrays["ceilings"])
    rows = Skills().findings(kept, units_of(reading), [])
    assert rows == Skills().findings(plain, units_of(reading), []) and not any(row.measure == "group_harm" for row in rows)


def test_the_trial_has_all_documents_of_the_skill_and_few_others() -> None:
    batches = trial(reading_of(), "kind 2", elsewhere=5, tokens=10)
    sizes = [sum(len(batch.tokens) for batch in batches if batch.stratum == f"kind {kind}") for kind in range(KINDS)]
    assert sizes == [3, 3, 16] and all(batch.tokens.shape[1] == 10 for batch in batches)


def test_a_group_no_worse_than_others_is_not_necessary() -> None:
    """The same harm, against controls that do as much, and against harm everywhere."""
    random, strata = np.random.default_rng(7), ["a"] * 8 + ["b"] * 20
    units = [(f"d/{i}", stratum, "text", "confirmation") for i, stratum in enumerate(strata)]
    inside, verdicts = np.array(strata) == "a", {2: ["fail"], 3: ["pass"]}

    def decided(own: float, other: float, controls: float) -> Any:
        noise = 0.01 * random.standard_normal((21, len(strata)))
        harm = noise + np.where(inside, own, other)[None] * np.array([1.0, *[controls] * 20])[:, None]
        arrays = {
            "candidates": np.zeros((0, 9)),
            "ceilings": np.zeros((0, 6)),
            "documents": np.array([[8, 20]]),
            "a/8/harm": harm[:1],
            "a/8/controls": harm[1:],
            "a/8/units": np.arange(len(strata)),
            "a/8/times_as_much": np.ones(20),
            "a/8/harm_neurons": np.array([[(0, 1), (1, 2)]]),
        }
        kept = Kept(arrays=arrays, about={"domains": ["a"], "seed": 0, "perturbed": [["a", 8]]})
        rows = decide.findings(kept, units)
        (row,) = [row for row in rows if row.measure == "group_harm"]
        assert [one.note.partition(":")[0] for one in rows if one.measure == "collateral"] == verdicts.get(row.rung, [])
        (last,) = [one.answer for one in judge(CLAIM, frame(rows)).evidence if "hardly harmed" in one.clause]
        assert last == {0: "open", 2: "no", 3: "yes"}[row.rung]  # what is necessary and harms other text is denied
        return row

    assert decided(0.2, 0.0, 0.1).rung == 3 and decided(0.2, 0.1, 0.1).rung == 2
    assert decided(0.2, 0.0, 1.0).rung == 0 and decided(0.2, 0.2, 0.0).rung == 0
