"""Where output goes: the report to stdout or a file, everything else to stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcaudit.errors import AuditError, RequestError, telling_paths
from gcaudit.render import FORMATS, Paper, log_text, paper_of, paragraph

if TYPE_CHECKING:
    from gcaudit.gate import GateResult
    from gcaudit.report import Report, ReportEvidence

_SUFFIXES = {
    "": "table",
    ".txt": "table",
    ".json": "json",
    ".md": "markdown",
    ".csv": "csv",
    ".parquet": "parquet",
    ".xml": "junit",
}


def choose_format(name: str | None, output: Path | None, formats: Sequence[str] = FORMATS) -> str:
    """Settle the format before any work is done.

    Args:
        name: as typed, or None.
        output: where the report goes, or None for stdout.
        formats: that there are.

    Returns:
        One of them; by the file's suffix when none was typed.

    Raises:
        RequestError: unknown format, or an output that cannot be written.
    """
    if output is not None:
        check_writable(output)
    if name is None and output is not None:
        name = _SUFFIXES.get(output.suffix.lower())
        if name not in formats:
            suffixes = ", ".join(suffix for suffix, format_ in _SUFFIXES.items() if suffix and format_ in formats)
            raise RequestError(f"expected --output to end in {suffixes}; found {output}; add --format {'|'.join(formats)}")
    name = name or "table"
    if name not in formats:
        raise RequestError(f"expected --format of {', '.join(formats)}; found {name!r}")
    if name == "parquet" and output is None:
        raise RequestError("expected --output FILE.parquet with --format parquet, found none; add -o FILE.parquet")
    return name


def check_writable(output: Path, option: str = "--output") -> None:
    """Check that a file can be written, before any work is done.

    Args:
        output: the file.
        option: that named it.

    Raises:
        RequestError: it cannot.
    """
    with telling_paths(f"{option} that can be written", RequestError):
        _check_place(output, option)


def _check_place(output: Path, option: str) -> None:
    folder = output.parent
    with contextlib.suppress(FileNotFoundError):
        output.stat()  # a circle of links is told here
    if output.is_dir():
        raise RequestError(f"expected {option} to be a file, found the folder {output}")
    if not folder.is_dir():
        raise RequestError(f"expected {option} in a folder that exists, found no {folder}; make it first")
    if output.exists() and not output.is_file():
        return
    if not (os.access(folder.resolve(), os.W_OK) and (not output.exists() or os.access(output, os.W_OK))):
        raise RequestError(f"expected to write {output}, found it not permitted")


def keep_apart(read: Iterable[tuple[str, Any]], written: Iterable[tuple[str, Path | None]]) -> None:
    """Check that nothing that is read or written is overwritten, before any work is done.

    Args:
        read: option and value of all that may be a file; what is none does not matter.
        written: option and file of all that will be written, or None.

    Raises:
        RequestError: a file is named twice.
    """
    seen: list[tuple[str, Path]] = []
    folders: list[tuple[str, Path]] = []
    for option, place in read:
        with contextlib.suppress(OSError, ValueError, TypeError):
            if Path(place).is_file():
                seen.append((option, Path(place)))
            elif Path(place).is_dir():
                folders.append((option, Path(place)))
    for option, path in written:
        with telling_paths(f"{option} that can be written", RequestError):
            if path is None or not is_file_place(path):
                continue
            for other, known in seen:
                if os.path.realpath(path) == os.path.realpath(known) or (path.exists() and known.exists() and path.samefile(known)):
                    raise RequestError(f"expected {option} to leave {other} as it is, found {path} for both; choose another file")
            for other, folder in folders if path.exists() and _is_read_of_folders(path) else ():
                if Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents:
                    raise RequestError(
                        f"expected {option} to leave {other} as it is, found {path}, a file of it; choose another file"
                    )
        seen.append((option, path))


def _is_read_of_folders(path: Path) -> bool:
    """Tell what a model or a data set in a folder is made of from reports that lie there."""
    return path.suffix.lower() not in (".json", ".md", ".txt", ".csv", ".xml") or path.name.endswith(_READ_OF_FOLDERS)


def write_output(content: str | bytes, output: Path | None) -> None:
    """Write to a file, or to stdout.

    Args:
        content: text, or the bytes of a file.
        output: the file, or None.
    """
    if output is not None:
        write_atomically(output, content)
    else:
        write_stdout(content if isinstance(content, str) else log_text(content.decode()))


def is_file_place(path: Path) -> bool:
    """Tell a file, also one that is not there yet, from devices and pipes.

    Args:
        path: where something will be written.
    """
    return path.parts[:2] not in (("/", "dev"), ("/", "proc")) and (not path.exists() or path.is_file())


def write_atomically(path: Path, text: str | bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Args:
        path: replaced if it exists, through links; devices and pipes are written to directly.
        text: the content.

    Raises:
        AuditError: it cannot be written.
    """
    content = text.encode() if isinstance(text, str) else text
    try:
        if not is_file_place(path):
            path.write_bytes(content)
            return
        path = path.resolve()
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".gcaudit-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
            Path(name).chmod(mode)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise AuditError(f"expected to write {path}: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_READ_OF_FOLDERS = ("config.json", "index.json", "args.json", "metadata.csv", "classes.txt")
_PLAIN = str.maketrans({"─": "-", "—": "-", "↓": "v", "↑": "^", "é": "e"})


@contextlib.contextmanager
def stdout_kept() -> Iterator[None]:
    """Send to stderr what libraries and users' own code print, so that stdout carries the report alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def stdout_paper(output: Path | None = None) -> Paper:
    """Say what stdout is for a table.

    Args:
        output: a file that takes its place, or None.
    """
    return paper_of(terminal=output is None and sys.stdout.isatty())


def write_stdout(text: str) -> None:
    """Write to stdout; a reader that has gone away is no error.

    Args:
        text: what to write; signs that stdout's encoding lacks are replaced.

    Raises:
        AuditError: stdout cannot be written to.
    """
    encoding = sys.stdout.encoding or "utf-8"
    if "utf" not in encoding.lower():
        text = text.translate(_PLAIN)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # the interpreter flushes stdout once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise AuditError(f"expected to write to standard output: {error.strerror or error}") from error


def write_stderr(text: str, *, command: bool = False) -> None:
    """Write a line to stderr; a terminal is not left to break it inside a word.

    Args:
        text: the line.
        command: it is meant for the CI system that reads the log, or laid out already.
    """
    with contextlib.suppress(OSError, ValueError):
        if not command and sys.stderr.isatty():
            text = "".join(paragraph(line, paper_of(terminal=True)) for line in text.splitlines()).rstrip("\n")
        sys.stderr.write((text if command else log_text(text)) + "\n")
        sys.stderr.flush()


def write_report(report: Report, name: str, output: Path | None, *, quiet: bool, keep_evidence: bool = False) -> None:
    """Write a report: the report itself, then warnings and a summary.

    Args:
        report: the report.
        name: one of `FORMATS`.
        output: a file, or None for stdout.
        quiet: leave the summary out.
        keep_evidence: also write what paired comparisons need, beside `output`.
    """
    from gcaudit.render import render_report

    text = render_report(report, name, stdout_paper(output))
    if output is None:
        write_stdout(text)
    else:
        write_atomically(output, text)
        if name == "json" and output.suffix == ".json":
            _write_evidence(report.evidence if keep_evidence else None, output, text)
    seen = output is None and name == "table" and sys.stdout.isatty()  # they are the table's last lines
    for line in () if seen else report.warnings:
        write_stderr(f"gcaudit: warning: {line}")
    if not quiet:
        images = sum(block.images for block in report.blocks().values())
        timing = report.timing
        where = f"; report in {output}" if output is not None else ""
        write_stderr(f"gcaudit: {images} images in {timing.seconds:.1f} s ({timing.images_per_second:.0f} images/s){where}")


def _write_evidence(evidence: ReportEvidence | None, output: Path, text: str) -> None:
    """Write evidence beside a report; what lies there of an older one is of no use any more."""
    from gcaudit.report import evidence_path, save_evidence

    path = evidence_path(output)
    try:
        if evidence is None:
            if os.path.lexists(path):  # never so where the name would be too long
                path.unlink(missing_ok=True)
        else:
            save_evidence(path, evidence, text)
    except OSError as error:
        raise AuditError(f"expected to write {path}: {error.strerror or error}") from error


def write_verdicts(result: GateResult, junit: Path | None) -> None:
    """Write what a CI system reads: JUnit to a file; under GitHub Actions, annotations and the step summary.

    Args:
        result: of the gate.
        junit: file of the JUnit XML, or None.
    """
    from gcaudit.render import render_annotations, render_gate, render_summary

    for line in result.warnings:
        write_stderr(f"gcaudit: warning: {line}")
    if junit is not None:
        write_atomically(junit, render_gate(result, "junit"))
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    for line in render_annotations(result):
        write_stderr(line, command=True)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with contextlib.suppress(OSError), Path(summary).open("a", encoding="utf-8") as file:
            file.write(render_summary(result))
