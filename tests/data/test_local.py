import json
import os

import pytest
from PIL import Image

from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.errors import DataError

pytestmark = pytest.mark.usefixtures("no_hub")


@pytest.fixture
def folder(tmp_path):
    """A data set as people have it: class folders under a folder named after the split, and a card."""
    root = tmp_path / "photos"
    for number in range(4):
        place = root / "train" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(place)
    return root


def card(folder, matter):
    (folder / "README.md").write_text(f"---\n{matter}\n---\n\n# Photos\n", encoding="utf-8")


def refused(spec):
    with pytest.raises(DataError) as caught:
        open_data(DataRequest(spec, "source"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_card_that_names_what_is_there_is_followed(folder):
    card(folder, "license: mit\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train/**")
    assert open_data(DataRequest(f"hf:{folder}", "source")).counts.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("https://example.com/a.parquet", "names https://example.com/a.parquet, which is not in the folder"),
        ("hf://datasets/a/b/c.parquet", "names hf://datasets/a/b/c.parquet, which is not in the folder"),
        ("zip://a.png::https://example.com/a.zip", "which is not in the folder"),
        ("../private/**", "names ../private/**, which is outside of the folder"),
        ("/etc/**", "names /etc/**, which is outside of the folder"),
        ("train/../../private/*", "which is outside of the folder"),
    ],
)
@pytest.mark.parametrize(
    "matter",
    [
        "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: '{}'",
        "configs:\n- config_name: default\n  data_files: '{}'",
        "configs:\n- config_name: default\n  data_files:\n    train: ['train/**', '{}']",
        "configs:\n- config_name: default\n  data_dir: '{}'",
    ],
)
def test_a_card_that_leads_elsewhere_is_refused(folder, matter, place, reason):
    card(folder, matter.format(place))
    message = refused(f"hf:{folder}")
    assert message.startswith(f"hf:{folder}: refused: {folder / 'README.md'} names ")
    assert reason in message


@pytest.mark.parametrize("start", ["\n", "\r\n  ", ""])
def test_a_card_is_one_wherever_the_library_takes_it_for_one(folder, start):
    matter = "configs:\n- config_name: one\n  data_files: https://example.com/a.parquet"
    (folder / "README.md").write_text(f"{start}---\n{matter}\n---\n", encoding="utf-8", newline="")
    for spec in (f"hf:{folder}", f"hf:{folder}:one"):
        assert "names https://example.com/a.parquet, which is not in the folder" in refused(spec)
    (folder / "README.md").rename(folder / ".huggingface.yaml")
    (folder / ".huggingface.yaml").write_text(matter, encoding="utf-8")
    assert "names https://example.com/a.parquet, which is not in the folder" in refused(f"hf:{folder}")


@pytest.mark.parametrize("matter", ["a: &a [x, x]\nb: [*a, *a]", "a: !!python/object:os.system {}", "a: [", "a: " + "[" * 5000])
def test_a_card_that_is_no_plain_yaml_is_refused(folder, matter):
    card(folder, matter)
    assert f"hf:{folder}: expected plain YAML in {folder / 'README.md'}: " in refused(f"hf:{folder}")


@pytest.mark.parametrize("kind", ["hf", "disk"])
def test_what_is_no_file_is_refused_and_not_waited_for(folder, kind):
    os.mkfifo(folder / "train" / "a" / "pipe.png")
    place = folder / "train" / "a" / "pipe.png"
    assert refused(f"{kind}:{folder}") == f"{kind}:{folder}: expected regular files, found {place}, which is none; remove it"


@pytest.mark.parametrize("kind", ["hf", "disk"])
def test_a_link_that_leads_nowhere_is_told(folder, kind):
    (folder / "train" / "x.arrow").symlink_to(folder / "lost")
    assert "x.arrow: No such file or directory; remove it" in refused(f"{kind}:{folder}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", {"_data_files": [{"filename": "../../private/data.arrow"}]}),
        ("state.json", {"_data_files": [{"filename": "/private/data.arrow"}]}),
        ("state.json", {"_data_files": [{"filename": 3}]}),
        ("dataset_dict.json", {"splits": ["train", "../../private"]}),
    ],
)
def test_a_saved_data_set_that_names_parts_elsewhere_is_refused(folder, name, content):
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    message = refused(f"disk:{folder}")
    assert message.startswith(f"disk:{folder}: refused: {folder / name} names ")
    assert message.endswith("which is outside of the folder; save it again")


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "\xff"])
def test_a_saved_data_set_without_json_is_told(folder, content):
    (folder / "state.json").write_bytes(content.encode("latin1"))
    assert f"in {folder / 'state.json'}: " in refused(f"disk:{folder}")
