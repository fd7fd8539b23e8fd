"""What Windows and macOS lack, taken away one by one: the package imports, paints and scans all the same, to the same bytes."""

import hashlib

import pytest

from impasto.pictures import picture_path
from tests.forks import Forked

pytestmark = [pytest.mark.weights, pytest.mark.slow]

# The module is missing where the package asks for it; other libraries have it.
MODULE = """
import builtins
found = builtins.__import__
def without(name, globals=None, *rest):
    if name == {name!r} and (globals or {{}}).get("__name__", "").startswith("impasto"):
        raise ImportError(name)
    return found(name, globals, *rest)
builtins.__import__ = without
"""
LACKS = {
    "nothing": "",
    "fcntl": MODULE.format(name="fcntl"),
    "resource": MODULE.format(name="resource"),
    "fork": "import os; del os.fork",
    "links": """
import os
def no_links(*_, **__): raise OSError(95, "no hard links")
os.link = no_links
""",
    "libc": """
import ctypes
class CDLL(ctypes.CDLL):
    def __init__(self, name, *rest, **options):
        if name is None: raise TypeError("the name of a library")  # as on Windows
        super().__init__(name, *rest, **options)
ctypes.CDLL = CDLL
""",
    "proc": """
import builtins, io, os, pathlib
def without(found):
    def opened(path, *rest, **options):
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith("/proc"): raise FileNotFoundError(path)
        return found(path, *rest, **options)
    return opened
builtins.open = io.open = without(io.open)
os.listdir, os.scandir = without(os.listdir), without(os.scandir)
""",
}
RUN = """
import sys
from impasto.cli.app import main
sys.argv = ["impasto", *{words!r}]
main()
"""
SMALL = ["--net", "alexnet", "--size", "48", "--coarsest", "48", "--steps", "2", "-q"]


def bytes_made(lack: str, words: list[str], made: list) -> list[str]:
    """In a process that has loaded torch, and nothing of Impasto."""
    assert Forked(f"import sys\nassert 'impasto' not in sys.modules\n{LACKS[lack]}{RUN.format(words=words)}").wait() == 0
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in made]


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """The hash of a small painting without what `lack` names."""

    def paint(lack: str) -> list[str]:
        output = tmp_path_factory.mktemp("out") / "out.png"
        words = ["transfer", str(picture_path("cat")), str(picture_path("mosaic")), *SMALL, "-o", str(output)]
        return bytes_made(lack, words, [output])

    return paint


@pytest.fixture(scope="module")
def expected(painted):
    return painted("nothing")


@pytest.mark.parametrize("lack", [it for it in LACKS if it != "nothing"])
def test_a_picture_is_painted_without(painted, expected, lack):
    assert painted(lack) == expected
