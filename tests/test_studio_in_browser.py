"""The studio's page in a real browser: painted from drop to download, cancelled, reloaded, killed and resumed, compared, masked.

Nothing may be asked of another machine, and nothing may be complained about.
"""

import base64
import re
import shutil
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from impasto.images.images import read_picture, read_record
from impasto.pictures import picture_path
from tests.studios import Running

pytest.importorskip("starlette", reason="the studio is not tried: the extra studio is not installed")
from impasto.studio import serve

playwright = pytest.importorskip("playwright.sync_api", reason="the studio is not tried in a browser: playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "the studio is not tried in a browser: there is no Chromium: make test-browser installs it"
pytestmark = [pytest.mark.browser, pytest.mark.weights, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]
QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
LONG = 120_000  # milliseconds
expect = playwright.expect
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("studio"))
    yield running
    said = running.stop()
    assert "Traceback" not in said, said


class Watched:
    """A browser of its own, and what must not happen in it."""

    def __init__(self, browser: "playwright.Browser", **options) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 860}, **options)
        self.wrong: list[str] = []
        self.allowed = re.compile(r"^(http://127\.0\.0\.1:\d+/|blob:http://127\.0\.0\.1:\d+/)")

    def open(self, address: str) -> "playwright.Page":
        page = self.context.new_page()
        page.on("request", lambda it: None if self.allowed.match(it.url) else self.wrong.append(it.url))
        page.on("console", lambda it: self.wrong.append(it.text) if it.type in ("error", "warning") else None)
        page.on("pageerror", lambda it: self.wrong.append(str(it)))
        page.on("dialog", lambda it: self.wrong.append(it.message))
        page.goto(address)
        return page


@pytest.fixture
def watched(browser) -> Iterator[Watched]:
    found = Watched(browser)
    yield found
    found.context.close()
    assert found.wrong == []


@pytest.fixture
def page(watched, studio) -> "playwright.Page":
    opened = watched.open(studio.address())
    expect(opened.get_by_role("button", name="Paint", exact=True)).to_be_visible()
    return opened


def drop(page, where: str, path: Path) -> None:
    """Drop a file as from the desktop."""
    data = base64.b64encode(path.read_bytes()).decode()
    transfer = page.evaluate_handle(
        """([data, name]) => {
            const bytes = Uint8Array.from(atob(data), (it) => it.charCodeAt(0)), transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
            return transfer;
        }""",
        [data, path.name],
    )
    page.get_by_role("region", name=where, exact=True).dispatch_event("drop", {"dataTransfer": transfer})


def pick(page, where: str, name: str) -> None:
    page.get_by_role("button", name=f"Pick from the studio: {where}").click()
    page.get_by_role("dialog").get_by_role("button", name=name, exact=False).first.click()


def set_up(page, size: int = 64, steps: int | None = None) -> None:
    """A photograph, a painting, and knobs with which AlexNet paints in seconds, or for so long as `steps` say."""
    pick(page, "Photograph", "cat.jpg")
    pick(page, "Style", "mosaic.jpg")
    fill(page, "size", size)
    page.locator("summary", has_text="All settings").click()
    for group in ("Network", "Optimiser and scales"):
        page.locator("summary", has_text=group).click()
    page.locator("#knob-net").select_option("alexnet")
    fill(page, "coarsest", size)
    fill(page, "steps", steps or 5)


def fill(page, knob: str, value: object) -> None:
    page.locator(f"#knob-{knob}").fill(str(value))


def paint(page) -> None:
    page.get_by_role("button", name="Paint", exact=True).click()


def painted_job(page, studio: Running) -> dict:
    """Press Paint, and the job once it has ended."""
    before = len(studio.client.jobs())
    paint(page)
    for _ in range(200):
        if len(studio.client.jobs()) > before:
            return studio.ended(newest(studio)["id"])
        page.wait_for_timeout(100)
    raise AssertionError("nothing was asked for")


def told(page) -> "playwright.Locator":
    return page.locator(".stage .job-status")


def newest(studio: Running, kind: str = "painting") -> dict:
    return studio.client.jobs()[0] if kind is None else next(job for job in studio.client.jobs() if job["kind"] == kind)


