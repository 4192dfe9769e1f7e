"""Counter-based random numbers: a pure function of (seed, counters), vectorised in integer operations.

Generators that carry state make results depend on batch size, order and number of workers. Here the bits of an image
come from hashing its own index, so that they do not. Integer arithmetic wraps in the same way on CPU and CUDA, hence the
bits are equal on both.

The mixing function is the finaliser of SplitMix64.

Reference: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011 (the counter-based idea).
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def _signed(value: int) -> int:
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLY_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = _signed(0x94D049BB133111EB)


def _shift_right(bits: Tensor, count: int) -> Tensor:
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift_right(bits, 30)) * _MULTIPLY_1
    bits = (bits ^ _shift_right(bits, 27)) * _MULTIPLY_2
    return bits ^ _shift_right(bits, 31)


def _mix_number(bits: int) -> int:
    """Do what `_mix` does to one number, on the host: a tensor made for it would have to be brought to the device first."""
    bits %= 2**64
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
    return _signed(bits ^ (bits >> 31))


def random_bits(seed: int, *counters: Tensor) -> Tensor:
    """Hash a seed and counters to 64 random bits each.

    Args:
        seed: any integer; taken modulo 2^64.
        counters: int64 tensors that broadcast against each other.

    Returns:
        int64 tensor of the broadcast shape, all 64 bits random.
    """
    bits: Tensor | int = _mix_number(seed + 0x9E3779B97F4A7C15)
    for counter in counters:
        bits = _mix(bits ^ _mix(counter + _GOLDEN))
    return bits if isinstance(bits, Tensor) else torch.tensor(bits)


def random_order_keys(seed: int, *counters: Tensor) -> Tensor:
    """Hash to non-negative sort keys, so that the largest int64 can stand for "absent".

    Args:
        seed: any integer.
        counters: int64 tensors that broadcast against each other.

    Returns:
        int64 tensor in [0, 2^62).
    """
    return _shift_right(random_bits(seed, *counters), 2)


def derive_seed(seed: int, *purpose: str) -> int:
    """Derive an independent seed for a purpose or a data set.

    Args:
        seed: the user's seed.
        purpose: words and fingerprints that name the use.

    Returns:
        A 64-bit integer.

    Example:
        >>> derive_seed(0, "episodes") == derive_seed(0, "vectors")
        False
    """
    text = "\x00".join((str(int(seed)), *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def balanced_order(labels: Tensor, index: Tensor, seed: int) -> Tensor:
    """Order images so that every prefix is as class-balanced as the data allow.

    Images are ranked within their class by a hash of (seed, index); rank 0 of every class comes first, then rank 1, and
    so on. Classes that run out are made up for by the others. The order of images that stay is not changed by removing others
    of their class or by renumbering classes, and prefixes are nested.

    Args:
        labels: (N,) int64 class of each image.
        index: (N,) int64 index of each image in its data set.
        seed: the seed of the draw.

    Returns:
        (N,) int64 positions into `labels`, in drawing order.
    """
    key = random_order_keys(seed, index)
    by_key = torch.argsort(key, stable=True)
    by_class = by_key[torch.argsort(labels[by_key], stable=True)]
    sorted_labels = labels[by_class]
    counts = torch.bincount(labels, minlength=int(labels.max()) + 1 if labels.numel() else 1)
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.arange(len(labels)) - starts[sorted_labels]
    return by_class[torch.argsort(rank, stable=True)]
