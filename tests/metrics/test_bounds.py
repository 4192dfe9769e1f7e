"""The right sides against their formulas, and the inequalities themselves on random cases."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import clouds

from gcaudit.geometry.evidence import HeldOut
from gcaudit.metrics.bounds import cdnv_over_collapse, few_shot_errors, gc_deviation, lipschitz_bound, ncm_error_bound
from gcaudit.metrics.collapse import cdnv, geometric_collapse
from gcaudit.metrics.complexity import gc, poincare_lower_bound
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.ridge import ProbeSettings
from gcaudit.metrics.table import find_metrics

CASES = range(200)


def case(seed=0, **options):
    z, y = clouds(seed=seed, **options)
    return z, y, np.random.default_rng(seed + 100).gamma(3.0, size=len(y)) * (1 + y)


def test_values_are_their_formulas():
    z, y, g = case(per_class=(30, 40, 50))
    evidence = evidence_of(z, y, energies=g)
    collapse, variation = geometric_collapse(evidence), cdnv(evidence)
    assert cdnv_over_collapse(evidence).value == pytest.approx(variation.value / collapse.value, rel=1e-12)
    deviation = gc_deviation(evidence)
    slow = g.max() * math.sqrt(math.log(2 / 0.05) / 2 * sum(1 / (9 * n) for n in (30, 40, 50)))
    assert deviation.value == pytest.approx(slow, rel=1e-12)
    low, high = gc(evidence).ci95
    assert deviation.details["tightness"] == pytest.approx((high - low) / 2 / slow, rel=1e-12)
    bound = ncm_error_bound(evidence, ProbeSettings(n_shot=(1, 5)))
    for shot, point in zip((1, 5), bound.details["curve"], strict=True):
        terms = point.details["terms"]
        assert terms["by_cdnv"] == pytest.approx(8 * 2 * (1 + 1 / shot) * variation.value, rel=1e-12)
        kappa = poincare_lower_bound(evidence).value
        assert point.value == pytest.approx(8 * 2 * (1 + 1 / shot) * kappa * collapse.value, rel=1e-12)
        assert point.details["tightness"] == pytest.approx(terms["error"] / point.value, rel=1e-12)
        assert (point.details["n_way"], point.details["n_shot"]) == (3, shot)
    assert bound.value == bound.details["curve"][0].value


def test_the_ratio_has_the_interval_of_its_jackknife():
    z, y, g = case(seed=3, per_class=(40, 40, 40))
    found = cdnv_over_collapse(evidence_of(z, y, energies=g))
    left_out = []
    for row in range(len(y)):
        kept = np.arange(len(y)) != row
        left_out.append(cdnv_over_collapse(evidence_of(z[kept], y[kept], energies=g[kept])).value)
    left_out, total = np.array(left_out), 0.0
    for c in range(3):
        own = left_out[y == c]
        total += (len(own) - 1) / len(own) * ((own - own.mean()) ** 2).sum()
    assert found.stderr == pytest.approx(math.sqrt(total), rel=0.1)
    assert found.ci95[0] < found.value < found.ci95[1]


def slow_errors(z, y, shot, rng, rounds):
    """Of means of images that are drawn from each class's empirical distribution, on that distribution."""
    classes, found = sorted(set(y.tolist())), []
    for _ in range(rounds):
        means = np.stack([z[rng.choice(np.flatnonzero(y == c), shot)].mean(0) for c in classes])
        distances = ((z[:, None] - means) ** 2).sum(-1)
        own = distances[np.arange(len(y)), y]
        others = np.where(np.arange(len(classes)) == y[:, None], np.inf, distances).min(1)
        found.append(np.mean([(others <= own)[y == c].mean() for c in classes]))
    return float(np.mean(found))


