"""The docs: links lead somewhere, made pages are fresh, examples run, pictures are small."""

import re
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from impasto.cli.app import app
from impasto.pictures import picture_path
from impasto.recipe.recipe import PRESETS, Recipe
from tests.write_docs import DOCS, MADE, cli_page, recipe_page

ROOT = DOCS.parent
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), ROOT / "impasto" / "pictures" / "SOURCES.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()) + re.findall(r'src="([^"]+)"', page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_the_source_archive_has_all_that_pages_link_to():
    taken = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text()) + re.findall(r'src="([^":]+)"', page.read_text()):
            first = (page.parent / link).resolve().relative_to(ROOT.resolve()).parts[0]
            assert any(fnmatch(first, pattern) for pattern in taken), (page.name, link)


@pytest.mark.slow
def test_a_package_index_gets_whole_addresses(tmp_path):
    """And the wheel is built from the source archive alone."""
    files, stamp = "https://example.org/impasto/blob/main", Path(sys.prefix) / "installed"
    command = ["make", "--old-file", stamp, "dist", f"VENV={sys.prefix}", f"DIST={tmp_path / 'dist'}", f"ADDRESS={files}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        shown = opened.read(name).decode()
    links, pictures = re.findall(r"\]\(([^)]+)\)", shown), re.findall(r'src="([^"]+)"', shown)
    assert len(links) > 20 and all(link.startswith(("https://", "#")) for link in links)
    assert len(pictures) == 4 and all(link.startswith(files.replace("/blob/", "/raw/") + "/docs/") for link in pictures)
    assert [path.suffix for path in sorted((tmp_path / "dist").iterdir())] == [".whl", ".gz"]


@pytest.mark.slow
def test_the_made_pages_are_fresh():
    assert (DOCS / "cli.md").read_text() == cli_page(), "run python -m tests.write_docs"
    assert (DOCS / "recipe.md").read_text() == recipe_page(), "run python -m tests.write_docs"


def test_every_option_shown_exists():
    options = {f"--{name.replace('_', '-')}" for name in Recipe.model_fields}
    shown = (DOCS / "cli.md").read_text()
    for page in PAGES:
        for command in re.findall(r"^\$ impasto (.+)$", page.read_text(), re.MULTILINE):
            for option in re.findall(r"(--[a-z-]+)", command):
                assert option in options or option in shown, (page.name, option)


def test_the_readmes_commands_are_the_makefiles():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in readme and re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text() and app.name == ("impasto",)


def test_every_preset_is_explained():
    explained = (DOCS / "presets.md").read_text()
    assert all(f"## `{preset}`" in explained for preset in PRESETS)


def test_python_examples_use_what_exists():
    import impasto
    import impasto.lens

    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            compile(block, page.name, "exec")
            for names in re.findall(r"from impasto import (.+)", block):
                assert {name.strip() for name in names.split(",")} <= set(impasto.__all__), names
            for names in re.findall(r"from impasto\.lens import (.+)", block):
                assert {name.strip() for name in names.split(",")} <= set(impasto.lens.__all__), names


def test_every_line_that_is_quoted_stands_in_its_file():
    quoted = re.findall(r"\[\w+\.py\]\(\.\./(impasto/[\w/]+\.py)\): `([^`]+)`", (DOCS / "how-it-works.md").read_text())
    assert len(quoted) == 5
    for path, line in quoted:
        assert line in (ROOT / path).read_text(), line


@pytest.mark.weights
def test_how_it_works_works(capsys):
    """Its Python blocks one after the other; a block of text behind one is what it prints."""
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for block, printed in re.findall(
        r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", (DOCS / "how-it-works.md").read_text(), re.DOTALL
    ):
        exec(compile(block, "how-it-works.md", "exec"), names)
        assert capsys.readouterr().out == printed


def test_the_pictures_stay_small():
    def size(*folders: Path) -> int:
        return sum(
            path.stat().st_size for folder in folders for path in folder.rglob("*") if path.suffix in {".jpg", ".png", ".webp"}
        )

    assert size(DOCS, ROOT / "impasto" / "pictures") < 5.5e6 and size(ROOT / "impasto" / "pictures") < 1e6


def test_every_page_with_bundled_pictures_says_how_to_get_them():
    names = "|".join(path.stem for path in picture_path("cat").parent.glob("*.jpg"))
    for path in (DOCS.parent / "README.md", *DOCS.glob("*.md")):
        text = path.read_text()
        if re.search(rf"impasto (transfer|grid|texture|style|lens|mask)[^\n]* ({names})\.jpg", text) and MADE not in text:
            assert "`impasto pictures .`" in text or "$ impasto pictures ." in text, path.name
