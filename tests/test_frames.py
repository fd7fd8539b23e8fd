"""Frames in and out: times, audio, rotation, colours, folders, what is damaged or hostile."""

import contextlib
import os
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition

from impasto.errors import BadInput, CannotWrite, ImpastoWarning, NoRoom
from impasto.images.images import to_pillow, write_picture
from impasto.video import frames as module
from impasto.video.frames import check_video, open_clip, painted_size, read_frames, read_video_record, write_video
from tests.clips import encode, moving, packets, pixels, quarter_turn, shown_times, turned
from tests.conftest import picture, room_for, save

UNEVEN = [0, 3, 4, 10, 11, 30, 31, 50]


def painted(tmp_path, clip, size=(48, 64)):
    """Every frame of the clip as a file, and its times."""
    found = list(read_frames(clip, size))
    paths = [save(tmp_path / f"{frame.name}.png", frame.image) for frame in found]
    return paths, [(frame.time, frame.duration) for frame in found]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_times_stay_exact_and_audio_the_same_bytes(tmp_path, suffix):
    source = encode(tmp_path / f"in{suffix}", moving(), UNEVEN, Fraction(1, 30), sound=True)
    clip, output = open_clip(source), tmp_path / f"out{suffix}"
    write_video(output, *painted(tmp_path, clip), clip, {"recipe": "x" * 3000})
    assert shown_times(output) == shown_times(source)
    assert len(set(np.diff(shown_times(output)))) > 2
    assert packets(output) == packets(source) and len(packets(output)) > 40
    assert read_video_record(output) == {"recipe": "x" * 3000}


def test_the_last_frame_is_shown_as_long_as_before(tmp_path):
    source = encode(tmp_path / "in.mp4", moving(), None, Fraction(1, 30))
    clip = open_clip(source)
    write_video(tmp_path / "out.mp4", *painted(tmp_path, clip), clip, {})
    with av.open(str(source)) as was, av.open(str(tmp_path / "out.mp4")) as now:
        assert now.duration == pytest.approx(was.duration, abs=1000)  # microseconds; the file rounds to milliseconds


def test_what_goes_in_comes_out_in_the_same_colours(tmp_path):
    """Flat colours, whichever matrix they were coded by; the output says which it is coded by."""
    colours = [torch.tensor(c).view(1, 3, 1, 1).expand(1, 3, 48, 64) for c in ((0.9, 0.1, 0.2), (0.1, 0.8, 0.3), (0.2, 0.2, 0.9))]
    clip = open_clip(encode(tmp_path / "in.mp4", colours))
    for frame, colour in zip(read_frames(clip, (48, 64)), colours, strict=True):
        torch.testing.assert_close(frame.image, colour.contiguous(), atol=0.02, rtol=0)
    write_video(tmp_path / "out.mp4", *painted(tmp_path, clip), clip, {})
    again = open_clip(tmp_path / "out.mp4")
    for frame, colour in zip(read_frames(again, (48, 64)), colours, strict=True):
        torch.testing.assert_close(frame.image, colour.contiguous(), atol=0.03, rtol=0)
    with av.open(str(tmp_path / "out.mp4")) as video:
        context = video.streams.video[0].codec_context
        assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == (1, 1, 1, 1)


def test_high_definition_that_does_not_say_is_taken_for_bt709(monkeypatch, tmp_path):
    """The same bytes, a green: BT.601 and BT.709 show it differently."""
    green = [torch.tensor([0.1, 0.8, 0.3]).view(1, 3, 1, 1).expand(1, 3, 48, 64)]
    clip = open_clip(encode(tmp_path / "in.mp4", green))
    (small,) = read_frames(clip, (48, 64))
    monkeypatch.setattr(module, "HD", 48)
    (large,) = read_frames(clip, (48, 64))
    assert (small.image - large.image).abs().max() > 0.03


