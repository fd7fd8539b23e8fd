"""Instant pictures while the user still chooses: small, at once, and kept nowhere.

The studio's side is Live. It starts one process, `python -m impasto.studio.live`, when a picture is first asked for, and another
where that one has died; after a while without requests it ends it. The process has torch and the net loaded and keeps the last
photographs and styles. Each line of its stdin is a request, each line of its stdout the answer.
"""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto.errors import BadImage, BadRecipe, CannotWrite, ImpastoError, NoRoom, one_line
from impasto.machine import own_stdout, peak_memory_mb, python_module, settle
from impasto.studio.decode import end
from impasto.studio.job_request import InstantRequest

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from impasto.feedforward.apply import InstantPainter
    from impasto.images.images import Picture

PROCESS = python_module("impasto.studio.live")
LARGEST = 768  # pixels of the longer side
SECONDS = 60.0  # that an answer may take
IDLE_SECONDS = 900.0  # that the process waits for the next request
MOST_MEMORY = 1500.0  # MB: a process that has used more ends after its answer
LINE = 2**24  # bytes of an answer
QUALITY = 85  # of the WebP
MASK = 512  # pixels of a mask's longer side
MASK_FEATHER = 0.01  # its soft edge, as that of a region


KINDS: dict[Any, type[ImpastoError]] = {kind.__name__: kind for kind in (BadImage, NoRoom, CannotWrite)}


class Superseded(BadRecipe):
    """A newer picture was asked for meanwhile."""


class Live:
    """The studio's side of the process, whose answers take at most so many seconds."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.process: asyncio.subprocess.Process | None = None
        self.lock = asyncio.Lock()
        self.newest = 0
        self.idle: asyncio.TimerHandle | None = None

    async def paint(self, work: Mapping[str, Any], is_stage: bool) -> dict[str, Any]:
        """{"picture": WebP in base64, "guessed": the numbers of the styles that nobody learned}.

        Of several pictures for the stage only the newest is painted; for the others this raises Superseded. Raises BadRecipe for
        what cannot be painted.
        """
        self.newest += is_stage
        mine = self.newest
        async with self.lock:
            if is_stage and mine != self.newest:
                raise Superseded("a newer picture was asked for")
            answer = await self._answer(json.dumps(work).encode() + b"\n")
        if "error" in answer:
            raise KINDS.get(answer.get("kind"), BadRecipe)(str(answer["error"]))
        return answer

    async def start(self) -> None:
        """Start the process, so that the first picture need not wait for it."""
        async with self.lock:
            await self._alive()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        """The answer; a process that dies is replaced once."""
        for _ in range(2):
            process = await self._alive()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(line)
                return dict(json.loads(await asyncio.wait_for(process.stdout.readline(), self.seconds)))
            except (TimeoutError, ConnectionError, ValueError):
                self.close()
            except BaseException:  # the request was cancelled: its answer would be taken for the next one's
                self.close()
                raise
        raise ImpastoError("the process that makes such pictures died or took too long: is there enough memory?")

    async def _alive(self) -> asyncio.subprocess.Process:
        if self.idle is not None:
            self.idle.cancel()
        if self.process is None or self.process.returncode is not None:
            options: dict[str, Any] = {"stdin": -1, "stdout": -1, "stderr": subprocess.DEVNULL, "start_new_session": True}
            self.process = await asyncio.create_subprocess_exec(*PROCESS, **options, limit=LINE)
        self.idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.close)
        return self.process

    def close(self) -> None:
        """End the process; the next request starts another."""
        if self.idle is not None:
            self.idle.cancel()
        if self.process is not None:
            end(self.process)
        self.process, self.idle = None, None


def side_of(request: InstantRequest) -> int:
    """The longer side of the picture: what was asked for, up to LARGEST."""
    size = request.knobs.get("size", LARGEST)
    return min(size, LARGEST) if isinstance(size, int) else LARGEST


# In the process


def answer_to(work: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request for a mask that is made of a picture, {"content": its path, "mask"}; for a painting in another file,
    {"painting": path, "to": path, "recipe": whether to keep it}; or for an instant picture."""
    if "to" in work:
        return convert(Path(work["painting"]), Path(work["to"]), work["recipe"])
    return mask_of(work["content"], work["mask"]) if "mask" in work else painted(work)


