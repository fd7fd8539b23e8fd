"""A painting from its input files to a finished file that carries its recipe.

While it is painted, a checkpoint lies beside the output; painting again with resume continues to the same bytes.
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
from functools import cached_property, partial
from importlib.metadata import version
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import torch

from impasto.cache import Cache
from impasto.errors import BadImage, BadInput, BadRecipe, CannotWrite, ImpastoError, ImpastoWarning, NoRoom
from impasto.feedforward.apply import InstantPainter
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
from impasto.machine import can_map_files, peak_memory_mb
from impasto.nets.kernels import has_winograd
from impasto.nets.nets import Compute, Net
from impasto.objective.color_transfer import recolored
from impasto.objective.framing import asked_crops, crop_picture, finished_size, painted_size, style_crops
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
from impasto.transfer.memory_plan import (
    FLOAT,
    SPARE,
    Plan,
    default_budget,
    held_memory,
    is_plan_for,
    read_plan,
    written,
)
from impasto.transfer.transfer import (
    Execution,
    Extras,
    alpha_at,
    canvas_of,
    check_edit,
    check_fit,
    finished,
    make_net,
    painted_scales,
    plan_scales,
    stylize,
)
from impasto.weights import Loaded, load_weights

CHECKPOINT_SECONDS = 5.0
RETRY_SECONDS = 60.0  # after a checkpoint that could not be written
# Parts of the error messages of libraries that ran out of memory; the last is oneDNN's.
NO_MEMORY = r"allocate memory|out of memory|bad_alloc|ALLOC_FAILED|could not create a (primitive$|memory object)"
SHRINK = 0.6  # share of the predicted memory for the new plan, after a plan that did not fit
OLD_FILE = {"bits": 8, "profile": None}  # for older records, which do not have the entry
PICTURE_SHARE = 0.1  # share of the memory budget from which an input picture is kept on disk
CHECKPOINT_SHARE = 20  # least ratio of the time between two checkpoints to the time that writing one takes


def recipe_of(path: Path) -> Recipe:
    """The recipe in a painting's file, without paths, since anyone may have written it. Raises BadImage if there is none."""
    recipe = read_record(path).get("recipe")
    if not isinstance(recipe, dict):
        raise BadImage(f"{path} carries no recipe")
    return checked_recipe(checked_recipe(recipe).model_dump(mode="json"))


def circumstances(place: Compute) -> dict[str, Any]:
    """What the bytes of a painting depend on besides its recipe, inputs and plans: versions, device, threads, kernels."""
    versions = {name: version(name) for name in ("impasto", "torch", "pillow", "numpy", "scipy")}
    return {"versions": versions, "place": asdict(place), "threads": torch.get_num_threads(), "winograd": has_winograd()}


