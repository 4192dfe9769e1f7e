import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import GUARD_SECONDS, started
from safetensors.torch import load_file, save_file

from gcaudit.audit.run import run_audit
from gcaudit.audit.spec import AuditSpec
from gcaudit.bundled.files import bundled_path
from gcaudit.store.observations import load_observation, save_observation
from gcaudit.store.results import Store, observations_folder
from gcaudit.zoo import engine as engine_module
from gcaudit.zoo.cells import CellRequest, Scheduler
from gcaudit.zoo.engine import LocalEngine

SMALL = {"source_max_images": 50, "target_max_images": 100, "episodes": 20}


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(bundled_path("demo-model"), tmp_path / "model")


def perturb(folder, seed=0):
    weights = load_file(folder / "model.safetensors")
    name = "layer1.0.conv1.weight"
    noise = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(seed))
    weights[name] = weights[name] + weights[name].std() * noise
    save_file(weights, folder / "model.safetensors")


def cell(model, source="demo", target="demo", **fields):
    spec = AuditSpec.from_options(model=str(model), source=source, target=target, **{**SMALL, **fields})
    return CellRequest(Path(str(model)).name, source, target, spec)


class Spy:
    """Counts what really goes through a network, and what is loaded."""

    def __init__(self, monkeypatch):
        self.passes, self.loads = [], []
        observe, load = engine_module.observe, engine_module.load_encoder

        def spied(runner, images, settings, progress=None):
            self.passes.append((runner.encoder.spec, images.spec))
            return observe(runner, images, settings, progress)

        monkeypatch.setattr(engine_module, "observe", spied)
        monkeypatch.setattr(engine_module, "load_encoder", lambda request: self.loads.append(request.spec) or load(request))


@pytest.fixture
def spy(monkeypatch):
    return Spy(monkeypatch)


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "results.db")
    yield found
    found.close()


def fill(store, *cells, **options):
    return Scheduler(store, LocalEngine(), **options).run(cells)


def metrics(report):
    return {role: block.metrics for role, block in report.blocks().items()}


def test_a_cell_is_the_report_of_an_audit(store, model, spy):
    (found,) = fill(store, cell(model))
    alone = run_audit(cell(model).spec)
    assert metrics(found.report) == metrics(alone)
    assert found.report.model == alone.model
    assert found.report.warnings == alone.warnings
    assert found.fresh
    assert {name: len(values) for name, values in found.report.evidence.influences.items()} == {
        name: len(values) for name, values in alone.evidence.influences.items()
    }


def test_a_second_run_loads_nothing_and_measures_nothing(store, model, spy):
    (first,) = fill(store, cell(model))
    spy.passes.clear(), spy.loads.clear()
    (second,) = fill(store, cell(model))
    assert (spy.passes, spy.loads, second.fresh) == ([], [], False)
    assert second.report.to_json() == first.report.to_json()


def test_a_source_is_looked_at_once_for_all_targets(store, model, spy):
    fill(store, cell(model), cell(model, target_max_images=90), cell(model, target=str(bundled_path("demo-train.parquet"))))
    assert len(spy.passes) == 4
    fill(store, cell(model, target_classes="0-3", n_way=3))
    assert len(spy.passes) == 5


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({"episodes": 30}, 1),
        ({"n_shot": (1, 5)}, 1),
        ({"gc": "exact"}, 1),
        ({"seed": 1}, 2),
        ({"source_max_images": 60}, 1),
        ({"layer": "layer4"}, 2),
        ({"mean": (0.3,)}, 2),
        ({"precision": "float64"}, 2),
        ({"metrics": ("cdnv",)}, 2),
        ({"input_space": "normalized"}, 1),
        ({"device": "cpu", "batch_size": 7, "workers": 0}, 0),
    ],
)
def test_what_changes_a_number_is_measured_again_and_nothing_else(store, model, spy, fields, passes):
    fill(store, cell(model))
    spy.passes.clear()
    (found,) = fill(store, cell(model, **fields))
    assert len(spy.passes) == passes
    assert found.reason is None


