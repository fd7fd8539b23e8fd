"""A picture from outside, decoded in a process of its own that may do little: `python -m impasto.studio.decode`.

What comes out is written anew: picture.png (sRGB, alpha kept, 8 bits) and small.webp in the folder that is given, and a line of
JSON with its size and the record that a painting of ours carries. A decoder that crashes, hangs or takes too much takes nothing
else with it.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from impasto.errors import BadImage

MEMORY = 8 * 2**30
SECONDS = 60
FILE = 2**30
SMALL = 360  # pixels of a small picture's longer side
MOST_PIXELS = 60_000_000
DAMAGED = "the picture cannot be read: it is damaged, or needs too much memory or time"


class Decoder:
    """Decodes pictures, each in a new process; the next one is started ahead, since starting takes longer than decoding."""

    def __init__(self) -> None:
        self.spare: asyncio.subprocess.Process | None = None
        self.free = asyncio.Semaphore(2)

    async def decode(self, source: Path, folder: Path, name: str, kind: str) -> dict[str, Any]:
        """The file into the folder: {width, height, record}; `name` is what messages call it. Raises BadImage."""
        async with self.free:
            process, self.spare = self.spare or await _started(), None
            try:
                line = json.dumps([str(source), str(folder), name, kind]).encode() + b"\n"
                out, _ = await asyncio.wait_for(process.communicate(line), SECONDS)
                said = json.loads(out.decode().strip().splitlines()[-1])
            except (TimeoutError, ConnectionError, ValueError, IndexError):
                raise BadImage(DAMAGED) from None
            finally:
                end(process)
            self.spare = self.spare or await _started()
        if "error" in said or process.returncode:
            raise BadImage(str(said.get("error", DAMAGED)))
        return dict(said)

    def close(self) -> None:
        """End the process that waits."""
        if self.spare is not None:
            end(self.spare)


def end(process: asyncio.subprocess.Process) -> None:
    """Kill it, if it still runs."""
    if process.returncode is None:
        process.kill()


async def _started() -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "impasto.studio.decode"]
    return await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, start_new_session=True)


def confine() -> None:
    """Take from this process what a decoder does not need: memory, time, large files."""
    try:
        import resource
    except ImportError:  # Windows: the time limit remains
        return
    for what, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_FSIZE, FILE)):
        resource.setrlimit(what, (most, most))


def decode(source: Path, folder: Path, name: str, kind: str) -> dict[str, Any]:
    """What decode_apart does, here."""
    from impasto.images import decode as decode_bytes
    from impasto.images import read_bytes, read_record, to_pillow, write_picture, write_small

    picture = decode_bytes(read_bytes(source), name)
    height, width = picture.image.shape[-2:]
    if height * width > MOST_PIXELS:
        raise BadImage(f"{name} has {width} x {height} pixels, the studio takes at most {MOST_PIXELS // 10**6} million")
    write_picture(folder / "picture.png", picture.image, None if kind == "mask" else picture.alpha)
    small = to_pillow(picture.image)
    small.thumbnail((SMALL, SMALL))
    write_small(folder / "small.webp", small)
    try:
        record = read_record(source)
    except BadImage:
        record = None
    return {"width": width, "height": height, "record": record}


def main() -> None:
    """One picture, named on a line of JSON; what is wrong with it is said in JSON too."""
    confine()
    import impasto.images  # noqa: F401  the part that takes long, before there is something to do

    line = sys.stdin.readline()
    if not line:
        return
    source, folder, name, kind = json.loads(line)
    try:
        print(json.dumps(decode(Path(source), Path(folder), name, kind)))
    except (BadImage, MemoryError) as error:
        print(json.dumps({"error": str(error) or DAMAGED}))


if __name__ == "__main__":
    main()
