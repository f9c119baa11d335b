"""Curves of recall: where they cross a share, and what doses mixed into a model's heads come to."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from innerworks.errors import UsageError
from innerworks.heads.decide import HeadsByUnit
from innerworks.heads.kinds import KINDS, MEASURES
from innerworks.heads.patterns import Patterns, heads_by_unit
from innerworks.model import Model
from innerworks.phantoms.calibrate import Calibration
from innerworks.phantoms.curves import curves
from innerworks.phantoms.recall import Recall, crossing
from innerworks.phantoms.spike import dosed, doses_of_units, spike, target_masses
from innerworks.scan.engine import begin, observe
from innerworks.show.figures.recall import recall
from innerworks.text import Corpus, Reading, read
from planted import phantom

TABLE = tuple[HeadsByUnit, Reading]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def measured() -> TABLE:
    """A phantom's masses by unit, and what they were measured on."""
    made = phantom("llama", 0, kit="offsets")
    model = Model(made.hf, made.tokenizer, name="phantom")
    texts = Corpus.of("phantom", made.corpus(48, words=70))
    reading = read(texts, model.tokenizer, vocab=model.anatomy.vocab, max_positions=512, sequences=32, seed=0)
    current = observe(model, reading, [Patterns()], begin(model, reading, [Patterns()]))
    return heads_by_unit(current.states["heads"], reading), reading


def of(*found: int, levels: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)) -> dict[float, Recall]:
    return {level: Recall(found=one, planted=10) for level, one in zip(levels, found, strict=True)}


def test_a_crossing_is_interpolated_on_the_scale_of_its_levels() -> None:
    assert crossing(of(0, 0, 10, 10), 0.5, over="amplitude").level == pytest.approx(0.2 * 2**0.5)
    assert crossing(of(10, 10, 0, 0), 0.5, over="noise").level == pytest.approx(0.3)


def test_a_crossing_beyond_the_levels_says_so() -> None:
    never, always = crossing(of(0, 0, 1, 4), 0.5, over="amplitude"), crossing(of(9, 10, 10, 10), 0.5, over="amplitude")
    assert (never.in_words("amplitude"), always.in_words("amplitude")) == ("> 0.8", "< 0.1")
    assert crossing(of(10, 10, 10, 9), 0.5, over="noise").in_words("noise") == "> 0.8"


def test_a_wavering_curve_counts_as_found_only_while_all_easier_levels_are() -> None:
    assert crossing(of(10, 10, 2, 10), 0.9, over="amplitude").level > 0.4


def test_doses_have_the_mean_and_the_spread_that_they_should() -> None:
    for mean, spread in ((0.05, 0.025), (0.4, 0.2), (0.8, (0.16 / 3) ** 0.5)):
        drawn = doses_of_units(mean, 20_000, np.random.default_rng(0))
        assert drawn.mean() == pytest.approx(mean, rel=0.02) and drawn.std() == pytest.approx(spread, rel=0.05)
        assert 0 <= drawn.min() and drawn.max() <= 1


def test_targets_put_all_their_mass_on_their_own_measure(measured: TABLE) -> None:
    table, reading = measured
    kinds = list(KINDS.values())
    target, rows = target_masses(reading, kinds)
    assert np.allclose(rows, table.rows)
    for number, kind in enumerate(kinds):
        measure = MEASURES.index(kind.measure)
        has = rows[:, measure] > 0
        assert has.any() and np.allclose(target[has, measure, number], rows[has, measure], rtol=1e-5), kind.behaviour


def test_a_full_dose_is_the_target_and_no_dose_is_the_head(measured: TABLE) -> None:
    table, reading = measured
    target, _ = target_masses(reading, [KINDS["induction"]])
    units = len(table.ids)
    assert np.array_equal(dosed(table, (3, 1), target[:, :, 0], np.zeros(units)).total, table.total)
    whole = dosed(table, (3, 1), target[:, :, 0], np.ones(units)).total
    assert np.allclose(whole[:, :, 3, 1], target[:, :, 0])
    whole[:, :, 3, 1] = table.total[:, :, 3, 1]
    assert np.array_equal(whole, table.total)


def test_strong_doses_are_found_and_none_is_found_without_one(measured: TABLE) -> None:
    table, reading = measured
    found = spike(table, reading, doses=(1e-6, 0.8), heads=3)
    assert set(found.kinds) == set(KINDS)
    assert {kind: found.recall[kind, 0.8].value for kind in KINDS} == dict.fromkeys(KINDS, 1.0)
    assert {kind: found.recall[kind, 1e-6].value for kind in KINDS} == dict.fromkeys(KINDS, 0.0)
    assert all(1e-6 < found.dose(kind, 0.5).level < 0.8 for kind in KINDS)
    figure = recall(found.rows())
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [list(line.y) for line in lines] == [[0.0, 1.0]] * len(KINDS)


def test_doses_refuse_a_text_that_the_atlas_was_not_made_of(measured: TABLE) -> None:
    table, reading = measured
    fewer = Reading(units=reading.units, windows=reading.windows[1:])
    with pytest.raises(UsageError, match="not the one"):
        spike(table, fewer)


def test_curves_scan_every_different_setting_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(*, amplitude: float, noise: float, draws: int, **_: object) -> Calibration:
        asked.append((amplitude, noise))
        found = round(4 * amplitude) - round(noise)
        labels = {("induction", "induction"): found}
        return Calibration(
            phantoms=2, parts={"induction": 4}, labels=labels, rungs={("induction", 1): found}, measured=("induction",)
        )

    monkeypatch.setattr("innerworks.phantoms.curves.calibrate", counted)
    found = curves(draws=1, levels={"amplitude": (1.0, 0.5, 0.0625), "noise": (0.0, 1.0)})
    assert sorted(asked) == [(0.0625, 0.0), (0.5, 0.0), (1.0, 0.0), (1.0, 1.0)]
    assert {level: recall.found for level, recall in found.curve("induction", "noise").items()} == {0.0: 4, 1.0: 3}
    assert found.crossing("induction", "amplitude", 0.5).level == 0.5
    assert found.crossing("induction", "noise", 0.5).in_words("noise") == "> 1"
    assert len(found.rows()) == 5 and {row["over"] for row in found.rows()} == {"amplitude", "noise"}


@pytest.mark.slow
def test_weak_heads_are_found_less_often_than_strong_ones() -> None:
    found = curves(draws=1, kits=("offsets",), levels={"amplitude": (1.0, 0.02), "noise": (0.0,)})
    for kind in ("current_token", "offset_2", "offset_3"):
        curve = found.curve(kind, "amplitude")
        assert curve[1.0].found == curve[1.0].planted == 2 and curve[0.02].found == 0
        assert 0.02 < found.crossing(kind, "amplitude", 0.5).level < 1
    assert set(found.mistaken.values()) == {0}
