import io
import sys
import zipfile
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torchvision.datasets import MNIST

from gcaudit.data import hugging_face
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.errors import DataError

pytestmark = pytest.mark.usefixtures("no_hub")


def picture(value):
    file = io.BytesIO()
    Image.new("L", (4, 4), value).save(file, "PNG")
    return file.getvalue()


def table(labels, *, names=None, image="image", label="label", first=0):
    cells = [{"bytes": picture(first + row), "path": None} for row in range(len(labels))]
    kind = datasets.ClassLabel(names=names) if names else datasets.Value("string" if isinstance(labels[0], str) else "int64")
    features = datasets.Features({image: datasets.Image(), label: kind})
    return datasets.Dataset.from_dict({image: cells, label: labels}, features=features)


def saved(path, data):
    data.save_to_disk(str(path))
    return f"disk:{path}"


def opened(spec, role="source", **options):
    return open_data(DataRequest(spec, role, **options))


def refused(spec, role="source", **options):
    with pytest.raises(DataError) as caught:
        opened(spec, role, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def values_of(images):
    return [int(np.asarray(Image.open(io.BytesIO(images.reader.read(row))))[0, 0]) for row in images.index.tolist()]


def test_disk_with_class_names(tmp_path):
    images = opened(saved(tmp_path / "d", table([2, 0, 2], names=["ant", "bee", "cat"])))
    assert images.class_names == ("ant", "cat")
    assert (images.class_numbers, images.total_classes) == ((0, 2), 3)
    assert images.labels.tolist() == [1, 0, 1]
    assert values_of(images) == [0, 1, 2]
    assert images.reader.where(1) == f"row 1 of disk:{tmp_path / 'd'}"


def test_disk_gives_encoded_bytes(tmp_path):
    images = opened(saved(tmp_path / "d", table([0, 1])))
    assert images.reader.read(1) == picture(1)


def test_disk_with_string_labels(tmp_path):
    images = opened(saved(tmp_path / "d", table(["dog", "ant", "dog"])))
    assert images.class_names == ("ant", "dog")
    assert images.labels.tolist() == [1, 0, 1]


def test_disk_with_other_column_names(tmp_path):
    images = opened(saved(tmp_path / "d", table([1, 0], names=["x", "y"], image="photograph", label="species")))
    assert images.class_names == ("x", "y")
    assert values_of(images) == [0, 1]


def test_the_customary_label_column_comes_first(tmp_path):
    data = table([1, 0], names=["x", "y"]).add_column("colour", [0, 0], feature=datasets.ClassLabel(names=["red"]))
    data = data.select_columns(["colour", "label", "image"])
    assert opened(saved(tmp_path / "d", data)).class_names == ("x", "y")


def test_disk_without_an_image_feature(tmp_path):
    data = datasets.Dataset.from_dict({"img": [picture(3), picture(4)], "label": [0, 1]})
    assert values_of(opened(saved(tmp_path / "d", data))) == [3, 4]


def test_rows_that_were_selected_before_saving(tmp_path):
    data = table([0, 1, 0, 1, 0]).select([4, 1])
    images = opened(saved(tmp_path / "d", data))
    assert values_of(images) == [4, 1]
    assert images.labels.tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["torch", "numpy", "pandas"])
def test_a_saved_format_changes_nothing(tmp_path, kind):
    images = opened(saved(tmp_path / "d", table([2, 0, 2], names=["ant", "bee", "cat"]).with_format(kind)))
    assert images.reader.read(1) == picture(1)
    assert images.labels.tolist() == [1, 0, 1]


def test_splits_of_a_dict_follow_the_role(tmp_path):
    data = {"train": table([0, 1]), "validation": table([0, 1], first=10), "test": table([0, 1], first=20)}
    spec = saved(tmp_path / "d", datasets.DatasetDict(data))
    source, target, asked = opened(spec), opened(spec, "target"), opened(spec, split="validation")
    assert [(images.split, values_of(images)[0]) for images in (source, target, asked)] == [
        ("train", 0),
        ("test", 20),
        ("validation", 10),
    ]


def test_validation_stands_in_for_test(tmp_path):
    spec = saved(tmp_path / "d", datasets.DatasetDict({"validation": table([0, 1]), "train": table([0, 1])}))
    assert opened(spec, "target").split == "validation"


def test_an_only_split_is_taken(tmp_path):
    spec = saved(tmp_path / "d", datasets.DatasetDict({"everything": table([0, 1])}))
    assert opened(spec).split == opened(spec, "target").split == "everything"


def test_nothing_stands_in_for_train(tmp_path):
    spec = saved(tmp_path / "d", datasets.DatasetDict({"validation": table([0, 1]), "test": table([0, 1])}))
    assert "expected to know the split, found validation, test" in refused(spec)


def test_splits_that_tell_nothing(tmp_path):
    spec = saved(tmp_path / "d", datasets.DatasetDict({"a": table([0, 1]), "b": table([0, 1])}))
    message = refused(spec)
    assert message == f"{spec}: expected to know the split, found a, b; name one with --source-split or --target-split"
    assert refused(spec, split="c") == f"{spec}: expected a split of a, b, found 'c'"


