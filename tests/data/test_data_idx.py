import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import MNIST, FashionMNIST

from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.errors import DataError

DEBIAN = Path("/usr/share/datasets")


def idx(array, dims=None):
    shape = array.shape if dims is None else dims
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()


def some(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), (np.arange(count, dtype=np.uint8) * 3) % 10


def lay(folder, stem, count, *, gz=False, dot=False):
    folder.mkdir(parents=True, exist_ok=True)
    for part, array in zip(("images-idx3", "labels-idx1"), some(count, len(stem)), strict=True):
        name = f"{stem}-{part.replace('-', '.') if dot else part}-ubyte{'.gz' if gz else ''}"
        (folder / name).write_bytes(gzip.compress(idx(array)) if gz else idx(array))
    return folder


def opened(root, name="mnist", role="source", **options):
    return open_data(DataRequest(name, role, root=str(root), **options))


def refused(root, name="mnist"):
    with pytest.raises(DataError) as caught:
        opened(root, name)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pixels_of(images):
    return np.stack([images.reader.read(row) for row in images.index.tolist()])


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST/raw"), ("mnist", "mnist"), ("fashion-mnist", "FashionMNIST/raw"), ("fashion-mnist", "fashion-mnist")],
)
def test_layouts(tmp_path, name, folder, gz):
    lay(tmp_path / folder, "train", 12, gz=gz)
    lay(tmp_path / folder, "t10k", 11, gz=gz)
    train, test = opened(tmp_path, name), opened(tmp_path, name, "target")
    assert (train.split, test.split) == ("train", "test")
    assert np.array_equal(pixels_of(train), some(12, len("train"))[0])
    assert np.array_equal(pixels_of(test), some(11, len("t10k"))[0])
    assert train.labels.tolist() == some(12)[1].tolist()
    assert (train.total_classes, train.family) == (10, name)


def test_names_with_a_dot(tmp_path):
    lay(tmp_path / "mnist", "train", 10, dot=True)
    assert opened(tmp_path).counts.tolist() == [1] * 10


def test_class_names(tmp_path):
    assert opened(lay(tmp_path / "mnist", "train", 10).parent).class_names == tuple("0123456789")
    fashion = opened(lay(tmp_path / "fashion-mnist", "train", 10).parent, "fashion-mnist")
    assert list(fashion.class_names) == FashionMNIST.classes


def test_pixels_are_what_torchvision_reads(tmp_path):
    lay(tmp_path / "MNIST" / "raw", "train", 12)
    lay(tmp_path / "MNIST" / "raw", "t10k", 12)
    ours, theirs = opened(tmp_path), MNIST(tmp_path, train=True)
    assert np.array_equal(pixels_of(ours), theirs.data.numpy())
    assert ours.labels.tolist() == theirs.targets.tolist()


def test_torchvisions_folder_comes_before_the_flat_one(tmp_path):
    lay(tmp_path / "mnist", "train", 3)
    lay(tmp_path / "MNIST" / "raw", "train", 5)
    assert len(opened(tmp_path).labels) == 5


