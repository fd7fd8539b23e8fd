"""The bundled pictures, all public domain or CC0: SOURCES.md beside them names where each comes from.

Small photographs for the lens, under free licences, have a folder of their own, whose SOURCES.tsv names author, licence and source.
"""

from pathlib import Path

CALIBRATION = ("astronaut", "cat", "arcimboldo-spring", "hokusai-great-wave", "renoir-moulin", "van-gogh-auvers")
PHOTOGRAPHS = ("astronaut", "cat", "hubble-deep-field")


def picture_path(name: str) -> Path:
    """The file of a bundled picture."""
    return Path(__file__).parent / f"{name}.jpg"


def photograph_folder() -> Path:
    """The folder of the photographs for the lens."""
    return Path(__file__).parent.parent / "photographs"
