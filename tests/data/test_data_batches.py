import gc
import hashlib
import io
import multiprocessing
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from processes import finished, until
from timm.data import create_transform
from torch.utils.data import get_worker_info

from gcaudit.data.batches import stream_batches
from gcaudit.data.opening import open_data
from gcaudit.data.readers import ArrayReader, FileReader
from gcaudit.data.request import DataRequest
from gcaudit.encoders.preprocessing import Preprocessing, picture_transform
from gcaudit.errors import AuditError, DataError

TRANSFORM = picture_transform(Preprocessing((3, 8, 8), (0.5,) * 3, (0.5,) * 3, crop_pct=1.0))


def random_bytes(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


class Bytes:
    """A reader of what it is given."""

    def __init__(self, *given):
        self.given = given

    def read(self, row):
        return self.given[row]

    def where(self, row):
        return f"thing {row}"


def stream(reader, order, index=None, workers=0, transform=TRANSFORM):
    index = torch.arange(1 + max(place for places in order for place in places)) if index is None else index
    return list(stream_batches(reader, index, order, transform, workers=workers, pin=False))


def cut(places, size):
    return [places[start : start + size] for start in range(0, len(places), size)]


@pytest.fixture
def pictures(tmp_path):
    for row in range(9):
        folder = tmp_path / f"class{row % 3}"
        folder.mkdir(exist_ok=True)
        if row != 4:
            Image.fromarray(random_bytes(10, 12 + row, 3, seed=row)).save(folder / f"{row}.jpg")
        else:
            (folder / f"{row}.jpg").write_bytes(b"words")
    return open_data(DataRequest(tmp_path, "source"))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [1, 7, 9])
def test_batches_are_the_same_images_in_the_order_asked_for(pictures, size, workers):
    order = [8, 3, 0, 1, 2, 7, 5, 6, 4]
    (whole,) = stream(pictures.reader, [order], pictures.index)
    batches = stream(pictures.reader, cut(order, size), pictures.index, workers)
    assert [len(batch.positions) + len(batch.failures) for batch in batches] == [len(places) for places in cut(order, size)]
    assert torch.equal(torch.cat([batch.pixels for batch in batches if len(batch.positions)]), whole.pixels)
    assert torch.equal(torch.cat([batch.positions for batch in batches]), whole.positions)
    assert torch.equal(torch.cat([batch.digests for batch in batches]), whole.digests)
    assert sum((batch.failures for batch in batches), ()) == whole.failures
    bad = next(place for place in order if pictures.reader.paths[place].name == "4.jpg")
    assert whole.positions.tolist() == [place for place in order if place != bad]
    assert [place for place, _ in whole.failures] == [bad]


def test_places_are_looked_up_in_the_index():
    reader = ArrayReader(random_bytes(5, 8, 8, 3), "five")
    (batch,) = stream(reader, [[1, 0]], torch.tensor([2, 4]))
    assert batch.positions.tolist() == [1, 0]
    expected = torch.from_numpy(reader.pixels[[4, 2]]).permute(0, 3, 1, 2)
    assert torch.equal(batch.pixels, expected)


def test_pixels_are_bytes():
    (batch,) = stream(Bytes(encode(Image.new("RGB", (20, 30), (255, 0, 7)))), [[0]])
    assert batch.pixels.dtype == torch.uint8
    assert batch.pixels.shape == (1, 3, 8, 8)
    assert batch.pixels[0, :, 3, 3].tolist() == [255, 0, 7]


# --- digests ---------------------------------------------------------------------------------------------------------


def digests(*given):
    batches = stream(
        Bytes(*given), [[row] for row in range(len(given))], transform=lambda _: torch.zeros(1, 1, 1, dtype=torch.uint8)
    )
    return tuple(bytes(digest.tolist()) for batch in batches for digest in batch.digests)


def test_digests_of_encoded_images_are_those_of_their_bytes():
    content = encode(Image.new("L", (3, 3)))
    assert digests(content, memoryview(content), bytearray(content)) == (hashlib.blake2b(content, digest_size=16).digest(),) * 3


def test_digests_of_pixels_know_values_shape_and_type():
    pixels = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
    seen = digests(pixels, pixels.clone(), pixels + 1, pixels.reshape(3, 1, 4), pixels.float() / 255, pixels.permute(0, 2, 1))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 5


def test_digests_do_not_ask_how_pixels_lie_in_memory():
    pixels = torch.from_numpy(random_bytes(3, 4, 4))
    array = random_bytes(4, 6, 3)
    assert len(set(digests(pixels, pixels.permute(2, 1, 0).contiguous().permute(2, 1, 0)))) == 1
    assert len(set(digests(array, np.asfortranarray(array), Image.fromarray(array)))) == 1