def test_a_single_data_set_is_held_to_its_split(tmp_path):
    spec = saved(tmp_path / "d", table([0, 1]))
    assert opened(spec).split is None
    assert refused(spec, split="test") == f"{spec}: expected split 'test', found one data set (of no split); leave the split out"
    named = datasets.Dataset(table([0, 1]).data, split=datasets.NamedSplit("train"))
    spec = saved(tmp_path / "e", named)
    assert opened(spec).split == opened(spec, split="train").split == "train"
    assert "found one data set (train); leave the split out" in refused(spec, split="test")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"photo": ["x"], "label": [0]},
            "expected a column of images named image, img, images, picture and 10 more, found photo, label; name it with --image-key",
        ),
        (
            {"image": [b"x"], "kind": [0], "colour": ["red"]},
            "expected a column of labels named label, labels, fine_label, target and 4 more, found kind, colour; name it with --label-key",
        ),
        ({"image": [b"x", b"y"], "label": [None, None]}, "expected labels, found none of 2 images with one"),
        ({"image": [b"x"], "label": [[1, 2]]}, "expected one class an image, found lists of several (2 in one)"),
        ({"image": [b"x"], "label": [0.5]}, "expected a class an image, found the number 0.5"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, data, message):
    spec = saved(tmp_path / "d", datasets.Dataset.from_dict(data))
    assert f"{spec}: {message}" in refused(spec)


def test_an_unlabelled_split(tmp_path):
    spec = saved(tmp_path / "d", table([-1, -1], names=["x", "y"]))
    assert f"{spec}: expected labels, found none of 2 images with one (an unlabelled split?)" in refused(spec)


def test_a_disk_path_that_is_none(tmp_path):
    message = refused(f"disk:{tmp_path / 'gone'}")
    assert message.startswith(f"disk:{tmp_path / 'gone'}: expected a data set, found FileNotFoundError: ")
    assert message.endswith("; check the name, or pass a local path")
    (tmp_path / "other").mkdir()
    assert f"disk:{tmp_path / 'other'}: expected a data set, found " in refused(f"disk:{tmp_path / 'other'}")


def test_hf_reads_a_local_folder(tmp_path):
    for split, first in (("train", 0), ("test", 10)):
        images = [{"bytes": picture(first + row), "path": None} for row in range(3)]
        (tmp_path / "d" / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": images, "label": [0, 1, 0]}), tmp_path / "d" / "data" / f"{split}-00000.parquet")
    source, target = opened(f"hf:{tmp_path / 'd'}"), opened(f"hf:{tmp_path / 'd'}", "target")
    assert (source.split, values_of(source)) == ("train", [0, 1, 2])
    assert (target.split, values_of(target)) == ("test", [10, 11, 12])
    assert source.labels.tolist() == [0, 1, 0]


def test_hf_reads_class_names_and_configurations(tmp_path):
    table([1, 0], names=["cat", "dog"]).to_parquet(str(tmp_path / "d" / "small" / "train.parquet"))
    table([1, 1], names=["cat", "dog"]).to_parquet(str(tmp_path / "d" / "large" / "train.parquet"))
    card = (
        "---\nconfigs:\n" + "".join(f"- config_name: {n}\n  data_files: {n}/train.parquet\n" for n in ("small", "large")) + "---\n"
    )
    (tmp_path / "d" / "README.md").write_text(card)
    assert opened(f"hf:{tmp_path / 'd'}:small").class_names == ("cat", "dog")
    assert opened(f"hf:{tmp_path / 'd'}:large").class_names == ("dog",)
    assert "expected a data set, found ValueError: " in refused(f"hf:{tmp_path / 'd'}")


def test_hf_without_a_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = refused("hf:nobody/nothing")
    assert message.startswith("hf:nobody/nothing: expected a data set, found ")
    assert message.endswith("; HF_HUB_OFFLINE keeps the hub from being asked: unset it, or pass a local path")


@pytest.mark.parametrize("spec", ["hf:someone/something", "disk:somewhere"])
def test_datasets_is_not_installed(monkeypatch, spec):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refused(spec) == f"{spec}: expected the package 'datasets', found it not installed; pip install datasets"


# --- torchvision -----------------------------------------------------------------------------------------------------


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 6), ("t10k", 4)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(idx(pixels))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8)))
    return tmp_path


def test_torchvision_reads_what_torchvision_reads(mnist):
    for role, train in (("source", True), ("target", False)):
        images = opened("torchvision:MNIST", role, root=str(mnist))
        theirs = MNIST(mnist, train=train)
        assert images.split == ("train" if train else "test")
        assert images.labels.tolist() == theirs.targets.tolist()
        assert list(images.class_names) == theirs.classes[: len(theirs)]
        assert np.array_equal(np.stack([images.reader.read(row) for row in range(len(theirs))]), theirs.data.numpy())
    assert images.reader.where(3) == "item 3 of torchvision:MNIST"


