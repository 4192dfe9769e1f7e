"""Tables of paths and labels, class maps, and what a data set is without a model."""

import base64
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gcaudit.audit.run import look_at_data
from gcaudit.data.fingerprint import content_key
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.errors import DataError, RequestError


def png(number=0):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), number, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def place(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    return tmp_path


def table(place, text, name="t.csv"):
    (place / name).write_text(text)
    return place / name


def opened(path, **options):
    return open_data(DataRequest(str(path), "source", **options))


def refused(path, **options):
    with pytest.raises((DataError, RequestError)) as caught:
        opened(path, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def told(found):
    return [str(warning) for warning in found.warnings]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "path,label\n0.png,b\n1.png,a\n"),
        ("t.csv", "\ufefflabel,path\nb,0.png\na,1.png\n"),
        ("t.csv", "path;label\n0.png;b\n1.png;a\n"),
        ("t.csv", 'path,label,note\n0.png,b,"x, y"\n1.png,a,z\n'),
        ("t.tsv", "path\tlabel\n0.png\tb\n1.png\ta\n"),
        ("t.tsv", "path,label\n0.png,b\n1.png,a\n"),
        ("t.csv", "path\tlabel\n0.png\tb\n1.png\ta\n"),
        ("t.jsonl", '{"path": "0.png", "label": "b"}\n\n{"path": "1.png", "label": "a"}\n'),
        ("t.ndjson", '{"file_name": "./0.png", "label": "b"}\n{"file_name": "1.png", "label": "a"}\n'),
    ],
)
def test_forms(place, name, text):
    found = opened(table(place, text, name))
    assert (found.labels.tolist(), found.class_names) == ([1, 0], ("a", "b"))
    assert found.reader.read(1) == png(1)
    assert found.where(0).endswith(f"{name}, row 1")
    assert found.warnings == ()


def test_numbers_are_in_the_order_of_numbers(place):
    found = opened(table(place, "path,label\n0.png,10\n1.png,2\n2.png,\n3.png,2\n"))
    assert (found.class_names, found.labels.tolist()) == (("2", "10"), [1, 0, 0])
    assert told(found) == ["1 images without a label were left out"]


def test_a_table_without_a_header(place):
    found = opened(table(place, "0.png,b\n1.png,a\n2.png,a\n"))
    assert (found.columns, found.labels.tolist()) == (("0", "1"), [1, 0, 0])
    assert "the first row names a picture: the table was read without a header, its columns numbered from 0" in told(found)


def test_a_column_of_splits_is_followed(place):
    path = table(place, "path,label,split\n0.png,a,train\n1.png,b,train\n2.png,a,test\n3.png,b,test\n")
    assert [opened(path, split=split).where(0)[-1] for split in ("train", "test")] == ["1", "3"]
    assert "expected rows of split 'val' in the column 'split', found test, train" in refused(path, split="val")
    assert told(opened(path)) == ["a column names several splits (test, train), and rows of all were taken together"]
    plain = table(place, "path,label\n0.png,a\n1.png,b\n", "p.csv")
    assert "expected a column of splits named split, subset, fold, partition, found path, label; leave the split out" in refused(
        plain, split="val"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a table, found an empty file"),
        ("path,label\n", "expected rows, found a header alone"),
        ("path,label\n0.png\n", "row 1: expected 2 cells, found 1; mend the row"),
        ("path,path\n0.png,1.png\n", "expected columns of different names, found path, path"),
        (
            "a,b\nx,y\nz,w\n",
            "expected a column of images named image, img, images, picture and 10 more, found a, b; name it with --image-key",
        ),
        (
            "path,x,y\n0.png,a,c\n1.png,a,c\n",
            "expected a column of labels named label, labels, fine_label, target and 4 more, found x, y; name it with --label-key",
        ),
        ("path,label\n,a\n1.png,b\n", "expected a path in every row of the column 'path', found 1 of 2 without"),
        ("path,label\nx/0.png,a\nx/1.png,b\n", "so do the first 2 rows: paths are taken from the table's folder"),
        (
            "path,label\n../../etc/0.png,a\n",
            "found ../../etc/0.png, which leads out of it; copy the pictures there, or pass --follow-links",
        ),
    ],
)
def test_tables_that_do_not_fit(place, text, message):
    assert message in refused(table(place, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]\n", "line 1: expected a JSON object, found a list"),
        ('{"a": 1}\n{"b\n', "line 2: expected a JSON object, found what is none"),
    ],
)
def test_lines_that_are_no_objects(place, text, message):
    assert message in refused(table(place, text, "t.jsonl"))


