"""What a cell of `gcaudit compare` costs, and what the store and Ray add to it.

The store's part is measured with an engine that answers at once with the same block, so that all time is the driver's own.
"""

import dataclasses
import resource
import statistics
import time

import pytest
from conftest import seconds, spec_of

from gcaudit.audit.run import observe_block
from gcaudit.audit.spec import AuditSpec
from gcaudit.data.opening import open_data
from gcaudit.encoders.loading import load_encoder
from gcaudit.metrics.table import find_metrics, measure_evidence
from gcaudit.passes.observe import observe
from gcaudit.passes.runner import Runner
from gcaudit.store.identity import identify
from gcaudit.store.results import Store
from gcaudit.zoo.cells import CellRequest, Scheduler
from gcaudit.zoo.engine import LocalEngine, Task, Worker

MODELS, TARGETS = 100, 20
TASKS = 200


def demo(**fields):
    return AuditSpec.from_options(
        **{"model": "demo", "source": "demo", "target": "demo", "metrics": ("all",), "workers": 0} | fields
    )


class Parrot:
    """Answers every task at once: each model is another, and each block the same."""

    def __init__(self):
        spec = demo(metrics=None)
        encoder = load_encoder(spec.model)
        self._identity = identify(encoder, spec.model)
        runner = Runner(encoder, spec.run)
        self._blocks = {
            role: observe_block(demo(), role, open_data(spec.data_request(role)), runner) for role in ("source", "target")
        }

    def run(self, tasks):
        for task in tasks:
            if task.role is not None:
                yield task, self._blocks[task.role]
            else:
                model = self._identity.model.model_copy(update={"sha256": f"{abs(hash(task.spec.model)):064d}"})
                yield task, dataclasses.replace(self._identity, model=model)

    def close(self):
        pass


def test_what_the_driver_takes(benchmark, report, tmp_path):
    """Bound: twenty cells a second, first and second time."""
    cells = [
        CellRequest(
            f"model {model}", "demo", f"demo {500 - target}", demo(model=f"model{model}.pt", target_max_images=500 - target)
        )
        for model in range(MODELS)
        for target in range(TARGETS)
    ]
    engine = Parrot()
    store = Store(tmp_path / "gcaudit.db")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scheduler = Scheduler(store, engine, influences=("target.probe_accuracy",))
    first = seconds(lambda: benchmark.pedantic(lambda: scheduler.run(cells), rounds=1))
    again = seconds(lambda: Scheduler(store, engine, influences=("target.probe_accuracy",)).run(cells))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size = (tmp_path / "gcaudit.db").stat().st_size / 2**20
    count = len(cells)
    report(cells=count, first_ms=1e3 * first / count, again_ms=1e3 * again / count, memory_mib=grown, store_mib=size)
    assert first / count < 0.05
    assert again / count < 0.05


def test_what_ray_takes(benchmark, report, tmp_path):
    """Tasks without a pass, so that what is left is Ray's own; bound: 50 ms a task."""
    pytest.importorskip("ray")
    from gcaudit.zoo.engine_ray import RayEngine

    kept = tmp_path / "kept.safetensors"
    spec = demo(metrics=("cdnv",))
    Worker().carry_out(Task("first", spec, "target", "demo", kept, keep=True))
    tasks = [Task(str(number), spec, "target", "demo", kept, look=True) for number in range(TASKS)]
    local = seconds(lambda: list(LocalEngine().run(iter(tasks))))
    began = time.perf_counter()
    engine = RayEngine(None, None)
    start = time.perf_counter() - began
    try:
        list(engine.run(iter(tasks[:8])))
        wall = seconds(lambda: benchmark.pedantic(lambda: list(engine.run(iter(tasks))), rounds=1))
    finally:
        engine.close()
    report(tasks=TASKS, local_ms=1e3 * local / TASKS, ray_ms=1e3 * wall / TASKS, start_s=start)
    assert wall / TASKS < 0.05


@pytest.mark.parametrize("name", ["resnet20", "tf_efficientnet_lite0"])
def test_what_a_block_takes(benchmark, report, shared, device, name):
    """One model on 1000 images: loading, the pass over a source and over a target, the core metrics, and all of them."""
    file = str(shared / "data" / "cifar10" / "test.parquet")
    model, arch = spec_of(shared, name)
    size = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "input_size": 32} if name == "resnet20" else {}
    data = {"source": file, "source_max_images": 1000, "target": file, "target_max_images": 1000}
    spec = AuditSpec.from_options(model=model, arch=arch, device=str(device), metrics=("all",), **data, **size)
    loading = statistics.median(seconds(lambda: load_encoder(spec.model)) for _ in range(3))
    runner = Runner(load_encoder(spec.model), spec.run)
    found, passes = {}, {}
    for role in ("source", "target"):
        images = open_data(spec.data_request(role))

        def look(role=role, images=images):
            found[role] = observe(runner, images, spec.pass_settings(role))

        if role == "source":
            look()
        passes[role] = seconds(look, str(device))
    scores = {}
    for group in ("core", "all"):
        chosen = [metric for metric in find_metrics([group]) if "target" in metric.roles]
        evidence = dataclasses.replace(found["target"].evidence)
        scores[group] = seconds(lambda evidence=evidence, chosen=chosen: measure_evidence(evidence, chosen, spec.probe))
    benchmark.pedantic(look, rounds=1)
    report(load_s=loading, source_s=passes["source"], target_s=passes["target"], core_s=scores["core"], all_s=scores["all"])
    assert scores["core"] < passes["target"]
