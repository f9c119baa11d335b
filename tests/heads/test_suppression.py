"""Copy suppression: what is planted by hand is found, heads that share only half of it are not, and the arithmetic is right."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from innerworks.findings import Finding
from innerworks.heads.circuits import findings
from innerworks.heads.circuits.measure import measure as measured_weights
from innerworks.heads.means import HeadMeans
from innerworks.heads.suppression import Suppression, ablations, attention, cspa, decide, study
from innerworks.heads.suppression.documents import Documents, documents
from innerworks.heads.suppression.look import look
from innerworks.model import Model
from innerworks.model.study import Given, Kept, units_of
from innerworks.scan.engine import begin, observe
from innerworks.text import Reading

# --- planted ------------------------------------------------------------------------------------------------------

VOCAB, WIDE = 320, 63
SUPPRESSES, COPIES, LOOKS_ANYWHERE, EARLIER_COPIER = (1, 0), (1, 1), (1, 2), (0, 0)


def planted() -> Model:
    """A two-layer GPT-2 by hand. Each token predicts a fixed next one; L1H0 looks for the predicted token and lowers it.

    H1 looks for it, too, and raises it; H2 lowers whatever it looks at, but looks everywhere alike. The rest is noise.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    generator = torch.Generator().manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=64, n_embd=256, n_layer=2, n_head=4, n_inner=16, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    hf: Any = GPT2LMHeadModel(config).eval()
    codes = torch.nn.functional.normalize(torch.randn(VOCAB, WIDE, generator=generator), dim=1)
    following = torch.arange(VOCAB)
    following[2:16] = 2 + torch.arange(14).roll(5)  # the tokens of the tests' texts follow each other in a ring
    token, said, first, eye = slice(0, WIDE), slice(64, 64 + WIDE), 200, torch.eye(WIDE)
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            weight.fill_(1.0) if "ln_" in name and name.endswith("weight") else weight.zero_()
            if name.endswith(("c_attn.weight", "attn.c_proj.weight")):
                weight.copy_(0.01 * torch.randn(weight.shape, generator=generator))
        hf.transformer.wte.weight[:, token] = codes
        hf.transformer.wte.weight[:, said] = codes[following]
        hf.transformer.wpe.weight[0, first] = 1.5
        hf.lm_head.weight[:, said] = 4.0 * codes
        part = hf.transformer.h[1].attn
        for head, (looks, writes) in enumerate(((True, -0.4), (True, 0.2), (False, -0.4))):
            query, key, value = (slice(64 * head + 256 * i, 64 * head + 256 * i + WIDE) for i in range(3))
            for some in (query, key, value):
                part.c_attn.weight[:, some.start : some.start + 64] = 0.0
            part.c_attn.weight[token, value] = eye
            part.c_proj.weight[64 * head : 64 * head + 64] = 0.0
            part.c_proj.weight[64 * head : 64 * head + WIDE, said] = writes * eye
            if looks:
                part.c_attn.weight[said, query] = 1.1 * eye
                part.c_attn.weight[token, key] = 1.1 * eye
                part.c_attn.weight[first, key.stop] = 0.6  # where there is nothing to look at, it rests on the first token
                part.c_attn.bias[query.stop] = 8.0
    return Model(hf, None, name="planted")


@pytest.fixture(scope="module")
def reading(make_reading: Callable[..., Reading]) -> Reading:
    return make_reading(documents=64, sequences=16, shortest=24)


@pytest.fixture(scope="module")
def model() -> Model:
    return planted()


@pytest.fixture(scope="module")
def before(model: Model) -> list[Finding]:
    return findings(measured_weights(model))


def given(model: Model, reading: Reading, before: list[Finding], depth: str = "standard", **more: Any) -> Given:
    states = observe(model, reading, [HeadMeans()], begin(model, reading, [HeadMeans()])).states
    return Given(model=model, reading=reading, states=states, before=before, depth=depth, seed=0, **more)


@pytest.fixture(scope="module")
def kept(model: Model, reading: Reading, before: list[Finding]) -> Kept:
    return Suppression().measure(given(model, reading, [*before, copier(EARLIER_COPIER)]))


@pytest.fixture(scope="module")
def found(kept: Kept, reading: Reading, before: list[Finding]) -> list[Finding]:
    return Suppression().findings(kept, units_of(reading), before)[len(before) :]


