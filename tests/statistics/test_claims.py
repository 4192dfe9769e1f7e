"""Intervals, letters and gates keep their word on real embeddings. Each takes minutes: `pytest -m slow tests/statistics`."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import gcaudit

METRICS = ("gc", "relative_gc", "cdnv", "directional_cdnv", "geometric_collapse", "geometric_collapse_refined", "ncm_accuracy")


def script(name):
    spec = importlib.util.spec_from_file_location(f"statistics_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def template():
    return gcaudit.score("demo", "demo", "demo", episodes=20)


@pytest.mark.slow
def test_intervals_hold_the_truth_on_a_real_model(shared, repository):
    coverage = script("coverage")
    arch = f"{repository / 'examples' / 'cifar_resnet.py'}:resnet20"
    data = str(shared / "data" / "cifar10" / "test.parquet")
    pool = coverage.pool_of(str(shared / "checkpoints" / "cifar10_resnet20.th"), data, arch=arch)
    for counts in ([10] * 10, [10, 13, 17, 22, 28, 36, 46, 60, 77, 100]):
        for name, found in coverage.cover(pool, counts, 200, METRICS).items():
            assert found.null <= 0.05, name
            assert found.holds >= 0.9, name  # 95% less three standard errors of the count


@pytest.mark.slow
def test_a_looser_model_is_not_flattered(capsys):
    script("claims").looser(100, None)
    out = capsys.readouterr().out
    assert max(float(line.split("told apart ")[1].split("%")[0]) for line in out.splitlines()) <= 8


@pytest.mark.slow
def test_equal_models_share_a_letter(template, capsys):
    claims = script("claims")
    claims.letters(100, template)
    claims.probe(60, template)
    out = capsys.readouterr().out
    for line in out.splitlines():
        share = float(line.split(" in " if line.startswith("letters") else "different letters ")[1].split("%")[0])
        assert share <= 14, line  # 5%, and three standard errors


@pytest.mark.slow
def test_gates_rarely_fail_without_a_change(template, capsys):
    script("claims").gates(100, template)
    assert max(float(line.split("failed ")[1].split("%")[0]) for line in capsys.readouterr().out.splitlines()) <= 9


def test_estimates_make_a_report_whose_errors_are_theirs(template):
    claims = script("claims")
    rng = np.random.default_rng(0)
    z, labels, energies = claims.draw(rng, 20)
    found = claims.measure(z, labels, metrics=["cdnv", "probe_accuracy"], energies=energies)
    report = claims.report_of(template, {"source": found})
    rule = claims.parse_name("source.probe_accuracy", "a metric")
    covariance, paired = claims.joint_covariance([report, report], rule, [report.source.metrics["probe_accuracy"]] * 2)
    assert covariance[0, 0] == pytest.approx(found["probe_accuracy"].stderr ** 2)
    assert covariance[0, 1] == covariance[0, 0]
    assert paired.all()


def test_the_rule_that_stops_does_not_stop_on_heavy_tails():
    claims = script("claims")
    energies = torch.from_numpy(np.random.default_rng(0).pareto(0.9, 300) + 1)
    labels = torch.arange(300) % 3
    assert claims.relative_error(energies, labels, 3) == float("inf")
    assert claims.relative_error(torch.from_numpy(np.random.default_rng(0).gamma(3.0, size=300)), labels, 3) < 0.1
