"""A painting on disk: from files to a finished file that carries its recipe, losing nothing on the way.

While it is painted a checkpoint lies beside it; painting it again with resume continues to the same bytes.
"""

import contextlib
import hashlib
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import torch

from impasto.cache import Cache
from impasto.disk import is_possible
from impasto.errors import BadImage, BadInput, BadRecipe, CannotWrite, ImpastoError, ImpastoWarning, NoRoom
from impasto.files import check_room, check_writable, make_folder, temporary_folder
from impasto.images.formats import DEEP_ZOOM
from impasto.images.images import (
    Picture,
    check_format,
    declared_size,
    read_deep_zoom,
    read_picture,
    read_record,
    usable_profile,
    write_picture,
)
from impasto.machine import peak_memory_mb
from impasto.nets.kernels import has_winograd
from impasto.nets.nets import Compute
from impasto.objective.color_transfer import recolored
from impasto.objective.framing import finished_size, painted_size
from impasto.objective.masks import read_masks
from impasto.objective.objective import costs_of
from impasto.recipe.recipe import Recipe, checked_recipe
from impasto.transfer.checkpoint import (
    checkpoint_path,
    clear_folder,
    disk_folder,
    load_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)
from impasto.transfer.descent import State, Step, can_resume
from impasto.transfer.memory_plan import FLOAT, SPARE, Plan, default_budget, held_memory, is_plan_for, read_plan, written
from impasto.transfer.transfer import alpha_at, check_edit, check_fit, finished, make_net, painted_scales, plan_scales, stylize
from impasto.weights import load_weights

CHECKPOINT_SECONDS = 5.0
RETRY_SECONDS = 60.0  # after a checkpoint that could not be written
# What libraries say; the last is oneDNN.
NO_MEMORY = r"allocate memory|out of memory|bad_alloc|ALLOC_FAILED|could not create a (primitive$|memory object)"
SHRINK = 0.6  # of what was predicted for a plan that did not fit
OLD_FILE = {"bits": 8, "profile": None}  # of paintings whose record does not say
PICTURE_SHARE = 0.1  # of the budget, that one of the pictures to paint from may take in memory
CHECKPOINT_SHARE = 20  # where writing one takes long, painting takes at least this many times as long between two


def recipe_of(path: Path) -> Recipe:
    """The recipe that a painting carries. Raises BadImage where there is none. It names no files, whoever wrote it."""
    recipe = read_record(path).get("recipe")
    if not isinstance(recipe, dict):
        raise BadImage(f"{path} carries no recipe")
    return checked_recipe(checked_recipe(recipe).model_dump(mode="json"))


def circumstances(place: Compute) -> dict[str, Any]:
    """What the bytes of a painting depend on beside its recipe, inputs and plans."""
    versions = {name: version(name) for name in ("impasto", "torch", "pillow", "numpy", "scipy")}
    return {"versions": versions, "place": asdict(place), "threads": torch.get_num_threads(), "winograd": has_winograd()}


