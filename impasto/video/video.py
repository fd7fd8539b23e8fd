"""A video painted frame by frame, each from the last: Ruder, Dosovitskiy & Brox 2016 (arXiv:1604.08610).

A frame starts as the painting of the frame before, moved along the optical flow, and is tied to it where its pixels were visible.
Every painted frame is a file in a folder beside the output: after any interruption, painting continues at the first missing frame.
"""

import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Self

import torch
from filelock import FileLock
from pydantic import BaseModel, Field, StrictBool, StringConstraints, ValidationError, model_validator
from torch import Tensor

from impasto.errors import BadInput, BadRecipe, CannotWrite, ImpastoWarning, SomeFailed
from impasto.feedforward.apply import InstantPainter
from impasto.files import check_writable, make_folder, read_text, sha256, write_whole
from impasto.images.images import Picture, quantize, read_picture, read_record, size_of, write_picture
from impasto.machine import peak_memory_mb
from impasto.nets.nets import Compute
from impasto.objective.framing import cropped_styles
from impasto.objective.masks import read_masks
from impasto.recipe.recipe import Recipe
from impasto.transfer.descent import Step
from impasto.transfer.memory_plan import Plan, default_budget, held_memory, written
from impasto.transfer.painting import circumstances
from impasto.transfer.transfer import Execution, Extras, Ties, check_fit, finished, instant_step, make_net, plan_scales, stylize
from impasto.video.flow import OPENCV, Link, is_cut, link, long_term_weights, softened, warp, warped_error
from impasto.video.frames import PYAV, check_video, open_clip, painted_size, read_frames, read_video_record, write_video
from impasto.weights import load_weights
from impasto.workers import Event, Worker, distribute, recipe_for_task, with_retries

MANIFEST = "impasto.json"
OURS = re.compile(r"input|pass-\d+|impasto\.json|\.impasto-.*")  # names in the folder for the painted frames
BLEND = 0.5  # delta: the share of the neighbour's painting in a start from the second pass on; the rest is the last pass
INERTIA, KEPT = 0.8, 0.7  # shares of the frame before in a video of quality instant: of its statistics, of its painting
ONE_SCALE = 16384  # a coarsest scale at or above any size


@dataclass(frozen=True)
class Motion:
    """The options of a video beside its recipe. Raises BadRecipe for values out of bounds.

    `temporal` is the weight of the temporal cost, in units of the final cost of the scene's first frame: with 100, a picture that
    is off by 0.1 everywhere costs twice as much. `long_term` are the offsets of the earlier frames to match. `steps` are those of a
    frame after the first of a scene. `start` is "warp", or "recipe" to start every frame as a single picture.
    """

    temporal: float = 100.0
    long_term: tuple[int, ...] = (1, 2, 4)
    passes: int = 1
    steps: int = 15
    start: str = "warp"

    def __post_init__(self) -> None:
        if not 0 <= self.temporal < float("inf"):
            raise BadRecipe(f"temporal is {self.temporal}, must be a number from 0")
        if not self.long_term or list(self.long_term) != sorted(set(self.long_term)) or self.long_term[0] != 1:
            raise BadRecipe(f"long_term is {self.long_term}, must be increasing numbers from 1 on, as 1,2,4")
        if self.passes < 1 or self.steps < 1:
            raise BadRecipe(f"passes is {self.passes} and frame_steps {self.steps}, must be 1 or more")
        if self.start not in ("warp", "recipe"):
            raise BadRecipe(f"start is {self.start!r}, must be warp or recipe")
        if self.start == "recipe" and self.passes > 1:
            raise BadRecipe("with several passes start must be warp")


class WorkFrame(BaseModel):
    """A frame of the input in the manifest; `name` is the stem of its files, without folders."""

    name: Annotated[str, StringConstraints(pattern=r"^[^/\\\x00]+$")]
    time: int
    duration: Annotated[int, Field(ge=0)]
    cut: StrictBool


