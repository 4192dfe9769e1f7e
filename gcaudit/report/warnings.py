"""Warnings: whatever was assumed, skipped, converted, renamed or chosen among several on the way to a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gcaudit.errors import plain, printable

Text = Annotated[str, AfterValidator(plain)]
"""Text that may come from a file: one printable line."""

WARNINGS: Mapping[str, str] = {
    "preprocessing": "input size, resize, crop, mean or std come from neither the checkpoint nor the user",
    "picture-size": "pictures are much smaller or larger than the input that they are resized to",
    "architecture": "the architecture was chosen among several that a name may mean, or is not the one that the checkpoint names",
    "network": "an embedding depends on more than its image, or is of one of several outputs",
    "unused-options": "options of the script that trained the checkpoint were not used",
    "averaged-weights": "the file holds several sets of weights, of which one was taken",
    "weights": "weights were missing or left over, or further weight files were not taken",
    "head": "the accuracy of the model's head says that labels or preprocessing are not those of training",
    "class-order": "class folders with numbers as names are in the order of text, not of numbers",
    "converted": "pictures were converted in a way that changes more than their size",
    "orientation": "pictures carry an orientation",
    "left-out": "files, folders, images or rows were left out",
    "links": "folders or pictures outside of the named folder were read through links",
    "renamed": "names that cannot be printed were escaped",
    "streamed": "images were read once, from a stream",
    "column": "one of several columns was taken for the images or labels",
    "split": "one of several splits was taken",
    "items": "a Python data set gives other items each time, or is not read through its loader",
    "class-choice": "chosen classes may be names or numbers",
    "shared": "source and target share classes, images, or images that look alike",
    "repeated": "a data set has images more than once",
    "episodes": "a class is too short for as many queries as were asked for",
    "memory": "memory ran out, and batches were made smaller",
    "other": "said by an older version",
}
"""Every kind of warning that there is, and what it tells."""


class ReportWarning(BaseModel):
    """Something that a reader has to know to trust a number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Text = Field(description="one of `gcaudit.report.WARNINGS`")
    message: Text = Field(description="one line")
    count: int | None = Field(default=None, description="how many images, files or classes it concerns")
    first: tuple[Text, ...] = Field(default=(), description="the first three of these")

    @model_validator(mode="before")
    @classmethod
    def _of_older_versions(cls, value: Any) -> Any:
        return {"kind": "other", "message": value} if isinstance(value, str) else value

    def __str__(self) -> str:
        """Return the line."""
        return self.message

    def about(self, role: str) -> ReportWarning:
        """Say which data set it is about.

        Args:
            role: `source` or `target`.

        Returns:
            The same warning, its message with the role before it.
        """
        return self.model_copy(update={"message": f"{role}: {self.message}"})


def warn(kind: str, message: str, names: Sequence[str] | None = None, count: int | None = None) -> ReportWarning:
    """Make a warning.

    Args:
        kind: one of `WARNINGS`.
        message: one line; `{n}` stands for the number of what it concerns, `{names}` for the first three.
        names: what it concerns, at least the first three.
        count: how many there are; None takes the number of names.

    Returns:
        The warning.

    Raises:
        KeyError: there is no such kind.
    """
    WARNINGS[kind]
    if names is None:
        return ReportWarning(kind=kind, message=printable(message.replace("{n}", str(count))), count=count)
    total = len(names) if count is None else count
    first = [printable(name) for name in names[:3]]
    told = ", ".join(first) + (f" and {total - len(first)} more" if total > len(first) else "")
    line = message.replace("{n}", str(total)).replace("{names}", told)
    return ReportWarning(kind=kind, message=printable(line), count=total, first=tuple(first))
