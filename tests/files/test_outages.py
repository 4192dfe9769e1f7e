import errno
import socket
import sys
import urllib.error
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from gcaudit.cli import main
from gcaudit.files.outages import HUB_LOST, deepest, is_outage


@pytest.fixture(autouse=True)
def _online(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv(HUB_LOST, raising=False)


def answered(status):
    return HfHubHTTPError(f"{status} of the hub", response=SimpleNamespace(status_code=status, headers={}, request=None))


def foreign(library, name):
    """An error of a library that need not be installed."""
    return type(name, (Exception,), {"__module__": library})("it broke")


def wrapped(cause, outer=None):
    try:
        raise outer or LocalEntryNotFoundError("cannot find the file in the cache") from cause
    except Exception as error:
        return error


def lost():
    return urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (lost(), True),
        (urllib.error.HTTPError("http://a", 503, "down", {}, None), True),
        (urllib.error.HTTPError("http://a", 404, "not found", {}, None), False),
        (foreign("httpx", "ConnectError"), True),
        (foreign("httpx2._exceptions", "ReadTimeout"), True),
        (foreign("urllib3.exceptions", "MaxRetryError"), True),
        (foreign("requests.exceptions", "InvalidURL"), False),
        (foreign("mine", "ConnectError"), False),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (TimeoutError("slow"), True),
        (answered(500), True),
        (answered(502), True),
        (answered(429), True),
        (answered(401), False),
        (answered(403), False),
        (answered(404), False),
        (wrapped(answered(503)), True),
        (wrapped(answered(404)), False),
        (wrapped(lost()), True),
        (wrapped(wrapped(answered(503)), FileNotFoundError("Couldn't find 'a/b' on the Hub either")), True),
        (ConnectionError("Couldn't reach 'a' on the Hub (LocalEntryNotFoundError)"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (ValueError("3"), False),
        (KeyError("architecture"), False),
    ],
    ids=repr,
)
def test_what_may_work_later_is_told_from_what_is_wrong(error, outage):
    assert is_outage(error) is outage


@pytest.mark.parametrize(
    "error", [OfflineModeIsEnabled("no"), wrapped(OfflineModeIsEnabled("no")), ConnectionError("not on the Hub (Offline)")]
)
def test_a_hub_that_the_user_switched_off_is_no_outage_and_one_that_was_lost_is(monkeypatch, error):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not is_outage(error)
    monkeypatch.setenv(HUB_LOST, "1")
    assert is_outage(error)


def test_the_switch_of_the_hub_is_none_of_the_network():
    assert is_outage(lost())


def test_errors_that_name_each_other_come_to_an_end():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_outage(first)


def test_the_answer_of_the_hub_is_found_behind_what_wraps_it():
    cause = answered(503)
    assert deepest(wrapped(cause)) is cause
    alone = ValueError("a")
    assert deepest(alone) is alone


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def refuse(*_arguments, **_options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path


def test_without_network_the_exit_code_is_3_and_for_a_wrong_name_2(run, no_network):
    code, out, err = run("score", "torchvision:resnet18", "-s", "demo", "-q")
    assert (code, out) == (3, "")  # torch.hub says on stdout what it downloads
    assert "Name or service not known" in err
    assert "; try again, or with no network fetch the file elsewhere" in err
    assert run("score", "torchvision:resnet19", "-s", "demo", "-q")[0] == 2


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, 3), (errno.EIO, 3), (errno.ENETUNREACH, 3), (errno.EACCES, 2), (errno.ENOENT, 2)]
)
def test_what_the_system_refuses(monkeypatch, capsys, number, code):
    def broken(**_options):
        raise OSError(number, "refused", "place")

    monkeypatch.setattr(main, "app", broken)
    assert main.run() == code
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /dev/full")
@pytest.mark.parametrize(
    "arguments", [["gate", "r.json", "-r", "source.cdnv <= 1", "-o"], ["score", "demo", "-s", "demo", "-q", "-o"]]
)
def test_a_full_disk_is_exit_code_3(run, tmp_path, monkeypatch, demo, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.json").write_text(demo.to_json())
    code, _, err = run(*arguments, "/dev/full", "-f", "json")
    assert code == 3
    assert "expected to write /dev/full: No space left on device" in err
