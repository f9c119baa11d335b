"""The page in a real browser: opens from a file, draws, sorts and filters, on a desk and on a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from innerworks.atlas import Atlas
from innerworks.show import report

webdriver = pytest.importorskip("selenium.webdriver")
By = pytest.importorskip("selenium.webdriver.common.by").By
Wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait

pytestmark = pytest.mark.browser


@pytest.fixture
def opened(browser, atlas: Atlas, tmp_path: Path) -> Iterator["webdriver.Chrome"]:
    path = report.write(atlas, tmp_path / "report.html")
    browser.get_log("browser")
    browser.get(path.as_uri())
    yield browser
    errors = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert errors == []


def column(browser, table: str, place: int) -> list[str]:
    """The texts of a column (counted from 1) of a table."""
    return [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, f"{table} tbody tr > :nth-child({place})")]


def test_figures_are_drawn_when_seen(opened):
    Wait(opened, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, "[data-figure=map] .main-svg"))
    last = opened.find_elements(By.CSS_SELECTOR, ".figure")[-1]
    opened.execute_script("arguments[0].scrollIntoView()", last)
    Wait(opened, 20).until(lambda _: last.find_elements(By.CSS_SELECTOR, ".main-svg"))


def test_hostile_tokens_do_nothing_and_are_readable(opened):
    opened.execute_script("document.querySelectorAll('.figure').forEach(draw)")
    place = "[data-figure=induction-example-0]"
    Wait(opened, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, f"{place} .ytick text"))
    ticks = [tick.text for tick in opened.find_elements(By.CSS_SELECTOR, f"{place} .ytick text")]
    assert ticks[:5] == ["The", "·cat", "⏎", "</script><scrip…", "<b>b</b>"]
    assert opened.execute_script("return window.evil === undefined")
    assert opened.find_elements(By.CSS_SELECTOR, "a[href*=evil]") == []


def test_nothing_comes_from_the_network(opened):
    loaded = opened.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in loaded if name.startswith("http")] == []


def test_label_table_sorts(opened):
    table = "#induction > .scroll table"
    opened.find_element(By.CSS_SELECTOR, f"{table} thead tr:last-child th button").click()
    assert column(opened, table, 1) == ["L1H0", "L2H1", "L2H2"]
    opened.find_element(By.CSS_SELECTOR, f"{table} thead tr:last-child th button").click()
    assert column(opened, table, 1) == ["L2H2", "L2H1", "L1H0"]
    heading = opened.find_element(By.CSS_SELECTOR, f"{table} thead tr:last-child th")
    assert heading.get_attribute("aria-sort") == "descending"


def test_all_heads_filter_and_sort_by_keyboard_too(opened):
    count = opened.find_element(By.ID, "count")
    assert count.text == "8 of 48 rows"
    opened.find_element(By.NAME, "labels").click()
    assert count.text == "48 of 48 rows"
    search = opened.find_element(By.NAME, "text")
    search.send_keys("L1")
    assert set(name[:3] for name in column(opened, "#explorer", 1)) == {"L1H"}
    search.clear()
    search.send_keys("induction")
    opened.find_element(By.CSS_SELECTOR, "select[name=rung] option[value='2']").click()
    assert column(opened, "#explorer", 1) == ["L2H1"]
    opened.find_element(By.CSS_SELECTOR, "select[name=rung] option[value='1']").click()
    button = opened.find_elements(By.CSS_SELECTOR, "#explorer thead button")[3]
    button.send_keys("\n")
    assert column(opened, "#explorer", 1) == ["L2H2", "L2H1", "L1H0"]  # the largest effect first
    button.send_keys(" ")
    assert column(opened, "#explorer", 1) == ["L1H0", "L2H1", "L2H2"]


def test_missing_numbers_sort_last_either_way(opened):
    opened.find_element(By.NAME, "labels").click()
    button = opened.find_elements(By.CSS_SELECTOR, "#explorer thead button")[5]  # q: only labels have one
    for _ in range(2):
        button.click()
        assert column(opened, "#explorer", 6)[-1] == "–"


def test_a_click_on_the_map_finds_the_head(opened):
    Wait(opened, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, "[data-figure=map] .main-svg"))
    opened.execute_script("find('L2H1')")
    assert set(column(opened, "#explorer", 1)) == {"L2H1"}


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_not_wider_than_the_screen(opened, width: int):
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        opened.execute_script("document.querySelectorAll('.figure').forEach(draw)")
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
