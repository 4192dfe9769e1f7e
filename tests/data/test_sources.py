"""The same 500 images through every form that people keep data in: equal fingerprints where bytes are equal, equal metrics."""

import base64
import csv
import gzip
import io
import json
import pickle
import tarfile
import zipfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cases import TinyNet
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from gcaudit.audit.run import run_audit
from gcaudit.audit.spec import AuditSpec

NAMES = ("ant", "bee", "cat", "dog", "elk")
SIZE = 500


def pixels():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), SIZE // 5)
    centre = rng.uniform(60, 190, (5, 1, 1, 3))
    return (centre[labels] + rng.normal(scale=40, size=(SIZE, 8, 8, 3))).clip(0, 255).astype(np.uint8), labels


PIXELS, LABELS = pixels()


def png(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


PNG = [png(picture) for picture in PIXELS]


def files():
    """Names in class folders, sorted, with their bytes."""
    for number, (content, label) in enumerate(zip(PNG, LABELS, strict=True)):
        yield f"{NAMES[label]}/{number:03}.png", content


def folder(place):
    for name, content in files():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return place


def tar(place, members, mode="w"):
    with tarfile.open(place, mode) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return place


def class_folders_tar(place):
    return str(tar(place / "x.tar", [(f"top/{name}", content) for name, content in files()])), {}


def class_folders_tgz(place):
    return str(tar(place / "x.tar.gz", files(), "w:gz")), {}


def class_folders_xz(place):
    return str(tar(place / "x.tar.xz", files(), "w:xz")), {}


def class_folders_zip(place):
    with zipfile.ZipFile(place / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files():
            archive.writestr(f"data/{name}", content)
    return str(place / "x.zip"), {}


def samples(first, last, part):
    for number in range(first, last):
        yield f"{number:05}.png", PNG[number]
        yield f"{number:05}.{part}", part_of(number, part)


def part_of(number, part):
    name = NAMES[LABELS[number]]
    return {"cls": name, "json": json.dumps({"label": name, "n": number}), "txt": name}[part].encode()


def shards(place):
    for number in range(5):
        tar(place / f"{number:03}.tar", samples(100 * number, 100 * number + 100, "cls"))
    return str(place / "{000..004}.tar"), {}


def shards_json(place):
    for number in range(5):
        tar(place / f"train-{number}.tar", samples(100 * number, 100 * number + 100, "json"))
    return str(place), {"source_split": "train"}


def shards_named(place):
    numbered = [
        (name, str(NAMES.index(content.decode())).encode() if name.endswith("cls") else content)
        for name, content in samples(0, SIZE, "cls")
    ]
    tar(place / "a.tar", numbered)
    (place / "classnames.txt").write_text("\n".join(NAMES) + "\n")
    return str(place / "*.tar"), {}


def comma(place):
    folder(place)
    with (place / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows((name, name.split("/")[0]) for name, _ in files())
    return str(place / "list.csv"), {}


def tabs(place):
    folder(place)
    lines = [f"{name}\t{number}\t{name.split('/')[0]}" for number, (name, _) in enumerate(files())]
    (place / "list.tsv").write_text("\n".join(["picture\tnumber\tspecies", *lines]))
    return str(place / "list.tsv"), {"image_key": "picture", "label_key": "species"}


def lines(place):
    folder(place)
    (place / "list.jsonl").write_text(
        "\n".join(json.dumps({"file_name": name, "label": name.split("/")[0]}) for name, _ in files())
    )
    return str(place / "list.jsonl"), {}


def metadata(place):
    for number, content in enumerate(PNG):
        (place / f"{number:03}.png").write_bytes(content)
    rows = [f"{number:03}.png,{NAMES[label]}" for number, label in enumerate(LABELS)]
    (place / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    return str(place), {}


def base64_text(place):
    lines = [
        json.dumps({"image": base64.b64encode(content).decode(), "label": NAMES[label]})
        for content, label in zip(PNG, LABELS, strict=True)
    ]
    (place / "list.jsonl").write_text("\n".join(lines))
    return str(place / "list.jsonl"), {}


def structs():
    return pa.array(
        [{"bytes": content, "path": None} for content in PNG], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )


def parquet(place):
    pq.write_table(pa.table({"image": structs(), "label": [NAMES[label] for label in LABELS]}), place / "a.parquet")
    return str(place / "a.parquet"), {}


def parquet_columns(place):
    table = {"thumb": [b"x"] * SIZE, "img": structs(), "coarse_label": [0] * SIZE, "fine_label": [NAMES[label] for label in LABELS]}
    pq.write_table(pa.table(table), place / "a.parquet")
    return str(place / "a.parquet"), {"image_key": "img", "label_key": "fine_label"}


def parquet_paths(place):
    folder(place)
    pq.write_table(
        pa.table({"image": [name for name, _ in files()], "label": [name.split("/")[0] for name, _ in files()]}),
        place / "a.parquet",
    )
    return str(place / "a.parquet"), {}


def table():
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    rows = {"image": [{"bytes": content, "path": None} for content in PNG], "label": LABELS.tolist()}
    return datasets.Dataset.from_dict(rows, features=features)


def on_disk(place):
    table().save_to_disk(place / "d")
    return f"disk:{place / 'd'}", {}


def hub_streamed(place):
    (place / "data").mkdir()
    table().to_parquet(place / "data" / "train-00000-of-00001.parquet")
    return f"hf:{place}", {"streaming": True}


def hub(place):
    return hub_streamed(place)[0], {}


def python_table(_place):
    return table(), {}


class Stream(IterableDataset):
    def __iter__(self):
        for content, label in zip(PNG, LABELS, strict=True):
            yield content, NAMES[label]


def python_stream(_place):
    return Stream(), {}


class Dicts(Dataset):
    def __len__(self):
        return SIZE

    def __getitem__(self, row):
        return {"img": Image.open(io.BytesIO(PNG[row])), "target": NAMES[LABELS[row]], "id": row}


def python_dicts(_place):
    return Dicts(), {}


def lists_of_numbers(place):
    pq.write_table(pa.table({"image": PIXELS.tolist(), "label": [NAMES[label] for label in LABELS]}), place / "a.parquet")
    return str(place / "a.parquet"), {}


def arrays(_place):
    return (torch.from_numpy(PIXELS).permute(0, 3, 1, 2), [NAMES[label] for label in LABELS]), {}


def shards_of_text(place):
    tar(place / "a.tar", samples(0, SIZE, "txt"))
    return str(place / "a.tar"), {"label_key": "txt"}


def torchvision_folder(place):
    folder(place)
    return "torchvision:ImageFolder", {"data_root": str(place)}


def class_folders(place):
    return str(folder(place)), {}


SAME_BYTES = [
    class_folders, class_folders_tar, class_folders_tgz, class_folders_xz, class_folders_zip, shards, shards_json, shards_named, comma, tabs, lines,
    shards_of_text, torchvision_folder, metadata, base64_text, parquet, parquet_columns, parquet_paths, on_disk, hub, hub_streamed, python_table, python_stream,
]  # fmt: skip
SAME_PIXELS = [python_dicts, lists_of_numbers, arrays]


def audit(place, make):
    place.mkdir()
    data, options = make(place)
    spec = AuditSpec.from_options(
        TinyNet(classes=5), data, metrics=("gc", "cdnv", "ncm_accuracy"), batch_size=64, workers=0, **options
    )
    return run_audit(spec)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return audit(tmp_path_factory.mktemp("truth") / "t", class_folders)


@pytest.mark.parametrize("make", [*SAME_BYTES, *SAME_PIXELS], ids=lambda make: make.__name__)
def test_every_source_gives_the_same(make, truth, tmp_path):
    found = audit(tmp_path / "d", make)
    assert (found.source.images, found.source.class_names) == (SIZE, NAMES)
    if make in SAME_BYTES:
        assert found.source.fingerprint == truth.source.fingerprint
    metrics = truth.source.metrics if make in SAME_BYTES else {name: truth.source.metrics[name] for name in ("gc", "cdnv")}
    for name, value in metrics.items():  # the accuracy's draws depend on the fingerprint
        assert found.source.metrics[name].value == pytest.approx(value.value, rel=1e-6), name


def test_idx_in_gz_and_the_pickles_of_cifar(tmp_path):
    """Grey and 32 x 32 pictures, as these formats have: against the same pictures as arrays."""
    grey = PIXELS.mean(3).astype(np.uint8)
    place = tmp_path / "MNIST" / "raw"
    place.mkdir(parents=True)
    header = lambda *numbers: b"".join(number.to_bytes(4, "big") for number in numbers)  # noqa: E731
    (place / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(header(2051, SIZE, 8, 8) + grey.tobytes()))
    (place / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header(2049, SIZE) + LABELS.astype(np.uint8).tobytes()))
    metrics = ("gc",)
    found = run_audit(
        AuditSpec.from_options(TinyNet(channels=1), "mnist", source_split="test", data_root=str(tmp_path), metrics=metrics)
    )
    direct = run_audit(AuditSpec.from_options(TinyNet(channels=1), (torch.from_numpy(grey)[:, None], LABELS), metrics=metrics))
    for name in metrics:
        assert found.source.metrics[name].value == pytest.approx(direct.source.metrics[name].value, rel=1e-6)
    large = PIXELS.repeat(4, 1).repeat(4, 2)
    batch = {"data": large.transpose(0, 3, 1, 2).reshape(SIZE, 3072), "labels": LABELS.tolist()}
    tar(tmp_path / "cifar-10-python.tar.gz", [("cifar-10-batches-py/test_batch", pickle.dumps(batch, 2))], "w:gz")
    found = run_audit(AuditSpec.from_options(TinyNet(), "cifar10", source_split="test", data_root=str(tmp_path), metrics=metrics))
    pq.write_table(pa.table({"image": [png(picture) for picture in large], "label": LABELS}), tmp_path / "a.parquet")
    direct = run_audit(AuditSpec.from_options(TinyNet(), str(tmp_path / "a.parquet"), metrics=metrics))
    assert found.source.images == SIZE
    assert found.source.metrics["gc"].value == pytest.approx(direct.source.metrics["gc"].value, rel=1e-6)
