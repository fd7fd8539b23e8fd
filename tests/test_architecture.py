"""The rooms: each imports only from rooms above it, importing does nothing, the public names are exact."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import impasto
import impasto.lens

HOUSE = Path(impasto.__file__).parent
DRAWN = (HOUSE.parent / "ARCHITECTURE.md").read_text()
ROOMS = re.findall(r"^    ([\w/]+?)/? {2,}\S", DRAWN.split("##")[0], re.MULTILINE)
MODULES = sorted(
    str(path.relative_to(HOUSE).with_suffix(""))
    for path in HOUSE.rglob("*.py")
    if path.parent.name != "pictures" and path.stem not in ("__init__", "__main__")
)


def room_of(module: str) -> str:
    """lens/style/page -> lens/style, files -> files."""
    return max((room for room in ROOMS if f"{module}/".startswith(f"{room}/")), key=len, default="")


def imports(module: str) -> set[str]:
    """The modules that it imports, within functions too; what comes from a package's face counts as the package."""
    found = set()
    for node in ast.walk(ast.parse((HOUSE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "impasto":
            place = node.module.split(".")[1:]
            for name in (it.name for it in node.names):
                path = "/".join((*place, name))
                found.add(path if (HOUSE / f"{path}.py").is_file() else "/".join(place))
        elif isinstance(node, ast.Import):
            found |= {
                name.name.removeprefix("impasto.").replace(".", "/") for name in node.names if name.name.startswith("impasto.")
            }
    return found


def test_the_drawing_shows_every_room_and_no_other():
    assert {room_of(module) for module in MODULES} == set(ROOMS) and len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_room_and_those_above(module):
    above = {*ROOMS[: ROOMS.index(room_of(module)) + 1], "pictures"}
    assert {room_of(it) or it for it in imports(module)} <= above


def test_no_two_modules_import_each_other_in_any_number_of_steps():
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()  # raises CycleError


def test_inside_names_come_from_modules_and_not_from_the_faces_of_rooms():
    packages = {room for room in ROOMS if (HOUSE / room).is_dir()}
    assert not {(module, it) for module in MODULES for it in imports(module) & packages}


@pytest.mark.parametrize("package", [impasto, impasto.lens], ids=["impasto", "lens"])
def test_the_public_face_is_sorted_and_exact(package):
    assert package.__all__ == sorted(package.__all__) == dir(package)
    for name in package.__all__:
        assert getattr(package, name).__doc__ or name == "PRESETS"
    with pytest.raises(AttributeError, match="no attribute 'easel'"):
        _ = package.easel


def test_importing_does_nothing():
    code = "import sys, impasto, impasto.cli; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False"] * 2
