"""The figure of syntactic heads: the best head of each relation against the best offset."""

import pytest

from innerworks.findings import Finding, frame
from innerworks.show.figures.syntax import relations


def row(relation: str, head: int, effect: float, *, rung: int = 0, best: bool = False) -> Finding:
    return Finding(
        chapter="heads",
        behaviour=f"syntactic:{relation}",
        site=f"L1H{head}",
        layer=1,
        index=head,
        measure="attention",
        material="text",
        value=0.4 + effect,
        unit="accuracy",
        effect=effect,
        effect_low=effect - 0.1,
        effect_high=effect + 0.05,
        n=40,
        null=0.4,
        null_kind="best fixed offset",
        floor=0.1,
        p=0.0,
        mde=0.2,
        q=None,
        rung=rung,
        note="2 words back" + "; best on discovery" * best,
    )


@pytest.fixture
def rows() -> list[Finding]:
    return [
        row("obj", 0, 0.5, rung=1, best=True),
        row("obj", 1, 0.3, rung=1),
        row("obj", 2, 0.0),
        row("nsubj<", 0, 0.2, best=True),
        row("<b>", 0, -0.1, best=True),
    ]


def test_one_row_per_relation_with_its_best_head_its_offset_and_its_floor(rows: list[Finding]) -> None:
    figure = relations(frame(rows))
    traces = {trace.name: trace for trace in figure.data if trace.name}
    assert list(figure.layout.yaxis.ticktext) == [
        "&lt;b&gt; → its head  &lt;b&gt;",
        "its subject  nsubj&lt;",
        "object → its head  obj",
    ]
    assert list(traces["best fixed offset"].x) == [0.4] * 3 and list(traces["floor"].x) == [0.5] * 3
    labelled, others = traces["best head, labelled"], traces["best head, not labelled"]
    assert list(labelled.x) == [0.9] and list(labelled.y) == [2] and list(others.y) == [0, 1]
    assert labelled.error_x.array[0] == pytest.approx(0.05) and labelled.error_x.arrayminus[0] == pytest.approx(0.1)
    assert "0.90" in labelled.hovertext[0] and "2 labelled" not in labelled.hovertext[0] and "2 heads" in labelled.hovertext[0]
    names = next(trace for trace in figure.data if trace.mode == "text")
    assert [name.strip() for name in names.text] == ["L1H0", "L1H0", "L1H0 (2)"]


def test_an_atlas_without_syntax_has_an_empty_figure(rows: list[Finding]) -> None:
    figure = relations(frame([]))
    assert all(not len(trace.x or ()) for trace in figure.data)
