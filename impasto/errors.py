"""What can go wrong, each with the exit code of the command line.

    ImpastoError            1   something failed
    ├── BadRecipe           2   a knob out of bounds, a preset that does not exist
    ├── MissingExtra        2   an optional library is not installed
    ├── SomeFailed          3   some of several jobs failed, the others are done
    ├── NoRoom              4   out of memory or disk
    ├── BadInput            5   what we were given cannot be used
    │   ├── BadImage            ... a picture
    │   └── BadWeights          ... a weights file
    ├── NoWeights           1   weights are neither in the cache nor to be had
    └── CannotWrite         1   the output cannot be written

A message is one line: what we got, what is allowed, what to do.
"""

LONGEST = 2000  # characters of a message: what we got may be a whole file


def printable(text: str) -> str:
    """The text in one line, with control characters, which can steer a terminal, escaped."""
    return "".join(it if it.isprintable() else it.encode("unicode_escape").decode("ascii") for it in text)


def one_line(text: str, most: int = LONGEST) -> str:
    """The same of a text that may be long: then without its middle."""
    return printable(text if len(text) <= most else f"{text[: most // 2]} [...] {text[-most // 3 :]}")


class ImpastoError(Exception):
    """Base of all errors that Impasto raises on purpose."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


class BadRecipe(ImpastoError):
    """A knob is unknown or out of bounds."""

    exit_code = 2


class MissingExtra(ImpastoError):
    """A library that only some need is not installed; the message says how to."""

    exit_code = 2


class SomeFailed(ImpastoError):
    """Some of several jobs failed; the others are done."""

    exit_code = 3


class NoRoom(ImpastoError):
    """Memory or disk is full."""

    exit_code = 4


class BadInput(ImpastoError):
    """What we were given cannot be used."""

    exit_code = 5


class BadImage(BadInput):
    """A picture cannot be read, or is too small or too large to paint."""


class BadWeights(BadInput):
    """A weights file is damaged, hostile or not for this net."""


class NoWeights(ImpastoError):
    """Weights are neither in the cache nor to be had from their source."""


class CannotWrite(ImpastoError):
    """The output cannot be written."""


class ImpastoWarning(UserWarning):
    """Worth knowing, not worth stopping for."""
