"""Streams of 200,000 images against the same from a file, and decoding against torchvision's and timm's loaders. Run with `-s` to see it.

Each measurement of memory is a process of its own, so that its peak is its own.
"""

import io
import json
import subprocess
import sys
import tarfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from conftest import interleaved
from PIL import Image
from timm.data import create_dataset, create_loader, create_transform

from gcaudit.data.batches import stream_batches
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.encoders.preprocessing import Preprocessing, picture_transform

READING = """
import json, sys, time
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
kind, path, limit = sys.argv[1:]
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
import datasets, pyarrow.parquet, torch
before, began = peak(), time.perf_counter()
images = open_data(DataRequest(path, "source", streaming=kind == "stream", max_images=int(limit) or None))
total = sum(len(images.reader.read(row)) for row in images.index.tolist())
print(json.dumps({"seconds": time.perf_counter() - began, "growth": peak() - before, "images": len(images.labels), "bytes": total}))
"""


def reading(kind, path, limit=0):
    found = subprocess.run([sys.executable, "-c", READING, kind, str(path), str(limit)], capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


def many(place, size):
    """Small pictures with 100 classes as parquet in the layout of the hub, made by a generator, and as WebDataset's shards."""
    (place / "data").mkdir(parents=True)
    rng = np.random.default_rng(0)

    def pictures():
        for number in range(size):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(buffer, "PNG")
            yield {"image": {"bytes": buffer.getvalue(), "path": None}, "label": number % 100}

    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    schema = features.arrow_schema
    rows = pictures()
    for shard in range(8):
        with pq.ParquetWriter(place / "data" / f"train-{shard:05}-of-00008.parquet", schema) as writer:
            for _ in range(size // 8 // 1000):
                writer.write_table(pa.Table.from_pylist([next(rows) for _ in range(1000)], schema))


def shards(images, place, each=5000):
    place.mkdir()
    for first in range(0, len(images.labels), each):
        with tarfile.open(place / f"{first // each:03}.tar", "w") as archive:
            for number in range(first, min(first + each, len(images.labels))):
                parts = (
                    ("jpg", bytes(images.reader.read(int(images.index[number])))),
                    ("cls", str(int(images.labels[number])).encode()),
                )
                for part, content in parts:
                    entry = tarfile.TarInfo(f"{number:08}.{part}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return place


def test_a_stream_of_200_000_images(benchmark, report, tmp_path):
    """Bounds: 40 MiB more for 200,000 images than for 40,000, and no more for a draw of 5,000; half the speed of the same from parquet."""
    many(tmp_path / "few", 40_000)
    many(tmp_path / "many", 200_000)
    few = reading("stream", f"hf:{tmp_path / 'few'}")
    whole = benchmark.pedantic(reading, ("stream", f"hf:{tmp_path / 'many'}"))
    drawn = reading("stream", f"hf:{tmp_path / 'many'}", 5000)
    parquet = reading("file", tmp_path / "many")
    images = open_data(DataRequest(str(tmp_path / "many"), "source"))
    tars = reading("file", shards(images, tmp_path / "tars", 25_000))
    assert whole["images"] == parquet["images"] == tars["images"] == 200_000
    assert whole["bytes"] == parquet["bytes"] == tars["bytes"]
    for name, found in {
        "40,000": few,
        "200,000": whole,
        "200,000, 5,000 drawn": drawn,
        "parquet": parquet,
        "WebDataset": tars,
    }.items():
        size = 40_000 if found is few else 200_000
        report(**{f"{name}, images a second": size / found["seconds"], "growth of memory, MiB": found["growth"]})
    assert whole["growth"] - few["growth"] <= 40
    assert drawn["growth"] <= few["growth"] + 40
    assert whole["seconds"] <= 2 * parquet["seconds"]


class Torchvision(torch.utils.data.Dataset):
    """The same pictures as people write it."""

    def __init__(self, images, size):
        self.images = images
        tv = torchvision.transforms
        self.transform = tv.Compose([tv.Resize(size), tv.CenterCrop(size), tv.ToTensor()])

    def __len__(self):
        return len(self.images.labels)

    def __getitem__(self, row):
        picture = Image.open(io.BytesIO(self.images.reader.read(int(self.images.index[row])))).convert("RGB")
        return self.transform(picture), int(self.images.labels[row])


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("name", ["cifar10", "dtd10", "dtd10, WebDataset"])
def test_decoding_against_other_loaders(benchmark, report, shared, tmp_path, name, workers):
    """Bounds over the faster of both: 1.5 times for photos, 2 for pictures of 32 x 32; two hashes of each are taken here, and by neither of them."""
    size = 32 if name == "cifar10" else 224
    path = shared / "data" / ("cifar10/test.parquet" if name == "cifar10" else "dtd10/train.parquet")
    images = open_data(DataRequest(str(path), "source", max_images=3000))
    if name.endswith("WebDataset"):
        images = open_data(DataRequest(str(shards(images, tmp_path / "tars")), "source"))
    preprocessing = Preprocessing((3, size, size), (0.0,) * 3, (1.0,) * 3, "bilinear", 1.0, "center", "", ())
    transform = picture_transform(preprocessing)
    order = torch.arange(len(images.labels)).split(64)

    def ours():
        batches = stream_batches(
            images.reader, images.index, [part.tolist() for part in order], transform, workers=workers, pin=False
        )
        return sum(len(batch.pixels) for batch in batches)

    theirs = torch.utils.data.DataLoader(Torchvision(images, size), batch_size=64, num_workers=workers)
    folder = tmp_path / "folder"
    for row in range(len(images.labels)):
        place = folder / f"{int(images.labels[row]):03}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row:05}.jpg").write_bytes(images.reader.read(int(images.index[row])))
    loader = create_loader(
        create_dataset("", str(folder)), (3, size, size), 64, num_workers=workers, interpolation="bilinear", crop_pct=1.0,
        use_prefetcher=False, device=torch.device("cpu"), persistent_workers=False,
    )  # fmt: skip
    assert create_transform((3, size, size)) is not None
    tasks = {"ours": ours, "torchvision": lambda: sum(len(x) for x, _ in theirs), "timm": lambda: sum(len(x) for x, _ in loader)}
    times = interleaved(tasks, repeats=3)
    benchmark.pedantic(ours)
    report(
        **{f"{name}, {workers} workers, {task}, images a second": len(images.labels) / seconds for task, seconds in times.items()}
    )
    assert times["ours"] <= (2 if size == 32 else 1.5) * min(times["torchvision"], times["timm"])
