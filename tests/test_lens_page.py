"""The atlas's page in a browser: from disk, in headless Chromium, with nothing asked of any other machine."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impasto.images.images import read_picture, to_pillow
from impasto.lens.atlas import make_atlas
from impasto.lens.clarity import Clarity, write_clarity
from impasto.lens.index import read_index
from impasto.lens.patches import Patch, top
from impasto.lens.sheet import CELL, place_in_cell
from impasto.lens.words import Word, write_words
from tests.test_lens_atlas import NET, make_page

playwright = pytest.importorskip("playwright.sync_api", reason="the page is not tried in a browser: playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "the page is not tried in a browser: there is no Chromium: make test-browser installs it"
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]
QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    return make_page(tmp_path_factory.mktemp("page"))


@pytest.fixture
def page(browser, made) -> Iterator["playwright.Page"]:
    """A window in which every request must be for a file of the page, and nothing may be complained about."""
    window, asked, wrong = browser.new_page(viewport={"width": 1100, "height": 900}), [], []
    window.on("request", lambda request: asked.append(request.url))
    window.on("console", lambda message: wrong.append(message.text))
    window.on("pageerror", lambda error: wrong.append(str(error)))
    window.on("dialog", lambda dialog: wrong.append(dialog.message))
    window.on("requestfailed", lambda request: wrong.append(request.url))
    yield window
    window.close()
    assert asked and all(url.startswith(made[1].as_uri()) for url in asked)
    assert wrong == []


def see(locator, text) -> None:
    playwright.expect(locator).to_have_text(text)


def address(made: tuple[Path, Path], at: str = "") -> str:
    return f"{(made[1] / 'index.html').as_uri()}{at}"


def cards(page) -> list[str]:
    return page.locator("#list li strong").all_inner_texts()


def test_it_opens_from_disk_with_the_first_layer_and_leads_to_the_others(page, made):
    page.goto(address(made))
    see(page.get_by_role("heading", level=1), "Units of tiny")
    playwright.expect(page.locator("#list li")).to_have_count(4)
    page.get_by_role("link", name="conv2_1", exact=True).click()
    playwright.expect(page.locator("#list li")).to_have_count(6)
    assert page.url.endswith("#conv2_1") and "never active" in page.locator("#list li").nth(4).inner_text()
    page.get_by_role("link", name="all layers").click()
    playwright.expect(page.locator("#list li")).to_have_count(17)


def test_the_text_about_a_unit_stays_below_it(page, made):
    """Also where names are long, in the list of all layers."""
    page.goto(address(made, "#all"))
    playwright.expect(page.locator("#list li")).to_have_count(17)
    for card in page.locator("#list li").all():
        assert card.evaluate("it => it.scrollWidth <= it.clientWidth")


def test_a_units_address_shows_its_patches_as_they_are_in_the_pictures(page, made):
    page.goto(address(made, "#conv2_1/2"))
    see(page.get_by_role("heading", level=2), "conv2_1, unit 2")
    patches = top(made[0], "conv2_1", 2)
    drawn = page.locator(".nine").first.locator("canvas")
    playwright.expect(drawn).to_have_count(9)
    playwright.expect(page.locator("tbody tr")).to_have_count(9)
    assert page.locator("tbody bdi").all_inner_texts() == [patch.row.source.name for patch in patches]
    page.wait_for_load_state("networkidle")
    for n, patch in enumerate(patches):
        assert np.abs(shown(drawn.nth(n)) - expected(patch))[seen(patch)].mean() < 16


def shown(canvas) -> np.ndarray:
    """(CELL, CELL, 3): what the screen shows of a canvas."""
    return np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB").resize((CELL, CELL))).astype(float)


def expected(patch: Patch) -> np.ndarray:
    left, above, right, below = place_in_cell(patch)
    picture = to_pillow(read_picture(patch.row.source.path).image)
    box = patch.view.in_picture(patch.view.clip(patch.field))
    cell = np.zeros((CELL, CELL, 3))
    cell[above:below, left:right] = picture.resize((right - left, below - above), Image.Resampling.LANCZOS, box)
    return cell


def seen(patch: Patch) -> np.ndarray:
    left, above, right, below = place_in_cell(patch)
    inside = np.zeros((CELL, CELL), bool)
    inside[above + 2 : below - 2, left + 2 : right - 2] = True
    return inside


def test_units_are_found_by_number_by_address_and_by_picture(page, made):
    page.goto(address(made, "#conv2_1"))
    query = page.get_by_role("searchbox")
    query.fill("3")
    playwright.expect(page.locator("#list li")).to_have_count(1)
    query.press("Enter")
    see(page.get_by_role("heading", level=2), "conv2_1, unit 3")
    query.fill("conv3_1:pre/6")
    query.press("Enter")
    see(page.get_by_role("heading", level=2), "conv3_1:pre, unit 6")
    page.goto(address(made, "#conv1_1"))
    query.fill("07.PNG")
    has = [unit for unit in range(4) if any("07.png" in patch.row.source.name for patch in top(made[0], "conv1_1", unit))]
    playwright.expect(page.locator("#list li")).to_have_count(len(has))
    assert cards(page) == list(map(str, has))


def test_units_are_put_in_order_by_activity(page, made):
    index = read_index(made[0]).layers["conv2_1"]
    page.goto(address(made, "#conv2_1"))
    playwright.expect(page.locator("#list li")).to_have_count(6)
    assert cards(page) == list("012345")
    for order, key in (("often", -index.fired), ("seldom", index.fired), ("largest", -index.everywhere.value[:, 0])):
        page.locator("#order").select_option(order)
        wanted = [str(n) for n in np.argsort(key, kind="stable")]
        see(page.locator("#list li strong"), wanted)


def test_the_keys_go_from_unit_to_unit_and_back(page, made):
    page.goto(address(made, "#conv2_1/2"))
    see(page.get_by_role("heading", level=2), "conv2_1, unit 2")
    page.keyboard.press("ArrowRight")
    see(page.get_by_role("heading", level=2), "conv2_1, unit 3")
    page.keyboard.press("ArrowLeft")
    see(page.get_by_role("heading", level=2), "conv2_1, unit 2")
    page.keyboard.press("Escape")
    playwright.expect(page.locator('#list a[href="#conv2_1/2"]')).to_be_focused()
    page.keyboard.press("/")
    playwright.expect(page.get_by_role("searchbox")).to_be_focused()


def test_the_ranking_of_all_positions_is_one_click_away(page, made):
    page.goto(address(made, "#conv2_1/2"))
    see(page.locator("tbody bdi"), [patch.row.source.name for patch in top(made[0], "conv2_1", 2, interior=True)])
    playwright.expect(page.get_by_text("with padding", exact=True)).to_have_count(0)
    page.get_by_label("only positions without padding").uncheck()
    see(page.locator("tbody bdi"), [patch.row.source.name for patch in top(made[0], "conv2_1", 2, interior=False)])


@pytest.fixture(scope="module")
def clear(tmp_path_factory) -> tuple[Path, Path]:
    """A page of units of known clarity: conv1_1 rises with the number, of conv2_1 unit 4 is silent, conv3_1:pre is not measured."""
    folder, _ = made = make_page(tmp_path_factory.mktemp("clear"))
    scores = {"conv1_1": [0.5, 0.6, 0.7, 0.8], "conv2_1": [0.9, 0.8, 0.95, 0.6, None, 0.7]}
    write_clarity(folder, {name: Clarity(its, its, its, 0.6) for name, its in scores.items()})
    write_words(folder, {"conv2_1": [None, Word("Komodo dragon", 7, 9), None, Word("dog", 5, 9), None, None]})
    for _ in make_atlas(folder, NET, made[1], everywhere=True):
        pass
    return made


def test_the_clearest_units_come_first_and_say_how_clear_they_are(browser, clear):
    page = browser.new_page()
    page.goto(address(clear, "#conv2_1"))
    playwright.expect(page.locator("#list li")).to_have_count(6)
    assert cards(page) == ["2", "0", "1", "5", "3", "4"] and "clarity 0.95" in page.locator("#list li").first.inner_text()
    assert "never active" in page.locator("#list li").last.inner_text()
    page.get_by_label("only units clearer than chance").check()
    see(page.locator("#list li strong"), ["2", "0", "1", "5"])  # chance is 0.6, the score of unit 3
    page.locator("#list a").first.click()
    playwright.expect(page.get_by_text("from 0.95 to 0.95")).to_be_visible()
    page.close()


def test_a_unit_with_a_word_shows_it_and_is_found_by_it(browser, clear):
    page = browser.new_page()
    page.goto(address(clear, "#conv2_1"))
    see(page.locator("#list .word"), ["Komodo dragon 7 of 9", "dog 5 of 9"])
    page.get_by_label("Find").fill("komodo")
    see(page.locator("#list li strong"), ["1"])
    page.locator("#list a").first.click()
    row = page.locator("dl div", has_text="by a classifier of photographs")
    see(row.locator("dd").first, "Komodo dragon")
    playwright.expect(row).to_contain_text("7 of 9 of its patches show it")
    page.close()


def test_a_page_that_is_being_made_shows_what_it_has_and_names_what_comes(browser, made, tmp_path):
    steps = make_atlas(made[0], NET, tmp_path / "page")
    while not (tmp_path / "page/parts/atlas.js").exists():
        next(steps)
    page = browser.new_page()
    page.goto(f"file://{tmp_path}/page/index.html")
    expect = playwright.expect(page.get_by_text("This page is being made, or was stopped: conv2_1, conv3_1:pre to come."))
    expect.to_be_visible()
    see(page.locator("#layers a"), ["conv1_1"])
    playwright.expect(page.locator("#list li")).to_have_count(4)
    list(steps)
    page.reload()
    expect.to_be_hidden()
    see(page.locator("#layers a"), ["conv1_1", "conv2_1", "conv3_1:pre", "all layers"])
    page.close()


def test_the_first_screen_goes_from_edges_to_things(browser, clear, made):
    page = browser.new_page()
    page.goto(address(clear))
    see(page.locator("#strip strong"), ["conv1_1/3", "conv2_1/2"])
    page.locator("#strip a").last.click()
    see(page.get_by_role("heading", level=2), "conv2_1, unit 2")
    playwright.expect(page.locator("#strip")).to_be_hidden()
    page.goto(address(made))
    playwright.expect(page.locator("#list li")).to_have_count(4)
    playwright.expect(page.locator("#strip")).to_be_hidden()
    assert page.locator("#order option").first.get_attribute("value") == "number"
    page.close()


def test_the_page_names_dead_units_and_addresses_that_do_not_exist(page, made):
    page.goto(address(made, "#conv2_1/4"))
    playwright.expect(page.get_by_text("Dead: in none of the 11 pictures is it active")).to_be_visible()
    for wrong in ("#conv2_1/6", "#conv9/0", "#%E0%A4%A", "#conv2_1/1e1"):
        page.goto(address(made, wrong))
        playwright.expect(page.get_by_text("There is no unit")).to_be_visible()


def test_names_that_look_like_markup_are_shown_as_they_are(page, made):
    page.goto(address(made, "#all"))
    page.get_by_role("searchbox").fill("<b>0<")
    playwright.expect(page.get_by_role("status")).to_contain_text(" of 17 units of all layers")
    page.locator("#list a").first.click()
    playwright.expect(page.locator("tbody bdi", has_text="<b>0<")).to_have_count(1)
    assert page.locator("b").count() == 0
