"""CIFAR-100's parts from parquet, CUB and ImageNet in the layouts of their archives, and splits whose class folders differ."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.data.splits import CIFAR100_CLASSES, CIFAR100_SUPERCLASSES, CIFAR_FS, FC100, cub_split
from gcaudit.errors import DataError


def png(number=0):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), number % 256, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def lay(place, *names):
    for number, name in enumerate(names):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return place


def opened(spec, role="source", **options):
    return open_data(DataRequest(str(spec), role, **options))


def told(found):
    return [str(warning) for warning in found.warnings]


def test_superclasses_hold_every_class_once_and_fc100_is_made_of_them():
    assert len(CIFAR100_SUPERCLASSES) == 20
    assert sorted(name for names in CIFAR100_SUPERCLASSES.values() for name in names) == list(CIFAR100_CLASSES)
    assert list(CIFAR100_SUPERCLASSES) == sorted(CIFAR100_SUPERCLASSES)
    assert {split: len(names) for split, names in FC100.items()} == {"train": 60, "validation": 20, "test": 20}
    assert set().union(*FC100.values()) == set(CIFAR100_CLASSES)
    for names in CIFAR100_SUPERCLASSES.values():
        assert sum(set(names) <= set(classes) for classes in FC100.values()) == 1


def cifar100(place, *, metadata):
    """As the hub has it: `img`, `fine_label` and `coarse_label`, in a train and a test file."""
    coarse = {name: number for number, names in enumerate(CIFAR100_SUPERCLASSES.values()) for name in names}
    (place / "cifar100").mkdir(parents=True)
    for split, each in (("train", 3), ("test", 1)):
        fine = np.random.default_rng(each).permutation(np.repeat(np.arange(100), each)).tolist()
        columns = {
            "img": [png(number) for number in fine], "fine_label": fine, "coarse_label": [coarse[CIFAR100_CLASSES[n]] for n in fine],
        }  # fmt: skip
        table = pa.table(columns)
        if metadata:
            names = str(list(CIFAR100_CLASSES)).replace("'", '"')
            said = f'{{"info": {{"features": {{"fine_label": {{"names": {names}}}}}}}}}'
            table = table.replace_schema_metadata({"huggingface": said})
        pq.write_table(table, place / "cifar100" / f"{split}-00000-of-00001.parquet")
    return place


@pytest.mark.parametrize("metadata", [False, True])
@pytest.mark.parametrize(("name", "splits"), [("cifar-fs", CIFAR_FS), ("fc100", FC100)])
def test_parts_of_cifar100_from_parquet(name, splits, metadata, tmp_path):
    root = str(cifar100(tmp_path, metadata=metadata))
    for split, names in splits.items():
        found = opened(name, split=split, root=root)
        assert found.class_names == tuple(names)
        assert found.counts.tolist() == [4] * len(names)
        for place in (0, 17, len(found.labels) - 1):
            number = CIFAR100_CLASSES.index(found.class_names[int(found.labels[place])])
            assert found.reader.read(int(found.index[place])) == png(number)
    assert opened("cifar-fs", "target", root=root).class_names == CIFAR_FS["test"]


def test_cub_is_split_by_the_numbers_of_its_classes(tmp_path):
    names = [f"{number:03}.Bird_{number}" for number in range(1, 201)]
    lay(tmp_path / "CUB_200_2011" / "images", *(f"{name}/{n}.jpg" for name in names for n in range(2)))
    splits = {split: opened("cub", split=split, root=str(tmp_path)) for split in ("train", "validation", "test")}
    assert [len(found.class_names) for found in splits.values()] == [100, 50, 50]
    assert [found.class_names[:2] for found in splits.values()] == [
        ("001.Bird_1", "003.Bird_3"), ("002.Bird_2", "006.Bird_6"), ("004.Bird_4", "008.Bird_8"),
    ]  # fmt: skip
    assert set().union(*(found.class_names for found in splits.values())) == set(names)
    assert splits["test"].counts.tolist() == [2] * 50
    assert cub_split(names, "train") == splits["train"].class_names
    (tmp_path / "CUB_200_2011" / "images" / names[0] / "0.jpg").unlink()
    (tmp_path / "CUB_200_2011" / "images" / names[0] / "1.jpg").unlink()
    (tmp_path / "CUB_200_2011" / "images" / names[0]).rmdir()
    with pytest.raises(DataError, match="expected the 200 class folders of CUB, found 199"):
        opened("cub", root=str(tmp_path))


SYNSETS = ("n01440764", "n02012849", "n03126707")
WORDS = "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\n"


def imagenet(place, *, sorted_val):
    folder = place / "ILSVRC" / "Data" / "CLS-LOC"
    lay(folder / "train", *(f"{name}/{name}_{n}.JPEG" for name in SYNSETS for n in range(2)))
    if sorted_val:
        lay(folder / "val", *(f"{name}/ILSVRC2012_val_{n}.JPEG" for n, name in enumerate(SYNSETS)))
    else:
        lay(folder / "val", *(f"ILSVRC2012_val_0000000{n}.JPEG" for n in (1, 2, 3)))
        rows = [f"ILSVRC2012_val_0000000{n},{SYNSETS[3 - n]} 1 2 3 4 {SYNSETS[3 - n]} 5 6 7 8" for n in (1, 2, 3)]
        (place / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]))
    (place / "LOC_synset_mapping.txt").write_text(WORDS)
    return str(place)


@pytest.mark.parametrize("sorted_val", [False, True])
def test_imagenet_in_the_layout_of_its_archives(sorted_val, tmp_path):
    root = imagenet(tmp_path, sorted_val=sorted_val)
    train, val = opened("imagenet", root=root), opened("imagenet", "target", root=root)
    assert (train.split, val.split) == ("train", "validation")
    assert train.class_names == val.class_names == ("tench", "crane (n02012849)", "crane (n03126707)")
    assert train.counts.tolist() == [2, 2, 2]
    assert val.labels.tolist() == ([0, 1, 2] if sorted_val else [2, 1, 0])


def test_imagenet_that_lacks_a_part(tmp_path):
    root = imagenet(tmp_path, sorted_val=False)
    (tmp_path / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\n")
    found = opened("imagenet", root=root)
    assert found.class_names == SYNSETS
    assert "has no name for 2 classes (n02012849, n03126707): synsets stand for all" in told(found)[0]
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n")
    with pytest.raises(DataError, match=r"expected the class of each picture of .*val, found none of ILSVRC2012_val_00000001"):
        opened("imagenet", "target", root=root)
    (tmp_path / "LOC_val_solution.csv").unlink()
    with pytest.raises(DataError, match=r"expected a folder a class, or LOC_val_solution.csv beside it, found neither"):
        opened("imagenet", "target", root=root)
    with pytest.raises(DataError, match="expected a folder train, found other"):
        opened("imagenet", root=str(lay(tmp_path / "b" / "imagenet" / "other", "x.png").parent.parent))


def test_a_split_that_lacks_classes_is_numbered_as_the_folder_of_training(tmp_path):
    lay(tmp_path, "train/a/0.png", "train/b/0.png", "train/c/0.png", "val/a/0.png", "val/c/0.png")
    found = opened(tmp_path, split="val")
    assert (found.class_names, found.class_numbers, found.total_classes) == (("a", "c"), (0, 2), 3)
    line = "1 classes of the folder of training have no folder in this split (b); classes are numbered as there, by name"
    assert line in told(found)
    assert told(opened(tmp_path, split="train")) == []
    lay(tmp_path, "val/d/0.png")
    assert "1 classes of this split have no folder in that of training (d)" in told(opened(tmp_path, split="val"))


def test_splits_of_other_classes_are_numbered_apart(tmp_path):
    lay(tmp_path, "train/a/0.png", "train/b/0.png", "test/c/0.png", "test/d/0.png")
    found = opened(tmp_path, split="test")
    assert (found.class_names, found.total_classes, told(found)) == (("c", "d"), 2, [])
