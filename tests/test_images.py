"""Pictures as they come: every kind to the right pixels, every broken one to one line."""

import contextlib
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from impasto.errors import BadImage, CannotWrite, ImpastoWarning, NoRoom
from impasto.files import pictures_of
from impasto.images.images import (
    MAX_PIXELS,
    beside,
    check_format,
    declared_size,
    decode,
    quantize,
    read_deep_zoom,
    read_picture,
    read_record,
    resize,
    scaled_size,
    to_pillow,
    write_picture,
)
from impasto.pictures import picture_path
from tests.conftest import damaged, picture, room_for

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4
EXPECTED = torch.from_numpy(RGB.astype(np.float32) / 255).permute(2, 0, 1)[None]


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.bmp", "a.ppm"])
def test_lossless_files_are_read_exactly(tmp_path, name):
    Image.fromarray(RGB).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    torch.testing.assert_close(read_picture(tmp_path / name).image, EXPECTED)


def test_a_pillow_image_is_a_picture():
    torch.testing.assert_close(read_picture(Image.fromarray(RGB)).image, EXPECTED)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(tmp_path, orientation):
    """What is stored is the upright picture turned back, by Pillow's own tables."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = Image.fromarray(RGB)
    if orientation in back:
        stored = stored.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    torch.testing.assert_close(read_picture(tmp_path / "a.png").image, EXPECTED)


def test_grey_is_three_equal_channels(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "a.png")
    torch.testing.assert_close(read_picture(tmp_path / "a.png").image, EXPECTED[:, :1].expand(1, 3, 4, 5))


def test_sixteen_bit_grey_keeps_its_bits(tmp_path):
    values = (np.arange(20, dtype=np.uint16) * 3001).reshape(4, 5)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = torch.from_numpy(values.astype(np.float32) / 65535)[None, None].expand(1, 3, 4, 5)
    torch.testing.assert_close(read_picture(tmp_path / "a.png").image, expected)


def test_palette_and_bilevel_are_read(tmp_path):
    Image.fromarray(RGB).quantize(64).save(tmp_path / "p.png")
    assert (read_picture(tmp_path / "p.png").image - EXPECTED).abs().max() < 0.05
    Image.fromarray(RGB[..., 0] > 100).save(tmp_path / "1.png")
    assert set(read_picture(tmp_path / "1.png").image.unique().tolist()) <= {0.0, 1.0}


def test_cmyk_is_read(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red = read_picture(tmp_path / "a.jpg").image.mean((0, 2, 3))
    assert red[0] > 0.9 and red[1:].max() < 0.1


def test_an_icc_profile_is_converted_to_srgb(tmp_path):
    """sRGB's own profile changes nothing; one whose red and green primaries are exchanged exchanges the channels."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    for profile, expected in ((srgb, (200, 64, 32)), (exchanged, (64, 200, 32))):
        Image.new("RGB", (16, 16), (200, 64, 32)).save(tmp_path / "a.png", icc_profile=profile)
        image = read_picture(tmp_path / "a.png").image
        torch.testing.assert_close(image, torch.tensor(expected).view(1, 3, 1, 1).expand_as(image) / 255, atol=0.01, rtol=0)


def test_a_broken_icc_profile_gives_a_warning_and_is_ignored(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png", icc_profile=b"no profile")
    with pytest.warns(ImpastoWarning, match="colour profile"):
        torch.testing.assert_close(read_picture(tmp_path / "a.png").image, EXPECTED)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_stays_and_hidden_pixels_take_the_mean(tmp_path, mode):
    rgba = np.dstack([np.full((4, 6, 3), 200, np.uint8), np.full((4, 6), 255, np.uint8)])
    rgba[:, 3:] = 0
    source = Image.fromarray(rgba)
    source = source.quantize(4) if mode == "P" else source.convert(mode)
    source.save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png")
    assert read.alpha is not None and read.alpha.shape == (1, 1, 4, 6)
    assert read.alpha[..., :3].min() == 1 and read.alpha[..., 3:].max() == 0
    torch.testing.assert_close(read.image, torch.full((1, 3, 4, 6), 200 / 255), atol=0.01, rtol=0)


def test_an_opaque_alpha_is_none(tmp_path):
    Image.fromarray(RGB).convert("RGBA").save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").alpha is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read .*No such file"),
        (b"", "is empty"),
        (b"hello, this is a text\n", "no picture"),
        (
            b"\xef\xbb\xbf<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>",
            "is an SVG drawing: save it as JPEG or PNG",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is a PostScript document"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (bytes(5000), "nothing but zeros: it was not saved completely$"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull downloads the file$"),
        (b"%PDF-1.7\n", "is a PDF document: save it as JPEG or PNG$"),
        (png_header(30000, 30000), "declares more than the 268 million"),
        (png_header(16385, 16384), "declares more than the 268 million"),
        (png_header(64, 64), "damaged"),
    ],
)
def test_what_is_no_picture_is_one_line(tmp_path, content, said):
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadImage, match=said) as error:
        read_picture(path)
    assert "\n" not in str(error.value) and "a.jpg" in str(error.value)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_a_photograph_of_a_telephone_is_read_with_the_extra_heic(tmp_path):
    import pillow_heif

    image, path = to_pillow(resize(read_picture(picture_path("cat")).image, (60, 80))), tmp_path / "a.heic"
    pillow_heif.from_pillow(image).save(path, quality=95)
    found = read_picture(path)
    assert found.image.shape == (1, 3, 60, 80) and found.alpha is None and declared_size(path) == (60, 80)
    assert (found.image - read_picture(image).image).abs().mean() < 0.02
    assert pictures_of(tmp_path) == [path]
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(BadImage, match=r"a\.heic is damaged") as error:
        read_picture(path)
    assert "\n" not in str(error.value) and "\\n" not in str(error.value)


