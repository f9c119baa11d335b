"""The stream as it is shown: dimensions that stick out, how alike tokens are, and the page of one dimension."""

from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from innerworks.atlas import Atlas, Unfinished
from innerworks.errors import UnknownSite
from innerworks.findings import Finding, frame
from innerworks.show import dimension, report
from innerworks.show.facts import facts, sentences
from innerworks.show.figures import geometry
from innerworks.show.page import summary

LAYERS, WIDTH = 3, 8


def row(behaviour: str, measure: str, site: str, effect: float, **changes: Any) -> Finding:
    told: dict[str, Any] = dict(
        chapter="residual", behaviour=behaviour, site=site, measure=measure, material="text", value=effect + 2.0, unit="spreads",
        effect=effect, effect_low=effect - 0.5, effect_high=effect + 0.5, n=40, df=39, null=2.0, null_kind="directions at random",
        floor=5.0, p=0.0, mde=5.5,
    )  # fmt: skip
    return Finding(**{**told, **changes})


def findings() -> list[Finding]:
    rogue = [
        row("rogue_dimension", "robust_z", f"L{at}D5", 20.0 + at, layer=at, index=5, q=0.001, rung=1) for at in range(LAYERS)
    ]
    rogue.append(row("rogue_dimension", "robust_z", "L0D2", 4.0, layer=0, index=2, q=0.9))
    bound = row("rogue_dimension", "ceiling", "model", 22.0, p=None, effect_high=23.0)
    cosines = [
        row("anisotropy", measure, f"L{at}", value, layer=at, floor=0.0, unit="cosine", p=None)
        for measure, value in (("mean_cosine", 0.5), ("cosine_without", 0.1), ("cosine_centred", 0.0))
        for at in range(LAYERS)
    ]
    return [*rogue, bound, *cosines]


@pytest.fixture(scope="module")
def of_stream(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    atlas = Unfinished.create(tmp_path_factory.mktemp("stream") / "a.atlas", {"depth": "quick"})
    atlas.write_findings(findings())
    atlas.write_examples([])
    atlas.write_neurons([])
    atlas.write_arrays("arrays/geometry.safetensors", arrays(), {"removed": []})
    return atlas.finish({"model": {"name": "tiny", "layers": LAYERS}})


def arrays() -> dict[str, np.ndarray]:
    z = np.zeros((LAYERS, WIDTH), dtype=np.float32)
    z[:, 5], z[0, 2] = (22.0, 23.0, 24.0), 30.0
    return {"z": z, "turned": np.full(LAYERS, 2.0, dtype=np.float32)}


def test_labelled_dimensions_have_lines_and_no_others() -> None:
    figure = geometry.sizes_by_layer(frame(findings()), arrays(), {})
    lines: dict[str, Any] = {trace.name: list(trace.y) for trace in figure.data}
    assert lines == {"D5": [22.0, 23.0, 24.0], "directions at random": [2.0] * LAYERS, "floor": [7.0] * LAYERS}


def test_cosines_with_and_without() -> None:
    figure = geometry.cosines_by_layer(frame(findings()))
    assert [list(trace.y) for trace in figure.data] == [[0.5] * LAYERS, [0.1] * LAYERS, [0.0] * LAYERS]


def test_the_stream_is_told_in_the_terminal_and_in_the_report(of_stream: Atlas) -> None:
    told = {one.behaviour.name: sentences(one) for one in facts(of_stream.findings, "residual")}
    first, bound = told["rogue_dimension"]
    assert "3 of 4 above the floor of 5; the strongest is L2D5, 22.00 [21.50, 22.50] spreads." in first
    assert bound.endswith("none has more than 23 spreads, the floor is 5.") and "anisotropy" in told
    page = report.render(of_stream)
    for name in ("rogue_dimension", "anisotropy"):
        assert page.count(f'<section id="{name}"') == page.count(f'data-figure="{name}-further-0"') == 1
    assert "The residual stream" in printed(summary(of_stream))


def test_a_dimension_has_a_page(of_stream: Atlas) -> None:
    assert "L1D5" in printed(dimension.dimension_page(of_stream, "L1D5"))
    said = dimension.as_json(of_stream, "L1D5.resid_post")
    assert said["site"] == "L1D5" and [one["effect"] for one in said["findings"]] == [21.0]
    with pytest.raises(UnknownSite, match=r"L1D6 was not tested\. Only what sticks out is: here L2D5"):
        dimension.dimension_page(of_stream, "L1D6")


def printed(page: Any) -> str:
    console = Console(width=120, file=StringIO())
    console.print(page)
    return console.file.getvalue()  # type: ignore[attr-defined]
