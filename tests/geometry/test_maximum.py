import numpy as np
import pytest
import torch

from gcaudit.geometry.maximum import positive_maximum


def test_a_maximum_without_noise_is_the_largest():
    value, chances = positive_maximum(torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    assert value == pytest.approx(4.0)
    assert chances.tolist() == [0.0, 1.0, 0.0]
    alone, _ = positive_maximum(torch.tensor([3.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64))
    assert alone == pytest.approx(3.0)


def test_chances_are_those_of_a_simulation():
    found, errors = np.array([1.0, 1.1, 0.9, 0.0]), np.array([0.1, 0.05, 0.3, 0.2])
    _, chances = positive_maximum(torch.from_numpy(found), torch.from_numpy(errors))
    rng = np.random.default_rng(0)
    draws = np.log(found[:3]) + errors[:3] / found[:3] * rng.normal(size=(200_000, 3))
    assert chances[:3].numpy() == pytest.approx(np.bincount(draws.argmax(1), minlength=3) / 200_000, abs=5e-3)
    assert chances[3] == 0


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_the_bias_of_the_largest_is_taken_off(spread):
    rng = np.random.default_rng(1)
    truths = np.exp(spread * rng.normal(size=20))
    plain, corrected = [], []
    for _ in range(300):
        found = truths * np.exp(0.15 * rng.normal(size=20))
        plain.append(found.max())
        corrected.append(positive_maximum(torch.from_numpy(found), torch.from_numpy(0.15 * found))[0])
    assert abs(np.mean(corrected) / truths.max() - 1) < 0.3 * abs(np.mean(plain) / truths.max() - 1) + 0.01
