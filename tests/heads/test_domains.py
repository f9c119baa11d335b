"""Domain heads: what is planted is found, what harms all alike is not; by numbers and in a model made by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

import innerworks as iw
from families import VOCAB
from innerworks.claims.attention import ATTENTION
from innerworks.claims.claim import judge
from innerworks.findings import frame
from innerworks.heads.domains import Domains, contrast, decide, estimates, harms, promising, study
from innerworks.heads.domains.contrast import FLOOR, ratio_interval
from innerworks.heads.means import HeadMeans, reference
from innerworks.model.losses import counted, document_losses
from innerworks.model.study import Given, Kept, units_of
from innerworks.scan.engine import begin, observe
from innerworks.text import Reading
from innerworks.text.openings import documents
from innerworks.text.reading import Unit, Window

DOMAINS = 6


# --- the numbers --------------------------------------------------------------------------------------------------


def test_the_contrast_is_welchs_t_beyond_the_floor() -> None:
    random = np.random.default_rng(0)
    here, there = 0.2 + 0.1 * random.standard_normal(8), 0.01 + 0.02 * random.standard_normal(40)
    inside = np.arange(48) < 8
    found = contrast(np.concatenate([here, there]), inside)
    theirs: Any = scipy_stats.ttest_ind(here - FLOOR, there, equal_var=False, alternative="greater")
    t = float((found.difference.mean - FLOOR) / found.difference.se)
    assert t == pytest.approx(theirs.statistic)
    assert found.difference.df == int(theirs.df)  # rounded down: never more than there are
    assert theirs.pvalue <= float(found.difference.p_above(FLOOR)) < 1.6 * theirs.pvalue
    assert found.p >= float(found.difference.p_above(FLOOR))
    assert found.ratio == pytest.approx(here.mean() / there.mean())
    low, high = ratio_interval(np.concatenate([here, there]), inside, seed=0)
    assert low < found.ratio < high


@pytest.mark.parametrize(
    ("here", "there", "passes"),
    [
        (0.2, 0.01, True),  # harm in the domain, hardly any elsewhere
        (0.2, 0.12, False),  # harm everywhere, and more here: less than three times
        (0.0, -0.2, False),  # helps the others when it is lost, and does nothing here
        (0.009, 0.0, False),  # below the floor
    ],
)
def test_a_label_needs_difference_ratio_and_harm(here: float, there: float, passes: bool) -> None:
    noise = 0.02 * np.random.default_rng(1).standard_normal(80)
    inside = np.arange(80) < 8
    found = contrast(np.where(inside, here, there) + noise, inside)
    assert (found.p < 0.001) == passes
    assert passes or found.p > 0.05


def test_without_any_domain_the_p_is_not_too_small() -> None:
    """Labels shuffled, documents skewed as losses are: at most the nominal share of small p values, at the floor itself."""
    random, inside = np.random.default_rng(2), np.arange(80) < 8
    draws = [random.gamma(2.0, 0.02, 80) - 0.04 + FLOOR * inside for _ in range(2000)]
    p = np.array([float(contrast(one, inside).difference.p_above(FLOOR)) for one in draws])
    assert (p < 0.05).mean() <= 0.065
    assert (p < 0.001).mean() <= 0.004


def test_a_domain_of_few_documents_decides_nothing() -> None:
    """Two documents that happen to agree would have a tiny standard error; eight that do are a finding."""
    elsewhere = 0.01 * np.random.default_rng(6).standard_normal(40)
    few = np.concatenate([[0.50, 0.49], elsewhere])
    assert contrast(few, np.arange(42) < 2).p == 1.0
    assert contrast(few, np.arange(42) >= 2).p == 1.0
    enough = np.concatenate([0.5 + 0.01 * np.arange(8), elsewhere])
    assert contrast(enough, np.arange(48) < 8).p < 0.001


# --- from kept arrays to rows -------------------------------------------------------------------------------------


def kept_of(harm: np.ndarray, strata: list[str], pairs: list[tuple[str, int, int]]) -> tuple[Kept, list[tuple[str, ...]]]:
    """What a study would keep of these harms `[head, unit]` (of heads in the order of pairs)."""
    heads, names = sorted({pair[1:] for pair in pairs}), sorted(set(strata))
    arrays = {
        "harm": harm.astype(np.float32),
        "heads": np.array(heads),
        "pairs": np.array([(names.index(domain), layer, head) for domain, layer, head in pairs]),
        "confirmation": np.arange(len(strata)),
    }
    units = [(f"d/{i}", stratum, "text", "confirmation") for i, stratum in enumerate(strata)]
    return Kept(arrays=arrays, about={"domains": names, "seed": 0, "controls": {}}), units


def planted(effect: float, seed: int = 0, per_domain: int = 8) -> tuple[Kept, list[tuple[str, ...]]]:
    """Four heads: the first serves domain 2, the second harms all alike, two do nothing."""
    random = np.random.default_rng(seed)
    strata = [f"domain {i % DOMAINS}" for i in range(per_domain * DOMAINS)]
    harm = 0.01 * random.standard_normal((4, len(strata)))
    harm[0] += effect * (np.array(strata) == "domain 2")
    harm[1] += effect
    return kept_of(harm, strata, [(f"domain {d}", 1, head) for head, d in ((0, 2), (1, 2), (1, 4), (2, 2), (3, 5))])


def test_the_planted_head_is_labelled_and_no_other() -> None:
    rows = decide.findings(*planted(0.15))
    contrasts = {(row.behaviour, row.site): row for row in rows if row.measure == "harm_contrast"}
    assert [key for key, row in contrasts.items() if row.rung] == [("domain:domain 2", "L1H0")]
    label = contrasts["domain:domain 2", "L1H0"]
    assert label.effect == pytest.approx(0.15, abs=0.02)
    assert label.value - label.null == pytest.approx(label.effect)
    assert label.q is not None and label.q < 0.001
    assert "rung 2 not tried: 8 confirmation documents" in label.note
    assert sum(row.measure == "harm_in_domain" for row in rows) == 4 * DOMAINS
    [claim] = [claim for claim in ATTENTION if claim.id == "A10"]
    assert judge(claim, frame(rows)).verdict == "holds"


def test_with_labels_shuffled_nothing_is_labelled() -> None:
    kept, units = planted(0.15)
    found = 0
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(units))
        shuffled = [(unit[0], units[i][1], *unit[2:]) for unit, i in zip(units, order, strict=True)]
        found += any(row.rung for row in decide.findings(kept, shuffled))
    assert found <= 1


def test_nothing_planted_is_no_verdict_of_absence() -> None:
    rows = decide.findings(*planted(0.0))
    assert not any(row.rung for row in rows)
    [claim] = [claim for claim in ATTENTION if claim.id == "A10"]
    assert judge(claim, frame(rows)).verdict == "not measured"


def test_with_enough_documents_rungs_two_and_three_are_decided() -> None:
    kept, units = planted(0.15, per_domain=16)
    [label] = [one for one in decide.Harms.of(kept, units).tested() if one.labelled]
    name = decide.control_name(label)
    controls = 0.005 * np.random.default_rng(3).standard_normal((20, 16))
    kept = Kept(arrays={**kept.arrays, name: controls}, about={**kept.about, "controls": {name: ""}})
    rows = decide.findings(kept, units)
    assert [row.rung for row in rows if row.measure == "harm_contrast" and row.rung] == [3]
    assert {row.measure for row in rows} >= {"harm", "collateral"}
    kept.arrays[name][:] += 0.15  # type: ignore[index]
    assert [row.rung for row in decide.findings(kept, units) if row.rung] == [1]


# --- a model made by hand -----------------------------------------------------------------------------------------

OF_DOMAIN, WIDTH, SERVED = 30, 32, 2


def handmade(tiny_hf: Any) -> Any:
    """One layer whose feed-forward is silent. Its head 1 raises the tokens of one domain where it reads any, head 2 those of
    whatever domain it reads, heads 0 and 3 write noise. Attention is even over the text."""
    hf = tiny_hf("llama", num_hidden_layers=1, num_key_value_heads=4, tie_word_embeddings=False)
    block, random = hf.model.layers[0], torch.Generator().manual_seed(0)
    domain = (torch.arange(VOCAB) - 2) // OF_DOMAIN
    with torch.no_grad():
        for weight in (block.self_attn.q_proj.weight, block.self_attn.k_proj.weight, block.mlp.down_proj.weight):
            weight.zero_()
        for norm in (block.input_layernorm, block.post_attention_layernorm, hf.model.norm):
            norm.weight.fill_(1.0)
        known = (domain >= 0) & (domain < DOMAINS)
        hf.model.embed_tokens.weight.copy_(0.1 * torch.randn(VOCAB, WIDTH, generator=random))
        hf.model.embed_tokens.weight[known, domain[known]] += 1.0
        hf.lm_head.weight.zero_()
        hf.lm_head.weight[known, 16 + domain[known]] = 1.0
        value, output = block.self_attn.v_proj.weight, block.self_attn.o_proj.weight
        value.copy_(0.004 * torch.randn(value.shape, generator=random))
        output.copy_(0.004 * torch.randn(output.shape, generator=random))
        for head, reads in ((1, [SERVED]), (2, range(DOMAINS))):
            value[8 * head : 8 * head + 8] = 0.0
            output[:, 8 * head : 8 * head + 8] = 0.0
            for place, one in enumerate(reads):
                value[8 * head + place, one] = 1.0
                output[16 + one, 8 * head + place] = 0.15 if head == 1 else 0.06
    return hf


def reading_of(domains: int = DOMAINS, per_domain: int = 16, length: int = 24) -> Reading:
    """Documents of random tokens of their own domain."""
    random = np.random.default_rng(4)
    units, windows = [], []
    for number in range(domains * per_domain):
        domain = number % domains
        half = ("discovery", "confirmation")[number // domains % 2]
        units.append(Unit(id=f"d/{number}", stratum=f"domain {domain}", material="text", half=half))  # type: ignore[arg-type]
        tokens = tuple(int(t) for t in 2 + OF_DOMAIN * domain + random.integers(0, OF_DOMAIN, length))
        nothing = (None,) * length
        windows.append(Window(unit=number, tokens=tokens, words=nothing, kinds=nothing, alike=number))
    return Reading(units=tuple(units), windows=tuple(windows))


def sorted_out(lengths: dict[str, list[int]]) -> Reading:
    """Documents of these lengths, by domain; dealt to the halves in turn."""
    random, units, windows = np.random.default_rng(7), [], []
    for place, (domain, some) in enumerate(lengths.items()):
        for rank, length in enumerate(some):
            half = ("discovery", "confirmation")[rank % 2]
            tokens = tuple(int(t) for t in 2 + OF_DOMAIN * place + random.integers(0, OF_DOMAIN, length))
            windows.append(
                Window(unit=len(units), tokens=tokens, words=(None,) * length, kinds=(None,) * length, alike=len(units))
            )
            units.append(Unit(id=f"{domain}/{rank}", stratum=domain, material="text", half=half))  # type: ignore[arg-type]
    return Reading(units=tuple(units), windows=tuple(windows))


def given_of(model: Any, reading: Reading, **more: Any) -> Given:
    instrument = HeadMeans()
    state = observe(model, reading, [instrument], begin(model, reading, [instrument])).states
    return Given(**{"model": model, "reading": reading, "states": state, "before": [], "depth": "standard", "seed": 0, **more})


def test_a_handmade_domain_head_is_found_and_one_for_all_is_not(tiny_hf: Any) -> None:
    model, reading, steps = iw.Model(handmade(tiny_hf), None, certified=False), reading_of(), []
    given = given_of(model, reading, step=lambda done, total, unit: steps.append((done, total, unit)))
    kept = Domains().measure(given)
    rows = Domains().findings(kept, units_of(reading), [])
    labels = [(row.behaviour, row.site) for row in rows if row.measure == "harm_contrast" and row.rung]
    assert labels == [(f"domain:domain {SERVED}", "L0H1")]
    mean = reference(model, given.states["head_means"], "text").mean
    for_all = harms(model, documents(reading, "confirmation", tokens=24), mean, [(0, 2)])
    assert (for_all > 0.05).all()  # it matters in every document, and yet it is no domain's
    assert kept.about["agreement"]["correlation"] > 0.8
    assert {unit for *_, unit in steps} == {"documents screened", "ablations"}


def test_a_domain_with_documents_enough_climbs(tiny_hf: Any) -> None:
    model, reading = iw.Model(handmade(tiny_hf), None, certified=False), reading_of(per_domain=24)
    kept = Domains().measure(given_of(model, reading))
    [label] = [row for row in Domains().findings(kept, units_of(reading), []) if row.measure == "harm_contrast" and row.rung]
    assert label.rung == 2  # the mean of a sixth of the text is put everywhere: it harms the others by more than a hundredth
    assert [row.note for row in decide.findings(kept, units_of(reading)) if row.measure == "harm"] != []


def test_one_domain_alone_is_nothing_to_contrast_and_quick_does_nothing(tiny_hf: Any) -> None:
    model, reading = iw.Model(handmade(tiny_hf), None, certified=False), reading_of(domains=1, per_domain=40)
    kept = Domains().measure(given_of(model, reading))
    assert not kept.arrays and "only domain 0" in kept.about["not measured"]
    assert Domains().findings(kept, units_of(reading), []) == []
    assert "not measured" in Domains().measure(given_of(model, reading, depth="quick")).about


def test_only_domains_with_documents_enough_in_both_halves_are_asked_about(tiny_hf: Any) -> None:
    """One with two documents in a half, one whose confirmation documents are all too short, one with a single one, leftovers."""
    model = iw.Model(handmade(tiny_hf), None, certified=False)
    short = {"b": [24] * 4, "c": [24, 5] * 8, "e": [24] + [5, 24] * 6 + [24] * 2, "mixed": [24] * 16}
    reading = sorted_out({"a": [24] * 16, "d": [24] * 16, **short})
    kept = Domains().measure(given_of(model, reading))
    rows = Domains().findings(kept, units_of(reading), [])
    assert kept.about["domains"] == ["a", "d"]
    assert {row.behaviour for row in rows} == {"domain:a", "domain:d"}
    assert all(np.isfinite([row.value, row.effect, row.effect_low]).all() for row in rows)
    assert set(kept.arrays["confirmation"].tolist()) > {1, 17}  # the others still are text elsewhere
    assert len(kept.arrays["confirmation"]) > 16


def test_no_suspect_of_another_kind_is_a_control(tiny_hf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reading, asked = iw.Model(handmade(tiny_hf), None, certified=False), reading_of(per_domain=24), []
    matched = study.matched
    monkeypatch.setattr(
        study, "matched", lambda heads, suspects, removed: asked.append(suspects) or matched(heads, suspects, removed)
    )
    monkeypatch.setitem(study.EFFORTS, "standard", study.Effort(pairs=1, tokens=64))
    monkeypatch.setattr(study, "suspects_of", lambda before: {(0, 3)} if before else set())
    Domains().measure(given_of(model, reading, before=decide.findings(*planted(0.15))))
    assert asked == [{(0, 1), (0, 3)}]  # the head itself, and the suspect


@pytest.mark.parametrize("lengths", [{"a": [6] * 40, "b": [7] * 40}, {"a": [24] * 16, "b": [6] * 16, "mixed": [24] * 16}])
def test_of_texts_too_short_only_the_reason_is_kept(tiny_hf: Any, lengths: dict[str, list[int]]) -> None:
    model, reading = iw.Model(handmade(tiny_hf), None, certified=False), sorted_out(lengths)
    kept = Domains().measure(given_of(model, reading))
    assert not kept.arrays and "8 tokens" in kept.about["not measured"]
    assert Domains().findings(kept, units_of(reading), []) == []


def test_what_was_saved_is_not_measured_again(tiny_hf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reading, saved = iw.Model(handmade(tiny_hf), None, certified=False), reading_of(), []
    whole = Domains().measure(given_of(model, reading, save=saved.append))
    monkeypatch.setattr("innerworks.heads.domains.study.estimates", lambda *_, **__: pytest.fail("screened again"))
    assert len(saved) == 1 + DOMAINS  # the screen, and every batch of confirmation documents
    for number, before in enumerate(saved):
        steps: list[tuple[int, int | None, str]] = []
        again = Domains().measure(given_of(model, reading, saved=before, step=lambda *step, to=steps: to.append(step)))
        assert again.about == whole.about
        assert all(np.array_equal(again.arrays[name], one) for name, one in whole.arrays.items())
        heads = len(whole.arrays["heads"])
        assert [done for done, *_ in steps] == list(range(number * heads + 1, DOMAINS * heads + 1))


# --- in every kind of model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "bloom", "mixtral"])
def test_estimates_are_how_far_predictions_move(tiny_model: Any, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going a hundredth of the way to the mean moves predictions by a ten-thousandth of the estimate (of many draws)."""
    model, reading = tiny_model(family), reading_of(domains=2, per_domain=12, length=11)
    monkeypatch.setattr("innerworks.heads.domains.screen.DRAWS", 300)
    batch = documents(reading, "discovery", tokens=9)[0]
    rows = counted(batch)
    assert batch.tokens.shape == (6, 9) and rows.sum() == 6 * 7
    mean = reference(model, given_of(model, reading).states["head_means"], "text").mean
    found = estimates(model, [batch], mean)
    clean = model.run(batch.tokens, mask=batch.mask, record="L1.z")
    step, value = 0.05, clean["L1.z"].clone()
    value[:, 1:, 2] += step * (mean.values["z"][1, 2] - value[:, 1:, 2])
    edited = model.run(batch.tokens, mask=batch.mask, edit=iw.model.patch("L1.z", value))
    before, after = (one.require_logits.detach().double().log_softmax(dim=-1) for one in (clean, edited))
    moved = (before.exp() * (before - after)).sum(dim=-1)
    divergence = (moved * rows).sum(dim=1) / rows.sum(dim=1) / step**2
    assert np.allclose(found[:, 1, 2].mean(), divergence.mean(), rtol=0.25)


