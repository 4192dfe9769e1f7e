"""Random and damaged input: whatever comes, it is read or refused, in bounded time and memory.

Each target runs for a few seconds of attempts; GCAUDIT_FUZZ_SECONDS makes that longer, GCAUDIT_FUZZ_SEED begins elsewhere.
"""

import gzip
import io
import os
import pickle
import random
import resource
import struct
import tarfile
import time
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gcaudit.audit.block import Block
from gcaudit.audit.run import run_audit
from gcaudit.audit.spec import AuditSpec
from gcaudit.checkpoints.reading import read_checkpoint
from gcaudit.data.batches import stream_batches
from gcaudit.data.cifar import read_cifar
from gcaudit.data.idx import read_idx
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.encoders.preprocessing import Preprocessing, picture_transform
from gcaudit.errors import GcauditError
from gcaudit.files.pickles import PickleError, PickleReader
from gcaudit.gate.rule_files import read_rules
from gcaudit.report.evidence import ReportEvidence, load_evidence, save_evidence
from gcaudit.store.repair import repair_store
from gcaudit.store.results import Store
from gcaudit.zoo.zoo import read_zoo

SECONDS = float(os.environ.get("GCAUDIT_FUZZ_SECONDS", "4"))
SEED = int(os.environ.get("GCAUDIT_FUZZ_SEED", "0"))
SLOWEST = 5.0
MOST_MEMORY = 2 * 2**30


