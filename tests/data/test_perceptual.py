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
    return int(np.bitwise_count(table(a)[0, :32] ^ table(b)[0, :32]).sum())


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


@pytest.mark.parametrize("at_once", [1, 100, 2**18])
def test_the_search_finds_what_brute_force_finds(at_once):
    rng = np.random.default_rng(1)
    known = rng.integers(0, 256, (300, PERCEPTUAL_BYTES), dtype=np.uint8)
    asked = known[rng.integers(0, 300, 1000)]
    bits = np.unpackbits(asked[:, :32], axis=1)
    for row, flips in zip(bits, rng.integers(0, 25, 1000), strict=True):
        row[rng.choice(256, flips, replace=False)] ^= 1
    asked[:, :32] = np.packbits(bits, axis=1)
    asked[::3, 40] ^= 0x88  # levels that are another by 8, twice

    def levels(table):
        return np.concatenate([table[:, 32:] >> 4, table[:, 32:] & 15], axis=1).astype(int)

    far = np.bitwise_count(asked[:, None, :32] ^ known[None, :, :32]).sum(2) > 12
    apart = np.abs(levels(asked)[:, None] - levels(known)[None]).sum(2) > 12
    expected = np.flatnonzero((~far & ~apart).any(1))
    np.testing.assert_array_equal(near_rows(asked, known, at_once), expected)
    assert 0 < len(expected) < 1000


def test_one_outline_in_other_shades_is_another_picture():
    def shirt(shade):
        picture = Image.new("L", (48, 48), "black")
        picture.paste(shade, (8, 8, 40, 40))
        picture.paste(shade // 2, (16, 20, 30, 34))
        return picture.rotate(20)

    assert distance(shirt(250), shirt(170)) <= 12
    assert not len(near_rows(table(shirt(250)), table(shirt(170))))
    assert len(near_rows(table(shirt(250)), table(shirt(248)))) == 1


def test_nothing_is_near_nothing():
    none = np.zeros((0, PERCEPTUAL_BYTES), dtype=np.uint8)
    assert near_rows(none, table(scene(0))).tolist() == near_rows(table(scene(0)), none).tolist() == []


def pictures(path, most):
    cells = pq.read_table(path, columns=["image"])["image"].to_pylist()[:most]
    return [Image.open(io.BytesIO(cell["bytes"] if isinstance(cell, dict) else cell)) for cell in cells]


def test_duplicates_of_real_photographs(shared):
    """CIFAR-10 is known for duplicates of training images among its test images (B. Barz, J. Denzler, arXiv:1902.00423)."""
    train, test = (table(*pictures(shared / "data" / "cifar10" / f"{split}.parquet", 50_000)) for split in ("train", "test"))
    assert 3 <= len(near_rows(test, train)) <= 12


REAL = ["cifar10/test.parquet", "tiny-imagenet-32/validation-00000-of-00001.parquet", "dtd10/train.parquet", "demo-train.parquet"]


@pytest.mark.parametrize("name", REAL)
def test_copies_of_real_pictures_are_found_and_others_are_not(name, shared, repository):
    place = repository / "gcaudit" / "bundled" / name if name.startswith("demo") else shared / "data" / name
    originals = pictures(place, 1000)
    hashes = table(*originals)
    known = hashes.any(1)
    for quality in (95, 75):
        again = table(*(encoded(picture.convert("RGB"), format="JPEG", quality=quality) for picture in originals))
        found = near_rows(again[known], hashes)
        assert len(found) >= 0.97 * known.sum()
    half = len(hashes) // 2
    assert len(near_rows(hashes[:half], hashes[half:])) <= 1