def test_without_the_extra_it_is_said_what_to_install(tmp_path, monkeypatch):
    for module in ("formats", "opening"):
        monkeypatch.setattr(f"impasto.images.{module}.HAS_HEIC", False)
    (tmp_path / "a.heic").write_bytes(HEIC)
    with pytest.raises(BadImage, match="is a HEIC or HEIF photograph: save it as JPEG or PNG, or install the extra heic"):
        read_picture(tmp_path / "a.heic")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_a_truncated_file_is_damaged(tmp_path, name):
    to_pillow(picture(64, 64)).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BadImage):
        read_picture(tmp_path / name)


def test_a_floating_point_picture_is_refused(tmp_path):
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "a.tif")
    Image.fromarray(np.full((4, 4), 10**7, np.int32)).save(tmp_path / "i.tif")
    for name in ("a.tif", "i.tif"):
        with pytest.raises(BadImage, match="floating-point, signed or 32-bit"):
            read_picture(tmp_path / name)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for path, said in ((tmp_path / "a.jpg", "pipe"), (Path("/dev/zero"), "device"), (tmp_path, "folder")):
        for read in (read_picture, read_record):
            with pytest.raises(BadImage, match=f"it is a {said}"):
                read(path)
        assert declared_size(path) == (0, 0)
    with pytest.raises(BadImage, match="it is an address: download the file first"):
        read_picture("https://example.org/cat.jpg")


def test_a_pixel_and_a_line_are_pictures(tmp_path):
    for size in ((1, 1), (3, 2000)):
        Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "a.png")
        assert read_picture(tmp_path / "a.png").image.shape[-2:] == size[::-1]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_a_picture_or_bad_image(tmp_path_factory, data):
    encoded = io.BytesIO()
    to_pillow(picture(16, 16)).save(encoded, data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF"])))
    path = tmp_path_factory.mktemp("fuzz") / "a"
    path.write_bytes(damaged(data, encoded.getvalue()))
    try:
        image = read_picture(path).image
    except BadImage:
        return
    assert image.dtype == torch.float32 and 0 <= image.min() <= image.max() <= 1


@pytest.mark.parametrize(
    ("size", "longer", "expected"), [((300, 451), 512, (341, 512)), ((2000, 3), 512, (512, 1)), ((1, 1), 512, (512, 512))]
)
def test_the_longer_side_is_exact(size, longer, expected):
    assert scaled_size(torch.zeros(1, 3, *size), longer) == expected


def test_resizing_is_pillows_lanczos():
    image = quantize(picture(40, 30))
    expected = np.asarray(to_pillow(image).resize((20, 25), Image.Resampling.LANCZOS), dtype=np.float32) / 255
    ours = resize(image, (25, 20))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, expected, atol=1.01 / 255)
    assert resize(image, (40, 30)) is image


def test_what_is_saved_is_what_was_quantized(tmp_path):
    image, alpha = picture(9, 7), torch.linspace(0, 1, 63).view(1, 1, 9, 7)
    for name in ("a.png", "a.webp", "a.tif"):
        write_picture(tmp_path / name, image, alpha)
        read = read_picture(tmp_path / name, keep_hidden=True)
        torch.testing.assert_close(read.image, quantize(image), atol=1e-6, rtol=0)
        torch.testing.assert_close(read.alpha, quantize(alpha), atol=1e-6, rtol=0)


def test_jpeg_lays_alpha_on_white_and_says_so(tmp_path):
    with pytest.warns(ImpastoWarning, match="transparent"):
        write_picture(tmp_path / "a.jpg", torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16))
    assert read_picture(tmp_path / "a.jpg").image.min() > 0.98


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_the_record_comes_back(tmp_path, name):
    record = {"recipe": {"size": 512}, "words": "für ✓", "nested": [1, {"a": None}]}
    write_picture(tmp_path / name, picture(16, 16), record=record)
    assert read_record(tmp_path / name) == record


