"""Odd pictures and odd labels: each comes out as torchvision, timm or `datasets` have it, or is refused by name."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gcaudit.data.batches import stream_batches
from gcaudit.data.opening import open_data
from gcaudit.data.pictures import REMARKS
from gcaudit.data.request import DataRequest
from gcaudit.encoders.preprocessing import Preprocessing, picture_transform
from gcaudit.errors import DataError

RED = (200, 40, 30)


def saved(picture, form, **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def plain(mode="RGB", colour=RED, size=(8, 8)):
    return Image.new(mode, size, colour)


def exif(value):
    picture = plain(size=(8, 8))
    picture.putpixel((0, 0), (0, 0, 255))
    found = Image.Exif()
    found[0x0112] = value
    return saved(picture, "PNG", exif=found)


def animated(form):
    frames = [plain(colour=colour) for colour in (RED, (0, 255, 0))]
    return saved(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)


def transparent_palette():
    picture = plain("P", 0)
    picture.putpalette([*RED, 0, 0, 0])
    return saved(picture, "PNG", transparency=0)


def deep():
    return saved(Image.fromarray(np.full((8, 8), 200 * 257, dtype=np.uint16)), "PNG")


def bomb():
    content = bytearray(saved(plain("L", 0), "PNG"))
    content[16:24] = (60000).to_bytes(4, "big") * 2  # its header says that it is 60000 x 60000
    import zlib

    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


CMYK = plain("RGB").convert("CMYK")
GREY = (83, 83, 83)  # of RED by Pillow's weights
PICTURES = {
    "png": (saved(plain(), "PNG"), RED, None),
    "jpeg": (saved(plain(), "JPEG", quality=100), RED, None),
    "webp": (saved(plain(), "WEBP", lossless=True), RED, None),
    "bmp": (saved(plain(), "BMP"), RED, None),
    "ppm": (saved(plain(), "PPM"), RED, None),
    "tiff": (saved(plain(), "TIFF"), RED, None),
    "gif": (saved(plain(), "GIF"), RED, None),
    "cmyk jpeg": (saved(CMYK, "JPEG", quality=100), RED, "in colours other than RGB were converted"),
    "cmyk tiff": (saved(CMYK, "TIFF"), RED, "in colours other than RGB were converted"),
    "ycbcr tiff": (saved(plain().convert("YCbCr"), "TIFF"), RED, "in colours other than RGB were converted"),
    "lab tiff": (saved(Image.new("LAB", (8, 8), (128, 128, 128)), "TIFF"), None, "in colours other than RGB were converted"),
    "grey": (saved(plain("L", 83), "PNG"), GREY, None),
    "black and white": (saved(plain("1", 1), "PNG"), (255, 255, 255), None),
    "grey with alpha": (saved(plain("LA", (83, 10)), "PNG"), GREY, "lost their transparency"),
    "colour with alpha": (saved(plain("RGBA", (*RED, 10)), "PNG"), RED, "lost their transparency"),
    "palette": (saved(plain().quantize(4), "PNG"), RED, None),
    "palette with transparency": (transparent_palette(), RED, "lost their transparency"),
    "16-bit grey": (deep(), (200, 200, 200), "of 16 bits were brought to 8"),
    "animated gif": (animated("GIF"), RED, "with several pages or frames the first was taken"),
    "animated webp": (animated("WEBP"), RED, "with several pages or frames the first was taken"),
    "tiff of several pages": (animated("TIFF"), RED, "with several pages or frames the first was taken"),
    "turned": (exif(6), RED, "were turned as their EXIF orientation says"),
    "float tiff": (
        saved(Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)), "TIFF"),
        "floating point numbers, whose scale is not known",
        None,
    ),
    "32-bit tiff": (
        saved(Image.fromarray(np.full((8, 8), 70000, dtype=np.int32)), "TIFF"),
        "32-bit integer numbers, whose scale is not known",
        None,
    ),
    "truncated": (saved(plain(size=(64, 64)), "PNG")[:-30], "truncated|broken|incomplete|Truncated", None),
    "truncated jpeg": (saved(plain(size=(64, 64)), "JPEG")[:300], "truncated|Truncated|cannot identify|no picture", None),
    "empty": (b"", "these bytes are no picture", None),
    "text": (b"hello", "these bytes are no picture", None),
    "a page": (b"<!DOCTYPE html><html></html>", "these bytes are no picture", None),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "these bytes are no picture", None),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "these bytes are no picture", None),
    "bomb": (bomb(), "pixels", None),
}


def batch_of(path, **options):
    images = open_data(DataRequest(str(path), "source", **options))
    preprocessing = Preprocessing((3, 8, 8), (0.0,) * 3, (1.0,) * 3, "bilinear", 1.0, "center", "", ())
    (batch,) = stream_batches(
        images.reader, images.index, [list(range(len(images.labels)))], picture_transform(preprocessing), workers=0, pin=False
    )
    return images, batch


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_its_right_value_or_is_refused_by_name(name, tmp_path):
    content, expected, remark = PICTURES[name]
    pq.write_table(pa.table({"image": [content], "label": [0]}), tmp_path / "a.parquet")
    _, batch = batch_of(tmp_path / "a.parquet")
    if isinstance(expected, str):
        ((_, told),) = batch.failures
        assert "a.parquet, row 0: " in told
        assert any(part in told for part in expected.split("|")), told
        return
    assert batch.failures == ()
    if expected is not None:
        middle = batch.pixels[0, :, 4, 4]
        assert torch.allclose(middle.float(), torch.tensor(expected, dtype=torch.float32), atol=3), middle

    told = [REMARKS[key][1] for _, key in batch.remarks]
    assert len(told) == (remark is not None)
    assert remark is None or remark in told[0]


LABELS = {
    "numbers": ([0, 1, 2, 1], [0, 1, 2, 1], ("0", "1", "2")),
    "numbers with gaps": ([1, 5, 5, 1], [0, 1, 1, 0], ("1", "5")),
    "text": (["b", "a", "b", "a"], [1, 0, 1, 0], ("a", "b")),
    "truth values": ([True, False, True, True], [1, 0, 1, 1], ("False", "True")),
    "whole floats": ([0.0, 1.0, 1.0, 0.0], [0, 1, 1, 0], ("0", "1")),
    "-1": ([0, -1, 1, -1], [0, 1], ("0", "1")),
    "-100": ([0, -100, 1, 1], [0, 1, 1], ("0", "1")),
    "null": ([0, None, 1, 1], [0, 1, 1], ("0", "1")),
    "NaN": ([0.0, float("nan"), 1.0, 1.0], [0, 1, 1], ("0", "1")),
    "empty text": (["a", "", "b", " "], [0, 1], ("a", "b")),
    "nan as text": (["a", "nan", "b", "N/A"], [0, 1], ("a", "b")),
    "unlabelled as text": (["a", "unlabelled", "b", "Unlabeled"], [0, 1], ("a", "b")),
    "a class called none": (["a", "none", "b", "none"], [0, 2, 1, 2], ("a", "b", "none")),
    "one-hot": (
        [[1, 0], [0, 1], [1, 0], [1, 0]],
        "lists of 2 numbers with a single 1 (one-hot); make a column of its place, as argmax does",
        None,
    ),
    "two classes each": ([[0, 1], [1, 2], [2, 3], [0, 3]], "found lists of several (2 in one)", None),
    "several labels": (
        [[0, 2], [1], [2], [0]],
        "lists of several (2 in one); gcaudit measures classes that exclude each other",
        None,
    ),
    "quantities": ([0.5, 1.2, 3.3, 0.1], "found the number 0.5; gcaudit measures classes, not quantities", None),
    "all unlabelled": (
        [-1, -1, -1, -1],
        "found none of 4 images with one (an unlabelled split?); name another split, or another column with --label-key",
        None,
    ),
    "other negative numbers": ([0, -5, 1, 1], "expected labels >= 0, and -1 for none, found -5", None),
    "ids": ([0, 1, 2, 10**7], "expected labels below 1000000, found 10000000 (ids in place of classes?)", None),
    "names that differ in blanks": (
        ["a", "a ", "b", "b"],
        "expected class names that differ in more than blanks, found 'a' and 'a '",
        None,
    ),
    "bytes": ([b"a", b"b", b"a", b"b"], "integers or all strings, found bytes", None),
}


@pytest.mark.parametrize("form", ["parquet", "jsonl", "objects"])
@pytest.mark.parametrize("name", LABELS)
def test_a_label_has_its_right_class_or_is_refused(name, form, tmp_path):
    values, expected, names = LABELS[name]
    pictures = [saved(plain(colour=(number, 0, 0)), "PNG") for number in range(len(values))]
    if form == "parquet":
        given = str(tmp_path / "a.parquet")
        pq.write_table(pa.table({"image": pictures, "label": values}), given)
    elif form == "jsonl":
        if isinstance(values[0], bytes):
            pytest.skip("JSON has no bytes")
        for number, content in enumerate(pictures):
            (tmp_path / f"{number}.png").write_bytes(content)
        given = str(tmp_path / "a.jsonl")
        (tmp_path / "a.jsonl").write_text(
            "\n".join(json.dumps({"path": f"{n}.png", "label": value}) for n, value in enumerate(values))
        )
    else:
        given = [(Image.open(io.BytesIO(content)), value) for content, value in zip(pictures, values, strict=True)]
    if names is None:
        with pytest.raises(DataError) as caught:
            open_data(DataRequest(given, "source"))
        assert expected in str(caught.value)
        assert caught.value.exit_code == 2
        return
    found = open_data(DataRequest(given, "source"))
    assert (found.labels.tolist(), found.class_names) == (expected, names)
    told = [str(warning) for warning in found.warnings if "without a label" in str(warning)]
    lost = len(values) - len(expected)
    assert told == ([f"{lost} images without a label were left out"] if lost else [])