def test_the_file_that_a_browser_is_started_with_leads_into_the_studio(watched, studio, monkeypatch):
    opened = []
    monkeypatch.setattr(serve.webbrowser, "open", opened.append)
    serve.serve(studio.folder, None, browse=True)
    watched.allowed = re.compile(f"{watched.allowed.pattern}|{re.escape(opened[0])}")
    page = watched.open(opened[0])
    expect(page.get_by_role("button", name="Paint", exact=True)).to_be_visible()
    assert page.url == f"http://{studio.host}/"
    watched.wrong = [it for it in watched.wrong if "401" not in it]  # a strict cookie does not come with what a file has begun


def test_from_drop_to_download(page, tmp_path):
    """With the default preset and net, and no setting touched but size and quality."""
    drop(page, "Photograph", picture_path("cat"))
    expect(page.get_by_role("region", name="Photograph")).to_contain_text("cat.jpg")
    drop(page, "Style", picture_path("hokusai-great-wave"))
    expect(page.get_by_role("region", name="Style", exact=True)).to_contain_text("hokusai-great-wave.jpg")
    fill(page, "size", 96)
    page.locator("#knob-quality").select_option("draft")
    paint(page)
    expect(told(page)).to_contain_text(re.compile(r"step \d+ of \d+"), timeout=LONG)
    expect(page.locator(".stage img[alt=Painting]")).to_be_visible()
    expect(told(page)).to_contain_text("finished", timeout=LONG)
    with page.expect_download() as downloading:
        page.locator(".stage").get_by_role("link", name="Download").click()
    downloading.value.save_as(tmp_path / "out.png")
    assert max(read_picture(tmp_path / "out.png").image.shape) == 96
    assert read_record(tmp_path / "out.png")["recipe"]["quality"] == "draft"


def test_a_photograph_and_a_style_give_a_picture_at_once_that_follows_the_form(browser, tmp_path):
    """From the first screen to the download: tiles, the picture on the stage, the strength, Paint."""
    running, watched = Running(tmp_path / "studio"), Watched(browser)
    page = watched.open(running.address())
    page.get_by_role("region", name="To begin with").get_by_role("button", name="Cat").click()
    styles = page.get_by_role("region", name="Styles")
    expect(styles.locator("img.inset").first).to_be_visible()  # the photograph in a style
    styles.get_by_role("button", name="Mosaic").click()
    stage = page.locator(".stage img[alt='Instant picture']")
    expect(stage).to_be_visible()
    expect(page.get_by_role("heading", name="Cat in the manner of Mosaic")).to_be_visible()
    before = stage.get_attribute("src")
    fill(page, "beta", 2)
    expect(stage).not_to_have_attribute("src", before)
    styles.get_by_role("button", name="Hokusai").click(modifiers=["Shift"])
    expect(page.get_by_role("heading", name="Mosaic and Hokusai, The Great Wave")).to_be_visible()
    assert running.client.jobs() == []
    fill(page, "size", 64)
    page.locator("#knob-quality").select_option("draft")
    page.keyboard.press("Control+Enter")
    expect(told(page)).to_contain_text("finished", timeout=LONG)
    with page.expect_download() as downloading:
        page.locator(".stage").get_by_role("link", name="Download").click()
    assert downloading.value.suggested_filename.endswith(".png")
    page.get_by_role("button", name="What is Style strength?").click()
    expect(page.get_by_text("Weight of the style cost.")).to_be_visible()
    page.get_by_role("button", name="Finer").click()
    expect(page.locator(".stage .job-status")).to_contain_text("finished", timeout=LONG)
    assert [job["asked"]["knobs"]["quality"] for job in running.client.jobs()] == ["standard", "draft"]
    watched.context.close()
    assert "Traceback" not in running.stop() and watched.wrong == []


def test_what_is_missing_or_wrong_stands_beside_the_button(page):
    paint(page)
    expect(page.get_by_role("alert")).to_contain_text("Choose a photograph first")
    pick(page, "Photograph", "cat.jpg")
    paint(page)
    expect(page.get_by_role("alert")).to_contain_text("Choose a style first")


