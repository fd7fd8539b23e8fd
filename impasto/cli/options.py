"""Options that several commands share. The help shows the groups that most people need; --help-all shows every group."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, make_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.help import DefaultFormatter
from cyclopts.validators import Number

from impasto.errors import BadRecipe
from impasto.recipe.recipe import Recipe, changed_recipe, make_recipe
from impasto.workers import WorkerOptions

MORE = "More options: add --help-all, or see docs/cli.md."


class Folded:
    """Prints a group of options only with --help-all."""

    is_open = False

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        """See cyclopts.help.DefaultFormatter."""
        if Folded.is_open:
            DefaultFormatter()(console, options, panel)


def _group(name: str, *, folded: bool = False) -> Group:
    return Group.create_ordered(name, help_formatter=Folded() if folded else None)


MAIN = _group("Main options")
OWN = _group("Options of this command")
COMMON = _group("Common options")
LOOK = _group("Content and style", folded=True)
COLOR = _group("Colours and regions", folded=True)
START = _group("Start picture", folded=True)
DESCENT = _group("Scales, steps and optimiser", folded=True)
NET = _group("Network", folded=True)
RUN = _group("Computation and files", folded=True)
MANY = _group("Workers and shards", folded=True)


def option(help: str, group: Group, *names: str, **more: Any) -> Parameter:
    """An option with its help. Flags have no --no- form."""
    return Parameter(name=names or None, help=help, group=group, negative=more.pop("negative", ()), **more)


Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
Whole = Annotated[int, Parameter(validator=Number(gte=0))]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Side = Annotated[int, Parameter(validator=Number(gte=16, lte=4096))]
Words = Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())]
Names = Annotated[str, Parameter(show_default=False)]
Output = Annotated[Path, Parameter(name=["--output", "-o"], group=MAIN)]
MaybeOutput = Annotated[Path | None, Parameter(name=["--output", "-o"], group=MAIN)]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], option("Where to compute.", COMMON)]
Json = Annotated[bool, option("Print a JSON object instead of the path.", COMMON, show_default=False)]
Quiet = Annotated[bool, option("Show no progress.", COMMON, "--quiet", "-q", show_default=False)]
Verbose = Annotated[bool, option("Show the recipe, and where an error happened.", COMMON, "--verbose", "-v", show_default=False)]
MaxMemory = Annotated[
    str | None,
    option(
        "Memory limit of the process (800MB, 2.5GB). Data above it goes to files. [default: the free memory less a tenth]",
        RUN,
    ),
]
WeightsFile = Annotated[
    Path | None, option("Load the network's weights from this file (.safetensors, or .pth of tensors only).", NET)
]
WeightsInput = Annotated[
    Literal["caffe", "torchvision"] | None,
    option("Input normalisation that the weights of --weights expect, if the file does not say.", NET),
]


def check_weights_input(weights: Path | None, weights_input: str | None) -> None:
    """Raise BadRecipe for --weights-input without --weights."""
    if weights_input and weights is None:
        raise BadRecipe("--weights-input is about the file of --weights: give that file too")


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """Options of every command that paints. They do not change the picture."""

    device: Device = "auto"
    json: Json = False
    quiet: Quiet = False
    verbose: Verbose = False
    max_memory: MaxMemory = None


@Parameter(name="*")
@dataclass(frozen=True)
class PaintOptions(RunOptions):
    """Options of the commands that paint one picture."""

    output: Annotated[
        Path | None,
        option(
            "The file to write: .png, .webp, .tif (lossless), .jpg or .dzi (zoomable tiles; extra hires). "
            "[default: named after the inputs]",
            MAIN,
            "--output",
            "-o",
        ),
    ] = None
    like: Annotated[Path | None, option("Use the recipe inside this painting by Impasto.", COMMON)] = None
    resume: Annotated[bool, option("Continue from the checkpoint beside the output.", COMMON, show_default=False)] = False
    time_budget: Annotated[
        timedelta | None, option("Stop after this time (90s, 10m, 1h30m) and save the best picture.", COMMON)
    ] = None
    save_every: Annotated[
        int, option("Save the unfinished picture every so many steps; 0 never does.", RUN, validator=Number(gte=0))
    ] = 0
    precision: Annotated[
        Literal["auto", "float32", "tf32", "bf16"],
        option("Precision of the convolutions. tf32 and bf16 need a GPU or CPU that has them.", RUN),
    ] = "auto"
    bits: Annotated[Literal[8, 16], option("Bits per channel of the file; 16 needs .png or .tif and the extra hires.", RUN)] = 8
    keep_profile: Annotated[
        bool, option("Write the picture in the photograph's colour profile, not in sRGB.", RUN, show_default=False)
    ] = False
    weights: WeightsFile = None
    weights_input: WeightsInput = None


@Parameter(name="*")
@dataclass(frozen=True)
class ManyOptions(WorkerOptions):
    """Options of the commands that can run on several processes or machines."""

    ray: Annotated[
        list[str] | None,
        option(
            "Use Ray workers: of the cluster at this address (host:port, or auto), or of a private Ray if there is no address.",
            MANY,
            consume_multiple=(0, 1),
        ),
    ] = None
    workers: Annotated[
        int | None, option("Number of Ray workers. [default: as many as there is room for]", MANY, validator=Number(gte=1))
    ] = None
    threads: Annotated[
        int | None,
        option("Threads of each worker; the bytes depend on it. [default: those of torch]", MANY, validator=Number(gte=1)),
    ] = None
    gpus_each: Annotated[
        float | None, option("GPUs of each worker, as 0.5. [default: 1 if there are any]", MANY, validator=Number(gte=0))
    ] = None
    timeout: Annotated[
        float | None,
        option("Stop and retry a worker after so many seconds without progress. [default: 3600]", MANY, validator=Number(gt=0)),
    ] = None
    shard: Annotated[
        str,
        option(
            "Do only this part of the work, as 2/5; auto asks Slurm, torchrun or Kubernetes. Run all parts with the same options; "
            "the last one completes the result.",
            MANY,
        ),
    ] = "1/1"


# The knobs of a recipe


IN_GROUPS: dict[Group, str] = {
    MAIN: "preset size quality beta composition",
    COMMON: "style_scale style_weights color protect shape seamless",
    LOOK: "alpha calm tv style_crop style_rotation content_layers style_layers style_edit style_costs content_costs content_norm "
    "style_norm",
    COLOR: "color_when color_space match_light regions",
    START: "init init_noise noise_width seed",
    DESCENT: "coarsest steps fine_steps optimizer lr history falloff clean_color detail strokes changes",
    NET: "net pooling padding normalize_net",
}
GROUP_OF = {name: group for group, names in IN_GROUPS.items() for name in names.split()}
DEFAULTS = make_recipe().model_dump() | dict.fromkeys(("style_edit", "changes", "regions", "protect"), "none")
DEFAULTS |= {"content_layers": "the preset's", "style_layers": "the preset's", "style_weights": "equal", "style_costs": "gram"}
DEFAULTS |= {"content_costs": "features", "shape": "the photograph's"}


def _knob(name: str) -> tuple[str, Any, None]:
    """A field of Recipe as an option without a default of its own."""
    field = Recipe.model_fields[name]
    simple: Any = field.annotation if field.annotation in (int, float, str, bool) or "Literal" in str(field.annotation) else str
    text = f"{str(field.description)[:1].upper()}{str(field.description)[1:]}. [default: {DEFAULTS[name]}]"
    negative = f"--no-{name.replace('_', '-')}" if simple is bool else ()
    return name, Annotated[simple | None, option(text, GROUP_OF[name], negative=negative)], None


Knobs = make_dataclass("Knobs", map(_knob, sorted(Recipe.model_fields, key=list(GROUP_OF).index)))
Knobs.__module__ = __name__
Given = Annotated[Knobs | None, Parameter(name="*")]  # type: ignore[valid-type]


def given(knobs: Any) -> dict[str, Any]:
    """The knobs that are on the command line."""
    return {} if knobs is None else {name: value for name, value in asdict(knobs).items() if value is not None}


def recipe_from(
    knobs: Mapping[str, Any], like: Path | None = None, init_image: Path | None = None, preset: str = "impasto"
) -> Recipe:
    """The recipe of the preset, or of the painting `like`, with these knobs. Raises BadRecipe."""
    knobs = ({} if init_image is None else {"init": "picture"}) | dict(knobs)
    if like is None:
        return make_recipe(**{"preset": preset, **knobs})
    if "preset" in knobs:
        raise BadRecipe("--like brings a recipe and --preset another: give one of the two")
    from impasto.transfer.painting import recipe_of

    return changed_recipe(recipe_of(like), knobs)


# Values


def memory_of(size: str | None) -> float | None:
    """800MB, 2.5 GB -> bytes; None stays None. Raises BadRecipe."""
    if size is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)B?\s*", size, re.IGNORECASE)
    if not found or not float(found[1]):
        raise BadRecipe(f"--max-memory is {size!r}, must be a size like 800MB or 2.5GB")
    return float(found[1]) * 1000.0 ** " kmgt".index(found[2].lower() or " ")


def numbers_of(name: str, text: str, kind: Callable[[str], Any], must_be: str) -> list[Any]:
    """ "1,2,4" -> numbers above 0. Raises BadRecipe."""
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < it < float("inf") for it in numbers):
        raise BadRecipe(f"{name} is {text!r}, must be {must_be}")
    return numbers


def names_of(text: str) -> list[str]:
    """ "conv1, conv5" -> its names; "" has none."""
    return [name for name in text.replace(" ", "").split(",") if name]


def shown_as(arguments: str) -> dict[str, Any]:
    """The arguments of App.command for a command with this usage line."""
    return {"usage": f"Usage: impasto {arguments} [OPTIONS]", "help_epilogue": MORE}