# --- decoding --------------------------------------------------------------------------------------------------------


def palette():
    picture = Image.fromarray(random_bytes(17, 23) % 4).convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 99, 199])
    return encode(picture)


def animation():
    frames = [Image.fromarray(random_bytes(20, 20, 3, seed=seed)) for seed in range(3)]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


def rotated():
    picture = Image.fromarray(random_bytes(16, 30, 3))
    exif = picture.getexif()
    exif[0x0112] = 6
    return encode(picture, "JPEG", exif=exif)


PICTURES = {
    "RGB": lambda: encode(Image.fromarray(random_bytes(21, 33, 3))),
    "RGB jpeg": lambda: encode(Image.fromarray(random_bytes(40, 30, 3)), "JPEG"),
    "RGB webp": lambda: encode(Image.fromarray(random_bytes(40, 30, 3)), "WEBP"),
    "L": lambda: encode(Image.fromarray(random_bytes(21, 33))),
    "L jpeg": lambda: encode(Image.fromarray(random_bytes(21, 33)), "JPEG"),
    "P": palette,
    "RGBA": lambda: encode(Image.fromarray(random_bytes(21, 33, 4), "RGBA")),
    "LA": lambda: encode(Image.merge("LA", [Image.fromarray(random_bytes(21, 33, seed=seed)) for seed in (0, 1)])),
    "CMYK": lambda: encode(Image.fromarray(random_bytes(21, 33, 4), "CMYK"), "JPEG"),
    "1": lambda: encode(Image.fromarray(random_bytes(21, 33)).convert("1")),
    "YCbCr": lambda: encode(Image.fromarray(random_bytes(21, 33, 3)).convert("YCbCr"), "TIFF"),
    "GIF": animation,
    "EXIF": rotated,
    "1 x 1": lambda: encode(Image.fromarray(random_bytes(1, 1, 3))),
    "4 x 40": lambda: encode(Image.fromarray(random_bytes(4, 40, 3))),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(
    ("mode", "crop_mode", "interpolation"),
    [("RGB", "center", "bicubic"), ("RGB", "squash", "bilinear"), ("L", "border", "lanczos")],
)
def test_pictures_become_what_timm_makes_of_them(name, mode, crop_mode, interpolation):
    content = PICTURES[name]()
    if name in {"P", "RGBA", "LA", "CMYK", "1"}:
        assert Image.open(io.BytesIO(content)).mode == name
    channels = len(mode)
    options = {"interpolation": interpolation, "crop_pct": 0.875, "crop_mode": crop_mode}
    ours = picture_transform(Preprocessing((channels, 12, 16), (0.5,) * channels, (0.5,) * channels, **options))
    theirs = create_transform((channels, 12, 16), is_training=False, normalize=False, mean=(0.5,) * channels, **options)
    expected = theirs(Image.open(io.BytesIO(content)).convert(mode))
    (batch,) = stream(Bytes(content), [[0]], transform=ours)
    assert not batch.failures
    assert batch.pixels.dtype == torch.uint8
    assert torch.equal(batch.pixels[0], torch.as_tensor(expected))


def test_only_the_first_frame_counts():
    (batch,) = stream(Bytes(PICTURES["GIF"]()), [[0]])
    first = Image.open(io.BytesIO(PICTURES["GIF"]()))
    first.seek(0)
    assert torch.equal(batch.pixels[0], TRANSFORM(first))


def test_a_camera_that_was_held_upright_is_not_turned():
    content = PICTURES["EXIF"]()
    assert Image.open(io.BytesIO(content)).getexif()[0x0112] == 6
    (batch,) = stream(Bytes(content), [[0]])
    plain = encode(Image.fromarray(random_bytes(16, 30, 3)), "JPEG")
    assert torch.equal(batch.pixels[0], TRANSFORM(Image.open(io.BytesIO(plain))))


# --- failures --------------------------------------------------------------------------------------------------------


def jpeg():
    return encode(Image.fromarray(random_bytes(64, 64, 3)), "JPEG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "these bytes are no picture but an empty file; fetch or save it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "no picture but a Git LFS pointer in place of the file; run git",
        ),
        (b"<!DOCTYPE html><html></html>", "these bytes are no picture but an HTML page; the download went wrong"),
        (bytes(1000), "these bytes are no picture"),
        (b"words", "these bytes are no picture"),
        (jpeg()[: len(jpeg()) // 2], "truncated"),
        (encode(Image.fromarray(random_bytes(64, 64, 3)))[:3000], "truncated"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_pictures_are_failures(content, message, workers):
    (batch,) = stream(Bytes(jpeg(), content, jpeg()), [[2, 1, 0]], workers=workers)
    ((place, reason),) = batch.failures
    assert place == 1
    assert reason.startswith("thing 1: ")
    assert message in reason
    assert "\n" not in reason
    assert batch.positions.tolist() == [2, 0]
    assert len(batch.digests) == len(batch.pixels) == 2


def test_failures_name_the_file(tmp_path):
    paths = [tmp_path / "sound.jpg", tmp_path / "cut.jpg", tmp_path / "gone.jpg", tmp_path / "folder.jpg"]
    paths[0].write_bytes(jpeg())
    paths[1].write_bytes(jpeg()[:700])
    paths[3].mkdir()
    (batch,) = stream(FileReader(paths), [[0, 1, 2, 3]])
    assert [place for place, _ in batch.failures] == [1, 2, 3]
    assert [reason.split(": ")[0] for _, reason in batch.failures] == [str(path) for path in paths[1:]]


def test_a_batch_of_failures_is_empty():
    (batch,) = stream(Bytes(b"", b""), [[0, 1]])
    assert len(batch.pixels) == len(batch.positions) == len(batch.digests) == 0
    assert [place for place, _ in batch.failures] == [0, 1]


class Refusing(Bytes):
    def read(self, row):
        raise DataError(f"here is where: row {row}")


def test_errors_that_say_where_are_taken_as_they_are():
    (batch,) = stream(Refusing(), [[0]])
    assert batch.failures == ((0, "here is where: row 0"),)


class Dying(Bytes):
    """Ends its process at the third image, once the first two have come."""

    def __init__(self, came, *given):
        super().__init__(*given)
        self.came = came

    def read(self, row):
        if get_worker_info() is not None and row == 2:
            until(self.came.exists)
            os._exit(7)
        return self.given[row]


def test_a_worker_that_dies(tmp_path):
    reader = Dying(tmp_path / "came", *[jpeg()] * 4)
    one_by_one = [[0], [1], [2], [3]]
    expected = (
        r"expected the decoding workers to live: DataLoader worker .*exited unexpectedly; pass --workers 0 or a smaller batch"
    )
    batches = stream_batches(reader, torch.arange(4), one_by_one, TRANSFORM, workers=1, pin=False)
    next(batches), next(batches)
    reader.came.touch()
    with pytest.raises(AuditError, match=expected) as caught:
        list(batches)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert len(stream(reader, one_by_one)) == 4
    del caught
    gc.collect()  # what is left of the loader must not be inherited by the workers of other tests


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_worker_whose_pipes_break_before_its_death_is_known(monkeypatch, error):
    monkeypatch.setattr("gcaudit.data.batches.DataLoader", lambda *_, **__: broken_by(error))
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(
        AuditError, match=r"expected the decoding workers to live: (.*Connection reset by peer|EOFError); pass --workers 0"
    ):
        stream(Bytes(jpeg()), [[0]], workers=1)
    monkeypatch.setattr("time.sleep", lambda _: broken_by(RuntimeError("DataLoader worker (pid 1) is killed")).__next__())
    with pytest.raises(AuditError, match=r"expected the decoding workers to live: DataLoader worker \(pid 1\) is killed; pass"):
        stream(Bytes(jpeg()), [[0]], workers=1)


def broken_by(error):
    raise error
    yield


class Broken(Bytes):
    def where(self, row):
        raise RuntimeError("a defect")


def test_a_defect_is_not_taken_for_a_dead_worker():
    with pytest.raises(RuntimeError, match=r"^a defect$"):
        stream(Broken(b""), [[0]])


def test_workers_end_with_the_stream():
    before = len(multiprocessing.active_children())
    batches = stream_batches(Bytes(*[jpeg()] * 4), torch.arange(4), [[n] for n in range(4)], TRANSFORM, workers=2, pin=False)
    next(batches)
    assert len(multiprocessing.active_children()) == before + 2
    batches.close()
    del batches
    assert len(multiprocessing.active_children()) == before


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # as a /dev/shm that is full
sys.argv = ["gcaudit", "score", "demo", "-s", "demo", "--workers", "2", "-q", "--metrics", "cdnv"]
from gcaudit.cli import program
program()
"""


def test_workers_without_room_for_their_batches_are_told_and_not_waited_for():
    done = finished([sys.executable, "-c", FULL])
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("gcaudit: error: expected the decoding workers to hand their batches on: RuntimeError: unable to ")
    assert line.endswith("; pass --workers 0 or a smaller batch")