def attempts():
    """Random generators, as many as there is time for, none of which may take long or much memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    end, number = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        began = time.process_time()
        yield random.Random(f"{SEED} {number}")
        assert time.process_time() - began < SLOWEST, f"attempt {number} with seed {SEED}"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MOST_MEMORY, (
            f"attempt {number} with seed {SEED}"
        )
        number += 1
    assert number > 10


def damaged(good, rng):
    raw = bytearray(good)
    for _ in range(rng.choice([1, 1, 2, 8])):
        kind, place = rng.choice(["flip", "byte", "cut", "drop", "copy", "number"]), rng.randrange(len(raw))
        if kind == "flip":
            raw[place] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            raw[place] = rng.choice([0, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif kind == "cut" and rng.random() < 0.2:
            del raw[max(1, place) :]
        elif kind == "drop":
            del raw[place : place + rng.randrange(1, 9)]
        elif kind == "copy":
            raw[place:place] = raw[place : place + rng.randrange(1, 64)]
        elif kind == "number":
            raw[place : place + 4] = struct.pack("<I", rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1]))
        if not raw:
            return b"\0"
    return bytes(raw)


def refusal(read):
    """What an input is refused with, None where it is read; anything else that is raised is a defect."""
    try:
        read()
    except (GcauditError, PickleError) as error:
        return str(error)
    return None


NAMES = [
    b"collections\nOrderedDict",
    b"torch._utils\n_rebuild_tensor_v2",
    b"torch._utils\n_rebuild_tensor_v3",
    b"torch._utils\n_rebuild_parameter",
    b"torch._tensor\n_rebuild_from_type_v2",
    b"torch\nFloatStorage",
    b"torch\nSize",
    b"torch\nTensor",
    b"numpy.core.multiarray\n_reconstruct",
    b"numpy.core.multiarray\nscalar",
    b"numpy._core.numeric\n_frombuffer",
    b"numpy\nndarray",
    b"numpy\ndtype",
    b"argparse\nNamespace",
    b"_codecs\nencode",
    b"copyreg\n_reconstructor",
    b"os\nsystem",
]


def value(rng, depth=0):
    """Operations that leave one value on the stack, as a rule."""
    number = rng.choice([0, 1, 2, 3, 4, 255])
    plain = [
        lambda: b"N",
        lambda: rng.choice([b"\x88", b"\x89"]),
        lambda: b"K" + bytes([number]),
        lambda: b"J" + struct.pack("<i", rng.choice([-1, 0, 7, 2**31 - 1, -(2**31)])),
        lambda: b"\x8a" + bytes([number]) + rng.randbytes(number),
        lambda: b"G" + rng.randbytes(8),
        lambda: b"U" + bytes([number]) + rng.randbytes(number),
        lambda: b"X" + struct.pack("<I", number) + b"a" * number,
        lambda: b"C" + bytes([number]) + rng.randbytes(number),
        lambda: rng.choice([b"]", b"}", b")", b"\x8f"]),
        lambda: b"c" + rng.choice(NAMES) + b"\n",
        lambda: b"h" + bytes([rng.randrange(6)]),
        lambda: rng.choice([b"U\x02f4", b"U\x02u1", b"U\x02O8", b"U\x01<", b"U\x06latin1", b"X\x07\x00\x00\x00storage"]),
    ]
    if depth > 4:
        return rng.choice(plain)()

    def some(most=5):
        return b"".join(value(rng, depth + 1) for _ in range(rng.randrange(most)))

    nested = [
        lambda: b"(" + some() + rng.choice([b"t", b"l", b"d", b"\x91"]),
        lambda: value(rng, depth + 1) + b"\x85",
        lambda: value(rng, depth + 1) + value(rng, depth + 1) + b"\x86",
        lambda: b"c" + rng.choice(NAMES) + b"\n(" + some(8) + b"t" + rng.choice([b"R", b"\x81"]),
        lambda: value(rng, depth + 1) + b"(" + some() + b"tb",
        lambda: b"](" + some() + b"e",
        lambda: b"}(" + some() + b"u",
        lambda: value(rng, depth + 1) + b"q" + bytes([rng.randrange(6)]),
        lambda: value(rng, depth + 1) + b"2" + rng.choice([b"0", b"\x86", b"a", b"R"]),
        lambda: b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ",
        lambda: b"\x95" + struct.pack("<Q", number) + value(rng, depth + 1),
    ]
    return rng.choice(plain + 2 * nested)()


def test_pickles_by_their_grammar():
    read = 0
    for rng in attempts():
        content = b"\x80\x02" + b"".join(value(rng) for _ in range(rng.randrange(1, 4))) + b"."
        content = damaged(content, rng) if rng.random() < 0.3 else content
        message = refusal(PickleReader(io.BytesIO(content), len(content)).read)
        assert message is None or message.isprintable()
        read += message is None
    assert read > 10


@pytest.mark.parametrize("modern", [True, False])
def test_checkpoints(tmp_path, modern):
    state = {"state_dict": {"w": torch.arange(12.0).view(3, 4), "n": torch.tensor(3)}, "args": {"mean": np.float64(0.5)}}
    torch.save(state, tmp_path / "good", _use_new_zipfile_serialization=modern)
    good = (tmp_path / "good").read_bytes()
    for rng in attempts():
        (tmp_path / "m.pt").write_bytes(damaged(good, rng))
        message = refusal(lambda: read_checkpoint(tmp_path / "m.pt"))
        assert message is None or message.isprintable()


def undated(member):
    """A member of an archive without what differs from run to run, so that each attempt damages the same bytes."""
    member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
    return member


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_archives_of_checkpoints(tmp_path, kind):
    torch.save({"w": torch.arange(12.0).view(3, 4)}, tmp_path / "m.pth")
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "good", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(tmp_path / "m.pth", "m.pth")
    else:
        with tarfile.open(tmp_path / "good", kind) as archive:
            archive.add(tmp_path / "m.pth", "m.pth", filter=undated)
    good = (tmp_path / "good").read_bytes()
    assert refusal(lambda: read_checkpoint(tmp_path / "good")) is None
    for rng in attempts():
        (tmp_path / "bad").write_bytes(damaged(good, rng))
        message = refusal(lambda: read_checkpoint(tmp_path / "bad"))
        assert message is None or message.isprintable()


def test_a_pax_header_that_claims_endless_numbers(tmp_path):
    for number in (b"9" * 30, b"0", b"5"):
        record = tarfile.TarInfo("pax")
        record.type, content = tarfile.XHDTYPE, number + b" path=m.pth\n"
        record.size = len(content)
        (tmp_path / "bad.tar").write_bytes(record.tobuf() + content.ljust(512, b"\0") + bytes(1024))
        assert "expected a sound archive" in refusal(lambda: read_checkpoint(tmp_path / "bad.tar"))
        message = refusal(lambda: read_cifar(tmp_path / "bad.tar", ["train"], "labels", ("meta", "label_names"), []))
        assert "expected CIFAR's archive" in message


@pytest.mark.parametrize("kind", ["w", "w:gz"])
def test_archives_of_cifar(tmp_path, kind):
    parts = {
        "train": {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 0, 1]},
        "meta": {"label_names": ["cat", "dog"]},
    }
    with tarfile.open(tmp_path / "good", kind) as archive:
        for name, content in parts.items():
            (tmp_path / name).write_bytes(pickle.dumps(content, 2))
            archive.add(tmp_path / name, f"cifar/{name}", filter=undated)
    good = (tmp_path / "good").read_bytes()

    def read(place):
        return refusal(lambda: read_cifar(place, ["train"], "labels", ("meta", "label_names"), ["0", "1"]))

    assert read(tmp_path / "good") is None
    for rng in attempts():
        (tmp_path / "bad").write_bytes(damaged(good, rng))
        message = read(tmp_path / "bad")
        assert message is None or message.isprintable()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path, suffix):
    pack = (lambda raw: gzip.compress(raw, mtime=0)) if suffix else bytes
    images = pack(struct.pack(">4B3I", 0, 0, 8, 3, 4, 5, 5) + bytes(100))
    (tmp_path / f"labels{suffix}").write_bytes(pack(struct.pack(">4BI", 0, 0, 8, 1, 4) + bytes([0, 1, 0, 1])))
    for rng in attempts():
        (tmp_path / f"images{suffix}").write_bytes(damaged(images, rng))
        message = refusal(lambda: read_idx(tmp_path / f"images{suffix}", tmp_path / f"labels{suffix}", ["a", "b"]))
        assert message is None or message.isprintable()


def encoded(kind, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(options.pop("mode", "RGB")).save(file, kind, **options)
    return file.getvalue()


PICTURES = [encoded("PNG"), encoded("JPEG"), encoded("GIF"), encoded("TIFF"), encoded("WEBP"), encoded("BMP"), encoded("PPM")]
PICTURES += [encoded("TIFF", compression="tiff_lzw"), encoded("PNG", mode="P"), encoded("JPEG2000"), encoded("TGA"), encoded("ICO")]


class Cells:
    """A reader of one picture."""

    def __init__(self, raw):
        self.raw = raw

    def read(self, _row):
        return self.raw

    def where(self, row):
        return f"row {row}"


def test_pictures():
    transform = picture_transform(Preprocessing((3, 32, 32), (0.5,) * 3, (0.5,) * 3))
    decoded = 0
    for rng in attempts():
        cells = Cells(damaged(rng.choice(PICTURES), rng))
        (batch,) = stream_batches(cells, torch.arange(1), [[0]], transform, workers=0, pin=False)
        decoded += len(batch.positions)
        assert all(reason.isprintable() for _, reason in batch.failures)
    assert decoded > 10


def read_all(images):
    for row in images.index.tolist():
        images.reader.read(row)


@pytest.mark.filterwarnings("ignore")
def test_parquet(tmp_path):
    cells = [{"bytes": picture, "path": None} for picture in PICTURES[:4]]
    pq.write_table(pa.table({"image": cells, "label": ["a", "b", "a", "b"]}), tmp_path / "good.parquet")
    good = (tmp_path / "good.parquet").read_bytes()
    for rng in attempts():
        (tmp_path / "a.parquet").write_bytes(damaged(good, rng))
        message = refusal(lambda: read_all(open_data(DataRequest(str(tmp_path / "a.parquet"), "source"))))
        assert message is None or message.isprintable()


def archive_of(kind):
    """Class folders in a zip, or WebDataset's samples in a tar."""
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("a/0.png", "a/1.png", "b/2.png"):
                archive.writestr(zipfile.ZipInfo(name), PICTURES[0])
        return file.getvalue()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number in range(3):
            for part, content in (("png", PICTURES[0]), ("json", b'{"label": "cat", "n": 1}')):
                entry = tarfile.TarInfo(f"{number}.{part}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    raw = file.getvalue()
    return gzip.compress(raw, mtime=0) if kind == "tar.gz" else raw


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_of_data(tmp_path, kind):
    good, path = archive_of(kind), tmp_path / f"data.{kind}"

    def read():
        return refusal(lambda: read_all(open_data(DataRequest(str(path), "source"))))

    path.write_bytes(good)
    assert read() is None
    for rng in attempts():
        path.write_bytes(damaged(good, rng))
        message = read()
        assert message is None or message.isprintable()


TABLES = {
    "csv": b'path,label,split\n0.png,cat,train\n1.png,"dog, or wolf",train\n0.png,,test\n',
    "tsv": b"path\tlabel\n0.png\t1\n1.png\t-1\n",
    "jsonl": b'{"file_name": "0.png", "label": "cat"}\n{"file_name": "1.png", "label": null, "box": [1, {"a": 2}]}\n',
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_data(tmp_path, kind):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(PICTURES[0])
    path = tmp_path / f"data.{kind}"
    for rng in attempts():
        path.write_bytes(damaged(TABLES[kind], rng))
        message = refusal(lambda: read_all(open_data(DataRequest(str(path), "source"))))
        assert message is None or message.isprintable()


RULES = b"max-regression: 2%\nrules:\n  - target.probe_accuracy >= 0.6\n  - {rule: source.gc <= 100, level: warn}\n"
ZOO = b"models:\n  - timm:test_*\n  - {model: a.pt, arch: timm:resnet18, mean: [0.5]}\nsources: [demo]\ntargets:\n  - {data: demo, n-shot: [1, 5]}\n"


@pytest.mark.parametrize(("good", "read"), [(RULES, read_rules), (ZOO, read_zoo)])
def test_yaml(tmp_path, good, read):
    for rng in attempts():
        (tmp_path / "a.yaml").write_bytes(damaged(good, rng))
        message = refusal(lambda: read(tmp_path / "a.yaml"))
        assert message is None or message.isprintable()


def read_store(path):
    """All that a store gives, and whether it can be pruned."""
    store = Store(path)
    try:
        found = [cell.report or cell.reason for cell in store.cells()]
        found += [block.data for key in ("s", "t") if (block := store.get_block(key)) is not None]
        store.prune(older_than=10_000)
        return found
    finally:
        store.close()


def test_stores(tmp_path):
    found = run_audit(
        AuditSpec.from_options(model="demo", source="demo", target="demo", source_max_images=50, target_max_images=100, episodes=20)
    )
    store = Store(tmp_path / "good.db")
    evidence = ReportEvidence({name: values for name, values in found.evidence.influences.items() if name.startswith("source")}, {})
    digests, perceptual = np.zeros((50, 16), np.uint8), np.zeros((50, 32), np.uint8)
    for key in ("s", "t"):
        store.put_block(key, "pass", Block("source", found.source, evidence, digests, perceptual, "demo", (), {}, 1.0))
    store.put_report(found, "s", "t")
    store.put_failure("r", "m", "s", None, "it rained")
    store.close()
    good = (tmp_path / "good.db").read_bytes()
    truth = read_store(tmp_path / "good.db")
    assert len(truth) == 4
    for number, rng in enumerate(attempts()):
        path = tmp_path / "x.db"
        path.write_bytes(damaged(good, rng))
        results = []
        message = refusal(lambda path=path, results=results: results.extend(read_store(path)))
        assert message is None or message.isprintable()
        assert all(result in truth for result in results), number
        message = refusal(lambda path=path: repair_store(path))
        assert message is None or message.isprintable()
        results.clear()
        if message is None:
            assert all(result in truth for result in read_store(path)), number
        for leftover in tmp_path.glob("x.db*"):
            leftover.unlink()


def test_evidence(tmp_path):
    save_evidence(tmp_path / "good", ReportEvidence({"source.gc": np.arange(50.0)}, {"source.energies": np.ones(7)}), "{}")
    good = (tmp_path / "good").read_bytes()
    for rng in attempts():
        (tmp_path / "a.npz").write_bytes(damaged(good, rng))
        message = refusal(lambda: load_evidence(tmp_path / "a.npz", "{}"))
        assert message is None or message.isprintable()
