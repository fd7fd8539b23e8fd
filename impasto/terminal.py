"""What a command says while it works: on stderr, since stdout carries results alone."""

import contextlib
import sys
from typing import Annotated

from cyclopts import Parameter

PLAIN_SECONDS = 10.0  # between two lines where there is no terminal to draw a bar on
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative=(), help="no progress")]
Verbose = Annotated[bool, Parameter(name=["--verbose", "-v"], negative=(), help="show the recipe, and where an error arose")]


def say(line: str) -> None:
    """One line on stderr."""
    with contextlib.suppress(OSError):  # a closed terminal or a full log must not end the work
        print(line, file=sys.stderr, flush=True)
