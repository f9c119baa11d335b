"""Everything about one head, gathered: nothing is lost on the way, and as JSON it is all there."""

import json

import pytest

from innerworks.atlas import Atlas
from innerworks.show.head import HeadPage, as_json, heads_in, page_of, subject


@pytest.fixture(scope="module")
def page(rich_atlas: Atlas) -> HeadPage:
    return page_of(rich_atlas, "L2H1")


def test_every_score_answers_a_question_is_counted_or_is_about_partners(page: HeadPage, rich_atlas: Atlas):
    mine = rich_atlas.findings.filter(rich_atlas.findings["site"] == "L2H1")
    listed = sum(len(scores) for scores in page.scores.values()) + sum(page.left_out.values())
    about_pairs = [one for one in page.partners if one.score.site == "L2H1"]
    assert listed + len(about_pairs) == mine.height
    assert page.left_out == {"syntactic": 6, "domain": 2}


def test_labels_come_first_then_what_stands_out(page: HeadPage):
    assert [head.behaviour for head in page.labels] == ["induction", "copying", "first_token"]
    looks = [score.behaviour for score in page.scores["looks"]]
    assert looks[:2] == ["induction", "induction"] and looks.index("first_token") < looks.index("attention_sink")
    assert looks.index("attention_sink") < looks.index("offset_2")
    assert {score.measure for score in page.scores["breaks"]} == {"harm", "collateral"}
    assert [score.measure for score in page.scores["writes"]][:2] == ["eigenvalue", "direct_effect"]


def test_partners_from_both_sides(rich_atlas: Atlas):
    def said(site: str) -> list[str]:
        return [one.says.format(one.other) for one in page_of(rich_atlas, site).partners]

    assert said("L2H1")[:2] == ["loses its match without L0H3 in its keys", "owes this share of its match to L0H3 in its keys"]
    assert said("L0H3")[0] == "was ablated jointly with L1H0" and "carries, in the keys, the match of L2H1" in said("L0H3")
    assert said("L1H0") == ["was ablated jointly with L0H3"]
    assert said("L2H3") == ["when it is lost, L2H0 makes up for it"] and said("L2H0") == ["makes up for the loss of L2H3"]
    assert said("L1H1") == []


def test_heads_in_a_target():
    assert heads_in("L0H3, L10H12 L1H0") == ["L0H3", "L10H12", "L1H0"] and heads_in(None) == heads_in("induction") == []


def test_a_head_that_only_begins_like_a_partner_is_none(rich_atlas: Atlas):
    assert all("L2H1" not in one.other for one in page_of(rich_atlas, "L2H2").partners)


def test_subjects(page: HeadPage):
    told = {subject(score) for scores in page.scores.values() for score in scores}
    assert {"induction", "induction, harm alone", "copying, eigenvalues of its circuit"} <= told
    assert "induction, rest on the first token that gives way" in told
    assert [subject(score) for score in page.of_layer] == ["massive activation"]


def test_as_json_holds_all_findings_examples_and_partners(page: HeadPage, rich_atlas: Atlas):
    said = json.loads(json.dumps(as_json(page, rich_atlas.findings), allow_nan=False))
    assert len(said["findings"]) == rich_atlas.findings.filter(rich_atlas.findings["site"] == "L2H1").height
    assert said["labels"][0] == {"behaviour": "induction", "title": "induction", "rung": 3, "q": 1e-9, "note": "alone"}
    assert said["partners"][0]["says"] == "loses its match without L0H3 in its keys"
    first = said["examples"][0]
    assert (first["query"], first["raised"][0], first["rows"][0]) == (6, ["\n", 2.5], [" cat", " cat", 3.2])
    assert first["pattern"][6][2] == pytest.approx(0.8, abs=1e-3) and said["layer"][0]["measure"] == "massive_activation"


def test_a_head_without_labels_has_a_nearest(rich_atlas: Atlas):
    page = page_of(rich_atlas, "L0H0")
    assert page.labels == () and page.nearest is not None and 0 < page.nearest.strength < 1
