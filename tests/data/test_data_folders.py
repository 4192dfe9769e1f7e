import io
import os

import pytest
import torch
from PIL import Image

from gcaudit.data.batches import stream_batches
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.errors import DataError


def picture(value=0, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, kind)
    return file.getvalue()


def lay(root, *names, content=None):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number) if content is None else content)
    return root


def refused(spec, **options):
    with pytest.raises(DataError) as caught:
        open_data(DataRequest(str(spec), "source", **options))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files_of(images, root):
    return [images.reader.paths[row].relative_to(root).as_posix() for row in images.index.tolist()]


def failures_of(images):
    order = [list(range(len(images.labels)))]
    (batch,) = stream_batches(images.reader, images.index, order, lambda _: torch.zeros(3, 2, 2), workers=0, pin=False)
    return dict(batch.failures)


def test_classes_and_files_are_in_alphabetical_order(tmp_path):
    root = lay(tmp_path, "dog/b.png", "cat/z.png", "dog/a.png", "cat/A.png", "ant/1.png")
    images = open_data(DataRequest(root, "source"))
    assert images.class_names == ("ant", "cat", "dog")
    assert files_of(images, root) == ["ant/1.png", "cat/A.png", "cat/z.png", "dog/a.png", "dog/b.png"]
    assert images.labels.tolist() == [0, 1, 1, 2, 2]
    assert images.labels.dtype == images.index.dtype == torch.int64
    assert images.counts.tolist() == [1, 2, 2]
    assert (images.spec, images.split, images.family) == (str(root), None, str(root.resolve()))
    assert (images.class_numbers, images.total_classes) == ((0, 1, 2), 3)


def test_a_row_gives_its_file(tmp_path):
    images = open_data(DataRequest(lay(tmp_path, "a/0.png", "a/1.png", "b/2.png"), "source"))
    assert [images.reader.read(row) for row in range(3)] == [picture(0), picture(1), picture(2)]
    assert images.reader.where(2) == str(tmp_path / "b/2.png")


def test_pictures_may_lie_deeper(tmp_path):
    root = lay(tmp_path, "cat/2019/x/1.png", "cat/0.png", "dog/old/2.png")
    images = open_data(DataRequest(root, "source"))
    assert files_of(images, root) == ["cat/0.png", "cat/2019/x/1.png", "dog/old/2.png"]
    assert images.labels.tolist() == [0, 0, 1]


def test_what_begins_with_a_dot_is_left_out(tmp_path):
    root = lay(tmp_path, ".git/0.png", "cat/0.png", "cat/.ipynb_checkpoints/0-checkpoint.png", "cat/._0.png", "dog/1.png")
    images = open_data(DataRequest(root, "source"))
    assert images.class_names == ("cat", "dog")
    assert files_of(images, root) == ["cat/0.png", "dog/1.png"]
    assert [(warning.kind, warning.count, warning.first) for warning in images.warnings] == [
        ("left-out", 1, ("cat/.ipynb_checkpoints/0-checkpoint.png",)),
        ("left-out", 1, (".git",)),
    ]