def test_a_picture_without_record_says_so(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with pytest.raises(BadImage, match="carries no recipe"):
        read_record(tmp_path / "a.png")
    with pytest.raises(BadImage, match="cannot read"):
        read_record(tmp_path / "absent.png")


def test_a_hostile_record_is_none(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("impasto", "[" * 100_000)
    Image.fromarray(RGB).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(BadImage, match="carries no recipe"):
        read_record(tmp_path / "a.png")


def test_webp_has_a_largest_side(tmp_path):
    check_format(tmp_path / "a.webp", 16383)
    with pytest.raises(CannotWrite, match="WebP allows 16383"):
        check_format(tmp_path / "a.webp", 16384)


def test_an_unknown_ending_cannot_be_written(tmp_path):
    with pytest.raises(CannotWrite, match=r"\.png"):
        write_picture(tmp_path / "a.gif", picture(16, 16))


def jpeg(image: Image.Image, **options) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", **options)
    return encoded.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=str)
def test_a_jpeg_that_lacks_only_its_end_is_read_and_one_that_lacks_pixels_is_not(tmp_path, options):
    whole = jpeg(to_pillow(picture(64, 48)), **options)
    (tmp_path / "whole.jpg").write_bytes(whole)
    for lacks in (1, 2):
        (tmp_path / "a.jpg").write_bytes(whole[:-lacks])
        with pytest.warns(ImpastoWarning, match="truncated, but all its pixels are there"):
            assert torch.equal(read_picture(tmp_path / "a.jpg").image, read_picture(tmp_path / "whole.jpg").image)
    for length in (len(whole) // 2, len(whole) - 60):
        (tmp_path / "a.jpg").write_bytes(whole[:length])
        with pytest.raises(BadImage, match="damaged"):
            read_picture(tmp_path / "a.jpg")


def test_a_png_without_its_end_is_read_if_all_pixels_are_there(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for missing in (4, 12, 18):  # of the end; all of it; and some of the checksums before
        (tmp_path / "a.png").write_bytes(whole[:-missing])
        with pytest.warns(ImpastoWarning, match="truncated, but") if missing > 4 else contextlib.nullcontext():
            torch.testing.assert_close(read_picture(tmp_path / "a.png").image, EXPECTED)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_several_frames_or_pages_the_first_is_taken_with_a_warning(tmp_path, name):
    frames = [Image.new("RGB", (20, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **({"lossless": True} if name == "a.webp" else {}))
    with pytest.warns(ImpastoWarning, match="has several pages" if name == "a.tif" else "is animated: the first frame is used"):
        assert read_picture(tmp_path / name).image[0, :, 8, 8].tolist() == [1, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames[0].save(tmp_path / name)
        read_picture(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.webp", "a.tif", "a.bmp", "a.jpg", "a.avif"])
def test_what_declares_too_many_pixels_is_not_decoded(tmp_path, name, monkeypatch):
    Image.new("RGB", (60, 50)).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    assert decode(data, "a", most_pixels=3000).image.shape[-2:] == (50, 60)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(BadImage, match="more than the"):
        decode(data, "a", most_pixels=2998)
    assert before == Image.MAX_IMAGE_PIXELS and MAX_PIXELS >= 16384**2


def test_a_full_disk_is_no_damaged_picture(tmp_path):
    Image.fromarray(RGB).resize((200, 200)).save(tmp_path / "a.png")
    with room_for(1000), pytest.raises(NoRoom):
        read_picture(tmp_path / "a.png", folder=tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_a_record_that_the_file_cannot_hold_lies_beside_it(tmp_path, name):
    record = {"words": ["x" * 1000] * 1100}
    with pytest.warns(ImpastoWarning, match="the record is too large"):
        write_picture(tmp_path / name, picture(16, 16), record=record)
    assert read_record(tmp_path / name) == record and beside(tmp_path / name).is_file()
    write_picture(tmp_path / name, picture(16, 16, 1))
    with pytest.raises(BadImage, match="carries no recipe"):  # it is of another picture
        read_record(tmp_path / name)


@pytest.mark.parametrize("characters", [59_000, 900_000])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_a_large_record_comes_back(tmp_path, name, characters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if name == "a.jpg" else "error")
        write_picture(tmp_path / name, picture(16, 16), record={"words": "x" * characters})
    assert read_record(tmp_path / name) == {"words": "x" * characters}
    assert beside(tmp_path / name).exists() == (name == "a.jpg" and characters > 60_000)


@pytest.mark.parametrize(
    "size", ['Width="99999" Height="99999"', 'Width="0" Height="5"', 'Width="x"', 'Width="9999999999" Height="1"']
)
def test_a_hostile_deep_zoom_is_one_line(tmp_path, size):
    (tmp_path / "a.dzi").write_text(f"<Image {size}/>" + "<!-- impasto " * 100_000)
    with pytest.raises(BadImage, match="cannot read"):
        read_deep_zoom(tmp_path / "a.dzi")
    with pytest.raises(BadImage, match="no recipe"):
        read_record(tmp_path / "a.dzi")
