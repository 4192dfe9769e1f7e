import decimal
import io
import json
import pickle
import re
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from processes import finished

from gcaudit.data.batches import stream_batches
from gcaudit.data.columns import encoded
from gcaudit.data.opening import open_data
from gcaudit.data.parquet_pages import Parts, _pages, check_pages, row_groups
from gcaudit.data.request import DataRequest
from gcaudit.errors import DataError, RequestError
from gcaudit.files import OpenFile


def hugging_face(column, names):
    features = {column: {"names": names, "_type": "ClassLabel"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def write(path, labels, *, images=None, names=None, group=None, image="image", label="label", stem=None):
    """Images are bytes that say file and row; nothing here decodes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if images is None:
        images = [{"bytes": f"{stem or path.stem} {row}".encode(), "path": None} for row in range(len(labels))]
    table = pa.table({image: images, label: labels})
    if names is not None:
        table = table.replace_schema_metadata(hugging_face(label, names))
    pq.write_table(table, path, row_group_size=group)
    return path


def read_all(images):
    return [images.reader.read(row).decode() for row in images.index.tolist()]


def opened(spec, **options):
    return open_data(DataRequest(str(spec), "source", **options))


def refused(spec, **options):
    with pytest.raises(DataError) as caught:
        opened(spec, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_with_integer_labels(tmp_path):
    images = opened(write(tmp_path / "a.parquet", [2, 0, 2]))
    assert images.class_names == ("0", "2")
    assert (images.class_numbers, images.total_classes) == ((0, 2), 3)
    assert images.labels.tolist() == [1, 0, 1]
    assert read_all(images) == ["a 0", "a 1", "a 2"]
    assert images.reader.where(1) == f"{tmp_path / 'a.parquet'}, row 1"


def test_string_labels_are_classes_in_alphabetical_order(tmp_path):
    images = opened(write(tmp_path / "a.parquet", ["dog", "cat", "dog", "ant"]))
    assert images.class_names == ("ant", "cat", "dog")
    assert images.labels.tolist() == [2, 1, 2, 0]


def test_dictionary_labels_are_strings(tmp_path):
    path = write(tmp_path / "a.parquet", pa.array(["dog", "cat", "dog"]).dictionary_encode(), images=[b"0", b"1", b"2"])
    assert opened(path).class_names == ("cat", "dog")


def test_class_names_of_hugging_face_metadata(tmp_path):
    images = opened(write(tmp_path / "a.parquet", [1, 0, 1], names=["plane", "car", "bird"]))
    assert images.class_names == ("plane", "car")
    assert images.total_classes == 3


@pytest.mark.parametrize(
    "metadata",
    [
        {"huggingface": "{"},
        {"huggingface": "[]"},
        {"huggingface": "null"},
        {"huggingface": '{"info": {"features": {"label": {"names": [1, 2]}}}}'},
        {"huggingface": '{"info": {"features": {"label": {"names": "ab"}}}}'},
        {"pandas": "{}"},
    ],
)
def test_metadata_that_names_no_classes_is_left_alone(tmp_path, metadata):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"a", b"b"], "label": [0, 1]}).replace_schema_metadata(metadata), path)
    assert opened(path).class_names == ("0", "1")


@pytest.mark.parametrize("column", ["label", "labels", "fine_label", "target", "class", "class_label"])
def test_label_columns(tmp_path, column):
    assert opened(write(tmp_path / "a.parquet", [0, 1], label=column, names=["x", "y"])).class_names == ("x", "y")


@pytest.mark.parametrize("column", ["image", "img", "images", "picture", "pixels", "jpg", "png"])
def test_image_columns(tmp_path, column):
    assert read_all(opened(write(tmp_path / "a.parquet", [0, 1], image=column))) == ["a 0", "a 1"]


def test_fine_labels_come_before_coarse_ones(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"coarse_label": [0, 0], "fine_label": [3, 4], "img": [b"a", b"b"]}), path)
    assert opened(path).class_names == ("3", "4")


def test_bare_bytes_are_images(tmp_path):
    assert read_all(opened(write(tmp_path / "a.parquet", [0, 1], images=[b"x", b"y"]))) == ["x", "y"]


def test_rows_come_from_the_right_file_and_group(tmp_path):
    write(tmp_path / "b.parquet", [0] * 5, group=2)
    write(tmp_path / "a.parquet", [1] * 7, group=3)
    write(tmp_path / "c.parquet", [2] * 4)
    images = opened(tmp_path)
    expected = [f"a {row}" for row in range(7)] + [f"b {row}" for row in range(5)] + [f"c {row}" for row in range(4)]
    assert read_all(images) == expected
    assert images.labels.tolist() == [1] * 7 + [0] * 5 + [2] * 4
    assert [images.reader.where(row) for row in (0, 6, 7, 11, 12, 15)] == [
        f"{tmp_path / name}.parquet, row {row}" for name, row in (("a", 0), ("a", 6), ("b", 0), ("b", 4), ("c", 0), ("c", 3))
    ]
    backwards = [images.reader.read(row).decode() for row in reversed(range(16))]
    assert backwards == expected[::-1]


def test_empty_files_and_groups_shift_no_row(tmp_path):
    write(tmp_path / "a.parquet", pa.array([], pa.int64()), images=pa.array([], pa.binary()))
    write(tmp_path / "b.parquet", [0, 1], images=[b"b0", b"b1"])
    write(tmp_path / "c.parquet", pa.array([], pa.int64()), images=pa.array([], pa.binary()))
    with pq.ParquetWriter(tmp_path / "d.parquet", pa.schema({"image": pa.binary(), "label": pa.int64()})) as writer:
        for values in ([b"d0"], [], [b"d1"]):
            writer.write_table(pa.table({"image": values, "label": [1] * len(values)}, schema=writer.schema))
    images = opened(tmp_path)
    assert read_all(images) == ["b0", "b1", "d0", "d1"]
    assert images.reader.where(0) == f"{tmp_path / 'b.parquet'}, row 0"
    assert images.reader.where(3) == f"{tmp_path / 'd.parquet'}, row 1"


def test_a_folder_may_keep_its_files_in_data(tmp_path):
    write(tmp_path / "data" / "train-0.parquet", [0, 1])
    assert read_all(opened(tmp_path)) == ["train-0 0", "train-0 1"]


def test_a_glob_takes_parquet_alone(tmp_path):
    write(tmp_path / "x" / "train-0.parquet", [0, 1])
    write(tmp_path / "y" / "train-1.parquet", [0, 1])
    write(tmp_path / "y" / "test-0.parquet", [0, 1])
    (tmp_path / "y" / "train.txt").write_text("words")
    assert read_all(opened(tmp_path / "*" / "train*")) == ["train-0 0", "train-0 1", "train-1 0", "train-1 1"]
    assert len(read_all(opened(tmp_path / "**" / "*.parquet"))) == 6
    assert "found no file or folder" in refused(tmp_path / "z*.parquet")


def test_a_folder_of_several_splits_wants_one_named(tmp_path):
    write(tmp_path / "train-00000-of-00002.parquet", [0, 1], stem="t0")
    write(tmp_path / "train-00001-of-00002.parquet", [0, 1], stem="t1")
    write(tmp_path / "validation.parquet", [0, 1], stem="v")
    assert "expected files of one split, found the splits train, validation; name one with --source-split" in refused(tmp_path)
    typed = opened(tmp_path / "*.parquet")
    assert len(read_all(typed)) == 6
    assert [warning.kind for warning in typed.warnings] == ["split"]
    images = opened(tmp_path, split="train")
    assert read_all(images) == ["t0 0", "t0 1", "t1 0", "t1 1"]
    assert images.split == "train"
    assert read_all(opened(tmp_path, split="val")) == ["v 0", "v 1"]


def test_a_split_that_no_file_is_named_after(tmp_path):
    write(tmp_path / "train.parquet", [0, 1])
    write(tmp_path / "val.parquet", [0, 1])
    assert "expected parquet files whose name starts with 'test', found train.parquet, val.parquet" in refused(
        tmp_path, split="test"
    )


def test_a_file_is_held_to_its_split(tmp_path):
    path = write(tmp_path / "train.parquet", [0, 1])
    assert opened(path, split="train").split == "train"
    assert "expected parquet files whose name starts with 'test', found train.parquet" in refused(path, split="test")


def test_missing_columns_are_told_from_those_there(tmp_path):
    table = pa.table({"photo": [b""], "thumbnail": [b""], "species": ["a"], "place": ["b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    told = f"{tmp_path / 'a.parquet'}: expected a column of images named image, img, images, picture and 10 more, found photo, thumbnail"
    assert f"{told}; name it with --image-key" in refused(tmp_path / "a.parquet")
    told = "expected a column of labels named label, labels, fine_label, target and 4 more, found species, place; name it with --label-key"
    assert told in refused(tmp_path / "a.parquet", image_key="photo")
    assert "expected the column 'photos' of --image-key, found photo" in refused(tmp_path / "a.parquet", image_key="photos")


def test_the_only_column_that_may_be_is_taken_and_told(tmp_path):
    path = write(tmp_path / "a.parquet", ["a", "b"], image="photo", label="species")
    found = opened(path)
    assert (found.columns, found.class_names) == (("photo", "species"), ("a", "b"))
    assert [str(warning) for warning in found.warnings] == [
        "the column 'photo' was taken for images, the only one that may hold them",
        "the column 'species' was taken for labels, the only one that may hold them",
    ]
    assert opened(path, image_key="photo", label_key="species").warnings == ()


def test_files_must_have_the_same_columns(tmp_path):
    write(tmp_path / "a.parquet", [0, 1])
    write(tmp_path / "b.parquet", [0, 1], image="img")
    assert f"{tmp_path / 'b.parquet'}: expected the column 'image' of the files before it, found img, label" in refused(tmp_path)
    write(tmp_path / "b.parquet", [0, 1], label="target")
    assert f"{tmp_path / 'b.parquet'}: expected the column 'label' of the files before it, found image, target" in refused(tmp_path)


def test_files_must_have_the_same_class_names(tmp_path):
    write(tmp_path / "a.parquet", [0, 1], names=["cat", "dog"])
    write(tmp_path / "b.parquet", [0, 1], names=["dog", "cat"])
    assert f"{tmp_path / 'b.parquet'}: expected the class names of the files before it, found others" in refused(tmp_path)
    write(tmp_path / "b.parquet", [0, 1])
    assert opened(tmp_path).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([None, None], "expected labels, found none of 2 images with one (an unlabelled split?)"),
        ([0, -3], "expected labels >= 0, and -1 for none, found -3 and 1 of 2 below 0"),
        ([0.0, 1.5], "expected a class an image, found the number 1.5"),
        ([b"cat", b"dog"], "expected labels that are all integers or all strings, found bytes"),
        ([[0], [1, 2]], "expected one class an image, found lists of several (2 in one)"),
        (
            [[0, 1, 0]],
            "expected one class an image, found lists of 3 numbers with a single 1 (one-hot); make a column of its place",
        ),
        ([decimal.Decimal(1)], "expected labels that are all integers or all strings, found Decimal"),
        ([0, 10**15], "expected labels below 1000000, found 1000000000000000 (ids in place of classes?)"),
        (pa.array([0, 2**63], pa.uint64()), "expected labels below 1000000, found 9223372036854775808"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, message):
    path = write(tmp_path / "a.parquet", labels, images=[b""] * len(labels))
    assert f"{path}: {message}" in refused(path)


def test_labels_of_two_kinds(tmp_path):
    write(tmp_path / "a.parquet", ["cat", "dog"])
    write(tmp_path / "b.parquet", [0, 1])
    assert "expected labels that are all integers or all strings, found int, str" in refused(tmp_path)


def test_labels_beyond_the_names(tmp_path):
    path = write(tmp_path / "a.parquet", [0, 2], names=["cat", "dog"])
    assert f"{path}: expected labels below the 2 class names, found 2" in refused(path)


def test_no_rows(tmp_path):
    path = write(tmp_path / "a.parquet", pa.array([], pa.int64()), images=pa.array([], pa.binary()))
    assert refused(path) == f"{path}: expected images, found no rows"


@pytest.mark.parametrize("damage", ["cut", "words", "empty", "folder"])
def test_damaged_files(tmp_path, damage):
    path = write(tmp_path / "a.parquet", list(range(50)))
    content = {"cut": path.read_bytes()[:-20], "words": b"words" * 100, "empty": b""}.get(damage)
    path.unlink()
    if content is None:
        path.mkdir()
        assert f"{path}: expected a readable parquet file, found " in refused(tmp_path)
    else:
        path.write_bytes(content)
        assert f"{path}: expected a readable parquet file, found " in refused(path)


def test_a_file_that_goes_away_later(tmp_path):
    path = write(tmp_path / "a.parquet", [0, 1])
    images = opened(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.parquet: expected readable parquet, found .*No such file"):
        images.reader.read(0)


def test_the_path_stands_in_for_missing_bytes(tmp_path):
    (tmp_path / "0.jpg").write_bytes(b"beside")
    cells = [{"bytes": None, "path": str(tmp_path / "0.jpg")}, {"bytes": b"within", "path": "gone.jpg"}]
    assert read_all(opened(write(tmp_path / "a.parquet", [0, 1], images=cells))) == ["beside", "within"]


@pytest.mark.parametrize(
    ("path", "told"), [("gone.jpg", "at gone.jpg: No such file or directory"), (None, "no path"), ("", "no path")]
)
def test_neither_bytes_nor_a_file(tmp_path, monkeypatch, path, told):
    monkeypatch.chdir(tmp_path)
    cells = [{"bytes": b"x", "path": None}, {"bytes": None, "path": path}]
    images = opened(write(tmp_path / "a.parquet", [0, 1], images=cells))
    expected = rf"a\.parquet, row 1: expected image bytes, found none and {told}"
    with pytest.raises(DataError, match=expected):
        images.reader.read(1)
    (batch,) = stream_batches(images.reader, images.index[1:], [[0]], torch.Tensor, workers=0, pin=False)
    assert batch.failures == ((0, f"{tmp_path / 'a.parquet'}, row 1: expected image bytes, found none and {told}"),)


def test_no_bytes_are_told_from_a_missing_cell():
    assert encoded({"bytes": b"", "path": "x"}, "here") == b""
    assert encoded(b"raw", "here") == b"raw"


def test_readers_survive_pickling_and_leave_their_memory_behind(tmp_path):
    reader = opened(write(tmp_path / "a.parquet", [0] * 6, group=2)).reader
    fresh = len(pickle.dumps(reader))
    assert reader.read(5) == b"a 5"
    sent = pickle.dumps(reader)
    assert len(sent) == fresh
    twin = pickle.loads(sent)
    assert twin == reader
    assert [twin.read(row) for row in range(6)] == [reader.read(row) for row in range(6)]


def test_few_row_groups_are_held(tmp_path):
    reader = opened(write(tmp_path / "a.parquet", [0] * 10, group=1)).reader
    for row in range(10):
        reader.read(row)
    assert len(reader._held) <= 2


def test_real_cifar10(shared):
    images = opened(shared / "data" / "cifar10" / "test.parquet")
    assert images.counts.tolist() == [1000] * 10
    assert images.class_names[0] == "airplane"
    picture = Image.open(io.BytesIO(images.reader.read(9_999)))
    assert (picture.size, picture.mode) == ((32, 32), "RGB")


def kinds(images):
    return [warning.kind for warning in images.warnings]


def test_absent_shards_are_told(tmp_path):
    for number in (0, 2):
        write(tmp_path / f"train-{number:05}-of-00005.parquet", [0, 1])
    (warning,) = opened(tmp_path).warnings
    assert (warning.kind, warning.count, warning.first) == ("left-out", 3, ("train 1", "train 3", "train 4"))
    for number in (1, 3, 4):
        write(tmp_path / f"train-{number:05}-of-00005.parquet", [0, 1])
    assert opened(tmp_path).warnings == ()


def test_files_of_several_names_are_told(tmp_path):
    for name in ("test-0", "test-1", "test_unlabelled-0"):
        write(tmp_path / f"{name}.parquet", [0, 1])
    (warning,) = opened(tmp_path).warnings
    assert (warning.kind, "test, test_unlabelled" in warning.message) == ("split", True)
    assert read_all(opened(tmp_path, split="test")) == ["test-0 0", "test-0 1", "test-1 0", "test-1 1"]
    assert kinds(opened(tmp_path, split="test")) == []


@pytest.mark.parametrize("name", ["more/z.parquet", "cat/0.png", "z.PARQUET"])
def test_what_lies_beside_the_files_of_a_folder_is_told(tmp_path, name):
    write(tmp_path / "a.parquet", [0, 1])
    write(tmp_path / name, [0, 1])
    (warning,) = opened(tmp_path).warnings
    assert (warning.kind, warning.first) == ("left-out", (name.partition("/")[0],))
    assert opened(tmp_path / "a.parquet").warnings == ()


def test_a_column_that_names_splits_is_told(tmp_path):
    images = [b"0", b"1", b"2"]
    table = pa.table({"image": images, "label": [0, 1, 0], "split": ["train", "train", "test"]})
    pq.write_table(table, tmp_path / "a.parquet")
    (warning,) = opened(tmp_path / "a.parquet").warnings
    assert (warning.kind, "(test, train)" in warning.message) == ("split", True)
    pq.write_table(table.slice(0, 2), tmp_path / "a.parquet")
    assert opened(tmp_path / "a.parquet").warnings == ()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["", "  "], "expected labels, found none of 2 images with one"),
        (["cat", "dog", "cat "], "expected class names that differ in more than blanks, found 'cat' and 'cat '"),
        (["1", "-2", "0"], "expected labels >= 0, and -1 for none, found '-2'; mend these rows"),
    ],
)
def test_text_that_names_no_class_is_refused(tmp_path, labels, told):
    assert told in refused(write(tmp_path / "a.parquet", labels))


def test_a_name_that_several_classes_have_chooses_none(tmp_path):
    path = write(tmp_path / "a.parquet", [0, 1, 2], names=["crane", "crane", "cat"])
    with pytest.raises(RequestError, match="expected names of single classes, found 'crane', which several have"):
        opened(path, classes="crane,cat")


@pytest.mark.parametrize("path", ["/etc/hostname", "../secret.png", "link/secret.png", "/proc/self/environ"])
def test_paths_that_lead_out_of_the_folder_are_not_read(tmp_path, path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path)
    cells = [{"bytes": b"within", "path": None}, {"bytes": None, "path": path}]
    images = opened(write(tmp_path / "set" / "a.parquet", [0, 0], images=cells))
    with pytest.raises(DataError, match=r"expected a path in the folder of the table, found .*, which leads out of it"):
        images.reader.read(1)


def test_a_path_is_looked_for_beside_the_table(tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.png").write_bytes(b"beside")
    monkeypatch.chdir("/")
    cells = [{"bytes": b"within", "path": None}, {"bytes": None, "path": "pictures/0.png"}]
    assert read_all(opened(write(tmp_path / "a.parquet", [0, 0], images=cells))) == ["within", "beside"]


def test_pictures_packed_into_nothing_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("gcaudit.data.parquet_pages._LARGE_GROUP", 2**20)
    table = pa.table({"image": [bytes(2**20), b"1" * 2**20], "label": [0, 1]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert re.search(r"refused: [0-9]+ bytes of pictures claim to be 2[0-9]{6} when unpacked", refused(tmp_path / "a.parquet"))


SHARED_WRITER = """
import sys
import pyarrow as pa, pyarrow.parquet as pq
large, small = [b"x" * 2**20] * 1000, [b"x"] * 1000
images, labels = (large, ["x"] * 1000) if sys.argv[2] == "image" else (small, [text.decode() for text in large])
pq.write_table(pa.table({"image": pa.array(images, pa.large_binary()), "label": pa.array(labels, pa.large_string())}), sys.argv[1])
"""
SHARED_READER = """
import sys
import pyarrow as pa
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
try:
    images = open_data(DataRequest(sys.argv[1], "source"))
    print(len(images.reader.read(999)))
except Exception as error:
    print(error)
print(pa.default_memory_pool().max_memory())
"""


@pytest.mark.parametrize(
    ("column", "line"), [("image", "1048576"), ("label", "found text of 1048576 characters; name classes shortly")]
)
def test_one_value_that_many_rows_share_is_held_once(tmp_path, column, line):
    path = tmp_path / "a.parquet"
    finished([sys.executable, "-c", SHARED_WRITER, path, column])
    assert path.stat().st_size < 2**18
    said, memory = finished([sys.executable, "-c", SHARED_READER, path]).stdout.splitlines()
    assert said.endswith(line)
    assert int(memory) < 2**26


def test_pages_are_measured_by_their_own_headers(tmp_path):
    rng = np.random.default_rng(0)
    cells = [{"bytes": rng.bytes(5000), "path": None} for _ in range(500)]
    write(tmp_path / "a.parquet", [n % 7 for n in range(500)], images=cells)
    with OpenFile(tmp_path / "a.parquet") as file:
        (group,) = row_groups(file)
        assert group.rows == 500
        assert check_pages(file, {"image"}) == Parts((500,), ("image.bytes", "image.path"))
        meta = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0)
        for number, column in enumerate(group.columns):
            pages = list(_pages(file, column[3]))
            assert sum(large for _, large in pages) == pytest.approx(
                meta.column(number).total_uncompressed_size, abs=200 * len(pages)
            )
            assert sum(size for size, _ in pages) <= meta.column(number).total_compressed_size


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-4], lambda raw: raw[:-8] + b"\xff\xff\xff\x7fPAR1", lambda raw: raw[:-300] + bytes(292) + raw[-8:]]
)
def test_a_footer_that_is_damaged_is_told(tmp_path, damage):
    path = write(tmp_path / "a.parquet", [0, 1])
    path.write_bytes(damage(path.read_bytes()))
    assert "expected a readable parquet file, found " in refused(path)


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY", "PLAIN"])
def test_encodings_of_other_writers_are_read(tmp_path, encoding):
    table = pa.table({"image": [b"a", b"b", b"c"], "label": ["x", "y", "x"]})
    encodings = {"image": encoding, "label": encoding}
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, column_encoding=encodings, data_page_version="2.0")
    images = opened(tmp_path / "a.parquet")
    assert (read_all(images), images.class_names, images.labels.tolist()) == (["a", "b", "c"], ("x", "y"), [0, 1, 0])


def test_rows_that_take_no_bytes_are_refused(tmp_path):
    rows = 2 * 2**20
    labels, images = pa.array(np.zeros(rows, np.int8)), pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), [b"x"])
    pq.write_table(pa.table({"image": images.cast(pa.binary()), "label": labels}), tmp_path / "a.parquet")
    size = (tmp_path / "a.parquet").stat().st_size
    assert refused(tmp_path / "a.parquet") == (
        f"{tmp_path / 'a.parquet'}: refused: {size} bytes claim to be {rows} rows; write the file again"
    )


def test_a_file_that_is_written_again_later_is_told(tmp_path):
    images = opened(write(tmp_path / "a.parquet", [0, 1]))
    write(tmp_path / "a.parquet", [0, 1, 1])
    with pytest.raises(DataError, match=r"a\.parquet: expected the file as it was opened, found it changed; run it again"):
        images.reader.read(0)


def test_the_footer_is_read_once_however_many_row_groups_there_are(tmp_path, monkeypatch):
    images = opened(write(tmp_path / "a.parquet", list(range(40)), group=1))
    monkeypatch.setattr("gcaudit.data.parquet.check_pages", None)
    assert len(read_all(images)) == 40
