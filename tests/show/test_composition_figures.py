"""Figures of composition: they show what was measured, and say so where nothing was."""

import numpy as np
import pytest

from innerworks.findings import Finding, frame
from innerworks.show.figures import composition

RECEIVERS, SENDERS = ("L3H1", "L4H0"), ("L1H2", "L10H0")
LOSS = {("L3H1", "L1H2"): 0.6, ("L4H0", "L1H2"): 0.3, ("L4H0", "L10H0"): 0.02}


def finding(measure: str, receiver: str, target: str, value: float) -> Finding:
    return Finding(
        chapter="heads",
        behaviour="induction",
        site=receiver,
        target=target,
        measure=measure,
        material="random",
        value=value,
        unit="probability",
        effect=value - 0.01,
        effect_low=value - 0.05,
        effect_high=value + 0.02,
        n=12,
        null=0.01,
        null_kind="control heads",
        floor=0.05,
        p=0.0,
        mde=0.06,
        note="<i>not markup</i>",
    )


@pytest.fixture
def rows() -> list[Finding]:
    found = [finding("k_composition", *pair, value) for pair, value in LOSS.items()]
    found += [finding("q_composition", *pair, 0.01) for pair in LOSS]
    return [*found, finding("k_composition", "L4H0", "L1H2, L10H0", 0.4)]


@pytest.fixture
def matches() -> dict[str, np.ndarray]:
    clean = {f"match/{receiver}/clean": np.full(12, 0.8) for receiver in RECEIVERS}
    keys = {f"match/{receiver}/keys/{sender}": np.full(12, 0.8 - loss) for (receiver, sender), loss in LOSS.items()}
    controls = {f"match/L3H1/keys/{name}": np.full(12, 0.8 - loss) for name, loss in (("L2H3", -0.01), ("L2H0~4", 0.03))}
    return {**clean, **keys, **controls, "match/L4H0/keys/L1H2+L10H0": np.zeros(12), "match/L4H0/path/L1H2": np.zeros(12)}


def test_falls_stand_in_a_panel_per_receiver_against_their_controls(rows: list[Finding], matches: dict[str, np.ndarray]) -> None:
    figure = composition.falls(frame(rows), matches)
    assert [trace.name for trace in figure.data] == ["in its keys", "in its queries"] * 2
    assert list(figure.layout.yaxis.ticktext) == ["all together", "L10H0", "L1H2"]
    last = figure.data[2]
    assert list(zip(last.x, last.y, strict=True)) == [(0.3, 2), (0.02, 1), (0.4, 0)]
    assert last.error_x.array[0] == pytest.approx(0.03) and last.error_x.arrayminus[0] == pytest.approx(0.04)
    (band,) = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert (band.x0, band.x1) == (pytest.approx(-0.01), pytest.approx(0.03))
    assert [shape.x0 for shape in figure.layout.shapes if shape.type == "line"] == [pytest.approx(0.06)] * 2
    assert "&lt;i&gt;" in last.hovertext[0] and "match 0.80" in figure.layout.annotations[0].text


def test_the_map_has_senders_by_layer_and_controls_below(rows: list[Finding], matches: dict[str, np.ndarray]) -> None:
    (heat,) = composition.who_feeds_whom(frame(rows), matches).data
    assert list(heat.x) == list(RECEIVERS)
    assert list(heat.y) == ["L1H2", "L10H0", "L2H0~4 (control)", "L2H3 (control)"]
    np.testing.assert_allclose(np.array(heat.z)[0], [0.6, 0.3])
    assert np.isnan(np.array(heat.z)[1, 0]) and heat.text[1] == ("", "")


def test_nothing_measured_is_said() -> None:
    for figure in (composition.falls(frame([]), {}), composition.who_feeds_whom(frame([]), {})):
        assert "no induction head" in figure.layout.annotations[0].text