def row(behaviour: str, measure: str, head: tuple[int, int], **more: Any) -> Finding:
    return Finding(
        chapter="heads", behaviour=behaviour, site=f"L{head[0]}H{head[1]}", layer=head[0], index=head[1], measure=measure,
        **{"material": "weights", "value": 0.9, "unit": "score", "effect": 0.9, "effect_low": 0.9, "effect_high": 0.9, "n": 1,
           "null": 0.0, "null_kind": "mismatched parts", "floor": 0.1, "p": 1e-4, "mde": 0.1} | more,
    )  # fmt: skip


def copier(head: tuple[int, int]) -> Finding:
    return row("copying", "direct_effect", head, material="text", rung=1)


def test_the_weights_name_both_heads_that_lower_what_they_read(before: list[Finding]) -> None:
    assert set(decide.anti_copiers(before)) == {SUPPRESSES, LOOKS_ANYWHERE}


def test_before_layer_zero_nothing_is_predicted() -> None:
    rows = [row("anti_copying", "eigenvalue", head) for head in ((0, 1), (1, 2), (2, 0))]
    assert list(decide.anti_copiers(rows)) == [(1, 2), (2, 0)]


def test_only_the_head_that_looks_at_the_predicted_is_labelled(found: list[Finding]) -> None:
    for measure in ("attention", "attention_unpredicted"):
        rungs = {one.site: one.rung for one in found if one.measure == measure}
        assert rungs == {"L1H0": 1, "L1H2": 0}
    by_site = {one.site: one for one in found if one.measure == "attention"}
    assert by_site["L1H0"].effect_low > 0.1
    assert by_site["L1H2"].effect_high < 0.02


def test_a_head_that_looks_at_the_predicted_but_copies_is_not(model: Model, reading: Reading, before: list[Finding]) -> None:
    some = documents(reading, "confirmation", most=30, length=40)
    seen = look(model, some, [SUPPRESSES, COPIES])
    wanted = attention.targets(some, seen.lens[1], seen.tenth[1])
    both = attention.swap(seen.pattern, wanted, some)
    assert bool(((both.own - both.swapped).nanmean(dim=1) > 0.1).all())  # they look alike
    assert COPIES not in decide.anti_copiers(before)


def test_it_lowers_what_it_looks_at_where_that_is_predicted(found: list[Finding], kept: Kept) -> None:
    effect = next(one for one in found if (one.measure, one.site) == ("direct_effect", "L1H0"))
    assert effect.rung == 1
    assert effect.effect_low > 0.05
    assert "lowers most" in effect.note
    assert all(one["effect"] < 0 < one["attention"] for one in kept.about["examples"]["L1H0"])


def test_most_of_what_it_does_is_copy_suppression(found: list[Finding]) -> None:
    share = {one.measure: one for one in found if one.measure.startswith("cspa")}
    assert set(share) == {"cspa", "cspa_ov", "cspa_qk"}
    assert share["cspa"].value > 0.5
    assert min(share["cspa_ov"].value, share["cspa_qk"].value) >= share["cspa"].value - 0.1
    assert share["cspa"].effect > 0.25


def test_ablations_say_what_they_should(found: list[Finding], kept: Kept) -> None:
    assert kept.about["runs"][0] == "clean"
    assert {"L1H0", "L0H0", "L0H0+L1H0"} <= set(kept.about["runs"])
    assert len(kept.about["controls"]) == 20  # rotated ones where the model has too few heads
    assert kept.arrays["divergence"][0] == pytest.approx(0.0)
    alone = kept.about["runs"].index("L1H0")
    assert kept.arrays["divergence"][alone].mean() > 1e-3
    (calibration,) = [one for one in found if one.measure == "calibration"]
    bins = kept.arrays["bins"].astype(float)
    error = decide.calibration_error(bins)
    assert calibration.value == pytest.approx(error[alone] - error[0])
    assert "KL" in calibration.note
    assert {one.measure for one in found} >= {"let_go", "self_repair"}
    (together,) = [one for one in found if one.measure == "self_repair"]
    assert together.value - together.null == pytest.approx(together.effect)