def test_where_names_row_and_file(tmp_path):
    folder = lay(tmp_path / "mnist", "train", 3)
    assert opened(tmp_path).reader.where(2) == f"image 2 of {folder / 'train-images-idx3-ubyte'}"


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda b: b"", "expected an idx file of 3 dimensions, found an empty file; fetch or save it again"),
        (lambda b: b[:6], "expected an idx file of 3 dimensions, found header 00 00 08 03 00 00"),
        (lambda b: b[:15], "expected an idx file of 3 dimensions, found header 00 00 08 03 00 00 00 03 00 00 00 1c 00 00 00"),
        (lambda b: bytes((0, 0, 8, 1)) + b[4:], "expected an idx file of 3 dimensions, found header 00 00 08 01"),
        (lambda b: bytes((0, 0, 13, 3)) + b[4:], "expected an idx file of 3 dimensions, found header 00 00 0d 03"),
        (
            lambda b: b"<html><body>gone</body></html>",
            "expected an idx file of 3 dimensions, found an HTML page; the download went wrong",
        ),
        (lambda b: b[:-1], "expected 2352 bytes after the header, found 2351"),
        (lambda b: b[:16], "expected 2352 bytes after the header, found 0"),
        (lambda b: b + b"\0", "expected 2352 bytes after the header, found 2353"),
        (lambda b: b[:4] + struct.pack(">3I", 3, 28, 29) + b[16:], "expected 2436 bytes after the header, found 2352"),
        (
            lambda b: b[:4] + struct.pack(">3I", *[2**32 - 1] * 3) + b[16:],
            f"expected {(2**32 - 1) ** 3} bytes after the header, found 2352",
        ),
        (lambda b: b[:4] + struct.pack(">3I", 2**31, 2**31, 4) + b[16:], f"expected {2**64} bytes after the header, found 2352"),
    ],
)
@pytest.mark.parametrize("gz", [False, True])
def test_headers_that_lie(tmp_path, spoil, found, gz):
    folder = lay(tmp_path / "mnist", "train", 3, gz=gz)
    path = folder / f"train-images-idx3-ubyte{'.gz' if gz else ''}"
    content = spoil(idx(some(3)[0]))
    path.write_bytes(gzip.compress(content) if gz else content)
    assert refused(tmp_path).startswith(f"{path}: {found}")


def test_damaged_gzip(tmp_path):
    path = lay(tmp_path / "mnist", "train", 3, gz=True) / "train-images-idx3-ubyte.gz"
    sound = path.read_bytes()
    spoilt = bytearray(sound)
    spoilt[10:60] = bytes(50)
    for content in (sound[:-10], sound[:100], b"no gzip at all", bytes(spoilt), sound[:-8] + bytes(8)):
        path.write_bytes(content)
        message = refused(tmp_path)
        assert message.startswith(f"{path}: expected a readable idx file, found ")
        assert message.endswith("; fetch it again")


def test_labels_are_held_to_the_same_rules(tmp_path):
    folder = lay(tmp_path / "mnist", "train", 3)
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(idx(some(3)[0]))
    assert refused(tmp_path).startswith(f"{path}: expected an idx file of 1 dimensions, found header 00 00 08 03")
    path.write_bytes(idx(np.array([0, 1, 10], np.uint8)))
    assert refused(tmp_path) == f"{path}: expected labels below the 10 class names, found 10"
    path.write_bytes(idx(np.zeros(4, np.uint8)))
    assert refused(tmp_path) == f"{path}: expected 3 labels, one an image of train-images-idx3-ubyte, found 4"


def test_no_images(tmp_path):
    lay(tmp_path / "mnist", "train", 0)
    assert refused(tmp_path) == "mnist: expected images, found none"


def test_images_without_labels_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (lay(tmp_path / "mnist", "train", 3) / "train-labels-idx1-ubyte").unlink()
    assert "expected mnist as MNIST/raw/*-ubyte[.gz] or mnist/*-ubyte[.gz] under one of" in refused(tmp_path)


@pytest.mark.skipif(not (DEBIAN / "fashion-mnist").is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_fashion_mnist():
    images = opened(DEBIAN, "fashion-mnist", "target")
    assert images.counts.tolist() == [1000] * 10
    assert images.reader.read(9_999).shape == (28, 28)
    assert [images.class_names[n] for n in images.labels[:3].tolist()] == ["Ankle boot", "Pullover", "Trouser"]


def test_a_gzip_that_unpacks_to_far_more_is_refused_in_bounded_memory(tmp_path):
    folder = lay(tmp_path / "mnist", "train", 10, gz=True)
    images = next(folder.glob("*images*"))
    with gzip.open(images, "wb", compresslevel=1) as file:
        file.write(bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**19, 28, 28))
        for _ in range(28 * 28 // 2):
            file.write(bytes(2**20))
    assert images.stat().st_size < 2**21
    tracemalloc.start()
    assert "expected 411041792 bytes after the header, found 134217729" in refused(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()
