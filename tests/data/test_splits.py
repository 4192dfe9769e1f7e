import json

import pytest

from gcaudit.data.splits import CIFAR100_CLASSES, CIFAR_FS, MINI_IMAGENET


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
