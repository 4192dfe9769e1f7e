import shutil

import numpy as np
import pytest
from cases import TinyNet
from PIL import Image

import gcaudit
from gcaudit.data.duplicates import without_duplicates
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.errors import DataError


def pictures(folder, seed, count=6):
    rng = np.random.default_rng(seed)
    for name in "abc":
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")
    return folder


def test_repeated_images_are_left_out_and_told(tmp_path):
    root = pictures(tmp_path / "photos", 0)
    shutil.copy(root / "a" / "0.png", root / "a" / "again.png")
    shutil.copy(root / "a" / "1.png", root / "c" / "other.png")
    assert open_data(DataRequest(root, "source")).counts.tolist() == [7, 6, 7]
    found = open_data(DataRequest(root, "source", drop_duplicates=True))
    assert found.counts.tolist() == [6, 6, 6]
    (warning,) = found.warnings
    assert (warning.kind, warning.count) == ("left-out", 2)
    assert "2 images that are there more than once were left out" in str(warning)
    assert str(root / "a" / "again.png") in warning.first[0]


def test_images_of_the_source_are_left_out_of_the_target(tmp_path):
    source, target = pictures(tmp_path / "source", 0), pictures(tmp_path / "target", 1)
    for number in range(2):
        shutil.copy(source / "b" / f"{number}.png", target / "c" / f"leak{number}.png")
    options = {"n_way": 2, "n_shot": 1, "n_query": 2, "episodes": 10}
    report = gcaudit.score(TinyNet(), source, target, **options)
    assert report.target.images == 20
    assert any(warning.kind == "shared" and "2 images" in str(warning) for warning in report.warnings)
    dropped = gcaudit.score(TinyNet(), source, target, drop_duplicates=True, **options)
    assert (dropped.source.images, dropped.target.images) == (18, 18)
    assert dropped.settings["drop_duplicates"] is True
    assert [str(warning) for warning in dropped.warnings if "source has too" in str(warning)]
    assert not any(warning.kind == "shared" and "images" in str(warning) for warning in dropped.warnings)


def test_a_class_of_duplicates_alone_is_an_error(tmp_path):
    root = pictures(tmp_path / "photos", 0)
    shutil.rmtree(root / "c")
    shutil.copytree(root / "a", root / "c")
    with pytest.raises(DataError, match=r"images of every class that are there once, found none of c; leave the classes"):
        open_data(DataRequest(root, "source", drop_duplicates=True))


def test_a_picture_that_cannot_be_read_is_left_to_the_pass(tmp_path):
    root = pictures(tmp_path / "photos", 0)
    images = open_data(DataRequest(root, "source"))
    (root / "a" / "0.png").unlink()
    (root / "a" / "1.png").unlink()
    assert without_duplicates(images).counts.tolist() == [6, 6, 6]
