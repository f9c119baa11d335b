"""Every decision rule against an independent formula, and its error rates by simulation."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from innerworks import stats
from innerworks.stats import CONSTANTS, Estimate, adjust, deal_halves, estimate, family_q, necessity, selectivity, simes


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- units -------------------------------------------------------------------------------------------------------


def test_the_constants_are_those_of_the_written_statistics() -> None:
    c = CONSTANTS
    assert (c.level, c.candidate_t, c.least_units, c.positive_share, c.stratified_from) == (0.05, 2.0, 12, 2 / 3, 8)
    assert (c.mde_p, c.mde_power, c.first_row, c.first_row_positional) == (0.005, 0.90, 2, 16)
    assert (c.harm_floor, c.controls, c.matched_factor, c.joint_members) == (0.02, 20, 2.0, 8)
    assert (c.collateral_limit, c.collateral_quantile, c.least_collateral, c.selectivity_ratio) == (0.01, 0.75, 0.002, 3.0)
    assert c.bootstrap_draws == 2000


def test_halves_are_balanced_in_every_stratum_whatever_its_size() -> None:
    strata = [f"s{size}" for size in range(1, 20) for _ in range(size)]
    texts = [f"text {i}" for i in range(len(strata))]
    halves = deal_halves(texts, strata)
    for size in range(1, 20):
        dealt = [half for half, stratum in zip(halves, strata, strict=True) if stratum == f"s{size}"]
        assert dealt.count("discovery") - dealt.count("confirmation") == size % 2


def test_halves_do_not_depend_on_the_order_of_the_units() -> None:
    texts = [f"text {i}" for i in range(60)]
    strata = [f"s{i % 7}" for i in range(60)]
    of_text = dict(zip(texts, deal_halves(texts, strata), strict=True))
    order = rng().permutation(60)
    shuffled = deal_halves([texts[i] for i in order], [strata[i] for i in order])
    assert shuffled == [of_text[texts[i]] for i in order]


def test_halves_alternate_in_the_order_of_the_sha_256_of_the_text() -> None:
    import hashlib

    texts = ["anna", "berta", "caesar", "dora", "emil"]
    by_hash = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    of_text = dict(zip(texts, deal_halves(texts, ["one"] * 5), strict=True))
    assert [of_text[text] for text in by_hash] == ["discovery", "confirmation", "discovery", "confirmation", "discovery"]


# --- estimates ---------------------------------------------------------------------------------------------------


def test_one_stratum_is_the_one_sample_t_test_of_scipy() -> None:
    effects = rng().normal(0.3, 1.0, size=(30, 4))
    found = estimate(effects, ["a"] * 30)
    np.testing.assert_allclose(found.se, scipy_stats.sem(effects))
    low, high = scipy_stats.t.interval(0.95, 29, effects.mean(axis=0), scipy_stats.sem(effects))
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)
    p = scipy_stats.ttest_1samp(effects, 0.1, alternative="greater").pvalue
    guarded = np.where((effects > 0).mean(axis=0) >= 2 / 3, p, 1.0)
    np.testing.assert_allclose(found.p_above(0.1), guarded)
    assert found.df == 29 and found.n == 30


def test_strata_of_eight_or_more_use_the_variance_within_strata() -> None:
    strata = ["a"] * 8 + ["b"] * 11 + ["c"] * 9
    effects = rng(1).normal(size=28) + np.repeat([0.0, 5.0, -3.0], [8, 11, 9])
    found = estimate(effects, strata)
    squares = 0.0
    for g in "abc":
        mine = [x for x, stratum in zip(effects, strata, strict=True) if stratum == g]
        squares += sum((x - sum(mine) / len(mine)) ** 2 for x in mine)
    assert found.se == pytest.approx(np.sqrt(squares / (28 - 3) / 28))
    assert found.df == 25 and found.mean == pytest.approx(sum(effects) / 28)


def test_one_stratum_below_eight_falls_back_to_the_plain_standard_deviation() -> None:
    strata = ["a"] * 12 + ["b"] * 7
    effects = rng(2).normal(size=19) + np.repeat([0.0, 5.0], [12, 7])
    found = estimate(effects, strata)
    assert found.df == 18 and found.se == pytest.approx(effects.std(ddof=1) / np.sqrt(19))


def test_the_order_of_units_does_not_matter() -> None:
    strata = np.array(["a"] * 10 + ["b"] * 9)
    effects, order = rng(3).normal(size=(19, 2)), rng(4).permutation(19)
    a, b = estimate(effects, list(strata)), estimate(effects[order], list(strata[order]))
    np.testing.assert_allclose(a.se, b.se)
    np.testing.assert_allclose(a.mean, b.mean)


def test_estimate_does_not_change_what_it_is_given() -> None:
    effects = rng().normal(size=20)
    before = effects.copy()
    estimate(effects, ["a"] * 20)
    np.testing.assert_array_equal(effects, before)


def test_too_few_units_decide_nothing() -> None:
    clear = 1.0 + 0.01 * rng().normal(size=12)
    assert estimate(clear, ["a"] * 12).p_above(0.0) < 1e-9
    assert estimate(clear[:11], ["a"] * 11).p_above(0.0) == 1.0


def test_an_effect_that_too_few_units_share_is_no_effect() -> None:
    effects = np.array([5.0, 4.0] * 10 + [-0.1] * 10)
    assert estimate(effects, ["a"] * 30).p_above(0.0) < 1e-4  # 20 of 30: exactly two thirds
    effects[0] = -0.1
    assert estimate(effects, ["a"] * 30).p_above(0.0) == 1.0


@pytest.mark.parametrize("n", [0, 1])
def test_no_unit_or_one_gives_no_number_and_p_one(n: int) -> None:
    found = estimate(np.ones((n, 3)), ["a"] * n)
    assert found.n == n and np.isnan(found.mean).all() and np.isnan(found.high).all() and np.isnan(found.mde(0.1)).all()
    np.testing.assert_array_equal(found.p_above(0.0), np.ones(3))


def test_without_spread_only_an_effect_above_the_floor_counts() -> None:
    same = estimate(np.broadcast_to([0.5, 0.125, 0.0], (20, 3)).copy(), ["a"] * 20)
    np.testing.assert_array_equal(same.p_above(0.125), [0.0, 1.0, 1.0])


def test_nan_is_never_an_effect() -> None:
    effects = np.ones((20, 2)) + rng().normal(size=(20, 2)) * 0.01
    effects[3, 0] = np.nan
    p = estimate(effects, ["a"] * 20).p_above(0.0)
    assert p[0] == 1.0 and p[1] < 1e-9


@pytest.mark.parametrize(
    ("strata", "expected"),
    [(["a"] * 32, (0.04, 0.06)), ([s for s in "abcd" for _ in range(8)], (0.04, 0.06)), (list("abcdefgh") * 4, (0.04, 0.06))],
    ids=["one stratum", "four of eight", "eight of four"],
)
def test_under_the_null_five_percent_of_the_p_values_are_below_five_percent(
    strata: list[str], expected: tuple[float, float]
) -> None:
    effects = 0.05 + rng(5).normal(size=(len(strata), 40_000))  # all at the floor
    found = estimate(effects, strata)
    p = stats.upper_tail(found.mean - 0.05, found.se, found.df)  # without the guard on the sign, which only lowers the rate
    assert expected[0] < (p < 0.05).mean() < expected[1]
    assert (p < 0.001).mean() < 0.002
    assert (found.p_above(0.05) < 0.05).mean() <= (p < 0.05).mean()


def test_differences_between_strata_do_not_cost_power_where_strata_are_large() -> None:
    strata = [s for s in "abcd" for _ in range(10)]
    effects = rng(6).normal(0.6, 1.0, size=(40, 2000)) + 10 * np.repeat([0.0, 1.0, 2.0, 3.0], 10)[:, None]
    within = estimate(effects, strata)
    plain = estimate(effects, ["a"] * 40)
    assert within.se.mean() < 0.4 * plain.se.mean()


@pytest.mark.parametrize("strata", [["a"] * 24, [s for s in "abc" for _ in range(10)]], ids=["one stratum", "three strata"])
def test_an_effect_as_large_as_the_mde_is_found_nine_times_in_ten(strata: list[str]) -> None:
    n, floor = len(strata), 0.05
    groups = len(set(strata))
    true_se = 1.0 / np.sqrt(n)
    mde = floor + (scipy_stats.t.ppf(0.995, n - groups) + scipy_stats.t.ppf(0.90, n - groups)) * true_se
    effects = mde + rng(7).normal(size=(n, 20_000))
    found = estimate(effects, strata)
    t = (found.mean - floor) / found.se
    assert 0.87 < (t > scipy_stats.t.ppf(0.995, n - groups)).mean() < 0.93
    assert found.mde(floor).mean() == pytest.approx(mde, rel=0.03)  # the estimated one is about the true one


# --- false discoveries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 7, 300])
def test_adjusted_p_values_are_those_of_scipy(m: int) -> None:
    p = rng(m).random(m) ** 3
    np.testing.assert_allclose(adjust(p), scipy_stats.false_discovery_control(p), rtol=1e-12)


def test_adjusting_handles_ties_zeros_ones_and_nothing() -> None:
    p = np.array([0.0, 0.01, 0.01, 1.0, 1.0, 0.03])
    np.testing.assert_allclose(adjust(p), scipy_stats.false_discovery_control(p))
    assert adjust(np.array([])).shape == (0,)


def test_simes_is_the_smallest_of_m_times_p_over_its_rank() -> None:
    for seed in range(20):
        p = rng(seed).random(9) ** 2
        assert simes(p) == pytest.approx(min(9 * x / k for k, x in enumerate(sorted(p), start=1)))
    assert simes(np.array([])) == 1.0


def naive_labels(families: dict[str, list[float]], level: float = 0.05) -> set[tuple[str, int]]:
    """The text, word for word: Simes per family, BH over the F families selects R, BH at level R / F within them."""
    of_family = {}
    for name, p in families.items():
        m = len(p)
        of_family[name] = min((m * x / k for k, x in enumerate(sorted(p), start=1)), default=1.0)
    selected = step_up(of_family, level)
    labels = set()
    for name in selected:
        numbered = dict(enumerate(families[name]))
        labels |= {(name, i) for i in step_up(numbered, level * len(selected) / len(families))}
    return labels


def step_up(p: dict, level: float) -> set:
    ordered = sorted(p.values())
    passing = [k for k, x in enumerate(ordered, start=1) if x <= level * k / len(ordered)]
    return {name for name, x in p.items() if passing and x <= ordered[max(passing) - 1]}


def test_a_label_needs_q_of_five_percent_and_that_is_the_two_level_rule_of_the_text() -> None:
    some = 0
    for seed in range(400):
        random = rng(seed)
        families = {f"family {i}": list(random.random(int(random.integers(0, 8))) ** random.choice([1, 4, 12])) for i in range(7)}
        q = family_q({name: np.array(p) for name, p in families.items()})
        labels = {(name, i) for name, values in q.items() for i, x in enumerate(values) if x <= 0.05}
        assert labels == naive_labels(families), seed
        some += 0 < len(labels) < sum(map(len, families.values()))
    assert some > 100


def test_empty_families_still_count_as_families() -> None:
    p = np.array([0.02])
    assert family_q({"a": p})["a"] == pytest.approx([0.02])
    q = family_q({"a": p, "b": np.array([]), "c": np.array([])})
    assert q["a"] == pytest.approx([0.06]) and q["b"].shape == (0,)


def test_no_family_at_all_gives_no_q() -> None:
    assert family_q({}) == {}


def test_where_nothing_is_there_at_most_one_chapter_in_twenty_has_a_label() -> None:
    random, chapters = rng(8), 4000
    wrong = sum(
        any((q <= 0.05).any() for q in family_q({str(i): random.random(12) for i in range(7)}).values()) for _ in range(chapters)
    )
    assert wrong / chapters < 0.06


# --- rung 2 ------------------------------------------------------------------------------------------------------


def test_the_two_p_values_of_a_harm_are_those_of_scipy() -> None:
    random = rng(9)
    harm, controls = random.normal(0.2, 0.1, size=20), random.normal(0.01, 0.05, size=(20, 20))
    found = necessity(harm, controls, ["a"] * 20)
    excess = harm - controls.mean(axis=0)
    assert found.p_units == pytest.approx(scipy_stats.ttest_1samp(excess, 0.02, alternative="greater").pvalue)
    means = controls.mean(axis=1)
    t = (harm.mean() - means.mean()) / (means.std(ddof=1) * np.sqrt(1 + 1 / 20))
    assert found.p_controls == pytest.approx(scipy_stats.t.sf(t, 19))
    assert found.p == max(found.p_units, found.p_controls) and found.above_all
    assert found.harm == pytest.approx(harm.mean()) and found.control == pytest.approx(controls.mean())
    assert found.excess == pytest.approx(excess.mean()) and found.n == 20


def test_a_single_control_that_harms_as_much_is_enough_to_doubt() -> None:
    random = rng(10)
    harm, controls = random.normal(0.5, 0.05, size=30), random.normal(0.0, 0.01, size=(20, 30))
    assert necessity(harm, controls, ["a"] * 30).p < 0.001
    controls[7] += 0.51
    doubted = necessity(harm, controls, ["a"] * 30)
    assert not doubted.above_all and doubted.p == 1.0


def test_a_harm_below_the_floor_is_not_necessary_however_certain() -> None:
    random = rng(11)
    found = necessity(random.normal(0.019, 1e-4, 40), random.normal(0.0, 1e-5, size=(20, 40)), ["a"] * 40)
    assert found.p_controls < 1e-9 and found.p_units > 0.99 and found.p > 0.99


def test_too_few_units_prove_no_necessity() -> None:
    random = rng(12)
    assert necessity(random.normal(5, 0.1, 11), random.normal(0, 0.1, size=(20, 11)), ["a"] * 11).p == 1.0


def test_a_head_that_is_one_more_control_is_called_necessary_at_most_as_often_as_its_p_says() -> None:
    random, wrong, trials = rng(13), 0, 3000
    for _ in range(trials):
        means = random.normal(0.02, 0.3, size=21)  # a spread far above the floor: only the controls can tell
        runs = means[:, None] + 0.05 * random.normal(size=(21, 16))
        wrong += necessity(runs[0], runs[1:], ["a"] * 16).p < 0.05
    assert wrong / trials < 0.06


# --- rung 3 ------------------------------------------------------------------------------------------------------


def judged(harm: float, elsewhere: float, *, spread: float = 0.002, n: int = 40, seed: int = 0) -> stats.Selectivity:
    random = rng(seed)
    here, there = random.normal(harm, 0.05, n), random.normal(elsewhere, spread, n)
    return selectivity(here, ["a"] * n, there, ["b"] * n, np.zeros(20), 1)


def test_large_harm_and_little_elsewhere_passes() -> None:
    assert judged(0.5, 0.003).verdict == "pass"


def test_harm_elsewhere_beyond_the_limit_fails_though_the_ratio_is_large() -> None:
    found = judged(0.5, 0.03)
    assert found.verdict == "fail" and found.ratio_low > 3 and found.limit == 0.01


def test_a_ratio_below_three_fails_though_harm_elsewhere_is_little() -> None:
    found = judged(0.02, 0.009, spread=1e-4)
    assert found.verdict == "fail" and found.elsewhere_high <= 0.01


def test_noise_is_neither_passed_nor_failed() -> None:
    found = judged(0.5, 0.008, spread=0.05, n=16)
    assert found.verdict == "not decided" and found.elsewhere_low < 0.01 < found.elsewhere_high


def test_harm_elsewhere_like_that_of_three_quarters_of_the_controls_is_little() -> None:
    random = rng()
    here, there = random.normal(0.5, 0.05, 40), random.normal(0.03, 0.002, 40)
    controls = np.linspace(0, 0.08, 21)
    found = selectivity(here, ["a"] * 40, there, ["a"] * 40, controls, 1)
    assert found.limit == pytest.approx(0.06) and found.verdict == "pass"


def test_the_bound_of_harm_elsewhere_is_one_sided_and_its_interval_two_sided() -> None:
    random = rng(3)
    there = random.normal(0.005, 0.002, 30)
    found = selectivity(random.normal(0.5, 0.05, 30), ["a"] * 30, there, ["a"] * 30, np.zeros(20), 1)
    assert found.bound == pytest.approx(there.mean() + scipy_stats.t.ppf(0.95, 29) * scipy_stats.sem(there))
    low, high = scipy_stats.t.interval(0.95, 29, there.mean(), scipy_stats.sem(there))
    assert (found.elsewhere_low, found.elsewhere_high) == (pytest.approx(low), pytest.approx(high))


def test_negative_harm_elsewhere_divides_by_the_least_collateral() -> None:
    found = judged(0.5, -0.02)
    assert found.verdict == "pass" and found.ratio == pytest.approx(250, rel=0.1)
    assert found.ratio_low > 200 and found.ratio_high < 300


def test_the_bootstrap_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    values, strata = rng(0).normal(size=30), ["a"] * 20 + ["b"] * 10
    first, again = (stats.bootstrap_means(values, strata, rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, stats.bootstrap_means(values, strata, rng(6)))
    assert len(first) == 2000 and judged(0.5, 0.003) == judged(0.5, 0.003)


def test_the_bootstrap_resamples_within_strata() -> None:
    values, strata = np.array([0.0] * 10 + [1.0] * 30), ["a"] * 10 + ["b"] * 30
    np.testing.assert_allclose(stats.bootstrap_means(values, strata, rng()), 0.75)
    spread = stats.bootstrap_means(rng(1).normal(size=50), ["a"] * 50, rng(2)).std()
    assert 0.11 < spread < 0.17  # 1 / sqrt(50) = .141


def test_small_strata_are_resampled_as_one() -> None:
    values, strata = np.array([0.0] * 10 + [1.0] * 5), ["a"] * 10 + ["b"] * 5
    assert stats.bootstrap_means(values, strata, rng()).std() > 0.05


def test_harm_here_and_there_on_the_same_units_are_resampled_together() -> None:
    shared = np.exp(rng(0).normal(size=30))  # units differ, their ratio does not
    together = selectivity(0.4 * shared, ["a"] * 30, 0.1 * shared, ["a"] * 30, np.zeros(20), 1)
    assert together.ratio_low == pytest.approx(4) and together.ratio_high == pytest.approx(4)
    apart = selectivity(0.4 * shared, ["a"] * 30, 0.1 * shared, ["b"] * 30, np.zeros(20), 1)
    assert apart.ratio_low < 3.5 and apart.ratio_high > 4.5


def test_controls_without_any_spread_say_nothing() -> None:
    assert necessity(rng().normal(0.5, 0.1, 30), np.zeros((20, 30)), ["a"] * 30).p_controls == 1.0


def test_estimates_are_frozen() -> None:
    with pytest.raises(AttributeError):
        estimate(np.ones(3), ["a"] * 3).n = 4  # type: ignore[misc]
    assert isinstance(estimate(np.ones(3), ["a"] * 3), Estimate)
