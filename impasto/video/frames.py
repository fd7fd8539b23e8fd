"""Reads and writes frames: of a video, or of a folder of pictures. The only module that uses PyAV (FFmpeg).

Frames are read upright, in sRGB and at the size to paint. A video is written with the frame times of the source and a
copy of its audio packets.
"""

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections import Counter
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
from impasto.files import FULL, PICTURE_SUFFIXES, cannot_write, open_file, pictures_of, reason, sha256, write_whole
from impasto.images.formats import is_still, other_format
from impasto.images.images import MAX_PIXELS, RECORD, are_alike, read_beside, read_picture, resize, size_of, write_beside

try:
    import av
    from av.stream import Disposition
    from av.video.reformatter import ColorRange, Colorspace
except ImportError as error:
    raise MissingExtra("PyAV is missing: pip install '.[video]' in Impasto's folder brings it") from error

PYAV: str = av.__version__
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
READ = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,gif,m4v,h264,hevc"  # no format that opens other files
MOST_RECORD = {".mp4": 16_000_000, ".mkv": 16_000_000, ".mov": 65_000}  # bytes that can be read back from a comment
BT709, UNSPECIFIED, HD = 1, 2, 720  # a video without a colour space counts as BT.601 below so many rows, else as BT.709
CUT_OFF = 0.8  # of the declared duration: if the frames end earlier, there is a warning
QUALITY = "16"  # of x264: hardly different from the frames
# With AVX-512 one encoding in some thirty has other bytes; with AVX2, which every such processor has, none.
INSTRUCTIONS = {"x264-params": "asm=AVX2"} if torch.backends.cpu.get_cpu_capability() == "AVX512" else {}


@dataclass(frozen=True)
class Clip:
    """A video or a folder of frames: `size` (H, W) of a frame as displayed; `rate` in frames per second, for frames without times;
    `stream` is the index of the video stream."""

    path: Path
    sha256: str
    size: tuple[int, int]
    rate: Fraction
    time_base: Fraction
    stream: int = 0

    @property
    def is_folder(self) -> bool:
        """Whether the frames are picture files."""
        return self.path.is_dir()


@dataclass(frozen=True)
class Frame:
    """`time` and `duration` in units of the clip's time base; `image` (1, 3, H, W) in [0, 1]; `alpha` (1, 1, H, W) or None."""

    name: str
    time: int
    duration: int
    image: Tensor
    alpha: Tensor | None = None


def open_clip(path: Path, rate: float = 25.0) -> Clip:
    """Read what must be known before painting; `rate` is for a folder. Raises BadInput."""
    if path.is_dir():
        pictures = _pictures(path, warns=True)
        digest = _digest(pictures)
        shown = Fraction(rate).limit_denominator(1001)
        return Clip(path, digest, size_of(read_picture(pictures[0]).image), shown, 1 / shown)
    film = _film(path)
    with _opened(path) as video:
        stream = video.streams[film]
        if (places := stream.codec_context.width * stream.codec_context.height) > MAX_PIXELS:
            raise BadInput(f"{path} has frames of {places} pixels, more than the limit of {MAX_PIXELS // 1_000_000} million")
        first = next(iter(video.decode(stream)), None)
        if first is None:
            raise BadInput(f"{path} has no frames")
        known = stream.average_rate or stream.base_rate or Fraction(25)
        return Clip(path, sha256(path), _shown_size(first, stream), known, Fraction(stream.time_base or 1 / known), film)


def _film(path: Path) -> int:
    """The index of the video stream with the most frames, without cover pictures."""
    with _opened(path) as video:
        films = [stream for stream in video.streams.video if not stream.disposition & Disposition.attached_pic]
        if not films:
            raise BadInput(f"{path} has no video, only a cover picture")
        packets = video.demux(films) if len(films) > 1 else ()
        counts = Counter(packet.stream.index for packet in packets if packet.size)
        return int(max(films, key=lambda stream: counts[stream.index]).index)


def _shown_size(frame: Any, stream: Any) -> tuple[int, int]:
    """(H, W) of the upright frame with square pixels."""
    pixel = stream.sample_aspect_ratio or Fraction(1)
    size = frame.height, max(1, round(frame.width * pixel))
    return size[::-1] if frame.rotation % 180 else size


def _check_shape(name: str, size: tuple[int, int], clip: Clip) -> None:
    if not are_alike(size, clip.size):
        (height, width), (first_height, first_width) = size, clip.size
        sizes = f"{name} has {width} x {height} pixels, the first frame {first_width} x {first_height}"
        raise BadInput(f"{sizes}: all frames need the same shape")


def painted_size(clip: Clip, longer: int, even: bool) -> tuple[int, int]:
    """(H, W) with the longer side `longer` and the same shape; both even if `even`, as a video needs."""
    scale, unit = longer / max(clip.size), 2 if even else 1
    height, width = (max(unit, round(side * scale / unit) * unit) for side in clip.size)
    return height, width


