from pathlib import Path

import numpy as np
import pytest
from reports import changed

from gcaudit.errors import RequestError
from gcaudit.report.evidence import evidence_path, load_evidence, save_evidence
from gcaudit.report.schema import Report


def test_evidence_is_kept_and_belongs_to_its_report(demo, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(demo.to_json())
    save_evidence(evidence_path(path), demo.evidence, demo.to_json())
    found = Report.read(path)
    assert found == demo
    assert set(found.evidence.influences) == set(demo.evidence.influences)
    for key, values in demo.evidence.influences.items():
        assert np.array_equal(found.evidence.influences[key], values)
        role, metric = key.split("@")[0].split(".")
        stderr = found.blocks()[role].metrics[metric].stderr
        if values.ndim == 1:
            assert np.linalg.norm(values) == pytest.approx(stderr, rel=1e-12)
        else:
            episodes = found.evidence.episodes[key]
            assert (values[0] * values[1]).sum() + (episodes**2).sum() == pytest.approx(stderr**2, rel=1e-12)
    assert set(found.evidence.episodes) == {"target.probe_accuracy", "target.probe_accuracy@5"}
    assert found.evidence.draws["source.energies"].mean() == pytest.approx(demo.source.metrics["gc"].value, rel=1e-12)
    path.write_text(changed(demo, "source", spec="other").to_json())
    with pytest.raises(RequestError, match="found another's"):
        Report.read(path)
    evidence_path(path).write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(RequestError, match="expected saved evidence"):
        Report.read(path)
    assert Report.read(path, evidence=False).evidence is None
    evidence_path(path).unlink()
    assert Report.read(path).evidence is None
    assert load_evidence(tmp_path / "none.npz", "") is None


def test_damaged_evidence_is_told_whatever_the_damage(demo, tmp_path):
    path = tmp_path / "r.evidence.npz"
    save_evidence(path, demo.evidence, demo.to_json())
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            load_evidence(path, demo.to_json())
        except RequestError as error:
            refused += "\n" not in str(error)
    assert refused > 30
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "x.npy").replace(path)
    with pytest.raises(RequestError, match="expected saved evidence"):
        load_evidence(path, "")


def test_evidence_of_an_older_report_is_removed(run, tmp_path):
    options = ("score", "demo", "-s", "demo", "-q", "--metrics", "cdnv", "-o", tmp_path / "r.json")
    assert run(*options, "--save-evidence")[0] == 0
    assert (tmp_path / "r.evidence.npz").is_file()
    assert run(*options, "--seed", 1)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert run("gate", tmp_path / "r.json", "-r", "source.cdnv <= 1")[0] == 0


def test_pickles_in_evidence_are_not_read(tmp_path):
    class Touch:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    np.savez(tmp_path / "r.evidence.npz", report=np.array([Touch()], dtype=object))
    with pytest.raises(RequestError, match="expected saved evidence"):
        load_evidence(tmp_path / "r.evidence.npz", "")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{", "found in the file"),
        ('{"schema": "x"}', "schema gcaudit.report/3 or before"),
        ("\xff", "not text"),
    ],
)
def test_files_that_are_no_reports_are_told(tmp_path, text, message):
    path = tmp_path / "r.json"
    if text is not None:
        path.write_bytes(text.encode("latin1"))
    with pytest.raises(RequestError, match=message):
        Report.read(path)