def test_predictions_that_are_none_show_nothing(model: Model, reading: Reading, before: list[Finding]) -> None:
    """The exact null: patterns as they are, and a lens that knows nothing of the text."""
    seen = {
        half: look(model, documents(reading, half, most=30, length=40), [SUPPRESSES, LOOKS_ANYWHERE]) for half in study.HALVES
    }
    effects, labelled = [], 0
    for seed in range(12):
        random, parts = torch.Generator().manual_seed(seed), []
        for one in seen.values():
            tenth = {1: torch.full(one.tenth[1].shape, 1.5)}
            parts.append(study.seen_arrays(replace(one, lens={1: torch.randn(one.lens[1].shape, generator=random)}, tenth=tenth)))
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        arrays["heads"] = np.array([SUPPRESSES, LOOKS_ANYWHERE])
        labelled += len(decide.labelled(decide.labels(arrays, units_of(reading), before)))
        both = [decide.measured(arrays, units_of(reading), measure) for measure in ("attention", "attention_unpredicted")]
        effects.append([float(one.half("confirmation", 0)[0].mean) for one in both])
    assert labelled <= 1
    assert np.abs(np.mean(effects, axis=0)).max() < 0.01, effects


def test_findings_are_a_function_of_what_is_kept(
    kept: Kept, found: list[Finding], reading: Reading, before: list[Finding]
) -> None:
    import json

    again = Kept(arrays={name: one.copy() for name, one in kept.arrays.items()}, about=json.loads(json.dumps(kept.about)))
    assert Suppression().findings(again, units_of(reading), before)[len(before) :] == found


def test_nothing_is_measured_where_there_is_no_reason_to(model: Model, reading: Reading, before: list[Finding]) -> None:
    quick = Suppression().measure(given(model, reading, before, depth="quick"))
    none = Suppression().measure(given(model, reading, []))
    for kept, why in ((quick, "vocabulary"), (none, "anti-copies")):
        assert not kept.arrays
        assert why in kept.about["not measured"]
        assert Suppression().findings(kept, units_of(reading), before) == before


def test_a_short_document_is_left_out(model: Model, reading: Reading, before: list[Finding]) -> None:
    """Of three tokens no row has a next one that counts: its averages would be none, and so would all that they are part of."""
    short = next(i for i, unit in enumerate(reading.units) if (unit.material, unit.half) == ("text", "confirmation"))
    windows = tuple(replace(one, tokens=one.tokens[:3]) if one.unit == short else one for one in reading.windows)
    kept = Suppression().measure(given(model, replace(reading, windows=windows), [*before, copier(EARLIER_COPIER)]))
    assert short not in kept.arrays["units"]
    assert all(np.isfinite(kept.arrays[name]).all() for name in ("loss", "divergence", "cspa"))


def test_many_domains_make_no_more_documents(make_reading: Callable[..., Reading]) -> None:
    reading = make_reading(documents=64, sequences=0, shortest=12)
    units = tuple(replace(unit, stratum=f"domain {i // 4}") for i, unit in enumerate(reading.units))
    some = documents(replace(reading, units=units), "confirmation", most=10, length=40)
    assert [some.strata.count(stratum) for stratum in dict.fromkeys(some.strata)] == [2] * 5


def test_a_study_goes_on_from_what_was_saved(
    model: Model, reading: Reading, before: list[Finding], kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Kept] = []
    known = [*before, copier(EARLIER_COPIER)]
    Suppression().measure(given(model, reading, known, save=saved.append))
    assert ["bins" in one.arrays for one in saved] == [False, True]
    monkeypatch.setattr(study, "seen_arrays", lambda seen: pytest.fail("measured again"))
    for number, one in enumerate(saved):
        if number:
            monkeypatch.setattr(ablations, "without", lambda *_, **__: pytest.fail("ablated again"))
        again = Suppression().measure(given(model, reading, known, saved=one))
        assert again.about == kept.about
        assert all(np.array_equal(again.arrays[name], array, equal_nan=True) for name, array in kept.arrays.items())


def test_controls_are_described_for_each_head(kept: Kept, reading: Reading, before: list[Finding]) -> None:
    about = {**kept.about, "matched": {"L1H0": "its own controls", "L1H2": "those of another"}}
    found = decide.findings(kept.arrays, about, units_of(reading), before)
    (calibration,) = [one for one in found if one.measure == "calibration"]
    assert calibration.note.endswith("its own controls")
    assert set(kept.about["matched"]) == {"L1H0"}


