"""Every kind of warning that there is comes up in a report, and in no report of an ordinary audit."""

import argparse
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from cases import TinyNet, tiny_images
from PIL import Image
from torch import nn
from torch.utils.data import IterableDataset

import gcaudit
from gcaudit.audit.run import run_audit
from gcaudit.audit.spec import AuditSpec
from gcaudit.report.schema import Report
from gcaudit.report.warnings import WARNINGS

PLAIN = {"metrics": ("cdnv",), "gc_images": 4}


def pictures(root, names=("a", "b"), per_class=4, size=8, mode="RGB"):
    for number in range(per_class * len(names)):
        place = root / names[number % len(names)] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(place)
    return root


def table(path, **more):
    pictures(path.parent / "drawn")
    files = sorted((path.parent / "drawn").rglob("*.png"))
    columns = {"image": [file.read_bytes() for file in files], "label": [int(file.parent.name == "b") for file in files]}
    pq.write_table(pa.table(columns | {name: columns[of] for name, of in more.items()}), path)
    return str(path)


def score(model, source, target=None, **options):
    return gcaudit.score(model, source if isinstance(source, tuple) else str(source), target, **(PLAIN | options))


def saved(tmp_path, **content):
    torch.save({"state_dict": timm.create_model("test_resnet").state_dict(), **content}, tmp_path / "m.pt")
    return str(tmp_path / "m.pt")


def trained(tmp_path, monkeypatch, **content):
    """A report of a checkpoint with options of timm's script."""
    options = {
        "model": "test_resnet",
        "mean": [0.5],
        "std": [0.5],
        "input_size": [3, 32, 32],
        "crop_pct": 1.0,
        "interpolation": "bilinear",
    }
    path = saved(tmp_path, args=argparse.Namespace(**options), **content)
    return score(path, pictures(tmp_path / "data", size=32))


def assumed(tmp_path, monkeypatch):
    return score(saved(tmp_path), pictures(tmp_path / "data", size=160), arch="timm:test_resnet")


def enlarged(tmp_path, monkeypatch):
    return score(TinyNet(), pictures(tmp_path, size=3))


def two_families(tmp_path, monkeypatch):
    torch.save({"arch": "resnet18", "state_dict": timm.create_model("resnet18").state_dict()}, tmp_path / "m.pt")
    return score(str(tmp_path / "m.pt"), pictures(tmp_path / "data"), input_size=32)


def unused(tmp_path, monkeypatch):
    path = str(tmp_path / "m.pt")
    import torchvision

    torch.save({"model": torchvision.models.resnet18().state_dict(), "args": argparse.Namespace(model="resnet18", gp="max")}, path)
    return score(path, pictures(tmp_path / "data"), arch="torchvision:resnet18", input_size=32)


def averaged(tmp_path, monkeypatch):
    return trained(tmp_path, monkeypatch, state_dict_ema=timm.create_model("test_resnet").state_dict())


def spare(tmp_path, monkeypatch):
    state = timm.create_model("test_resnet").state_dict() | {"extra": torch.ones(2)}
    torch.save(state, tmp_path / "m.pt")
    return score(str(tmp_path / "m.pt"), pictures(tmp_path / "data"), arch="timm:test_resnet", input_size=32, allow_missing=True)


def chance(tmp_path, monkeypatch):
    images, labels = tiny_images(per_class=30)
    return score(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), (images, labels[torch.randperm(120)]), input_size=8)


def numbered(tmp_path, monkeypatch):
    return score(TinyNet(), pictures(tmp_path, names=[str(number) for number in range(12)], per_class=2))


def transparent(tmp_path, monkeypatch):
    return score(TinyNet(), pictures(tmp_path, mode="RGBA"))


def turned(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 8), "red").save(pictures(tmp_path) / "a" / "turned.jpg", exif=exif)
    return score(TinyNet(), tmp_path)


def lost(tmp_path, monkeypatch):
    (pictures(tmp_path) / "a" / "notes.txt").write_text("no picture")
    return score(TinyNet(), tmp_path)


def escaped(tmp_path, monkeypatch):
    return score(TinyNet(), pictures(tmp_path, names=("a\nb", "c")))


def two_columns(tmp_path, monkeypatch):
    return score(TinyNet(), table(tmp_path / "data.parquet", mask="image"))


def two_splits(tmp_path, monkeypatch):
    for split in ("train", "test"):
        table(tmp_path / f"{split}.parquet")
    return score(TinyNet(), tmp_path / "*.parquet")


