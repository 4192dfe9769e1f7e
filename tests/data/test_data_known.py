import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gcaudit.data.known import data_roots
from gcaudit.data.known_table import KNOWN
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.data.splits import MINI_IMAGENET
from gcaudit.errors import DataError


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.delenv("GCAUDIT_DATA", raising=False)


def parquet(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [f"{path.stem} {row}".encode() for row in range(len(labels))]
    pq.write_table(pa.table({"image": images, "label": labels}), path)


def opened(name, role="source", root=None, **options):
    return open_data(DataRequest(name, role, root=None if root is None else str(root), **options))


def refused(name, role="source", root=None, **options):
    with pytest.raises(DataError) as caught:
        opened(name, role, root, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def mini_imagenet(place, folder_of, each=2):
    """Class folders, made in an order that is not the alphabet's; pictures are not decoded here."""
    for split, names in MINI_IMAGENET.items():
        for name in reversed(names):
            for number in range(each):
                path = place / "mini-imagenet" / folder_of(split) / name / f"{name}_{number}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"{name} {number}".encode())
    return place


LAYOUTS = {
    "flat": lambda split: ".",
    "images": lambda split: "images",
    "by split": lambda split: split,
    "val": lambda split: {"validation": "val"}.get(split, split),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_mini_imagenet_layouts(tmp_path, layout, split):
    mini_imagenet(tmp_path, LAYOUTS[layout])
    images = opened("mini-imagenet", "source", tmp_path, split=split)
    names = MINI_IMAGENET[split]
    assert images.class_names == names
    assert images.counts.tolist() == [2] * len(names)
    found = [images.reader.read(row).decode() for row in images.index.tolist()]
    assert sorted(found) == sorted(f"{name} {number}" for name in names for number in range(2))
    assert [text.split()[0] for text in found] == [names[n] for n in images.labels.tolist()]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mini_imagenet_misses_a_class(tmp_path, layout):
    mini_imagenet(tmp_path, LAYOUTS[layout], each=1)
    folder = tmp_path / "mini-imagenet" / LAYOUTS[layout]("validation")
    name = MINI_IMAGENET["validation"][3]
    (folder / name).rename(folder / "elsewhere")
    message = refused("mini-imagenet", root=tmp_path, split="validation")
    assert message == f"{folder}: expected the 16 class folders of the validation split, found no {name}"
    assert opened("mini-imagenet", "target", tmp_path).split == "test"


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_splits_of_known_names(tmp_path, known):
    assert known.source_split in known.splits
    assert known.target_split in known.splits
    message = refused(known.name, root=tmp_path, split="holdout")
    assert message == f"{known.name}: expected a split of {', '.join(known.splits)}, found 'holdout'"


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "cifar-fs", "mnist", "fashion-mnist"])
def test_the_split_follows_the_role(tmp_path, name):
    for split, labels in (("train", [0, 1, 2]), ("test", [0, 1]), ("validation", [0])):
        parquet(tmp_path / name / f"{split}-00000-of-00001.parquet", labels)
    source, target = opened(name, "source", tmp_path), opened(name, "target", tmp_path)
    assert (source.split, len(source.labels)) == ("train", 3)
    assert (target.split, len(target.labels)) == ("test", 2)
    asked = opened(name, "source", tmp_path, split="test")
    assert (asked.split, len(asked.labels), asked.spec) == ("test", 2, name)


def test_known_names_as_class_folders(tmp_path):
    for name in ("train/cat/0.png", "train/dog/0.png", "test/cat/0.png"):
        (tmp_path / "cifar10" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cifar10" / name).write_bytes(b"")
    assert opened("cifar10", "source", tmp_path).class_names == ("cat", "dog")
    assert opened("cifar10", "target", tmp_path).class_names == ("cat",)


def test_a_known_folder_without_the_split_is_not_it(tmp_path):
    parquet(tmp_path / "cifar10" / "train.parquet", [0, 1])
    assert "expected cifar10 as cifar-10-batches-py/" in refused("cifar10", "target", tmp_path)


def test_family_is_the_name_or_the_data_set_that_it_is_cut_from():
    assert {known.name: known.family for known in KNOWN if known.family} == {"cifar-fs": "cifar100", "fc100": "cifar100"}


def test_search_order(tmp_path, monkeypatch):
    places = {name: tmp_path / name for name in ("given", "first", "second", "work/data")}
    for number, place in enumerate(places.values(), 1):
        parquet(place / "cifar10" / "train.parquet", [0] * number)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("GCAUDIT_DATA", f"{places['first']}{os.pathsep}{places['second']}")
    assert len(opened("cifar10", root=places["given"]).labels) == 1
    assert len(opened("cifar10").labels) == 2
    (places["first"] / "cifar10" / "train.parquet").unlink()
    assert len(opened("cifar10").labels) == 3
    monkeypatch.delenv("GCAUDIT_DATA")
    assert len(opened("cifar10").labels) == 4


def test_a_given_root_is_the_only_one(tmp_path, monkeypatch):
    parquet(tmp_path / "data" / "cifar10" / "train.parquet", [0, 1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GCAUDIT_DATA", str(tmp_path / "data"))
    (tmp_path / "empty").mkdir()
    message = refused("cifar10", root=tmp_path / "empty")
    assert f"under one of {tmp_path / 'empty'}; found none" in message


def test_roots_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GCAUDIT_DATA", f"~/a{os.pathsep}{os.pathsep}/b")
    assert data_roots("~/x") == [tmp_path / "x"]
    assert [str(place) for place in data_roots(None)] == [str(tmp_path / "a"), "/b", "data", "/usr/share/datasets"]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion-mnist"])
def test_not_found_says_where_and_how(tmp_path, name):
    known = next(entry for entry in KNOWN if entry.name == name)
    message = refused(name, root=tmp_path)
    assert message.startswith(f"expected {name} as {known.looked_for} under one of {tmp_path}; found none (and on the hub: hf:")
    assert known.hub in message
    assert message.endswith(f"set --data-root or $GCAUDIT_DATA, or get it: {known.how}")
    assert "download=True" in message


@pytest.mark.parametrize("name", ["cifar-fs", "mini-imagenet"])
def test_what_the_hub_has_not_is_not_looked_for_there(tmp_path, name):
    known = next(entry for entry in KNOWN if entry.name == name)
    message = refused(name, root=tmp_path)
    assert known.hub is None
    assert f"under one of {tmp_path}; found none; set --data-root" in message
    assert message.endswith(known.how)


def test_the_places_looked_in_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GCAUDIT_DATA", str(tmp_path / "mine"))
    assert f"under one of {tmp_path / 'mine'}, data, /usr/share/datasets; found none" in refused("mini-imagenet")


def test_demo():
    source, target = opened("demo", "source"), opened("demo", "target")
    assert (source.split, target.split, source.family) == ("train", "test", "demo")
    assert len(source.class_names) == len(target.class_names) == 5
    assert not set(source.class_names) & set(target.class_names)
    for images in (source, target):
        assert len(set(images.counts.tolist())) == 1
        picture = np.asarray(Image.open(io.BytesIO(images.reader.read(int(images.index[-1])))))
        assert picture.shape == (28, 28)
        assert np.ptp(picture) > 0
