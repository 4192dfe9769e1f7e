"""The program: its commands, what it says of errors, its exit code."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import typer

from gcaudit.cli import audits, listing, zoo  # noqa: F401 - they add their commands to the app
from gcaudit.cli.app import app
from gcaudit.cli.console import write_stderr
from gcaudit.cli.heap import keep_freed_memory
from gcaudit.errors import GcauditError, InterruptedAuditError, one_line, plain, printable
from gcaudit.files import is_outage

_WRONG_PATHS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


_MEANT = {
    ("gcaudit gate", "--gate"): "--rule RULE or --rules FILE",
    ("gcaudit score", "--rule"): "--gate RULE",
    ("gcaudit score", "--rules"): "--gate FILE",
}
"""What an option is called in another command."""


def run() -> int:
    """Run a command, and say what went wrong.

    Returns:
        The exit code.
    """
    try:
        result = app(prog_name="gcaudit", standalone_mode=False)
    except InterruptedAuditError as stop:
        write_stderr(f"gcaudit: interrupted; {stop}")
        return 130
    except GcauditError as error:
        write_stderr(f"gcaudit: error: {printable(str(error))}")
        return error.exit_code
    except typer.Abort:
        write_stderr("gcaudit: aborted")
        return 2
    except KeyboardInterrupt:
        result = 130
    except Exception as error:
        # Typer brings its own copy of click in some versions, so that its errors are told by what they can do
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            _show_usage_error(error)
            return 2
        if os.environ.get("GCAUDIT_DEBUG"):
            traceback.print_exc()
            return 3
        if isinstance(error, OSError) and is_outage(error):
            write_stderr(
                f"gcaudit: error: could not be completed: {one_line(error)}; see the network and the free space, and try again"
            )
            return 3
        if isinstance(error, OSError) and error.errno in _WRONG_PATHS:
            place = f"{plain(str(error.filename), 200)}: " if error.filename else ""
            write_stderr(f"gcaudit: error: {place}expected a path that can be used, found {error.strerror}; check it")
            return 2
        if isinstance(error, OSError | MemoryError):  # no room on disk, none in memory, or a limit of the system's
            write_stderr(f"gcaudit: error: the system refused: {one_line(error)}; see free space, permissions and ulimit -a")
            return 3
        write_stderr(
            f"gcaudit: internal error: {type(error).__name__}: {one_line(error, 1000)}; set GCAUDIT_DEBUG=1 for the traceback, and report it"
        )
        return 3
    if result == 130:
        write_stderr("gcaudit: interrupted; nothing was written")
    return int(result) if isinstance(result, int) else 0


def _show_usage_error(error: Any) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "gcaudit"
    meant = _MEANT.get((command, getattr(error, "option_name", "")))
    text = f"No such option: {error.option_name}; did you mean {meant}?" if meant else " ".join(error.format_message().split())
    write_stderr(f"gcaudit: error: {text}{'' if meant else ';'} see {command} --help")


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 a gate failed, 2 wrong request, 3 could not be completed, 130 Ctrl-C."""
    warnings.simplefilter("ignore")
    keep_freed_memory()
    gc.set_threshold(100_000)  # importing torch and timm makes many objects and hardly any garbage
    # a stream that the caller has closed is None
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the end
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    code = run()
    if code == 130:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def program() -> None:
    """Be the program `gcaudit`: run the command line, then end the process without taking torch's modules apart, which takes a second."""
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a reader that left early has seen what it wanted
            stream.flush()
    os._exit(code)
