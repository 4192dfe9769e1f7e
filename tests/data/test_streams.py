"""Streams: the draw of a stream is that of a file, a second run sees the same, and one that breaks off gives no report."""

import io
import pickle

import numpy as np
import pytest
import torch
from cases import TinyNet, tiny_images
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

import gcaudit
from gcaudit.audit.run import run_audit
from gcaudit.audit.spec import AuditSpec
from gcaudit.data import streams
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.data.spool import Spool
from gcaudit.errors import AuditError, DataError


def png(number):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), number % 256, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


class Stream(IterableDataset):
    """Encoded pictures with labels, one after the other."""

    def __init__(self, labels, fail=None):
        self.labels, self.fail = labels, fail

    def __iter__(self):
        for number, label in enumerate(self.labels):
            if number == self.fail:
                raise ConnectionResetError("the peer has gone")
            yield png(number), label


class Rows:
    """The same pictures at random access."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return Image.open(io.BytesIO(png(row))), self.labels[row]


def opened(given, **options):
    return open_data(DataRequest(given, "source", **options))


@pytest.mark.parametrize("limit", [3, 10, 50, 199, 200, 500, None])
@pytest.mark.parametrize("names", [("a", "b", "c"), (0, 1, 2)])
def test_the_draw_is_that_of_a_file(limit, names):
    """Classes of very different sizes, one of which comes late."""
    rng = np.random.default_rng(0)
    labels = [names[number] for number in rng.choice(2, 180, p=(0.9, 0.1))] + [names[2]] * 20
    streamed, random_access = (opened(kind(labels), max_images=limit) for kind in (Stream, Rows))
    assert torch.equal(streamed.index, random_access.index)
    assert torch.equal(streamed.labels, random_access.labels)
    assert streamed.class_names == random_access.class_names
    for place in range(0, len(streamed.labels), 7):
        row = int(streamed.index[place])
        assert streamed.reader.read(row) == png(row)
    again = opened(Stream(labels), max_images=limit)
    assert torch.equal(again.index, streamed.index)


def test_no_more_is_held_than_can_still_be_drawn(monkeypatch):
    kept = []
    prune = streams._Draw.prune

    def watched(self):
        before = len(self.kept)
        prune(self)
        kept.append((before, len(self.kept)))

    monkeypatch.setattr(streams._Draw, "prune", watched)
    labels = [number % 5 for number in range(3000)]
    found = opened(Stream(labels), max_images=100)
    assert len(found.labels) == 100
    assert len(kept) > 10
    assert max(before for before, _ in kept) <= 2 * (100 + 5)
    assert found.reader._spool.size <= 2 * sum(len(png(number)) for number in range(210))
    (line,) = [str(warning) for warning in found.warnings]
    assert (
        line.startswith("3000 images were read from a stream, once; 205 of them are held, 0.0 MiB under ")
        or " of them are held, " in line
    )


def test_chosen_classes_are_drawn_from_all_that_come():
    labels = [number % 5 for number in range(500)]
    options = {"max_images": 40, "classes": "3,4"}
    streamed, random_access = (opened(kind(labels), **options) for kind in (Stream, Rows))
    assert torch.equal(streamed.index, random_access.index)
    assert len(streamed.labels) == 40


def test_a_stream_that_breaks_off_is_no_data_set():
    with pytest.raises(
        AuditError,
        match="Stream: expected the stream to go on, found after 7 images ConnectionResetError: the peer has gone; try again",
    ):
        opened(Stream([0, 1] * 10, fail=7))
    with pytest.raises(DataError, match="Stream: expected images, found an empty stream"):
        opened(Stream([]))
    with pytest.raises(DataError, match="image 0 of the stream Stream: expected a picture, found a object"):
        opened(type("Stream", (IterableDataset,), {"__iter__": lambda self: iter([(object(), 0)])})())
    with pytest.raises(DataError, match=r"item 0 of Stream: expected \(image, label\) or a dict, found a int"):
        opened(type("Stream", (IterableDataset,), {"__iter__": lambda self: iter([3])})())


def test_several_labels_an_image_are_refused_at_the_first():
    with pytest.raises(
        DataError, match=r"Stream: expected one class an image, found lists of 2 numbers with a single 1 \(one-hot\)"
    ):
        opened(Stream([[0, 1], [1, 0]]))
    with pytest.raises(DataError, match="expected labels that are all integers or all strings, found float, int"):
        opened(Stream([1, 1.0, 2]))


def test_marks_of_no_label_take_no_place_in_the_draw():
    labels = [(0, 1, -1.0)[number % 3] if number % 2 else (0, 1, -1)[number % 3] for number in range(600)]
    labels = ["unlabelled" if label == -1 else "ab"[int(label)] for label in labels]
    streamed, random_access = (opened(kind(labels), max_images=100) for kind in (Stream, Rows))
    assert len(streamed.labels) == 100
    assert torch.equal(streamed.index, random_access.index)


@pytest.mark.parametrize(("mode", "told"), [("CMYK", "in colours other than RGB"), ("LA", "lost their transparency"), ("P", "")])
def test_pictures_of_a_stream_are_converted_as_others_are(mode, told):
    class Pictures(IterableDataset):
        def __iter__(self):
            for number in range(12):
                yield Image.new("RGB", (8, 8), (20 * number, 90, 9)).convert(mode), number % 3

    spec = AuditSpec.from_options(TinyNet(classes=3), Pictures(), metrics=("cdnv",))
    lines = [str(warning) for warning in run_audit(spec).warnings if warning.kind == "converted"]
    assert len(lines) == bool(told)
    assert all(told in line for line in lines)


def test_a_picture_without_a_scale_is_refused_in_a_stream_too():
    class Pictures(IterableDataset):
        def __iter__(self):
            yield from ((Image.new("F", (8, 8), 0.5), number % 2) for number in range(4))

    with pytest.raises(DataError, match="floating point numbers, whose scale is not known"):
        run_audit(AuditSpec.from_options(TinyNet(), Pictures(), metrics=("cdnv",)))


def test_images_without_a_label_are_left_out():
    found = opened(Stream([0, -1, 1, None, 0, float("nan"), 1]))
    assert found.labels.tolist() == [0, 1, 0, 1]
    assert found.index.tolist() == [0, 2, 4, 6]
    assert "3 images without a label were left out" in map(str, found.warnings)


@pytest.mark.parametrize("kind", ["tensor", "array", "picture", "dict"])
def test_what_items_may_be(kind):
    images, labels = tiny_images()
    forms = {
        "tensor": lambda image: image,
        "array": lambda image: (image.permute(1, 2, 0) * 255).byte().numpy(),
        "picture": lambda image: Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy()),
        "dict": lambda image: image,
    }

    class Items(IterableDataset):
        def __iter__(self):
            for image, label in zip(images, labels, strict=True):
                yield {"image": forms[kind](image), "label": label} if kind == "dict" else (forms[kind](image), label)

    with pytest.warns(gcaudit.errors.GcauditWarning, match="48 images were read from a stream, once"):
        found = gcaudit.score(TinyNet(), Items(), metrics=("cdnv",))
    direct = gcaudit.score(TinyNet(), (images, labels), metrics=("cdnv",))
    assert found.source.metrics["cdnv"].value == pytest.approx(
        direct.source.metrics["cdnv"].value, rel=1e-6 if kind in ("tensor", "dict") else 0.05
    )


def test_a_copy_of_the_reader_reads_the_same_spool():
    labels = [number % 4 for number in range(300)]

    images = opened(Stream(labels))

    copy = pickle.loads(pickle.dumps(images.reader))
    assert all(copy.read(row) == png(row) for row in (0, 17, 299))


def test_a_full_disk_is_told(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 2**20})())
    with pytest.raises(
        AuditError,
        match=r"expected space in .* for the images of a stream, found after 0 MiB that 1 MiB are left; set TMPDIR to a larger disk, or pass --max-images",
    ):
        Spool().add(b"x")


def test_a_loader_of_a_stream_has_to_give_it_as_it_is():
    stream = Stream([0, 1] * 4)
    assert len(opened(DataLoader(stream, batch_size=3)).labels) == 8
    for options, told in (({"collate_fn": list}, "a collate_fn of its own"), ({"drop_last": True, "batch_size": 3}, "drop_last")):
        with pytest.raises(DataError, match=f"found {told}"):
            opened(DataLoader(stream, **options))
