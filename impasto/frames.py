"""Frames in and out: a video, or a folder of pictures. The only module that knows video files, by PyAV (FFmpeg).

Frames come upright, in sRGB and at the size they are painted in. A video goes out with its own times, frame by frame, and its own
audio, packet by packet.
"""

import contextlib
import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from impasto.errors import BadInput, CannotWrite, ImpastoWarning, MissingExtra
from impasto.files import cannot_write, sha256, write_whole
from impasto.images import MAX_PIXELS, RECORD, read_picture, resize, size_of

try:
    import av
    from av.video.reformatter import ColorRange, Colorspace
except ImportError as error:
    raise MissingExtra("PyAV is missing: python -m pip install 'impasto[video]' brings it") from error

PYAV: str = av.__version__
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
READ = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,gif,m4v,h264,hevc"  # none that names other files to open
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".gif", ".avif")
BT709, UNSPECIFIED, HD = 1, 2, 720  # a video that does not say is taken for BT.601 below so many rows, for BT.709 from there on
CUT_OFF = 0.8  # of the time that a video says it lasts: frames that end before are told
QUALITY = "16"  # of x264: hardly to be told from the frames


@dataclass(frozen=True)
class Clip:
    """A video or a folder of frames: `size` (H, W) as its frames are to be shown; `rate` for those that have no times."""

    path: Path
    sha256: str
    size: tuple[int, int]
    rate: Fraction
    time_base: Fraction

    @property
    def is_folder(self) -> bool:
        """Whether the frames are picture files."""
        return self.path.is_dir()


@dataclass(frozen=True)
class Frame:
    """`time` in units of the clip's time base, how long it is shown, and the picture."""

    name: str
    time: int
    duration: int
    image: Tensor


def open_clip(path: Path, rate: float = 25.0) -> Clip:
    """What there is to know before painting; `rate` is for a folder. Raises BadInput for what cannot be read."""
    if path.is_dir():
        pictures = _pictures(path)
        digest = hashlib.sha256("".join(f"{it.name} {sha256(it)}\n" for it in pictures).encode()).hexdigest()
        shown = Fraction(rate).limit_denominator(1001)
        return Clip(path, digest, size_of(read_picture(pictures[0]).image), shown, 1 / shown)
    with _opened(path) as video:
        stream = video.streams.video[0]
        if (places := stream.codec_context.width * stream.codec_context.height) > MAX_PIXELS:
            raise BadInput(f"{path} has frames of {places} pixels, more than the {MAX_PIXELS // 1_000_000} million that are read")
        first = next(iter(video.decode(stream)), None)
        if first is None:
            raise BadInput(f"{path} has no frames")
        pixel = stream.sample_aspect_ratio or Fraction(1)
        size = (first.height, max(1, round(first.width * pixel)))
        size = size[::-1] if first.rotation % 180 else size
        known = stream.average_rate or stream.base_rate or Fraction(25)
        return Clip(path, sha256(path), size, known, Fraction(stream.time_base or 1 / known))


def painted_size(clip: Clip, longer: int, even: bool) -> tuple[int, int]:
    """(H, W) with the longer side `longer`, the shape kept; both even where they are to be a video's."""
    scale, unit = longer / max(clip.size), 2 if even else 1
    height, width = (max(unit, round(side * scale / unit) * unit) for side in clip.size)
    return height, width


def read_frames(clip: Clip, size: tuple[int, int]) -> Iterator[Frame]:
    """The frames in their order, at this size. Raises BadInput, naming what is damaged."""
    if clip.is_folder:
        for n, path in enumerate(_pictures(clip.path)):
            yield Frame(path.stem, n, 1, resize(read_picture(path).image, size))
        return
    tick = max(1, round(1 / (clip.rate * clip.time_base)))
    last = None
    with _opened(clip.path) as video:
        stream = video.streams.video[0]
        stream.thread_type = "AUTO"
        for n, frame in enumerate(video.decode(stream)):
            time = frame.pts if frame.pts is not None else 0 if last is None else last + tick
            time = time if last is None else max(time, last + 1)
            yield Frame(f"{n:06d}", time, frame.duration or tick, resize(_picture(frame), size))
            last = time
        whole = 0 if video.streams.audio else (video.duration or 0) / av.time_base  # the audio's, where it is longer
        said, found = float((stream.duration or 0) * clip.time_base) or whole, float(((last or 0) + tick) * clip.time_base)
        if found < CUT_OFF * said:
            told = f"{clip.path} says that it lasts {said:.1f} s, its frames end after {found:.1f} s: it may be cut off"
            warnings.warn(told, ImpastoWarning, stacklevel=2)


def write_video(path: Path, pictures: Sequence[Path], times: Sequence[tuple[int, int]], clip: Clip, record: dict[str, Any]) -> None:
    """Encode the pictures (H.264, BT.709, 8 bit) at their (time, duration), with the audio of the clip, whole or not at all."""
    try:
        write_whole(path, lambda file: _encode(file, path, pictures, times, clip, record))
    except av.FFmpegError as error:
        raise _explained(path, error) from error


def check_video(path: Path, clip: Clip) -> None:
    """Raise CannotWrite now where this kind of file cannot hold the clip's audio, or no H.264 can be written."""
    if path.suffix.lower() not in CONTAINERS:
        raise CannotWrite(
            f"cannot write {path}: the name must end in one of {', '.join(CONTAINERS)}, or in none for a folder of frames"
        )
    try:
        with contextlib.ExitStack() as stack:
            output, _, _ = _begun(stack, BytesIO(), path, (16, 16), clip, {})
            output.start_encoding()
    except (av.FFmpegError, ValueError) as error:
        raise _explained(path, error) from error


