import itertools

import numpy as np
import pytest

from gcaudit.zoo.letters import letters_of, told_apart


def shares(letters, i, j):
    return bool(set(letters[i]) & set(letters[j]))


@pytest.mark.parametrize("seed", range(30))
def test_models_share_a_letter_when_and_only_when_they_cannot_be_told_apart(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 12))
    apart = np.triu(rng.random((size, size)) < rng.random(), 1)
    apart |= apart.T
    letters = letters_of(apart)
    for i, j in itertools.combinations(range(size), 2):
        assert shares(letters, i, j) == (not apart[i, j])
    # no letter could be left out, or be given to one more
    groups = {letter: {place for place in range(size) if letter in letters[place]} for letter in set("".join(letters))}
    for one, other in itertools.permutations(groups.values(), 2):
        assert not one <= other
    for group in groups.values():
        for place in set(range(size)) - group:
            assert any(apart[place, member] for member in group)


def test_letters_are_in_the_order_of_the_best_model_and_go_on_past_z():
    letters = letters_of(~np.eye(30, dtype=bool))
    assert letters[:2] == ["a", "b"]
    assert letters[25:28] == ["z", "aa", "ab"]
    assert letters_of(np.zeros((0, 0), dtype=bool)) == []


def covariance_of(models, alike, rng):
    influences = np.sqrt(alike) * rng.normal(size=400) + np.sqrt(1 - alike) * rng.normal(size=(models, 400))
    return influences @ influences.T / 400


@pytest.mark.parametrize(("models", "alike"), [(3, 0.0), (10, 0.0), (10, 0.9), (25, 0.5)])
def test_equal_models_get_one_letter(models, alike):
    rng = np.random.default_rng(0)
    covariance = covariance_of(models, alike, rng)
    root = np.linalg.cholesky(covariance)
    wrong = sum(told_apart(root @ rng.normal(size=models), covariance).any() for _ in range(300))
    assert wrong <= 0.085 * 300  # 5%, and three standard errors


def test_models_on_the_same_images_are_told_apart_by_less():
    values = np.array([0.0, 1.0, 2.0])
    alike = 0.98 + 0.02 * np.eye(3)
    assert told_apart(values, alike)[0, 2]
    assert not told_apart(values, np.eye(3))[0, 2]


def test_a_value_of_which_nothing_is_known_is_never_told_apart():
    covariance = np.diag([1e-6, np.inf, 1e-6])
    assert told_apart(np.array([0.0, 1.0, 2.0]), covariance).tolist() == [
        [False, False, True],
        [False, False, False],
        [True, False, False],
    ]


def test_equal_models_without_error_are_not_told_apart():
    assert not told_apart(np.array([1.0, 1.0]), np.zeros((2, 2))).any()
    assert told_apart(np.array([1.0, 2.0]), np.zeros((2, 2)))[0, 1]
