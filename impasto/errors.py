"""What can go wrong, each with the exit code of the command line.

    ImpastoError            1   something failed
    ├── BadRecipe           2   a knob out of bounds, a preset that does not exist
    ├── MissingExtra        2   a package that this command needs is not installed
    ├── SomeFailed          3   some of several jobs failed, the others are done
    ├── NoRoom              4   out of memory or disk
    ├── BadInput            5   what we were given cannot be used
    │   ├── BadImage            ... a picture
    │   └── BadWeights          ... a weights file
    ├── NoWeights           1   weights are neither in the cache nor to be had
    └── CannotWrite         1   the output cannot be written

A message is one line: what we got, what is allowed, what to do.
"""


class ImpastoError(Exception):
    """Base of all errors that Impasto raises on purpose."""

    exit_code = 1


class BadRecipe(ImpastoError):
    """A knob is unknown or out of bounds."""

    exit_code = 2


class MissingExtra(ImpastoError):
    """A package that is only needed here is not installed: which extra brings it."""

    exit_code = 2

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(f"{package} is missing: python -m pip install 'impasto[{extra}]' brings what this command needs")


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
