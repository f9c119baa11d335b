"""The ledger of the specimen: a verdict by rule for every claim about heads, from the tables of an atlas alone."""

import math
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import innerworks as iw
from innerworks.atlas import Atlas
from innerworks.atlas.store import ledger
from innerworks.claims import LEDGER, Verdict, judge
from innerworks.findings import frame
from innerworks.scan import decide_again

pytestmark = pytest.mark.specimen
VERDICTS = {"holds", "holds in part", "does not hold", "not measured", "not applicable"}


@pytest.fixture(scope="module", params=["quick", pytest.param("standard", marks=pytest.mark.slow)])
def atlas(request: pytest.FixtureRequest, specimen: Any, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    made = iw.scan(specimen, out=tmp_path_factory.mktemp("specimen") / "a.atlas", depth=request.param)
    return Atlas.open(made.path)


def verdicts(findings: pl.DataFrame) -> dict[str, Verdict]:
    return {name: judge(claim, findings) for name, claim in LEDGER.items()}


def test_findings_and_ledger_are_recomputed_from_the_tables_alone(atlas: Atlas) -> None:
    again = frame(decide_again(atlas))
    assert_frame_equal(again, atlas.findings, abs_tol=1e-12)
    assert_frame_equal(ledger(again), atlas.claims)


def test_every_claim_has_a_verdict_with_its_numbers(atlas: Atlas) -> None:
    found = verdicts(atlas.findings)
    assert set(found) >= {f"A{number}" for number in range(1, 13)}
    for one in found.values():
        assert one.verdict in VERDICTS and one.summary
        for evidence in (part for part in one.evidence if part.number is not None):
            assert evidence.low <= evidence.number <= evidence.high and math.isfinite(evidence.number) and evidence.n > 0
    told = {name for name, one in found.items() if one.evidence and one.evidence[0].number is not None}
    deeper = set() if atlas.manifest["settings"]["depth"] == "standard" else {"A7", "A8", "A10", "A12"}
    assert told >= {f"A{number}" for number in range(1, 13)} - deeper


def test_the_induction_heads_of_the_specimen_are_proven(atlas: Atlas) -> None:
    labels = atlas.labels.filter(pl.col("behaviour") == "induction")
    assert labels.filter(pl.col("site") == "L18H6")["rung"].item() == 3
    assert verdicts(atlas.findings)["A1"].verdict == verdicts(atlas.findings)["A11"].verdict == "holds"
