"""Instant pictures while the user chooses: the process that paints them and what becomes of it, and the pictures themselves."""

import asyncio
import base64
import io
import sys
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("starlette", reason="the studio is not tried: the extra studio is not installed")

from impasto.errors import BadImage, BadRecipe, ImpastoError
from impasto.images.images import to_pillow
from impasto.pictures import picture_path
from impasto.studio import live
from impasto.studio.job_request import read_request
from impasto.studio.live import LARGEST, Live, Superseded, answer_to, side_of
from impasto.transfer.transfer import instant
from tests.conftest import picture, save
from tests.studios import Running

# The process


ECHO = """
import json, os, sys
for line in sys.stdin:
    print(json.dumps({"picture": json.loads(line)["n"], "by": os.getpid()}), flush=True)
"""
SLOW = ECHO.replace("    print(", "    import time; time.sleep(0.3); print(")
DIES = "import sys; sys.stdin.readline()"
REFUSES = """import sys\nfor line in sys.stdin: print('{"error": "too small to paint"}', flush=True)"""


def tried(monkeypatch, process: str, scene: Callable[[Live], Awaitable[None]]) -> None:
    """The scene with a process of a few lines."""
    monkeypatch.setattr(live, "PROCESS", (sys.executable, "-c", process))

    async def play() -> None:
        at_once = Live()
        try:
            await scene(at_once)
        finally:
            process = at_once.process
            at_once.close()
            if process is not None:
                await process.wait()
            await asyncio.sleep(0.1)  # for the pipes of those that were replaced

    asyncio.run(asyncio.wait_for(play(), 60))


def test_one_process_answers_request_after_request(monkeypatch):
    async def scene(at_once: Live) -> None:
        await at_once.start()
        found = [await at_once.paint({"n": n}, is_stage=True) for n in range(3)]
        assert [it["picture"] for it in found] == [0, 1, 2] and len({it["by"] for it in found}) == 1

    tried(monkeypatch, ECHO, scene)


def test_of_pictures_for_the_stage_only_the_newest_is_painted_and_every_tile(monkeypatch):
    async def scene(at_once: Live) -> None:
        await at_once.start()
        stages = [asyncio.create_task(at_once.paint({"n": n}, is_stage=True)) for n in range(4)]
        tiles = [asyncio.create_task(at_once.paint({"n": n}, is_stage=False)) for n in (7, 8)]
        found = await asyncio.gather(*stages, *tiles, return_exceptions=True)
        assert [isinstance(it, Superseded) for it in found] == [False, True, True, False, False, False]  # the first was begun
        assert [it["picture"] for it in found[3:]] == [3, 7, 8]

    tried(monkeypatch, SLOW, scene)


def test_a_process_that_was_killed_is_replaced_unnoticed(monkeypatch):
    async def scene(at_once: Live) -> None:
        first = await at_once.paint({"n": 1}, is_stage=True)
        at_once.process.kill()
        second = await at_once.paint({"n": 2}, is_stage=True)
        assert second["picture"] == 2 and second["by"] != first["by"]

    tried(monkeypatch, ECHO, scene)


def test_a_process_that_dies_of_every_request_is_an_error_and_not_tried_for_ever(monkeypatch):
    async def scene(at_once: Live) -> None:
        with pytest.raises(ImpastoError, match="is there enough memory"):
            await at_once.paint({"n": 1}, is_stage=True)
        assert at_once.process is None

    tried(monkeypatch, DIES, scene)


def test_what_the_process_refuses_is_an_error_in_its_words(monkeypatch):
    async def scene(at_once: Live) -> None:
        with pytest.raises(BadRecipe, match="too small to paint"):
            await at_once.paint({"n": 1}, is_stage=True)

    tried(monkeypatch, REFUSES, scene)


def test_the_answer_to_a_request_that_was_cancelled_is_not_taken_for_the_next_ones(monkeypatch):
    async def scene(at_once: Live) -> None:
        await at_once.paint({"n": 0}, is_stage=True)
        task = asyncio.create_task(at_once.paint({"n": 1}, is_stage=True))
        await asyncio.sleep(0.1)
        task.cancel()
        assert (await at_once.paint({"n": 2}, is_stage=True))["picture"] == 2

    tried(monkeypatch, SLOW, scene)


def test_a_process_that_nobody_asks_is_ended_and_the_next_request_starts_another(monkeypatch):
    monkeypatch.setattr(live, "IDLE_SECONDS", 0.2)

    async def scene(at_once: Live) -> None:
        first = await at_once.paint({"n": 1}, is_stage=True)
        await asyncio.sleep(0.6)
        assert at_once.process is None
        assert (await at_once.paint({"n": 2}, is_stage=True))["by"] != first["by"]

    tried(monkeypatch, ECHO, scene)


# The picture


def asked(**changed) -> dict:
    work = {
        "content": str(picture_path("cat")),
        "styles": [str(picture_path("mosaic"))],
        "knobs": {"preset": "impasto"},
        "size": 96,
    }
    return {**work, **changed}


