"""A studio's jobs, from asking to the file, with a small real net; and what must not be lost when something dies."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

pytest.importorskip("starlette", reason="the studio is not tried: the extra studio is not installed")

from impasto.errors import BadImage, BadInput, BadRecipe, CannotWrite, ImpastoError, ImpastoWarning
from impasto.images.images import read_picture, read_record
from impasto.objective.masks import read_mask
from impasto.pictures import picture_path
from impasto.recipe import recipe
from impasto.recipe.recipe import CHANGEABLE, Recipe, make_recipe
from impasto.studio import serve
from impasto.studio.app import Studio, make_app
from impasto.studio.client import Client, Refused
from impasto.studio.events import Events
from impasto.studio.form import ELSEWHERE, GROUPS, form
from impasto.studio.job_request import check_change, knobs_of, pictures_needed, pictures_of, read_request
from impasto.studio.jobs import reached, slug, why_it_died
from impasto.studio.openapi import openapi
from impasto.studio.store import Store
from impasto.transfer.painting import Painting
from tests.studios import Running, forking

pytestmark = pytest.mark.slow

weights = pytest.mark.weights


# The studio's worker, which scans two layers where it asks for all: those of a whole atlas take minutes.
WORKER = """
from impasto.lens import index
make_setup = index.make_setup
index.make_setup = lambda net, layers=("conv1",), *rest, **options: make_setup(net, layers, *rest, **options)
from impasto.studio.worker import main
main()
"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("IMPASTO_STYLES", str(tmp_path_factory.mktemp("styles")))
        with forking(WORKER) as run:
            running = Running(tmp_path_factory.mktemp("studio"), python=("-c", run))
            yield running
            said = running.stop()
    assert "Traceback" not in said, said


def file_of(studio: Running, id: str) -> Path:
    (path,) = (studio.folder / "jobs" / id).glob("*.png")
    return path


@pytest.fixture(scope="module")
def finished(studio) -> tuple[dict, dict]:
    """What was asked for, and the job when it has ended."""
    asked = studio.quick(knobs={"beta": 7})
    return asked, studio.ended(studio.submit(asked))


# Painting


@weights
def test_a_painting_is_the_one_that_the_library_paints(studio, finished, tmp_path):
    asked, job = finished
    assert job["state"] == "finished" and job["error"] is None and job["picture"]
    assert job["result"]["recipe"]["beta"] == 7 and job["name"] == "cat in mosaic"
    recipe = make_recipe(**asked["knobs"])
    assert Recipe(**job["result"]["recipe"]) == recipe
    inputs = [picture_path(name) for name in ("cat", "mosaic")]
    painting = Painting(inputs[0], inputs[1:], tmp_path / "own.png", recipe)
    for _ in painting.steps():
        pass
    theirs = studio.client.download(job["id"], tmp_path / "theirs.png")
    assert read_picture(theirs).image.allclose(read_picture(tmp_path / "own.png").image, atol=0.02)
    curve = studio.ask("GET", f"/api/jobs/{job['id']}/curve").json()["curve"]
    assert [row[0] for row in curve] == [1, 2, 3, 4, 5] and curve[-1][1] < curve[0][1]
    assert job["result"]["costs"]["total"] == pytest.approx(curve[-1][1], rel=0.1)
    for what, size in (("small", 64), ("preview", 64)):
        shown = studio.ask("GET", f"/api/jobs/{job['id']}/{what}")
        assert shown.status == 200 and shown.headers["content-type"] == "image/webp" and len(shown.body) > size


@weights
def test_a_job_is_renamed_starred_and_zipped_with_others(studio, finished, tmp_path):
    id, name = finished[1]["id"], finished[1]["name"]
    label = f"/api/jobs/{id}/label"
    assert not studio.job(id)["starred"]
    assert studio.ask("POST", label, {"name": "Großes Blau", "starred": True}).json()["name"] == "Großes Blau"
    assert studio.job(id)["starred"] and [it["id"] for it in studio.client.jobs("großes")] == [id]
    for wrong in ({"name": ""}, {"name": "a\nb"}, {"name": 3}, {"starred": "yes"}, {"state": "queued"}, []):
        assert studio.ask("POST", label, wrong).status == 400
    other = studio.ended(studio.submit(studio.quick(name="Großes Blau", knobs={"steps": 1})))["id"]
    answer = studio.ask("GET", f"/api/zip?id={id}&id={other}&id={id}")
    assert answer.status == 200 and "impasto.zip" in answer.headers["content-disposition"]
    (tmp_path / "all.zip").write_bytes(answer.body)
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.namelist() == ["gro-es-blau.png", "gro-es-blau-2.png"] and archive.testzip() is None
        assert archive.read("gro-es-blau.png") == studio.ask("GET", f"/api/jobs/{id}/image").body
    assert studio.ask("GET", "/api/zip").status == 400 and studio.ask("GET", f"/api/zip?id={'0' * 16}").status == 404
    assert not list(studio.folder.glob(".upload-*")) and studio.ask("POST", label, {"name": name}).status == 200


@weights
def test_a_result_comes_as_png_or_jpeg_with_its_recipe_or_without(studio, finished, tmp_path):
    id = finished[1]["id"]
    plain = read_picture(studio.client.download(id, tmp_path / "plain.png")).image
    for format, kind in (("png", "PNG"), ("jpg", "JPEG")):
        for keep in (0, 1):
            answer = studio.ask("GET", f"/api/jobs/{id}/as/{format}?recipe={keep}")
            assert answer.status == 200 and f".{format}" in answer.headers["content-disposition"]
            path = tmp_path / f"{keep}.{format}"
            path.write_bytes(answer.body)
            assert Image.open(path).format == kind and (read_picture(path).image - plain).abs().mean() < 0.02
            if keep:
                assert read_record(path)["recipe"]["beta"] == 7
            else:
                with pytest.raises(BadImage):
                    read_record(path)
    assert studio.ask("GET", f"/api/jobs/{id}/as/exe").status == 404 and not list(studio.folder.glob(".upload-*"))


