import pytest
import reference
import torch

from gcaudit.geometry.counter import balanced_order, derive_seed, random_bits, random_order_keys


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63, 2**64 - 1, 12345678901234567890])
def test_bits_equal_python_integers(seed):
    counters = [0, 1, 2, 7, 2**40, 2**62]
    got = random_bits(seed, torch.tensor(counters)[:, None], torch.tensor([3, 9]))
    assert got.tolist() == [[reference.splitmix(seed, a, b) for b in (3, 9)] for a in counters]


def test_bits_do_not_depend_on_their_neighbours():
    index = torch.arange(1000)
    assert torch.equal(random_bits(5, index)[123:130], random_bits(5, index[123:130]))


def test_every_bit_is_fair_and_uncorrelated():
    bits = random_bits(0, torch.arange(20_000))
    unpacked = ((bits[:, None] >> torch.arange(64)) & 1).double()
    assert (unpacked.mean(0) - 0.5).abs().max() < 5 * 0.5 / 20_000**0.5
    correlation = torch.corrcoef(unpacked.T) - torch.eye(64)
    assert correlation.abs().max() < 5 / 20_000**0.5


def test_order_keys_leave_room_for_absent():
    keys = random_order_keys(3, torch.arange(10_000))
    assert keys.min() >= 0
    assert keys.max() < 2**62


def test_derived_seeds_differ_by_purpose_and_seed():
    seeds = {derive_seed(s, *p) for s in (0, 1) for p in (("a",), ("b",), ("a", "b"), ("ab",))}
    assert len(seeds) == 8


def test_balanced_order_has_balanced_prefixes():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 40)
    order = balanced_order(labels, torch.arange(120), seed=1)
    assert sorted(order.tolist()) == list(range(120))
    for size in range(1, 91):
        counts = torch.bincount(labels[order[:size]], minlength=3)
        assert counts.max() - counts.min() <= 1


def test_balanced_order_makes_up_for_short_classes():
    labels = torch.tensor([0] * 50 + [1] * 5)
    counts = torch.bincount(labels[balanced_order(labels, torch.arange(55), seed=0)[:30]])
    assert counts.tolist() == [25, 5]


def test_balanced_order_within_a_class_survives_changes_of_the_others():
    labels = torch.tensor([0, 1] * 40)
    index = torch.arange(80)
    whole = balanced_order(labels, index, seed=2)
    alone = labels == 1
    part = balanced_order(torch.zeros(40, dtype=torch.int64), index[alone], seed=2)
    assert index[whole][labels[whole] == 1].tolist() == index[alone][part].tolist()


def test_balanced_order_depends_on_the_seed():
    labels = torch.zeros(30, dtype=torch.int64)
    orders = {tuple(balanced_order(labels, torch.arange(30), seed).tolist()) for seed in range(5)}
    assert len(orders) == 5
