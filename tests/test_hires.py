"""16 bits and profiles: what comes in goes out to the level, what cannot is said."""

import io
import struct
import sys
import zlib
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from impasto.errors import BadImage, CannotWrite, ImpastoWarning, MissingExtra, NoRoom
from impasto.images.formats import png_chunk
from impasto.images.images import (
    check_format,
    decode,
    in_profile,
    read_picture,
    read_record,
    resize,
    to_pillow,
    usable_profile,
    write_picture,
)
from tests.conftest import damaged, picture

RGB = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
RGBA = np.dstack([RGB, np.arange(600, dtype=np.uint16).reshape(20, 30) * 100])
P3 = ((0.515121, 0.241196, -0.001053), (0.291977, 0.692245, 0.041885), (0.157104, 0.066574, 0.784073))  # its colorants under D50


@pytest.fixture
def without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvips", None)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / 65535).permute(2, 0, 1)[None]


def png(pixels: np.ndarray, size: tuple[int, int] | None = None) -> bytes:
    """A PNG of 16 bits, by the specification and no library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", *(size or (width, height)), 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(pixels: np.ndarray, orientation: int = 1, extra: int = 2) -> bytes:
    """A TIFF of 16 bits in one strip, by the specification and no library; `extra` 1: colours multiplied by alpha."""
    height, width, n = pixels.shape
    bits, data = struct.pack(f"<{n}H", *[16] * n), pixels.astype("<u2").tobytes()
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, n, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8 + len(bits))]
    tags += [(274, 3, 1, orientation), (277, 3, 1, n), (278, 3, 1, height), (279, 4, 1, len(data)), (284, 3, 1, 1)]
    tags += [(338, 3, 1, extra)] if n == 4 else []
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(bits) + len(data)) + bits + data + directory


@cache  # its bytes hold the time
def p3() -> bytes:
    """A profile of a display whose green and red sRGB has not: sRGB's own with P3's colorants."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for n in range(struct.unpack(">I", made[128:132])[0]):
        name, offset, _ = struct.unpack(">4sII", made[132 + 12 * n : 144 + 12 * n])
        if name in (b"rXYZ", b"gXYZ", b"bXYZ"):
            values = [round(v * 65536) for v in P3[b"rgb".index(name[:1])]]
            made[offset + 8 : offset + 20] = struct.pack(">3i", *values)
    return bytes(made)


@pytest.mark.parametrize("pixels", [RGB, RGBA], ids=["RGB", "RGBA"])
@pytest.mark.parametrize("made", [png, tiff])
def test_every_bit_is_read(tmp_path, made, pixels):
    (tmp_path / "a").write_bytes(made(pixels))
    read = read_picture(tmp_path / "a", keep_hidden=True)
    assert torch.equal(read.image, as_tensor(pixels)[:, :3])
    assert (read.alpha is None) == (pixels is RGB)
    if read.alpha is not None:
        assert torch.equal(read.alpha, as_tensor(pixels)[:, 3:])