class Random(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, row):
        return torch.rand(3, 8, 8), row % 2


def random_items(tmp_path, monkeypatch):
    return gcaudit.score(TinyNet(), Random(), **PLAIN)


def chosen(tmp_path, monkeypatch):
    return score(TinyNet(), pictures(tmp_path, names=("1", "2", "3", "4")), source_classes="0-2")


def the_same(tmp_path, monkeypatch):
    pictures(tmp_path)
    return score(TinyNet(), tmp_path, str(tmp_path))


def twice(tmp_path, monkeypatch):
    shutil.copy(pictures(tmp_path) / "a" / "0.png", tmp_path / "b" / "again.png")
    return score(TinyNet(), tmp_path)


def linked(tmp_path, monkeypatch):
    pictures(tmp_path / "photos")
    (tmp_path / "photos" / "b").rename(tmp_path / "elsewhere")
    (tmp_path / "photos" / "b").symlink_to(tmp_path / "elsewhere")
    return score(TinyNet(), tmp_path / "photos")


def dropping(tmp_path, monkeypatch):
    class Dropping(TinyNet):
        def features(self, x):
            return nn.functional.dropout(super().features(x), 0.3)

    return score(Dropping(), tiny_images())


def short(tmp_path, monkeypatch):
    images, labels = tiny_images()
    return score(
        TinyNet(),
        (images, labels),
        (images.flip(-1), labels),
        metrics=("probe_accuracy",),
        n_way=4,
        n_shot=(1,),
        n_query=15,
        episodes=5,
    )


def crowded(tmp_path, monkeypatch):
    from gcaudit.passes.runner import Runner

    run = Runner.run

    def limited(self, pixels, index, **options):
        if len(pixels) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, pixels, index, **options)

    monkeypatch.setattr(Runner, "run", limited)
    return score(TinyNet(), tiny_images(), batch_size=16)


def of_before(tmp_path, monkeypatch):
    content = json.loads(score(TinyNet(), tiny_images()).to_json())
    content |= {"schema": "gcaudit.report/1", "warnings": ["said long ago"]}
    content["model"]["preprocessing"]["assumed"] = False
    return Report.from_json(json.dumps(content))


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*tiny_images(), strict=True)


def once(tmp_path, monkeypatch):
    return run_audit(AuditSpec.from_options(TinyNet(), Stream(), metrics=("cdnv",)))


SAYING = {
    "preprocessing": assumed,
    "picture-size": enlarged,
    "architecture": two_families,
    "unused-options": unused,
    "averaged-weights": averaged,
    "weights": spare,
    "head": chance,
    "class-order": numbered,
    "converted": transparent,
    "orientation": turned,
    "left-out": lost,
    "links": linked,
    "renamed": escaped,
    "column": two_columns,
    "split": two_splits,
    "streamed": once,
    "items": random_items,
    "class-choice": chosen,
    "shared": the_same,
    "repeated": twice,
    "network": dropping,
    "episodes": short,
    "memory": crowded,
    "other": of_before,
}


def test_every_kind_has_its_case():
    assert SAYING.keys() == WARNINGS.keys()


@pytest.mark.parametrize("kind", SAYING)
def test_it_is_said(kind, tmp_path, monkeypatch):
    torch.manual_seed(0)
    report = SAYING[kind](tmp_path, monkeypatch)
    assert kind in {warning.kind for warning in report.warnings}
    assert all(warning.message and "\n" not in warning.message for warning in report.warnings)


def ordinary_folder(tmp_path):
    return score(TinyNet(), pictures(tmp_path))


def ordinary_table(tmp_path):
    return score(TinyNet(), table(tmp_path / "data.parquet"))


def ordinary_tensors(tmp_path):
    return score(
        TinyNet(),
        tiny_images(classes=5),
        tuple(tiny_images(per_class=30, classes=6, seed=3)),
        metrics=None,
        gc_images=None,
        episodes=5,
    )


def ordinary_checkpoint(tmp_path):
    return trained(tmp_path, None)


def ordinary_demo(tmp_path):
    shutil.rmtree(tmp_path)
    return gcaudit.score("demo", "demo", "demo", episodes=5)


@pytest.mark.parametrize(
    "run", [ordinary_folder, ordinary_table, ordinary_tensors, ordinary_checkpoint, ordinary_demo], ids=lambda run: run.__name__
)
def test_nothing_is_said_of_an_ordinary_audit(run, tmp_path):
    assert run(tmp_path).warnings == ()