def read_frames(clip: Clip, size: tuple[int, int]) -> Iterator[Frame]:
    """The frames in order, resized to `size` (H, W). Raises BadInput, naming a damaged frame."""
    if clip.is_folder:
        for n, path in enumerate(_pictures(clip.path)):
            picture = read_picture(path)
            _check_shape(str(path), size_of(picture.image), clip)
            alpha = None if picture.alpha is None else resize(picture.alpha, size)
            yield Frame(path.stem, n, 1, resize(picture.image, size), alpha)
        return
    tick = max(1, round(1 / (clip.rate * clip.time_base)))
    last, end = None, 0
    with _opened(clip.path) as video:
        stream = video.streams[clip.stream]
        stream.thread_type = "AUTO"
        for n, frame in enumerate(video.decode(stream)):
            time = frame.pts if frame.pts is not None else 0 if last is None else last + tick
            time = time if last is None else max(time, last + 1)
            _check_shape(f"frame {n} of {clip.path}", _shown_size(frame, stream), clip)
            layers = resize(_picture(frame), size)
            alpha = layers[:, 3:] if layers.shape[1] == 4 and layers[:, 3:].min() < 1 else None
            last, end = time, time + (frame.duration or tick)
            yield Frame(f"{n:06d}", time, end - time, layers[:, :3], alpha)
        whole = 0 if video.streams.audio else (video.duration or 0) / av.time_base  # with audio it may be the audio's duration
        claimed, found = float((stream.duration or 0) * clip.time_base) or whole, float(end * clip.time_base)
        if found < CUT_OFF * claimed:
            text = f"{clip.path} claims to last {claimed:.1f} s, but its frames end after {found:.1f} s: it may be cut off"
            warnings.warn(text, ImpastoWarning, stacklevel=2)


def write_video(path: Path, pictures: Sequence[Path], times: Sequence[tuple[int, int]], clip: Clip, record: dict[str, Any]) -> None:
    """Encode the pictures (H.264, BT.709, 8 bits) with their (time, duration) and the audio of the clip, completely or not at all.

    Transparent pixels become white. A record that is too large for the file is written beside it, with a warning.
    """
    fits = len(json.dumps(record)) <= MOST_RECORD[path.suffix.lower()]
    try:
        write_whole(path, lambda file: _encode(file, path, pictures, times, clip, record if fits else None))
    except av.FFmpegError as error:
        raise _explained(path, error) from error
    if not fits:
        write_beside(path, record)


def check_video(path: Path, clip: Clip) -> None:
    """Raise CannotWrite now if this kind of file cannot hold the clip's audio, or H.264 cannot be written."""
    if path.suffix.lower() not in CONTAINERS:
        raise CannotWrite(
            f"cannot write {path}: the name must end in one of {', '.join(CONTAINERS)}, or in none for a folder of frames"
        )
    try:
        with contextlib.ExitStack() as stack:
            output, _, _ = _begun(stack, BytesIO(), path, (16, 16), clip, None)
            output.start_encoding()
    except (av.FFmpegError, ValueError) as error:
        raise _explained(path, error) from error


def read_video_record(path: Path) -> dict[str, Any]:
    """The record that write_video put into or beside the file; do not trust it. Raises BadInput if there is none."""
    with _opened(path) as video:
        comment = {key.lower(): text for key, text in video.metadata.items()}.get("comment", "")
    try:
        record = json.loads(comment.removeprefix(f"{RECORD} ")) if comment.startswith(f"{RECORD} ") else None
    except (ValueError, RecursionError):
        record = None
    record = record or read_beside(path)
    if not isinstance(record, dict):
        raise BadInput(f"{path} carries no recipe: it was not painted by Impasto")
    return record


def _begun(
    stack: contextlib.ExitStack, file: IO[bytes], path: Path, size: tuple[int, int], clip: Clip, record: dict[str, Any] | None
) -> tuple[Any, Any, Iterator[Any]]:
    """The output, its video stream, and the audio packets, ready to be muxed."""
    output = stack.enter_context(av.open(file, "w", format=CONTAINERS[path.suffix.lower()]))
    if record is not None:
        output.metadata["comment"] = f"{RECORD} {json.dumps(record, sort_keys=True)}"
    stream = output.add_stream("libx264", rate=clip.rate, options={"crf": QUALITY, "preset": "medium", **INSTRUCTIONS})
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base, context.thread_count = clip.time_base, 1  # the bytes depend on the number of threads
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = ColorRange.MPEG
    return output, stream, _audio(stack, output, clip)


