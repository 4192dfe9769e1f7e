import json

import pytest
from PIL import Image
from timm.data import ImageNetInfo

from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.data.splits import CIFAR100_CLASSES, CIFAR_FS, MINI_IMAGENET
from gcaudit.data.tiered import TIERED_IMAGENET
from gcaudit.errors import DataError


@pytest.mark.parametrize("split", [CIFAR_FS, MINI_IMAGENET], ids=["cifar-fs", "mini-imagenet"])
def test_64_16_and_20_classes_that_share_none(split):
    assert {name: len(classes) for name, classes in split.items()} == {"train": 64, "validation": 16, "test": 20}
    assert len({name for classes in split.values() for name in classes}) == 100


def test_cifar100_classes_are_those_of_cifar_fs_in_alphabetical_order():
    assert len(CIFAR100_CLASSES) == 100
    assert list(CIFAR100_CLASSES) == sorted(name for classes in CIFAR_FS.values() for name in classes)


def test_mini_imagenet_classes_are_wordnet_numbers():
    for name in (name for classes in MINI_IMAGENET.values() for name in classes):
        assert name[0] == "n"
        assert len(name) == 9
        assert name[1:].isdecimal()


@pytest.mark.parametrize(("ours", "file"), [(CIFAR_FS, "cifarfs_splits.json"), (MINI_IMAGENET, "miniimagenet_splits.json")])
def test_lists_are_the_published_ones(shared, ours, file):
    theirs = json.loads((shared / "data" / "splits" / file).read_text())
    for name, key in (("train", "meta-train"), ("validation", "meta-val"), ("test", "meta-test")):
        assert list(ours[name]) == theirs[key]


def test_tiered_imagenet_has_351_97_and_160_of_imagenet_s_classes_that_share_none():
    assert {split: len(names) for split, names in TIERED_IMAGENET.items()} == {"train": 351, "validation": 97, "test": 160}
    whole = [name for names in TIERED_IMAGENET.values() for name in names]
    assert len(set(whole)) == 608
    assert set(whole) <= set(ImageNetInfo().label_names())


def test_tiered_imagenet_is_found_as_mini_imagenet_is(tmp_path):
    for name in TIERED_IMAGENET["validation"]:
        folder = tmp_path / "tiered-imagenet" / "val" / name
        folder.mkdir(parents=True)
        Image.new("L", (4, 4)).save(folder / "0.png")
    found = open_data(DataRequest("tiered-imagenet", "target", split="validation", root=str(tmp_path)))
    assert found.class_names == TIERED_IMAGENET["validation"]
    with pytest.raises(DataError, match="expected the 160 class folders of the test split, found no n03314780"):
        open_data(DataRequest("tiered-imagenet", "target", root=str(tmp_path)))