def test_hidden_files_that_are_no_pictures_are_nobodys_loss(tmp_path):
    root = lay(tmp_path, "cat/0.png", "dog/1.png")
    for name in ("cat/.DS_Store", ".git/config", ".gitattributes"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no picture")
    assert open_data(DataRequest(root, "source")).warnings == ()


def test_pictures_beside_the_class_folders_are_told(tmp_path):
    (warning,) = open_data(DataRequest(lay(tmp_path, "cat/0.png", "dog/1.png", "2.png", "3.JPG"), "source")).warnings
    assert (warning.kind, warning.count, warning.first) == ("left-out", 2, ("2.png", "3.JPG"))


def test_a_folder_below_a_hidden_one_is_read(tmp_path):
    root = lay(tmp_path / ".cache" / "photos", "cat/0.png", "dog/1.png")
    assert files_of(open_data(DataRequest(root, "source")), root) == ["cat/0.png", "dog/1.png"]


def test_other_files_are_left_out(tmp_path):
    root = lay(tmp_path, "cat/0.png", "dog/1.png")
    for name in ("cat/Thumbs.db", "cat/notes.txt", "labels.csv", "dog/README"):
        (root / name).write_text("no picture")
    images = open_data(DataRequest(root, "source"))
    assert files_of(images, root) == ["cat/0.png", "dog/1.png"]
    (warning,) = images.warnings
    assert (warning.kind, warning.count) == ("left-out", 3)
    assert warning.first == ("cat/Thumbs.db", "cat/notes.txt", "dog/README")


def test_content_decides_where_the_suffix_does_not(tmp_path):
    root = lay(tmp_path, "cat/0.png", "cat/1", "cat/2.jfif", "dog/3.image")
    images = open_data(DataRequest(root, "source"))
    assert files_of(images, root) == ["cat/0.png", "cat/1", "cat/2.jfif", "dog/3.image"]
    assert images.warnings == ()


def test_linked_folders_are_followed_and_circles_are_not(tmp_path):
    root = lay(tmp_path / "root", "cat/0.png", "dog/1.png")
    elsewhere = lay(tmp_path / "elsewhere", "deep/2.png")
    (root / "cat" / "linked").symlink_to(elsewhere / "deep")
    (root / "dog" / "circle").symlink_to(root / "dog")
    assert files_of(open_data(DataRequest(root, "source")), root) == ["cat/0.png", "cat/linked/2.png", "dog/1.png"]


@pytest.mark.parametrize("other", ["__MACOSX/x", "annotations/x", "train_extra/cat"])
def test_splits_beside_other_folders_are_splits(tmp_path, other):
    root = lay(tmp_path, "train/cat/0.png", "val/cat/1.png", f"{other}/2.png")
    with pytest.raises(DataError, match="expected class folders, found the splits train, val; name one with --source-split"):
        open_data(DataRequest(root, "source"))
    assert files_of(open_data(DataRequest(root, "source", split="val")), root) == ["val/cat/1.png"]


def test_a_class_may_be_called_train(tmp_path):
    root = lay(tmp_path, "train/0.png", "bus/1.png")
    assert open_data(DataRequest(root, "source")).class_names == ("bus", "train")


@pytest.mark.parametrize(("count", "told"), [(12, True), (10, False)])
def test_numbers_in_the_order_of_text_are_told(tmp_path, count, told):
    root = lay(tmp_path, *(f"{number}/0.png" for number in range(count)))
    assert [warning.kind for warning in open_data(DataRequest(root, "source")).warnings] == ["class-order"] * told


def test_names_that_are_not_utf_8_are_escaped_and_told(tmp_path):
    root = lay(tmp_path, "dog/0.png", "cat/1.png")
    (root / "cat").rename(root / os.fsdecode(b"caf\xe9"))
    images = open_data(DataRequest(root, "source"))
    assert images.class_names == ("caf\\udce9", "dog")
    assert [warning.kind for warning in images.warnings] == ["renamed"]


@pytest.mark.parametrize(
    "suffix", [".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif", ".JPG", ".JPEG"]
)
def test_picture_suffixes(tmp_path, suffix):
    root = lay(tmp_path, f"cat/0{suffix}")
    assert files_of(open_data(DataRequest(root, "source")), root) == [f"cat/0{suffix}"]


def test_a_folder_named_like_a_picture_is_no_picture(tmp_path):
    root = lay(tmp_path, "cat/deep.png/0.png")
    assert files_of(open_data(DataRequest(root, "source")), root) == ["cat/deep.png/0.png"]


def test_an_empty_class_keeps_its_number(tmp_path):
    root = lay(tmp_path, "ant/0.png", "cat/1.png")
    (root / "bee").mkdir()
    images = open_data(DataRequest(root, "source"))
    assert (images.class_names, images.class_numbers, images.total_classes) == (("ant", "cat"), (0, 2), 3)
    assert images.labels.tolist() == [0, 1]


def test_an_empty_class_cannot_be_chosen(tmp_path):
    root = lay(tmp_path, "ant/0.png")
    (root / "bee").mkdir()
    assert "expected images of the chosen classes, found none of bee; leave them out" in refused(root, classes="ant,bee")


def test_the_split_is_a_subfolder(tmp_path):
    root = lay(tmp_path, "train/cat/0.png", "train/dog/1.png", "val/cat/2.png")
    images = open_data(DataRequest(root, "target", split="val"))
    assert files_of(images, root) == ["val/cat/2.png"]
    assert (images.class_names, images.split) == (("cat",), "val")


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "TEST"), ("validation", "testing"), ("training",)])
def test_split_folders_want_a_split(tmp_path, names):
    root = lay(tmp_path, *(f"{name}/cat/0.png" for name in names))
    message = refused(root)
    assert f"expected class folders, found the splits {', '.join(sorted(names))}" in message
    assert "name one with --source-split or --target-split" in message


