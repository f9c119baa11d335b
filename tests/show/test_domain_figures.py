"""Figures of domain heads, sinks and streaming: each mark is a number that was measured."""

import numpy as np
import polars as pl
import pytest

from innerworks.findings import Finding, frame
from innerworks.show.figures import domains, sinks, streaming

DOMAINS = ("french", "news", "python")


def finding(behaviour: str, site: str, measure: str, effect: float, **more: object) -> Finding:
    layer, index = (int(part) for part in site[1:].split("H")) if "H" in site else (int(site[1:]), None)
    same = dict(
        chapter="heads", behaviour=behaviour, site=site, layer=layer, index=index, measure=measure, material="text", value=effect,
        unit="nats", effect=effect, effect_low=effect - 0.02, effect_high=effect + 0.03, n=80, null=0.01, null_kind="x",
        floor=0.01, p=0.5, mde=0.02, note="<b>not markup</b>",
    )  # fmt: skip
    return Finding(**{**same, **more})  # type: ignore[arg-type]


@pytest.fixture
def harms() -> pl.DataFrame:
    rows = [
        finding("domain:french", "L4H5", "harm_contrast", 0.3, rung=1, q=0.001),
        finding("domain:python", "L2H0", "harm_contrast", 0.02),
    ]
    for site, there in (("L4H5", {"french": 0.31}), ("L2H0", {})):
        rows += [finding(f"domain:{domain}", site, "harm_in_domain", there.get(domain, 0.01)) for domain in DOMAINS]
    return frame(rows)


def test_harm_by_domain_shows_every_domain_of_every_head(harms: pl.DataFrame) -> None:
    figure = domains.harm_by_domain(harms)
    shown = sorted(float(x) for trace in figure.data for x in trace.x)
    assert shown == sorted(harms.filter(pl.col("measure") == "harm_in_domain")["effect"].to_list())
    named = {trace.text[0].strip(): trace for trace in figure.data if trace.text}
    assert set(named) == {"french", "python"}  # what each was tested for
    assert (named["french"].marker.symbol, named["python"].marker.symbol) == ("circle", "circle-open")
    assert named["french"].error_x.array[0] == pytest.approx(0.03)
    assert "&lt;b&gt;" in named["french"].hovertext[0] and "L4H5" in named["french"].hovertext[0]
    assert list(figure.layout.yaxis.ticktext) == ["L4H5", "L2H0"]
    assert len(domains.harm_by_domain(harms.clear()).data) == 0


def test_value_norms_are_shares_of_what_is_read_elsewhere() -> None:
    rows = []
    for site, share, mass, rung in (("L0H0", 1.1, 0.1, 0), ("L0H1", 0.05, 0.9, 1)):
        rows.append(finding("attention_sink", site, "value_norm", -float(np.log(share)), value=share * 2.0, null=2.0))
        rows.append(finding("first_token", site, "attention", mass, rung=rung))
    figure = sinks.value_norms(frame(rows))
    shown = {trace.text[0]: (trace.x[0], trace.y[0], trace.name) for trace in figure.data}
    assert shown["L0H1"] == (0.9, pytest.approx(0.05), "labelled sinks")
    assert shown["L0H0"] == (0.1, pytest.approx(1.1), "other heads")
    assert figure.layout.yaxis.type == "log"


def test_stream_norms_are_ratios_by_layer() -> None:
    rows = frame([finding("massive_activation", f"L{layer}", "norm_ratio", ratio) for layer, ratio in ((1, 5.0), (0, 0.0))])
    *_, line = sinks.stream_norms(rows).data
    assert list(line.x) == [0, 1]
    assert list(line.y) == pytest.approx([1.0, np.exp(5.0)])


def test_losses_by_position_average_texts_and_leave_out_what_was_not_measured() -> None:
    window = np.tile(np.repeat([3.0, 5.0], 16), (4, 1))
    again = np.full((4, 32), np.nan)
    again[:, 16:32] = 2.0
    arrays = {"losses/window": window, "losses/recomputation": again}
    figure = streaming.losses_by_position(arrays, cache=64)
    lines = {trace.name: trace for trace in figure.data if trace.name}
    assert list(lines["window alone"].y) == [3.0, 5.0]
    assert list(lines["window alone"].x) == [64 + 7.5, 64 + 23.5]
    assert list(lines["recomputed"].y) == [2.0]
    assert "4 sinks + window" not in lines
    found = streaming.divergence_by_token({"divergence/sinks_4": np.ones((4, 16))})
    assert [list(trace.y) for trace in found.data if trace.name] == [[1.0, 1.0]]
