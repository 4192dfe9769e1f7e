"""Images that source and target share are told, however they are encoded."""

import numpy as np
from cases import TinyNet
from PIL import Image

import gcaudit


def folder(root, per_class=8, **how):
    """Class folders of smooth pictures, the same whatever the format."""
    for number in range(3 * per_class):
        label = f"{root.name} {number % 3}"
        coarse = np.random.default_rng(number).integers(0, 256, (7, 7, 3), dtype=np.uint8)
        place = root / label / f"{number:03}.{how['format'].lower()}"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(place, **how)
    return root


def shared(source, target, **options):
    report = gcaudit.score(TinyNet(), str(source), str(target), metrics=("cdnv",), gc_images=1, **options)
    return [warning for warning in report.warnings if warning.kind == "shared"]


def test_the_same_pictures_in_another_format(tmp_path):
    source, target = folder(tmp_path / "a", format="PNG"), folder(tmp_path / "b", format="JPEG", quality=75)
    (warning,) = shared(source, target)
    assert warning.count == 24
    assert warning.first == tuple(str(target / "b 0" / f"{number:03}.jpeg") for number in (0, 3, 6))
    assert "24 images of the target look like images of the source" in warning.message


def test_equal_files_are_counted_once(tmp_path):
    source, target = folder(tmp_path / "a", format="PNG"), folder(tmp_path / "b", format="PNG")
    (warning,) = shared(source, target)
    assert (warning.count, "share 24 images" in warning.message) == (24, True)


def test_no_names_where_images_were_left_out(tmp_path):
    source, target = folder(tmp_path / "a", format="PNG"), folder(tmp_path / "b", format="JPEG", quality=75)
    (target / "b 0" / "000.jpeg").write_bytes(b"\xff\xd8\xff no picture")
    (warning,) = shared(source, target, skip_bad_images=True)
    assert (warning.count, warning.first) == (23, ())