def test_text_of_other_encodings(place):
    (place / "t.csv").write_bytes("path,label\n0.png,été\n".encode("latin-1"))
    assert "expected text in UTF-8, found bytes that are none at 17; save it again as UTF-8" in refused(place / "t.csv")


def test_links_out_of_the_folder(place, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "0.png").write_bytes(png(9))
    path = table(place, f"path,label\n{other / '0.png'},a\n{other / '0.png'},b\n")
    assert "which leads out of it" in refused(path)
    found = opened(path, follow_links=True)
    assert found.reader.read(0) == png(9)
    assert f"2 pictures outside of the folder were read ({other / '0.png'}, {other / '0.png'})" in told(found)
    pq.write_table(pa.table({"image": [str(other / "0.png")] * 2, "label": ["a", "b"]}), place / "a.parquet")
    assert "which leads out of it" in refused(place / "a.parquet")
    assert opened(place / "a.parquet", follow_links=True).reader.read(1) == png(9)


def test_the_metadata_of_an_image_folder(place):
    table(place, "file_name,kind\n0.png,b\n1.png,a\n2.png,a\n", "metadata.csv")
    assert opened(place).columns == ("file_name", "kind")
    (place / "a").mkdir()
    (place / "a" / "0.png").write_bytes(png())
    table(place, "file_name,width\n0.png,12\n1.png,12\n", "metadata.csv")
    assert opened(place).class_names == ("a",)  # a width is no class where there are folders
    table(place, "file_name,label\n0.png,x\n1.png,y\n", "metadata.csv")
    found = opened(place)
    assert (found.class_names, told(found)) == (("x", "y"), ["classes are those of metadata.csv, not the folders beside it"])


def test_cells_of_parquet(place):
    def write(cells):
        pq.write_table(pa.table({"image": cells, "label": ["a", "b"]}), place / "a.parquet")
        return place / "a.parquet"

    assert opened(write(["0.png", "1.png"])).reader.read(1) == png(1)
    text = base64.b64encode(png(5)).decode()
    assert opened(write([text, f"data:image/png;base64,{text}"])).reader.read(1) == png(5)
    rows = opened(write(np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3).tolist())).reader.read(1)
    assert (rows.shape, rows.dtype, int(rows[0, 0, 0])) == ((4, 6, 3), np.uint8, 72)
    assert "row 0: expected image bytes, found none and at x/0.png: No such file" in refused(write(["x/0.png", "x/1.png"]))
    assert "found a list of 12 numbers, whose height and width are not known; keep encoded images" in refused(write([[0] * 12] * 2))
    assert "expected a picture, found a list of shape (2, 2) and float64" in refused(write([[[0.5, 0.5]] * 2] * 2))
    assert "expected numbers from 0 to 255, found 0 to 300; convert them first" in refused(write([[[0, 300]] * 2] * 2))
    assert "expected a picture of (height, width, channels), found shape (3, 8, 8); transpose it first" in refused(
        write([np.zeros((3, 8, 8), int).tolist()] * 2)
    )
    assert "(bytes, a dict with bytes, paths or base64), found int64; name another with --image-key" in refused(write([1, 2]))


def test_a_class_map_makes_coarse_labels(place):
    path = table(place, "path,label\n0.png,oak\n1.png,trout\n2.png,ash\n3.png,cod\n")
    mapped = table(place, "fine,coarse\noak,tree\nash,tree\ntrout,fish\ncod,\npike,fish\n", "map.csv")
    found = opened(path, class_map=str(mapped))
    assert (found.class_names, found.labels.tolist()) == (("fish", "tree"), [1, 0, 1])
    assert told(found)[0].startswith(f"3 classes were made 2 by {mapped} (ash -> tree, oak -> tree, trout -> fish)")
    assert told(found)[1:] == [f"1 classes were left out by {mapped} (cod)", f"1 rows of {mapped} name no class of the data (pike)"]
    for text, message in (
        ("oak,tree\n", "expected a row for each class of"),
        ("lion,cat\n", "and rows for lion, which it does not have; an empty name leaves a class out"),
        ("oak\n", "expected two cells a row, a class and what it becomes, found 1 in row 1"),
        ("", "found an empty file"),
        ("oak,tree\noak,fish\n", "expected one name for 'oak', found 'tree' and 'fish'"),
    ):
        assert message in refused(path, class_map=str(table(place, text, "map.csv")))
    assert "expected a class map at" in refused(path, class_map=str(place / "none.csv"))