def test_torchvision_takes_a_split(mnist):
    assert len(opened("torchvision:MNIST", split="test", root=str(mnist)).labels) == 4
    message = refused("torchvision:MNIST", split="validation", root=str(mnist))
    assert message == "torchvision:MNIST: expected a split of train, test, found 'validation'"


def test_torchvision_looks_in_data(mnist, monkeypatch):
    (mnist / "work").mkdir()
    (mnist / "work" / "data").symlink_to(mnist)
    monkeypatch.chdir(mnist / "work")
    assert len(opened("torchvision:MNIST").labels) == 6


def test_torchvision_class_without_splits(tmp_path):
    for name in ("cat/0.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(picture(1))
    images = opened("torchvision:ImageFolder", root=str(tmp_path))
    assert (images.class_names, images.split) == (("cat", "dog"), None)
    message = refused("torchvision:ImageFolder", root=str(tmp_path), split="train")
    assert message == "torchvision:ImageFolder: expected no split, since ImageFolder has none, found 'train'; leave it out"


def test_torchvision_data_that_are_not_there(tmp_path):
    message = refused("torchvision:CIFAR10", root=str(tmp_path))
    assert message.startswith(f"torchvision:CIFAR10: expected it under {tmp_path}: Dataset not found or corrupted.")
    assert message.endswith("set --data-root, or fetch it with download=True")


def test_torchvision_knows_its_own_splits(tmp_path):
    message = refused("torchvision:SVHN", root=str(tmp_path), split="half")
    assert message.startswith(
        "torchvision:SVHN: expected a data set that root and split are enough for, found Unknown value 'half'"
    )


def test_torchvision_class_that_wants_more(tmp_path):
    assert "missing 1 required positional argument: 'annFile'" in refused("torchvision:CocoDetection", root=str(tmp_path))


def test_torchvision_class_without_files():
    message = refused("torchvision:FakeData")
    assert message == (
        "torchvision:FakeData: expected a data set that lies in a folder, found FakeData, which does not; pass the object from Python"
    )


@pytest.mark.parametrize("name", ["mnist", "Nothing", "", "utils"])
def test_no_torchvision_class(name):
    message = refused(f"torchvision:{name}")
    assert message == f"torchvision:{name}: expected the name of a class in torchvision.datasets, found {name!r}"


def test_pictures_that_the_library_leaves_out_are_told(tmp_path):
    for name in ("cat/0.png", "cat/1.png", "dog/2.png", "dog/3.image", "cat/.4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(1))
    (warning,) = opened(f"hf:{tmp_path}").warnings
    assert (warning.kind, warning.count) == ("left-out", 2)


def test_a_mode_that_is_not_followed_is_told(tmp_path):
    data = table([0, 1]).cast_column("image", datasets.Image(mode="L"))
    (warning,) = opened(saved(tmp_path / "grey", data)).warnings
    assert (warning.kind, "mode L" in warning.message) == ("converted", True)


def test_a_stream_of_an_image_folder_and_of_an_archive(tmp_path):
    """The library gives paths, of files and of members: pictures are read from both."""
    pictures = {}
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(2):
            place = tmp_path / "train" / name / f"{number}.png"
            Image.new("RGB", (4, 4), (number, 0, 0)).save(place)
            pictures[name, number] = place.read_bytes()
    found = opened(f"hf:{tmp_path}", streaming=True)
    assert (found.class_names, found.labels.tolist()) == (("cat", "dog"), [0, 0, 1, 1])
    assert [found.reader.read(row) for row in range(4)] == list(pictures.values())
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "train" / "cat" / "0.png", "0.png")
    assert (
        hugging_face._content({"bytes": None, "path": f"zip://0.png::{tmp_path / 'x.zip'}"}, "row 0", str(tmp_path))
        == pictures["cat", 0]
    )
    for path in (
        "/etc/hostname",
        "https://example.org/0.png",
        "zip://0.png::/other/x.zip",
        "file:///etc/hostname",
        "hf://datasets/other/name@main/0.png",
    ):
        with pytest.raises(DataError, match="which leads out of it"):
            hugging_face._content({"bytes": None, "path": path}, "row 0", str(tmp_path))


def test_what_does_not_fit_on_the_disk_is_streamed(tmp_path, monkeypatch):
    builder = SimpleNamespace(info=SimpleNamespace(download_size=2**40, dataset_size=2**40), cache_dir=str(tmp_path / "none"))
    library = SimpleNamespace(
        load_dataset_builder=lambda name, config: builder, config=SimpleNamespace(HF_DATASETS_CACHE=tmp_path / "cache")
    )
    line = hugging_face._lacks_space(library, "someone/something", "")
    assert line.startswith("it is streamed, since it needs 2048.0 GiB and ")
    builder.info.dataset_size = builder.info.download_size = None
    assert hugging_face._lacks_space(library, "someone/something", "") is None
    builder.info.dataset_size, builder.cache_dir = 2**41, str(tmp_path)
    assert hugging_face._lacks_space(library, "someone/something", "") is None  # it is there already
