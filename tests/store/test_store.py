import io
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
from processes import GUARD_SECONDS, started

from gcaudit.audit.blocks import Block
from gcaudit.audit.run import run_audit
from gcaudit.audit.spec import AuditSpec
from gcaudit.errors import AuditError, RequestError
from gcaudit.report.evidence import ReportEvidence
from gcaudit.report.warnings import warn
from gcaudit.store.cells import cell_key, content_hash, find_cell
from gcaudit.store.repair import repair_store
from gcaudit.store.results import Store, damage_of, observations_folder
from gcaudit.store.rows import digest_of


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
    later = report.model_copy(update={"created": "2999-01-01T00:00:00Z"})
    store.put_report(later, "s", "u")
    pruned = store.prune(older_than=-1)
    assert (pruned.removed, pruned.left) == (1, False)
    assert [store.has_block(key) for key in ("s", "t", "u")] == [True, False, True]
    assert sorted(path.stem for path in folder.iterdir()) == ["pass-s", "pass-u"]
    assert store.get_report(cell_key("s", "u")) is not None
    assert sqlite3.connect(store.path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


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
    assert find_cell(store.cells(), cell_key("s", None)[:8]).report.to_json() == report.to_json()
    with pytest.raises(RequestError, match="found no cells for 'zz'; see gcaudit results list"):
        find_cell(store.cells(), "zz")
    store.put_report(report, "s", "t", ("mine", "photos", "birds"))
    keys = [cell_key("s", None), cell_key("s", "t")]
    with pytest.raises(RequestError, match=rf"found 2 cells for ''; it may be .*{keys[1][:12]} \(mine: photos -> birds\)"):
        find_cell(store.cells(), "")


def test_a_cell_is_called_as_it_was_last(store, report):
    store.put_block("s", "p", block_of(report))
    store.put_report(report, "s", None, ("mine", "photos", None))
    assert store.get_names(cell_key("s", None)) == ("mine", "photos", None)
    (cell,) = store.cells()
    assert (cell.model, cell.source, cell.report.model.spec) == ("mine", "photos", report.model.spec)
    assert store.choose(model="mine") == store.choose(model=report.model.spec) == [cell.key]
    assert store.choose(model="other") == []
    store.put_report(report, "s", None)
    assert store.get_names(cell_key("s", None)) == (report.model.spec, report.source.spec, report.target.spec)
    assert store.get_names("nothing") is None


@pytest.mark.parametrize("content", [b"this is no database, and long enough to be seen as such" * 20, b""])
def test_what_is_no_store_is_told(tmp_path, content):
    path = tmp_path / "x.db"
    path.write_bytes(content)
    if content:
        with pytest.raises(
            RequestError, match=r"x\.db: expected a store of results of version 2, found another file; pass another"
        ):
            Store(path)
        assert path.read_bytes() == content
    else:
        Store(path).close()


def test_another_database_is_left_alone(tmp_path):
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (n)")
    content = path.read_bytes()
    for opening in (Store, repair_store):
        with pytest.raises(RequestError, match="found another database; pass another --store"):
            opening(path)
    assert path.read_bytes() == content
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


def test_a_store_of_a_newer_version_is_left_alone(store):
    store.close()
    with closing(sqlite3.connect(store.path)) as database:
        database.execute("PRAGMA user_version=9")
        with pytest.raises(RequestError, match="found version 9"):  # also while it waits beside the file
            Store(store.path)
    content = store.path.read_bytes()
    for opening in (Store, repair_store):
        with pytest.raises(RequestError, match="expected a store of results of version 2, found version 9, of a newer gcaudit"):
            opening(store.path)
    assert store.path.read_bytes() == content


@pytest.fixture
def filled(store, report):
    for key in ("s", "t", "u"):
        store.put_block(key, f"pass-{key}", block_of(report))
    store.put_report(report, "s", "t")
    store.put_report(report, "s", "u")
    store.put_failure("r", "m", "s", None, "it rained")
    return store


@pytest.mark.parametrize(
    ("statement", "lost"),
    [
        ("UPDATE blocks SET content = replace(content, 'demo', 'dema') WHERE key = 't'", "t"),
        ("UPDATE blocks SET arrays = zeroblob(length(arrays)) WHERE key = 't'", "t"),
        ("UPDATE blocks SET seconds = 'long' WHERE key = 't'", "t"),
        ("UPDATE blocks SET digest = x'00' WHERE key = 't'", "t"),
        ("UPDATE blocks SET key = 'x' WHERE key = 't'", "t"),
    ],
)
def test_a_row_that_is_not_as_it_was_written_is_missing(filled, report, statement, lost):
    with closing(sqlite3.connect(filled.path, isolation_level=None)) as other:
        other.execute(statement)
    again = Store(filled.path)
    assert [again.has_block(key) for key in ("s", "t", "u", "x")] == [True, False, True, False]
    assert again.get_block(lost) is None
    assert again.damaged == 1
    assert damage_of(again).startswith(
        f"1 rows of {filled.path} are damaged and were taken for missing; run gcaudit results repair"
    )
    again.put_block("t", "pass-t", block_of(report))
    assert again.has_block("t")
    again.close()


@pytest.mark.parametrize("table", ["cells", "failures"])
def test_junk_rows_keep_nothing_from_being_listed_pruned_and_repaired(filled, table):
    with closing(sqlite3.connect(filled.path, isolation_level=None)) as other:
        width = len(other.execute(f"SELECT * FROM {table}").description)
        other.execute(f"INSERT INTO {table} VALUES ({', '.join(['?'] * width)})", (b"\xff", *[1.5] * (width - 1)))
    assert len(filled.cells()) == 3
    assert filled.damaged == 1
    filled.close()
    assert repair_store(filled.path).lost[table] == 1
    again = Store(filled.path)
    assert again.prune().removed == 3
    assert again.damaged == 0
    again.close()


def contents(path):
    """All that a store gives, by key."""
    store = Store(path)
    try:
        found = {f"block {key}": block.data for key in ("s", "t", "u") if (block := store.get_block(key)) is not None}
        return found | {f"cell {cell.key}": (cell.report, cell.reason) for cell in store.cells()}
    finally:
        store.close()


def attempt(what, refusal):
    """What comes of it; None where it is refused as it should be."""
    try:
        return what()
    except RequestError as error:
        found = str(error)
    assert re.search(refusal, found), found
    return None


def test_bits_that_flip_change_no_result(filled, tmp_path):
    filled.close()
    good, truth = filled.path.read_bytes(), contents(filled.path)
    assert len(truth) == 6
    rng = random.Random(0)
    outcomes = Counter()
    for number in range(150):
        path = tmp_path / str(number) / "x.db"
        path.parent.mkdir()
        raw = bytearray(good)
        for _ in range(rng.choice((1, 1, 8))):
            raw[rng.randrange(4096 if number % 3 == 0 else len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(raw)
        found = attempt(lambda path=path: contents(path), "results repair|pass another --store")
        assert found is None or found.items() <= truth.items()
        outcomes["refused" if found is None else "whole" if len(found) == len(truth) else "missing"] += 1
        repair = attempt(lambda path=path: repair_store(path), "pass another --store")
        if repair is None:
            continue
        assert contents(path).items() <= truth.items()
        if repair.moved is not None:
            assert repair.moved.read_bytes()[100:] == bytes(raw)[100:]
            outcomes["repaired"] += 1
            outcomes["rows"] += sum(repair.kept.values())
    assert min(outcomes[kind] for kind in ("refused", "whole", "missing", "repaired")) > 0
    assert outcomes["rows"] > 2 * outcomes["repaired"], outcomes


def test_a_truncated_store_is_told_and_repaired(filled):
    filled.close()
    truth = contents(filled.path)
    raw = filled.path.read_bytes()
    filled.path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(RequestError, match=r"expected a sound store, found it damaged \(.+\); run gcaudit results repair --store "):
        contents(filled.path)
    repair = repair_store(filled.path)
    assert repair.moved.name == "results.db.damaged"
    assert contents(filled.path).items() <= truth.items()


def test_a_sound_store_is_not_written_anew(filled):
    filled.close()
    before = filled.path.stat().st_ino
    repair = repair_store(filled.path)
    assert (dict(repair.kept), repair.moved) == ({"blocks": 3, "cells": 2, "failures": 1, "models": 0}, None)
    assert filled.path.stat().st_ino == before


def test_a_store_in_use_is_not_repaired_nor_pruned_of_blocks(filled):
    with pytest.raises(RequestError, match="expected a store that no process uses, found it open in another; end that first"):
        repair_store(filled.path)
    again = Store(filled.path)
    assert again.prune(failed=True).left
    assert [again.has_block(key) for key in ("s", "t", "u")] == [True, True, True]
    again.close()


def test_a_full_disk_is_told_and_loses_nothing(filled, report):
    filled._db._db.execute("PRAGMA max_page_count=1")  # as many as there are

    def fill():
        for number in range(99):
            filled.put_block(str(number), "pass", block_of(report))

    with pytest.raises(
        AuditError, match="expected to keep results in the store: database or disk is full; free the disk"
    ) as caught:
        fill()
    assert caught.value.exit_code == 3
    assert len(contents(filled.path)) == 6


def test_arrays_that_claim_gigabytes_are_a_miss(filled):
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("digests.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, {"shape": (2**31,), "fortran_order": False, "descr": "|u1"})
        for _ in range(2**7):
            member.write(bytes(2**24))
    row = list(sqlite3.connect(filled.path).execute("SELECT * FROM blocks WHERE key = 't'").fetchone())[:-1]
    filled._db.put("blocks", (*row[:-2], digest_of(buffer.getvalue()), buffer.getvalue()))
    tracemalloc.start()
    again = Store(filled.path)
    assert again.get_block("t") is None
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
    again.close()


def test_statistics_of_sqlite_are_no_damage(filled):
    with closing(sqlite3.connect(filled.path, isolation_level=None)) as other:
        other.execute("ANALYZE")
    assert len(contents(filled.path)) == 6


OPENER = """
import sys
from pathlib import Path
from gcaudit.store.results import Store
for number in range(int(sys.argv[2])):
    store = Store(Path(sys.argv[1], f"{number}.db"))
    store.put_failure(sys.argv[3], "m", "s", None, "why")
    if sys.argv[3] == "0":
        store.prune(failed=True)
    store.close()
"""


def test_processes_that_come_at_once_make_one_store(tmp_path):
    commands = [[sys.executable, "-c", OPENER, str(tmp_path), "15", str(number)] for number in range(3)]
    with ExitStack() as stack:
        several = [stack.enter_context(started(command, stderr=subprocess.PIPE, text=True)) for command in commands]
        said = [process.communicate(timeout=GUARD_SECONDS)[1] for process in several]
    assert said == ["", "", ""]
