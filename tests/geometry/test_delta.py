import dataclasses

import numpy as np
import pytest
import reference
import torch
from cases import clouds

from gcaudit.metrics.collapse import cdnv, geometric_collapse, geometric_collapse_refined
from gcaudit.metrics.complexity import gc, poincare_lower_bound, relative_gc
from gcaudit.metrics.measuring import evidence_of

FUNCTIONS = {
    cdnv: lambda z, g, y: reference.cdnv(z, y),
    gc: lambda z, g, y: reference.gc(g, y),
    relative_gc: reference.relative_gc,
    geometric_collapse: reference.geometric_collapse,
    geometric_collapse_refined: reference.geometric_collapse_refined,
}


def correlated(seed=0, per_class=(60, 60, 60)):
    """Energies that go with the distance from the mean, as in real networks."""
    z, y = clouds(per_class=per_class, seed=seed, dim=5)
    rng = np.random.default_rng(seed)
    g = (z**2).sum(1) * rng.gamma(4.0, size=len(y)) / 4
    return z, y, g


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_the_standard_error_agrees_with_the_bootstrap(function):
    z, y, g = correlated()
    statistic = FUNCTIONS[function]
    spread = reference.stratified_bootstrap(lambda rows: statistic(z[rows], g[rows], y[rows]), y, repeats=400, seed=1)
    assert function(evidence_of(z, y, energies=g)).stderr == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_the_interval_covers_the_truth(function):
    pool = correlated(seed=1, per_class=(20_000, 20_000, 20_000))
    truth = FUNCTIONS[function](*(pool[n] for n in (0, 2, 1)))
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        rows = np.concatenate([rng.integers(0, 20_000, 80) + 20_000 * c for c in range(3)])
        low, high = function(evidence_of(pool[0][rows], pool[1][rows], energies=pool[2][rows])).ci95
        covered += low <= truth <= high
    assert covered >= 178  # 95% of 200 less three standard errors of the count, and a little skew


def test_energies_of_some_images_only_leave_wider_intervals():
    z, y, g = correlated()
    whole = evidence_of(z, y, energies=g)
    rows = torch.arange(0, len(y), 3)
    part = dataclasses.replace(whole, energies=whole.energies[rows], energy_rows=rows)
    estimate = geometric_collapse(part)
    assert estimate.n == len(rows)
    assert estimate.stderr > geometric_collapse(whole).stderr
    expected = float(np.mean([g[rows][y[rows] == c].mean() for c in range(3)])) / gc(whole).value
    plain = [each.details["plug_in"] for each in (estimate, geometric_collapse(whole))]
    assert plain[0] / plain[1] == pytest.approx(expected, rel=1e-12)


def test_the_standard_error_is_that_of_a_stratified_mean():
    z, y, g = correlated(per_class=(30, 50, 40))
    exact = np.sqrt(sum(np.var(g[y == c], ddof=1) / (y == c).sum() for c in range(3))) / 3
    assert gc(evidence_of(z, y, energies=g)).stderr == pytest.approx(exact, rel=1e-12)


def test_chunks_do_not_matter(monkeypatch):
    z, y, g = correlated()
    evidence = evidence_of(z, y, energies=g)
    whole = [function(evidence).stderr for function in (cdnv, poincare_lower_bound)]
    monkeypatch.setattr("gcaudit.geometry.rows._ROWS", 7)
    assert [function(evidence).stderr for function in (cdnv, poincare_lower_bound)] == pytest.approx(whole, rel=1e-12)