def read_video_record(path: Path) -> dict[str, Any]:
    """The JSON that write_video put into the file. Raises BadInput where there is none; what it says is not to be trusted."""
    with _opened(path) as video:
        comment = {key.lower(): text for key, text in video.metadata.items()}.get("comment", "")
    try:
        record = json.loads(comment.removeprefix(f"{RECORD} ")) if comment.startswith(f"{RECORD} ") else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise BadInput(f"{path} carries no recipe: it was not painted by Impasto")
    return record


def _begun(
    stack: contextlib.ExitStack, file: IO[bytes], path: Path, size: tuple[int, int], clip: Clip, record: dict[str, Any]
) -> tuple[Any, Any, Iterator[Any]]:
    """The output, its video stream, and the audio packets, each at home in the output."""
    output = stack.enter_context(av.open(file, "w", format=CONTAINERS[path.suffix.lower()]))
    output.metadata["comment"] = f"{RECORD} {json.dumps(record, sort_keys=True)}"
    stream = output.add_stream("libx264", rate=clip.rate, options={"crf": QUALITY, "preset": "medium"})
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base, context.thread_count = clip.time_base, 1  # with several threads the bytes depend on their number
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = ColorRange.MPEG
    return output, stream, _audio(stack, output, clip)


def _audio(stack: contextlib.ExitStack, output: Any, clip: Clip) -> Iterator[Any]:
    """The packets of all audio streams, which are added to the output."""
    if clip.is_folder:
        return iter(())
    video = stack.enter_context(_opened(clip.path))
    copies = {stream.index: output.add_stream_from_template(stream) for stream in video.streams.audio}
    return _packets(video, copies) if copies else iter(())


def _packets(video: Any, copies: dict[int, Any]) -> Iterator[Any]:
    for packet in video.demux(video.streams.audio):
        if packet.dts is not None:  # the last, empty one of a stream has none
            packet.stream = copies[packet.stream.index]
            yield packet


def _encode(
    file: IO[bytes], path: Path, pictures: Sequence[Path], times: Sequence[tuple[int, int]], clip: Clip, record: dict[str, Any]
) -> None:
    durations = dict(times)
    with contextlib.ExitStack() as stack:
        output, stream, audio = _begun(stack, file, path, size_of(read_picture(pictures[0]).image), clip, record)
        packet = next(audio, None)
        for picture, (time, _) in zip(pictures, times, strict=True):
            while packet is not None and packet.dts * packet.time_base <= time * clip.time_base:
                output.mux(packet)
                packet = next(audio, None)
            _mux(output, stream.encode(_frame(read_picture(picture).image, time, clip.time_base)), durations)
        _mux(output, stream.encode(None), durations)
        while packet is not None:
            output.mux(packet)
            packet = next(audio, None)


def _mux(output: Any, packets: Iterable[Any], durations: dict[int, int]) -> None:
    """x264 forgets how long a frame is shown."""
    for packet in packets:
        packet.duration = durations[packet.pts]
        output.mux(packet)


def _frame(image: Tensor, time: int, time_base: Fraction) -> Any:
    pixels = (image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    rgb = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    frame = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    frame.pts, frame.time_base = time, time_base
    return frame


def _picture(frame: Any) -> Tensor:
    """(1, 3, H, W) in [0, 1], upright. Where the frame does not say, its colours are those of its size, limited range."""
    said = frame.colorspace != UNSPECIFIED
    source = None if said else Colorspace.ITU709 if frame.height >= HD else Colorspace.ITU601
    rgb = frame.reformat(format="rgb24", src_colorspace=source, dst_color_range=ColorRange.JPEG).to_ndarray()
    upright = np.rot90(rgb, round(frame.rotation / 90) % 4).copy()
    return torch.from_numpy(upright).permute(2, 0, 1).unsqueeze(0).float() / 255


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A video file to read; whatever goes wrong with it within is BadInput."""
    try:
        with open(path, "rb") as file, av.open(file, "r", container_options={"format_whitelist": READ}, io_open=_refuse) as video:
            if not video.streams.video:
                raise BadInput(f"{path} has no video")
            yield video
    except (av.FFmpegError, OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _refuse(*_: Any) -> Any:
    raise BadInput("names other files, which are not opened")


def _explained(path: Path, error: Exception) -> Exception:
    """Full disk, or what the container cannot hold."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, ValueError):
        return cannot_write(path, error)
    said = "H.264 with the video's audio cannot be written into it"
    return CannotWrite(f"cannot write {path}: {said} ({getattr(error, 'strerror', None) or error}); .mkv holds most")


def _pictures(folder: Path) -> list[Path]:
    """The picture files in the order of their names, digits as numbers."""
    found = sorted(
        (it for it in folder.iterdir() if it.suffix.lower() in PICTURES and it.is_file()), key=lambda it: _in_order(it.stem)
    )
    if not found:
        raise BadInput(f"there are no pictures in the folder {folder} ({', '.join(PICTURES)})")
    if len({it.stem for it in found}) < len(found):
        raise BadInput(f"two frames in {folder} differ only in their ending: frames go out as .png by their names")
    return found


def _in_order(stem: str) -> list[tuple[int, str]]:
    """f9 before f10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", stem)]
