import errno

import pytest
import torch

from gcaudit.errors import AuditError
from gcaudit.passes import embeddings
from gcaudit.passes.embeddings import EmbeddingFile, EmbeddingStore


@pytest.mark.parametrize("memory", [0, 10**9], ids=["file", "memory"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_rows_come_back_in_the_order_of_their_places(memory, kind):
    values = torch.randn(20, 3, dtype=kind)
    store = EmbeddingStore(20, 3, kind, memory)
    places = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    for part in places.split(7):
        store.put(part, values[part])
    rows = store.rows(torch.ones(20, dtype=torch.bool))
    assert isinstance(rows, EmbeddingFile) == (memory == 0)
    assert tuple(rows.shape) == (20, 3)
    assert rows.dtype == kind
    assert torch.equal(rows[slice(4, 9)], values[4:9])
    assert torch.equal(rows[slice(15, 99)], values[15:])
    assert torch.equal(rows[torch.tensor([7, 0, 7])], values[[7, 0, 7]])


@pytest.mark.parametrize("memory", [0, 10**9], ids=["file", "memory"])
def test_places_that_were_not_filled_are_left_out(memory):
    values = torch.randn(9, 2)
    store = EmbeddingStore(9, 2, torch.float32, memory)
    seen = torch.ones(9, dtype=torch.bool)
    seen[[0, 5]] = False
    store.put(seen.nonzero().flatten(), values[seen])
    rows = store.rows(seen)
    assert tuple(rows.shape) == (7, 2)
    assert torch.equal(rows[slice(0, 7)], values[seen])
    assert torch.equal(rows[torch.tensor([6, 4])], values[seen][[6, 4]])


def test_the_file_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = EmbeddingFile(5, 2, torch.float32)
    rows.put(torch.arange(5), torch.ones(5, 2))
    assert len(rows) == 5
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_the_pass(monkeypatch):
    monkeypatch.setattr(embeddings.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(AuditError, match=r"for 100 embeddings of 50, found 0\.0; set TMPDIR"):
        EmbeddingFile(100, 50, torch.float32)


def test_a_disk_that_cannot_keep_them_is_told(monkeypatch, tmp_path):
    def full(_fd, _start, _size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(AuditError, match="for 4 embeddings of 2: No space left on device; set TMPDIR"):
        EmbeddingFile(4, 2, torch.float32)


def test_a_disk_that_cannot_reserve_is_used_as_it_is(monkeypatch):
    def unknown(_fd, _start, _size):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("os.posix_fallocate", unknown)
    rows = EmbeddingFile(4, 2, torch.float32)
    rows.put(torch.arange(4), torch.ones(4, 2))
    assert torch.equal(rows[slice(0, 4)], torch.ones(4, 2))


def test_what_was_read_stays_when_more_is_written():
    rows = EmbeddingFile(4, 2, torch.float32)
    before = rows[slice(0, 4)]
    rows.put(torch.arange(4), torch.ones(4, 2))
    assert not before.any()
