"""Data sets in archives: class folders in a tar or zip, and WebDataset's shards.

WebDataset keeps a sample as members that follow one another and share a name up to the first dot of the last part: `000017.jpg`, `000017.cls`. References:
the WebDataset format, github.com/webdataset/webdataset; CLIP_benchmark's `classnames.txt` beside the shards.
"""

from __future__ import annotations

import glob
import io
import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gcaudit.data.archives import TAR_SUFFIXES, ArchiveReader, Member, is_archive, list_archives
from gcaudit.data.columns import Keys, column_warnings, find_label
from gcaudit.data.folders import IMAGE_SUFFIXES, SPLIT_NAMES, is_split, is_split_of, is_training, number_as_training
from gcaudit.data.labels import number_labels
from gcaudit.data.pictures import open_image
from gcaudit.data.readers import RawData
from gcaudit.errors import DataError, printable, shorten
from gcaudit.files import read_text
from gcaudit.report import ReportWarning, warn

_SURE_PARTS = ("cls", "json")
_NAMES_FILE = "classnames.txt"
_NOWHERE = ("", ".", "..")
_MOST_SHARDS = 100_000
_MOST_LABEL_BYTES = 2**20
_WHOLE = re.compile(r"-?\d{1,18}")


def find_archives(place: str, split: str | None) -> list[Path]:
    """List the archives that a path means.

    Args:
        place: an archive, a folder of tars, a glob, or a range such as `train-{000..099}.tar`.
        split: take those in the folder of this name, or whose names begin with it.

    Returns:
        Files in order; empty when there are none.

    Raises:
        DataError: a range of which files are missing.
    """
    path = Path(place)
    if path.is_dir():
        folder = path / split if split is not None and (path / split).is_dir() else path
        found = sorted(file for file in folder.iterdir() if file.name.lower().endswith(TAR_SUFFIXES) and file.is_file())
        return [file for file in found if split is None or folder != path or is_split_of(file.name, split)]
    if path.is_file():
        return [path] if is_archive(path) else []
    wanted = list(_expand(place))
    if wanted != [place]:
        absent = [name for name in wanted if not Path(name).is_file()]
        if absent:
            raise DataError(f"{place}: expected {len(wanted)} files, found no {shorten(absent, 3)}; name those that are there")
        return [Path(name) for name in wanted]
    return sorted(Path(name) for name in glob.glob(place, recursive=True) if is_archive(Path(name)))  # noqa: PTH207 - Path.glob takes no absolute patterns


def _expand(place: str) -> Iterator[str]:
    """Write out a range of numbers in braces, as shells and WebDataset do."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", place)
    if match is None:
        yield place
        return
    first, last = int(match[1]), int(match[2])
    if last - first >= _MOST_SHARDS:
        raise DataError(f"{place}: expected a range of up to {_MOST_SHARDS} files, found {last - first + 1}")
    for number in range(first, last + 1):
        yield from _expand(f"{place[: match.start()]}{number:0{len(match[1])}}{place[match.end() :]}")


def read_archives(files: Sequence[Path], split: str | None, keys: Keys) -> RawData:
    """Read archives of class folders, or WebDataset's shards.

    Args:
        files: from `find_archives`.
        split: as typed; of class folders, the folder to take.
        keys: parts of a sample that were named.

    Returns:
        The data.

    Raises:
        DataError: they hold neither, or what they hold does not go together.
    """
    splits = sorted({name for name in SPLIT_NAMES for file in files if is_split_of(file.name, name)})
    if split is None and len(splits) > 1:
        raise DataError(
            f"{files[0].parent}: expected files of one split, found the splits {shorten(splits)}; name one with --source-split or --target-split"
        )
    archives, members, others = list_archives(files)
    last = {(member.archive, member.name): member for member in members if not _is_hidden(member.name)}
    again = sum(not _is_hidden(member.name) for member in members) - len(last)
    members = list(last.values())
    said = [warn("left-out", "{n} links and other members that are no files were left out", count=others)] if others else []
    if again:
        said.append(
            warn("left-out", "{n} members that come again later in their archive were left out, as unpacking would", count=again)
        )
    read = _samples if keys.label is not None or _are_samples(members) else _class_folders
    raw = read(archives, members, split, keys, files[0])
    return RawData(raw.reader, raw.labels, raw.class_names, (*said, *raw.warnings), raw.columns)


def _are_samples(members: Sequence[Member]) -> bool:
    """Tell WebDataset's samples: most pictures have a part with a label beside them."""
    labelled = {(member.archive, _key(member.name)) for member in members if _part(member.name) in _SURE_PARTS}
    pictures = {(member.archive, _key(member.name)) for member in members if _is_image(_part(member.name))}
    return bool(labelled) and 2 * len(labelled & pictures) >= len(pictures)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/") if part not in _NOWHERE)