class Painting:
    """One painting, from its input files to `output`. The constructor reads the inputs and raises every error they contain."""

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
        self.place = Compute() if recipe.is_instant else place or Compute()
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
        given = [self.cache.get_or_make(("picture", *_state_of(style)), (), partial(read, style)) for style in styles]
        self.crops = [*zip(styles, style_crops([style.image for style in given], recipe), strict=True)]
        self.styles = [  # cached, so that paintings with the same style picture share its targets
            self.cache.get_or_make(("crop", path, crop), (style,), partial(crop_picture, style, crop))
            for style, (path, crop) in zip(given, self.crops, strict=True)
        ]
        self.start = None if start is None else read(start)
        self.pictures = [style.image for style in self.styles]
        self.alphas = [picture.alpha for picture in (self.content, *self.styles)]
        check_room(output, 3 * bits / 8 * prod(finished_size(self.content.image, recipe.size, recipe)))
        self.bits, self.profile = bits, usable_profile(self.content) if keep_profile else None
        check_fit(self.content.image, self.pictures, recipe, self._start_image())
        self.masks = read_masks(recipe, self.content.image, self.pictures)
        self.weights, self.painter = (weights, weights_input), InstantPainter.needed_by(recipe, self.pictures)
        self.scales = painted_scales(self.content.image, self.pictures, recipe)
        self.held = held_memory(None if recipe.is_instant else self.net)
        self.plans = self._planned(budget)
        self.identity = self._identity()
        self.state: State | None = None
        self.seconds = 0.0

    @cached_property
    def loaded(self) -> Loaded:
        """The weights of the net."""
        load = partial(load_weights, self.recipe.net, *self.weights)
        return self.cache.get_or_make(("weights", self.recipe.net, *self.weights), (), load)

    @cached_property
    def net(self) -> Net:
        """The net that a descent compares with; quality instant needs none."""
        return make_net(self.recipe, self.loaded, self.place, self.cache)

    def steps(self, *, resume: bool = False, seconds: float | None = None, save_every: int = 0) -> Iterator[Step]:
        """Paint, with checkpoints on the way; at the end write the finished picture and remove the checkpoint.

        `resume` continues from the checkpoint, and leaves a finished painting alone. `seconds` is a time limit: then the finest
        picture so far is written, and the checkpoint stays for a resume. `save_every` writes an intermediate picture every so many
        steps, such as out-0050.png. Raises NoRoom if memory runs out, after saving the picture so far and a checkpoint.
        """
        if resume and self.is_finished():
            remove_checkpoint(checkpoint_path(self.output))
            return
        if not resume and checkpoint_path(self.output).exists():
            message = "discarding the checkpoint of an unfinished painting (use --resume to continue it)"
            warnings.warn(message, ImpastoWarning, stacklevel=2)
        begun, is_done = time.monotonic(), False
        with _restored_threads():
            self.state = self._resumed() if resume else None
            self._prepare_folder()
            checkpoints = _Checkpoints(self)
            while not is_done:
                recipe = self.recipe
                with self._replanned():
                    for step in self._stylize(seconds and seconds - (time.monotonic() - begun)):
                        self.state = step.state
                        if save_every and step.i % save_every == 0:
                            self._write(self.output.with_stem(f"{self.output.stem}-{step.i:04d}"), self.shown(step), "on its way")
                        checkpoints.save_if_due()
                        yield step
                        if self.recipe is not recipe:  # change()
                            break
                    is_done = self.recipe is recipe
            self.seconds = time.monotonic() - begun
            self._finish()

    def style_notes(self) -> Iterator[str]:
        """A line for each style picture of which margins or a frame were found, or whose style an instant picture has to guess."""
        for (path, crop), asked in zip(self.crops, asked_crops(self.recipe, len(self.crops)), strict=True):
            if crop is not None and asked == "auto":
                box = ",".join(map(str, crop))
                yield f"{path}: using the part {box}, without margins or frame (--style-crop none uses all of it)"
        for (path, _), known in zip(self.crops, self.painter.known if self.painter else (), strict=False):
            if known.guess:
                yield f"{path}: not learned, painting with {known.guess} (impasto learn {path} learns it)"

    def shown(self, step: Step) -> torch.Tensor:
        """The picture of a step, (1, 3, H, W), with the colour rules of the finished painting."""
        return recolored(step.image, self.content.image, self.recipe, self.content.alpha, self.masks)

    def change(self, knobs: dict[str, Any]) -> None:
        """Change these knobs, a subset of CHANGEABLE, from the next step on; the recipe records it. Raises BadRecipe."""
        i = 0 if self.state is None else self.state.i
        changes = {**self.recipe.changes, i: {**self.recipe.changes.get(i, {}), **knobs}}
        recipe = checked_recipe({**dict(self.recipe), "changes": changes})
        check_edit(recipe.at(i), self.net)
        check_fit(self.content.image, self.pictures, recipe.at(i), self._start_image())
        self.recipe, self.identity = recipe, {**self.identity, "recipe": recipe.model_dump(mode="json")}

    def _prepare_folder(self) -> None:
        """Make the folder for the files of plans on disk, if there are any, with no files but those of the state."""
        if self.state is None and self.folder.exists():
            remove_checkpoint(checkpoint_path(self.output))
        if any(plan.on_disk for plan in self.plans):
            make_folder(self.folder)
            clear_folder(checkpoint_path(self.output))

    def _disk_room(self) -> float:
        """Bytes that files may take: the free space less a margin, and the files of an earlier run of this painting."""
        if not can_map_files():
            return 0.0
        ours = sum(file.stat().st_size / file.stat().st_nlink for file in self.folder.glob("*") if file.is_file())
        return ours + (1 - SPARE) * shutil.disk_usage(self.output.parent).free

    def _planned(self, budget: float) -> list[Plan]:
        net = None if self.recipe.is_instant else self.net
        plans = plan_scales(self.content.image, self.pictures, self.recipe, net, self.held, budget, self._disk_room())
        if net is None:
            return plans
        if any(plan.history < self.recipe.history for plan in plans):
            message = "to fit into memory L-BFGS remembers fewer steps, which changes the picture"
            warnings.warn(f"{message}: {', '.join(str(plan.history) for plan in plans)}", ImpastoWarning, stacklevel=2)
        return plans

    @contextlib.contextmanager
    def _replanned(self) -> Iterator[None]:
        """Where memory runs out, make smaller plans for another try. Raises NoRoom if there are none."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._shrink(error)

    def _shrink(self, error: Exception) -> None:
        """Make new plans with less memory from the scale that ran out of it on. Raises NoRoom if no plan takes less."""
        if self.place.device != "cpu":
            raise NoRoom(f"out of memory on {self.place.device}: try a smaller --size{self._saved()}") from error
        index = self._scale()
        less = self.held + SHRINK * (max(plan.peak for plan in self.plans[index:]) - self.held)
        try:
            self.plans[index:] = self._planned(less)[index:]
        except NoRoom as smaller:
            raise NoRoom(f"out of memory: try a smaller --size{self._saved()} ({smaller})") from error
        make_folder(self.folder)
        warnings.warn(f"out of memory: continuing {self.plans[index]}", ImpastoWarning, stacklevel=2)

    def _saved(self) -> str:
        """Save the picture so far; the part of an error message that names its file."""
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
        """Save the picture so far and a checkpoint after an interruption. Returns its path, or None before the first step.

        The path is the output's, or, if a finished picture is already there, beside it as out-so-far.png.
        """
        if self.state is None:
            return None
        path = self.output if self._is_free() else self.output.with_stem(f"{self.output.stem}-so-far")
        self._write_final(path, "interrupted")
        save_checkpoint(checkpoint_path(self.output), self.state, self._run())
        return path

    def _is_free(self) -> bool:
        """Whether the output does not exist, or is unfinished."""
        try:
            return not self.output.exists() or read_record(self.output).get("ended") == "interrupted"
        except BadImage:
            return False

    def is_finished(self) -> bool:
        """Whether the output is this same painting, finished."""
        try:
            record = read_record(self.output)
        except BadImage:
            return False
        expected = {**self.identity, "file": self._file()}
        return record.get("ended") in ("finished", "finished in time") and all(
            record.get(key, OLD_FILE if key == "file" else None) == value for key, value in expected.items()
        )

    def report(self) -> dict[str, Any]:
        """The record of the finished painting, and the costs of the picture in its file; an instant one has none."""
        record = read_record(self.output)
        with self._folder_if(self.plans[-1].on_disk) as folder:
            image = self._read_again(folder)
            costs = {} if self.recipe.is_instant else self._costs(image, folder)
        return {
            "output": str(self.output),
            "width": image.shape[-1],
            "height": image.shape[-2],
            "net": self.recipe.net,
            "seed": self.recipe.seed,
            "seconds": round(self.seconds, 2),
            "peak_memory_mb": peak_memory_mb(),
            "costs": {**{name: costs[name] for name in costs if " " not in name}, **_grouped(costs)} if costs else {},
            **record,
        }

    def _costs(self, image: torch.Tensor, folder: Path | None) -> dict[str, float]:
        recipe, tiling = self.recipe.at_last(), self.plans[-1].tiling
        given = self.content.image, self.pictures, recipe, self.net, tiling, self.masks, self.alphas
        return costs_of(image, *given, folder)

    def _read_again(self, folder: Path | None) -> torch.Tensor:
        """The finished picture (1, 3, H, W), read from its file."""
        if self.output.suffix.lower() == DEEP_ZOOM:
            return read_deep_zoom(self.output, folder)
        return read_picture(self.output, keep_hidden=True, folder=folder).image

    @contextlib.contextmanager
    def _folder_if(self, on_disk: bool) -> Iterator[Path | None]:
        """A temporary folder for files if the plan is on disk, else None."""
        if not on_disk:
            yield None
            return
        with temporary_folder(self.output) as folder:
            yield folder

    def _stylize(self, seconds: float | None) -> Iterator[Step]:
        extras = Extras(self._start_image(), self.masks, self.alphas)
        execution = Execution(self.plans, self.folder, self.cache, seconds, self.painter)
        net = None if self.recipe.is_instant else self.net
        return stylize(self.content.image, self.pictures, self.recipe, net, extras, execution, self.state)

    def _start_image(self) -> torch.Tensor | None:
        return None if self.start is None else self.start.image

    def _identity(self) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "content": self.content.sha256,
            "styles": [style.sha256 for style in self.styles],
            "start": None if self.start is None else self.start.sha256,
        }
        inputs |= {"masks": dict(self.masks.hashes)} if self.masks.hashes else {}
        weights = {} if self.recipe.is_instant else {"sha256": self.loaded.digest, "input": self.loaded.input}
        weights |= self.painter.used if self.painter else {}
        return {"recipe": self.recipe.model_dump(mode="json"), "inputs": inputs, "weights": weights}

    def _run(self) -> dict[str, Any]:
        """Everything that the bytes of the painting depend on."""
        return {**self.identity, "plans": [written(plan) for plan in self.plans], **circumstances(self.place)}

    def _resumed(self) -> State | None:
        loaded = load_checkpoint(checkpoint_path(self.output), self.identity, self._check)
        if loaded is None:
            return None
        state, run = loaded
        finest = painted_size(self.content.image, self.scales[-1][0], self.recipe)
        state = replace(state, canvas=canvas_of(self.recipe, state.x.shape[-2:] == finest))
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
                message = (
                    f"continuing as the checkpoint was begun, with the finest scale {self.plans[-1].way}: the bytes depend on it"
                )
                warnings.warn(message, ImpastoWarning, stacklevel=2)
        return state

    def _check(self, state: State, run: dict[str, Any]) -> None:
        """Raise BadInput or ValueError for a checkpoint that cannot come from this painting; its file is not to be trusted."""
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
            message = f"the time limit ended after step {self.state.i} of {of}: {self.output} is unfinished, --resume continues"
            warnings.warn(message, ImpastoWarning, stacklevel=3)
        else:
            if self.state.truncated:
                warnings.warn("coarser scales got fewer steps to keep to the time limit", ImpastoWarning, stacklevel=3)
            self._write_final(self.output, "finished in time" if self.state.truncated else "finished")
            remove_checkpoint(checkpoint_path(self.output))

    def _write_final(self, path: Path, ended: str) -> None:
        assert self.state is not None
        image = finished(self.state.image, self.content.image, self.recipe, self.bits, self.content.alpha, self.masks)
        try:
            self._write(path, image, ended)
        except (NoRoom, CannotWrite) as error:
            raise type(error)(f"{error}{self._written_elsewhere(image, ended)}") from error

    def _written_elsewhere(self, image: torch.Tensor, ended: str) -> str:
        """Write a picture that cannot be written to its path to the system's temporary folder; the message that names it."""
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
        """The alpha channel: that of the content picture; none for a texture, which has no content."""
        if not self.recipe.has_content:
            return None
        return alpha_at(self.content.alpha, image, self.recipe)

    def _write(self, path: Path, image: torch.Tensor, ended: str) -> None:
        assert self.state is not None
        self._spare_inputs(path)
        record = {**self._run(), "file": self._file(), "steps": self.state.i, "ended": ended}
        write_picture(path, image, self._alpha(image), record, self.bits, self.profile)

    def _file(self) -> dict[str, Any]:
        """The file's bit depth and profile: not knobs of the recipe, since the picture is the same."""
        return {"bits": self.bits, "profile": None if self.profile is None else hashlib.sha256(self.profile).hexdigest()}