def test_a_turned_video_comes_upright(tmp_path):
    frames = moving(2)
    clip = open_clip(turned(encode(tmp_path / "in.mp4", frames), quarter_turn()))
    assert clip.size == (64, 48) and painted_size(clip, 64, even=True) == (64, 48)
    for frame, planted in zip(read_frames(clip, (64, 48)), frames, strict=True):
        assert (frame.image - planted.rot90(-1, (2, 3))).abs().mean() < 0.05 < (frame.image - planted.rot90(1, (2, 3))).abs().mean()


def test_sides_of_a_video_are_even_and_a_folders_are_not_touched(tmp_path):
    save(tmp_path / "f1.png", picture(35, 51))
    clip = open_clip(tmp_path)
    assert painted_size(clip, 51, even=False) == (35, 51) and painted_size(clip, 51, even=True) == (36, 52)


def test_a_folder_goes_by_numbers_and_says_its_rate(tmp_path):
    for n in (10, 9, 100):
        save(tmp_path / f"f{n}.png", picture(16, 20, n))
    clip = open_clip(tmp_path, 12.5)
    assert [frame.name for frame in read_frames(clip, (16, 20))] == ["f9", "f10", "f100"]
    assert clip.rate == Fraction(25, 2) and clip.time_base == Fraction(2, 25)
    assert torch.equal(next(read_frames(clip, (16, 20))).image, (picture(16, 20, 9) * 255).round() / 255)


def test_a_video_without_times_gets_those_of_its_rate(tmp_path):
    source = encode(tmp_path / "in.h264", moving(4))
    assert [frame.time for frame in read_frames(open_clip(source), (48, 64))] == sorted(
        frame.time for frame in read_frames(open_clip(source), (48, 64))
    )
    assert len(list(read_frames(open_clip(source), (48, 64)))) == 4


def bad_inputs(tmp_path):
    whole = encode(tmp_path / "whole.mp4", moving()).read_bytes()
    yield "cut.mp4", whole[: len(whole) // 2]
    yield "noise.mp4", bytes(range(256)) * 40
    yield "empty.mp4", b""
    yield "list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nwhole.mp4\n#EXT-X-ENDLIST\n"
    yield "concat.txt", b"ffconcat version 1.0\nfile whole.mp4\n"
    yield "picture.txt", b"not a video"


def test_a_file_that_is_no_video_gives_a_one_line_error(tmp_path):
    for name, data in bad_inputs(tmp_path):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput, match=name) as told:
            list(read_frames(open_clip(tmp_path / name), (48, 64)))
        assert "\n" not in str(told.value)


def test_sound_alone_and_frames_too_large_are_refused(tmp_path, monkeypatch):
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        audio = output.add_stream("aac", rate=44100)
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.int16), format="s16", layout="mono")
        tone.sample_rate = 44100
        output.mux(audio.encode(tone))
        output.mux(audio.encode(None))
    with pytest.raises(BadInput, match="has no video"):
        open_clip(tmp_path / "sound.mp4")
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    with pytest.raises(BadInput, match="3072 pixels"):
        open_clip(encode(tmp_path / "large.mp4", moving(2)))


def test_a_frame_may_have_any_name_and_an_empty_video_is_called_empty(tmp_path):
    names = [b"-o.png", b"a\nb.png", b"f1.png", b"\xff.png"]
    for name in names:
        save(tmp_path / "a.png", picture(16, 20))
        (tmp_path / "a.png").rename(tmp_path / os.fsdecode(name))
    assert {f"{frame.name}.png" for frame in read_frames(open_clip(tmp_path), (16, 20))} == set(map(os.fsdecode, names))
    (tmp_path / "a.mp4").touch()
    with pytest.raises(BadInput, match="is empty"):
        open_clip(tmp_path / "a.mp4")


