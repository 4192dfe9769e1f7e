"""Archives of class folders and WebDataset's shards: what is left out is told, and nothing in them leads anywhere."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from gcaudit.data import archives
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.errors import DataError


def png(number=0):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), number, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path, members, mode="w"):
    """Members are (name, bytes), or a TarInfo."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                entry = tarfile.TarInfo(member[0])
                entry.size = len(member[1])
                archive.addfile(entry, io.BytesIO(member[1]))
    return path


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def opened(path, **options):
    return open_data(DataRequest(str(path), "source", **options))


def refused(path, **options):
    with pytest.raises(DataError) as caught:
        opened(path, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def told(found):
    return [str(warning) for warning in found.warnings]


WRITE = {"tar": tar, "zip": zipped}
each = pytest.mark.parametrize("kind", WRITE)


@each
def test_what_is_left_out_is_told(kind, tmp_path):
    names = ("a/0.png", "a/deep/1.png", "b/2.png", "a/notes.txt", "3.png", ".hidden/4.png", "__MACOSX/a/._0.png", "b/.5.png")
    found = opened(WRITE[kind](tmp_path / f"x.{kind}", [(name, png(n)) for n, name in enumerate(names)]))
    assert (found.class_names, found.labels.tolist()) == (("a", "b"), [0, 0, 1])
    assert [found.reader.read(row) for row in range(3)] == [png(0), png(1), png(2)]
    assert told(found) == [
        "1 files in class folders that are no pictures were left out (a/notes.txt)",
        "1 pictures beside the class folders were left out (3.png)",
    ]
    assert found.where(1).endswith(f"x.{kind}, a/deep/1.png")


@each
def test_splits_have_to_be_named(kind, tmp_path):
    names = ("set/train/a/0.png", "set/train/b/1.png", "set/val/a/2.png", "set/val/b/3.png", "set/val/b/4.png")
    path = WRITE[kind](tmp_path / f"x.{kind}", [(name, png(n)) for n, name in enumerate(names)])
    assert f"{path}: expected class folders, found the splits train, val; name one with --source-split" in refused(path)
    assert opened(path, split="val").labels.tolist() == [0, 1, 1]
    assert "expected a folder for split 'test', found train, val" in refused(path, split="test")


def test_links_and_devices_are_left_out(tmp_path):
    link = tarfile.TarInfo("a/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo("a/device.png")
    device.type = tarfile.CHRTYPE
    found = opened(tar(tmp_path / "x.tar", [("a/0.png", png()), ("b/1.png", png(1)), link, device]))
    assert len(found.labels) == 2
    assert "2 links and other members that are no files were left out" in told(found)


def test_paths_lead_nowhere(tmp_path):
    found = opened(tar(tmp_path / "x.tar", [("../../a/0.png", png()), ("../../b/1.png", png(1))]))
    assert found.class_names == ("a", "b")
    assert not (tmp_path.parent / "a").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.zip", b"PK\x03\x04 no zip", "expected a readable archive, found File is not a zip file; fetch it again"),
        ("x.tar", b"no tar" * 200, "expected a readable archive, found"),
        ("x.tar.gz", b"\x1f\x8b no gzip", "expected a readable archive, found"),
        ("x.tar.gz", b"", "expected a readable archive, found empty file; fetch it again"),
    ],
)
def test_damaged_archives_are_told(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert f"{tmp_path / name}: {message}" in refused(tmp_path / name)


@pytest.mark.parametrize(
    "kind", ["within a picture", "between members", "within a header", "a header's byte", "another archive after it"]
)
def test_a_cut_or_damaged_archive_is_no_data_set(kind, tmp_path):
    path = tar(tmp_path / "x.tar", [(f"{'ab'[n % 2]}/{n}.png", png(n)) for n in range(20)])
    good = path.read_bytes()
    with tarfile.open(path) as archive:
        place = archive.getmembers()[8].offset
    damaged = bytearray(good)
    damaged[place + 150] ^= 1
    path.write_bytes(
        {
            "within a picture": good[: place + 600], "between members": good[:place], "within a header": good[: place + 100],
            "a header's byte": bytes(damaged), "another archive after it": good + good,
        }[kind]
    )  # fmt: skip
    assert "expected a readable archive, found" in refused(path)


def test_a_header_that_leads_back_is_refused(tmp_path):
    path = tar(tmp_path / "x.tar", [("a/0.png", png()), ("b/1.png", png(1))])
    content = bytearray(path.read_bytes())
    content[124:136] = b"\xff" * 10 + b"\xfe\x00"  # a size of -512 in base 256
    content[148:156] = b" " * 8
    content[148:156] = f"{sum(content[:512]):06o}\0 ".encode()
    path.write_bytes(bytes(content))
    assert "found a header that cannot be true" in refused(path)


def test_a_readme_beside_class_folders_makes_no_class(tmp_path):
    found = opened(tar(tmp_path / "x.tar", [("top/README.txt", b""), ("top/cat/0.png", png()), ("top/dog/1.png", png(1))]))
    assert found.class_names == ("cat", "dog")


def test_shards_of_several_splits_have_to_be_named(tmp_path):
    for split in ("train", "val"):
        tar(tmp_path / f"{split}-0.tar", sample("0", split.encode()))
    assert "expected files of one split, found the splits train, val; name one with --source-split" in refused(tmp_path)
    assert opened(tmp_path, split="val").class_names == ("val",)


def test_a_caption_or_a_mask_stands_for_nothing_else(tmp_path):
    members = [
        ("0.jpg", png()),
        ("0.txt", b"a dog"),
        ("0.mask.png", png(9)),
        *(part for n in "123" for part in ((f"{n}.jpg", png(int(n))), (f"{n}.txt", b"x"), (f"{n}.cls", n.encode()))),
    ]
    members += [("4.mask.png", png(9)), ("4.cls", b"3")]
    found = opened(tar(tmp_path / "x.tar", members))
    assert (found.class_names, [found.reader.read(row) for row in range(3)]) == (("1", "2", "3"), [png(1), png(2), png(3)])
    assert "2 samples without a picture or without a label were left out (0, 4)" in told(found)


def test_a_file_of_facts_makes_no_samples_of_class_folders(tmp_path):
    found = opened(
        tar(
            tmp_path / "x.tar",
            [("a/0.png", png()), ("a/0.json", b"{}"), ("b/1.png", png(1)), ("b/2.png", png(2)), ("info.json", b"{}")],
        )
    )
    assert found.class_names == ("a", "b")
    assert len(found.labels) == 3


def test_links_in_a_zip_are_left_out(tmp_path):
    path = zipped(tmp_path / "x.zip", [("a/0.png", png()), ("b/1.png", png(1))])
    link = zipfile.ZipInfo("a/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert told(opened(path)) == ["1 links and other members that are no files were left out"]


def test_what_swells_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_LEAST_BOMB", 2**16)
    tar(tmp_path / "x.tar.gz", [("a/0.png", bytes(2**24))], "w:gz")
    assert "found more than 100 times its size when it is unpacked" in refused(tmp_path / "x.tar.gz")


def test_a_password_is_told(tmp_path):
    path = zipped(tmp_path / "x.zip", [("a/0.png", png())])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "expected an archive without a password, found one with; unpack it, and name the folder" in refused(path)


@each
def test_a_file_that_changes_is_told(kind, tmp_path):
    path = WRITE[kind](tmp_path / f"x.{kind}", [("a/0.png", png()), ("b/1.png", png(1))])
    found = opened(path)
    WRITE[kind](path, [("a/0.png", png(7)), ("b/1.png", png(8)), ("c/2.png", png(9))])
    with pytest.raises(DataError, match="expected the file as it was opened, found it changed; run it again"):
        found.reader.read(0)


def test_archives_of_neither_kind(tmp_path):
    assert "expected one folder a class with pictures in it, or samples of WebDataset, found files of txt" in refused(
        tar(tmp_path / "x.tar", [("a/0.txt", b"")])
    )
    assert "found files of no kind" in refused(zipped(tmp_path / "x.zip", []))


def sample(key, label=b"1", image="png", part="cls"):
    return [(f"{key}.{image}", png()), (f"{key}.{part}", label)]


def test_labels_of_samples(tmp_path):
    path = tar(tmp_path / "x.tar", [*sample("0", b"3"), *sample("1", b" 7\n"), *sample("2", b"3")])
    found = opened(path)
    assert (found.class_names, found.labels.tolist(), found.columns) == (("3", "7"), [0, 1, 0], ("png", "cls"))
    rows = [json.dumps({"species": "cat", "id": n}).encode() for n in range(2)]
    path = tar(tmp_path / "y.tar", [part for n, row in enumerate(rows) for part in sample(str(n), row, part="json")])
    assert "name it with --label-key" in refused(path)
    assert opened(path, label_key="species").class_names == ("cat",)


def test_samples_with_several_pictures(tmp_path):
    members = [("0.png", png(0)), ("0.seg.png", png(9)), ("0.cls", b"0"), ("1.png", png(1)), ("1.seg.png", png(9)), ("1.cls", b"1")]
    path = tar(tmp_path / "x.tar", members)
    assert told(opened(path)) == ["the column 'png' was taken, of 2 that it might be (png, seg.png)"]
    other = opened(path, image_key="seg.png")
    assert (other.reader.read(0), other.warnings) == (png(9), ())


def test_samples_that_lack_a_part_are_counted(tmp_path):
    members = [*sample("0"), ("1.png", png()), ("2.cls", b"1"), *sample("3")]
    assert told(opened(tar(tmp_path / "x.tar", members))) == ["2 samples without a picture or without a label were left out (1, 2)"]
    assert "expected samples of a picture and a label" in refused(tar(tmp_path / "y.tar", [("0.cls", b"1"), ("1.cls", b"1")]))


def test_labels_that_cannot_be_read(tmp_path):
    assert "expected a label, found what cannot be read (UnicodeDecodeError); mend it" in refused(
        tar(tmp_path / "a.tar", sample("0", b"\xff\xfe"))
    )
    assert "found what cannot be read (JSONDecodeError)" in refused(tar(tmp_path / "b.tar", sample("0", b"{", part="json")))
    assert "expected a label, found 2000000 bytes" in refused(tar(tmp_path / "c.tar", sample("0", b"1" * 2_000_000)))


def test_ranges_of_shards(tmp_path):
    for number in (0, 1, 3):
        tar(tmp_path / f"{number:02}.tar", sample(str(number), str(number).encode()))
    assert opened(tmp_path / "{00..01}.tar").class_names == ("0", "1")
    assert "expected 4 files, found no" in refused(tmp_path / "{00..03}.tar")
    assert "expected a range of up to 100000 files" in refused(tmp_path / "{0..999999}.tar")
    assert len(opened(tmp_path).labels) == 3
    (tmp_path / "sets" / "train").mkdir(parents=True)
    tar(tmp_path / "sets" / "train" / "0.tar", sample("9", b"4"))
    assert opened(tmp_path / "sets", split="train").class_names == ("4",)


def test_names_of_classes_lie_beside_shards(tmp_path):
    tar(tmp_path / "0.tar", [*sample("0", b"0"), *sample("1", b"1")])
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    found = opened(tmp_path / "0.tar")
    assert (found.class_names, told(found)) == (("cat", "dog"), [f"names of classes are those of {tmp_path / 'classnames.txt'}"])
    (tmp_path / "classnames.txt").write_text("cat\n\ndog\n")
    assert "expected the name of a class in each line, found an empty one" in refused(tmp_path / "0.tar")
    (tmp_path / "classnames.txt").write_bytes(b"\xff")
    assert "cannot be read, and classes have numbers for names" in told(opened(tmp_path / "0.tar"))[0]
    (tmp_path / "classnames.txt").write_text("cat\n")
    assert "expected labels below the 1 class names, found 1" in refused(tmp_path / "0.tar")


def test_class_folders_go_before_archives_beside_them(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").write_bytes(png())
    tar(tmp_path / "download.tar", sample("0"))
    found = opened(tmp_path)
    assert found.class_names == ("cat",)
    assert told(found) == ["1 archives beside the class folders were left out (download.tar)"]


@each
def test_splits_that_differ_are_numbered_as_the_folder_of_training(kind, tmp_path):
    names = ("train/a/0.png", "train/b/1.png", "train/c/2.png", "val/a/3.png", "val/c/4.png")
    found = opened(WRITE[kind](tmp_path / f"x.{kind}", [(name, png(n)) for n, name in enumerate(names)]), split="val")
    assert (found.class_names, found.class_numbers, found.total_classes) == (("a", "c"), (0, 2), 3)
    assert "1 classes of the folder of training have no folder in this split (b)" in told(found)[0]


@each
def test_pictures_without_a_suffix_are_told_by_their_content(kind, tmp_path):
    found = opened(WRITE[kind](tmp_path / f"x.{kind}", [("a/0", png()), ("a/README", b"no picture"), ("b/1", png(1))]))
    assert found.labels.tolist() == [0, 1]
    assert told(found) == ["1 files in class folders that are no pictures were left out (a/README)"]


def test_a_first_sample_without_a_label_is_one_of_those_left_out(tmp_path):
    found = opened(tar(tmp_path / "x.tar", [("0.png", png()), *sample("1"), *sample("2", b"3")]))
    assert found.class_names == ("1", "3")
    assert told(found) == ["1 samples without a picture or without a label were left out (0)"]
    assert "found parts cls, png; name them with --image-key and --label-key" in refused(tmp_path / "x.tar", label_key="species")


def test_a_member_that_comes_again_is_the_last(tmp_path):
    found = opened(tar(tmp_path / "x.tar", [("a/0.png", png()), ("b/1.png", png(1)), ("a/0.png", png(5))]))
    assert [found.reader.read(row) for row in range(2)] == [png(5), png(1)]
    assert told(found) == ["1 members that come again later in their archive were left out, as unpacking would"]
