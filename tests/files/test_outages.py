import errno
import socket
import sys
import threading
import time
import urllib.error
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from gcaudit.checkpoints import read_checkpoint
from gcaudit.cli import main
from gcaudit.errors import AuditError
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
        (foreign("urllib.error", "ContentTooShortError"), True),
        (foreign("http.client", "BadStatusLine"), True),
        (foreign("huggingface_hub.errors", "XetDownloadError"), True),
        (foreign("huggingface_hub.errors", "IncompleteSnapshotError"), True),
        (foreign("huggingface_hub.errors", "RevisionResolutionError"), True),
        (foreign("datasets.exceptions", "DatasetNotFoundError"), False),
        (wrapped(None, foreign("datasets.exceptions", "DatasetNotFoundError")), False),
        (wrapped(ConnectionError("reset"), foreign("huggingface_hub.errors", "GatedRepoError")), False),
        (FileNotFoundError("Couldn't find 'a/b' on the Hugging Face Hub either"), False),
        (OSError("Consistency check failed: file should be of size 9 but has size 3 (model.safetensors)"), True),
        (RuntimeError("Data processing error: CAS service error : IO Error: Timer expired"), True),
        (RuntimeError('invalid hash value (expected "f37072fd", got "e3b0c442")'), True),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), True),
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


@pytest.mark.parametrize(
    ("variable", "error", "outage"),
    [
        ("TRANSFORMERS_OFFLINE", wrapped(OfflineModeIsEnabled("no")), False),
        ("HF_DATASETS_OFFLINE", ConnectionError("Couldn't reach 'a/b' on the Hub (OfflineModeIsEnabled)"), False),
        ("HF_DATASETS_OFFLINE", LocalEntryNotFoundError("cannot find the file in the cache"), True),
        ("HF_DATASETS_OFFLINE", lost(), True),
    ],
)
def test_each_library_has_its_own_switch(monkeypatch, variable, error, outage):
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv(variable, "true")
    assert is_outage(error) is outage
    monkeypatch.setenv(variable, "0")
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


def test_no_room_for_any_temporary_file_is_exit_code_3(monkeypatch, capsys):
    def broken(**_options):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(main, "app", broken)
    assert main.run() == 3
    assert "could not be completed: [Errno 2] No usable temporary directory found" in capsys.readouterr().err


@pytest.fixture
def packed(tmp_path):
    """A zip archive around a checkpoint."""
    torch.save({"fc.weight": torch.rand(200, 30)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "plain.pt", "plain.pt")
    assert set(read_checkpoint(tmp_path / "a.zip").tensors) == {"fc.weight"}
    return tmp_path / "a.zip"


def test_no_room_to_unpack_a_checkpoint_is_an_outage(packed, monkeypatch):
    def full(**_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gcaudit.checkpoints.wrappers.tempfile.mkstemp", full)
    with pytest.raises(AuditError, match=r"expected room for \d+ unpacked bytes .* found No space left on device; free the disk"):
        read_checkpoint(packed)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_disk_that_fills_up_while_a_checkpoint_is_unpacked_is_an_outage(packed):
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with pytest.raises(AuditError, match=r"expected room for \d+ unpacked bytes .* found File too large; free the disk"):
            read_checkpoint(packed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


class _Hub(BaseHTTPRequestHandler):
    """Answers everything with one status."""

    status = 0

    def do_GET(self):
        body = b"{}"
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        if self.status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_GET

    def log_message(self, *_arguments):
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine; called with the status of its answers."""
    import datasets
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    place = f"http://127.0.0.1:{server.server_port}"
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", place)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", place)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield lambda status: monkeypatch.setattr(_Hub, "status", status)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "code"), [(500, 3), (503, 3), (429, 3), (404, 2), (401, 2), (403, 2)])
@pytest.mark.parametrize("arguments", [["hf-hub:a/b", "-s", "demo"], ["demo", "-s", "hf:a/b"]], ids=["model", "data"])
def test_what_the_hub_answers_decides_the_exit_code(run, hub, arguments, status, code):
    hub(status)
    found, out, err = run("score", *arguments, "-q")
    assert (found, out) == (code, ""), err
    told = err.splitlines()[-1]  # before it are the lines of the hub's client on its own retries
    assert ("; try again, or with no network" in told) is (code == 3)
    assert ("; check the name, or" in told) is (code == 2)
