"""Perceptual hashes, against a brute-force search and on pictures that were encoded again."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gcaudit.data.perceptual import PERCEPTUAL_BYTES, near_rows, perceptual_hash


def scene(seed, size=96):
    """A picture of blobs, smooth as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def encoded(picture, **how):
    buffer = io.BytesIO()
    picture.save(buffer, **how)
    return Image.open(buffer)


def table(*images):
    return np.stack([np.frombuffer(perceptual_hash(image), dtype=np.uint8) for image in images])


def distance(a, b):
    return int(np.bitwise_count(table(a)[0] ^ table(b)[0]).sum())


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: encoded(picture, format="PNG"),
        lambda picture: encoded(picture, format="JPEG", quality=60),
        lambda picture: encoded(picture.quantize(128), format="GIF"),
        lambda picture: picture.resize((224, 200)),
        lambda picture: picture.resize((40, 40), Image.Resampling.BILINEAR),
        lambda picture: picture.convert("L"),
        lambda picture: picture.convert("CMYK"),
        lambda picture: picture.convert("RGBA"),
        lambda picture: torch.from_numpy(np.array(picture)).permute(2, 0, 1),
        lambda picture: torch.from_numpy(np.array(picture)).permute(2, 0, 1).double() / 255,
        lambda picture: torch.from_numpy(np.array(picture.convert("L")))[None],
    ],
)
def test_the_same_picture_in_another_form_is_near(change):
    pictures = [scene(seed) for seed in range(8)]
    changed = [change(picture) for picture in pictures]
    assert near_rows(table(*changed), table(*pictures)).tolist() == list(range(8))


def test_other_pictures_are_far():
    pictures = table(*(scene(seed) for seed in range(400)))
    assert not len(near_rows(pictures[:200], pictures[200:]))
    assert distance(scene(0), scene(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > 60


def test_flat_pictures_are_near_nothing():
    flat = [Image.new("RGB", (32, 32), colour) for colour in ("black", "white")]
    assert {perceptual_hash(picture) for picture in flat} == {bytes(PERCEPTUAL_BYTES)}
    assert not len(near_rows(table(*flat), table(*flat)))


def test_the_search_finds_what_brute_force_finds():
    rng = np.random.default_rng(1)
    known = rng.integers(0, 256, (300, PERCEPTUAL_BYTES), dtype=np.uint8)
    bits = np.unpackbits(known[rng.integers(0, 300, 3000)], axis=1)
    for row, flips in zip(bits, rng.integers(0, 25, 3000), strict=True):
        row[rng.choice(256, flips, replace=False)] ^= 1
    asked = np.packbits(bits, axis=1)
    distances = np.bitwise_count(asked[:, None] ^ known[None]).sum(2).min(1)
    np.testing.assert_array_equal(near_rows(asked, known), np.flatnonzero(distances <= 12))
    assert 0 < (distances <= 12).sum() < 3000


def test_nothing_is_near_nothing():
    none = np.zeros((0, PERCEPTUAL_BYTES), dtype=np.uint8)
    assert near_rows(none, table(scene(0))).tolist() == near_rows(table(scene(0)), none).tolist() == []


def test_duplicates_of_real_photographs(shared):
    """CIFAR-10 is known for duplicates of training images among its test images (B. Barz, J. Denzler, arXiv:1902.00423)."""

    def pictures(split):
        column = pq.read_table(shared / "data" / "cifar10" / f"{split}.parquet", columns=["image"])["image"]
        return [Image.open(io.BytesIO(entry["bytes"])) for entry in column.to_pylist()]

    test = pictures("test")
    hashes = table(*test)
    assert 25 <= len(near_rows(hashes, table(*pictures("train")))) <= 40
    for quality, least in ((95, 970), (75, 970), (50, 500)):
        again = table(*(encoded(picture, format="JPEG", quality=quality) for picture in test[:1000]))
        assert len(near_rows(again, hashes)) >= least