@weights
def test_a_painting_that_was_changed_on_the_way_is_painted_again_to_the_same_bytes(studio):
    id = studio.submit(studio.quick(knobs={"steps": 60}))
    studio.painting(id)
    studio.ask("POST", f"/api/jobs/{id}/change", {"knobs": {"beta": 90}})
    first = studio.ended(id)
    assert list(first["changes"].values()) == [{"beta": 90}] and first["result"]["recipe"]["changes"] == first["changes"]
    again = studio.ended(studio.submit({**first["asked"], "changes": first["changes"]}))
    assert again["changes"] == first["changes"] and file_of(studio, id).read_bytes() == file_of(studio, again["id"]).read_bytes()
    picture = studio.client.upload(file_of(studio, id))
    assert picture["record"]["recipe"]["changes"] == first["changes"] and picture["record"]["missing"] == []


@weights
def test_a_job_whose_last_worker_is_still_there_waits_for_it(studio):
    """That of a studio that was killed may be at its last step, and writes into the same folder."""
    id = studio.submit(studio.slow())
    studio.painting(id)
    studio.ask("POST", f"/api/jobs/{id}/pause")
    i = studio.ended(id)["step"]["i"]
    with FileLock(studio.folder / "jobs" / id / "worker.lock"):
        studio.ask("POST", f"/api/jobs/{id}/resume")
        studio.until(id, lambda job: job["state"] == "running")
        time.sleep(3)  # longer than a worker takes to its first step
        assert studio.job(id)["step"]["i"] == i
    studio.until(id, lambda job: job["step"]["i"] > i)
    studio.ask("POST", f"/api/jobs/{id}/cancel")
    studio.ended(id)


def test_the_same_file_twice_is_one_picture(studio, tmp_path):
    Image.new("RGB", (21, 20)).save(tmp_path / "same.png")
    first = studio.client.upload(tmp_path / "same.png")
    assert studio.client.upload(tmp_path / "same.png") == first
    mask = studio.client.upload(tmp_path / "same.png", mask=True)
    assert mask["id"] != first["id"] and mask["mask"]


@weights
def test_a_painted_mask_is_known_again_in_a_painting_that_is_dropped(studio, tmp_path):
    mask = Image.new("L", (32, 24))
    mask.paste(255, (4, 4, 20, 20))
    mask.save(tmp_path / "face.png")
    id = studio.client.upload(tmp_path / "face.png", mask=True)["id"]
    region = {"mask": id, "style_weight": 2.0}
    assert id not in [it["id"] for it in studio.client.pictures()]
    job = studio.ended(
        studio.submit(studio.quick(protect=id, regions={"sky": region}, content=upload_of(studio, tmp_path, (32, 24))))
    )
    assert job["state"] == "finished" and job["result"]["recipe"]["regions"]["sky"]["style_weight"] == 2, job["error"]
    record = studio.client.upload(file_of(studio, job["id"]))["record"]
    assert record["masks"] == {"sky": id, "protected": id} and record["missing"] == [], job["error"]


def test_the_same_file_six_times_at_once_is_one_picture(studio, tmp_path):
    Image.new("RGB", (600, 620), (1, 2, 3)).save(tmp_path / "once.png")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(studio.client.upload, [tmp_path / "once.png"] * 6))
    assert len({it["id"] for it in found}) == 1
    assert len([it for it in studio.client.pictures() if it["name"] == "once.png"]) == 1


@pytest.mark.parametrize("color", [255, 0])
def test_what_is_transparent_in_a_mask_is_black_as_for_the_command_line(studio, tmp_path, color):
    mask = Image.new("LA", (40, 30), (color, 0))
    mask.paste((color, 255), (10, 5, 20, 25))
    mask.save(tmp_path / "mask.png")
    id = studio.client.upload(tmp_path / "mask.png", mask=True)["id"]
    kept = studio.ask("GET", f"/api/pictures/{id}/image").body
    (tmp_path / "kept.png").write_bytes(kept)
    expected = read_mask(tmp_path / "mask.png", (30, 40))[0]
    assert read_mask(tmp_path / "kept.png", (30, 40))[0].sub(expected).abs().max() < 1 / 255
    assert expected.max() == color / 255 and expected.min() == 0


@pytest.mark.parametrize("type", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
def test_a_form_is_answered_with_what_to_send(studio, type):
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n...\r\n--x--\r\n'
    answer = studio.ask("POST", "/api/pictures?name=a.png", body, **{"Content-Type": type})
    assert answer.status == 415 and "send the bytes of the picture as the body" in answer.json()["error"]


def test_what_curl_sends_with_data_binary_is_a_picture(studio, tmp_path):
    Image.new("RGB", (33, 35)).save(tmp_path / "a.png")
    sent = {"Content-Type": "application/x-www-form-urlencoded"}
    assert studio.ask("POST", "/api/pictures", (tmp_path / "a.png").read_bytes(), **sent).status == 201


def test_the_client_gets_no_advice_about_forms(studio, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(Refused, match="is no picture in a supported format") as refused:
        studio.client.upload(tmp_path / "a.png")
    assert "not a form" not in str(refused.value)


def upload_of(studio: Running, folder: Path, size: tuple[int, int]) -> str:
    Image.linear_gradient("L").convert("RGB").resize(size).save(folder / "own.png")
    return str(studio.client.upload(folder / "own.png")["id"])


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("beta 4", {"a"}),
        ("beta 40", {"b"}),
        ("beta=40.0", {"b"}),
        ("hok", {"a", "b"}),
        ("kusai", set()),
        ("HOKUSAI net vgg", {"b"}),
        ("4", {"a"}),
    ],
)
def test_words_are_found_from_their_beginning_and_numbers_whole(tmp_path, search, found):
    store = Store(tmp_path)
    for id, knobs in (("a", {"beta": 4.0}), ("b", {"beta": 40, "net": "vgg16"})):
        folder = store.path("jobs", id * 16)
        folder.mkdir()
        store.save("jobs", about(id * 16, name="cat in wave-hokusai", asked={"knobs": knobs}))
    assert {it["id"][0] for it in store.all("jobs", search)} == found
    store.close()


@weights
def test_more_is_queued_while_one_runs_and_done_in_turn(studio):
    first, second, third = studio.submit(studio.slow()), studio.submit(studio.quick()), studio.submit(studio.quick())
    studio.painting(first)
    assert [studio.job(id)["state"] for id in (second, third)] == ["queued", "queued"]
    assert studio.ask("POST", f"/api/jobs/{third}/pause").json()["state"] == "paused"
    assert studio.ask("POST", f"/api/jobs/{first}/cancel").status == 200
    assert studio.ended(first)["state"] == "cancelled" and studio.ended(second)["state"] == "finished"
    assert studio.job(third)["state"] == "paused"
    assert studio.ask("POST", f"/api/jobs/{third}/resume").status == 200
    assert studio.ended(third)["state"] == "finished"
    assert studio.ask("POST", f"/api/jobs/{third}/resume").status == 409
    assert studio.ask("POST", f"/api/jobs/{third}/cancel").status == 409


