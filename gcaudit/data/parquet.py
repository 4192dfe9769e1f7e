"""Parquet files, with a column of encoded images and one of labels."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from gcaudit.data.columns import (
    NO_KEYS,
    SPLIT_COLUMNS,
    Keys,
    column_warnings,
    encoded,
    find_image,
    find_label,
    guess_warnings,
    label_choices,
    split_column_warnings,
)
from gcaudit.data.folders import IMAGE_SUFFIXES, SPLIT_NAMES
from gcaudit.data.labels import number_labels
from gcaudit.data.parquet_pages import PageError, check_pages
from gcaudit.data.readers import RawData
from gcaudit.errors import DataError, foreign_file, one_line, shorten
from gcaudit.files import OpenFile
from gcaudit.report import ReportWarning, warn

if TYPE_CHECKING:
    import pyarrow as pa


MOST_SHARDS = 10_000
_LONGEST_LABEL = 10_000
_BATCH_ROWS = 1024


@final
@dataclass(frozen=True)
class ParquetReader:
    """Parquet files, read a row group at a time.

    Attributes:
        files: one or more.
        column: the image column.
        groups: for every row group its file's number, its number in the file and its first row.
        stamps: of the files as they were when their pages were looked at.
        links: paths in cells may lead out of the files' folder.
        shared: of each file, parts of the column whose values are held once however many rows show them.
    """

    turns: ClassVar[bool] = True
    files: tuple[Path, ...]
    column: str
    groups: tuple[tuple[int, int, int], ...]
    stamps: tuple[tuple[int, ...], ...]
    shared: tuple[tuple[str, ...], ...]
    links: bool = False
    _held: dict[int, Any] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the row groups in memory behind when sent to a worker."""
        return {**self.__dict__, "_held": {}}

    def _locate(self, row: int) -> tuple[int, int]:
        starts = [first for _, _, first in self.groups]
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return number, row - starts[number]

    def read(self, row: int) -> Any:
        """Return the encoded bytes of one row."""
        number, place = self._locate(row)
        if number not in self._held:
            file, group, _ = self.groups[number]
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                with OpenFile(self.files[file]) as opened:
                    if opened.stamp != self.stamps[file]:
                        raise DataError(f"{self.files[file]}: expected the file as it was opened, found it changed; run it again")
                    shared = list(self.shared[file])  # pictures that are there once and shown many times stay there once
                    with pq.ParquetFile(opened.file, read_dictionary=shared) as parquet:
                        table = parquet.read_row_group(group, columns=[self.column], use_threads=False)
                        table.validate(full=True)
            except (pa.ArrowException, PageError, KeyError, OSError, UnicodeError) as error:
                raise DataError(f"{self.files[file]}: expected readable parquet, found {one_line(error)}") from None
            while len(self._held) > 1:
                del self._held[next(iter(self._held))]
            self._held[number] = table.column(0)
        if place >= len(self._held[number]):
            raise DataError(
                f"{self.where(row)}: expected a row, found {len(self._held[number])} in its group; fetch the file again"
            )
        return encoded(
            self._held[number][place].as_py(), self.where(row), self.files[self.groups[number][0]].parent, links=self.links
        )

    def where(self, row: int) -> str:
        """Return file and row."""
        number, place = self._locate(row)
        file, _, first = self.groups[number]
        before = next(start for f, _, start in self.groups if f == file)
        return f"{self.files[file]}, row {place + first - before}"


def stem(file: Path) -> str:
    """Return the name of a file without the number of its shard.

    Args:
        file: such as `train-00000-of-00005.parquet`.

    Returns:
        Such as `train`.
    """
    return re.sub(r"[-_.]?\d+(-of-\d+)?$", "", file.stem)