class Manifest(BaseModel):
    """The manifest of an unfinished video as it is read back. The file may have been edited, so all of it is checked."""

    versions: dict[str, str]
    place: dict[str, Any]
    threads: Annotated[int, Field(ge=1, le=1024)]
    plans: dict[str, list[Plan]]
    frames: Annotated[list[WorkFrame], Field(min_length=1)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        names, times = [frame.name for frame in self.frames], [frame.time for frame in self.frames]
        if len(set(names)) < len(names) or times != sorted(set(times)) or not self.frames[0].cut or {".", ".."} & set(names):
            raise ValueError("frames are not in order")
        return self


@dataclass(frozen=True)
class FrameStep:
    """A Step of the frame `name`; `done` frames are finished `of` those in all passes."""

    name: str
    done: int
    of: int
    step: Step


class Video:
    """One video, from its input files to `output`. Raises everything that can be wrong with them before the first frame is painted.

    `source` and `output` are a video or a folder of frames; `rate`, in frames per second, is for a folder that becomes a video.
    """

    def __init__(
        self,
        source: Path,
        styles: Sequence[Path],
        output: Path,
        recipe: Recipe,
        motion: Motion | None = None,
        *,
        rate: float = 25.0,
        weights: Path | None = None,
        weights_input: str | None = None,
        place: Compute | None = None,
        max_memory: float | None = None,
    ) -> None:
        recipe = recipe.model_copy(update={"clean_color": False})  # a frame starts as the last one: it would be smoothed again
        self.output, self.recipe, self.motion, self.place = output, recipe, motion or Motion(), place or Compute()
        _check_colors(recipe)
        if recipe.shape or recipe.seamless != "none":
            raise BadRecipe("a video has the shape of its frames: leave out shape and seamless")
        self.clip = open_clip(source, rate)
        self.to_folder = output.is_dir() or not output.suffix
        self.work = output.with_name(f"{output.name}.frames")
        self._check_output()
        self.size = painted_size(self.clip, recipe.size, even=not self.to_folder)
        self.recipe_at_size = recipe.model_copy(update={"size": max(self.size)})
        pictures = cropped_styles([read_picture(style) for style in styles], recipe)
        self.styles, self.style_alphas = [picture.image for picture in pictures], [picture.alpha for picture in pictures]
        blank = torch.zeros(1, 3, *self.size)
        check_fit(blank, self.styles, self.recipe_at_size, None)
        _check_motion(recipe, self.motion)
        self.place = Compute() if recipe.is_instant else self.place
        loaded = None if recipe.is_instant else load_weights(recipe.net, weights, weights_input)
        self.net = None if loaded is None else make_net(recipe, loaded, self.place)
        instant = InstantPainter.needed_by(self.recipe_at_size, self.styles)
        used = {**({"sha256": loaded.digest, "input": loaded.input} if loaded else {}), **(instant.used if instant else {})}
        held, budget = held_memory(self.net), max_memory or default_budget()
        self.plans = {
            name: plan_scales(blank, self.styles, kind, self.net, held, budget)
            for name, kind in {"first": self.recipe_at_size, "later": self._later()}.items()
        }
        self.identity = {
            "recipe": recipe.model_dump(mode="json"),
            "motion": {**asdict(self.motion), "long_term": list(self.motion.long_term)},
            "inputs": {
                "video": self.clip.sha256,
                "styles": [picture.sha256 for picture in pictures],
                "masks": [sha256(path) for path in recipe.mask_files().values()],
            },
            "weights": used,
        }
        self.task: dict[str, Any] = {"kind": "scene", "source": str(source), "output": str(output)}
        self.task |= {"styles": [str(style) for style in styles]}
        self.task |= {"rate": rate, "weights": weights and str(weights), "weights_input": weights_input, "max_memory": max_memory}
        self.task |= {"recipe": recipe_for_task(recipe), "motion": self.identity["motion"], "device": self.place.device}
        self.frames: list[dict[str, Any]] = []
        self.last_link: tuple[tuple[int, int], tuple[Link, Tensor, Tensor]] | None = None  # the last two frames that were compared
        self.painter: tuple[int, InstantPainter] | None = None  # that of quality instant, and the last frame that it painted
        self.seconds = 0.0

    def steps(self, *, resume: bool = False) -> Iterator[FrameStep]:
        """Paint the missing frames, then write the output and remove the folder beside it.

        `resume` continues with the frames in that folder, and does nothing for a finished video.
        """
        begun = time.monotonic()
        if resume and self.is_finished():
            self._clear()
            return
        self._begin(resume)
        done, of = 0, len(self.frames) * self.motion.passes
        for first in self.scenes():
            for it in self.paint_scene(first):
                yield replace(it, done=done + it.done, of=of)
            done += len(self._scene(first)) * self.motion.passes
        self._finish()
        self.seconds = time.monotonic() - begun

    def scenes(self) -> list[int]:
        """The index of the first frame of each scene."""
        return [i for i, frame in enumerate(self.frames) if frame["cut"]]

    def paint_scene(self, first: int) -> Iterator[FrameStep]:
        """Paint the missing frames of the scene that begins with frame `first`, in all passes. Scenes are independent."""
        scene = self._scene(first)
        of = len(scene) * self.motion.passes
        for number in range(self.motion.passes):
            for done, i in enumerate(scene[::-1] if number % 2 else scene, number * len(scene)):
                if not self._painted(number, i).exists():
                    for step in self._paint(number, i):
                        yield FrameStep(self.frames[i]["name"], done, of, step)
                    self._save(number, i, step)

    def distribute(
        self, workers: Sequence[Worker], *, resume: bool = False, part: tuple[int, int] = (0, 1)
    ) -> Generator[tuple[str, Event], None, None]:
        """Paint this part of the scenes with workers, then write the video if all frames exist.

        Yields the events of each scene as they come, with the name of its first frame. Raises SomeFailed if a scene failed.
        """
        begun, failed = time.monotonic(), dict[str, str]()
        with self._lock():
            if resume and self.is_finished():
                self._clear()
                return
            self._begin(resume)
        tasks = [{**self.task, "folder": os.getcwd(), "first": first} for first in self.scenes()[part[0] :: part[1]]]
        for task, event in distribute(tasks, workers, with_retries):
            name = self.frames[task["first"]]["name"]
            failed |= {name: event["error"]} if "error" in event else {}
            yield name, event
        if failed:
            name, error = next(iter(failed.items()))
            raise SomeFailed(f"{len(failed)} of {len(tasks)} scenes could not be painted, that of frame {name} first: {error}")
        with self._lock():
            if not self.is_finished() and self.is_painted():
                self._finish()
        self.seconds = time.monotonic() - begun

    def join(self) -> None:
        """Join a video that another process has started. Raises BadInput if there is none."""
        manifest = self._manifest()
        if manifest is None:
            raise BadInput(f"there is no work to join in {self.work}")
        self._continue(manifest)

    def is_painted(self) -> bool:
        """Whether all frames are there."""
        return all(self._painted(self.motion.passes - 1, i).exists() for i in range(len(self.frames)))

    def _lock(self) -> FileLock:
        """Beside the output, since the folder of the work goes."""
        return FileLock(self.output.with_name(f".{self.output.name}.lock"))

    def is_finished(self) -> bool:
        """Whether the output is this very video, painted."""
        try:
            record = self._record()
        except BadInput:
            return False
        return all(record.get(key) == value for key, value in self.identity.items())

    def report(self) -> dict[str, Any]:
        """The result for JSON: costs are means over the frames, flicker the mean warped-frame errors."""
        how = {"net": self.recipe.net, "seed": self.recipe.seed, "seconds": round(self.seconds, 2)}
        height, width = self.size
        shown = {"output": str(self.output), "width": width, "height": height}
        return {**shown, **how, "peak_memory_mb": peak_memory_mb(), **self._record()}

    def _check_output(self) -> None:
        if self.output.exists() and os.path.realpath(self.output) == os.path.realpath(self.clip.path):
            raise CannotWrite(f"{self.output} is the video to paint: name another file with -o")
        if not self.to_folder:
            check_writable(self.output)
            check_video(self.output, self.clip)
        elif self.output.exists() and not _is_ours(self.output):
            raise CannotWrite(f"the folder {self.output} holds other files than frames by Impasto: name a new one with -o")
        if self.work.exists() and not _is_work(self.work):
            raise CannotWrite(f"the folder {self.work}, needed for frames, holds other files: choose another output with -o")

    def _later(self) -> Recipe:
        """The recipe of a frame that follows another: it starts there, at full size, for a few steps."""
        if self.motion.start == "recipe":
            return self.recipe_at_size
        changed = {"init": "picture", "init_noise": 0.0, "coarsest": ONE_SCALE, "steps": self.motion.steps}
        return self.recipe_at_size.model_copy(update=changed)

    def _begin(self, resume: bool) -> None:
        """Prepare the folder with the resized input frames and the manifest, or read the manifest to resume."""
        if self.to_folder and self.output.exists():
            _check_unchanged(self.output)
        manifest = self._manifest() if resume else None
        if manifest is None:
            if self.work.exists() and not resume:
                warnings.warn(
                    "discarding the frames of an unfinished video (use --resume to continue it)", ImpastoWarning, stacklevel=3
                )
            self._clear()
            make_folder(self.work / "input")
            self._write_manifest({})
            self._read_input()
            self._write_manifest({"frames": self.frames})
        else:
            self._continue(manifest)
        for number in range(self.motion.passes):
            make_folder(self._folder(number))

    def _continue(self, manifest: Manifest) -> None:
        """Continue with the threads and plans of the manifest, since the bytes depend on them."""
        run = self._run()
        if manifest.versions != run["versions"]:
            warnings.warn(
                "the finished frames were painted with other versions: the rest may look different", ImpastoWarning, stacklevel=4
            )
        if manifest.place != run["place"]:
            warnings.warn(
                "the finished frames were painted on another device: the rest will look different", ImpastoWarning, stacklevel=4
            )
        else:
            torch.set_num_threads(manifest.threads)
            self.plans = {name: manifest.plans[name] for name in self.plans}
        self.frames = [frame.model_dump() for frame in manifest.frames]

    def _manifest(self) -> Manifest | None:
        """The manifest to resume from; None if there is none, it is damaged, or the input was not read to its end. Raises BadRecipe
        if it is that of another video."""
        manifest = _mapping(self.work / MANIFEST)
        if manifest is None:
            return None
        if changed := [name for name, value in self.identity.items() if manifest.get(name) != value]:
            other = f"{self.work} belongs to another video ({', '.join(changed)} differ)"
            raise BadRecipe(f"{other}: repeat the same options, choose another -o, or remove it")
        if "frames" not in manifest:
            return None
        try:
            found = Manifest.model_validate(manifest)
            fits = all(self._fits(name, found.plans.get(name, [])) for name in self.plans)
        except (ValidationError, RecursionError):
            fits = False
        if not fits:
            warnings.warn(f"{self.work / MANIFEST} is damaged: painting the video from the start", ImpastoWarning, stacklevel=4)
        return found if fits else None

    def _fits(self, kind: str, plans: Sequence[Plan]) -> bool:
        """Whether these plans fit the scales of this video and its net."""
        layers = {layer.name for layer in (self.net.layers if self.net else ())}
        tilings = [plan.tiling for plan in plans if plan.tiling]
        return len(plans) == len(self.plans[kind]) and all(it.side >= 1 and set(it.cuts) <= layers for it in tilings)

    def _read_input(self) -> None:
        before, is_opaque = None, True
        self.frames = []
        for frame in read_frames(self.clip, self.size):
            path = self.work / "input" / f"{frame.name}.png"
            write_picture(path, frame.image, frame.alpha)
            if frame.alpha is not None and is_opaque and not self.to_folder:
                text = f"{self.output.suffix} cannot be transparent: the background becomes white (not in a folder of frames)"
                warnings.warn(text, ImpastoWarning, stacklevel=4)
            is_opaque &= frame.alpha is None
            image = read_picture(path).image
            cut = before is None or is_cut(image, before)
            self.frames.append({"name": frame.name, "time": frame.time, "duration": frame.duration, "cut": cut})
            before = image
        if not self.frames:
            raise BadInput(f"{self.clip.path} has no frames")

    def _paint(self, number: int, i: int) -> Iterator[Step]:
        if self.recipe.is_instant:
            return iter([self._instant_step(i)])
        picture, near = self._input_picture(i), self._neighbours(number, i)
        content, alphas = picture.image, [picture.alpha, *self.style_alphas]
        last_pass = None if number == 0 else self._read(self._painted(number - 1, i)).image
        start, ties = self._start_and_ties(number, i, near, content if last_pass is None else last_pass)
        if self.motion.start == "recipe" or (not near and last_pass is None):
            recipe, plans = self.recipe_at_size, self.plans["first"]
            return stylize(content, self.styles, recipe, self.net, Extras(alphas=alphas, ties=ties), Execution(plans))
        if last_pass is not None:
            start = torch.lerp(last_pass, start, BLEND)
        recipe, plans = self._later(), self.plans["later"]
        return stylize(content, self.styles, recipe, self.net, Extras(start, alphas=alphas, ties=ties), Execution(plans))

    def _instant_step(self, i: int) -> Step:
        """Frame i in one pass, with the statistics carried over its scene, mixed with the painting of the frame before."""
        step, first = self._painted_at_once(i), self._scene(i)[0]
        if i == first or self.motion.start == "recipe":
            return step
        found, _, _ = self._linked(i, i - 1)
        moved = warp(self._read(self._painted(0, i - 1)).image, found.flow)
        image = torch.lerp(step.image, _covered(step.image, [moved], [found]), KEPT)
        return replace(step, state=replace(step.state, x=image))

    def _painted_at_once(self, i: int) -> Step:
        """Frame i alone; after an interruption, the frames of its scene before it are painted again for their statistics."""
        first = self._scene(i)[0]
        last, painter = self.painter or (-1, None)
        if painter is None or i == first or last != i - 1:
            inertia = INERTIA if self.motion.start == "warp" else 0.0
            painter = InstantPainter(self.styles, self.recipe_at_size, inertia=inertia)
            for n in range(first, i) if inertia else ():
                self._painted_by(painter, n)
        self.painter = i, painter
        return self._painted_by(painter, i)

    def _painted_by(self, painter: InstantPainter, i: int) -> Step:
        content = self._input(i)
        return instant_step(content, painter, read_masks(self.recipe_at_size, content, self.styles))

    def _scene(self, i: int) -> range:
        """The frames of the scene of frame i."""
        first = next(n for n in range(i, -1, -1) if self.frames[n]["cut"])
        return range(first, next((n for n in range(i + 1, len(self.frames)) if self.frames[n]["cut"]), len(self.frames)))

    def _neighbours(self, number: int, i: int) -> list[int]:
        """The frames that frame i is tied to, the nearest first."""
        scene, towards = self._scene(i), 1 if number % 2 else -1
        return [n for j in self.motion.long_term if (n := i + towards * j) in scene]

    def _start_and_ties(self, number: int, i: int, near: list[int], otherwise: Tensor) -> tuple[Tensor, Ties | None]:
        """The start of frame i, and its Ties to the neighbours' paintings, moved along the flow.

        Pixels that no neighbour shows start as `otherwise`, with soft edges.
        """
        links = [self._linked(i, n)[0] for n in reversed(near)][::-1]  # the nearest last: its flicker is measured, too
        moved = [warp(self._read(self._painted(number, n)).image, found.flow) for n, found in zip(near, links, strict=True)]
        start = _covered(otherwise, moved, links)
        if not near or not self.motion.temporal:
            return start, None
        weights = long_term_weights([found.sure for found in links])
        first_cost = _costs(self._painted(0, self._scene(i)[0]))["total"]  # J at the end of the scene's first painting
        return start, Ties(self.motion.temporal * first_cost, tuple(zip(moved, weights, strict=True)))

    def _save(self, number: int, i: int, step: Step) -> None:
        record = {**self._run(), "frame": i, "pass": number + 1, "steps": step.i, "costs": step.costs, "ended": "finished"}
        content = self._input_picture(i)
        image = quantize(finished(step.image, content.image, self.recipe_at_size, alpha=content.alpha))
        record["flicker"] = self._flicker(number, i, image) if number == self.motion.passes - 1 else {}
        write_picture(self._painted(number, i), image, content.alpha, record)

    def _flicker(self, number: int, i: int, image: Tensor) -> dict[str, float]:
        """Warped-frame errors, by the input's flow, between frame i and its neighbour in the scene that was painted before."""
        other = i + 1 if number % 2 else i - 1
        if other not in self._scene(i):
            return {}
        late, early = max(i, other), min(i, other)
        found, frame, before = self._linked(late, early)
        painted = {i: image, other: self._read(self._painted(number, other)).image}
        in_painting = warped_error(painted[late], painted[early], found)
        return {"painting": in_painting, "input": warped_error(frame, before, found)}

    def _linked(self, i: int, n: int) -> tuple[Link, Tensor, Tensor]:
        """The Link from frame i to frame n, and the two; the last ones are kept."""
        if self.last_link is None or self.last_link[0] != (i, n):
            frame, other = self._input(i), self._input(n)
            self.last_link = (i, n), (link(frame, other), frame, other)
        return self.last_link[1]

    def _finish(self) -> None:
        last, count = self.motion.passes - 1, len(self.frames)
        record = {
            **self._run(),
            "frames": count,
            "cuts": [i for i in range(1, count) if self.frames[i]["cut"]],
            **self._measured(last),
        }
        pictures = [self._painted(last, i) for i in range(count)]
        if self.to_folder:
            kept = {**record, "files": {it.name: sha256(it) for it in pictures}}
            write_whole(self._folder(last) / MANIFEST, lambda file: file.write(json.dumps(kept, indent=1).encode()))
            if self.output.exists():
                _check_unchanged(self.output)
                shutil.rmtree(self.output)
            self._folder(last).rename(self.output)
        else:
            times = [(frame["time"], frame["duration"]) for frame in self.frames]
            write_video(self.output, pictures, times, self.clip, record)
        self._clear()

    def _measured(self, number: int) -> dict[str, Any]:
        """The mean costs of the frames and their mean flicker, from the records of the frames."""
        pictures = [self._painted(number, i) for i in range(len(self.frames))]
        costs = [] if self.recipe.is_instant else [_costs(it) for it in pictures]
        flicker = [_numbers(it, "flicker") for it in pictures]
        return {"costs": _means([{name: it[name] for name in it if " " not in name} for it in costs]), "flicker": _means(flicker)}

    def _record(self) -> dict[str, Any]:
        """The record of the finished output."""
        if not self.to_folder:
            return read_video_record(self.output)
        record = _mapping(self.output / MANIFEST)
        if record is None:
            raise BadInput(f"{self.output} carries no recipe")
        return {key: value for key, value in record.items() if key != "files"}

    def _run(self) -> dict[str, Any]:
        """Everything that the bytes of the frames depend on."""
        found = circumstances(self.place)
        plans = {name: [written(plan) for plan in plans] for name, plans in self.plans.items()}
        return {**self.identity, **found, "plans": plans, "versions": {**found["versions"], "av": PYAV, "opencv": OPENCV}}

    def _write_manifest(self, found: dict[str, Any]) -> None:
        write_whole(self.work / MANIFEST, lambda file: file.write(json.dumps({**self._run(), **found}, indent=1).encode()))

    def _clear(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)

    def _folder(self, number: int) -> Path:
        return self.work / f"pass-{number + 1}"

    def _painted(self, number: int, i: int) -> Path:
        return self._folder(number) / f"{self.frames[i]['name']}.png"

    def _input(self, i: int) -> Tensor:
        return self._input_picture(i).image

    def _input_picture(self, i: int) -> Picture:
        return self._read(self.work / "input" / f"{self.frames[i]['name']}.png")

    def _read(self, path: Path) -> Picture:
        picture = read_picture(path)
        if size_of(picture.image) != self.size:
            raise BadInput(f"{path} has another size than the frames of this video: remove {self.work} and start again")
        return picture


def _check_colors(recipe: Recipe) -> None:
    """Raise BadRecipe for colours that are applied after painting, since the next frame starts from this one."""
    if recipe.color_when == "after" and {recipe.color, *(it.color for it in recipe.regions.values())} - {"style", None}:
        raise BadRecipe("color_when is 'after', must be before: each frame of a video starts from the last")
    for name, region in recipe.regions.items():
        if region.color == "luminance" and not recipe.paints_light:
            why = "which is applied after painting, and each frame of a video starts from the last"
            raise BadRecipe(f"the region {name} has color luminance, {why}")


def _check_motion(recipe: Recipe, motion: Motion) -> None:
    """Raise BadRecipe for options that a video of quality instant does not follow."""
    plain = Motion(start=motion.start)
    options = {"steps": "frame_steps"}
    changed = [options.get(it.name, it.name) for it in fields(Motion) if getattr(motion, it.name) != getattr(plain, it.name)]
    if recipe.is_instant and changed:
        raise BadRecipe(f"a video of quality instant does not follow {', '.join(changed)}: leave them out, or use quality draft")


def _covered(otherwise: Tensor, moved: Sequence[Tensor], links: Sequence[Link]) -> Tensor:
    """The moved pictures, the first on top, where they show what the frame shows; elsewhere `otherwise`, with soft edges."""
    for picture, found in reversed(list(zip(moved, links, strict=True))):
        otherwise = torch.lerp(otherwise, picture, softened(found.seen))
    return otherwise


def _costs(path: Path) -> dict[str, float]:
    """The costs in the record of a painted frame. Raises BadInput if it has none."""
    costs = _numbers(path, "costs")
    if "total" not in costs:
        raise BadInput(f"{path} has no costs in its record: remove it, and --resume paints it again")
    return costs


def _numbers(path: Path, name: str) -> dict[str, float]:
    """The numbers by this name in the record of a painted frame. Raises BadInput if it has none."""
    numbers = read_record(path).get(name)
    if not isinstance(numbers, dict) or not all(isinstance(it, int | float) for it in numbers.values()):
        raise BadInput(f"{path} has no {name} in its record: remove it, and --resume paints it again")
    return numbers


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each number over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: fmean(row[name] for row in rows if name in row) for name in names}


def _mapping(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; None if there is none."""
    try:
        found = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty or holds a finished video, so that a new one may replace it."""
    return not any(folder.iterdir()) or "files" in (_mapping(folder / MANIFEST) or {})


def _check_unchanged(folder: Path) -> None:
    """Raise CannotWrite if a folder of frames holds other or changed files, before it is removed."""
    files = (_mapping(folder / MANIFEST) or {}).get("files")
    ours = files if isinstance(files, dict) else {}
    for path in folder.iterdir():
        if path.name != MANIFEST and (path.is_symlink() or not path.is_file() or ours.get(path.name) != sha256(path)):
            raise CannotWrite(
                f"the folder {folder} holds other files than frames by Impasto, {path.name}: choose a new one with -o"
            )


def _is_work(folder: Path) -> bool:
    """Whether a folder holds an unfinished video and nothing else, so that it may be removed."""
    files = [it for it in folder.rglob("*") if it.is_symlink() or not it.is_dir()]
    names = [it.name for it in folder.iterdir()] + [it.name for it in files if it.suffix != ".png"]
    return all(map(OURS.fullmatch, names)) and (not files or folder / MANIFEST in files)
