"""Lines on stderr and stdout, and warnings."""

import contextlib
import sys
import warnings
from typing import Any

from impasto.errors import ImpastoWarning, one_line, printable


def say(line: str) -> None:
    """Print one or more lines on stderr."""
    with contextlib.suppress(OSError):  # a closed terminal or a full log must not end a painting
        print(*map(one_line, line.splitlines()), sep="\n", file=sys.stderr, flush=True)


def show(line: object) -> None:
    """Print a line of the result on stdout; on a terminal with control characters escaped."""
    print(printable(str(line)) if sys.stdout.isatty() else line, flush=True)


def show_warnings() -> None:
    """Print every warning of Impasto on stderr, and no others."""
    warnings.simplefilter("always", ImpastoWarning)
    warnings.showwarning = _show_warning  # type: ignore[assignment]


def _show_warning(message: Any, category: Any, *_where: Any) -> None:
    if issubclass(category, ImpastoWarning):
        say(f"impasto: warning: {one_line(str(message))}")