@weights
def test_pausing_costs_nothing(studio):
    knobs = {"steps": 60}
    whole = studio.submit(studio.quick(knobs=knobs))
    parted = studio.submit(studio.quick(knobs=knobs))
    studio.ended(whole)
    studio.painting(parted)
    assert studio.ask("POST", f"/api/jobs/{parted}/pause").status == 200
    paused = studio.ended(parted)
    if paused["state"] == "paused":  # it may have been at its last step
        assert paused["picture"] and studio.ask("GET", f"/api/jobs/{parted}/image").status == 200
        studio.ask("POST", f"/api/jobs/{parted}/resume")
    assert studio.ended(parted)["state"] == "finished"
    assert file_of(studio, whole).read_bytes() == file_of(studio, parted).read_bytes()


@weights
def test_weights_changed_on_the_way_are_recorded_with_their_step(studio):
    id = studio.submit(studio.slow())
    studio.painting(id)
    assert studio.ask("POST", f"/api/jobs/{id}/change", {"knobs": {"beta": 99}}).status == 200
    job = studio.until(id, lambda job: bool(job["changes"]))
    ((i, knobs),) = job["changes"].items()
    assert int(i) >= 1 and knobs == {"beta": 99}
    reached = int(i) + 1
    studio.until(id, lambda job: job["step"]["i"] > reached)
    studio.ask("POST", f"/api/jobs/{id}/pause")
    studio.ended(id)
    later = studio.ask("POST", f"/api/jobs/{id}/change", {"knobs": {"tv": 1}}).json()
    assert list(later["changes"].values())[-1] == {"tv": 1}
    studio.ask("POST", f"/api/jobs/{id}/resume")
    studio.until(id, lambda job: job["state"] == "running")
    studio.until(id, lambda job: job["step"]["i"] > int(max(later["changes"], key=int)))
    studio.ask("POST", f"/api/jobs/{id}/cancel")
    assert studio.ended(id)["state"] == "cancelled"
    assert read_record(file_of(studio, id))["recipe"]["changes"] == later["changes"]
    for wrong in ({"size": 99}, {"beta": -1}, {}, "beta", {"no_such": 1}):
        assert studio.ask("POST", f"/api/jobs/{id}/change", {"knobs": wrong}).status == 400


@weights
def test_a_painting_dropped_again_brings_its_settings_and_its_pictures(studio, finished, tmp_path):
    asked, job = finished
    picture = studio.client.upload(studio.client.download(job["id"], tmp_path / "again.png"))
    record = picture["record"]
    assert record["recipe"]["beta"] == 7 and record["missing"] == []
    assert record["content"] == asked["content"] and record["styles"] == asked["styles"]
    painted = tmp_path / "elsewhere.png"
    own = tmp_path / "own.png"
    Image.linear_gradient("L").convert("RGB").save(own)
    for _ in Painting(own, [picture_path("mosaic")], painted, make_recipe(**asked["knobs"])).steps():
        pass
    assert studio.client.upload(painted)["record"]["missing"] == ["the photograph"]


@weights
def test_a_grid_is_a_sheet_and_its_cells_with_regions_and_what_is_protected(studio, tmp_path):
    Image.linear_gradient("L").resize((451, 300)).save(tmp_path / "mask.png")
    mask = studio.client.upload(tmp_path / "mask.png", mask=True)["id"]
    asked = studio.quick(protect="dark", regions={"sky": {"mask": mask, "style": 1, "style_weight": 2.0}})
    job = studio.ended(studio.submit({**asked, "kind": "grid", "rows": ["beta", "1", "50"], "columns": []}))
    assert job["state"] == "finished" and job["result"]["rows"] == ["beta = 1", "beta = 50"], job["error"]
    recipes = [cell["recipe"] for cell in job["result"]["cells"]]
    assert [(it["beta"], it["protect"], it["regions"]["sky"]["style_weight"]) for it in recipes] == [
        (1, "dark", 2),
        (50, "dark", 2),
    ]
    assert job["name"] == "cat in mosaic, beta" and job["step"]["cells"] == [1, 2]
    assert studio.ask("GET", f"/api/jobs/{job['id']}/image").headers["content-type"] == "image/png"
    styles = [studio.bundled(name) for name in ("mosaic", "renoir-moulin")]
    job = studio.ended(studio.submit({**studio.quick(styles=[]), "kind": "grid", "columns": ["styles", *styles]}))
    assert job["state"] == "finished" and job["result"]["columns"] == ["mosaic", "renoir-moulin"]


@weights
def test_a_style_is_read_and_an_atlas_made_into_pages(studio):
    style = studio.submit({"kind": "style", "picture": studio.bundled("mosaic"), "net": "alexnet", "size": 128})
    atlas = studio.submit({"kind": "atlas", "net": "alexnet", "pictures": [studio.bundled("mosaic")]})
    for job in (studio.ended(style), studio.ended(atlas, 400)):
        assert job["state"] == "finished", job["error"]
    found = studio.ask("GET", "/api/lens").json()
    assert [it["id"] for it in found["styles"]] == [style] and [it["id"] for it in found["atlases"]] == [atlas]
    for it in (*found["styles"], *found["atlases"]):
        page = studio.ask("GET", it["url"])
        assert page.status == 200 and "frame-ancestors 'self'" in page.headers["content-security-policy"]
        assert studio.ask("GET", it["url"].replace("index.html", "parts/page.css")).status == 200
        assert studio.ask("GET", it["url"].replace("index.html", "../about.json")).status == 404
    assert found["styles"][0]["units"]["conv1"] == 64
    assert found["atlases"][0]["units"] == {"conv1": 64}


