"""The pages made from the code: python -m tests.write_docs writes them, tests/test_docs.py holds them to it."""

import os
import subprocess
import sys
from pathlib import Path

from impasto.cli.options import MORE
from impasto.recipe.recipe import PRESETS, Recipe, make_recipe

DOCS = Path(__file__).parent.parent / "docs"
LENS = ("scan", "top", "units", "merge", "check", "project", "sheet", "compare", "atlas", "dream")
COMMANDS = (
    "",
    "transfer",
    "texture",
    "invert",
    "learn",
    "mask",
    "grid",
    "video",
    "batch",
    "studio",
    "demo",
    "pictures",
    "lens",
    *(f"lens {it}" for it in LENS),
    "style",
    "style read",
    "style compare",
    "weights list",
    "weights fetch",
    "weights path",
)
MADE = "<!-- Made from the code by `python -m tests.write_docs`. -->"


def cli_page() -> str:
    """docs/cli.md: the help of every command."""
    parts = [f"# The command line\n\n{MADE}\n"]
    for command, printed in zip(COMMANDS, helps(), strict=True):
        name = f"impasto {command}".strip()
        parts.append(f"## {name}\n\n```\n{printed}\n```\n")
    return "\n".join([*parts, EXIT_CODES])


HELPS = """
import os, sys
from impasto.cli.app import main
for command in sys.argv[1:]:
    if not os.fork():
        sys.argv = ["impasto", *command.split(), "--help-all"]
        sys.exit(main())
    assert os.wait()[1] == 0, command
    print(end="\\f", flush=True)
"""


def helps() -> list[str]:
    """What each command prints with --help-all in a plain window of 100 columns."""
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    run = [sys.executable, "-c", HELPS, *COMMANDS]
    *pages, end = subprocess.run(run, capture_output=True, text=True, check=True, env=env).stdout.split("\f")
    assert not end
    return ["\n".join(line.rstrip() for line in page.removesuffix(f"{MORE}\n").strip().splitlines()) for page in pages]


EXIT_CODES = """## Exit codes

| code | meaning |
|---|---|
| 0 | success |
| 1 | failed: the output cannot be written, weights cannot be fetched |
| 2 | usage: an unknown option, a knob out of bounds, an extra that is not installed |
| 3 | some of several jobs failed, the others are finished: cells of a grid, jobs of a batch |
| 4 | out of memory or disk |
| 5 | bad input: a picture, a video or a weights file that cannot be used |
| 130 | Ctrl-C: the unfinished picture and a checkpoint are saved, of a video the painted frames |

stdout carries only the result: a path, or one JSON object with `--json`. Progress and warnings go to stderr.
"""


def recipe_page() -> str:
    """docs/recipe.md: every knob with its help, and what each preset sets."""
    rows = [f"| `{name}` | {field.description} |" for name, field in Recipe.model_fields.items()]
    base = make_recipe().model_dump()
    presets = []
    for preset in PRESETS:
        recipe = make_recipe(preset).model_dump()
        shown = ", ".join(f"{k} = {say(v)}" for k, v in recipe.items() if k != "preset" and (preset == "impasto" or v != base[k]))
        presets.append(f"- **{preset}**: {shown}")
    return RECIPE.format(made=MADE, rows="\n".join(rows), presets="\n".join(presets))


RECIPE = """# The recipe

{made}

A recipe holds everything that changes the result, except the pictures and the weights of the network. Every painting contains its
recipe: `--like painting.png` uses it again. On the command line a knob is an option: `style_layers` is `--style-layers`.
In your own TOML file (`--preset mine.toml`) it is a key.

| knob | meaning |
|---|---|
{rows}

## What the presets set

All knobs of `impasto`, and those that differ from it in the others.

{presets}
"""


def say(value: object) -> str:
    """A knob's value as a person writes it."""
    if isinstance(value, dict) and value:
        return "{" + ", ".join(f"{k} {v:.4g}" for k, v in value.items()) + "}"
    return f"{value:.4g}" if isinstance(value, float) else str(value) if value not in ((), {}) else "none"


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(cli_page())
    (DOCS / "recipe.md").write_text(recipe_page())