def test_pause_resume_change_and_cancel(page, studio):
    set_up(page, steps=100_000)
    paint(page)
    stage = page.locator(".stage")
    expect(told(page)).to_contain_text("step", timeout=LONG)
    stage.get_by_text("Change while it runs").click()
    page.get_by_label("Style strength", exact=True).last.fill("44")
    stage.get_by_role("button", name="Apply from here").click()
    expect(stage).to_contain_text(re.compile(r"From step \d+: .* 44"), timeout=LONG)
    stage.locator(".top").get_by_role("button", name="Pause").click()
    expect(told(page)).to_contain_text("paused", timeout=LONG)
    stage.locator(".top").get_by_role("button", name="Resume").click()
    expect(stage.locator(".top").get_by_role("button", name="Pause")).to_be_visible(timeout=LONG)
    stage.locator(".top").get_by_role("button", name="Cancel").click()
    expect(told(page)).to_contain_text("cancelled", timeout=LONG)
    assert list(newest(studio)["changes"].values()) == [{"beta": 44.0}]


def test_a_reload_and_a_second_tab_show_what_runs(page, watched, studio):
    set_up(page, steps=100_000)
    paint(page)
    expect(told(page)).to_contain_text("step", timeout=LONG)
    page.reload()
    expect(told(page)).to_contain_text("step", timeout=LONG)
    expect(page.get_by_role("region", name="Photograph")).to_contain_text("cat.jpg")
    assert page.locator("#knob-size").input_value() == "64"
    other = watched.open(f"http://{studio.host}/")
    expect(told(other)).to_contain_text("step", timeout=LONG)
    other.locator(".stage .top").get_by_role("button", name="Cancel").click()
    for it in (page, other):
        expect(told(it)).to_contain_text("cancelled", timeout=LONG)


def test_more_can_be_queued_while_one_runs(page):
    set_up(page, steps=100_000)
    paint(page)
    expect(told(page)).to_contain_text("step", timeout=LONG)
    fill(page, "steps", 3)
    paint(page)
    queue = page.locator(".jobs .job")
    expect(queue).to_have_count(2)
    expect(queue.last).to_contain_text("waiting")
    queue.first.get_by_role("button", name="Cancel").click()
    expect(page.locator(".jobs .job")).to_have_count(0, timeout=LONG)


def test_a_studio_that_was_killed_is_found_again_and_goes_on(browser, tmp_path):
    studio, watched = Running(tmp_path), Watched(browser)
    page = watched.open(studio.address())
    set_up(page, steps=400)
    paint(page)
    expect(told(page)).to_contain_text("step", timeout=LONG)
    id = newest(studio)["id"]
    studio.until(id, lambda job: any((tmp_path / "jobs" / id).glob("*.checkpoint")))
    studio.stop(signal.SIGKILL)
    expect(page.get_by_text("The studio does not answer; trying again.")).to_be_visible(timeout=LONG)
    again = Running(tmp_path, port=studio.port)
    expect(page.get_by_text("The studio does not answer; trying again.")).to_be_hidden(timeout=LONG)
    expect(told(page)).to_contain_text("interrupted: the studio stopped", timeout=LONG)
    page.locator(".stage .top").get_by_role("button", name="Resume").click()
    expect(told(page)).to_contain_text("finished", timeout=LONG)
    watched.context.close()
    assert "Traceback" not in again.stop()
    assert [it for it in watched.wrong if not re.search("ERR_(CONNECTION|INCOMPLETE|EMPTY|CONTENT_LENGTH)", it)] == []


def test_a_painting_that_is_dropped_restores_everything(page, studio, tmp_path):
    asked = studio.quick(knobs={"beta": 3.5, "steps": 3}, changes={"2": {"beta": 8}})
    painted = studio.client.download(studio.ended(studio.submit(asked))["id"], tmp_path / "painted.png")
    drop(page, "Photograph", painted)
    expect(page.get_by_role("alert")).to_contain_text("its settings are now in the form")
    expect(page.get_by_role("region", name="Photograph")).to_contain_text("cat.jpg")
    expect(page.get_by_role("region", name="Style", exact=True)).to_contain_text("mosaic.jpg")
    expect(page.locator("#knob-beta")).to_have_value("3.5")
    expect(page.get_by_role("region", name="Changes while painting")).to_contain_text("From step 2: Style strength 8")
    job = painted_job(page, studio)
    assert job["result"]["recipe"]["beta"] == 3.5 and job["changes"] == {"2": {"beta": 8}}
    (again,) = (studio.folder / "jobs" / job["id"]).glob("*.png")
    assert again.read_bytes() == painted.read_bytes()


