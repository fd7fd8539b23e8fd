"""The bundled pictures, all public domain or CC0: SOURCES.md beside them names where each comes from."""

from pathlib import Path

CALIBRATION = ("astronaut", "cat", "arcimboldo-spring", "hokusai-great-wave", "renoir-moulin", "van-gogh-auvers")
PHOTOGRAPHS = ("astronaut", "cat", "hubble-deep-field")


def picture_path(name: str) -> Path:
    """The file of a bundled picture."""
    return Path(__file__).parent / f"{name}.jpg"
