"""The errors of Impasto and their exit codes.

    ImpastoError            1   something failed
    ├── BadRecipe           2   a knob out of bounds, a preset that does not exist
    ├── MissingExtra        2   an optional library is not installed
    ├── SomeFailed          3   some of several jobs failed, the others are done
    ├── NoRoom              4   out of memory or disk
    ├── BadInput            5   an input cannot be used
    │   ├── BadImage            ... a picture
    │   └── BadWeights          ... a weights file
    ├── NoWeights           1   weights are not in the cache and cannot be fetched
    └── CannotWrite         1   the output cannot be written

A message is one line: the value, what is allowed, what to do.
"""

LONGEST = 2000  # characters of a message, since the value may be a whole file


def printable(text: str) -> str:
    """The text with control characters, which could steer a terminal, escaped."""
    return "".join(it if it.isprintable() else it.encode("unicode_escape").decode("ascii") for it in text)


def one_line(text: str, most: int = LONGEST) -> str:
    """printable(text), without its middle if it is longer than `most`."""
    return printable(text if len(text) <= most else f"{text[: most // 2]} [...] {text[-most // 3 :]}")


class ImpastoError(Exception):
    """Base class of all errors that Impasto raises on purpose."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


class BadRecipe(ImpastoError):
    """A knob is unknown or out of bounds."""

    exit_code = 2


class MissingExtra(ImpastoError):
    """An optional library is not installed; the message says how to install it."""

    exit_code = 2


class SomeFailed(ImpastoError):
    """Some of several jobs failed; the others are done."""

    exit_code = 3


class NoRoom(ImpastoError):
    """Memory or disk is full."""

    exit_code = 4


class BadInput(ImpastoError):
    """An input cannot be used."""

    exit_code = 5


class BadImage(BadInput):
    """A picture cannot be read, or is too small or too large to paint."""


class BadWeights(BadInput):
    """A weights file is damaged, hostile or not for this net."""


class NoWeights(ImpastoError):
    """Weights are not in the cache and cannot be fetched."""


class CannotWrite(ImpastoError):
    """The output cannot be written."""


class ImpastoWarning(UserWarning):
    """Something the user should know, which does not stop the program."""