def test_a_mask_is_painted_over_the_photograph(page, studio):
    set_up(page)
    page.get_by_text("Regions and protection").click()
    page.get_by_role("button", name="Paint the mask: Protect").click()
    canvas = page.get_by_role("application")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.2 * box["height"], steps=8)
    page.mouse.up()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Redo").click()
    page.get_by_role("button", name="Save the mask").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    job = painted_job(page, studio)
    mask = read_picture(next((studio.folder / "pictures" / job["asked"]["protect"]).glob("mask.png"))).image.mean(1)[0]
    height, width = mask.shape
    assert mask[round(0.2 * height), width // 2] > 0.9 and mask[round(0.8 * height), width // 2] < 0.1
    assert 0.02 < float(mask.mean()) < 0.5
    assert job["result"]["recipe"]["protect"]


def test_a_mask_is_seen_over_the_photograph_as_it_is_chosen_and_painted_on(page):
    pick(page, "Photograph", "cat.jpg")
    page.locator("summary", has_text="Regions and protection").click()
    page.get_by_role("combobox", name="Protect").select_option("dark")
    expect(page.get_by_role("img", name="The mask over cat.jpg")).to_be_visible()
    page.get_by_role("button", name="Paint the mask: Protect").click()
    veil = """(canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((_, n) => n % 4 == 3).reduce((a, b) => a + b) / (255 * canvas.width * canvas.height);
    }"""
    canvas = page.get_by_role("application")
    for _ in range(50):
        if 0.2 < canvas.evaluate(veil) < 0.8:
            break
        page.wait_for_timeout(100)
    assert 0.2 < canvas.evaluate(veil) < 0.8  # Otsu's threshold parts the cat about in half
    page.get_by_role("button", name="Save the mask").click()
    expect(page.get_by_role("combobox", name="Protect")).to_have_value("painted")


def test_a_style_picture_is_cropped_by_its_corners(page, studio):
    set_up(page)
    name = page.locator("section[aria-label=Style] figcaption").inner_text()
    page.get_by_role("button", name=f"Crop {name}").click()
    dialog = page.get_by_role("dialog")
    picture, corner = dialog.locator(".easel").bounding_box(), dialog.get_by_role("button", name="Top left corner")
    width, height = map(int, re.findall(r"\d+", dialog.locator(".hint").inner_text())[2:])
    corner.hover()
    page.mouse.down()
    page.mouse.move(picture["x"] + 0.25 * picture["width"], picture["y"] + 0.5 * picture["height"], steps=5)
    page.mouse.up()
    dialog.get_by_role("button", name="Bottom right corner").focus()
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("ArrowDown")  # it is at the bottom already
    dialog.get_by_role("button", name="Use this part").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name=f"Crop {name}")).to_have_text("Cropped")
    page.reload()
    left, top, right, bottom = map(int, painted_job(page, studio)["result"]["recipe"]["style_crop"].split(","))
    assert abs(left - width / 4) <= 3 and abs(top - height / 2) <= 3
    assert abs(right - (width - 0.1 * max(width, height))) <= 1 and bottom == height


def test_pictures_are_compared_by_slider_side_by_side_and_hover(page, studio):
    id = studio.ended(studio.submit(studio.quick()))["id"]
    page.goto(f"http://{studio.host}/#gallery/{id}")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Slider").check()
    slider = dialog.get_by_label("Position of the divider")
    slider.focus()
    before = page.locator(".divider").bounding_box()["x"]
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert page.locator(".divider").bounding_box()["x"] > before
    expect(dialog.locator(".layer")).to_have_count(2)
    dialog.get_by_label("Side by side").check()
    expect(dialog.locator(".view")).to_have_count(2)
    dialog.get_by_role("button", name="Zoom in").click()
    looks = [it.get_attribute("style") for it in dialog.locator(".layer img").all()]
    assert "scale(1.25)" in looks[0] and looks[0] == looks[1]
    dialog.get_by_label("Hover or hold").check()
    page.mouse.move(2, 2)
    expect(dialog.locator(".layer")).to_have_count(1)
    dialog.locator(".view").hover()
    expect(dialog.locator(".layer")).to_have_count(2)
    names = dialog.get_by_label("with").locator("option").all_inner_texts()
    assert any("photograph: cat.jpg" in it for it in names) and any("style: mosaic.jpg" in it for it in names)


