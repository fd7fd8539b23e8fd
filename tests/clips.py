"""Clips that the tests of videos look at: made by PyAV, small, with what is planted in them."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from impasto.video.frames import INSTRUCTIONS
from tests.conftest import picture


def moving(count: int = 8, height: int = 48, width: int = 64) -> list[torch.Tensor]:
    """A still picture with sensor noise and a square that moves by 3 pixels a frame."""
    generator, still = torch.Generator().manual_seed(7), picture(height, width, 3)
    frames = []
    for n in range(count):
        frame = still.clone()
        frame[..., 12:28, 4 + 3 * n : 20 + 3 * n] = picture(16, 16, 4)
        frames.append((frame + 0.02 * torch.randn(frame.shape, generator=generator)).clamp(0, 1))
    return frames


def encode(
    path: Path,
    frames: Sequence[torch.Tensor],
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    sound: bool = False,
    codec: str = "libx264",
) -> Path:
    """A video of these frames at these times, in units of the time base; `sound` adds a second of AAC."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=1 / time_base, options={"crf": "5", **INSTRUCTIONS} if codec == "libx264" else {})
        stream.height, stream.width = frames[0].shape[-2:]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", time_base
        audio = output.add_stream("aac", rate=44100) if sound else None
        for time, image in zip(times or range(len(frames)), frames, strict=True):
            frame = av.VideoFrame.from_ndarray((image[0] * 255).byte().permute(1, 2, 0).contiguous().numpy())
            frame.pts, frame.time_base = time, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if audio is not None:
            tone = (np.sin(np.arange(44100) / 20) * 20000).astype(np.int16)[None]
            sounded = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            sounded.sample_rate, sounded.pts = 44100, 0
            output.mux(audio.encode(sounded))
            output.mux(audio.encode(None))
    return path


def turned(path: Path, quarter: bytes) -> Path:
    """The .mp4 with another display matrix: its own, which turns nothing, is replaced in the header of the track."""
    one, none = (1 << 16).to_bytes(4, "big"), bytes(4)
    upright = one + none * 3 + one + none * 3 + (1 << 30).to_bytes(4, "big")
    data = path.read_bytes()
    at = data.index(b"tkhd")
    assert upright in data[at : at + 100]
    path.write_bytes(data[:at] + data[at:].replace(upright, quarter, 1))
    return path


def quarter_turn() -> bytes:
    """The display matrix of a telephone held upright: turned to the right by 90 degrees."""
    one, minus, none = (1 << 16).to_bytes(4, "big"), (-(1 << 16)).to_bytes(4, "big", signed=True), bytes(4)
    return none + one + none + minus + none * 4 + (1 << 30).to_bytes(4, "big")


def shown_times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as video:
        return [frame.pts * frame.time_base for frame in video.decode(video=0)]


def packets(path: Path) -> list[tuple[bytes, Fraction]]:
    """The audio's, with the time of each."""
    with av.open(str(path)) as video:
        return [(bytes(it), it.pts * it.time_base) for it in video.demux(audio=0) if it.dts is not None]


def pixels(path: Path) -> np.ndarray:
    """(frames, H, W, 3)."""
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