@weights
def test_a_style_is_learned_and_painted_in_at_once(studio):
    cat, mosaic = studio.bundled("cat"), studio.bundled("mosaic")
    learned = studio.ended(studio.submit({"kind": "learn", "picture": mosaic, "photographs": [cat], "steps": 2}))
    assert learned["state"] == "finished" and learned["step"]["i"] == 2 and learned["step"]["total"] > 0, learned["error"]
    asked = {"content": cat, "styles": [mosaic], "knobs": {"quality": "instant", "size": 64}}
    kinds = "painting", "instant", "instant", "painting", "instant"
    painted = [studio.ended(studio.submit({"kind": kind, **asked})) for kind in kinds]
    assert [(it["state"], it["result"]["costs"]) for it in painted] == [("finished", {})] * 5
    files = [file_of(studio, it["id"]) for it in painted]
    assert Image.open(file_of(studio, learned["id"])).size == (451, 300) and Image.open(files[0]).size == (64, 43)
    assert len({Image.open(file).tobytes() for file in files}) == 1
    status = studio.ask("POST", "/api/jobs", {"kind": "instant", **asked, "knobs": {"quality": "draft"}}).status
    assert status == 400


@weights
def test_an_instant_picture_that_fails_says_why_and_the_next_is_painted(studio):
    cat, mosaic = studio.bundled("cat"), studio.bundled("mosaic")
    asked = {"kind": "instant", "content": cat, "styles": [mosaic], "knobs": {"size": 64}}
    first = studio.ended(studio.submit(asked))
    (studio.folder / "pictures" / mosaic / "mosaic.jpg").rename(studio.folder / "mosaic.jpg")
    failed = studio.ended(studio.submit(asked))
    (studio.folder / "mosaic.jpg").rename(studio.folder / "pictures" / mosaic / "mosaic.jpg")
    last = studio.ended(studio.submit(asked))
    assert [it["state"] for it in (first, failed, last)] == ["finished", "failed", "finished"] and failed["error"]


@weights
def test_a_job_that_fails_says_why_and_the_next_is_done(studio):
    flat = studio.folder / "flat.png"
    Image.new("RGB", (300, 3)).save(flat)
    thin = studio.client.upload(flat)["id"]
    bad, good = studio.submit(studio.quick(content=thin)), studio.submit(studio.quick())
    failed = studio.ended(bad)
    assert failed["state"] == "failed" and "need sides of 31 pixels" in failed["error"]
    assert studio.ended(good)["state"] == "finished"
    unknown = studio.ended(studio.submit(studio.quick(knobs={"content_layers": "conv9_9"})))
    assert unknown["state"] == "failed" and "conv9_9" in unknown["error"]


# What dies


@weights
def test_a_worker_that_dies_fails_its_job_alone(tmp_path):
    studio = Running(tmp_path)
    id = studio.submit(studio.slow())
    reached = 0
    for how, why in ((signal.SIGKILL, "killed"), (signal.SIGSEGV, "crashed (SIGSEGV)")):
        reached = studio.until(id, lambda job, before=reached: bool(job["step"] and job["step"]["i"] > before))["step"]["i"]
        (worker,) = studio.workers()
        os.kill(worker, how)
        job = studio.ended(id)
        assert job["state"] == "failed" and why in job["error"]
        assert studio.ask("POST", f"/api/jobs/{id}/resume").status == 200
        studio.until(id, lambda job: job["state"] == "running")
    studio.ask("POST", f"/api/jobs/{id}/cancel")
    assert studio.ended(id)["state"] == "cancelled"
    assert "Traceback" not in studio.stop()


@weights
def test_a_studio_killed_in_the_middle_loses_nothing_and_offers_to_resume(tmp_path):
    studio = Running(tmp_path)
    knobs = {"steps": 60}
    whole = studio.ended(studio.submit(studio.quick(knobs=knobs)))
    id = studio.submit(studio.quick(knobs=knobs))
    waiting = studio.submit(studio.quick())
    studio.painting(id)
    (worker,) = studio.workers()
    studio.stop(signal.SIGKILL)
    for _ in range(300):  # its worker notices, leaves a checkpoint, and goes
        if not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split(")")[1][:3]:
            break
        signal.sigtimedwait([], 0.1)
    else:
        raise AssertionError("the worker outlived its studio")
    again = Running(tmp_path)
    assert again.job(whole["id"])["state"] == "finished"
    assert again.ended(waiting)["state"] == "finished"
    assert again.job(id)["state"] == "unfinished" and any((tmp_path / "jobs" / id).glob("*.checkpoint"))
    again.ask("POST", f"/api/jobs/{id}/resume")
    assert again.ended(id)["state"] == "finished"
    assert file_of(again, id).read_bytes() == file_of(again, whole["id"]).read_bytes()
    again.stop()


@weights
def test_a_studio_that_is_stopped_leaves_a_checkpoint(tmp_path):
    studio = Running(tmp_path)
    id = studio.submit(studio.slow())
    studio.painting(id)
    assert "Traceback" not in studio.stop(signal.SIGINT)
    assert not (tmp_path / "studio.json").exists()
    again = Running(tmp_path)
    job = again.job(id)
    assert job["state"] == "unfinished" and job["picture"] and job["step"]["i"] >= 1
    reached = job["step"]["i"]
    again.ask("POST", f"/api/jobs/{id}/resume")
    assert again.until(id, lambda job: job["state"] == "running" and job["step"]["i"] > reached)
    again.stop()


@weights
def test_a_full_disk_gives_an_error_and_costs_no_finished_picture(tmp_path):
    """Files of the studio and its children can be 2 MB long and no longer: small pictures fit, large ones do not."""

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    studio = Running(tmp_path, preexec_fn=small_files)
    big = tmp_path / "big.png"
    Image.effect_noise((2000, 2000), 99).save(big)
    answer = studio.ask("POST", "/api/pictures?name=big.png", big.read_bytes())
    assert answer.status == 507 and "room" in answer.json()["error"]
    job = studio.ended(studio.submit(studio.quick()))
    assert job["state"] == "finished"
    large = studio.ended(studio.submit(studio.quick(knobs={"size": 1100, "coarsest": 1100, "steps": 1, "init": "noise"})))
    assert large["state"] == "failed" and "room" in large["error"]
    assert studio.ask("GET", f"/api/jobs/{job['id']}/download").status == 200
    studio.stop()


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot make the folder"):
        Store(tmp_path / "file" / "studio")


def test_two_studios_do_not_share_a_folder(tmp_path):
    first = Store(tmp_path)
    with pytest.raises(CannotWrite, match="another studio uses the folder"):
        Store(tmp_path)
    first.close()
    Store(tmp_path).close()


