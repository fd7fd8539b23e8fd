"""The house: a module imports only what stands above it, importing does nothing, the public face is exact."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import impasto
import impasto.lens

HOUSE = Path(impasto.__file__).parent
DRAWN = (HOUSE.parent / "ARCHITECTURE.md").read_text()
ORDER = re.findall(r"^    ([\w/]+)\.py ", DRAWN, re.MULTILINE)
OUTSIDE = {"__init__", "__main__"}


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


def test_the_drawing_shows_every_module():
    modules = [path.relative_to(HOUSE).with_suffix("") for path in HOUSE.rglob("*.py") if path.parent.name != "pictures"]
    assert sorted(ORDER) == sorted(str(module) for module in modules if module.name not in OUTSIDE)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_what_stands_above_it(module):
    assert imports(module) - {"pictures"} <= set(ORDER[: ORDER.index(module)])


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
