"""Raw images -> pictures of 8 bits, with a remark on each that changed more than its size on the way."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

REMARKS: Mapping[str, tuple[str, str]] = {
    "16-bit": ("converted", "{n} pictures of 16 bits were brought to 8 ({names})"),
    "dark": (
        "converted",
        "{n} pictures of 16 bits have no level above 4095, and come out nearly black where they hold 12 bits ({names})",
    ),
    "pages": ("converted", "of {n} pictures with several pages or frames the first was taken ({names})"),
    "alpha": ("converted", "{n} pictures lost their transparency ({names})"),
    "colours": ("converted", "{n} pictures in colours other than RGB were converted ({names})"),
    "grey": ("converted", "{n} colour pictures were made grey for a network of one channel ({names})"),
    "profile": ("converted", "{n} pictures have a colour profile other than sRGB, which was not applied ({names})"),
    "turned": ("orientation", "{n} pictures were turned as their EXIF orientation says, as the datasets library does ({names})"),
    "not turned": (
        "orientation",
        "{n} pictures have an EXIF orientation and were not turned, as torchvision and timm leave them ({names})",
    ),
}
"""Kind and message of the warning that each remark becomes."""
_FORMATS = ("AVIF", "BMP", "DDS", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP")
"""Of Pillow's formats those of pictures; EPS and WMF would be drawn by other programs."""
MOST_PIXELS = 10**8
_ORIENTATION = 0x0112
_EIGHT_BITS, _TWELVE_BITS = 255, 4095
_COLOUR = 12
"""Levels by which channels differ in a picture of colour; encoders leave a few."""
_GREY_MODES = ("1", "L", "LA", "La")
_PLAIN_MODES = ("1", "L", "P", "RGB", "LA", "PA", "La", "RGBA", "RGBa", "RGBX")


def open_picture(raw: Any, *, turn: bool, grey: bool = False) -> tuple[Image.Image, tuple[str, ...]]:
    """Make a picture of what a reader gives; its pixels may still be encoded.

    Args:
        raw: encoded bytes, a uint8 or uint16 (H, W) or (H, W, C) array, or a PIL picture.
        turn: as the EXIF orientation says. Class folders are not turned, as torchvision and timm do not; tables are, as `datasets` does.
        grey: it will be brought to one channel.

    Returns:
        The picture, and keys of `REMARKS`.

    Raises:
        TypeError: it is nothing of these.
        ValueError: its numbers have no scale that is known.
    """
    picture = _picture(raw)
    deep = _is_deep(picture)  # which nothing tells once it is decoded
    remarks = []
    if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":  # phones keep further views of one photo in MPO
        remarks.append("pages")
    if picture.getexif().get(_ORIENTATION, 1) not in (0, 1):
        remarks.append("turned" if turn or picture.format == "TIFF" else "not turned")  # Pillow itself turns TIFF
        picture = (ImageOps.exif_transpose(picture) or picture) if turn else picture
    if picture.mode.startswith("I") or picture.mode == "F":
        picture, highest = _eight_bits(picture)
        remarks += ["16-bit"] if highest > _TWELVE_BITS else ["16-bit", "dark"]
    elif deep:
        remarks.append("16-bit")
    if picture.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in picture.info:
        remarks.append("alpha")
    if picture.mode not in _PLAIN_MODES:
        remarks.append("colours")
    elif _foreign_profile(picture.info.get("icc_profile")):
        remarks.append("profile")
    if grey and picture.mode not in _GREY_MODES and _has_colour(picture):
        remarks.append("grey")
    return picture, tuple(remarks)


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def open_image(file: Any) -> Image.Image:
    """Open an encoded picture; none of the formats that Pillow hands to other programs is taken.

    Args:
        file: a path, or an open file.

    Returns:
        The picture, its pixels still encoded.

    Raises:
        ValueError: it has more pixels than are decoded.
        OSError: it is no picture of a known format.
    """
    with warnings.catch_warnings(action="ignore"):  # Pillow's own of a size, and of damaged tags
        picture = Image.open(file, formats=_known_formats())
    if math.prod(picture.size) > MOST_PIXELS:
        raise ValueError(f"expected a picture of up to {MOST_PIXELS} pixels, found one of {picture.size[0]} x {picture.size[1]}")
    return picture


def _picture(raw: Any) -> Image.Image:
    if isinstance(raw, Image.Image):
        return raw
    if isinstance(raw, np.ndarray):
        return Image.fromarray(raw[..., 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw)
    if isinstance(raw, bytes | bytearray | memoryview):
        return open_image(io.BytesIO(raw))
    raise TypeError(f"expected a picture, found a {type(raw).__name__}")


def _is_deep(picture: Image.Image) -> bool:
    """Tell pictures of colour with 16 bits, of which Pillow takes the upper byte on its own."""
    for decoder, *_rest, how in getattr(picture, "tile", ()):
        if ";16" in str(how) or (
            decoder == "ppm" and isinstance(how, tuple) and isinstance(how[-1], int) and how[-1] > _EIGHT_BITS
        ):
            return True
    return False


def _eight_bits(picture: Image.Image) -> tuple[Image.Image, int]:
    """Bring 16-bit grey to 8 bits by its upper byte, and find its highest level; Pillow would clip it, which makes most of it white."""
    if not (picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))):
        what = "floating point" if picture.mode == "F" else "32-bit integer"
        raise ValueError(f"expected a picture of 8 or 16 bits, found {what} numbers, whose scale is not known; convert it first")
    levels = np.asarray(picture).astype(np.int64)
    return Image.fromarray((levels >> 8).clip(0, 255).astype(np.uint8)), int(levels.max(initial=0))


def _has_colour(picture: Image.Image) -> bool:
    """Tell pictures of colour from grey ones that are kept in three channels, by a thumbnail."""
    small = np.asarray(picture.convert("RGB").resize((16, 16), Image.Resampling.BOX), dtype=np.int16)
    return bool((small.max(2) - small.min(2)).max() > _COLOUR)


def _foreign_profile(profile: bytes | None) -> bool:
    if not profile:
        return False
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return True
    return "srgb" not in name.lower().replace(" ", "")
