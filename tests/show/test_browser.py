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
    yield from visit(browser, report.write(atlas, tmp_path / "report.html"))


@pytest.fixture
def rich(browser, rich_atlas: Atlas, tmp_path: Path) -> Iterator["webdriver.Chrome"]:
    yield from visit(browser, report.write(rich_atlas, tmp_path / "report.html"))


def visit(browser, path: Path) -> Iterator["webdriver.Chrome"]:
    """Open a page; afterwards the browser has complained about nothing."""
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(path.as_uri())
    yield browser
    errors = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert errors == []


def head_text(browser) -> str:
    """What the page of a head says; nothing where none is shown."""
    return browser.find_element(By.ID, "head").text


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


def test_a_click_on_the_map_opens_the_head(opened):
    Wait(opened, 20).until(lambda b: b.find_elements(By.CSS_SELECTOR, "[data-figure=map] .main-svg"))
    opened.execute_script(
        "document.querySelector('[data-figure=map]').emit('plotly_click', { points: [{ customdata: 'L2H1' }] })"
    )
    Wait(opened, 20).until(lambda b: b.current_url.endswith("#L2H1"))
    assert "L2H1" in head_text(opened)
    assert not opened.find_element(By.ID, "reading").is_displayed()


# --- the page of a head -------------------------------------------------------------------------------------------


def test_a_head_opens_by_its_address_and_back_leads_to_where_one_was(rich):
    link = rich.find_element(By.CSS_SELECTOR, "#induction tbody a.head")
    rich.execute_script("arguments[0].scrollIntoView({ behavior: 'instant', block: 'center' })", link)
    before = rich.execute_script("return scrollY")
    link.send_keys("\n")  # by keyboard, too
    Wait(rich, 20).until(lambda b: "Where it looks" in head_text(b))
    text = head_text(rich)
    for part in ("rung 3, selective", "Looks at what followed", "What it writes", "What breaks without it", "Its partners"):
        assert part in text
    assert rich.title.startswith("L2H1 · ") and rich.execute_script("return document.activeElement.tagName") == "H1"
    assert not rich.find_element(By.ID, "map").is_displayed()
    rich.back()
    Wait(rich, 20).until(lambda b: b.find_element(By.ID, "map").is_displayed())
    assert head_text(rich) == "" and abs(rich.execute_script("return scrollY") - before) < 50 and before > 0


def test_a_head_says_everything_that_is_known_of_it(rich):
    rich.execute_script("location.hash = '#L2H1'")
    Wait(rich, 20).until(lambda b: "Where it looks" in head_text(b))
    text = " ".join(head_text(rich).split())
    for part in (
        "Induction rung 3, selective",
        "Copying rung 1, seen",
        "·cat looks at ⏎ 0.80",
        "it raises ⏎ +2.5",
        "and lowers ·dog −1.5",
        "By its weights, reading a token raises most: ·cat → ·cat",
        "copying, eigenvalues of its circuit weights 0.800",
        "induction, harm alone real text 0.98 [0.88, 1.08] nats",
        "loses its match without L0H3 in its keys 0.60 [0.54, 0.66]",
        "reads L0H1 in its keys 0.200",
        "Its layer, L2",
        "massive activation",
    ):
        assert part.lower() in text.lower(), part
    assert "Head 1 of 4 in layer 2 of 3" in text


def test_a_head_can_be_opened_from_outside(browser, rich_atlas: Atlas, tmp_path: Path):
    path = report.write(rich_atlas, tmp_path / "report.html")
    browser.get("about:blank")
    browser.get(f"{path.as_uri()}#L1H0")
    text = head_text(browser)
    assert "L1H0" in text and "subject → head (nsubj)" in text and "head → determiner (det<)" in text
    browser.find_element(By.CSS_SELECTOR, "#head .labels a[href='#syntactic']").click()
    Wait(browser, 20).until(lambda b: b.find_element(By.ID, "syntactic").is_displayed())
    assert abs(browser.execute_script("return document.getElementById('syntactic').getBoundingClientRect().top")) < 50


def test_partners_lead_to_each_other(rich):
    rich.execute_script("location.hash = '#L2H1'")
    partner = Wait(rich, 20).until(lambda b: b.find_element(By.CSS_SELECTOR, ".partners a[href='#L0H3']"))
    partner.click()
    Wait(rich, 20).until(lambda b: b.find_element(By.CSS_SELECTOR, "#head h1").text == "L0H3")
    text = head_text(rich)
    assert "carries, in the keys, the match of L2H1" in text and "was ablated jointly with L1H0" in text
    rich.back()
    Wait(rich, 20).until(lambda b: b.find_element(By.CSS_SELECTOR, "#head h1").text == "L2H1")


def test_a_head_without_labels_says_what_came_nearest(rich):
    rich.execute_script("location.hash = '#L0H0'")
    Wait(rich, 20).until(lambda b: "No label" in head_text(b))
    assert "of its floor" in head_text(rich)
    rich.find_element(By.CSS_SELECTOR, "#head nav a").click()  # the whole model
    Wait(rich, 20).until(lambda b: b.find_element(By.ID, "map").is_displayed())
    rich.execute_script("location.hash = '#L77H0'")  # no such head: nothing happens
    assert head_text(rich) == ""


def test_arrow_keys_choose_the_token_that_looks(rich):
    rich.execute_script("location.hash = '#L2H1'")
    tokens = Wait(rich, 20).until(lambda b: b.find_element(By.CSS_SELECTOR, ".tokens"))
    assert tokens.find_element(By.CSS_SELECTOR, ".query").text == "·cat"
    tokens.send_keys("\ue014")  # the arrow to the right
    assert tokens.find_element(By.CSS_SELECTOR, ".query").text == "⏎"
    assert rich.execute_script("return window.evil === undefined")


def test_all_heads_can_be_filtered_by_family_and_lead_to_heads(rich):
    rich.find_element(By.CSS_SELECTOR, "select[name=behaviour] option[value=syntactic]").click()
    assert sorted(column(rich, "#explorer", 1)) == ["L0H2", "L1H0", "L1H0"]
    rich.find_element(By.CSS_SELECTOR, "#explorer tbody a").click()
    Wait(rich, 20).until(lambda b: "Where it looks" in head_text(b))


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_not_wider_than_the_screen(opened, width: int):
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        opened.execute_script("document.querySelectorAll('.figure').forEach(draw)")
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
        opened.execute_script("location.hash = '#L2H1'")
        Wait(opened, 20).until(lambda b: "Where it looks" in head_text(b))
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