class Painting:
    """One painting, from its input files to `output`. Everything that can be wrong with them is raised here, before the work."""

    def __init__(
        self,
        content: Path,
        styles: Sequence[Path],
        output: Path,
        recipe: Recipe,
        *,
        start: Path | None = None,
        weights: Path | None = None,
        weights_input: str | None = None,
        place: Compute | None = None,
        max_memory: float | None = None,
        bits: int = 8,
        keep_profile: bool = False,
        cache: Cache | None = None,
    ) -> None:
        self.place = place or Compute()
        if max_memory and self.place.device != "cpu":
            raise BadRecipe(f"--max-memory is for the CPU, this painting is to be made on {self.place.device}")
        check_format(output, recipe.size, bits)
        check_writable(output)
        check_writable(checkpoint_path(output))
        self.output, self.recipe, self.folder = output, recipe, disk_folder(checkpoint_path(output))
        self.inputs = [given for given in (content, *styles, start, *recipe.mask_files().values()) if given is not None]
        self._spare_inputs(output)
        budget = max_memory or default_budget()
        read = partial(_read, output.parent, budget)
        self.content = read(content)
        self.cache = cache or Cache()
        self.styles = [self.cache.get_or_make(("picture", *_state_of(style)), (), partial(read, style)) for style in styles]
        self.start = None if start is None else read(start)
        self.pictures = [style.image for style in self.styles]
        self.alphas = [picture.alpha for picture in (self.content, *self.styles)]
        check_room(output, 3 * bits / 8 * prod(finished_size(self.content.image, recipe.size, recipe)))
        self.bits, self.profile = bits, usable_profile(self.content) if keep_profile else None
        check_fit(self.content.image, self.pictures, recipe, self._start_image())
        self.masks = read_masks(recipe, self.content.image, self.pictures)
        load = partial(load_weights, recipe.net, weights, weights_input)
        loaded = self.cache.get_or_make(("weights", recipe.net, weights, weights_input), (), load)
        self.net = make_net(recipe, loaded, self.place, self.cache)
        self.scales = painted_scales(self.content.image, self.pictures, recipe)
        self.held = held_memory(self.net)
        self.plans = self._planned(budget)
        self.identity = self._identity({"sha256": loaded.digest, "input": loaded.input})
        self.state: State | None = None
        self.seconds = 0.0

    def steps(self, *, resume: bool = False, seconds: float | None = None, save_every: int = 0) -> Iterator[Step]:
        """Paint, keeping checkpoints; the finished picture is written at the end and the checkpoint goes.

        `resume` continues from the checkpoint, and leaves a finished painting alone. `seconds` ends in time with the finest
        picture so far, and keeps the checkpoint for a resume. `save_every` writes the picture on its way, out-0050.png, every so
        many steps. Raises NoRoom when memory runs out, with the picture so far and a checkpoint saved.
        """
        threads = torch.get_num_threads()
        try:
            yield from self._steps(resume, seconds, save_every)
        finally:
            torch.set_num_threads(threads)  # those of a checkpoint may be others

    def _steps(self, resume: bool, seconds: float | None, save_every: int) -> Iterator[Step]:
        begun = time.monotonic()
        if resume and self.is_finished():
            remove_checkpoint(checkpoint_path(self.output))
            return
        if not resume and checkpoint_path(self.output).exists():
            said = "discarding the checkpoint of an unfinished painting (use --resume to continue it)"
            warnings.warn(said, ImpastoWarning, stacklevel=2)
        self.state = self._resumed() if resume else None
        self._prepare_folder()
        keeper = _Keeper(self)
        while True:
            recipe = self.recipe
            try:
                for step in self._stylize(seconds and seconds - (time.monotonic() - begun)):
                    self.state = step.state
                    if save_every and step.i % save_every == 0:
                        self._write(self.output.with_stem(f"{self.output.stem}-{step.i:04d}"), self.shown(step), "on its way")
                    keeper.keep()
                    yield step
                    if self.recipe is not recipe:
                        break
                else:
                    break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(error)
        self.seconds = time.monotonic() - begun
        self._finish()

    def shown(self, step: Step) -> torch.Tensor:
        """The picture of a step in the colours that the painting will have."""
        return recolored(step.image, self.content.image, self.recipe, self.content.alpha, self.masks)

    def change(self, knobs: dict[str, Any]) -> None:
        """Paint with these knobs, some of CHANGEABLE, from the next step on; the recipe says so. Raises BadRecipe."""
        i = 0 if self.state is None else self.state.i
        changes = {**self.recipe.changes, i: {**self.recipe.changes.get(i, {}), **knobs}}
        recipe = checked_recipe({**dict(self.recipe), "changes": changes})
        check_edit(recipe.at(i), self.net)
        check_fit(self.content.image, self.pictures, recipe.at(i), self._start_image())
        self.recipe, self.identity = recipe, {**self.identity, "recipe": recipe.model_dump(mode="json")}

    def _prepare_folder(self) -> None:
        """The folder for the files of plans on disk, with nothing in it but what the state holds; none where no plan is."""
        if self.state is None and self.folder.exists():
            remove_checkpoint(checkpoint_path(self.output))
        if any(plan.on_disk for plan in self.plans):
            make_folder(self.folder)
            clear_folder(checkpoint_path(self.output))

    def _disk_room(self) -> float:
        """Bytes that files may take: what is free less a margin, and what an earlier run has taken for this painting."""
        if not is_possible():
            return 0.0
        ours = sum(file.stat().st_size / file.stat().st_nlink for file in self.folder.glob("*") if file.is_file())
        return ours + (1 - SPARE) * shutil.disk_usage(self.output.parent).free

    def _planned(self, budget: float) -> list[Plan]:
        plans = plan_scales(self.content.image, self.pictures, self.recipe, self.net, self.held, budget, self._disk_room())
        if any(plan.history < self.recipe.history for plan in plans):
            said = "to fit into memory L-BFGS remembers fewer steps, which changes the picture"
            warnings.warn(f"{said}: {', '.join(str(plan.history) for plan in plans)}", ImpastoWarning, stacklevel=2)
        return plans

    def _shrink(self, error: Exception) -> None:
        """Plan the scale that ran out of memory, and those after it, anew with less. Raises NoRoom where nothing is less."""
        if self.place.device != "cpu":
            raise NoRoom(f"out of memory on {self.place.device}: try a smaller --size{self._saved()}") from error
        index = self._scale()
        less = self.held + SHRINK * (max(plan.peak for plan in self.plans[index:]) - self.held)
        try:
            self.plans[index:] = self._planned(less)[index:]
        except NoRoom as smaller:
            raise NoRoom(f"out of memory: try a smaller --size{self._saved()} ({smaller})") from error
        make_folder(self.folder)
        warnings.warn(f"out of memory: going on {self.plans[index]}", ImpastoWarning, stacklevel=2)

    def _saved(self) -> str:
        """What an error says of what there is of the picture, which is saved now."""
        path = self.set_aside()
        return "" if path is None else f"; {path} is the picture so far"

    def _scale(self) -> int:
        """The scale that the next step belongs to."""
        done, i = 0, 0 if self.state is None else self.state.i
        for index, (_, steps) in enumerate(self.scales):
            done += steps
            if i < done:
                return index
        return len(self.scales) - 1

    def set_aside(self) -> Path | None:
        """Save the picture so far and a checkpoint: what an interruption leaves behind. None before the first step.

        The picture takes the output's place, unless another, finished picture is there: then it lies beside it, as out-so-far.png.
        """
        if self.state is None:
            return None
        path = self.output if self._is_free() else self.output.with_stem(f"{self.output.stem}-so-far")
        self._write_final(path, "interrupted")
        save_checkpoint(checkpoint_path(self.output), self.state, self._run())
        return path

    def _is_free(self) -> bool:
        """Whether the output is not there yet, or not yet finished."""
        try:
            return not self.output.exists() or read_record(self.output).get("ended") == "interrupted"
        except BadImage:
            return False

    def is_finished(self) -> bool:
        """Whether the output is this very painting, done."""
        try:
            record = read_record(self.output)
        except BadImage:
            return False
        expected = {**self.identity, "file": self._file()}
        return record.get("ended") in ("finished", "finished in time") and all(
            record.get(key, OLD_FILE if key == "file" else None) == value for key, value in expected.items()
        )

    def report(self) -> dict[str, Any]:
        """What was painted, with the costs of the picture in the file."""
        record, tiling = read_record(self.output), self.plans[-1].tiling
        recipe = self.recipe.at_last()
        given = self.content.image, self.pictures, recipe, self.net, tiling, self.masks, self.alphas
        with self._folder_if(self.plans[-1].on_disk) as folder:
            image = self._read_again(folder)
            costs = costs_of(image, *given, folder)
        return {
            "output": str(self.output),
            "width": image.shape[-1],
            "height": image.shape[-2],
            "net": self.recipe.net,
            "seed": self.recipe.seed,
            "seconds": round(self.seconds, 2),
            "peak_memory_mb": peak_memory_mb(),
            "costs": {**{name: costs[name] for name in costs if " " not in name}, **_grouped(costs)},
            **record,
        }

    def _read_again(self, folder: Path | None) -> torch.Tensor:
        """The finished picture, as it is in its file."""
        if self.output.suffix.lower() == DEEP_ZOOM:
            return read_deep_zoom(self.output, folder)
        return read_picture(self.output, keep_hidden=True, folder=folder).image

    @contextlib.contextmanager
    def _folder_if(self, on_disk: bool) -> Iterator[Path | None]:
        """A folder for files that go again, where there are to be any."""
        if not on_disk:
            yield None
            return
        with temporary_folder(self.output) as folder:
            yield folder

    def _stylize(self, seconds: float | None) -> Iterator[Step]:
        picture, resume = self._start_image(), self.state
        options: dict[str, Any] = {"picture": picture, "resume": resume, "seconds": seconds, "plans": self.plans}
        options |= {"alphas": self.alphas, "masks": self.masks, "cache": self.cache, "folder": self.folder}
        return stylize(self.content.image, self.pictures, self.recipe, self.net, **options)

    def _start_image(self) -> torch.Tensor | None:
        return None if self.start is None else self.start.image

    def _identity(self, weights: dict[str, str]) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "content": self.content.sha256,
            "styles": [style.sha256 for style in self.styles],
            "start": None if self.start is None else self.start.sha256,
        }
        inputs |= {"masks": dict(self.masks.hashes)} if self.masks.hashes else {}
        return {"recipe": self.recipe.model_dump(mode="json"), "inputs": inputs, "weights": weights}

    def _run(self) -> dict[str, Any]:
        """What the bytes of the painting depend on."""
        return {**self.identity, "plans": [written(plan) for plan in self.plans], **circumstances(self.place)}

    def _resumed(self) -> State | None:
        loaded = load_checkpoint(checkpoint_path(self.output), self.identity, self._check)
        if loaded is None:
            return None
        state, run = loaded
        if run["versions"] != self._run()["versions"]:
            warnings.warn("the checkpoint was made by other versions: the bytes may differ", ImpastoWarning, stacklevel=2)
        torch.set_num_threads(run["threads"])
        if run["place"] != asdict(self.place):
            warnings.warn("the checkpoint was made on another device: the bytes will differ", ImpastoWarning, stacklevel=2)
        else:
            planned = self.plans
            pairs = zip(map(read_plan, run["plans"]), planned, strict=True)
            self.plans = [replace(plan, peak=now.peak, disk=now.disk) for plan, now in pairs]
            if self.plans != planned:
                said = f"going on as the checkpoint was begun, with the finest scale {self.plans[-1].way}: the bytes depend on it"
                warnings.warn(said, ImpastoWarning, stacklevel=2)
        return state

    def _check(self, state: State, run: dict[str, Any]) -> None:
        """Raise BadInput, ValueError for a state that is not one of this painting on its way, whatever says so."""
        plans, ends = [read_plan(plan) for plan in run["plans"]], list(accumulate(steps for _, steps in self.scales))
        side = next((side for (side, _), end in zip(self.scales, ends, strict=True) if 0 < state.i <= end), 0)
        shape = (1, 3, *painted_size(self.content.image, side, self.recipe)) if side else ()
        fits = len(plans) == len(self.scales) and all(is_plan_for(plan, self.net, self.recipe) for plan in plans)
        if not fits or state.x.shape != shape or not can_resume(state, self.recipe.optimizer):
            raise BadInput("its fields contradict each other")

    def _finish(self) -> None:
        assert self.state is not None  # stylize yields at least one step
        if self.state.i < (of := sum(steps for _, steps in self.scales)):
            self._write_final(self.output, "time budget")
            save_checkpoint(checkpoint_path(self.output), self.state, self._run())
            said = f"the time was up after step {self.state.i} of {of}: {self.output} is the picture so far, --resume goes on"
            warnings.warn(said, ImpastoWarning, stacklevel=3)
        else:
            if self.state.cut:
                warnings.warn("coarser scales got fewer steps, to stay within the time budget", ImpastoWarning, stacklevel=3)
            self._write_final(self.output, "finished in time" if self.state.cut else "finished")
            remove_checkpoint(checkpoint_path(self.output))

    def _write_final(self, path: Path, ended: str) -> None:
        assert self.state is not None
        image = finished(self.state.x, self.content.image, self.recipe, self.bits, self.content.alpha, self.masks)
        try:
            self._write(path, image, ended)
        except (NoRoom, CannotWrite) as error:
            raise type(error)(f"{error}{self._written_elsewhere(image, ended)}") from error

    def _written_elsewhere(self, image: torch.Tensor, ended: str) -> str:
        """Keep a picture that its place does not take in the system's temporary folder, and say where, if that can be."""
        try:
            path = Path(tempfile.mkdtemp(prefix="impasto-")) / self.output.name
            self._write(path, image, ended)
        except (OSError, ImpastoError):
            return ""
        return f"; the picture is {path}"

    def _spare_inputs(self, path: Path) -> None:
        if any(_same_file(path, given) for given in self.inputs):
            raise CannotWrite(f"{path} is one of the pictures to paint from: name another file with -o")

    def _alpha(self, image: torch.Tensor) -> torch.Tensor | None:
        """What of the painting shows: what shows of the content picture; all of a texture, which has none."""
        if not self.recipe.has_content:
            return None
        return alpha_at(self.content.alpha, image, self.recipe)

    def _write(self, path: Path, image: torch.Tensor, ended: str) -> None:
        assert self.state is not None
        self._spare_inputs(path)
        record = {**self._run(), "file": self._file(), "steps": self.state.i, "ended": ended}
        write_picture(path, image, self._alpha(image), record, self.bits, self.profile)

    def _file(self) -> dict[str, Any]:
        """How the file holds the picture: no knobs of the recipe, since the picture is the same."""
        return {"bits": self.bits, "profile": None if self.profile is None else hashlib.sha256(self.profile).hexdigest()}


