import dataclasses

import numpy as np
import pytest
import torch
from cases import clouds

from gcaudit.geometry.proportion import balanced_proportion, wilson
from gcaudit.metrics.accuracy import head_accuracy, ncm_accuracy
from gcaudit.metrics.measuring import evidence_of


def test_ncm_is_free_of_scale_rotation_and_shift():
    z, y = clouds(spread=3.0)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0]
    assert ncm_accuracy(evidence_of(1e3 * z @ rotation + 50, y)).value == ncm_accuracy(evidence_of(z, y)).value


def test_equal_embeddings_are_a_reason():
    found = ncm_accuracy(evidence_of(np.ones((6, 2)), [0, 0, 0, 1, 1, 1]))
    assert found.value is None
    assert "all embeddings are equal" in found.reason


def test_a_tie_with_another_class_is_not_nearest_to_its_own():
    assert ncm_accuracy(evidence_of([[0.0], [2.0], [0.0], [2.0]], [0, 0, 1, 1])).details["plug_in"] == 0.0


@pytest.mark.parametrize(("labels", "reason"), [([0, 0, 0], "at least 2 classes"), ([0, 0, 5], "class '5' has 1 image")])
def test_ncm_without_neighbours_is_a_reason(labels, reason):
    found = ncm_accuracy(evidence_of([[0.0], [1.0], [2.0]], labels))
    assert found.value is None
    assert reason in found.reason


def test_proportions_are_class_balanced():
    labels = torch.tensor([0] * 90 + [1] * 10)
    correct = torch.tensor([True] * 90 + [False] * 5 + [True] * 5)
    found = balanced_proportion(correct, labels, 2)
    assert found.value == 0.75
    assert found.stderr == pytest.approx(0.5 * (0.25 / 9) ** 0.5)
    assert found.ci95[0] < 0.75 < found.ci95[1]


def test_intervals_stay_honest_at_one():
    found = balanced_proportion(torch.ones(100, dtype=torch.bool), torch.arange(100) % 2, 2)
    assert found.value == 1.0
    assert found.stderr == 0.0
    assert found.ci95 == pytest.approx((0.963, 1.0), abs=1e-3)


CASES = {
    "balanced": ([100] * 3, [0.97, 0.9, 0.99]),
    "few images": ([5] * 10, [0.95, 0.95, 0.85, 0.8, 0.9, 0.85, 0.97, 0.93, 0.95, 0.9]),
    "one rare hard class": ([100] * 9 + [5], [0.95] * 9 + [0.5]),
    "from 10 to 100": ([10, 13, 17, 22, 28, 36, 46, 60, 77, 100], [0.95, 0.95, 0.85, 0.8, 0.9, 0.85, 0.97, 0.93, 0.95, 0.9]),
}


@pytest.mark.parametrize("case", CASES)
def test_intervals_cover_also_where_classes_differ(case):
    counts, rates = CASES[case]
    rng = np.random.default_rng(0)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    held, old = 0, 0
    for _ in range(500):
        found = balanced_proportion(
            torch.from_numpy(rng.random(len(labels)) < np.array(rates)[labels.numpy()]), labels, len(counts)
        )
        held += found.ci95[0] <= np.mean(rates) <= found.ci95[1]
        low, high = wilson(found.value, len(counts) ** 2 / sum(1 / n for n in counts))
        old += low <= np.mean(rates) <= high
    assert 0.91 * 500 <= held <= 0.985 * 500
    assert case != "one rare hard class" or old < 0.85 * 500


def test_a_single_image_has_no_standard_error():
    found = balanced_proportion(torch.tensor([True, False, True]), torch.tensor([0, 0, 1]), 2)
    assert found.stderr is None
    assert found.ci95 is not None
    assert "single image" in found.reason


def test_head_accuracy_counts_the_heads_own_answers():
    z, y = clouds(per_class=(4, 4))
    logits = np.zeros((8, 2))
    logits[np.arange(8), [0, 0, 0, 1, 1, 1, 0, 0]] = 1
    assert head_accuracy(evidence_of(z, y, logits)).value == pytest.approx((3 / 4 + 2 / 4) / 2)


def test_classes_outside_of_the_data_are_wrong():
    z, y = clouds(per_class=(2, 2))
    logits = np.eye(5)[[4, 0, 1, 1]]
    assert head_accuracy(evidence_of(z, y, logits)).value == 0.75


def test_no_head_is_a_reason():
    z, y = clouds()
    evidence = dataclasses.replace(evidence_of(z, y), predictions_reason="the model has no head")
    assert head_accuracy(evidence).reason == "the model has no head"


def test_intervals_of_all_and_none_hold_them():
    labels = torch.arange(60) % 3
    assert balanced_proportion(torch.ones(60, dtype=torch.bool), labels, 3).ci95[1] == 1.0
    assert balanced_proportion(torch.zeros(60, dtype=torch.bool), labels, 3).ci95[0] == 0.0
