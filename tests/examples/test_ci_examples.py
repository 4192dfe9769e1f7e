import os
import sys
from pathlib import Path

import pytest
import yaml
from processes import finished
from reports import make_worse


def shell_in(folder, script):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return finished(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env={**os.environ, "PATH": path})


@pytest.mark.parametrize("name", ["github-workflow.yml", "gitlab-job.yml"])
def test_the_ci_examples_work_as_they_are(repository, tmp_path, name):
    content = yaml.safe_load((repository / "examples" / "ci" / name).read_text())
    if "jobs" in content:
        lines = [step["run"] for step in content["jobs"]["gate"]["steps"] if "run" in step]
    else:
        lines = content["checkpoint"]["script"]
    assert lines[0] == "pip install ."
    (tmp_path / "examples").symlink_to(repository / "examples")
    found = shell_in(tmp_path, "\n".join(lines[1:]))
    assert found.returncode == 0, found.stderr
    assert "gate passed" in found.stdout
    assert (tmp_path / "gate.xml").is_file()
    assert (tmp_path / "report.evidence.npz").is_file()


def test_the_script_makes_a_baseline_and_then_judges(repository, tmp_path):
    script = repository / "examples" / "ci" / "check_checkpoint.sh"
    make_worse(tmp_path / "worse", 3)
    assert shell_in(tmp_path, str(script)).returncode == 2
    assert shell_in(tmp_path, f"{script} demo demo demo base.json -q").returncode == 0
    assert shell_in(tmp_path, f"{script} demo demo demo base.json -q").returncode == 0
    found = shell_in(tmp_path, f"{script} ./worse demo demo base.json -q")
    assert found.returncode == 1
    assert "gate FAILED" in found.stderr