# --- every family -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "gptj", "olmo2", "opt", "mixtral"])
def test_random_models_have_no_labels_and_can_be_asked(
    tiny_model: Callable[[str], Model], make_reading: Callable[..., Reading], family: str
) -> None:
    model, reading = tiny_model(family), make_reading(documents=56, sequences=8, shortest=16)
    heads = [(1, 0), (1, 3), (2, 1)]
    asked = given(model, reading, [row("anti_copying", "eigenvalue", head) for head in heads])
    kept = Suppression().measure(asked)
    found = Suppression().findings(kept, units_of(reading), asked.before)[3:]
    assert {one.site for one in found if one.measure == "attention"} == {"L1H0", "L1H3", "L2H1"}
    assert not [one for one in found if one.rung]
    some = documents(reading, "confirmation", most=30, length=30)
    seen = look(model, some, heads)
    more = study._intervene(asked, Kept(), [seen, seen], [(2, 1)])
    assert np.isfinite(more.arrays["cspa"]).all()
    assert (more.arrays["divergence"][1:] > -1e-5).all()
    assert len(more.about["runs"]) == len(more.arrays["loss"]) == 22


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "olmo2"])
def test_direct_effects_in_the_last_layer_are_what_the_head_adds(
    tiny_model: Callable[[str], Model], make_reading: Callable[..., Reading], family: str
) -> None:
    """Removing a head's direct effect gives what ablating it gives, up to the scales that are held."""
    model, reading = tiny_model(family), make_reading(documents=40, sequences=0, shortest=12)
    some, last = documents(reading, "confirmation", most=6, length=12), model.anatomy.layers - 1
    seen = look(model, some, [(last, 2)])
    z = model.run(some.tokens, mask=some.mask, record=f"L{last}.z")[f"L{last}.z"][:, :, 2].float()
    output = model.weights.W_O(last, fold=True)[2].float()
    added = torch.einsum("bqk,bkd->bqd", seen.pattern[0], seen.values[0] @ output)
    assert torch.allclose(added[some.mask], (z @ output)[some.mask], atol=1e-4)
    found = cspa.changed(model, seen, (last, 2), torch.zeros_like(cspa.average(seen)), seed=0)
    without = seen.final + found[cspa.VARIANTS.index("mean")]
    logits = model.readout(without, capped=False) - model.readout(seen.final, capped=False)
    direct = -(added / seen.scale[last][..., None]) @ _folded(model)
    assert torch.allclose((logits - direct)[some.mask], torch.zeros(1), atol=1e-4)


def _folded(model: Model) -> Tensor:
    return model.weights.W_U(fold=True).float()


# --- share explained ----------------------------------------------------------------------------------------------


def test_keeping_everything_is_the_head_and_keeping_nothing_its_mean() -> None:
    random = torch.Generator().manual_seed(0)
    pattern = torch.rand(2, 5, 5, generator=random).tril()
    values, usual = torch.randn(2, 5, 4, generator=random), torch.randn(5, 5, 4, generator=random)
    output = torch.randn(4, 7, generator=random)
    parts = cspa.Parts(pattern=pattern, values=values, usual=usual, output=output)
    everything = torch.ones_like(pattern, dtype=torch.bool)
    assert torch.allclose(parts.removed, (usual.sum(dim=1) - pattern @ values) @ output, atol=1e-5)
    assert torch.allclose(parts.removed + parts.whole(everything), torch.zeros(2, 5, 7), atol=1e-6)
    assert torch.equal(parts.whole(~everything), torch.zeros(2, 5, 7))


