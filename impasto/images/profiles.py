"""ICC colour profiles: to sRGB, and from sRGB."""

import io
import warnings
from collections.abc import Callable

from PIL import Image, ImageCms

from impasto.errors import ImpastoWarning
from impasto.images.pixels import Picture


def srgb_profile() -> bytes:
    """The bytes of an sRGB profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def usable_profile(picture: Picture) -> bytes | None:
    """The profile of a picture if write_picture can use it, else None, with a warning if it is not RGB or has no inverse."""
    if picture.profile is None:
        return None
    try:
        inks = ImageCms.ImageCmsProfile(io.BytesIO(picture.profile)).profile.xcolor_space.strip()
        if inks != "RGB":
            raise ValueError(f"it is for {inks}, a painting is RGB")
        in_profile(Image.new("RGB", (1, 1)), picture.profile)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        warnings.warn(f"the colour profile cannot be kept ({error}): writing sRGB", ImpastoWarning, stacklevel=2)
        return None
    return picture.profile


def in_profile(pixels: Image.Image, profile: bytes) -> Image.Image:
    """An 8-bit RGB or RGBA picture, converted from sRGB to the profile, which it then contains."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(pixels.convert("RGB"), ImageCms.createProfile("sRGB"), target, outputMode="RGB")
    assert converted is not None  # only with inPlace
    if pixels.mode == "RGBA":
        converted.putalpha(pixels.getchannel("A"))
    converted.info["icc_profile"] = profile
    return converted


def to_srgb(profile: bytes | None, mode: str) -> Callable[[Image.Image], Image.Image]:
    """The conversion from an ICC profile to sRGB, for pictures of this mode; without a profile, or if it is broken, to RGB only."""
    if profile:
        try:
            source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            return ImageCms.buildTransform(source, srgb, mode, "RGB").apply
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            warnings.warn(f"the colour profile cannot be used ({error}): treated as sRGB", ImpastoWarning, stacklevel=2)
    return lambda rows: rows.convert("RGB")