def test_the_gallery_finds_by_knobs_and_brings_settings_back(page, studio):
    asked = studio.quick(name="needle", knobs={"beta": 77, "seed": 5, "quality": "draft"})
    del asked["knobs"]["steps"]
    id = studio.ended(studio.submit(asked))["id"]
    page.goto(f"http://{studio.host}/#gallery")
    page.get_by_role("searchbox").fill("needle beta 7")
    expect(page.get_by_text("No matches")).to_be_visible()
    page.get_by_role("searchbox").fill("needle beta 77")
    expect(page.locator(".gallery .card")).to_have_count(1)
    expect(page.locator(".gallery .card")).to_contain_text("Style strength 77")
    page.locator(".gallery .card").click()
    page.get_by_role("button", name="Use Style strength in the form").click()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.get_by_role("link", name="Paint", exact=True).click()
    expect(page.locator("#knob-beta")).to_have_value("77")
    expect(page.locator("#knob-seed")).to_have_value("0")
    page.goto(f"http://{studio.host}/#gallery/{id}")
    page.get_by_role("button", name="Use all settings").click()
    expect(page.locator(".stage").get_by_role("heading", name="needle")).to_be_visible()
    expect(page.locator("#knob-seed")).to_have_value("5")
    expect(page.locator("#knob-quality")).to_have_value("draft")
    page.locator("#knob-quality").select_option("fine")
    expect(page.locator("#knob-fine_steps")).to_have_value("120")  # the quality's, as long as nobody says otherwise
    expect(page.get_by_role("region", name="Photograph")).to_contain_text("cat.jpg")


def test_a_form_that_no_painting_can_follow_yet_leaves_the_page_as_it_is(page):
    pick(page, "Photograph", "cat.jpg")
    pick(page, "Style", "mosaic.jpg")
    page.locator("summary", has_text="Regions and protection").click()
    for _ in range(2):
        page.get_by_role("button", name="Add a region").click()
    page.get_by_label("Name").last.fill("region 1")
    expect(page.locator(".stage img").first).to_be_visible()
    paint(page)
    expect(page.get_by_role("alert")).to_contain_text("Two regions are called")
    page.get_by_role("button", name="Remove region 1").first.click()
    page.get_by_role("button", name="Add a region").click()
    expect(page.get_by_role("group", name="region 2")).to_be_visible()  # a name that is free


def test_the_settings_of_a_sheets_painting_come_into_the_form(page, studio):
    id = studio.ended(studio.submit(studio.quick(kind="grid", rows=["beta", "3", "9"], columns=[], knobs={"steps": 2})))["id"]
    page.goto(f"http://{studio.host}/#gallery/{id}")
    page.get_by_role("dialog").get_by_role("row", name="9").get_by_role("button", name="Use").click()
    expect(page.locator("#knob-beta")).to_have_value("9")


def test_results_are_named_starred_and_chosen_in_the_gallery(page, studio, tmp_path):
    for name in ("first of two", "second of two"):
        studio.ended(studio.submit(studio.quick(name=name, knobs={"steps": 1})))
    page.goto(f"http://{studio.host}/#gallery")
    page.get_by_role("searchbox").fill("of two")
    expect(page.locator(".gallery .card")).to_have_count(2)
    page.get_by_role("button", name="Star: first of two").click()
    page.get_by_role("combobox", name="Show").select_option("starred")
    expect(page.locator(".gallery .card")).to_have_count(1)
    page.locator(".gallery .card").click()
    page.get_by_label("Name").fill("the better one of two")
    page.get_by_label("Name").press("Tab")
    expect(page.get_by_role("heading", name="the better one of two")).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.get_by_role("combobox", name="Show").select_option("")
    page.get_by_role("button", name="Select", exact=True).click()
    page.get_by_role("button", name="All", exact=True).click()
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download 2 pictures").click()
    downloading.value.save_as(tmp_path / "both.zip")
    with zipfile.ZipFile(tmp_path / "both.zip") as archive:
        assert sorted(archive.namelist()) == ["second-of-two.png", "the-better-one-of-two.png"]
    page.get_by_role("button", name="Delete 2 pictures").click()
    page.get_by_role("group", name="Delete 2 pictures permanently?").get_by_role("button", name="Delete").click()
    expect(page.locator(".gallery .card")).to_have_count(0)