def _key(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _part(name: str) -> str:
    """Return what stands after the first dot of the last part of a path."""
    return name.rpartition("/")[2].partition(".")[2].lower()


def _is_image(part: str) -> bool:
    return f".{part.rpartition('.')[2]}" in IMAGE_SUFFIXES


def _reader(archives: tuple[Any, ...], members: Sequence[Member]) -> ArchiveReader:
    numbers = np.array([member.archive for member in members], dtype=np.int32)
    places = np.array([(member.place, member.size) for member in members], dtype=np.int64).reshape(-1, 2)
    return ArchiveReader(archives, numbers, places, [member.name for member in members])


def _class_folders(archives: tuple[Any, ...], members: Sequence[Member], split: str | None, _keys: Keys, file: Path) -> RawData:
    paths = [[part for part in member.name.split("/") if part not in _NOWHERE] for member in members]
    depth = _shared_depth([path for path in paths if path and _is_image(path[-1].rpartition(".")[2].lower())] or paths)
    rest = [path[depth:] for path in paths]
    tops = sorted({path[0] for path in rest if len(path) > 1})
    splits = [top for top in tops if is_split(top)]
    theirs: set[str] = set()
    if split is not None:
        if split not in tops:
            raise DataError(f"{file}: expected a folder for split {split!r}, found {shorten(tops) or 'no folders'}")
        theirs = {path[1] for path in rest if len(path) > 2 and is_training(path[0]) and path[0] != split}
        rest = [path[1:] if path[0] == split else [] for path in rest]
        tops = sorted({path[0] for path in rest if len(path) > 1})
    elif splits and (len(splits) == len(tops) or any(len(path) > 2 for path in rest if path[0] in splits)):
        raise DataError(
            f"{file}: expected class folders, found the splits {shorten(splits)}; name one with --source-split or --target-split"
        )
    kept = [place for place, path in enumerate(rest) if len(path) > 1 and _is_picture(archives, members[place])]
    if not kept:
        odd = sorted({path[-1].rpartition(".")[2] for path in rest if path})
        raise DataError(
            f"{file}: expected one folder a class with pictures in it, or samples of WebDataset, found files of {shorten(odd) or 'no kind'}"
        )
    taken = set(kept)
    beside = [
        members[place].name for place, path in enumerate(rest) if len(path) == 1 and _is_image(path[0].rpartition(".")[2].lower())
    ]
    left = [members[place].name for place, path in enumerate(rest) if len(path) > 1 and place not in taken]
    said = []
    for what, names in (("files in class folders that are no pictures", left), ("pictures beside the class folders", beside)):
        if names:
            said.append(warn("left-out", f"{{n}} {what} were left out ({{names}})", names))
    kept.sort(key=lambda place: (members[place].archive, rest[place]))  # as folders are gone through
    number = {name: place for place, name in enumerate(tops)}
    labels = np.array([number[rest[place][0]] for place in kept], dtype=np.int64)
    order = np.argsort(labels, kind="stable")
    reader = _reader(archives, [members[kept[place]] for place in order])
    known, numbers, differs = number_as_training(tops, labels[order], theirs)
    return RawData(reader, numbers, known, (*said, *differs))


def _is_picture(archives: tuple[Any, ...], member: Member) -> bool:
    """Tell a picture by its suffix, one without any by its content."""
    last = member.name.rpartition("/")[2]
    if "." in last:
        return _is_image(last.rpartition(".")[2].lower())
    try:
        with open_image(io.BytesIO(_reader(archives, [member]).read(0))):
            return True
    except (DataError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _shared_depth(paths: Sequence[Sequence[str]]) -> int:
    """Count the folders that hold all others: archives are often made of one folder, whose name says nothing."""
    depth = 0
    while True:
        tops = {path[depth] for path in paths if len(path) > depth}
        if len(tops) != 1 or any(len(path) <= depth + 2 for path in paths):
            return depth
        depth += 1


def _samples(archives: tuple[Any, ...], members: Sequence[Member], split: str | None, keys: Keys, file: Path) -> RawData:
    if split is not None and not is_split_of(file.name, split) and file.parent.name != split:
        raise DataError(
            f"{file}: expected shards of split {split!r}, found names that tell of none; name the files, such as {split}-*.tar"
        )
    samples = [list(group) for _, group in groupby(members, key=lambda member: (member.archive, _key(member.name)))]
    pictures: list[Member] = []
    labels: list[Member] = []
    choices: set[str] = set()
    without = []
    every = {_part(member.name) for member in members}
    label = _label_part(every, keys)
    image = keys.image or next((part for sample in samples for member in sample if _is_image(part := _part(member.name))), None)
    beside = {part for sample in samples if image in (there := {_part(m.name) for m in sample}) for part in there}
    for sample in samples:
        parts = {_part(member.name): member for member in sample}
        images = [part for part in parts if _is_image(part)]
        choices.update(images)
        # a part that stands beside the images elsewhere is no image of its own; samples of another format may stand beside them
        others = [part for part in images if part not in beside and keys.image is None]
        taken = image if image in parts else others[0] if others else None
        if taken is None or label not in parts:
            without.append(_key(sample[0].name))
            continue
        pictures.append(parts[taken])
        labels.append(parts[label])
    if not pictures or label is None:
        raise DataError(
            f"{file}: expected samples of a picture and a label, found parts {shorten(sorted({_part(m.name) for m in members}))}; name them with --image-key and --label-key"
        )
    values, column = _label_values(_reader(archives, labels), label, keys)
    names, extra = _class_names(file, values)
    numbered = number_labels(values, names, str(file))
    said: list[ReportWarning] = [*extra, *numbered.warnings]
    if without:
        said.append(warn("left-out", "{n} samples without a picture or without a label were left out ({names})", without))
    if keys.image is None and image is not None:
        several = [name for name in sorted(choices) if _both(samples, image, name)]
        said += column_warnings({image: [image, *several]} if several else {})
    return RawData(_reader(archives, pictures), numbered.numbers, numbered.names, tuple(said), (image or "", column))


def _both(samples: Sequence[Sequence[Member]], first: str, second: str) -> bool:
    return first != second and any({first, second} <= {_part(member.name) for member in sample} for sample in samples)


def _label_part(parts: set[str], keys: Keys) -> str | None:
    """Find the part with the label among those that there are; None where there is none."""
    if keys.label is not None and keys.label in parts:
        return keys.label
    if keys.label is not None:
        return "json" if "json" in parts else None
    return next((part for part in _SURE_PARTS if part in parts), None)


def _label_values(reader: ArchiveReader, part: str, keys: Keys) -> tuple[list[Any], str]:
    values: list[Any] = []
    column = part
    for row in range(len(reader.numbers)):
        if int(reader.places[row][1]) > _MOST_LABEL_BYTES:
            raise DataError(f"{reader.where(row)}: expected a label, found {int(reader.places[row][1])} bytes")
        try:
            text = reader.read(row).decode("utf-8").strip()
            found: Any = text
            if part.rpartition(".")[2] == "json":
                found = json.loads(text)
                if isinstance(found, dict):
                    if column == part:
                        column = find_label(
                            [str(key) for key in found], Keys(None, keys.label if keys.label != part else None), reader.where(row)
                        )
                    found = found.get(column)
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise DataError(
                f"{reader.where(row)}: expected a label, found what cannot be read ({type(error).__name__}); mend it"
            ) from None
        values.append(found)
    texts = [value for value in values if isinstance(value, str)]
    if texts and len(texts) == len(values) and all(_WHOLE.fullmatch(value) for value in texts if value):
        return [int(value) if value else None for value in texts], column
    return values, column


def _class_names(file: Path, values: Sequence[Any]) -> tuple[list[str] | None, list[ReportWarning]]:
    """Take class names from a list beside the shards, where labels are numbers."""
    place = next((folder / _NAMES_FILE for folder in (file.parent, file.parent.parent) if (folder / _NAMES_FILE).is_file()), None)
    if place is None or not all(isinstance(value, int) for value in values if value is not None):
        return None, []
    try:
        names = [line.strip() for line in read_text(place, 2**24).rstrip().split("\n")]
    except (OSError, UnicodeDecodeError):
        return None, [warn("left-out", f"{printable(str(place))} cannot be read, and classes have numbers for names")]
    if not all(names):
        raise DataError(f"{place}: expected the name of a class in each line, found an empty one; mend it, or take the file away")
    return names, [warn("column", f"names of classes are those of {printable(str(place))}")]
