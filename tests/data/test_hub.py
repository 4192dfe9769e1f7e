import os
import socket

import pytest
from huggingface_hub import constants

from gcaudit.data.hub import hub_is_reachable, prepare_hub
from gcaudit.files.outages import HUB_LOST

PROXIES = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY"]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def online(monkeypatch):
    """The client's switch is put back after the test."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv(HUB_LOST, "")
    return monkeypatch


@pytest.mark.parametrize(
    "endpoint", ["https://hub.invalid", "https://hub.invalid:8080/path", "https://a..b", "https://[broken", "https://x:port"]
)
def test_a_name_that_leads_nowhere(endpoint):
    assert hub_is_reachable(endpoint) is False


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1", "http://localhost:8080"])
def test_a_name_that_leads_somewhere(endpoint):
    assert hub_is_reachable(endpoint) is True


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_knows_the_name(monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:3128")
    assert hub_is_reachable("https://hub.invalid") is True


def test_no_connection_is_opened(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    assert hub_is_reachable("http://127.0.0.1:9") is True


def test_the_client_goes_to_its_cache_when_the_hub_cannot_be_reached(online):
    online.setattr(constants, "ENDPOINT", "https://hub.invalid")
    prepare_hub()
    assert constants.HF_HUB_OFFLINE is True
    assert os.environ["HF_HUB_OFFLINE"] == os.environ[HUB_LOST] == "1"


def test_the_client_is_left_alone_when_the_hub_can_be_reached(online):
    online.setattr(constants, "ENDPOINT", "http://127.0.0.1")
    prepare_hub()
    assert constants.HF_HUB_OFFLINE is False
    assert (os.environ["HF_HUB_OFFLINE"], os.environ[HUB_LOST]) == ("0", "")


def test_a_client_that_is_offline_asks_nobody(online):
    online.setattr(constants, "HF_HUB_OFFLINE", True)
    online.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("asked"))
    prepare_hub()
    assert constants.HF_HUB_OFFLINE is True