def test_other_weights_are_another_model_and_the_same_elsewhere_are_not(store, model, spy, tmp_path):
    (first,) = fill(store, cell(model))
    moved = shutil.copytree(model, tmp_path / "moved")
    spy.passes.clear()
    fill(store, cell(moved))
    assert spy.passes == []
    stamp = (model / "model.safetensors").stat()
    perturb(model)
    os.utime(model / "model.safetensors", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (second,) = fill(store, cell(model))
    assert len(spy.passes) == 2
    assert second.report.source.metrics["gc"].value != first.report.source.metrics["gc"].value


def test_other_images_in_the_same_place_are_other_data(store, model, spy, tmp_path):
    data = tmp_path / "data.parquet"
    shutil.copy(bundled_path("demo-train.parquet"), data)
    fill(store, cell(model, source=str(data)))
    shutil.copy(bundled_path("demo-test.parquet"), data)
    spy.passes.clear()
    fill(store, cell(model, source=str(data)))
    assert len(spy.passes) == 1


def test_the_users_own_code_is_part_of_the_key(store, spy, tmp_path):
    code = tmp_path / "net.py"
    text = "from torch import nn\ndef make(n=5):\n    return nn.Sequential(nn.Flatten(), nn.Linear(2352, 8), nn.{}(), nn.Linear(8, n))\n"
    code.write_text(text.format("ReLU"))
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2352, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    own = {"arch": f"{code}:make", "input_size": (28, 28), "mean": (0.3,), "std": (0.3,)}
    (found,) = fill(store, cell(tmp_path / "net.pt", **own))
    assert found.reason is None
    spy.passes.clear()
    code.write_text(text.format("Tanh"))
    fill(store, cell(tmp_path / "net.pt", **own))
    assert len(spy.passes) == 2


def test_refresh_measures_again(store, model, spy):
    fill(store, cell(model))
    (found,) = fill(store, cell(model), refresh=True)
    assert len(spy.passes) == 4
    assert found.fresh


def test_a_failed_cell_leaves_the_others_alone_and_is_tried_again(store, model, tmp_path):
    told = []
    cells = [cell(tmp_path / "later"), cell(model), cell(model, target="no-such-data"), cell(model, target_classes="0-1")]
    found = Scheduler(store, LocalEngine()).run(
        cells, lambda result, done, total: told.append((result.reason is None, done, total))
    )
    reasons = [result.reason for result in found]
    assert "no file" in reasons[0] or "nothing there" in reasons[0]
    assert reasons[1] is None
    assert "no-such-data" in reasons[2]
    assert "--n-way" in reasons[3]
    assert [entry[1:] for entry in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert sum(row.reason is not None for row in store.cells()) == 3
    shutil.copytree(model, tmp_path / "later")
    assert fill(store, cells[0])[0].reason is None
    assert sum(row.reason is not None for row in store.cells()) == 2


def test_a_defect_in_one_cell_is_a_reason(store, model, monkeypatch):
    observe = engine_module.observe

    def broken(runner, images, settings, progress=None):
        if len(images.labels) == 100:
            raise ZeroDivisionError("of its own making")
        return observe(runner, images, settings, progress)

    monkeypatch.setattr(engine_module, "observe", broken)
    monkeypatch.delenv("GCAUDIT_DEBUG", raising=False)
    (found, other) = fill(store, cell(model), cell(model, target_max_images=120))
    assert found.reason == "internal error: ZeroDivisionError: of its own making"
    assert other.reason is None


def test_kept_embeddings_give_a_new_metric_without_a_pass(store, model, spy):
    fill(store, cell(model, metrics=("gc", "cdnv", "probe_accuracy")), keep=True)
    assert len(list(observations_folder(store.path).iterdir())) == 2
    spy.passes.clear()
    (found,) = fill(store, cell(model))
    assert spy.passes == []
    fresh = run_audit(cell(model).spec)
    for role, values in metrics(fresh).items():
        for name, value in values.items():
            assert metrics(found.report)[role][name].value == pytest.approx(value.value, rel=1e-12), name
    scores = cell(model, metrics=("gc", "leep", "nce"))
    (found,) = fill(store, scores)
    assert spy.passes == []
    fresh = run_audit(scores.spec).target.metrics["leep"]
    assert found.report.target.metrics["leep"].value == pytest.approx(fresh.value, rel=1e-9)


def test_observations_come_back_as_they_were(tmp_path, model):
    from gcaudit.data.opening import open_data
    from gcaudit.encoders.loading import load_encoder
    from gcaudit.passes.observe import observe
    from gcaudit.passes.runner import Runner

    spec = cell(model).spec
    found = observe(
        Runner(load_encoder(spec.model), spec.run),
        open_data(spec.source),
        spec.pass_settings("source"),
    )
    save_observation(tmp_path / "x" / "o.safetensors", found, {"device": "cpu"})
    again, used = load_observation(tmp_path / "x" / "o.safetensors")
    assert used == {"device": "cpu"}
    assert torch.equal(again.evidence.embeddings, found.evidence.embeddings)
    assert torch.equal(again.evidence.moments.means, found.evidence.moments.means)
    assert torch.equal(again.evidence.energies, found.evidence.energies)
    np.testing.assert_array_equal(again.digests, found.digests)
    np.testing.assert_array_equal(again.perceptual, found.perceptual)
    assert (again.evidence.fingerprint, again.seconds, again.warnings) == (
        found.evidence.fingerprint,
        found.seconds,
        found.warnings,
    )
    raw = bytearray((tmp_path / "x" / "o.safetensors").read_bytes())
    raw[-5] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(raw)
    assert load_observation(tmp_path / "flipped.safetensors") is None
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    assert load_observation(tmp_path / "bad.safetensors") is None
    assert load_observation(tmp_path / "none.safetensors") is None


PROCESS = """
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from gcaudit.zoo import engine
from gcaudit.zoo.cells import CellRequest, Scheduler
from gcaudit.audit.spec import AuditSpec
from gcaudit.store.results import Store
observe, count = engine.observe, [0]
def spied(*arguments):
    count[0] += 1
    return observe(*arguments)
engine.observe = spied
cells = [
    CellRequest(layer, "demo", "demo", AuditSpec.from_options(model="demo", layer=layer, source="demo", target="demo", episodes=20, gc="exact", gc_rtol=0))
    for layer in ("layer1", "layer2", "layer3", "layer4")
]
store = Store(Path(sys.argv[1]))
found = Scheduler(store, engine.LocalEngine()).run(cells)
assert all(result.report is not None for result in found), [result.reason for result in found]
print(count[0])
"""


def test_two_processes_share_the_work(tmp_path):
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "x.db")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        both = [stack.enter_context(started(command, stdout=subprocess.PIPE, text=True, env=environment)) for _ in range(2)]
        counts = [int(process.communicate(timeout=GUARD_SECONDS)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(counts) == 8, counts


HOLDER = """
import sys
from pathlib import Path
from gcaudit.store.results import Store
store = Store(Path(sys.argv[1]))
print(store.claims.claim(sys.argv[2]), flush=True)
sys.stdin.read()  # until it is ended
"""


@pytest.fixture
def elsewhere(store, model, tmp_path):
    """Another process that has the source's block of a cell under way, and the cell."""
    request = cell(model, target=None, target_max_images=None)
    (done,) = fill(Store(tmp_path / "other.db"), request)
    assert done.report is not None
    (row,) = sqlite3.connect(tmp_path / "other.db").execute("SELECT key FROM blocks")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with started([sys.executable, "-c", HOLDER, str(store.path), row[0]], **pipes) as process:
        assert process.stdout.readline() == "True\n"
        yield process, request


def test_waiting_for_another_process_is_told_and_ends(store, elsewhere):
    process, request = elsewhere
    said = []
    (found,) = fill(store, request, max_wait=0.001, say=said.append)
    assert found.report is None
    assert (
        f"expected process {process.pid} to finish what it has under way on the same store, waited for 0.001 minutes"
        in found.reason
    )
    assert "or raise --max-wait" in found.reason
    assert len(said) == 1
    assert f"for process {process.pid}, which has 1 of the blocks under way" in said[0]


def test_what_a_process_that_was_waited_for_leaves_is_done(store, elsewhere):
    process, request = elsewhere
    (found,) = fill(store, request, say=lambda _line: process.kill())
    assert found.report is not None


def test_pruning_leaves_the_blocks_of_processes_that_work_on_the_store(store, elsewhere, spy):
    _, request = elsewhere
    request = replace(request, spec=replace(request.spec, metrics=("gc",)))
    assert fill(store, request)[0].fresh
    other = Store(store.path)
    pruned = other.prune()
    other.close()
    assert (pruned.removed, pruned.left, store.cells()) == (1, True, [])
    assert not fill(store, request)[0].fresh
    assert len(spy.passes) == 1


def test_a_cell_that_is_pruned_while_its_ranking_is_made_is_there(store, model):
    request = cell(model, target=None, target_max_images=None)
    scheduler = Scheduler(store, LocalEngine())
    other = Store(store.path)
    (found,) = scheduler.run([request], lambda *_: other.prune())
    other.close()
    assert found.report is not None


def folder_with_a_note(tmp_path, model):
    """Class folders, and a cell that reads them."""
    data = tmp_path / "photos"
    for number in range(40):
        place = data / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(place)
    return data, cell(model, source=str(data), target=None, target_max_images=None)


def test_what_a_stored_report_says_is_what_is_so_today(store, model, tmp_path, spy):
    data, request = folder_with_a_note(tmp_path, model)
    (before,) = fill(store, request)
    (data / "a" / "notes.txt").write_text("not a picture")
    (after,) = fill(store, request)
    assert (len(spy.passes), after.fresh) == (1, False)
    assert metrics(after.report) == metrics(before.report)
    (added,) = set(after.report.warnings) - set(before.report.warnings)
    assert (added.kind, added.count) == ("left-out", 1)
    (data / "a" / "notes.txt").unlink()
    assert fill(store, request)[0].report.warnings == before.report.warnings
    assert len(store.cells()) == 1


def test_strict_lets_cells_fail_that_would_warn(store, model, tmp_path, spy):
    data, request = folder_with_a_note(tmp_path, model)
    (data / "a" / "notes.txt").write_text("not a picture")
    (failed,) = fill(store, request, strict=True)
    assert failed.report is None
    assert "leave --strict out to go on" in failed.reason
    assert spy.passes == []
    (done,) = fill(store, request)
    assert done.report is not None
    (again,) = fill(store, request, strict=True)
    assert (again.report, again.reason) == (None, failed.reason)


def test_strict_knows_what_comes_up_in_a_pass(store, model, spy):
    options = {"target": str(bundled_path("demo-test.parquet"))}
    (failed,) = fill(store, cell(model, source="demo", source_split="test", **options), strict=True)
    assert "leave --strict out" in failed.reason
    assert len(spy.passes) == 2
    assert fill(store, cell(model, **options, source_split="test"))[0].report is not None
    assert len(spy.passes) == 2


def replacing(monkeypatch, name, change):
    """Let something happen after all has been named and before it is measured."""
    original = getattr(engine_module, name)

    def changed(*arguments, **options):
        change()
        return original(*arguments, **options)

    monkeypatch.setattr(engine_module, name, changed)


def test_data_that_change_between_naming_and_use_fail_the_cell(store, model, tmp_path, monkeypatch):
    data, request = folder_with_a_note(tmp_path, model)
    other = np.random.default_rng(99).integers(0, 256, (28, 28), dtype=np.uint8)
    replacing(monkeypatch, "observe", lambda: Image.fromarray(other).save(data / "a" / "0.png"))
    (found,) = fill(store, request, keep=True)
    assert found.reason == f"{data}: the data have changed since the comparison began; run it again"
    assert not list(observations_folder(store.path).glob("*"))
    monkeypatch.undo()
    (again,) = fill(store, request)
    assert (again.report is not None, again.fresh) == (True, True)


def test_a_model_that_changes_between_naming_and_use_fails_the_cell(store, model, monkeypatch):
    fill(store, cell(model))
    done = []

    def change():
        if not done:
            done.append(perturb(model))

    monkeypatch.setattr("gcaudit.zoo.cells.model_question", lambda _request: "one question")
    fill(store, cell(model))
    replacing(monkeypatch, "load_encoder", change)
    (found,) = fill(store, cell(model, episodes=21, source_max_images=60))
    assert found.reason == f"{model}: the file has changed since the comparison began; run it again"


def test_a_picture_that_cannot_be_read_fails_its_cell_alone(store, model, tmp_path):
    data, request = folder_with_a_note(tmp_path, model)
    (data / "a" / "gone.png").symlink_to(tmp_path / "nowhere")
    found = fill(store, request, cell(model))
    assert "gone.png" in found[0].reason
    assert "--skip-bad-images" in found[0].reason
    assert found[1].report is not None
    (left_out,) = fill(store, cell(model, source=str(data), target=None, skip_bad_images=True))
    assert [warning.kind for warning in left_out.report.warnings if warning.kind == "left-out"] == ["left-out"]


def test_a_damaged_block_never_makes_a_report_of_the_other(model, tmp_path, monkeypatch):
    """A cell of which one block cannot be read fails, with what to do; the next run measures it again."""
    store = Store(tmp_path / "results.sqlite")
    read = Store.get_block
    monkeypatch.setattr(
        Store,
        "get_block",
        lambda self, key, *rest: (found := read(self, key, *rest)) and (found if found.role == "target" else None),
    )
    (failed,) = Scheduler(store, LocalEngine()).run([cell(model)])
    assert failed.report is None
    assert failed.reason.endswith(f"expected what was measured of {model.name}: demo -> demo, found it damaged; run it again")
    monkeypatch.undo()
    (mended,) = Scheduler(store, LocalEngine()).run([cell(model)])
    assert mended.report.target is not None