@pytest.mark.parametrize("seed", CASES)
def test_the_error_of_the_nearest_mean_is_below_its_bound(seed):
    """For the empirical distribution of random clouds, near and far, round and long, of which variances and distances are known exactly."""
    rng = np.random.default_rng(seed)
    classes, dim, shot = int(rng.integers(2, 6)), int(rng.integers(1, 8)), int(rng.integers(1, 6))
    y = np.repeat(np.arange(classes), 20)
    spread = 10 ** rng.uniform(-2, 0.5, (classes, dim))
    z = rng.normal(size=(classes, dim))[y] + spread[y] * rng.standard_t(3, size=(len(y), dim))
    centres = np.stack([z[y == c].mean(0) for c in range(classes)])
    variances = np.array([((z[y == c] - centres[c]) ** 2).sum(1).mean() for c in range(classes)])
    pairs = [(i, j) for i in range(classes) for j in range(classes) if i != j]
    variation = np.mean([(variances[i] + variances[j]) / 2 / ((centres[i] - centres[j]) ** 2).sum() for i, j in pairs])
    assert slow_errors(z, y, shot, rng, 30) <= 8 * (classes - 1) * (1 + 1 / shot) * variation
    direct = np.mean(
        [
            sum(
                (8 * variances[i] + 4 * (variances[i] + variances[j]) / shot) / ((centres[i] - centres[j]) ** 2).sum()
                for j in range(classes)
                if j != i
            )
            for i in range(classes)
        ]
    )
    assert direct == pytest.approx(8 * (classes - 1) * (1 + 1 / shot) * variation, rel=1e-12)


@pytest.mark.parametrize("seed", CASES)
def test_collapse_bounds_cdnv_for_linear_maps_of_normal_classes(seed):
    """A normal distribution satisfies the inequality with its largest variance, and a linear map has the same energy everywhere."""
    rng = np.random.default_rng(seed)
    pixels, dim, classes = int(rng.integers(2, 9)), int(rng.integers(1, 6)), int(rng.integers(2, 6))
    embed = rng.normal(size=(dim, pixels))
    factors = [rng.normal(size=(pixels, pixels)) for _ in range(classes)]
    kappa = max(np.linalg.eigvalsh(f @ f.T).max() for f in factors)
    variances = np.array([np.trace(embed @ f @ f.T @ embed.T) for f in factors])
    centres = rng.normal(size=(classes, pixels)) @ embed.T
    energy = (embed**2).sum()
    pairs = [(i, j) for i in range(classes) for j in range(classes) if i != j]
    distances = np.array([((centres[i] - centres[j]) ** 2).sum() for i, j in pairs])
    variation = np.mean([(variances[i] + variances[j]) / 2 for i, j in pairs] / distances)
    collapse = classes / 2 * energy * np.mean(1 / distances)
    assert variation <= kappa * collapse * (1 + 1e-12)
    assert variances.max() / energy <= kappa * (1 + 1e-12)
    assert variation / collapse <= variances.max() / energy * (1 + 1e-12)  # the ratio is the lower of the two bounds


def test_the_deviation_is_below_its_bound_but_for_one_case_in_twenty():
    rng = np.random.default_rng(0)
    beyond = 0
    for _ in CASES:
        counts, top = rng.integers(2, 30, 3), 10 ** rng.uniform(-3, 3)
        chance = rng.uniform(0, 1, 3)  # energies of 0 or G deviate the most
        draws = [top * (rng.random(n) < p) for n, p in zip(counts, chance, strict=True)]
        truth, found = top * chance.mean(), np.mean([d.mean() for d in draws])
        g, y = np.concatenate(draws), np.repeat(np.arange(3), counts)
        if g.max() == 0:
            continue
        bound = gc_deviation(evidence_of(rng.normal(size=(len(y), 2)), y, energies=g))
        assert bound.details["terms"]["range"] == top
        beyond += abs(found - truth) > bound.value
    assert beyond <= 0.05 * len(CASES)