def test_only_what_lowers_the_source_is_kept() -> None:
    toward = torch.eye(3)[None]
    values = torch.tensor([[[-2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 1.0, -1.0]]])
    pattern = torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]])
    parts = cspa.Parts(pattern=pattern, values=values, usual=torch.zeros(3, 3, 3), output=torch.eye(3))
    everything = torch.ones(1, 3, 3, dtype=torch.bool)
    assert parts.against(2.0 * toward, everything)[0].tolist() == [[-2.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [-0.5, 0.0, -0.5]]
    usual = torch.zeros(3, 3, 3)
    usual[2, 0, 0] = -0.5  # as usual: nothing is left to keep
    parts = cspa.Parts(pattern=pattern, values=values, usual=usual, output=torch.eye(3))
    assert parts.against(toward, everything)[0, 2].tolist() == [0.0, 0.0, -0.5]


def test_what_is_usual_is_an_average_over_the_texts_that_reach_there(model: Model, reading: Reading) -> None:
    some = documents(reading, "discovery", most=10, length=40)
    seen = look(model, some, [SUPPRESSES])
    usual = cspa.average(seen)
    reach = some.mask[:, 25]
    read = torch.einsum("bk,bke->bke", seen.pattern[0, reach, 25], seen.values[0, reach])
    assert torch.allclose(usual[0, 25, :26], read[:, :26].mean(dim=0), atol=1e-5)
    assert torch.equal(cspa.fitted(usual[0], 50)[45], torch.zeros(50, usual.shape[-1]))


def test_shares_explained() -> None:
    kl = np.array([[2.0, 4.0], [0.0, 0.0], [2.0, 4.0], [1.0, 2.0]])
    assert decide.explained(kl).tolist() == [0.0, 1.0, 0.0, 0.5]
    assert decide.explained(kl, np.array([[2.0, 0.0]]))[:, 0].tolist() == [0.0, 1.0, 0.0, 0.5]


def test_one_token_in_twenty_is_kept_with_its_copies() -> None:
    tokens = torch.tensor([[9, *range(10, 34), 12, 11]])  # the last two are copies of tokens 3 and 2
    some = Documents(units=(0,), strata=("a",), tokens=tokens, mask=torch.ones_like(tokens, dtype=torch.bool))
    score = -tokens.float()  # the lens likes low tokens most
    kept = cspa.predicted(score[:, None, :].expand(1, 27, 27), some)[0]
    assert kept[0].nonzero().tolist() == []  # the first position is never kept
    assert kept[5].nonzero()[:, 0].tolist() == [1]
    assert kept[20].nonzero()[:, 0].tolist() == [1, 2]  # ceil(21 / 20)
    assert kept[26].nonzero()[:, 0].tolist() == [1, 2, 26]


# --- calibration --------------------------------------------------------------------------------------------------


def test_calibration_error_by_hand() -> None:
    bins = np.zeros((2, 2, 3))  # doc bin (rows, confidence, right)
    bins[0, 0], bins[1, 0] = (2, 0.6, 0), (2, 1.0, 1)  # together: 4 rows, .40 claimed, .25 right
    bins[0, 1], bins[1, 1] = (3, 2.4, 3), (1, 0.8, 1)  # 4 rows, .80 claimed, 1.00 right
    assert float(decide.calibration_error(bins)) == pytest.approx((4 * 0.15 + 4 * 0.20) / 8)
    assert float(decide.overconfidence(bins)) == pytest.approx((4.8 - 5) / 8)
    drawn = decide.calibration_error(bins, np.array([[2.0, 0.0], [1.0, 1.0]]))
    assert drawn.tolist() == pytest.approx([(0.6 + 0.6) / 5, 0.175])


def test_bins_have_equal_mass() -> None:
    rows = torch.ones(3, 20, dtype=torch.bool)
    confidence = torch.rand(1, 60, generator=torch.Generator().manual_seed(0))
    found = ablations.binned(confidence, torch.ones(1, 60), rows)
    assert found[0, :, :, 0].sum(axis=0).tolist() == [4.0] * 15
    assert found[..., 1].sum() == pytest.approx(float(confidence.sum()))
    means = found[0, :, :, 1].sum(axis=0) / 4
    assert bool((np.diff(means) > 0).all())


def test_a_model_that_knows_what_it_knows_has_no_error() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(size=40_000)
    right = (random.uniform(size=40_000) < confidence).astype(float)
    rows = torch.ones(40, 1000, dtype=torch.bool)
    claimed, answers = (torch.from_numpy(np.stack(one)).float() for one in ((confidence, confidence**0.5), (right, right)))
    bins = ablations.binned(claimed, answers, rows)
    error, claims = decide.calibration_error(bins), decide.overconfidence(bins)
    assert error[0] < 0.02
    assert error[1] > 0.1
    assert claims[1] > 0.1


# --- attention ----------------------------------------------------------------------------------------------------


def written(tokens: list[list[int]]) -> Documents:
    ids = torch.tensor(tokens)
    return Documents(
        units=tuple(range(len(ids))), strata=("a",) * len(ids), tokens=ids, mask=torch.ones_like(ids, dtype=torch.bool)
    )


def test_targets_are_earlier_predicted_and_not_the_current_token() -> None:
    some = written([[5, 6, 7, 6, 8]])
    lens = torch.full((1, 5, 5), -9.0)
    lens[0, 3] = torch.tensor([-1.0, -1.0, -1.0, -1.0, -1.0])
    lens[0, 4] = torch.tensor([-9.0, -2.0, -9.0, -2.0, -1.0])
    found = attention.targets(some, lens, torch.full((1, 5), -2.0))
    assert found.nonzero().tolist() == [[0, 3, 2], [0, 4, 1], [0, 4, 3]]


def places(count: int, length: int, seed: int = 0) -> tuple[Documents, Tensor]:
    """Random documents, and random targets in them."""
    random = torch.Generator().manual_seed(seed)
    some = written(torch.randint(2, 12, (count, length), generator=random).tolist())
    return some, (torch.rand(count, length, length, generator=random) < 0.1) & attention.countable(some)


def test_a_head_at_a_fixed_distance_owes_nothing_to_predictions() -> None:
    some, wanted = places(12, 30)
    pattern = torch.diag(torch.ones(29), -1).expand(1, 12, 30, 30)
    found = attention.swap(pattern, wanted, some)
    assert torch.allclose(found.own, found.swapped)
    assert float(found.own.mean()) > 0


@pytest.mark.parametrize("distance", ["none", "line", "decay"])
def test_a_head_that_always_likes_some_tokens_owes_nothing_to_predictions(distance: str) -> None:
    """It beats the pattern swap where such tokens are predicted more often, and not the second null."""
    some, wanted = places(12, 30)
    liked = (some.tokens < 5).float()
    wanted &= (liked > 0)[:, None, :]
    offset = (torch.arange(30)[:, None] - torch.arange(30)).float().clamp(min=0)
    fall = {"none": torch.ones(30, 30), "line": 1 - offset / 40, "decay": 0.8**offset}[distance]
    quantity = liked[:, None, :] * fall
    assert (
        float((attention.swap(quantity[None], wanted, some).own - attention.swap(quantity[None], wanted, some).swapped).mean())
        > 0.1
    )
    found = attention.near(quantity, wanted, some)
    own, elsewhere = (attention.per_row(one, found.paired) for one in (quantity, found.elsewhere))
    assert bool((own - elsewhere <= 1e-5).all())
    if distance != "decay":
        assert torch.allclose(own, elsewhere, atol=1e-5)


def test_partners_are_of_the_same_stratum() -> None:
    some = Documents(
        units=tuple(range(5)), strata=("a", "a", "b", "b", "b"), tokens=torch.zeros(5, 3, dtype=torch.long),
        mask=torch.ones(5, 3, dtype=torch.bool),
    )  # fmt: skip
    assert [one.tolist() for one in some.partners] == [[1, 0, 3, 4, 2], [0, 1, 4, 2, 3]]


# --- figures ------------------------------------------------------------------------------------------------------


def test_figures_show_what_was_kept(kept: Kept) -> None:
    from innerworks.show.figures import suppression as figures

    line = figures.attention(kept.arrays, kept.about, "L1H0").data[0]
    sums = kept.arrays["by_probability"][:, 0].astype(float).sum(axis=0)
    seen = sums[:, 0] > 0
    assert np.asarray(line.y) == pytest.approx(sums[seen, 1] / sums[seen, 0])
    assert line.y[-1] > 3 * line.y[0]  # the more it is predicted, the more it is looked at
    others, predicted = figures.lowering(kept.arrays, "L1H0").data
    assert predicted.name == "about to be predicted"
    assert min(predicted.y) < -0.05
    assert len(others.x) + len(predicted.x) <= study.POINTS
    whole, without = figures.reliability(kept.arrays, kept.about, "L1H0").data
    total = kept.arrays["bins"][0].astype(float).sum(axis=0)
    assert np.asarray(whole.y) == pytest.approx((total[:, 2] - total[:, 1]) / total[:, 0])
    assert list(whole.y) != list(without.y)