def test_grey_with_alpha_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(png(RGBA[..., 2:]))
    read = read_picture(tmp_path / "a.png", keep_hidden=True)
    assert torch.equal(read.image, as_tensor(RGBA[..., [2, 2, 2]])) and torch.equal(read.alpha, as_tensor(RGBA[..., 3:]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sixteen_bits_are_turned_upright(tmp_path, orientation):
    """As Pillow turns the same file's 8 bits."""
    smooth = (picture(20, 30)[0].permute(1, 2, 0).numpy() * 65535).astype(np.uint16)
    (tmp_path / "a.tif").write_bytes(tiff(smooth, orientation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray((smooth >> 8).astype(np.uint8)).save(tmp_path / "8.png", exif=exif)
    expected = read_picture(tmp_path / "8.png").image
    torch.testing.assert_close(read_picture(tmp_path / "a.tif").image, expected, atol=1.01 / 255, rtol=0)
    assert expected.shape[-2:] == ((20, 30) if orientation < 5 else (30, 20))


def test_colours_multiplied_by_alpha_are_divided_again(tmp_path):
    alpha = np.full((20, 30, 1), 32768, np.uint16)
    (tmp_path / "a.tif").write_bytes(tiff(np.dstack([RGB // 2, alpha]), extra=1))
    torch.testing.assert_close(read_picture(tmp_path / "a.tif").image, as_tensor(RGB), atol=3 / 65535, rtol=0)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tiff"])
@pytest.mark.parametrize("pixels", [RGB, RGBA], ids=["RGB", "RGBA"])
def test_sixteen_bits_come_back_to_the_level_with_their_record(tmp_path, name, pixels):
    layers, record = as_tensor(pixels), {"recipe": {"size": 512}, "words": "für ✓"}
    write_picture(tmp_path / name, layers[:, :3], layers[:, 3:] if pixels is RGBA else None, record, bits=16)
    read = read_picture(tmp_path / name, keep_hidden=True)
    assert torch.equal(read.image, layers[:, :3]) and read_record(tmp_path / name) == record
    assert read.alpha is None if pixels is RGB else torch.equal(read.alpha, layers[:, 3:])
    with Image.open(tmp_path / name) as opened:
        assert any(";16" in str(tile.args) for tile in opened.tile)
    before = (tmp_path / name).read_bytes()
    write_picture(tmp_path / name, layers[:, :3], layers[:, 3:] if pixels is RGBA else None, record, bits=16)
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.usefixtures("without_the_extra")
@pytest.mark.parametrize("made", [png, tiff])
def test_without_the_extra_reading_says_that_bits_are_lost(tmp_path, made):
    (tmp_path / "a").write_bytes(made(RGB))
    with pytest.warns(ImpastoWarning, match=r"a has 16 bits a channel, but is read with 8: .* pip install '\.\[hires\]'"):
        read = read_picture(tmp_path / "a")
    torch.testing.assert_close(read.image, as_tensor(RGB), atol=1.01 / 255, rtol=0)


@pytest.mark.usefixtures("without_the_extra")
def test_without_the_extra_nothing_is_written(tmp_path):
    with pytest.raises(MissingExtra, match=r"pip install '\.\[hires\]'") as raised:
        check_format(tmp_path / "a.png", bits=16)
    assert raised.value.exit_code == 2
    with pytest.raises(MissingExtra):
        write_picture(tmp_path / "a.png", picture(16, 16), bits=16)
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_a_format_of_8_bits_is_refused_16(tmp_path, name):
    with pytest.raises(CannotWrite, match=r"with 16 bits a channel: the name must end in one of \.png"):
        check_format(tmp_path / name, bits=16)


def test_more_pixels_than_are_read_are_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("impasto.images.hires.read", lambda *_: pytest.fail("decoded"))
    for size in ((30000, 30000), (16385, 16384)):
        (tmp_path / "a.png").write_bytes(png(RGB, size))
        with pytest.raises(BadImage, match="more than"):
            read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("made", [png, tiff])
def test_half_a_file_is_damaged_and_says_so_in_a_line(tmp_path, made):
    data = made(RGB)
    if made is tiff:  # its directory first, so that only pixels are missing
        write_picture(tmp_path / "a.tif", as_tensor(RGB), bits=16)
        data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadImage) as raised:
        read_picture(tmp_path / "a.tif")
    assert "\n" not in str(raised.value) and "a.tif" in str(raised.value)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_sixteen_bits_give_a_picture_or_bad_image(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "a"
    path.write_bytes(damaged(data, data.draw(st.sampled_from([png, tiff]))(RGBA[:8, :8])))
    try:
        image = read_picture(path).image
    except BadImage as error:
        assert "\n" not in str(error)
        return
    assert image.dtype == torch.float32 and 0 <= image.min() <= image.max() <= 1


# Profiles


def test_a_profile_comes_with_its_picture(tmp_path):
    to_pillow(picture(20, 30)).save(tmp_path / "a.png", icc_profile=p3())
    assert read_picture(tmp_path / "a.png").profile == p3() == usable_profile(read_picture(tmp_path / "a.png"))
    to_pillow(picture(20, 30)).save(tmp_path / "a.png")
    assert usable_profile(read_picture(tmp_path / "a.png")) is None


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_colours_come_back_through_a_profile_within_two_levels(tmp_path, name):
    image, profile = resize(picture(5, 7), (20, 30)), p3()
    write_picture(tmp_path / name, image, profile=profile)
    with Image.open(tmp_path / name) as opened:
        assert opened.info["icc_profile"] == profile
        stored = torch.from_numpy(np.asarray(opened.convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1)[None]
    tolerance = 8 if name == "a.jpg" else 2  # of 255
    torch.testing.assert_close(read_picture(tmp_path / name).image, image, atol=(tolerance + 0.5) / 255, rtol=0)
    assert (stored - image).abs().max() > 10 / 255, "the wider gamut's numbers are others"


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_come_back_through_a_profile_within_a_level_of_8(tmp_path, name):
    image, alpha, profile = picture(20, 30), as_tensor(RGBA)[:, 3:], p3()
    write_picture(tmp_path / name, image, alpha, bits=16, profile=profile)
    read = read_picture(tmp_path / name, keep_hidden=True)
    assert read.profile == profile and torch.equal(read.alpha, alpha)
    assert (read.image - image).abs().max() < 1 / 255 and (read.image - image).abs().mean() < 0.1 / 255


def test_sixteen_bits_are_converted_as_eight_are(tmp_path):
    """By the profile in the file, to half a level and what 8 bits round."""
    image = picture(20, 30)
    to_pillow(image).save(tmp_path / "8.tif", icc_profile=p3())
    write_picture(tmp_path / "16.tif", read_picture(tmp_path / "8.tif").image, bits=16, profile=p3())
    eight, sixteen = (read_picture(tmp_path / name).image for name in ("8.tif", "16.tif"))
    torch.testing.assert_close(sixteen, eight, atol=1 / 255, rtol=0)
    assert (eight - image).abs().max() > 10 / 255


def test_alpha_is_untouched_by_a_profile():
    rgba = to_pillow(picture(20, 30), torch.linspace(0, 1, 600).view(1, 1, 20, 30))
    converted = in_profile(rgba, p3())
    assert converted.mode == "RGBA" and converted.getchannel("A").tobytes() == rgba.getchannel("A").tobytes()


@pytest.mark.parametrize(("inks", "said"), [(b"CMYK", "it is for CMYK, a painting is RGB"), (b"GRAY", "it is for GRAY")])
def test_a_profile_of_other_inks_gives_a_warning_and_srgb_is_written(tmp_path, inks, said):
    encoded = io.BytesIO()
    to_pillow(picture(20, 30)).save(encoded, "PNG")
    plain = read_picture(Image.open(encoded))
    profile = p3()[:16] + inks + p3()[20:]
    with pytest.warns(ImpastoWarning, match=f"{said}.*writing sRGB"):
        assert usable_profile(type(plain)(plain.image, None, "", profile)) is None


def test_a_broken_profile_gives_a_warning_and_srgb_is_written():
    with pytest.warns(ImpastoWarning, match="cannot be kept"):
        assert usable_profile(type(read_picture(to_pillow(picture(9, 9))))(picture(9, 9), None, "", b"no profile")) is None


def test_no_room_for_libvips_files_is_no_damaged_picture(tmp_path, monkeypatch):
    import pyvips

    def full(*_: object, **__: object):
        raise pyvips.Error("unable to write to memory", "wbuffer_write: write failed\nsystem error: No space left on device\n")

    monkeypatch.setattr(pyvips.Image, "tiffload_buffer", full, raising=False)
    (tmp_path / "a.tif").write_bytes(tiff(RGB))
    with pytest.raises(NoRoom, match="no room on the disk"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("broken", [b"no profile", p3()[:16] + b"CMYK" + p3()[20:]], ids=["junk", "other inks"])
def test_a_broken_profile_of_sixteen_bits_is_passed_over(tmp_path, broken):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    write_picture(tmp_path / "a.tif", as_tensor(RGB), bits=16, profile=srgb)
    whole = png(RGB)
    files = whole[:33] + png_chunk(b"iCCP", b"P\0\0" + zlib.compress(broken)) + whole[33:], (tmp_path / "a.tif").read_bytes()
    for data in files:
        read = decode(data.replace(srgb, broken[: len(srgb)].ljust(len(srgb), b"\0")), "a").image
        torch.testing.assert_close(read, as_tensor(RGB), atol=2 / 255, rtol=0)


def grey_profile(gamma: float) -> bytes:
    """A grey profile whose tones are light to this power, by the specification (ICC.1, 4.3)."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    about = b"desc\0\0\0\0\0\0\0\1\0" + bytes(79)
    tags, at, table = {b"desc": about, b"wtpt": white, b"kTRC": curve}, 128 + 4 + 36, b""
    for name, tag in tags.items():
        table, at = table + struct.pack(">4sII", name, at, len(tag)), at + len(tag)
    head = struct.pack(">I4xI4s4s4s12x4s24x", at, 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"acsp")
    head += struct.pack(">I3i", 0, 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", 3) + table + b"".join(tags.values())


@pytest.mark.parametrize("bits", [8, 16])
def test_a_grey_profile_is_used_in_eight_bits_and_in_sixteen(tmp_path, bits):
    """Linear grey, whose tones sRGB's curve makes lighter."""
    light = np.linspace(0.1, 1, 600).reshape(20, 30)
    pixels = (light * (2**bits - 1)).round().astype(np.uint8 if bits == 8 else np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=grey_profile(1.0))
    expected = torch.from_numpy(1.055 * light ** (1 / 2.4) - 0.055).float().expand(1, 3, 20, 30)
    torch.testing.assert_close(read_picture(tmp_path / "a.png").image, expected, atol=0.01, rtol=0)