def test_ablations_are_exact_for_heads_and_for_rotations(tiny_model: Any) -> None:
    model, reading = tiny_model("llama"), reading_of(domains=2, per_domain=12, length=11)
    batches = documents(reading, "confirmation", tokens=9)
    mean = reference(model, given_of(model, reading).states["head_means"], "text").mean
    found = harms(model, batches, mean, [(1, 2), (1, 2, 0)])
    assert found.shape == (2, 12) and np.isfinite(found).all()
    batch = batches[0]
    edited = model.run(batch.tokens, mask=batch.mask, edit=iw.model.ablate("L1H2", mean=mean))
    after, before = (
        document_losses(model, one.final, batch).detach() for one in (edited, model.run(batch.tokens, mask=batch.mask))
    )
    assert np.allclose(found[0, :6], (after - before).numpy(), atol=1e-5)
    assert np.abs(found).max(axis=1).min() > 1e-4


def test_the_screen_ranks_by_the_difference_in_the_domains_asked_about() -> None:
    random = np.random.default_rng(5)
    strata = ["a"] * 8 + ["b"] * 8 + ["c"]
    found = 0.01 * random.standard_normal((17, 2, 3))
    found[:8, 1, 2] += 0.3
    found[8:16, 0, 1] += 0.2
    assert promising(found, strata, ["a", "b"], most=2) == [("a", 1, 2), ("b", 0, 1)]