def test_a_folders_damaged_frame_is_named(tmp_path):
    for n in range(3):
        save(tmp_path / f"{n}.png", picture(16, 20))
    (tmp_path / "1.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(BadInput, match=r"1\.png"):
        list(read_frames(open_clip(tmp_path), (16, 20)))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BadInput, match="no pictures in the folder"):
        open_clip(tmp_path / "nothing")
    save(tmp_path / "2.bmp", picture(16, 20))
    with (
        pytest.raises(BadInput, match="differ only in their suffix"),
        pytest.warns(ImpastoWarning, match="ignored in .*: 1 folder"),
    ):
        open_clip(tmp_path)


def test_what_the_container_cannot_hold_is_an_error_before_the_work(tmp_path):
    source = encode(tmp_path / "in.mkv", moving(2))
    clip = open_clip(source)
    check_video(tmp_path / "out.mp4", clip)
    with pytest.raises(CannotWrite, match=r"must end in one of \.mp4"):
        check_video(tmp_path / "out.xyz", clip)


def test_a_video_that_was_cut_off_gives_a_warning(tmp_path):
    data = encode(tmp_path / "whole.mkv", moving(11)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    with pytest.warns(ImpastoWarning, match=r"cut\.mkv claims to last 0\.4 s, but its frames end after 0\.[12] s"):
        assert 0 < len(list(read_frames(open_clip(tmp_path / "cut.mkv"), (48, 64)))) < 9


def test_a_full_disk_leaves_the_old_video(tmp_path):
    clip = open_clip(encode(tmp_path / "in.mp4", moving()))
    made, output = painted(tmp_path, clip), tmp_path / "out.mp4"
    output.write_bytes(b"old")
    with room_for(2000), pytest.raises(NoRoom):
        write_video(output, *made, clip, {})
    assert output.read_bytes() == b"old" and not list(tmp_path.glob(".impasto*"))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_disk_that_fills_while_frames_are_encoded_is_no_bad_input(tmp_path, suffix):
    noise = [torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(n)) for n in range(30)]
    clip = open_clip(encode(tmp_path / "in.mp4", noise, sound=True))
    made = painted(tmp_path, clip, (128, 128))
    with room_for(20_000), pytest.raises(NoRoom):
        write_video(tmp_path / f"out{suffix}", *made, clip, {})


def test_a_video_is_the_same_bytes_each_time(tmp_path):
    clip = open_clip(encode(tmp_path / "in.mp4", moving(), sound=True))
    made = painted(tmp_path, clip)
    for name in ("one.mp4", "two.mp4"):
        write_video(tmp_path / name, *made, clip, {})
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    assert np.abs(pixels(tmp_path / "one.mp4").astype(float) - pixels(tmp_path / "in.mp4")).mean() < 8


def mixed(path: Path, cover: bool) -> Path:
    """A film of four frames behind a track of one, which in .mp4 says that it is a cover."""
    with av.open(str(path), "w") as output:
        still, film = output.add_stream("mjpeg", rate=25), output.add_stream("libx264", rate=10)
        for stream, form in ((still, "yuvj420p"), (film, "yuv420p")):
            stream.height, stream.width, stream.pix_fmt = 48, 64, form
        if cover:
            still.disposition = Disposition.attached_pic
        for stream, count in ((still, 1), (film, 4)):
            for n in range(count):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 200 if stream is film else 20, np.uint8))
                frame.pts = n
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("name", "cover"), [("a.mp4", True), ("a.mkv", False)])
def test_the_film_is_taken_and_no_cover(tmp_path, name, cover):
    found = list(read_frames(open_clip(mixed(tmp_path / name, cover)), (48, 64)))
    assert len(found) == 4 and all(frame.image.mean() > 0.6 for frame in found)


