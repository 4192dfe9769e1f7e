"""Files are opened without waiting, read once, and told from those of another moment."""

import hashlib
import os

import pytest

from gcaudit.files.opening import OpenFile, UnfitFileError


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnfitFileError, match="a FIFO in place of a regular file"):
        OpenFile(tmp_path / "pipe")


@pytest.mark.parametrize(("make", "what"), [(lambda p: p.mkdir(), "a folder"), (lambda p: p.symlink_to("/dev/zero"), "a device")])
def test_other_things_are_no_files(tmp_path, make, what):
    make(tmp_path / "thing")
    with pytest.raises(UnfitFileError, match=f"{what} in place of a regular file"):
        OpenFile(tmp_path / "thing")


@pytest.mark.parametrize("places", [[], [(0, 5)], [(3, 4), (7, 0), (7, 90)], [(99, 1)], [(0, 100)]])
def test_parts_and_digest_come_of_the_same_bytes(tmp_path, places, monkeypatch):
    monkeypatch.setattr("gcaudit.files.opening._PIECE", 7)
    content = bytes(range(100))
    (tmp_path / "f").write_bytes(content)
    parts = [(start, bytearray(size)) for start, size in places]
    with OpenFile(tmp_path / "f") as file:
        digest = file.read_spans([(start, memoryview(part)) for start, part in parts])()
    assert digest == hashlib.sha256(content).hexdigest()
    assert [bytes(part) for _, part in parts] == [content[start : start + size] for start, size in places]


@pytest.mark.parametrize(
    "change", [lambda p: p.write_bytes(b"y" * 100), lambda p: os.truncate(p, 40), lambda p: p.write_bytes(b"x" * 101)]
)
def test_a_file_that_changes_is_told(tmp_path, change):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    with OpenFile(path) as file:
        os.utime(path, ns=(0, 0))
        change(path)
        with pytest.raises(UnfitFileError, match="a file that changed while it was read"):
            file.read_spans([(0, memoryview(bytearray(50)))])


def test_a_file_that_is_replaced_is_read_as_it_was(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    with OpenFile(path) as file:
        path.unlink()
        path.write_bytes(b"y" * 100)
        part = bytearray(3)
        assert file.read_spans([(0, memoryview(part))])() == hashlib.sha256(b"x" * 100).hexdigest()
    assert part == b"xxx"