def test_an_overview_says_what_there_is_and_what_to_type(place, run):
    (place / "4.png").write_bytes(b"no picture")
    path = table(place, "photo,kind,split\n0.png,a,train\n1.png,b,train\n4.png,b,train\n3.png,b,test\n")
    found = look_at_data(str(path), source_split="train", image_key="photo", label_key="kind")
    assert (found.images, found.classes, found.columns) == (3, (("a", 1), ("b", 2)), ("photo", "kind"))
    assert (found.formats, found.modes, found.sizes) == ((("PNG", 2),), (("RGB", 2),), ("6x4",))
    assert found.failures[0] == 1
    assert found.first[0] == (f"{path}, row 1", "a", "6x4 PNG")
    assert found.options == f"--source {path} --source-split train --image-key photo --label-key kind --skip-bad-images"
    assert "these bytes are no picture" in found.failures[1]
    code, output, _ = run("datasets", str(path), "--source-split", "train", "--image-key", "photo", "--label-key", "kind")
    assert code == 0
    for text in (
        "3 in 2 classes, 1 to 2 a class",
        "images photo, labels kind",
        "2 PNG; 2 RGB; 6x4",
        "1, the first: ",
        found.options,
    ):
        assert text in " ".join(output.split())
    _, output, _ = run(
        "datasets", str(path), "--source-split", "train", "--image-key", "photo", "--label-key", "kind", "-f", "json"
    )
    content = json.loads(output)
    assert (content["images"], content["classes"], content["formats"]) == (3, {"a": 1, "b": 2}, {"PNG": 2})


def test_an_overview_of_nothing_is_refused(run, place):
    assert run("datasets", "--image-key", "x") == (
        2,
        "",
        "gcaudit: error: expected a data set with --image-key, found none; name one\n",
    )
    assert run("datasets", str(place / "none"))[0] == 2
    assert run("datasets")[0] == 0


def test_other_columns_that_may_be_the_labels_are_told(place):
    for number in range(4):
        (place / f"{number}.png").write_bytes(png(number))
    path = table(place, "path,label,coarse_label\n0.png,a,x\n1.png,b,x\n2.png,a,y\n3.png,b,y\n")
    line = "the column 'label' was taken, of 2 that it might be (label, coarse_label)"
    assert told(opened(path)) == [line]
    rows = {"image": [png(n) for n in range(4)], "label": [0, 1, 0, 1], "coarse_label": [0, 0, 1, 1]}
    pq.write_table(pa.table(rows), place / "a.parquet")
    assert told(opened(place / "a.parquet")) == [line]
    assert told(opened(place / "a.parquet", label_key="coarse_label")) == []


def test_streaming_what_is_on_disk_is_told(place):
    path = table(place, "path,label\n0.png,a\n1.png,b\n")
    assert told(opened(path, streaming=True)) == [f"--streaming is for hf:ID; {path} is read in place"]


def test_a_class_map_with_other_names_keeps_the_order_of_a_head(place):
    path = table(place, "path,label\n0.png,0\n1.png,1\n2.png,3\n3.png,3\n")
    mapped = table(place, "0,zebra\n1,ant\n2,cat\n3,bee\n", "map.csv")
    assert opened(path, class_map=str(mapped)).class_names == ("zebra", "ant", "bee")
    partial = table(place, "0,zebra\n1,ant\n3,ant\n", "map.csv")  # no image is of class 2
    assert opened(path, class_map=str(partial)).class_names == ("ant", "zebra")


def test_a_column_that_says_so_goes_before_one_that_fits(place):
    rows = {"image": [png(n) for n in range(4)], "label": [0.0, 1.0, None, 1.0], "width": [12, 12, 13, 13]}
    pq.write_table(pa.table(rows), place / "a.parquet")
    found = opened(place / "a.parquet")
    assert (found.columns, found.labels.tolist()) == (("image", "label"), [0, 1, 1])


def test_labels_that_only_look_like_numbers_stay_text(place):
    path = table(place, "path,label\n0.png,01\n1.png,1\n2.png,1\n3.png,01\n")
    assert opened(path).class_names == ("01", "1")
    path = table(place, f"path,label\n0.png,{'9' * 5000}\n1.png,a{'9' * 5000}\n")
    assert len(opened(path).class_names) == 2


def test_objects_of_endless_names_are_refused(place):
    lines = "\n".join(json.dumps({f"k{n}": 1, "path": "0.png", "label": "a"}) for n in range(1100))
    assert "expected up to 1000 names in its objects, found 1102; keep the same names in each line" in refused(
        table(place, lines, "t.jsonl")
    )


def test_how_pictures_are_turned_is_part_of_a_data_set(place):
    (place / "a").mkdir()
    for number in range(2):
        (place / "a" / f"{number}.png").write_bytes(png(number))
    path = table(place / "a", "path,label\n0.png,a\n1.png,a\n")
    keys = [content_key(opened(spec)) for spec in (place, path)]
    assert keys[0][1] == keys[1][1]
    assert keys[0][0] != keys[1][0]
