import gzip
import io
import os
import pickle
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from gcaudit.data.cifar import read_cifar, unpickle_arrays
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.data.splits import CIFAR100_CLASSES, CIFAR_FS
from gcaudit.errors import DataError

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2's cPickle wrote: byte strings for text and bytes, 0 and 1 for the flags of a dtype."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_text(self, text):
        data = text.encode("latin1") if isinstance(text, str) else text
        self.write(b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    def save_flag(self, flag):
        self.write(b"K" + bytes([flag]))

    dispatch[str] = dispatch[bytes] = save_text
    dispatch[bool] = save_flag


def python2(content):
    file = io.BytesIO()
    Python2Pickler(file, 2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def python3(content):
    return pickle.dumps(content, protocol=2)


def protocol4(content):
    return pickle.dumps(content, protocol=4)


def some_pixels(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def cifar10(place, dump=python2, per_file=4, meta=True):
    folder = place / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        labels = [(number + row) % 10 for row in range(per_file)]
        names = [f"p_{row}.png" for row in range(per_file)]
        data = some_pixels(per_file, number)
        (folder / name).write_bytes(dump({"batch_label": name, "labels": labels, "data": data, "filenames": names}))
    if meta:
        (folder / "batches.meta").write_bytes(
            dump({"num_cases_per_batch": per_file, "label_names": CIFAR10_NAMES, "num_vis": 3072})
        )
    return place


def cifar100(place, dump=python2, train=5, test=1):
    """`train` and `test` images of each of the 100 classes, in an order that is not that of the classes."""
    folder = place / "cifar-100-python"
    folder.mkdir(parents=True)
    for seed, (name, each) in enumerate((("train", train), ("test", test))):
        labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(100), each)).tolist()
        content = {"fine_labels": labels, "coarse_labels": [n // 5 for n in labels], "data": some_pixels(100 * each, seed)}
        (folder / name).write_bytes(dump(content))
    names = {"fine_label_names": list(CIFAR100_CLASSES), "coarse_label_names": [f"group {n}" for n in range(20)]}
    (folder / "meta").write_bytes(dump(names))
    return place


def pack(place, folder, archive):
    """Turn the folder into the .tar.gz that is downloaded."""
    with tarfile.open(place / archive, "w:gz") as tar:
        tar.add(place / folder, folder)
    for path in (place / folder).iterdir():
        path.unlink()
    (place / folder).rmdir()
    return place


def opened(place, name, role="source", **options):
    return open_data(DataRequest(name, role, root=str(place), **options))


def pixels_of(images):
    return np.stack([images.reader.read(row) for row in images.index.tolist()])


def true_labels(images):
    return np.array(images.class_numbers)[images.labels.numpy()].tolist()


def refused(place, name="cifar10", role="target", **options):
    with pytest.raises(DataError) as caught:
        opened(place, name, role, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Torchvision10(CIFAR10):
    train_list = [[f"data_batch_{n}", None] for n in range(1, 6)]  # noqa: RUF012
    test_list = [["test_batch", None]]  # noqa: RUF012
    meta = {"filename": "batches.meta", "key": "label_names", "md5": None}  # noqa: RUF012


class Torchvision100(CIFAR100):
    train_list = [["train", None]]  # noqa: RUF012
    test_list = [["test", None]]  # noqa: RUF012
    meta = {"filename": "meta", "key": "fine_label_names", "md5": None}  # noqa: RUF012


@pytest.mark.parametrize("role", ["source", "target"])
@pytest.mark.parametrize("dump", [python2, python3, protocol4])
def test_cifar10_is_what_torchvision_reads(tmp_path, dump, role):
    cifar10(tmp_path, dump)
    images = opened(tmp_path, "cifar10", role)
    theirs = Torchvision10(tmp_path, train=role == "source")
    assert np.array_equal(pixels_of(images), theirs.data)
    assert true_labels(images) == theirs.targets
    assert [CIFAR10_NAMES[n] for n in images.class_numbers] == list(images.class_names)
    assert (images.split, images.total_classes) == ("train" if role == "source" else "test", 10)


@pytest.mark.parametrize("role", ["source", "target"])
def test_cifar100_is_what_torchvision_reads(tmp_path, role):
    cifar100(tmp_path, train=2)
    images = opened(tmp_path, "cifar100", role)
    theirs = Torchvision100(tmp_path, train=role == "source")
    assert np.array_equal(pixels_of(images), theirs.data)
    assert images.labels.tolist() == theirs.targets
    assert list(images.class_names) == theirs.classes


@pytest.mark.parametrize("dump", [python2, python3])
def test_the_archive_is_the_folder(tmp_path, dump):
    whole = cifar10(tmp_path / "a", dump)
    packed = pack(cifar10(tmp_path / "b", dump), "cifar-10-batches-py", "cifar-10-python.tar.gz")
    for role in ("source", "target"):
        ours, theirs = opened(packed, "cifar10", role), opened(whole, "cifar10", role)
        assert np.array_equal(pixels_of(ours), pixels_of(theirs))
        assert (ours.labels.tolist(), ours.class_names) == (theirs.labels.tolist(), theirs.class_names)
    assert ours.reader.where(2) == f"image 2 of {packed / 'cifar-10-python.tar.gz'}"


def test_class_names_are_known_without_the_archive(tmp_path):
    images = opened(cifar10(tmp_path, meta=False), "cifar10")
    assert list(images.class_names) == [CIFAR10_NAMES[n] for n in images.class_numbers]
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(python2({"label_names": 3}))
    assert opened(tmp_path, "cifar10").class_names == images.class_names


def test_cifar_fs_is_train_and_test_together(tmp_path):
    cifar100(tmp_path, train=5, test=1)
    train, test = Torchvision100(tmp_path, train=True), Torchvision100(tmp_path, train=False)
    everything, labels = np.concatenate([train.data, test.data]), np.array(train.targets + test.targets)
    seen = 0
    for split, names in CIFAR_FS.items():
        images = opened(tmp_path, "cifar-fs", split=split)
        assert images.class_names == names
        assert images.counts.tolist() == [6] * len(names)
        assert (images.family, images.split) == ("cifar100", split)
        rows = np.flatnonzero(np.isin(labels, [CIFAR100_CLASSES.index(name) for name in names]))
        assert [CIFAR100_CLASSES[n] for n in labels[rows]] == [names[n] for n in images.labels.tolist()]
        assert np.array_equal(pixels_of(images), everything[rows])
        assert images.index.tolist() == list(range(6 * len(names)))
        seen += len(rows)
    assert seen == 600


def test_cifar_fs_reads_the_archive(tmp_path):
    pack(cifar100(tmp_path, train=1), "cifar-100-python", "cifar-100-python.tar.gz")
    assert opened(tmp_path, "cifar-fs", "target").counts.tolist() == [2] * 20


def test_cifar_fs_and_cifar100_are_one_family(tmp_path):
    cifar100(tmp_path, train=1)
    assert opened(tmp_path, "cifar100").family == opened(tmp_path, "cifar-fs").family == "cifar100"


def test_cifar_fs_wants_the_class_names(tmp_path):
    cifar100(tmp_path, train=1)
    names = [f"class {n}" for n in range(100)]
    (tmp_path / "cifar-100-python" / "meta").write_bytes(python2({"fine_label_names": names}))
    assert "expected the data set's class names, found no 'baby' among them; fetch it again" in refused(tmp_path, "cifar-fs")


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, protocol):
    marker = tmp_path / "marker"
    cifar10(tmp_path)
    content = pickle.dumps({"data": some_pixels(1, 0), "labels": [0], "more": Hostile(marker)}, protocol=protocol)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    message = refused(tmp_path)
    assert f"{tmp_path / 'cifar-10-batches-py' / 'test_batch'}: expected a pickle of arrays" in message
    assert f"refused: it wants to import {os.system.__module__}.system; fetch it again" in message
    assert not marker.exists()


def test_code_in_the_names_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "marker"
    cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({"label_names": Hostile(marker)}))
    assert opened(tmp_path, "cifar10", "target").class_names == ("dog", "frog", "horse", "ship")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"cbuiltins\neval\n(V1+1\ntR.", "refused: it wants to import builtins.eval"),
        (b"cnumpy\nload\n(Vx\ntR.", "refused: it wants to import numpy.load"),
        (b"c_codecs\nencode\n(Vabc\nVrot13\ntR.", "bytes in the encoding 'rot13'"),
        (b"c_codecs\nencode\n(Vabc\nVutf-8\ntR.", "bytes in the encoding 'utf-8'"),
        (b"\x80\x04\x8c\x05a\nb.c\x8c\x01d\x93.", r"refused: it wants to import a\nb.c.d"),
        (b"", "1 bytes are claimed, 0 are left"),
        (b"\x80\x02}q\x00(U\x09data", "9 bytes are claimed, 4 are left"),
    ],
)
def test_foreign_pickles(content, found):
    with pytest.raises(DataError) as caught:
        unpickle_arrays(io.BytesIO(content), len(content), "here")
    assert str(caught.value) == f"here: expected a pickle of arrays as CIFAR's archives hold: {found}; fetch it again"