def find_parquet(place: str, split: str | None) -> list[Path]:
    """List the parquet files that a path means.

    Args:
        place: a file, a folder or a glob.
        split: take the files whose name starts with it.

    Returns:
        Files in alphabetical order; empty when there are none.
    """
    path = Path(place)
    if path.is_dir():
        found = sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))
    elif path.is_file():
        found = [path] if path.suffix == ".parquet" else []
    else:
        names = glob.glob(place, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns
        found = sorted(Path(name) for name in names if name.endswith(".parquet"))
    if split is None:
        return found
    return [file for file in found if stem(file) == split] or [file for file in found if file.name.startswith(split)]


def _names_in_schema(schema: pa.Schema, column: str) -> Sequence[str] | None:
    """Take class names from the Hugging Face metadata of a parquet schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def read_parquet(files: Sequence[Path], keys: Keys = NO_KEYS, *, links: bool = False) -> RawData:
    """Read parquet files with a column of encoded images and one of labels.

    Args:
        files: with the same columns.
        keys: columns that were named.
        links: paths in cells may lead out of the files' folder.

    Returns:
        The data; class names from the Hugging Face metadata where they are there.

    Raises:
        DataError: unreadable files, missing columns, or files that disagree on columns or class names.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    values: list[Any] = []
    warnings: list[ReportWarning] = []
    groups: list[tuple[int, int, int]] = []
    wanted = keys
    names: Sequence[str] | None = None
    split_values: set[str] = set()
    stamps: list[tuple[int, ...]] = []
    pictures: list[tuple[str, ...]] = []
    rows = 0
    for number, path in enumerate(files):
        try:
            with ExitStack() as stack:
                opened = stack.enter_context(OpenFile(path))
                parquet = stack.enter_context(pq.ParquetFile(opened.file))
                schema = parquet.schema_arrow
                image_column, label_column, said = _find_columns(schema, wanted, path, first=number == 0)
                warnings += said
                split_column = next((name for name in SPLIT_COLUMNS if name in schema.names and name != label_column), None)
                parts = check_pages(opened, {image_column, label_column, split_column or ""})
                stamps.append(opened.stamp)
                pictures.append(tuple(part for part in parts.shared if part in (image_column, f"{image_column}.bytes")))
                texts = [
                    name for name in (label_column, split_column) if name in parts.shared and _is_text(schema.field(name).type)
                ]
                shared = stack.enter_context(pq.ParquetFile(opened.file, read_dictionary=texts))
                if split_column is not None:
                    split_values |= {str(value) for value in _label_values(shared, split_column, path)}
                wanted = Keys(image_column, label_column)
                found = _names_in_schema(schema, label_column)
                if names is not None and found is not None and names != found:
                    raise DataError(f"{path}: expected the class names of the files before it, found others; pass one file")
                names = names if found is None else found
                values += _label_values(shared, label_column, path)
                for group, count in enumerate(parts.rows):
                    groups.append((number, group, rows))
                    rows += count
        except (pa.ArrowException, PageError, KeyError, OSError, UnicodeError) as error:
            text = foreign_file(path, b"PAR1") or one_line(error)
            raise DataError(f"{path}: expected a readable parquet file, found {text}") from None
    if not rows:
        raise DataError(f"{files[0]}: expected images, found no rows")
    warnings += split_column_warnings(split_values)
    numbered = number_labels(values, names, str(files[0]))
    reader = _checked(ParquetReader(tuple(files), image_column, tuple(groups), tuple(stamps), tuple(pictures), links), schema)
    return RawData(reader, numbered.numbers, numbered.names, (*numbered.warnings, *warnings), (image_column, label_column))


def _find_columns(schema: pa.Schema, keys: Keys, path: Path, *, first: bool) -> tuple[str, str, list[ReportWarning]]:
    """Find the columns of images and labels; of further files they are those of the first."""
    if not first and (absent := [name for name in (keys.image, keys.label) if name not in schema.names]):
        raise DataError(f"{path}: expected the column {absent[0]!r} of the files before it, found {shorten(list(schema.names), 8)}")
    images = [name for name in schema.names if _holds_pictures(schema.field(name).type)]
    image = find_image(schema.names, keys, str(path), images)
    label = find_label(schema.names, keys, str(path), _may_be_labels(schema, image))
    _check_images(schema, image, path)
    others = label_choices(label, _may_be_labels(schema, image))
    choices = ({} if keys.image else {image: images}) | ({} if keys.label else {label: others})
    return image, label, [*guess_warnings(image, label, keys), *column_warnings(choices)]


def _checked(reader: ParquetReader, schema: pa.Schema) -> ParquetReader:
    """Read the first image of a column that may hold others: a path that leads nowhere, or a list without a shape, is told before any model is loaded."""
    if not _holds_pictures(schema.field(reader.column).type):
        try:
            reader.read(0)
        except DataError as error:
            raise DataError(
                f"{error}; the column {reader.column!r} is no picture's: mend it, or name another with --image-key"
            ) from None
    return reader


def _label_values(parquet: Any, column: str, path: Path) -> list[Any]:
    """Read labels; text that many rows share is held once."""
    import pyarrow as pa

    found: list[Any] = []
    for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=[column]):
        batch.validate(full=True)
        chunk = batch.column(0)
        shared = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk
        texts = shared.to_pylist()
        longest = max((len(text) for text in texts if isinstance(text, str | bytes)), default=0)
        if longest > _LONGEST_LABEL:
            raise DataError(
                f"{path}: expected labels in the column {column!r}, found text of {longest} characters; name classes shortly"
            )
        places = chunk.indices.to_pylist() if isinstance(chunk, pa.DictionaryArray) else range(len(texts))
        found += [None if place is None else texts[place] for place in places]
    return found


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind))


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _holds_pictures(kind: pa.DataType) -> bool:
    import pyarrow as pa

    inner = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))