@contextlib.contextmanager
def _restored_threads() -> Iterator[None]:
    """Restore torch's number of threads, which a checkpoint may change."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _grouped(costs: dict[str, float]) -> dict[str, dict[str, float]]:
    """The style cost by layer and, if several costs are chosen, by cost."""
    groups = {"style_layers": "style ", "style_costs": "style_cost "}
    found = {
        name: {key.removeprefix(of): value for key, value in costs.items() if key.startswith(of)} for name, of in groups.items()
    }
    return {name: its for name, its in found.items() if its or name == "style_layers"}


class _Checkpoints:
    """Writes a checkpoint every few seconds; if that fails, it warns, tries again later, and the painting continues."""

    def __init__(self, painting: Painting) -> None:
        self.painting, self.due = painting, time.monotonic() + CHECKPOINT_SECONDS

    def save_if_due(self) -> None:
        begun = time.monotonic()
        if begun < self.due or self.painting.state is None:
            return
        try:
            save_checkpoint(checkpoint_path(self.painting.output), self.painting.state, self.painting._run())
        except ImpastoError as error:
            warnings.warn(f"the painting continues without a checkpoint: {error}", ImpastoWarning, stacklevel=2)
            self.due = begun + RETRY_SECONDS
            return
        now = time.monotonic()
        self.due = now + max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * (now - begun))


def _read(folder: Path, budget: float, path: Path) -> Picture:
    """Read an input picture: into a file of the folder if it would take much of the budget."""
    height, width = declared_size(path)
    is_large = 3 * FLOAT * height * width > PICTURE_SHARE * budget
    return read_picture(path, folder=folder if is_large and can_map_files() else None)


def _state_of(path: Path) -> tuple[Any, ...]:
    """A key that changes when the file does; a missing file has one too."""
    try:
        stat = path.stat()
    except OSError:
        return (path,)
    return path, stat.st_mtime_ns, stat.st_size, stat.st_ino


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, torch or a library below it ran out of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or re.search(NO_MEMORY, str(error)) is not None
