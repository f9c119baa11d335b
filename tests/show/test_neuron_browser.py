"""Neurons in a real browser: a table of all of them of which only what is in view exists, and the page of each."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.show.test_browser import head_text, visit

from innerworks.atlas import Atlas
from innerworks.show import report

webdriver = pytest.importorskip("selenium.webdriver")
By = pytest.importorskip("selenium.webdriver.common.by").By
Wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait

pytestmark = pytest.mark.browser


@pytest.fixture
def opened(browser, neuron_atlas: Atlas, tmp_path: Path) -> Iterator["webdriver.Chrome"]:
    yield from visit(browser, report.write(neuron_atlas, tmp_path / "report.html"))


def table_of(browser) -> list[list[str]]:
    """The rows of the table of neurons that are in view, once it is there."""
    browser.execute_script("document.getElementById('every-neuron').scrollIntoView()")
    Wait(browser, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#neurons-view tr[data-site]"))
    rows = browser.find_elements(By.CSS_SELECTOR, "#neurons-view tr[data-site]")
    return [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in rows]


def count(browser) -> str:
    return browser.find_element(By.ID, "neuron-count").text


def test_the_table_begins_with_the_best_explained_and_sorts(opened):
    rows = table_of(opened)
    assert [rows[0][0], rows[0][2:5]] == ["L1N3", ["where the token stands", "60.0 %", "42"]] and rows[1][0] == "L0N5"
    assert count(opened) == "48 of 48"
    heading = opened.find_element(By.CSS_SELECTOR, "#neurons-view th button")
    heading.send_keys("\n")  # by keyboard, too
    assert [row[0] for row in table_of(opened)][:2] == ["L0N0", "L0N1"]
    heading.click()
    assert table_of(opened)[0][0] == "L2N15"


def test_the_table_filters_by_text_kind_and_label(opened):
    table_of(opened)
    form = opened.find_element(By.ID, "neuron-filters")
    form.find_element(By.NAME, "labelled").click()
    assert {row[0] for row in table_of(opened)} >= {"L1N3", "L0N5"} and not count(opened).startswith("48")
    form.find_element(By.CSS_SELECTOR, "option[value=position_neuron]").click()
    assert [row[0] for row in table_of(opened)] == ["L1N3"]
    form.find_element(By.CSS_SELECTOR, "option[value='']").click()
    form.find_element(By.NAME, "labelled").click()
    form.find_element(By.NAME, "text").send_keys("L2")
    assert count(opened) == "16 of 48" and {row[0][:3] for row in table_of(opened)} == {"L2N"}


def test_only_the_rows_in_view_exist(opened):
    table_of(opened)
    opened.execute_script("document.getElementById('neurons-view').style.height = '124px'; dispatchEvent(new Event('resize'))")
    assert len(table_of(opened)) < 48
    opened.execute_script("const view = document.getElementById('neurons-view'); view.scrollTop = view.scrollHeight")
    Wait(opened, 20).until(lambda b: table_of(b)[-1][0] not in ("", "L1N3"))
    height = opened.execute_script("return document.getElementById('neurons-view').scrollHeight")
    assert abs(height - 48 * 31) < 60  # as high as if all were there


def test_a_row_opens_the_page_of_its_neuron(opened):
    table_of(opened)
    opened.find_element(By.CSS_SELECTOR, "#neurons-view tr[data-site=L1N3] td:nth-child(4)").click()
    Wait(opened, 20).until(lambda b: "Of its variance" in head_text(b) or "OF ITS VARIANCE" in head_text(b))
    text = " ".join(head_text(opened).split())
    for part in (
        "Feed-forward neuron 3 of 16 in layer 1 of 3",
        "whatever the text says: strongest within the first 16 tokens (necessary).",
        "rung 2, necessary",
        "where the token stands 60.0 %",
        "largest activation 42",
        "9.0 at token 7 of fiction/00",
        "it raises ·1 +2.5",
        "and lowers ·dog −1.5",
        "What breaks without it",
    ):
        assert part.lower() in text.lower(), part
    assert opened.find_element(By.CSS_SELECTOR, ".looking .query").text == "·the"
    assert opened.execute_script("return window.evil === undefined") and opened.title.startswith("L1N3 · ")
    opened.back()
    Wait(opened, 20).until(lambda b: b.find_element(By.ID, "every-neuron").is_displayed())


def test_neurons_without_labels_have_pages_and_others_do_not_exist(opened):
    opened.execute_script("location.hash = '#L2N9'")
    Wait(opened, 20).until(lambda b: "No label." in head_text(b) and "largest activation" in head_text(b))
    opened.find_element(By.CSS_SELECTOR, "#head nav a:last-child").click()
    Wait(opened, 20).until(lambda b: b.find_element(By.CSS_SELECTOR, "#head h1").text == "L2N10")
    opened.execute_script("location.hash = '#L2H1'")  # and heads are still there
    Wait(opened, 20).until(lambda b: "Where it looks" in head_text(b))
    opened.execute_script("location.hash = '#L2N16'")
    Wait(opened, 20).until(lambda b: b.find_element(By.ID, "map").is_displayed())


def test_a_label_leads_to_its_kind(opened):
    opened.execute_script("location.hash = '#L1N3'")
    Wait(opened, 20).until(lambda b: b.find_element(By.CSS_SELECTOR, "#head .labels a")).click()
    Wait(opened, 20).until(lambda b: b.find_element(By.ID, "position_neuron").is_displayed())
    assert opened.find_element(By.ID, "position_neuron").get_attribute("open")


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_not_wider_than_the_screen(opened, width: int):
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        table_of(opened)
        opened.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
        opened.execute_script("location.hash = '#L1N3'")
        Wait(opened, 20).until(lambda b: "Where it is strongest" in head_text(b))
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
