import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from processes import started

from gcaudit.audit.blocks import Block
from gcaudit.audit.run import run_audit
from gcaudit.audit.spec import AuditSpec
from gcaudit.errors import RequestError
from gcaudit.report.evidence import ReportEvidence
from gcaudit.report.warnings import warn
from gcaudit.store.results import Store, cell_key, content_hash, observations_folder


@pytest.fixture(scope="module")
def report():
    return run_audit(
        AuditSpec.from_options(model="demo", source="demo", target="demo", source_max_images=50, target_max_images=100, episodes=20)
    )


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "results.db")
    yield found
    found.close()


LINE = warn("left-out", "{n} files were left out ({names})", ["a", "b"])


def block_of(report, role="source"):
    influences = {name: values for name, values in report.evidence.influences.items() if name.startswith(role)}
    digests, perceptual = (np.arange(10 * width, dtype=np.uint8).reshape(10, width) for width in (16, 32))
    return Block(
        role, report.blocks()[role], ReportEvidence(influences, {}), digests, perceptual, "demo", (LINE,), {"device": "cpu"}, 1.5
    )


def test_blocks_come_back_as_they_were(store, report):
    block = block_of(report)
    store.put_block("key", "pass", block)
    found = store.get_block("key")
    assert found.data == block.data
    assert (found.role, found.family, found.warnings, found.used, found.seconds) == (
        "source",
        "demo",
        (LINE,),
        {"device": "cpu"},
        1.5,
    )
    np.testing.assert_array_equal(found.digests, block.digests)
    np.testing.assert_array_equal(found.perceptual, block.perceptual)
    assert set(found.evidence.influences) == set(block.evidence.influences) != set()
    for name, values in block.evidence.influences.items():
        np.testing.assert_allclose(found.evidence.influences[name], values, rtol=1e-6)
    assert store.get_block("another") is None


def test_reports_come_back_with_the_influences_of_both_blocks(store, report):
    store.put_block("s", "pass-s", block_of(report))
    store.put_block("t", "pass-t", block_of(report, "target"))
    store.put_failure("request", "demo", "demo", "demo", "it rained")
    assert [cell.reason for cell in store.cells()] == ["it rained"]
    store.put_report(report, "s", "t")
    store.drop_failure("request")
    found = store.get_report(cell_key("s", "t"))
    assert found.to_json() == report.to_json()
    assert set(found.evidence.influences) == set(report.evidence.influences)
    (cell,) = store.cells()
    assert (cell.report.to_json(), cell.reason, cell.model) == (report.to_json(), None, "demo")


def test_what_is_written_is_there_for_the_next_process(store, report):
    store.put_block("s", "p", block_of(report))
    store.put_model("question", {"sha256": "ab"})
    again = Store(store.path)
    assert again.has_block("s")
    assert again.get_model("question") == {"sha256": "ab"}
    assert again.get_model("other") is None
    again.close()