def test_marks_in_a_style_become_an_edit_of_the_next_painting(page, studio):
    asked = {"kind": "style", "picture": studio.bundled("mosaic"), "net": "alexnet", "size": 128}
    studio.ended(studio.submit(asked))
    page.goto(f"http://{studio.host}/#lens")
    page.get_by_role("link", name=re.compile("mosaic")).click()
    frame = page.frame_locator("iframe")
    expect(frame.locator("#layers")).to_contain_text("conv1", timeout=LONG)
    frame.locator("#layers a", has_text="conv2").first.click()
    frame.locator('a[href^="#conv2/"]').first.click()
    page.get_by_role("button", name="Mark", exact=True).click()
    for wrong, said in (("conv1/64", "conv1 has the units 0 to 63"), ("conv9/1", "alexnet has no layer conv9 here")):
        page.get_by_label("A unit or a pair").clear()
        expect(page.get_by_role("alert")).to_be_hidden()  # drawn anew before more is typed
        page.get_by_label("A unit or a pair").fill(wrong)
        expect(page.get_by_role("alert")).to_contain_text(said)
        expect(page.get_by_role("button", name="Add", exact=True)).to_be_disabled()
    page.get_by_label("A unit or a pair").fill("conv1/3&5")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("button", name="Send to Paint").click()
    edit = page.get_by_role("region", name="Changes to the style")
    expect(edit).to_contain_text("conv2/")
    expect(edit).to_contain_text("conv1/3&5")
    page.get_by_role("button", name="Remove the style mosaic.jpg").click()  # the one that was read
    set_up(page)
    recipe = painted_job(page, studio)["result"]["recipe"]
    assert recipe["style_edit"]["conv1"]["pairs"]["3&5"]["gain"] == 2
    assert recipe["style_edit"]["conv2"]


def test_an_evil_name_is_text(page, studio, tmp_path):
    evil = tmp_path / '<img src=x onerror="document.title=1">.jpg'.replace("/", "")
    evil.write_bytes(picture_path("cat").read_bytes() + b"\0")  # another file than the studio's
    drop(page, "Photograph", evil)
    expect(page.get_by_role("region", name="Photograph")).to_contain_text('<img src=x onerror="document.title=1">.jpg')
    assert page.title() != "1"


@pytest.mark.parametrize("view", ["#paint", "#gallery", "#lens"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_no_one_is_shut_out(browser, studio, view, width, scheme):
    """axe finds nothing serious, a phone scrolls down alone, in light and dark."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    watched = Watched(browser, color_scheme=scheme)
    page = watched.open(studio.address())
    page.set_viewport_size({"width": width, "height": 740})
    page.goto(f"http://{studio.host}/{view}")
    expect(page.get_by_role("main")).to_be_visible()
    page.wait_for_load_state("load")
    found = axe.run(page).response["violations"]
    assert [it["id"] for it in found if it["impact"] in ("serious", "critical")] == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    watched.context.close()
    assert watched.wrong == []


def test_it_can_be_painted_without_a_mouse(page):
    def reach(name: str, role: str = "button") -> None:
        for _ in range(200):
            page.keyboard.press("Tab")
            focused = page.evaluate("() => document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
            if focused.strip() == name:
                return
        raise AssertionError(f"{name} is not reached by Tab")

    for where, picture in (("Photograph", "cat.jpg"), ("Style", "mosaic.jpg")):
        reach(f"Pick from the studio: {where}")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        reach(picture)
        page.keyboard.press("Enter")
        expect(page.get_by_role("region", name=where, exact=True)).to_contain_text(picture)
    reach("Paint")
