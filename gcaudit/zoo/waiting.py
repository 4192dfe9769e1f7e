"""Waiting for other processes that have work under way on the same store: said, since when and for whom, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import final

from gcaudit.store import Claims

Say = Callable[[str], None]
"""Told of what should be known while the work goes on, in one line."""
MAX_WAIT_MINUTES = 60.0


def say_nothing(_line: str) -> None:
    """Keep silent."""


@final
class Patience:
    """How long other processes have been waited for without any of their blocks coming."""

    def __init__(self, claims: Claims, minutes: float, say: Say) -> None:
        """Start the clock.

        Args:
            claims: of the store.
            minutes: to wait at most from one block to the next.
            say: told for whom it waits.
        """
        self._claims, self._minutes, self._say = claims, minutes, say
        self._keys: tuple[str, ...] = ()
        self._began, self._since = 0.0, ""
        self._told: tuple[str, int] | None = None

    def lose(self, keys: Sequence[str]) -> str | None:
        """Wait for keys a while longer, or lose patience.

        Args:
            keys: of blocks that others have under way.

        Returns:
            Why they are waited for no longer; None while they are.
        """
        if tuple(keys) != self._keys:
            self._keys, self._began = tuple(keys), time.monotonic()
            self._since = f"{datetime.now().astimezone():%H:%M:%S}"
        holder = self._claims.holder(keys[0])
        whom = "another process" if holder is None else f"process {holder}"
        if time.monotonic() - self._began > 60 * self._minutes:
            return (
                f"expected {whom} to finish what it has under way on the same store, waited for {self._minutes:g} minutes since {self._since}; "
                "end it, or raise --max-wait"
            )
        if (whom, len(keys)) != self._told:
            self._told = whom, len(keys)
            self._say(
                f"waiting since {self._since} for {whom}, which has {len(keys)} of the blocks under way; "
                f"Ctrl-C ends the wait, and so do {self._minutes:g} minutes without a block (--max-wait)"
            )
        return None
