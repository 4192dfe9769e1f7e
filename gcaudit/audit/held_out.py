"""Images of the source's classes that no class mean is of, for the errors of rules that class means make."""

from __future__ import annotations

from dataclasses import replace

import torch

from gcaudit.audit.shared import equal_images
from gcaudit.audit.spec import AuditSpec
from gcaudit.data import ImageSet, open_data
from gcaudit.errors import DataError, shorten
from gcaudit.geometry import HeldOut
from gcaudit.metrics import Role
from gcaudit.passes import Observation, PassSettings, Runner, observe
from gcaudit.progress import ProgressBar, no_bar
from gcaudit.report import warn


def open_held_out(spec: AuditSpec, source: ImageSet) -> ImageSet:
    """Open the held-out images of the source's classes; classes are matched by their names.

    Args:
        spec: that names them.
        source: the source.

    Returns:
        The images of the classes that both have, numbered as there.

    Raises:
        DataError: they share no class.
    """
    images = open_data(spec.held_out)
    place = {name: number for number, name in enumerate(images.class_names)}
    both = [name for name in source.class_names if name in place]
    if not both:
        raise DataError(
            f"expected --source-test with classes of the source, such as {shorten(source.class_names)}, found {shorten(images.class_names)}"
        )
    renumber = torch.full((len(images.class_names),), -1)
    renumber[[place[name] for name in both]] = torch.arange(len(both))
    kept = renumber[images.labels] >= 0
    said = []
    if len(both) < len(source.class_names):
        without = [name for name in source.class_names if name not in place]
        said.append(warn("left-out", "it has no images of {n} classes of the source ({names})", without))
    if len(both) < len(images.class_names):
        others = [name for name in images.class_names if name not in both]
        said.append(warn("left-out", "{n} classes are not the source's and were left out ({names})", others))
    return replace(
        images,
        labels=renumber[images.labels[kept]],
        index=images.index[kept],
        class_names=tuple(both),
        class_numbers=tuple(images.class_numbers[place[name]] for name in both),
        warnings=(*images.warnings, *said),
    )


def with_held_out(
    spec: AuditSpec, source: ImageSet, observation: Observation, runner: Runner, progress: ProgressBar = no_bar
) -> Observation:
    """Run the held-out images through a model, and lay them beside what was seen of the source.

    Args:
        spec: what is asked.
        source: the source.
        observation: of the source.
        runner: the model.
        progress: opens a progress bar.

    Returns:
        The observation, whose evidence has them, and whose warnings are theirs too.

    Raises:
        GcauditError: they cannot be opened, or the pass could not be completed.
    """
    images = open_held_out(spec, source)
    with progress(f"source-test {images.spec}", len(images.labels)) as advance:
        found = observe(runner, images, PassSettings(spec.passes.workers, 0, skip_bad_images=spec.passes.skip_bad_images), advance)
    numbers = torch.tensor([source.class_names.index(name) for name in images.class_names])
    held_out = HeldOut(found.evidence.embeddings, numbers[found.evidence.labels])
    said = [*images.warnings, *found.warnings]
    count = int(equal_images(found.digests.numpy(), observation.digests.numpy()).sum())
    if count:
        said.append(warn("shared", "{n} images are the source's too: the error on them is too small", count=count))
    return replace(
        observation,
        evidence=replace(observation.evidence, held_out=held_out),
        warnings=(*observation.warnings, *(warning.about("source-test") for warning in said)),
        seconds=observation.seconds + found.seconds,
        decode_seconds=observation.decode_seconds + found.decode_seconds,
    )


def takes_held_out(spec: AuditSpec, role: Role) -> bool:
    """Tell whether a look at a data set takes held-out images too.

    Args:
        spec: what is asked.
        role: of the data set.
    """
    return role == "source" and spec.held_out.spec is not None
