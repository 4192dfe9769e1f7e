"""What a model's own head has to do with the data: whether its classes are theirs, and in which order."""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.data import ImageSet
from gcaudit.encoders import Encoder

NO_HEAD = "the model has no head, or the checkpoint has no weights for it"


def head_reason(encoder: Encoder, images: ImageSet) -> str:
    """Say why the head's classes are not those of the data.

    Args:
        encoder: the model.
        images: the data set.

    Returns:
        One line; empty where they are.
    """
    outputs = encoder.head_outputs
    if outputs is None:
        return NO_HEAD
    same = outputs == images.total_classes
    return "" if same else f"the model's head has {outputs} classes, the data have {images.total_classes}"


def head_weight(encoder: Encoder, images: ImageSet) -> tuple[Tensor | None, str]:
    """Return the rows of a linear head.

    Args:
        encoder: the model.
        images: the data set.

    Returns:
        (K, D) in the order of the images' classes, or None and the reason.
    """
    weight = encoder.head_weight()
    if weight is None:
        return None, NO_HEAD if encoder.head_outputs is None else "the model's head is not one linear layer on the embedding"
    reason = head_reason(encoder, images)
    return (None, reason) if reason else (weight[list(images.class_numbers)], "")


def renumbered(predictions: Tensor, images: ImageSet) -> Tensor:
    """Number predictions like the images' labels.

    Args:
        predictions: (N,) int64 outputs of the head.
        images: the data set.

    Returns:
        (N,) int64, -1 for a class that was not chosen.
    """
    place = torch.full((images.total_classes,), -1, dtype=torch.int64)
    place[list(images.class_numbers)] = torch.arange(len(images.class_numbers))
    return place[predictions]
