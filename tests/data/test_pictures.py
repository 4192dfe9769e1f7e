"""What conversion does to pictures: 16 bits, pages, orientation, transparency, colours, profiles."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, UnidentifiedImageError

from gcaudit.data.pictures import REMARKS, open_image, open_picture
from gcaudit.report.warnings import WARNINGS, warn

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5), dtype=np.uint8)


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def opened(raw, *, turn=False):
    picture, remarks = open_picture(raw, turn=turn)
    return np.asarray(picture), remarks


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_brought_to_8_by_their_upper_byte(kind):
    values = PIXELS.astype(np.uint16) * 256 + 77
    found, remarks = opened(encoded(Image.fromarray(values), kind))
    assert np.array_equal(found, PIXELS)
    assert remarks == ("16-bit",)


@pytest.mark.parametrize("kind", ["PPM", "PNG"])
def test_16_bits_of_colour_are_told(kind, tmp_path):
    levels = np.random.default_rng(1).integers(0, 65536, (5, 4, 3), dtype=np.uint16)
    levels[0, 0] = 65535
    if kind == "PPM":
        raw = b"P6 4 5 65535\n" + levels.astype(">u2").tobytes()
    else:
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)

        def chunk(name, body):
            return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

        header = struct.pack(">IIBBBBB", 4, 5, 16, 2, 0, 0, 0)
        raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    found, remarks = opened(raw)
    assert remarks == ("16-bit",)
    assert np.abs(found.astype(int) - (levels >> 8)).max() <= 1


def test_12_bits_in_16_are_told():
    found, remarks = opened(encoded(Image.fromarray(PIXELS.astype(np.uint16) * 16), "TIFF"))
    assert found.max() < 16
    assert remarks == ("16-bit", "dark")


def test_tiff_is_turned_by_pillow_itself():
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encoded(Image.fromarray(PIXELS), "TIFF", exif=exif)
    for turn in (False, True):
        found, remarks = opened(raw, turn=turn)
        assert (found.shape, remarks) == (PIXELS.T.shape, ("turned",))


def test_arrays_of_16_bits_are_too():
    found, remarks = opened(PIXELS.astype(np.uint16) * 256)
    assert (np.array_equal(found, PIXELS), remarks) == (True, ("16-bit",))


@pytest.mark.parametrize(("picture", "what"), [(np.float32, "floating point"), (np.int32, "32-bit integer")])
def test_numbers_without_a_known_scale_are_refused(picture, what):
    with pytest.raises(ValueError, match=f"expected a picture of 8 or 16 bits, found {what} numbers"):
        open_picture(encoded(Image.fromarray(PIXELS.astype(picture)), "TIFF"), turn=False)


def test_orientation_is_followed_where_the_route_asks_for_it():
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encoded(Image.fromarray(PIXELS), "PNG", exif=exif)
    found, remarks = opened(raw)
    assert (np.array_equal(found, PIXELS), remarks) == (True, ("not turned",))
    found, remarks = opened(raw, turn=True)
    assert (np.array_equal(found, np.rot90(PIXELS, -1)), remarks) == (True, ("turned",))
    exif[0x0112] = 1
    assert opened(encoded(Image.fromarray(PIXELS), "PNG", exif=exif), turn=True)[1] == ()


def test_several_pages_are_told():
    pages = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    found, remarks = opened(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert (np.array_equal(found, PIXELS), remarks) == (True, ("pages",))


def plain(mode):
    return Image.fromarray(PIXELS).convert(mode)


@pytest.mark.parametrize(
    ("raw", "remarks"),
    [
        (encoded(plain("L")), ()),
        (encoded(plain("RGB"), "JPEG"), ()),
        (encoded(plain("P")), ()),
        (encoded(plain("1")), ()),
        (PIXELS, ()),
        (np.stack([PIXELS] * 3, 2), ()),
        (encoded(plain("RGBA")), ("alpha",)),
        (encoded(plain("LA")), ("alpha",)),
        (encoded(plain("P"), transparency=0), ("alpha",)),
        (encoded(plain("CMYK"), "JPEG"), ("colours",)),
        (encoded(plain("RGB"), "JPEG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()), ()),
        (encoded(plain("RGB"), "JPEG", icc_profile=b"no profile at all"), ("profile",)),
    ],
)
def test_what_is_lost_is_told_and_what_is_not_is_not(raw, remarks):
    assert opened(raw)[1] == remarks


def test_every_remark_becomes_a_warning():
    for kind, message in REMARKS.values():
        assert kind in WARNINGS
        found = warn(kind, message, ["a", "b\n", "c"], 7)
        assert found.message.endswith("(a, b\\n, c and 4 more)")
        assert (found.count, found.first) == (7, ("a", "b\\n", "c"))
        assert "{" not in found.message


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "CMYK"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("colour", [False, True])
def test_colours_that_are_lost_are_told(mode, kind, colour):
    if (kind == "PNG" and mode == "CMYK") or (kind == "JPEG" and mode in ("P", "1")):
        pytest.skip(f"{kind} has no {mode}")
    picture = Image.fromarray(PIXELS).convert("RGB").resize((20, 20))
    if colour:
        picture.paste((200, 30, 0), (4, 4, 14, 14))
    raw = encoded(picture.quantize(32) if mode == "P" else picture.convert(mode), kind)
    told = colour and mode not in ("L", "1")
    assert ("grey" in open_picture(raw, turn=False, grey=True)[1]) == told
    assert "grey" not in open_picture(raw, turn=False)[1]


def test_no_other_program_draws_a_picture(tmp_path):
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.jpg").write_bytes(content)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "EPS"
    for raw in (content, tmp_path / "a.jpg"):
        with pytest.raises(UnidentifiedImageError):
            open_image(raw if isinstance(raw, Path) else io.BytesIO(raw))


def test_pictures_of_too_many_pixels_are_not_decoded():
    raw = encoded(Image.new("1", (10_001, 10_000)))
    with pytest.raises(ValueError, match="expected a picture of up to 100000000 pixels, found one of 10001 x 10000"):
        open_picture(raw, turn=False)