def _audio(stack: contextlib.ExitStack, output: Any, clip: Clip) -> Iterator[Any]:
    """Add all audio streams to the output, and return their packets."""
    if clip.is_folder:
        return iter(())
    video = stack.enter_context(_opened(clip.path))
    copies = {stream.index: output.add_stream_from_template(stream) for stream in video.streams.audio}
    return _packets(video, copies) if copies else iter(())


def _packets(video: Any, copies: dict[int, Any]) -> Iterator[Any]:
    for packet in video.demux(video.streams.audio):
        if packet.dts is not None:  # the last, empty packet of a stream has none
            packet.stream = copies[packet.stream.index]
            yield packet


def _encode(
    file: IO[bytes],
    path: Path,
    pictures: Sequence[Path],
    times: Sequence[tuple[int, int]],
    clip: Clip,
    record: dict[str, Any] | None,
) -> None:
    durations = dict(times)
    with contextlib.ExitStack() as stack:
        output, stream, audio = _begun(stack, file, path, size_of(read_picture(pictures[0]).image), clip, record)
        packet = next(audio, None)
        for picture, (time, _) in zip(pictures, times, strict=True):
            while packet is not None and packet.dts * packet.time_base <= time * clip.time_base:
                output.mux(packet)
                packet = next(audio, None)
            _mux(output, stream.encode(_frame(_on_white(picture), time, clip.time_base)), durations)
        _mux(output, stream.encode(None), durations)
        while packet is not None:
            output.mux(packet)
            packet = next(audio, None)


def _on_white(path: Path) -> Tensor:
    picture = read_picture(path)
    return picture.image if picture.alpha is None else picture.image * picture.alpha + (1 - picture.alpha)


def _mux(output: Any, packets: Iterable[Any], durations: dict[int, int]) -> None:
    """Mux packets with their durations, which x264 drops."""
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
    """A frame as (1, 3, H, W), or (1, 4, H, W) with alpha, in [0, 1], upright. Without a colour space the size decides (HD)."""
    is_declared = frame.colorspace != UNSPECIFIED
    source = None if is_declared else Colorspace.ITU709 if frame.height >= HD else Colorspace.ITU601
    form = "rgba" if any(it.is_alpha for it in frame.format.components) else "rgb24"
    rgb = frame.reformat(format=form, src_colorspace=source, dst_color_range=ColorRange.JPEG).to_ndarray()
    upright = np.rot90(rgb, round(frame.rotation / 90) % 4).copy()
    return torch.from_numpy(upright).permute(2, 0, 1).unsqueeze(0).float() / 255


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a video file; every error of reading it becomes BadInput."""
    begin = b""
    try:
        with open_file(path) as file:
            begin = file.read(4096)
            if not begin:
                raise BadInput(f"{path} is empty")
            if is_still(begin):
                raise BadInput(f"cannot read {path}: it is a picture, not a video (impasto transfer paints pictures)")
            file.seek(0)
            with av.open(file, "r", container_options={"format_whitelist": READ}, io_open=_refuse) as video:
                if not video.streams.video:
                    raise BadInput(f"{path} has no video")
                yield video
    except (av.FFmpegError, OSError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None) in FULL:  # of a file that is written meanwhile
            raise
        known = other_format(begin) if begin else None
        raise BadInput(f"cannot read {path}: {f'it is {known}' if known not in (None, 'a video') else reason(error)}") from error


def _refuse(*_: Any) -> Any:
    raise BadInput("it names other files, which are not opened")


def _explained(path: Path, error: Exception) -> Exception:
    """The error of a full disk, or of a container that cannot hold the streams."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, ValueError):
        return cannot_write(path, error)
    why = "this kind of file cannot hold H.264 with the audio of the video"
    return CannotWrite(f"cannot write {path}: {why} ({getattr(error, 'strerror', None) or error}); .mkv holds most")


def _pictures(folder: Path, warns: bool = False) -> list[Path]:
    """The picture files sorted by name, with digits as numbers. `warns` of other files."""
    try:
        pictures = pictures_of(folder, warns)
    except OSError as error:
        raise BadInput(f"cannot read the folder {folder}: {reason(error)}") from error
    found = sorted(pictures, key=lambda it: _in_order(it.stem))
    if not found:
        raise BadInput(f"there are no pictures in the folder {folder} ({', '.join(PICTURE_SUFFIXES)})")
    if len({it.stem for it in found}) < len(found):
        raise BadInput(f"two frames in {folder} differ only in their suffix, and both would become the same .png")
    return found


def _digest(pictures: Sequence[Path]) -> str:
    """The SHA-256 of the names and the contents of the pictures."""
    try:
        return hashlib.sha256(b"".join(os.fsencode(f"{it.name} {sha256(it)}\n") for it in pictures)).hexdigest()
    except OSError as error:
        raise BadInput(f"cannot read {error.filename}: {reason(error)}") from error


def _in_order(stem: str) -> list[tuple[int, str]]:
    """A sort key that puts f9 before f10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", stem)]