def test_classes_beside_a_split_name_are_classes(tmp_path):
    root = lay(tmp_path, "train/0.png", "bus/1.png")
    assert open_data(DataRequest(root, "source")).class_names == ("bus", "train")


def test_an_unknown_split_lists_the_folders(tmp_path):
    root = lay(tmp_path, "train/cat/0.png", "val/cat/0.png")
    assert "expected a folder for split 'test', found train, val" in refused(root, split="test")
    assert "expected a folder for split 'test', found no folders" in refused(root / "train" / "cat", split="test")


def test_a_folder_of_text_is_no_data_set(tmp_path):
    root = lay(tmp_path, "cat/a.txt", "cat/LICENSE", "dog/b.csv", content=b"words")
    message = refused(root)
    assert message.startswith(f"{root}: expected one folder a class with pictures (.jpg, .png, ...) in it")
    assert message.endswith("found files ending in .csv, .txt, LICENSE")


def test_an_empty_folder_is_no_data_set(tmp_path):
    assert refused(tmp_path).endswith("found no class folders")
    (tmp_path / "cat").mkdir()
    assert refused(tmp_path).endswith("found no files")


def test_pictures_without_class_folders_are_no_data_set(tmp_path):
    assert refused(lay(tmp_path, "0.png", "1.png")).endswith("found no class folders")


def test_a_file_is_no_folder(tmp_path):
    path = lay(tmp_path, "cat.png") / "cat.png"
    assert (
        refused(path)
        == f"{path}: expected parquet, a tar or zip, a table (.csv, .tsv, .jsonl, .ndjson) or a folder of class folders, found another file"
    )


def test_what_is_not_there_is_named_beside_what_is_known(tmp_path):
    message = refused(tmp_path / "nowhere")
    assert f"found no file or folder '{tmp_path / 'nowhere'}'" in message
    assert (
        "cifar10, cifar100, cifar-fs, fc100, mnist, fashion-mnist, mini-imagenet, tiered-imagenet, cub, imagenet, demo" in message
    )
    assert "hf:ID" in message


@pytest.mark.parametrize("spec", ["", " "])
def test_an_empty_name_is_not_the_working_folder(tmp_path, monkeypatch, spec):
    monkeypatch.chdir(lay(tmp_path, "cat/0.png"))
    assert "expected a data set, found an empty name; known names: cifar10" in refused(spec)


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(lay(tmp_path, "photos/cat/0.png")))
    assert open_data(DataRequest("~/photos", "source")).class_names == ("cat",)


def test_text_in_a_picture_file_is_a_failure_that_names_it(tmp_path):
    root = lay(tmp_path, "cat/0.png", "dog/1.png")
    lay(root, "cat/words.jpg", content=b"these are words")
    images = open_data(DataRequest(root, "source"))
    assert failures_of(images) == {1: f"{root / 'cat/words.jpg'}: these bytes are no picture"}


def test_a_link_that_leads_nowhere_is_a_failure_that_names_it(tmp_path):
    root = lay(tmp_path, "cat/0.png")
    (root / "cat" / "1.png").symlink_to(tmp_path / "gone.png")
    (root / "cat" / "2.png").symlink_to("2.png")
    failures = failures_of(open_data(DataRequest(root, "source")))
    assert set(failures) == {1, 2}
    assert failures[1].startswith(f"{root / 'cat/1.png'}: ")
    assert "No such file" in failures[1]


def test_links_to_class_folders_are_followed_and_told(tmp_path):
    store = lay(tmp_path / "store", "more/y.png", "deep/z.png")
    root = lay(tmp_path / "photos", "cat/0.png")
    (root / "dog").symlink_to(store / "more")
    (root / "cat" / "deep").symlink_to("../../store/deep")
    images = open_data(DataRequest(root, "source"))
    assert files_of(images, root) == ["cat/0.png", "cat/deep/z.png", "dog/y.png"]
    assert images.reader.read(2) == (store / "more" / "y.png").read_bytes()
    (warning,) = images.warnings
    assert (warning.kind, warning.count, warning.first) == ("links", 2, ("cat/deep", "dog"))