def test_a_second_studio_of_a_folder_opens_the_first(studio, tmp_path, monkeypatch):
    """With an address that is good, and a browser that is told of it by a file that only its owner can read."""
    opened = []
    monkeypatch.setattr(serve.webbrowser, "open", opened.append)
    serve.serve(studio.folder, None, browse=True)
    (page,) = (Path(urllib.parse.unquote(urllib.parse.urlsplit(it).path)) for it in opened)
    assert page.parent == studio.folder and page.stat().st_mode & 0o777 == 0o600
    address = re.search(r"http://\S+token=[\w-]+", page.read_text())[0]
    command = [sys.executable, "-m", "impasto", "studio", "--no-browser", "--folder", str(studio.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, address, "")
    assert studio.raw("GET", address.split(studio.host)[1]).status == 303
    assert not page.exists() and studio.raw("GET", address.split(studio.host)[1]).status == 401


@pytest.mark.parametrize("door", [None, "[]", '{"address": "http://127.0.0.1:9", "key": "x", "open": "http://evil.example"}'])
def test_a_second_studio_does_not_open_what_does_not_answer(tmp_path, monkeypatch, door):
    monkeypatch.setattr(serve.webbrowser, "open", lambda _: pytest.fail("opened"))
    store = Store(tmp_path)
    if door:
        (tmp_path / "studio.json").write_text(door)
    with pytest.raises(CannotWrite, match="another studio uses the folder"):
        serve.serve(tmp_path, None, browse=True)
    store.close()


def test_the_browsers_command_line_has_no_token(tmp_path):
    """A browser that writes down how it was called."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    browser.chmod(0o755)
    run = "import sys; sys.argv.remove('--no-browser'); from impasto.cli.app import main; sys.exit(main())"
    running = Running(tmp_path / "studio", python=("-c", run), env={"BROWSER": f"{browser} %s"})
    for _ in range(100):
        if (tmp_path / "called").exists() and (called := (tmp_path / "called").read_text()):
            break
        time.sleep(0.1)
    token = running.lines[0].split("token=")[1]
    assert token not in called and token in Path(called.strip().removeprefix("file://")).read_text()
    running.stop()
    assert not list((tmp_path / "studio").glob("*.html"))


def test_a_port_that_is_taken_gives_a_one_line_error(studio, tmp_path):
    command = [sys.executable, "-m", "impasto", "studio", "--port", str(studio.port), "--no-browser", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1 and "cannot listen on port" in done.stderr


# The store


def about(id: str, **more: object) -> dict:
    told = {"id": id, "created": 1, "queued": 1, "name": "cat", "kind": "painting", "state": "finished", "file": "cat.png"}
    told |= {"preview": 0, "step": None, "result": None, "error": None}
    return {**told, "asked": {}, "changes": {}, "warnings": [], **more}


def stored(store: Store, **more: object) -> str:
    id, _ = store.new("jobs")
    store.save("jobs", about(id, **more))
    return id


def test_the_newest_comes_first_and_all_words_must_be_there(tmp_path):
    store = Store(tmp_path)
    ids = [stored(store, created=n, asked={"knobs": {"style_scale": 0.5 * n}}) for n in (1, 2, 3)]
    assert [it["id"] for it in store.all("jobs")] == ids[::-1]
    assert [it["id"] for it in store.all("jobs", "CAT style-scale 1.5")] == [ids[2]]
    assert store.all("jobs", "cat dog") == [] == store.all("jobs", "%") == store.all("jobs", "' OR 1=1 --")
    store.close()


def test_the_index_of_an_older_release_is_removed(tmp_path):
    store = Store(tmp_path)
    ids = {stored(store, created=n) for n in range(50)}
    store.close()
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"studio.db{end}").write_bytes(b"x" * 5000)
    store = Store(tmp_path)
    assert {it["id"] for it in store.all("jobs")} == ids and not list(tmp_path.glob("studio.db*"))
    store.close()


def test_what_is_read_is_a_copy(tmp_path):
    store = Store(tmp_path)
    id = stored(store, asked={"knobs": {"beta": 4}})
    for about in (store.get("jobs", id), *store.all("jobs")):
        about["asked"]["knobs"]["beta"] = 5
    assert store.get("jobs", id)["asked"] == {"knobs": {"beta": 4}}
    store.close()


def test_what_is_removed_is_gone_even_where_its_folder_is_not(tmp_path):
    store = Store(tmp_path)
    by_hand, left = stored(store), stored(store)
    shutil.rmtree(tmp_path / "jobs" / by_hand)
    store.remove("jobs", by_hand)
    (tmp_path / "jobs" / left / "kept").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "rmdir", lambda *_, **__: (_ for _ in ()).throw(OSError(39, "Directory not empty")))
        store.remove("jobs", left)
    assert store.all("jobs") == [] and (tmp_path / "jobs" / left).exists()
    store.close()
    Store(tmp_path).close()
    assert not (tmp_path / "jobs" / left).exists()


def test_an_upload_that_a_kill_cut_off_goes(tmp_path):
    (tmp_path / ".upload-x").mkdir()
    (tmp_path / ".upload-x" / "came").write_bytes(b"x")
    Store(tmp_path).close()
    assert not (tmp_path / ".upload-x").exists()


def test_the_secret_is_never_anyone_elses_to_read(tmp_path):
    """Not even as it is written, or where a kill left it empty."""
    seen = []
    store = Store(tmp_path)
    (tmp_path / "studio.key").touch(0o600)
    with pytest.MonkeyPatch.context() as patched:
        replace = os.replace
        patched.setattr(os, "replace", lambda a, b: (seen.append(os.stat(a).st_mode & 0o77), replace(a, b)))
        assert len(store.secret()) == 32 and store.secret() == store.secret()
        (tmp_path / "studio.key").unlink()
        assert len(store.secret()) == 32
    assert seen == [0, 0]
    store.close()


def test_the_files_are_the_truth(tmp_path):
    store = Store(tmp_path)
    kept, gone, other = (stored(store) for _ in range(3))
    store.close()
    shutil.rmtree(tmp_path / "jobs" / gone)
    (tmp_path / "jobs" / other / "about.json").write_text(json.dumps(about(other, name="dog")))
    (tmp_path / "jobs" / ("f" * 16)).mkdir()  # begun and never told of
    (tmp_path / "jobs" / "notes").mkdir()
    store = Store(tmp_path)
    assert {it["id"]: it["name"] for it in store.all("jobs")} == {kept: "cat", other: "dog"}
    assert not (tmp_path / "jobs" / ("f" * 16)).exists() and (tmp_path / "jobs" / "notes").exists()
    store.close()


@pytest.mark.parametrize(
    "damaged",
    [None, {"name": "\ud800"}, {"created": 2**63}, {"file": "../../../key"}, {"file": ".."}, {"state": None}, {"preview": None}],
)
def test_a_file_that_cannot_be_read_is_named_and_left(tmp_path, damaged):
    store = Store(tmp_path)
    bad, good = stored(store), stored(store)
    store.close()
    (tmp_path / "jobs" / bad / "about.json").write_bytes(
        b"\xff\0" if damaged is None else json.dumps(about(bad, **damaged)).encode()
    )
    with pytest.warns(ImpastoWarning, match="cannot be read and is left"):
        store = Store(tmp_path)
    assert [it["id"] for it in store.all("jobs")] == [good] and (tmp_path / "jobs" / bad).exists()
    store.close()


# What is asked


def test_every_field_of_the_recipe_has_one_place_in_the_form():
    shown = [name for names in GROUPS.values() for name in names]
    assert sorted([*shown, *ELSEWHERE]) == sorted(Recipe.model_fields)
    assert set(CHANGEABLE) <= set(shown)


def test_the_openapi_document_has_every_address_that_the_docs_have_and_all_that_it_refers_to(tmp_path):
    studio = Studio(Store(tmp_path), {})
    document = openapi(studio.routes())
    text, docs = json.dumps(document), (Path(__file__).parent.parent / "docs" / "studio.md").read_text()
    for name in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert name in document["components"]["schemas"]
    assert all(operation["summary"] for its in document["paths"].values() for operation in its.values())
    addresses = {(method.upper(), path) for path, its in document["paths"].items() for method in its}
    for method, path in re.findall(r"^\| `(GET|POST|DELETE) (/api/[^`? ]*)", docs, re.MULTILINE):
        as_route = re.sub(r"(?<=/)ID", "{id}", path)
        matching = [it for it in addresses if it[0] == method and re.fullmatch(re.sub(r"{\w+}", r"[^/]+", it[1]), as_route)]
        assert matching, (method, path)
    job = document["paths"]["/api/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert job == {"$ref": "#/components/schemas/JobRequest"} and "PaintingRequest" in document["components"]["schemas"]
    studio.store.close()


def test_the_form_has_the_recipes_bounds():
    fields = {field["name"]: field for field in form()["fields"]}
    assert (fields["size"]["kind"], fields["size"]["minimum"], fields["size"]["maximum"]) == ("int", 16, 16384)
    assert fields["lr"]["above"] == 0 and fields["quality"]["choices"] == ["instant", "draft", "standard", "fine"]
    assert fields["style_layers"]["kind"] == "weights" and fields["normalize_net"]["kind"] == "bool"
    for name, field in fields.items():
        low, high = field["minimum"], field["maximum"]
        for value in (None if low is None else low - 1, None if high is None else high + 1):
            if value is not None and field["kind"] in ("int", "float"):
                with pytest.raises(BadRecipe, match=name):
                    make_recipe(**{name: value})
    assert set(form()["presets_about"]) == set(form()["presets"])
    for preset, qualities in form()["steps"].items():
        for quality, steps in qualities.items():
            assert steps.items() <= dict(make_recipe(preset, quality=quality)).items()


PAINTING = {"kind": "painting", "content": "a" * 16, "styles": ["b" * 16]}
GRID = {**PAINTING, "kind": "grid"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "request"),
        ({"kind": "dance"}, "kind"),
        ([], "request"),
        ({"kind": "painting"}, "no photograph"),
        ({"kind": "painting", "content": "a" * 16}, "no style picture"),
        ({"kind": "painting", "content": "../x", "styles": ["a" * 16]}, "content"),
        ({"kind": "painting", "content": "a" * 16, "styles": ["b" * 16], "knobs": {"beta": -1}}, "beta"),
        ({"kind": "painting", "content": "a" * 16, "styles": ["b" * 16], "color": "x"}, "color"),
        ({"kind": "grid", "content": "a" * 16, "styles": ["b" * 16]}, "nothing to compare"),
        ({"kind": "grid", "content": "a" * 16, "styles": ["b" * 16], "rows": ["beta"]}, "no values"),
        ({**GRID, "rows": ["beta", "5", "-1"]}, "beta"),
        ({**GRID, "columns": ["gamma", "5"]}, "there is no gamma"),
        ({**GRID, "rows": ["ratio", "x"]}, "ratio"),
        (
            {**GRID, "rows": ["alpha", "0", "1"], "columns": ["beta", "0", "1"]},
            "nothing to",
        ),
        ({**PAINTING, "changes": {"3": {"size": 99}}}, "can change while painting"),
        (
            {**PAINTING, "changes": {"3": {"style_edit": "/x"}}},
            "a table of layers",
        ),
        (
            {**PAINTING, "changes": {"3": {"style_weights": [1, 2]}}},
            "2 numbers for 1",
        ),
        ({**PAINTING, "regions": {"sky": {"mask": "light", "weight": 2}}}, "the fields are mask, style, style_mask"),
        ({**PAINTING, "regions": "/x.toml"}, "regions"),
        ({**PAINTING, "regions": {"sky": "/x.toml"}}, "regions"),
        ({**PAINTING, "changes": "/x.toml"}, "changes"),
        ({**PAINTING, "changes": {"3": "/x.toml"}}, "changes"),
        ({**PAINTING, "knobs": "/x.toml"}, "knobs"),
        ({**PAINTING, "knobs": {"style_edit": ["/x"]}}, "a table of layers"),
        ({**PAINTING, "knobs": {"style_edit": {"conv1_1": "/x"}}}, "must be a table"),
        ({**PAINTING, "protect": f"k-means 1 of {'9' * 5000}"}, "a mask is the id"),
        ({**PAINTING, "regions": {"sky": {"mask": f"k-means {'9' * 5000} of 3"}}}, "a mask is the id"),
        ({**GRID, "rows": ["ratio", "1e999999999"]}, "ratio"),
        ({**GRID, "rows": ["ratio", "1/1e-999999999"]}, "ratio"),
        ({"kind": "x" * 100_000}, "kind"),
        ({"kind": "style"}, "give either a picture or a job"),
        ({"kind": "style", "picture": "a" * 16, "job": "b" * 16}, "give either a picture or a job"),
    ],
)
def test_a_wrong_request_gives_a_one_line_error(asked, said):
    with pytest.raises(BadRecipe, match=said) as error:
        read_request(asked)
    assert "\n" not in str(error.value) and len(str(error.value)) < 3000


def knots(changes: int, **more: object) -> dict:
    return {**PAINTING, **more, "changes": {str(i): {"beta": i} for i in range(1, changes + 1)}}


def test_checking_changes_takes_a_recipe_a_change(monkeypatch):
    """And not one for each two of them, nor, for a picture that goes, any."""
    made = []
    check = recipe.checked_recipe
    monkeypatch.setattr(recipe, "checked_recipe", lambda knobs: made.append(1) or check(knobs))
    counts = []
    for changes in (100, 200, 400):
        made.clear()
        read_request(knots(changes))
        counts.append(len(made))
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0]) <= 400
    made.clear()
    assert pictures_needed(knots(400)) == {"a" * 16, "b" * 16} and not made


def test_changes_are_bounded():
    with pytest.raises(BadRecipe, match="changes"):
        read_request(knots(1001))
    axes = {"kind": "grid", "rows": ["beta", *"123456789"], "columns": ["alpha", *"123456789"]}
    with pytest.raises(BadRecipe, match="a grid of 81 paintings can have at most 123 changes"):
        read_request(knots(124, **axes))
    asked = read_request(PAINTING)
    with pytest.raises(BadRecipe, match="can be changed 1000 times"):
        check_change(asked, {"beta": 1}, 2000, {str(i): {"beta": 1} for i in range(1, 1001)})


def test_a_change_is_checked_with_those_before_it():
    asked = read_request({"kind": "painting", "content": "a" * 16, "styles": ["b" * 16]})
    check_change(asked, {"beta": 0}, 7, {})
    for knobs, before, said in (
        ({"beta": 0}, {"3": {"alpha": 0}}, "nothing to minimise"),
        ({"beta": 0}, {"7": {"alpha": 0}}, "nothing to minimise"),
        ({"style_weights": [1, 2]}, {}, "2 numbers for 1 style pictures"),
    ):
        with pytest.raises(BadRecipe, match=said):
            check_change(asked, knobs, 7, before)


def test_the_step_reached_is_known_of_a_job_that_nobody_listened_to(tmp_path):
    assert reached(tmp_path) == 0
    rows = "".join(f"[{i}, 1.5, null, 0.25, 64]\n" for i in range(1, 300))
    for end, i in (("", 299), ("[300, 1.", 299), ("[300, 1.5, 1.0, 0.5, 64]", 300)):
        (tmp_path / "curve.jsonl").write_text(rows + end)
        assert reached(tmp_path) == i


@weights
def test_a_change_that_does_not_fit_gives_a_warning_and_the_painting_goes_on(studio):
    id = studio.submit(studio.slow())
    studio.painting(id)
    edit = {"conv1": {"units": {"999": 2}}}
    assert studio.ask("POST", f"/api/jobs/{id}/change", {"knobs": {"style_edit": edit}}).status == 200
    job = studio.until(id, lambda job: bool(job["warnings"]) or job["state"] != "running")
    assert job["state"] == "running" and "unit 999 of conv1" in job["warnings"][0] and job["changes"] == {}
    studio.ask("POST", f"/api/jobs/{id}/cancel")
    assert studio.ended(id)["state"] == "cancelled"


def test_a_texture_needs_no_photograph_and_an_inversion_no_painting():
    texture = read_request({"kind": "painting", "preset": "texture", "styles": ["a" * 16]})
    inversion = read_request({"kind": "painting", "preset": "inversion", "content": "a" * 16})
    assert [*pictures_of(texture), *pictures_of(inversion)] == ["a" * 16] * 2
    for preset, given in (("texture", {"content": "a" * 16}), ("inversion", {"styles": ["a" * 16]})):
        with pytest.raises(BadRecipe, match="there is no"):
            read_request({"kind": "painting", "preset": preset, **given})


def test_masks_become_paths_and_nothing_else_does():
    mask = "0123456789abcdef"
    asked = read_request(
        {
            "kind": "painting",
            "content": mask,
            "styles": [mask],
            "protect": mask,
            "regions": {"a": {"mask": "light", "style_mask": mask}},
        }
    )
    knobs = knobs_of(asked, lambda id: Path("/there") / id)
    assert knobs["protect"] == f"/there/{mask}"
    assert knobs["regions"] == {"a": {"mask": "light", "style_mask": f"/there/{mask}"}}


@pytest.mark.parametrize("name", ["../../etc/passwd", "CON", "a" * 500, "", "日本", "<b>", "a b.c"])
def test_a_file_is_called_by_letters_and_digits(name):
    assert slug(name).replace("-", "").replace("_", "").isalnum() and len(slug(name)) <= 80


def test_a_death_is_put_in_words():
    assert "killed" in why_it_died(-9) and "SIGSEGV" in why_it_died(-11) and "exit code 3" in why_it_died(3)


# Events and client


def test_a_page_that_was_away_gets_the_events_it_missed():
    import asyncio

    async def listen() -> None:
        events = Events()
        for n in range(3):
            events.send("job", {"n": n})
        stream = events.since(f"{events.run}-1", {})
        assert "event: hello" in await anext(stream)
        assert '{"n": 1}' in await anext(stream) and '{"n": 2}' in await anext(stream)
        await stream.aclose()
        for unknown in ("gone-7", f"{events.run}-99", f"{events.run}-x", f"{events.run}-{'9' * 5000}"):
            stream = events.since(unknown, {})
            await anext(stream)
            assert "event: reload" in await anext(stream)
            await stream.aclose()

    asyncio.run(listen())


def test_pages_that_close_all_at_once_leave_the_others_their_events():
    """Cancelled again and again until they are gone, as the server does it: a lock that one of them held would be held for ever."""
    import asyncio

    import anyio

    async def stay(events: Events, scope: anyio.CancelScope) -> None:
        with scope:
            async for _ in events.since("", {}):
                await asyncio.sleep(0)

    async def scene() -> None:
        for wait in range(8):
            events, scopes = Events(), [anyio.CancelScope() for _ in range(48)]
            async with anyio.create_task_group() as pages:
                for scope in scopes:
                    pages.start_soon(stay, events, scope)
                for _ in range(10):
                    await asyncio.sleep(0)
                asyncio.get_running_loop().call_soon(events.send, "job", {"n": wait})
                for scope in scopes:
                    scope.cancel()
            stream = events.since(f"{events.run}-0", {})
            assert "event: hello" in await anext(stream) and f'{{"n": {wait}}}' in await anext(stream)
            await stream.aclose()

    asyncio.run(asyncio.wait_for(scene(), 20))


def test_a_folder_that_cannot_be_used_is_an_answer(tmp_path, monkeypatch):
    import asyncio

    store = Store(tmp_path)
    app = make_app(Studio(store, {}))
    store.close()
    monkeypatch.setattr(store, "all", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    answers = []

    async def ask() -> None:
        async def receive() -> dict:
            return {"type": "http.request"}

        async def send(message: dict) -> None:
            answers.append(message)

        scope = {"type": "http", "method": "GET", "path": "/api/jobs", "query_string": b"", "headers": []}
        await app(scope, receive, send)

    asyncio.run(ask())
    assert answers[0]["status"] == 507 and "no room left" in json.loads(answers[1]["body"])["error"]


def test_a_stream_tells_pictures_as_they_come(studio, tmp_path):
    told = studio.client.events()
    assert next(told)[0] == "hello"
    Image.new("RGB", (20, 20)).save(tmp_path / "new.png")
    id = studio.client.upload(tmp_path / "new.png")["id"]
    assert next((name, it["id"]) for name, it in told if name == "picture") == ("picture", id)
    told.close()


@weights
def test_the_client_paints_waits_and_downloads(studio, tmp_path):
    client, seen = Client(studio.folder), []
    job = client.paint(picture_path("cat"), [picture_path("mosaic")], net="alexnet", size=64, coarsest=64, steps=4)
    done = client.wait(job["id"], lambda job: seen.append(job["step"]))
    assert done["state"] == "finished" and seen[-1]["i"] == 4
    assert read_record(client.download(job["id"], tmp_path / "out.png"))["ended"] == "finished"
    assert job["id"] in [it["id"] for it in client.jobs("cat mosaic alexnet")]
    client.remove(job["id"])
    with pytest.raises(Refused, match="no such job") as refused:
        client.job(job["id"])
    assert refused.value.status == 404


def test_the_client_waits_for_no_job_that_is_removed_and_no_studio_that_ends(tmp_path, monkeypatch):
    client = Client(address="http://127.0.0.1:1", key="x")
    monkeypatch.setattr(client, "job", lambda id: {"id": id, "state": "queued"})
    monkeypatch.setattr(client, "events", lambda: (it for it in [("hello", {}), ("gone", {"id": "b"}), ("gone", {"id": "a"})]))
    with pytest.raises(Refused, match="removed"):
        client.wait("a")
    with pytest.raises(BadInput, match="has ended"):
        client.wait("c")


ODD = ["none.png", ".", "pipe.png", "a\0b.png", "a\udcff.png", "a" * 300, "http://example.org/a.png", "/dev/zero", "/dev/null"]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_the_client_says_in_one_line_which_file_it_cannot_read(studio, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    with pytest.raises(BadImage, match="cannot read") as error:
        studio.client.upload(name)
    assert "\n" not in str(error.value)


def test_the_client_raises_errors_of_ours_alone(studio, tmp_path):
    asks = [
        lambda: studio.client.job("a\udcff/../b"),
        lambda: studio.client.job(None),
        lambda: studio.client.submit(kind=Path("x")),
        lambda: studio.client.change("0" * 16, beta={1, 2}),
        lambda: studio.client.download("0" * 16, tmp_path / "a.png"),
        lambda: Client("a\0b"),
        lambda: Client(tmp_path),
        lambda: Client(address="nonsense").pictures(),
        lambda: Client(address="http://127.0.0.1:1").pictures(),
        lambda: Client(address="http://[").pictures(),
    ]
    for ask in asks:
        with pytest.raises(ImpastoError):
            ask()
    assert studio.client.jobs("\udcff") == []
    Image.new("RGB", (31, 39)).save(os.fsencode(tmp_path) + b"/\xff.png")
    assert studio.client.upload(next(tmp_path.glob("*.png")))["width"] == 31


def test_the_client_says_that_it_was_cut_off():
    """By something that is no studio, or by one that ends as it answers."""
    for said in (b"", b"nonsense", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", b"HTTP/1.1 200 OK\r\n\r\nno JSON"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=lambda said=said, server=server: answered(server, said), daemon=True).start()
            with pytest.raises(ImpastoError, match="does not answer"):
                Client(address=f"http://127.0.0.1:{server.getsockname()[1]}", key="x").pictures()


def answered(server: socket.socket, said: bytes) -> None:
    with server.accept()[0] as one:
        one.recv(10_000)
        one.sendall(said)


def test_a_list_of_paintings_takes_no_longer_a_picture_the_more_there_are(tmp_path, monkeypatch):
    import asyncio

    store, looked = Store(tmp_path), []
    for n in range(20):
        record = {"recipe": {}, "content": f"{n - 1}", "styles": ["0", "gone"]}
        more = {"width": 1, "height": 1, "bundled": False, "mask": False, "hashes": [f"{n}"], "record": record}
        id, _ = store.new("pictures")
        store.save("pictures", {**about(id, created=n), **more})
    studio = Studio(store, {})
    found = store.all
    monkeypatch.setattr(store, "all", lambda *given: looked.append(given) or found(*given))
    pictures = json.loads(asyncio.run(studio.pictures(None)).body)["pictures"]
    assert [it["record"]["content"] for it in pictures] == [*(it["id"] for it in pictures[1:]), None]
    assert pictures[0]["record"]["missing"] == ["style 2"] and len(looked) <= 2
    store.close()


def test_a_bundled_picture_that_was_deleted_stays_away(tmp_path):
    store = Store(tmp_path)
    Studio(store, {}).bundle()
    all_of_them = store.all("pictures")
    store.remove("pictures", all_of_them[0]["id"])
    Studio(store, {}).bundle()
    assert len(store.all("pictures")) == len(all_of_them) - 1 > 3
    store.close()


def test_a_picture_in_use_stays_and_one_that_is_not_goes(studio, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "new.png")
    id = studio.client.upload(tmp_path / "new.png")["id"]
    job = studio.submit(studio.quick(content=id))
    studio.ask("POST", f"/api/jobs/{job}/pause")
    assert studio.ask("DELETE", f"/api/pictures/{id}").status == 409
    studio.ended(job)
    studio.ask("DELETE", f"/api/jobs/{job}")
    assert studio.ask("DELETE", f"/api/pictures/{id}").status == 204
    assert studio.ask("GET", f"/api/pictures/{id}/image").status == 404