def test_a_store_is_in_wal_mode(store):
    assert sqlite3.connect(store.path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_removing_cells_takes_blocks_and_embeddings_that_nothing_needs(store, report):
    for key in ("s", "t", "u"):
        store.put_block(key, f"pass-{key}", block_of(report))
    folder = observations_folder(store.path)
    folder.mkdir()
    for key in ("s", "t", "u"):
        (folder / f"pass-{key}.safetensors").write_bytes(b"")
    store.put_report(report, "s", "t")
    store.put_report(report, "s", "u")
    assert store.remove([cell_key("s", "t")]) == 1
    assert [store.has_block(key) for key in ("s", "t", "u")] == [True, False, True]
    assert sorted(path.stem for path in folder.iterdir()) == ["pass-s", "pass-u"]
    assert store.get_report(cell_key("s", "u")) is not None


def test_choosing_cells_to_remove(store, report):
    store.put_block("s", "p", block_of(report))
    store.put_report(report, "s", None)
    store.put_failure("r2", "runs/a.pt", "demo", None, "no such file")
    key = cell_key("s", None)
    assert store.choose(failed=True, model=None, older_than=None) == ["r2"]
    assert store.choose(failed=False, model="demo", older_than=None) == [key]
    assert store.choose(failed=False, model="runs/*", older_than=None) == ["r2"]
    assert store.choose(failed=False, model="timm:test_*", older_than=None) == [key]
    assert store.choose(failed=False, model=None, older_than=1) == []
    assert set(store.choose(failed=False, model=None, older_than=-1)) == {key, "r2"}


def test_cells_are_found_by_the_start_of_their_key(store, report):
    store.put_block("s", "p", block_of(report))
    store.put_report(report, "s", None)
    assert store.find(cell_key("s", None)[:8]).report.to_json() == report.to_json()
    with pytest.raises(RequestError, match="found 0 cells for 'zz'"):
        store.find("zz")


@pytest.mark.parametrize("content", [b"this is no database, and long enough to be seen as such" * 20, b""])
def test_what_is_no_store_is_told(tmp_path, content):
    path = tmp_path / "x.db"
    path.write_bytes(content)
    if content:
        with pytest.raises(RequestError, match=r"x\.db: expected a store of results"):
            Store(path)
        assert path.read_bytes() == content
    else:
        Store(path).close()


def test_another_database_is_left_alone(tmp_path):
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (n)")
    with pytest.raises(RequestError, match="found another database; pass another --store"):
        Store(path)
    assert sqlite3.connect(path).execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_store_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RequestError, match="found none; run gcaudit compare first"):
        Store(tmp_path / "no.db", create=False)


def test_many_threads_of_writers_lose_nothing(tmp_path, report):
    path = tmp_path / "x.db"
    Store(path).close()

    def write(number):
        own = Store(path)
        for turn in range(5):
            own.put_failure(f"{number}-{turn}", "m", "s", None, "why")
        own.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    found = Store(path)
    assert len(found.cells()) == 20
    found.close()


PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
CLAIMER = """
import sys
from pathlib import Path
from gcaudit.store.claims import Claims
claims = Claims(Path(sys.argv[1]))
print(claims.claim(sys.argv[2]), flush=True)
sys.stdin.read()  # until it is ended
"""


def test_claims_hold_between_processes_and_end_with_their_process(tmp_path):
    from gcaudit.store.claims import Claims

    path, key, other = tmp_path / "claims", content_hash("a"), content_hash("b")
    ours = Claims(path)
    with started([sys.executable, "-c", CLAIMER, str(path), key], **PIPES) as process:
        assert process.stdout.readline() == "True\n"
        assert not ours.claim(key)
        assert ours.claim(other)
        process.send_signal(signal.SIGKILL)
    assert ours.claim(key)
    ours.release(key)
    with started([sys.executable, "-c", CLAIMER, str(path), key], **PIPES) as process:
        assert process.stdout.readline() == "True\n"
    ours.close()


def test_keys_do_not_depend_on_the_order_of_keys():
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1}) != content_hash({"a": 1, "b": [3]})


def test_a_file_of_claims_that_cannot_be_written_is_told_at_once(tmp_path):
    (tmp_path / "results.db-claims").mkdir()
    store = Store(tmp_path / "results.db")
    with pytest.raises(
        RequestError, match="expected a file of claims that can be written, found Is a directory; remove it, or pass"
    ):
        store.claims.claim("0" * 64)
    store.close()


def test_a_store_through_a_link_has_the_same_claims(tmp_path):
    Store(tmp_path / "results.db").close()
    (tmp_path / "linked.db").symlink_to(tmp_path / "results.db")
    store = Store(tmp_path / "linked.db")
    store.claims.claim("0" * 64)
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["linked.db", "results.db", "results.db-claims"]


@pytest.mark.parametrize("name", [":memory:", "file:results.db?mode=memory"])
def test_names_that_sqlite_takes_for_more_are_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Store(Path(name)).close()
    assert (tmp_path / name).is_file()