def test_what_systems_leave_in_a_folder_is_no_frame(tmp_path):
    for name in ("f1.png", "f2.png"):
        save(tmp_path / name, picture(16, 20))
    for name in ("._f1.png", ".hidden.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert [frame.name for frame in read_frames(open_clip(tmp_path), (16, 20))] == ["f1", "f2"]


def test_names_with_odd_digits_are_in_some_order(tmp_path):
    for name in ("f10", "f9", "f²", "f③", "f४", "f12³"):
        save(tmp_path / f"{name}.png", picture(16, 20))
    names = [frame.name for frame in read_frames(open_clip(tmp_path), (16, 20))]
    assert sorted(names) == sorted(["f10", "f9", "f²", "f③", "f४", "f12³"]) and names.index("f9") < names.index("f10")


def test_a_frame_of_another_shape_is_refused_and_one_of_another_size_is_not(tmp_path):
    save(tmp_path / "1.png", picture(16, 20))
    save(tmp_path / "2.png", picture(32, 40))
    assert len(list(read_frames(open_clip(tmp_path), (16, 20)))) == 2
    save(tmp_path / "3.png", picture(20, 16))
    with pytest.raises(BadInput, match=r"3\.png has 16 x 20 pixels, the first frame 20 x 16: all frames need the same shape"):
        list(read_frames(open_clip(tmp_path), (16, 20)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF", "PPM"])
def test_a_still_picture_is_no_video(tmp_path, kind):
    to_pillow(picture(16, 20)).save(tmp_path / "a", kind)
    with pytest.raises(BadInput, match="it is a picture, not a video"):
        open_clip(tmp_path / "a")


def test_what_is_no_video_file_is_called_by_its_name(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"<!doctype html><html></html>")
    with pytest.raises(BadInput, match="it is a web page"):
        open_clip(tmp_path / "a.mp4")
    with pytest.raises(BadInput, match="it is an address: download the file first"):
        open_clip(Path("https://example.org/a.mp4"))
    os.mkfifo(tmp_path / "b.mp4")
    with pytest.raises(BadInput, match="it is a pipe"):
        open_clip(tmp_path / "b.mp4")


def test_a_long_last_frame_is_no_cut(tmp_path):
    frames = [to_pillow(it) for it in moving(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[40, 40, 3000])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(read_frames(open_clip(tmp_path / "a.gif"), (48, 64)))
    assert [frame.duration for frame in found] == [4, 4, 300]


def test_what_is_transparent_is_read_and_laid_on_white(tmp_path):
    alpha = torch.ones(1, 1, 48, 64)
    alpha[..., 32:] = 0
    (tmp_path / "in").mkdir()
    write_picture(tmp_path / "in" / "1.png", torch.zeros(1, 3, 48, 64), alpha)
    clip = open_clip(tmp_path / "in")
    (frame,) = read_frames(clip, (48, 64))
    assert torch.equal(frame.alpha, alpha)
    write_video(tmp_path / "out.mp4", [tmp_path / "in" / "1.png"], [(0, 1)], clip, {})
    shown = pixels(tmp_path / "out.mp4")[0]
    assert shown[:, :28].max() < 20 and shown[:, 36:].min() > 235


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_record_of_any_length_comes_back(tmp_path, suffix):
    clip = open_clip(encode(tmp_path / "in.mp4", moving(2)))
    made, output = painted(tmp_path, clip), tmp_path / f"out{suffix}"
    for length in (60_000, 100_000, 17_000_000):
        fits = length <= (65_000 if suffix == ".mov" else 16_000_000)
        with contextlib.nullcontext() if fits else pytest.warns(ImpastoWarning, match="the record is too large"):
            write_video(output, *made, clip, {"recipe": "x" * length})
        assert read_video_record(output) == {"recipe": "x" * length}


def test_music_with_a_cover_has_no_video(tmp_path):
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as output:
        cover, sound = output.add_stream("mjpeg", rate=25), output.add_stream("aac", rate=44100)
        cover.height, cover.width, cover.pix_fmt, cover.disposition = 48, 64, "yuvj420p", Disposition.attached_pic
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.int16), format="s16", layout="mono")
        tone.sample_rate = 44100
        for stream, frame in ((cover, av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))), (sound, tone)):
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    with pytest.raises(BadInput, match="has no video, only a cover picture"):
        open_clip(tmp_path / "a.m4a")