def convert(painting: Path, to: Path, with_recipe: bool) -> dict[str, Any]:
    """Write the painting in the format of the other file's ending."""
    from impasto.images.images import read_picture, read_record, write_picture
    from impasto.images.records import is_too_large

    picture, record = read_picture(painting), read_record(painting) if with_recipe else None
    if record is not None and is_too_large(record, to.suffix):
        raise BadRecipe(f"the recipe is too large for {to.suffix}: take PNG, or leave the recipe out")
    write_picture(to, picture.image, picture.alpha, record)
    return {}


def mask_of(path: str, mask: str) -> dict[str, Any]:
    """{"picture": the mask, white where it is 1}."""
    from impasto.images.images import resize, scaled_size, to_pillow
    from impasto.objective.masks import make_mask

    image = _photograph(path).image
    image = resize(image, scaled_size(image, MASK))
    return {"picture": as_text(to_pillow(make_mask(mask, image, MASK_FEATHER).expand(1, 3, -1, -1)))}


def painted(work: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to {"content", "styles": paths, "knobs", "size"}."""
    from impasto.feedforward.styles import learned_folder
    from impasto.images.images import to_pillow
    from impasto.objective.masks import read_masks
    from impasto.transfer.transfer import check_fit, finished, instant_step

    recipe = _recipe(work["knobs"], work["size"])
    photograph = _photograph(work["content"])
    learned = learned_folder()
    stamp = learned.stat().st_mtime_ns if learned.exists() else 0  # of the newest file in it
    styles, painter = _styles(tuple(work["styles"]), recipe.style_crop, stamp)
    check_fit(photograph.image, styles, recipe, None)
    masks = read_masks(recipe, photograph.image, styles)
    image = instant_step(photograph.image, painter.following(recipe), masks).image
    picture = to_pillow(finished(image, photograph.image, recipe, alpha=photograph.alpha, masks=masks))
    return {"picture": as_text(picture), "guessed": [n for n, known in enumerate(painter.known) if known.guess]}


def as_text(picture: "Image") -> str:
    """The file of a picture for viewing, in base64."""
    from impasto.images.images import small_file

    return base64.b64encode(small_file(picture, QUALITY)).decode()


def _recipe(knobs: Mapping[str, Any], size: int) -> Any:
    """The recipe as far as an instant picture follows it."""
    from impasto.feedforward.apply import FOLLOWED
    from impasto.recipe.recipe import make_recipe

    followed = {name: value for name, value in knobs.items() if name in FOLLOWED - {"preset", "quality", "size"}}
    return make_recipe(**followed, quality="instant", size=size)


@lru_cache(maxsize=4)
def _photograph(path: str) -> "Picture":
    """A photograph, scaled down to twice LARGEST, since reading a large one takes longer than painting it."""
    from dataclasses import replace

    from impasto.images.images import read_picture, resize, scaled_size, size_of

    picture = read_picture(Path(path))
    size = scaled_size(picture.image, min(2 * LARGEST, max(size_of(picture.image))))
    alpha = None if picture.alpha is None else resize(picture.alpha, size)
    return replace(picture, image=resize(picture.image, size), alpha=alpha)


@lru_cache(maxsize=32)
def _styles(paths: tuple[str, ...], crop: str, _stamp: int) -> "tuple[list[Tensor], InstantPainter]":
    """The cropped style pictures, of which only the shapes are kept, and their painter; `_stamp` changes with what was learned."""
    from impasto.feedforward.apply import InstantPainter
    from impasto.images.images import read_picture
    from impasto.objective.framing import cropped_styles
    from impasto.recipe.recipe import make_recipe

    recipe = make_recipe(quality="instant", style_crop=crop)
    pictures = cropped_styles([read_picture(Path(path)) for path in paths], recipe)
    images = [picture.image for picture in pictures]
    return [image.new_zeros(()).expand_as(image) for image in images], InstantPainter(images, recipe)


def main() -> None:
    """Answer the requests that come until stdin ends."""
    settle()
    out = own_stdout()
    import impasto.transfer.transfer  # noqa: F401  loads torch while nobody waits for it yet

    for line in sys.stdin:
        try:
            answer = answer_to(json.loads(line))
        except (ImpastoError, MemoryError, RuntimeError) as error:
            text, kind = one_line(str(error).strip()), type(error).__name__
            answer = {"error": text or kind, "kind": kind}
        print(json.dumps(answer), file=out, flush=True)
        if (peak_memory_mb() or 0) > MOST_MEMORY:
            return


if __name__ == "__main__":
    main()
