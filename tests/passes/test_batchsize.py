import pytest

from gcaudit.passes.batchsize import BatchSize, sizes_to_try


def settle(batch, rate):
    """Run batches on a machine that does rate(size) images a second."""
    tried = []
    for _ in range(40):
        if batch.settled:
            break
        tried.append(batch.size)
        batch.record(batch.size, batch.size / rate(batch.size))
    return tried


@pytest.mark.parametrize("best", [8, 16, 32, 64])
def test_the_fastest_size_is_kept(best):
    batch = BatchSize(8, 64)
    tried = settle(batch, lambda size: 100 - abs(size - best))
    assert batch.settled
    assert batch.size == best
    assert set(tried) == {size for size in (8, 16, 32, 64) if size <= 2 * best}


def test_a_gain_within_the_noise_keeps_the_smaller():
    batch = BatchSize(8, 64)
    settle(batch, lambda size: 100 + 0.01 * size)
    assert batch.size == 8


def test_the_first_run_of_a_size_may_be_slow():
    batch = BatchSize(8, 16)
    for size, seconds in ((8, 8.0), (8, 0.8), (16, 9.0), (16, 1.2)):
        assert batch.size == size
        batch.record(size, seconds)
    assert (batch.size, batch.settled) == (16, True)


def test_batches_that_are_not_full_tell_nothing():
    batch = BatchSize(8, 64)
    for _ in range(10):
        batch.record(5, 0.001)
    assert (batch.size, batch.settled) == (8, False)


def test_a_fixed_size_stays():
    batch = BatchSize(7, 7, fixed=True)
    batch.record(7, 1.0)
    assert (batch.size, batch.settled) == (7, True)


def test_memory_forbids_sizes():
    batch = BatchSize(8, 64)
    batch.record(8, 1.0)
    batch.record(8, 1.0)
    assert batch.size == 16
    batch.cap(10)
    assert (batch.size, batch.settled) == (8, True)
    untried = BatchSize(8, 64)
    untried.cap(3)
    assert (untried.size, untried.settled) == (3, True)
    untried.cap(0)
    assert untried.size == 1


@pytest.mark.parametrize(
    ("edge", "device", "sizes"),
    [(32, "cpu", (32, 256)), (224, "cpu", (8, 64)), (32, "cuda", (256, 4096)), (224, "cuda", (32, 512))],
)
def test_small_images_come_in_larger_batches(edge, device, sizes):
    assert sizes_to_try(3 * edge * edge, device) == sizes
    assert sizes_to_try(10**9, device) == (1, 1)
