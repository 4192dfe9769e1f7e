"""Processes that tests start: ended whatever happens, and waited for by their state, never by the clock."""

import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress

GUARD_SECONDS = 900
"""Longer than anything takes on the busiest machine: it ends a test that hangs, and decides nothing else."""


@contextmanager
def started(command, **options):
    """A process that is ended with all that it has started, and that Ctrl-C reaches: what a shell starts behind itself ignores it."""
    with subprocess.Popen(command, start_new_session=True, preexec_fn=_heed_ctrl_c, **options) as process:  # noqa: PLW1509
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _heed_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finished(command, **options):
    """What a process that has run to its end has said, as text, and its exit code."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    with started(command, **options) as process:
        out, err = process.communicate(timeout=GUARD_SECONDS)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def until(condition):
    """Wait for a state."""
    deadline = time.monotonic() + GUARD_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
