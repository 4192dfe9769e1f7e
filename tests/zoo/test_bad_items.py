"""One bad item fails its own cell with a line, and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from processes import finished

SMALL = ("--metrics", "cdnv", "--workers", "0", "--batch-size", "16")


def photos(root, size=(8, 8)):
    for number in range(6):
        place = root / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (40 * number, 0, 0)).save(place)
    return root


def dangling(tmp_path):
    root = photos(tmp_path / "dangling")
    (root / "a" / "lost.png").symlink_to("nowhere.png")
    return root, "lost.png"


def no_picture(tmp_path):
    root = photos(tmp_path / "text")
    (root / "a" / "text.png").write_text("no picture")
    return root, "these bytes are no picture"


def ragged(tmp_path):
    pq.write_table(pa.table({"image": [[1, 2], [3]], "label": [0, 1]}), tmp_path / "ragged.parquet")
    return tmp_path / "ragged.parquet", "ragged.parquet"


def surrogate(tmp_path):
    root = photos(tmp_path / "named")
    (root / "a").rename(Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")))
    return root, None  # it is escaped and told


def long_name(tmp_path):
    return "x" * 300, "File name too long"


def fifo(tmp_path):
    root = photos(tmp_path / "piped")
    os.mkfifo(root / "a" / "pipe.png")
    return root, "pipe.png: a FIFO in place of a regular file"


def closed(tmp_path):
    root = photos(tmp_path / "closed")
    (root / "a" / "0.png").unlink()
    (root / "a" / "0.png").symlink_to("0.png")
    return root, "0.png"


@pytest.mark.parametrize("make", [dangling, no_picture, ragged, surrogate, long_name, fifo, closed])
def test_one_bad_data_set_fails_its_cells_alone(run, tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    bad, reason = make(tmp_path)
    code, out, err = run("compare", "demo", "-s", photos(tmp_path / "good"), "-s", bad, "-f", "json", *SMALL)
    found = json.loads(out)
    assert "internal error" not in out + err
    assert [len(table["rows"]) for table in found["tables"]] == [1] * (1 if reason else 2)
    assert code == (3 if reason else 0)
    if reason:
        (failed,) = found["failed"]
        assert reason in failed["reason"]
        assert failed["reason"].isprintable()


NAMES = [b"\xff\xfe.pt", b"a\n::error::b.pt", b"x" * 300 + b".pt", b"\x1b[31m.pt"]


@pytest.mark.parametrize("name", NAMES)
def test_one_bad_model_fails_its_cells_alone(tmp_path, name):
    photos(tmp_path / "good")
    if len(name) < 256:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).write_bytes(b"no checkpoint")
    command = [sys.executable, "-m", "gcaudit", "compare", "demo", name, "-s", "good", "-f", "json", *SMALL]
    done = finished(command, cwd=tmp_path, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    assert done.returncode == 3
    assert "internal error" not in done.stdout + done.stderr
    assert [row["model"] for table in found["tables"] for row in table["rows"]] == ["demo"]
    (failed,) = found["failed"]
    assert failed["reason"].isprintable()
    assert failed["model"].isprintable()
    assert not any(line.startswith("::") for line in done.stderr.splitlines())
    listed = finished([sys.executable, "-m", "gcaudit", "results"], cwd=tmp_path)
    assert listed.returncode == 0
    assert sum(failed["model"][:20] in line for line in listed.stdout.splitlines()) == 1
    assert max(map(len, listed.stdout.splitlines())) < 1000
