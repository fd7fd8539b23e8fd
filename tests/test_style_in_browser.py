"""The page of a style in a browser: from disk, in headless Chromium, with nothing asked of any other machine."""

import re
from pathlib import Path

import pytest

from impasto.lens.style.reading import read_style
from tests.conftest import picture
from tests.test_lens_page import browser, page, playwright, pytestmark, see
from tests.test_style_page import NET, layer, make_style_page

__all__ = ["browser", "page", "pytestmark"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("style")
    return folder, make_style_page(folder)


def address(made: tuple[Path, Path], at: str = "") -> str:
    return f"{(made[1] / 'index.html').as_uri()}{at}"


def first_pair(made: tuple[Path, Path], n: int = 1) -> tuple[int, int]:
    i, j = layer(made[1], n)["lists"]["value"][0]
    return i, j


def number(text: str) -> float:
    return float(re.match(r"[\d,.e-]+", text)[0].replace(",", ""))


def test_it_opens_from_disk_with_all_its_parts(page, made):
    page.goto(address(made))
    see(page.get_by_role("heading", level=1), "The style of </script><b>0</b>.png in tiny")
    assert page.locator("b").count() == 0 and page.locator("#division tbody tr").count() == 2
    see(page.get_by_role("heading", level=2), "conv1_1")
    titles = ["Most prevalent units", "More than in photographs", "Pairs with the largest entries", "Pairs that occur together"]
    see(page.get_by_role("heading", level=3), [*titles, "Pairs that avoid each other", "Style directions"])
    for image in page.locator("main img").all():
        image.scroll_into_view_if_needed()
    page.wait_for_function("[...document.images].every((it) => it.complete && it.naturalWidth)")
    page.get_by_role("link", name="conv2_1", exact=True).click()
    see(page.get_by_role("heading", level=2), "conv2_1")


def test_pointing_at_a_place_adds_up_to_the_entry(page, made):
    i, j = first_pair(made)
    (style,) = read_style(picture(48, 64, 3), NET, ["conv2_1"], {"conv2_1": layer_reference()})
    products = (style.maps[i].double() * style.maps[j].double()).numpy()
    page.goto(address(made, f"#conv2_1/{i}&{j}"))
    see(page.get_by_role("heading", level=2), f"conv2_1: units {i} and {j}")
    canvas = page.locator(".stage canvas")
    canvas.scroll_into_view_if_needed()
    box, (height, width) = canvas.bounding_box(), products.shape
    for y, x in ((0, 0), (5, 7), (height - 1, width - 1)):
        canvas.hover(position={"x": (x + 0.5) * box["width"] / width, "y": (y + 0.5) * box["height"] / height})
        see(page.locator("#value-k"), f"{y * width + x + 1} of {height * width} (row {y + 1}, column {x + 1})")
        for name, value in (("i", style.maps[i, y, x]), ("j", style.maps[j, y, x]), ("product", products[y, x])):
            assert number(page.locator(f"#value-{name}").inner_text()) == pytest.approx(float(value), rel=1e-4, abs=1e-12)
        running = products.ravel()[: y * width + x + 1].sum()
        assert number(page.locator("#value-sum").inner_text()) == pytest.approx(running, rel=1e-4)
    assert page.locator("#value-sum").inner_text().split(" ")[0] == page.locator("#value-total").inner_text()
    assert number(page.locator("#value-total").inner_text()) == pytest.approx(float(products.sum()), rel=1e-4)


def layer_reference():
    import torch

    return torch.ones(6, dtype=torch.float64)


def test_places_are_reached_by_keys_and_added_up_by_a_button(page, made):
    i, j = first_pair(made)
    page.goto(address(made, f"#conv2_1/{i}&{j}"))
    slider = page.get_by_role("slider")
    slider.fill("10")
    playwright.expect(page.locator("#value-k")).to_contain_text("11 of")
    page.locator(".stage canvas").press("ArrowRight")
    playwright.expect(page.locator("#value-k")).to_contain_text("12 of")
    page.locator(".stage canvas").press("ArrowDown")
    playwright.expect(page.locator("#value-k")).to_contain_text("44 of")
    page.get_by_role("button", name="Add up").click()
    playwright.expect(page.get_by_role("button", name="Stop")).to_be_visible()
    playwright.expect(page.locator("#value-k")).not_to_contain_text("44 of")


def test_the_matrix_is_read_and_leads_to_its_pair(page, made):
    page.goto(address(made, "#conv2_1"))
    canvas, about = page.locator(".matrix > canvas"), layer(made[1], 1)
    page.get_by_role("button", name="Correlation").click()
    playwright.expect(page.get_by_role("button", name="Correlation")).to_have_attribute("aria-pressed", "true")
    box, order = canvas.bounding_box(), about["order"]
    listed = [n for n, unit in enumerate(order) if str(unit) in about["units"]]
    row, column = listed[0], listed[-1]
    side = box["width"] / len(order)
    at = {"x": (column + 0.5) * side, "y": (row + 0.5) * side}
    canvas.hover(position=at)
    i, j = sorted((order[row], order[column]))
    told = page.locator(".readout").inner_text()
    assert re.match(rf"Units? {order[row]} ", told) and "correlation about" in told
    (style,) = read_style(picture(48, 64, 3), NET, ["conv2_1"], {"conv2_1": layer_reference()})
    said = float(re.search(r"correlation about (-?[\d.]+)", told)[1].rstrip("."))
    assert said == pytest.approx(float(style.correlation[i, j]), abs=0.01)
    canvas.click(position=at)
    see(page.get_by_role("heading", level=2), f"conv2_1: units {i} and {j}")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(page, made):
    page.set_viewport_size({"width": 390, "height": 844})
    for at in ("", "#conv2_1", "#conv2_1/{}&{}".format(*first_pair(made))):
        page.goto(address(made, at))
        playwright.expect(page.get_by_role("heading", level=2)).to_be_visible()
        page.evaluate("for (const it of document.querySelectorAll('.sum dd')) it.textContent = '1,721,749,729'")
        wider = "[...document.querySelectorAll('body *')].filter((it) => it.clientWidth && it.scrollWidth > it.clientWidth).length"
        assert page.evaluate("document.documentElement.scrollWidth") == 390 and page.evaluate(wider) == 0


def test_the_page_names_addresses_that_do_not_exist(page, made):
    for wrong in ("#conv9", "#conv2_1/999", "#conv2_1/1&", "#%E0%A4%A"):
        page.goto(address(made, wrong))
        playwright.expect(page.get_by_text("The page does not have")).to_be_visible()