def test_links_within_the_folder_are_followed(tmp_path):
    root = lay(tmp_path / "photos", "cat/0.png", "all/1.png", ".blobs/2.png")
    (root / "cat" / "1.png").symlink_to("../all/1.png")
    (root / "cat" / "2.png").symlink_to(root / ".blobs" / "2.png")
    assert files_of(open_data(DataRequest(root, "source")), root) == ["all/1.png", "cat/0.png", "cat/1.png", "cat/2.png"]


@pytest.mark.parametrize("through", [False, True])
def test_pictures_that_are_links_out_of_the_folder_are_refused(tmp_path, through):
    private = lay(tmp_path / "private", "x.png")
    root = lay(tmp_path / "photos", "cat/0.png", "dog/0.png")
    place = root / "cat"
    if through:
        place = lay(tmp_path / "store", "1.png")
        (root / "cat" / "more").symlink_to(place)
    (place / "y.png").symlink_to(private / "x.png")
    shown = root / "cat" / ("more/y.png" if through else "y.png")
    assert refused(root) == (
        f"{shown}: expected pictures in {root}, found a link to {private / 'x.png'}; remove it, or pass --follow-links"
    )
    images = open_data(DataRequest(root, "source", follow_links=True))
    assert images.reader.read(2 if through else 1) == (private / "x.png").read_bytes()


@pytest.mark.parametrize(
    "names",
    [
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("train2017", "val2017"),
        ("Train_data", "Test-Data"),
        ("train", "test_images"),
    ],
)
def test_folders_named_after_splits_are_no_classes(tmp_path, names):
    lay(tmp_path, *(f"{split}/{label}/{number}.png" for split in names for label in ("cat", "dog") for number in range(2)))
    assert refused(tmp_path).startswith(f"{tmp_path}: expected class folders, found the splits ")


@pytest.mark.parametrize("names", [("trainer", "tester"), ("test", "cat"), ("valley", "contest"), ("data", "images")])
def test_other_names_are_classes(tmp_path, names):
    assert open_data(DataRequest(lay(tmp_path, *(f"{name}/0.png" for name in names)), "source")).class_names == tuple(sorted(names))


@pytest.mark.parametrize("names", [("fold1", "fold2"), ("images", "masks")])
def test_class_folders_that_all_hold_the_same_folders_are_told(tmp_path, names):
    lay(tmp_path, *(f"{part}/{label}/{number}.png" for part in names for label in ("cat", "dog") for number in range(2)))
    (warning,) = open_data(DataRequest(tmp_path, "source")).warnings
    assert (warning.kind, "all hold the same folders (cat, dog)" in warning.message) == ("split", True)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([f"class{n}" for n in range(12)], True),
        (["0_background", *map(str, range(1, 12))], True),
        ([f"{n:02}" for n in range(12)], False),
        (["n01440764", "n01443537", "n9"], True),
        (["cat", "dog 2", "dog 1"], False),
        ([f"class{n}" for n in range(9)], False),
    ],
)
def test_the_order_of_text_is_told_where_numbers_have_another(tmp_path, names, told):
    root = lay(tmp_path, *(f"{name}/0.png" for name in names))
    assert [warning.kind for warning in open_data(DataRequest(root, "source")).warnings] == ["class-order"] * told


@pytest.mark.parametrize(
    ("names", "classes", "told"),
    [
        ([*map(str, range(1, 10)), "background"], "1-3", True),
        ([*map(str, range(1, 10)), "background"], "1,2,3", False),
        ([f"class{n}" for n in range(1, 6)], "1-3", True),
        ([f"class{n}" for n in range(6)], "1-3", False),
        (["cat", "dog", "eel", "emu 2"], "1-3", False),
    ],
)
def test_ranges_that_may_be_names_are_told(tmp_path, names, classes, told):
    root = lay(tmp_path, *(f"{name}/0.png" for name in names))
    kinds = [warning.kind for warning in open_data(DataRequest(root, "source", classes=classes)).warnings]
    assert ("class-choice" in kinds) == told


def test_keys_of_columns_that_are_not_there_are_told(tmp_path):
    place = lay(tmp_path, "cat/0.png", "dog/0.png")
    found = open_data(DataRequest(str(place), "source", label_key="species"))
    assert "--image-key and --label-key were not used: the data set has no columns" in [str(warning) for warning in found.warnings]
