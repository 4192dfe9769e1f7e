"""Failures that are no fault of the request: no network, a hub that is down, no room on disk. The same request may well succeed later.

Which libraries fetch is not known here, so their errors are told by what they are named, by the HTTP status that they carry, and by the system's number.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

HUB_LOST = "GCAUDIT_HUB_LOST"
"""Environment variable that is set when the hub could not be reached, so that its client was switched to its cache without the user's asking."""
_NUMBERS = """
    ENOSPC EDQUOT EFBIG EIO ENOMEM EMFILE ENFILE
    ENETUNREACH ENETDOWN EHOSTUNREACH EHOSTDOWN ECONNREFUSED ECONNRESET ECONNABORTED ETIMEDOUT EPIPE
"""
_SYSTEM = frozenset(number for name in _NUMBERS.split() if (number := getattr(errno, name, None)) is not None)
_LIBRARIES = ("httpx", "httpcore", "requests", "urllib", "http", "aiohttp", "socket", "ssl")
_NETWORK = (
    "Connect", "Timeout", "Network", "Proxy", "Protocol", "Resolution", "MaxRetry", "URLError", "Read", "Write", "Incomplete", "SSL",
    "gaierror", "BadStatusLine", "TooShort",
)  # fmt: skip
_OF_HUB = (
    "LocalEntryNotFoundError",
    "IncompleteSnapshotError",
    "OfflineModeIsEnabled",
    "RevisionResolutionError",
    "XetDownloadError",
)
"""Errors of the Hugging Face hub's client that say that it had no answer."""
_MISSING = (
    "DatasetNotFoundError",
    "RepositoryNotFoundError",
    "RevisionNotFoundError",
    "RemoteEntryNotFoundError",
    "GatedRepoError",
)
"""Errors that say that it had one, also where what it was answered is lost on the way."""
_TOLD = (
    "CAS service error",  # this and the next two: a download broke off
    "Consistency check failed: file should be of size",
    "invalid hash value (expected",
    "No usable temporary directory",  # what Python says when all of them are full
)
"""What only the text tells: the errors' kinds are those of anything else."""
_TRUE = ("1", "ON", "YES", "TRUE")
_MANY, _SLOW, _BROKEN = 429, 408, 500


def is_outage(error: BaseException) -> bool:
    """Tell whether something failed that may work later, rather than a request that is wrong.

    Args:
        error: what was raised, with its causes.

    Returns:
        True for no network, a hub that answers with 408, 429 or 5xx, and a system without room; False for what was not found or is forbidden, and for a
        hub that the user has switched off by `HF_HUB_OFFLINE` or its like.
    """
    chain = list(_chain(error))
    statuses = [status for status in map(_status, chain) if status is not None]
    if statuses:
        return all(status in (_MANY, _SLOW) or status >= _BROKEN for status in statuses)
    if any(type(each).__name__ in _MISSING for each in chain):
        return False
    if any(_is_of_hub(each) for each in chain) and _is_offline(chain):
        return False
    return any(_is_of_network(each) or getattr(each, "errno", None) in _SYSTEM for each in chain)


def deepest(error: BaseException) -> BaseException:
    """Find the error that says most: a hub's client wraps what it was answered in words that do not tell it.

    Args:
        error: what was raised, with its causes.

    Returns:
        The one that carries an HTTP status, else the error itself.
    """
    return next((each for each in _chain(error) if _status(each) is not None), error)


def _is_of_hub(error: BaseException) -> bool:
    """Tell an error of the Hugging Face hub's client, which is where its being switched off matters."""
    name, text = type(error).__name__, str(error)
    return name in _OF_HUB or (isinstance(error, ConnectionError) and (" on the Hub" in text or "Hugging Face Hub" in text))


def _is_offline(chain: Iterable[BaseException]) -> bool:
    """Tell whether the user has switched the hub off; `HF_DATASETS_OFFLINE` is for the library `datasets` alone, which says that it cannot reach."""
    if _is_set("HF_DATASETS_OFFLINE") and any("Couldn't reach" in str(each) for each in chain):
        return True
    return (_is_set("HF_HUB_OFFLINE") or _is_set("TRANSFORMERS_OFFLINE")) and not os.environ.get(HUB_LOST)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").upper() in _TRUE


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Go through an error and all that it came of."""
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        parts = (each.__cause__, each.__context__, getattr(each, "reason", None), *each.args)
        waiting += [part for part in parts if isinstance(part, BaseException)]


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error carries."""
    response = getattr(error, "response", None)
    for found in (getattr(response, "status_code", None), getattr(error, "code", None), getattr(error, "status", None)):
        if isinstance(found, int) and 400 <= found < 600:
            return found
    return None


def _is_of_network(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError) or _is_of_hub(error) or any(words in str(error) for words in _TOLD):
        return True
    library = type(error).__module__.partition(".")[0].rstrip("0123456789")  # httpx2 is httpx
    return library in _LIBRARIES and any(word in type(error).__name__ for word in _NETWORK)
