"""The Hugging Face hub, when there is no network: say so at once instead of retrying for minutes."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from gcaudit.files import HUB_LOST

_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY")


def hub_is_reachable(endpoint: str) -> bool:
    """Find out whether the hub's name can be resolved; behind a proxy it is taken to be.

    Args:
        endpoint: address of the hub.

    Returns:
        False when a download cannot work.
    """
    if any(os.environ.get(name) for name in _PROXIES):
        return True
    try:
        parts = urlsplit(endpoint)
        socket.getaddrinfo(parts.hostname, parts.port or 443)
    except (OSError, ValueError):  # a name that is no name is a ValueError
        return False
    return True


def prepare_hub() -> None:
    """Switch the hub's client to its cache when the hub cannot be reached."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not hub_is_reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = os.environ[HUB_LOST] = "1"
