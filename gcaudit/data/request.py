"""Which images: what is asked of this room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final


@final
@dataclass(frozen=True)
class DataRequest:
    """Which images.

    Attributes:
        spec: a known name, a path, `hf:ID[:CONFIG]`, `disk:PATH`, `torchvision:NAME`; or a pair of tensors (images, labels), a Dataset
            or a DataLoader.
        role: `source`, `target`, or `source-test`: further images of the source's classes.
        split: None takes the default of a known name, and all of a bare file or folder.
        classes: numbers, ranges and names, such as `0-9,12` or `cat,dog`; None takes all.
        max_images: draw so many, class-balanced.
        root: where known names lie.
        seed: of the draw.
        follow_links: also read pictures that are links out of the folder.
        drop_duplicates: leave out images that are there more than once, or in `unlike`.
        image_key: column, or part of a sample, that holds images; None finds it.
        label_key: that holds labels.
        class_map: table that says which class each class becomes.
        streaming: read a data set of the hub as a stream, without keeping all of it.
        unlike: which images these may not share, where duplicates are dropped.
    """

    spec: Any
    role: Literal["source", "target", "source-test"]
    split: str | None = None
    classes: str | None = None
    max_images: int | None = None
    root: str | None = None
    seed: int = 0
    follow_links: bool = False
    drop_duplicates: bool = False
    image_key: str | None = None
    label_key: str | None = None
    class_map: str | None = None
    streaming: bool = False
    unlike: DataRequest | None = None