def test_latin1_is_the_encoding_of_bytes():
    content = pickle.dumps({"a": b"\xff\x00"}, protocol=2)
    assert unpickle_arrays(io.BytesIO(content), len(content), "here") == {"a": b"\xff\x00"}


def test_another_pickled_thing():
    with pytest.raises(DataError, match="here: expected a pickled dict, found a list; fetch the archive again"):
        unpickle_arrays(io.BytesIO(b"]."), 2, "here")


@pytest.mark.parametrize(
    "content",
    [
        {"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]},
        {"data": np.zeros((2, 3, 1024), np.uint8), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": np.zeros(2, np.int64)},
        {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0, 1]},
        {"data": "x" * 3072, "labels": [0]},
        {"labels": [0, 1]},
    ],
)
def test_other_shapes(tmp_path, content):
    cifar10(tmp_path)
    place = tmp_path / "cifar-10-batches-py"
    (place / "test_batch").write_bytes(python3(content))
    assert refused(tmp_path) == f"{place}, test_batch: expected n x 3072 bytes and n labels, found others; fetch the archive again"


@pytest.mark.parametrize(
    ("labels", "found"), [([0, 10], "labels below the 10 class names, found 10"), ([0, -1], "labels >= 0, found -1")]
)
def test_labels_out_of_range(tmp_path, labels, found):
    cifar10(tmp_path)
    place = tmp_path / "cifar-10-batches-py"
    (place / "test_batch").write_bytes(python2({"data": some_pixels(2, 0), "labels": labels}))
    assert f"{place}: expected {found}" in refused(tmp_path)


def test_a_missing_file(tmp_path):
    cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.unlink()
    assert refused(tmp_path, role="source") == f"{path}: expected CIFAR's file: No such file or directory; fetch the archive again"
    assert len(opened(tmp_path, "cifar10", "target").labels) == 4


def test_a_missing_member(tmp_path):
    cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    (tmp_path / "cifar-10-batches-py" / "data_batch_5").unlink()
    pack(tmp_path, "cifar-10-batches-py", "cifar-10-python.tar.gz")
    message = refused(tmp_path, role="source")
    assert message.endswith(
        "cifar-10-python.tar.gz: expected data_batch_3, data_batch_5 in CIFAR's archive, found none; fetch it again"
    )
    assert len(opened(tmp_path, "cifar10", "target").labels) == 4


def test_a_link_is_no_member(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(python3({"data": some_pixels(1, 0), "labels": [0]}))
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        member.type, member.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(member)
    assert "expected test_batch in CIFAR's archive, found none" in refused(tmp_path)


def test_damaged_archives(tmp_path):
    path = pack(cifar10(tmp_path), "cifar-10-batches-py", "cifar-10-python.tar.gz") / "cifar-10-python.tar.gz"
    sound = path.read_bytes()
    spoilt = bytearray(sound)
    spoilt[len(sound) // 2 : len(sound) // 2 + 2000] = bytes(2000)
    for content in (sound[: len(sound) // 2], sound[:40], b"no archive", b"", bytes(spoilt)):
        path.write_bytes(content)
        message = refused(tmp_path, role="source")
        assert message.startswith(f"{path}")
        assert message.endswith(("fetch it again", "fetch or save it again"))
        assert "expected CIFAR's archive" in message or "expected a pickle of arrays" in message


def test_an_archive_without_images(tmp_path):
    cifar10(tmp_path, per_file=0)
    assert refused(tmp_path) == "cifar10: expected images, found none"


def test_members_are_taken_in_the_order_asked_for(tmp_path):
    cifar10(tmp_path)
    place = tmp_path / "cifar-10-batches-py"
    one, two = "data_batch_1", "data_batch_2"
    data = read_cifar(place, [two, one], "labels", ("batches.meta", "label_names"), CIFAR10_NAMES)
    assert data.labels.tolist() == [1, 2, 3, 4, 0, 1, 2, 3]
    assert np.array_equal(data.reader.read(0), some_pixels(4, 1)[0].reshape(3, 32, 32).transpose(1, 2, 0))


def tar_header(name, size, kind):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf()


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_archive_that_unpacks_to_gigabytes_is_refused_in_bounded_memory(tmp_path, kind):
    place = tmp_path / "cifar-10-python.tar.gz"
    with gzip.open(place, "wb", compresslevel=1) as file:
        file.write(tar_header("cifar-10-batches-py/big", 2**33, kind))
        file.write(bytes(2**20))
    tracemalloc.start()
    assert refused(tmp_path).startswith(f"{place}: expected CIFAR's archive, found ")
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
