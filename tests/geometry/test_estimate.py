import math

import pytest
import torch

from gcaudit.geometry.estimate import Estimate, missing, normal_estimate


def test_interval_is_two_standard_errors_wide():
    found = normal_estimate(2.0, torch.tensor([0.3, -0.4]), 10, estimator="exact")
    assert found.stderr == pytest.approx(0.5)
    assert found.ci95 == pytest.approx((2 - 0.979982, 2 + 0.979982), abs=1e-6)
    assert found.n == 10
    assert found.details == {"estimator": "exact"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_estimates_are_never_nan_or_infinite(value):
    with pytest.raises(ValueError, match="finite or None"):
        Estimate(value)
    with pytest.raises(ValueError, match="finite or None"):
        Estimate(1.0, stderr=value)
    with pytest.raises(ValueError, match="finite or None"):
        Estimate(1.0, ci95=(0.0, value))


def test_a_missing_value_needs_a_reason():
    with pytest.raises(ValueError, match="needs a reason"):
        Estimate(None)
    assert missing("one class").reason == "one class"


def test_overflow_is_a_reason():
    found = normal_estimate(math.inf, torch.ones(1), 3)
    assert found.value is None
    assert "beyond the range" in found.reason


@pytest.mark.parametrize("influence", [None, torch.tensor([math.nan]), torch.tensor([math.inf, 1.0])])
def test_a_value_without_standard_error_says_why(influence):
    found = normal_estimate(1.0, influence, 3, "one image")
    assert (found.value, found.stderr, found.ci95, found.reason) == (1.0, None, None, "one image")
