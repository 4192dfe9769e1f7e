"""What a data set is, by content: a digest of classes, labels and encoded images."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from torch import Tensor

from gcaudit.data.batches import DIGEST_BYTES, image_digest
from gcaudit.data.image_set import ImageSet

_ROWS = 65536


def fingerprint(images: ImageSet, digests: Tensor, seen: Tensor | None = None) -> str:
    """Digest classes, labels and images.

    Args:
        images: the image set.
        digests: (M, 16) uint8 digests of the images that were seen.
        seen: (N,) bool, which those are; None for all.

    Returns:
        64 hexadecimal digits.
    """
    state = hashlib.sha256(json.dumps(["gcaudit.data/1", images.class_names]).encode())
    labels = images.labels if seen is None else images.labels[seen]
    for part in torch.split(torch.arange(len(labels)), _ROWS):
        numbers = labels[part].numpy().astype("<u4").view(np.uint8).reshape(-1, 4)
        state.update(np.concatenate([numbers, digests[part].numpy()], axis=1).tobytes())
    return state.hexdigest()


def digest_of(images: ImageSet, row: int) -> bytes | None:
    """Digest an image as it is stored.

    Args:
        images: the image set.
        row: of its reader.

    Returns:
        16 bytes; None for one that cannot be read, which the pass will tell.
    """
    try:
        return image_digest(images.reader.read(row))
    except Exception:  # readers and the user's own data sets raise many kinds
        return None


def content_key(images: ImageSet) -> tuple[str, str]:
    """Digest all that a measurement depends on: every encoded image is read, none is decoded.

    Args:
        images: the image set.

    Returns:
        64 hexadecimal digits: of classes, labels, images and the images' places in their data set, which their random vectors depend on; and
        the fingerprint that a pass over the same images will have.
    """
    raw = b"".join(digest_of(images, row) or bytes(DIGEST_BYTES) for row in images.index.tolist())
    digests = torch.from_numpy(np.frombuffer(raw, dtype=np.uint8).reshape(-1, DIGEST_BYTES).copy())
    found = fingerprint(images, digests)
    state = hashlib.sha256(found.encode())
    state.update(images.index.numpy().astype("<i8").tobytes())
    turns = bool(getattr(images.reader, "turns", False))  # whether an EXIF orientation is followed
    state.update(json.dumps([images.class_numbers, images.total_classes, *(["turned"] if turns else [])]).encode())
    return state.hexdigest(), found
