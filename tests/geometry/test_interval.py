import numpy as np
import pytest
import torch

from gcaudit.geometry.interval import positive_estimate, share_estimate, student_95


def test_degrees_of_freedom_are_those_of_the_images():
    rng = torch.Generator().manual_seed(0)
    labels = torch.zeros(8, dtype=torch.int64)
    assert student_95(torch.randn(8, generator=rng, dtype=torch.float64), labels, 1) == pytest.approx(2.3646, abs=1e-4)  # 7
    many = torch.arange(4000) % 2
    assert student_95(torch.randn(4000, generator=rng, dtype=torch.float64), many, 2) == pytest.approx(1.96, abs=2e-3)


def test_a_class_that_rules_the_error_rules_the_degrees_of_freedom():
    influence = torch.cat((torch.full((100,), 1e-3), torch.tensor([1.0, -1.0, 1.0]))).to(torch.float64)
    labels = torch.tensor([0] * 100 + [1] * 3)
    assert student_95(influence, labels, 2) == pytest.approx(4.30, abs=0.02)  # 2


def test_no_bound_of_a_positive_quantity_is_below_zero():
    influence = torch.tensor([3.0, -3.0, 2.0, -2.0], dtype=torch.float64)
    found = positive_estimate(1.0, influence, torch.tensor([0, 0, 1, 1]), 4)
    assert 0 < found.ci95[0] < 1 < found.ci95[1]
    assert found.ci95[0] * found.ci95[1] == pytest.approx(1.0)
    assert float(found.influence.norm()) == pytest.approx(found.stderr)


def test_terms_of_second_order_widen_it():
    influence, labels = torch.tensor([0.3, -0.4], dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    found = positive_estimate(5.0, influence, labels, 2, second=0.75)
    assert found.stderr == pytest.approx(1.0)
    assert float(found.influence.norm()) == pytest.approx(1.0)


def test_an_error_beyond_all_measure_is_a_reason():
    found = positive_estimate(1e-9, torch.tensor([1.0, -1.0], dtype=torch.float64), torch.zeros(2, dtype=torch.int64), 2)
    assert found.ci95 is None
    assert "beyond all measure" in found.reason
    assert positive_estimate(float("inf"), None, torch.zeros(2, dtype=torch.int64), 2).value is None
    assert positive_estimate(1.0, None, torch.zeros(2, dtype=torch.int64), 2, reason="because").reason == "because"


def test_shares_stay_between_0_and_1():
    found = share_estimate(1.2, torch.tensor([0.1, -0.1], dtype=torch.float64), torch.zeros(2, dtype=torch.int64), 2, (1.0, 1.0))
    assert found.value == 1.0
    assert found.ci95[1] == 1.0
    assert found.ci95[0] < 1.0


def test_a_log_normal_mean_is_covered():
    rng = np.random.default_rng(0)
    labels = torch.arange(40) % 4
    held = 0
    for _ in range(400):
        values = rng.lognormal(0, 0.6, 40)
        centred = values - np.array([values[labels.numpy() == c].mean() for c in range(4)])[labels.numpy()]
        influence = torch.from_numpy(centred / 4 / (10 * 9) ** 0.5)
        low, high = positive_estimate(values.mean(), influence, labels, 40).ci95
        held += low <= np.exp(0.18) <= high
    assert 0.9 * 400 <= held <= 0.98 * 400