def decoded(answer: dict) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(answer["picture"]))).convert("RGB")


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)) / 255


@pytest.mark.parametrize("knobs", [{}, {"beta": 3.0}, {"color": "luminance"}, {"style_weights": [1.0, 3.0]}, {"calm": 0.5}])
def test_the_picture_is_that_of_quality_instant(knobs):
    """To WebP's losses, and those of a photograph that is scaled down first."""
    paths = [picture_path("mosaic"), picture_path("renoir-moulin")][: len(knobs.get("style_weights", [1]))]
    found = decoded(answer_to(asked(styles=list(map(str, paths)), knobs=knobs)))
    wanted = instant(picture_path("cat"), paths, size=96, **knobs)
    assert found.size == wanted.size
    assert (as_tensor(found) - as_tensor(wanted.convert("RGB"))).abs().mean() < 0.02
    other = instant(picture_path("cat"), picture_path("hokusai-great-wave"), size=96)
    assert (as_tensor(found) - as_tensor(other.convert("RGB"))).abs().mean() > 0.04


def test_knobs_that_an_instant_picture_does_not_follow_are_left_out():
    others = {"preset": "gatys", "steps": 7, "quality": "fine", "net": "alexnet"}
    assert answer_to(asked()) == answer_to(asked(knobs=others))


@pytest.mark.parametrize("mask", ["light", "dark", "k-means 2 of 3"])
def test_a_mask_is_that_of_a_region(mask):
    from impasto.images.images import read_picture, resize, scaled_size
    from impasto.objective.masks import make_mask

    found = as_tensor(decoded(answer_to({"content": str(picture_path("cat")), "mask": mask})))[..., 0]
    image = read_picture(picture_path("cat")).image
    wanted = resize(make_mask(mask, image, 0.01), scaled_size(image, 512))[0, 0]
    assert found.shape == wanted.shape and (found - wanted).abs().mean() < 0.02 < wanted.std()


def test_a_style_that_nobody_learned_is_named_until_it_is_learned(tmp_path, monkeypatch):
    from impasto.feedforward.styles import PLAIN, bundled, save_learned

    monkeypatch.setenv("IMPASTO_STYLES", str(tmp_path / "styles"))
    style = picture(40, 60, 3)
    save(tmp_path / "mine.png", style)
    work = asked(styles=[str(picture_path("mosaic")), str(tmp_path / "mine.png")], knobs={"style_crop": "none"})
    assert answer_to(work)["guessed"] == [1]
    from impasto.images.images import read_picture

    save_learned(read_picture(tmp_path / "mine.png").image, bundled().numbers[PLAIN], bundled())
    assert answer_to(work)["guessed"] == []


def test_a_photograph_too_small_to_paint_is_an_error_of_ours(tmp_path):
    to_pillow(picture(3, 300)).save(tmp_path / "thin.png")
    with pytest.raises(BadImage, match="pixels"):
        answer_to(asked(content=str(tmp_path / "thin.png")))


@pytest.mark.parametrize(("size", "side"), [(96, 96), (5000, LARGEST), (None, LARGEST)])
def test_no_picture_is_larger_than_what_is_painted_at_once(size, side):
    id = "0123456789abcdef"
    request = read_request({"kind": "instant", "content": id, "styles": [id], "knobs": {} if size is None else {"size": size}})
    assert side_of(request) == side


@pytest.mark.slow
def test_the_studio_paints_at_once_and_says_what_it_cannot(tmp_path):
    running = Running(tmp_path)
    try:
        ask = {"content": running.bundled("cat"), "styles": [running.bundled("mosaic")], "knobs": {"size": 64}}
        assert running.ask("POST", "/api/live/start").status == 204
        answer = running.ask("POST", "/api/live", ask).json()
        assert decoded(answer).size[0] == 64 and answer["guessed"] == []
        assert not running.client.jobs()  # nothing is kept
        refused = [
            running.ask("POST", "/api/live", {**ask, **wrong}).json()
            for wrong in (
                {"styles": []},
                {"knobs": {"size": "x"}},
                {"knobs": {"quality": "fine"}},
                {"regions": {"a": {"mask": "/etc/passwd"}}},
            )
        ]
        assert all(it["picture"] is None and it["why"] for it in refused)
        assert running.ask("POST", "/api/live", {**ask, "content": "0" * 16}).status == 404
        asked_for = {"picture": ask["content"], "mask": "light"}
        assert decoded(running.ask("POST", "/api/live/mask", asked_for).json()).size[0] == 512
        assert running.ask("POST", "/api/live/mask", {**asked_for, "mask": "rest"}).status == 400
        assert running.ask("POST", "/api/live/mask", {**asked_for, "mask": "/etc/passwd"}).status == 400
        assert running.ask("POST", "/api/live/mask", {**asked_for, "picture": "../.."}).status == 404
        assert running.raw("POST", "/api/live", {"X-Impasto": "1"}, b"{}").status == 401
    finally:
        said = running.stop()
    assert "Traceback" not in said