def test_errors_are_those_of_images_that_the_means_are_not_of():
    z, y = clouds(seed=5, per_class=(30, 60, 90))
    found = few_shot_errors(evidence_of(z, y), 5, seed=1, rounds=400)
    rng, slow = np.random.default_rng(0), []
    for _ in range(400):
        support = np.concatenate([rng.choice(np.flatnonzero(y == c), 5, replace=False) for c in range(3)])
        means = np.stack([z[support[y[support] == c]].mean(0) for c in range(3)])
        rest = np.setdiff1d(np.arange(len(y)), support)
        wrong = ((z[rest, None] - means) ** 2).sum(-1).argmin(1) != y[rest]
        slow.append(np.mean([wrong[y[rest] == c].mean() for c in range(3)]))
    error = math.hypot(np.std(slow), float(found.std())) / 20
    assert abs(float(found.mean()) - np.mean(slow)) <= 4 * error
    assert torch.equal(few_shot_errors(evidence_of(z, y), 5, seed=1, rounds=3), found[:3])


def test_what_cannot_be_bounded_is_told():
    z, y, g = case(per_class=(5, 6, 7))
    alone = evidence_of(z, y)
    for function in (cdnv_over_collapse, gc_deviation):
        assert "the Jacobian was not measured" in function(alone).reason
    assert "the Jacobian was not measured" in ncm_error_bound(alone, ProbeSettings()).reason
    short = ncm_error_bound(evidence_of(z, y, energies=g), ProbeSettings(n_shot=(1, 5)))
    assert short.details["curve"][0].reason is None
    assert short.details["curve"][1].reason == "a class has too few images for means of 5"
    assert "tightness" not in short.details["curve"][1].details
    assert {metric.module for metric in find_metrics(["theory"])} == {
        "bounds",
        "new_classes",
        "granularity",
        "complexity",
        "flatness",
    }


def test_a_lipschitz_constant_bounds_energies():
    z, y, g = case(per_class=(30, 40, 50))
    evidence = replace(evidence_of(z, y, energies=g), lipschitz=3.0)
    found = lipschitz_bound(evidence)
    assert (found.value, found.ci95) == (3.0, None)
    assert found.details["terms"]["energy_at_most"] == z.shape[1] * 9
    assert found.details["tightness"] == pytest.approx(math.sqrt(g.max() / z.shape[1]) / 3, rel=1e-12)
    deviation = gc_deviation(evidence)
    share = deviation.value / deviation.details["terms"]["range"]
    assert deviation.details["terms"]["by_lipschitz"] == pytest.approx(z.shape[1] * 9 * share, rel=1e-12)
    assert "by_lipschitz" not in gc_deviation(evidence_of(z, y, energies=g)).details["terms"]
    assert "terms" not in lipschitz_bound(replace(evidence, lipschitz=1e200)).details
    assert lipschitz_bound(evidence_of(z, y)).reason == "the network's layers were not looked at"


def test_the_error_is_taken_on_held_out_images():
    """Means of n images of the source, and every error on the images held out; a class without any is left out of the mean."""
    z, y, g = case(seed=4, per_class=(12, 12, 12))
    other, labels = clouds(seed=5, per_class=(9, 9, 9))
    kept = labels < 2
    held_out = HeldOut(torch.from_numpy(other[kept]), torch.from_numpy(labels[kept]))
    evidence = replace(evidence_of(z, y, energies=g), held_out=held_out)
    whole = few_shot_errors(evidence, 12, rounds=3)
    means = np.stack([z[y == c].mean(0) for c in range(3)])
    distances = ((other[kept][:, None] - means) ** 2).sum(-1)
    own = distances[np.arange(kept.sum()), labels[kept]]
    others = np.where(np.arange(3) == labels[kept][:, None], np.inf, distances).min(1)
    slow = np.mean([(others <= own)[labels[kept] == c].mean() for c in range(2)])
    assert whole.tolist() == pytest.approx([slow] * 3, rel=1e-12)
    found = ncm_error_bound(evidence, ProbeSettings(n_shot=(1, 12, 13)))
    curve = found.details["curve"]
    assert [point.reason is None for point in curve] == [True, True, False]
    assert curve[1].details["terms"]["error"] == pytest.approx(slow)
    assert curve[1].details["terms"]["held_out_images"] == 18
    assert ncm_error_bound(evidence_of(z, y, energies=g), ProbeSettings(n_shot=(12,))).reason is not None
