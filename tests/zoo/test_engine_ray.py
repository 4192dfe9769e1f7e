"""Ray, on a real cluster of this machine: in a process of its own, since Ray leaves threads and files open."""

import json
import os
import sys
from types import SimpleNamespace

import pytest
from processes import finished

from gcaudit.audit.spec import AuditSpec
from gcaudit.zoo import engine_ray
from gcaudit.zoo.engine import LocalEngine, Task
from gcaudit.zoo.engine_ray import Board

pytest.importorskip("ray")

CLUSTER = """
import json, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from gcaudit.zoo.cells import CellRequest, Scheduler
from gcaudit.zoo.engine import LocalEngine
from gcaudit.zoo.engine_ray import RayEngine
from gcaudit.audit.spec import AuditSpec
from gcaudit.store.results import Store

MEMORY = 100 * 2**20
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False})
workers = [cluster.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(2)]
engine = RayEngine(cluster.address, None)
cells = [
    CellRequest(f"{layer}-{seed}", "demo", "demo", AuditSpec.from_options(model="demo", layer=layer, source="demo", target="demo", episodes=20, seed=seed))
    for seed in range(2) for layer in ("layer1", "layer2", "layer3", "layer4")
]
cells.append(CellRequest("bad", "demo", "demo", AuditSpec.from_options(model="nothing.pt", source="demo", target="demo")))
alive = []

def note(result, done, total):
    if done == 3:
        cluster.remove_node(workers[0], allow_graceful=False)
    alive.append(sum(node["Alive"] for node in ray.nodes()))

found = Scheduler(Store(Path(sys.argv[1]) / "ray.db"), engine).run(cells, note)
while sum(node["Alive"] for node in ray.nodes()) > 2:  # the cluster takes its time to call a node lost
    time.sleep(0.5)
alive.append(sum(node["Alive"] for node in ray.nodes()))
engine.close()
cluster.shutdown()
alone = Scheduler(Store(Path(sys.argv[1]) / "local.db"), LocalEngine()).run(cells)

def values(result):
    if result.report is None:
        return result.reason
    return {role: {n: v.value for n, v in block.metrics.items()} for role, block in result.report.blocks().items()}

print(json.dumps({"ray": [values(r) for r in found], "local": [values(r) for r in alone], "alive": alive}))
"""


def test_a_lost_worker_costs_nothing_but_time(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DISABLE_IMPORT_WARNING": "1"}
    command = [sys.executable, "-c", CLUSTER, str(tmp_path)]
    done = finished(command, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (max(found["alive"]), found["alive"][-1]) == (3, 2)
    assert "nothing.pt" in found["ray"][-1]
    assert found["ray"][-1] == found["local"][-1]
    for ours, theirs in zip(found["ray"][:-1], found["local"][:-1], strict=True):
        for role, numbers in theirs.items():
            assert ours[role] == pytest.approx(numbers, rel=1e-4), role


class FakeBoard:
    """Takes what an actor would take."""

    def __init__(self):
        self.board = Board()
        self.rows = []
        self.write = SimpleNamespace(remote=self._write)
        self.wipe = SimpleNamespace(remote=self.board.wipe)

    def _write(self, *row):
        self.rows.append(row)
        self.board.write(*row)


def test_a_worker_says_how_far_it_is_on_the_board_of_each_run(monkeypatch, tmp_path):
    monkeypatch.setattr(engine_ray, "_held", {})
    monkeypatch.setattr(engine_ray, "_LOOK_SECONDS", 0)
    monkeypatch.chdir(tmp_path)
    spec = AuditSpec.from_options(model="demo", source="demo", source_max_images=50, metrics=("cdnv",), batch_size=10)
    for title in ("first", "second"):  # each run has a board of its own, the worker stays
        board = FakeBoard()
        engine_ray.carry_out(Task(title, spec, "source", title), str(tmp_path), board)
        assert {(name, total) for _, name, _, total in board.rows} == {(title, 50)}
        assert [done for _, _, done, _ in board.rows] == [0, 10, 20, 30, 40, 50]
        assert board.board.read() == {}


def test_the_local_engine_takes_tasks_one_by_one():
    taken = []

    def tasks():
        for number in range(3):
            taken.append(number)
            yield (
                None if number == 1 else Task(str(number), AuditSpec.from_options(model="nothing.pt", source="demo"), None, "title")
            )

    outcomes = []
    for task, outcome in LocalEngine().run(tasks()):
        outcomes.append((task.key, len(taken)))
        assert "nothing.pt" in outcome.reason
    assert outcomes == [("0", 1), ("2", 3)]
