"""Picture files as bytes: whatever else is in them, their pixels are read."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from impasto.errors import BadImage
from impasto.images.formats import chunks, other_format, png_chunk, png_text, strip_metadata
from impasto.images.images import decode, read_picture, read_record, write_picture
from tests.conftest import picture
from tests.test_hires import p3, png, tiff

LONG = b"prompt\0" + b"x" * 2_000_000
PIXELS = np.random.default_rng(1).integers(0, 256, (12, 17, 3), dtype=np.uint8)
DEEP = np.random.default_rng(2).integers(0, 65536, (12, 17, 4), dtype=np.uint16)


def encoded(kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def as_tensor(pixels: np.ndarray, white: int = 255) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / white).permute(2, 0, 1)[None]


def with_chunk(data: bytes, chunk: bytes, before: bytes) -> bytes:
    at = next(it.first - 8 for it in chunks(data) if it.kind == before)
    return data[:at] + chunk + data[at:]


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"tEXt", LONG),
        png_chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"x" * 100_000_000, 9)),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + LONG),
        png_chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(LONG)),
        png_chunk(b"tEXt", b"Title\0wrong checksum")[:-4] + b"\0\0\0\0",
        png_chunk(b"zTXt", b"Title\0\7unknown method"),
        png_chunk(b"pHYs", b"\0"),
        png_chunk(b"eXIf", bytes(20_000_000)),
        png_chunk(b"iCCP", b"P\0\0" + zlib.compress(bytes(100_000_000), 9)),
    ],
    ids=lambda it: it[4:8].decode() + str(len(it)),  # kind and length
)
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.filterwarnings("ignore:the colour profile cannot be used")
def test_whatever_a_png_says_beside_its_pixels_it_is_read(chunk, before, deep):
    expected = as_tensor(DEEP[..., :3], 65535) if deep else as_tensor(PIXELS)
    data = with_chunk(png(DEEP[..., :3]) if deep else encoded("PNG"), chunk, before)
    tracemalloc.start()
    assert torch.equal(decode(data, "a").image, expected)
    assert tracemalloc.get_traced_memory()[1] < 40_000_000  # what text and profiles would grow to is never held
    tracemalloc.stop()


def test_a_profile_of_more_than_a_megabyte_is_used():
    data, large = encoded("PNG", icc_profile=p3()), p3() + bytes(1_200_000)
    head = struct.pack(">I", len(large)) + large[4:]
    read = decode(with_chunk(encoded("PNG"), png_chunk(b"iCCP", b"P\0\0" + zlib.compress(head)), b"IDAT"), "a")
    assert read.profile == head and torch.equal(read.image, decode(data, "a").image)
    assert not torch.equal(read.image, as_tensor(PIXELS))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "AVIF", "GIF"])
def test_whatever_another_file_says_beside_its_pixels_it_is_read(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = encoded(kind, **options)
    data = {
        "JPEG": lambda: (
            plain[:2] + b"".join(b"\xff" + m + b"\xff\xff" + b"x" * 65533 for m in (b"\xfe", b"\xe1", b"\xed") * 20) + plain[2:]
        ),
        "WEBP": lambda: encoded(kind, xmp=b"x" * 3_000_000, **options),
        "TIFF": lambda: encoded(kind, tiffinfo={270: "x" * 3_000_000, 700: b"x" * 3_000_000}),
        "AVIF": lambda: encoded(kind, xmp=b"x" * 3_000_000),
        "GIF": lambda: encoded(kind, comment=b"x" * 3_000_000),
    }[kind]()
    assert len(data) > 3_000_000 and torch.equal(decode(data, "a").image, decode(plain, "a").image)


def test_sixteen_bits_with_much_text_are_read():
    smooth = as_tensor(DEEP, 65535)
    written = io.BytesIO()
    Image.fromarray(DEEP[..., 0]).save(written, "TIFF", tiffinfo={270: "x" * 3_000_000})
    assert torch.equal(decode(written.getvalue(), "a").image[:, :1], smooth[:, :1])


def exif(kind: int, value: bytes, *more: bytes) -> bytes:
    """An EXIF block of this orientation and other entries."""
    entries = [struct.pack("<HHI", 274, kind, 1) + value, *more]
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


@pytest.mark.parametrize(
    "block",
    [
        exif(3, b"\6\0\0\0"),
        exif(8, b"\6\0\0\0"),
        exif(4, b"\6\0\0\0"),
        exif(1, b"\6\0\0\0"),
        exif(3, b"\6\0\0\0", struct.pack("<HHI", 282, 2, 3) + b"72\0\0"),
        exif(3, b"\6\0\0\0", struct.pack("<HHI", 283, 5, 1) + b"\xff\xff\xff\x7f"),
        exif(3, b"\6\0\0\0", struct.pack("<HHI", 34665, 7, 1) + b"\1\2\3\4"),
    ],
)
def test_a_jpeg_is_turned_whatever_else_its_exif_says(block):
    plain = encoded("JPEG")
    turned = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    assert torch.equal(decode(turned, "a").image, decode(plain, "a").image.rot90(-1, (2, 3)))


EXIF_AS_TEXT = b"\nexif\n26\n" + exif(3, b"\6\0\0\0").hex().encode() + b"\n"


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='1' tiff:Orientation=\"6\"/>"),
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(EXIF_AS_TEXT)),
    ],
)
@pytest.mark.parametrize("data", [encoded("PNG"), png(DEEP)], ids=["8", "16"])
def test_a_png_is_turned_as_its_text_says(data, chunk):
    turned = decode(with_chunk(data, chunk, b"IDAT"), "a", keep_hidden=True)
    assert torch.equal(turned.image, decode(data, "a", keep_hidden=True).image.rot90(-1, (2, 3)))


@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_tiff_with_much_text_is_read_large_or_small(bigtiff):
    import pyvips

    image = pyvips.Image.new_from_array(DEEP).copy(interpretation="rgb16")
    image.set_type(pyvips.GValue.gstr_type, "image-description", "x" * 3_000_000)
    data = image.tiffsave_buffer(bigtiff=bigtiff)
    assert len(data) > 3_000_000 and torch.equal(decode(data, "a", keep_hidden=True).image, as_tensor(DEEP[..., :3], 65535))


@pytest.mark.parametrize(
    "segment",
    [
        b"\xe2ICC_PROFILE\0",
        b"\xe2ICC_PROFILE\0\5\7" + bytes(40),
        b"\xeeAdobe\0",
        b"\xe0JFIF\0",
        b"\xedPhotoshop 3.0\0008BIM\3\xed\0\xff",
        b"\xe2MPF\0II*\0" + b"\xff" * 90,
    ],
)
def test_a_broken_segment_of_a_jpeg_hides_no_pixels(segment):
    plain = encoded("JPEG")
    data = plain[:2] + b"\xff" + segment[:1] + struct.pack(">H", len(segment) + 1) + segment[1:] + plain[2:]
    assert torch.equal(decode(data, "a").image, decode(plain, "a").image)


def test_exif_that_cannot_be_read_turns_nothing():
    plain = encoded("JPEG")
    for block in (b"Exif\0\0" + b"nonsense" * 9, exif(3, b"\x63\0\0\0"), exif(2, b"six\0")):
        assert torch.equal(
            decode(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:], "a").image,
            decode(plain, "a").image,
        )


@pytest.mark.parametrize("gamma", [1.0, 0.55])
@pytest.mark.parametrize("white", [255, 65535])
def test_a_pngs_gamma_is_honoured(gamma, white):
    """Light as sRGB and by the gamma: the same picture."""
    srgb = np.linspace(0.3, 1, 204).reshape(12, 17, 1).repeat(3, 2)
    light = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    pixels = (light**gamma * white).round()
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    data = file.getvalue() if white == 255 else png(pixels.astype(np.uint16))
    data = with_chunk(data, png_chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000))), b"IDAT")
    read = decode(data, "a").image
    torch.testing.assert_close(read, as_tensor(srgb, 1), atol=0.006, rtol=0)
    for said in (png_chunk(b"sRGB", b"\0"), png_chunk(b"iCCP", b"P\0\0" + zlib.compress(p3()))):
        assert not torch.allclose(decode(with_chunk(data, said, b"IDAT"), "a").image, read, atol=0.05)


@pytest.mark.parametrize("gamma", [0, 1, 45455, 2**32 - 1])
def test_the_usual_gamma_and_an_absurd_one_change_nothing(gamma):
    data = with_chunk(encoded("PNG"), png_chunk(b"gAMA", struct.pack(">I", gamma)), b"IDAT")
    assert torch.equal(decode(data, "a").image, as_tensor(PIXELS))


def grey_tiff(
    data: bytes, bits: int, photometric: int = 1, sample_format: int = 1, samples: int = 1, order: str = "<", extra: int = 2
) -> bytes:
    """A TIFF of 17 x 12 pixels in one strip, by the specification and no library."""
    short = {256: [17], 257: [12], 258: [bits] * samples, 259: [1], 262: [photometric], 273: [8], 277: [samples], 278: [12]}
    short |= {279: [len(data)]} | ({338: [extra]} if samples == 2 else {}) | {339: [sample_format] * samples}
    entries = [
        struct.pack(order + "HHI", tag, 3, len(its)) + struct.pack(f"{order}{len(its)}H", *its).ljust(4, b"\0")
        for tag, its in short.items()
    ]
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(data))
    return head + data + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)


def test_a_channel_of_a_tiff_that_is_no_alpha_is_left_out():
    read = decode(tiff(DEEP, extra=0), "a")
    assert read.alpha is None and torch.equal(read.image, as_tensor(DEEP[..., :3], 65535))


GREY = np.random.default_rng(3).integers(0, 65536, (12, 17), dtype=np.uint16)


@pytest.mark.parametrize("order", ["<", ">"])
def test_where_a_tiffs_white_is_zero_tones_are_turned_round(order):
    for bits, white in ((8, 255), (16, 65535)):
        values = (GREY >> (16 - bits)).astype(f"{order}u{bits // 8}")
        read = decode(grey_tiff(values.tobytes(), bits, 0, order=order), "a").image
        torch.testing.assert_close(read[:, :1], 1 - as_tensor((GREY >> (16 - bits))[..., None], white), atol=1e-6, rtol=0)


def test_twelve_bits_are_brought_to_white():
    rows = np.pad(GREY >> 4, ((0, 0), (0, 1))).astype(np.uint32)  # two values of 12 bits in three bytes
    one, two = rows[:, ::2], rows[:, 1::2]
    packed = np.stack([one >> 4, (one & 15) << 4 | two >> 8, two & 255], 2).astype(np.uint8).reshape(12, -1)[:, :26]
    read = decode(grey_tiff(packed.tobytes(), 12), "a").image
    torch.testing.assert_close(read[:, :1], as_tensor((GREY >> 4)[..., None], 4095))


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "u4", "f4"])
def test_numbers_whose_white_is_not_known_are_refused(dtype):
    kind = {"i": 2, "u": 1, "f": 3}[dtype[0]]
    with pytest.raises(BadImage, match="whose white is unknown; save it as 8 or 16 bit"):
        decode(grey_tiff((GREY & 127).astype(f"<{dtype}").tobytes(), 8 * int(dtype[1]), sample_format=kind), "a")


@pytest.mark.parametrize("bits", [14, 24, 64])
def test_other_numbers_of_bits_give_an_error(bits):
    with pytest.raises(BadImage, match=f"has pixels of {bits} bits; save it as 8 or 16 bit"):
        decode(grey_tiff(bytes(12 * 17 * 8), bits), "a")


def test_grey_multiplied_by_alpha_is_divided_again():
    alpha = np.full((12, 17), 128, np.uint8)
    data = grey_tiff(np.dstack([alpha // 2, alpha]).tobytes(), 8, samples=2, extra=1)
    read = decode(data, "a")
    assert read.alpha.unique().tolist() == pytest.approx([128 / 255]) and read.image.unique().tolist() == pytest.approx(
        [0.5], abs=0.01
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_grey_and_alpha_keeps_sixteen_bits_of_both(order):
    read = decode(grey_tiff(DEEP[..., :2].astype(f"{order}u2").tobytes(), 16, samples=2, order=order), "a", keep_hidden=True)
    assert torch.equal(read.image, as_tensor(DEEP[..., [0, 0, 0]], 65535)) and torch.equal(
        read.alpha, as_tensor(DEEP[..., 1:2], 65535)
    )


@pytest.mark.parametrize("info", [{50706: b"\1\4\0\0"}, {254: 1, 330: 8}], ids=["DNG", "NEF"])
def test_a_camera_s_raw_file_is_not_read_as_its_thumbnail(tmp_path, info):
    Image.fromarray(PIXELS).save(tmp_path / "a.dng", "TIFF", tiffinfo=info)
    with pytest.raises(BadImage, match="a camera's raw file: develop it, and save it as JPEG or PNG"):
        read_picture(tmp_path / "a.dng")


@pytest.mark.parametrize(("mask", "bits"), [((0xF800, 0x07E0, 0x001F), (5, 6, 5)), ((0x7C00, 0x03E0, 0x001F), (5, 5, 5))])
def test_bitmaps_of_sixteen_bits_a_pixel_are_read(mask, bits):
    """Of two bytes a pixel: 5 bits of red, green and blue, or 6 of green."""
    pixels = PIXELS[:, :16].astype(np.uint16)
    levels = [pixels[..., n] >> (8 - bits[n]) for n in range(3)]
    values = sum(level << (mask[n].bit_length() - bits[n]) for n, level in enumerate(levels)).astype("<u2")
    head = struct.pack("<IiiHHIIiiII", 40, 16, 12, 1, 16, 3, values.nbytes, 0, 0, 0, 0) + struct.pack("<3I", *mask)
    data = b"BM" + struct.pack("<IHHI", 14 + len(head) + values.nbytes, 0, 0, 14 + len(head)) + head + values[::-1].tobytes()
    expected = np.stack([level / (2 ** bits[n] - 1) for n, level in enumerate(levels)], 2)
    torch.testing.assert_close(decode(data, "a").image, as_tensor(expected, 1), atol=1.5 / 255, rtol=0)


def bitmap(masks: tuple[int, ...], size: int) -> bytes:
    """Of 4 bytes a pixel, whose alpha is 0; the size of its header tells whether it has any."""
    pixels = np.dstack([PIXELS[..., ::-1], np.zeros((12, 17), np.uint8)])[::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", size, 17, 12, 1, 32, 3, len(pixels), 0, 0, 0, 0) + struct.pack("<4I", *masks)
    head = head.ljust(size, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels


def test_a_bitmap_whose_alpha_is_zero_all_over_is_opaque():
    found = decode(bitmap((0xFF0000, 0xFF00, 0xFF, 0xFF000000), 124), "a")
    assert found.alpha is None and torch.equal(found.image, as_tensor(PIXELS))


def test_a_bitmap_of_a_rare_kind_is_not_called_damaged():
    with pytest.raises(BadImage, match=r"a is of an unsupported kind \(.*\): save it as JPEG or PNG"):
        decode(bitmap((0x3FF00000, 0xFFC00, 0x3FF, 0), 124), "a")


def test_a_record_is_found_among_much_text(tmp_path):
    write_picture(tmp_path / "a.png", picture(16, 16), record={"recipe": {"size": 512}})
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(with_chunk(data, png_chunk(b"tEXt", LONG) * 3, b"iTXt"))
    assert read_record(tmp_path / "a.png") == {"recipe": {"size": 512}}


@pytest.mark.parametrize("zip", [False, True])
def test_text_of_a_png_is_as_pillow_writes_it(zip):
    info = PngImagePlugin.PngInfo()
    info.add_text("plain", "é text", zip=zip)
    info.add_itxt("words", "für ✓", "de", "Wörter", zip=zip)
    data = encoded("PNG", pnginfo=info)
    assert (png_text(data, "plain", 100), png_text(data, "words", 100), png_text(data, "none", 100)) == ("é text", "für ✓", None)
    bomb = with_chunk(encoded("PNG"), png_chunk(b"zTXt", b"plain\0\0" + zlib.compress(bytes(10**7))), b"IDAT")
    assert png_text(bomb, "plain", 1000) == ""


def test_any_beginning_of_a_file_is_taken_apart():
    for data in (encoded("PNG"), encoded("JPEG"), encoded("TIFF"), tiff(DEEP)):
        for length in range(0, len(data), 7):
            assert len(strip_metadata(data[:length]).data) <= length + 24  # metadata goes, a PNG's missing end comes
            other_format(data[:length])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_colour_that_a_deep_png_makes_transparent_is_transparent(channels):
    pixels = DEEP[..., :channels]
    color = struct.pack(f">{channels}H", *pixels[3, 4])
    data = png(pixels) if channels == 3 else grey_png(pixels)
    read = decode(with_chunk(data, png_chunk(b"tRNS", color), b"IDAT"), "a")
    assert torch.equal(read.alpha == 0, torch.from_numpy((pixels == pixels[3, 4]).all(2))[None, None])


def grey_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(file, "PNG")
    return file.getvalue()


def test_a_wrong_checksum_of_the_end_hides_no_pixels():
    for data, expected in ((encoded("PNG"), as_tensor(PIXELS)), (png(DEEP[..., :3]), as_tensor(DEEP[..., :3], 65535))):
        assert torch.equal(decode(data[:-4] + b"\0\0\0\0", "a").image, expected)