def _grouped(costs: dict[str, float]) -> dict[str, dict[str, float]]:
    """The style cost by layer and, where there are several, by kind."""
    groups = {"style_layers": "style ", "style_costs": "style_cost "}
    found = {
        name: {key.removeprefix(of): value for key, value in costs.items() if key.startswith(of)} for name, of in groups.items()
    }
    return {name: its for name, its in found.items() if its or name == "style_layers"}


class _Keeper:
    """Writes a checkpoint every few seconds; when that fails it says so, tries later, and lets the painting go on."""

    def __init__(self, painting: Painting) -> None:
        self.painting, self.due = painting, time.monotonic() + CHECKPOINT_SECONDS

    def keep(self) -> None:
        begun = time.monotonic()
        if begun < self.due or self.painting.state is None:
            return
        try:
            save_checkpoint(checkpoint_path(self.painting.output), self.painting.state, self.painting._run())
        except ImpastoError as error:
            warnings.warn(f"painting on without a checkpoint: {error}", ImpastoWarning, stacklevel=2)
            self.due = begun + RETRY_SECONDS
            return
        now = time.monotonic()
        self.due = now + max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * (now - begun))


def _read(folder: Path, budget: float, path: Path) -> Picture:
    """A picture to paint from: on disk where it would take much of the budget."""
    height, width = declared_size(path)
    is_large = 3 * FLOAT * height * width > PICTURE_SHARE * budget
    return read_picture(path, folder=folder if is_large and is_possible() else None)


def _state_of(path: Path) -> tuple[Any, ...]:
    """What changes when a file does; a file that is not there has a state too."""
    try:
        stat = path.stat()
    except OSError:
        return (path,)
    return path, stat.st_mtime_ns, stat.st_size, stat.st_ino


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, torch or a library below it could not get the memory it asked for."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or re.search(NO_MEMORY, str(error)) is not None