def _may_be_labels(schema: pa.Schema, image: str) -> list[str]:
    """List the columns of whole numbers, truth values or text, beside that of the images."""
    import pyarrow as pa

    fits = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    return [name for name in schema.names if name != image and any(fit(schema.field(name).type) for fit in fits)]


def _check_images(schema: pa.Schema, column: str, path: Path) -> None:
    kind = schema.field(column).type
    if not (_holds_pictures(kind) or _is_text(kind) or _is_list(kind)):
        raise DataError(
            f"{path}: expected encoded images in the column {column!r} (bytes, a dict with bytes, paths or base64), found {kind}; name another with --image-key"
        )


def read_split(
    files: Sequence[Path], spec: str, split: str | None, *, whole: bool, keys: Keys = NO_KEYS, links: bool = False
) -> RawData:
    """Read parquet files, of one split where their names tell of several.

    Args:
        files: from `find_parquet`.
        spec: as typed.
        split: as typed.
        whole: they are all of a folder, and not named one by one or by a glob.
        keys: columns that were named.
        links: paths in cells may lead out of the files' folder.

    Returns:
        The data.

    Raises:
        DataError: the files of a folder are of several splits, and none was named.
    """
    shards = _absent_shards(files)
    splits = [name for name in SPLIT_NAMES if any(re.match(rf"{name}(?![a-z])", file.name, re.IGNORECASE) for file in files)]
    if split is not None or len(splits) < 2:
        raw = read_parquet(files, keys, links=links)
        found = [*raw.warnings, *_beside(files, whole), *shards]
        names = sorted({stem(file) for file in files})
        if whole and len(names) > 1:
            found.append(warn("split", f"files of several names are taken together: {', '.join(names[:5])}"))
        return replace(raw, warnings=tuple(found))
    told = ", ".join(sorted(splits))
    if whole:
        raise DataError(
            f"{spec}: expected files of one split, found the splits {told}; name one with --source-split or --target-split"
        )
    raw = read_parquet(files, keys, links=links)
    return replace(raw, warnings=(*raw.warnings, *shards, warn("split", f"files of several splits are taken together: {told}")))


def _absent_shards(files: Sequence[Path]) -> list[ReportWarning]:
    """Tell of files whose names say that there are more of them."""
    found: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if (shard := re.search(r"(\d+)-of-(\d+)$", file.stem)) is not None:
            found.setdefault((stem(file), int(shard[2])), set()).add(int(shard[1]))
    absent = [
        f"{name} {number}"
        for (name, total), there in found.items()
        for number in range(min(total, MOST_SHARDS))
        if number not in there
    ]
    return [warn("left-out", "{n} files of which the names of others tell are not there ({names})", absent)] if absent else []


def _beside(files: Sequence[Path], whole: bool) -> list[ReportWarning]:
    """Tell of folders beside the files of a folder, and of files whose suffix is written otherwise."""
    if not whole:
        return []
    places = [path for path in files[0].parent.iterdir() if path not in files and not path.name.startswith(".")]
    others = [path.name for path in sorted(places) if _holds_data(path) or (path.suffix.lower() == ".parquet" != path.suffix)]
    return [warn("left-out", "{n} files and folders beside the parquet files were left out ({names})", others)] if others else []


def _holds_data(path: Path) -> bool:
    suffixes = {inner.suffix.lower() for inner in path.iterdir()} if path.is_dir() else set()
    return bool(suffixes & {".parquet", *IMAGE_SUFFIXES})
