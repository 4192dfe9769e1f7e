"""`gcaudit compare` and `gcaudit results` as people type them."""

import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from processes import GUARD_SECONDS, started, until
from safetensors.torch import load_file, save_file

from gcaudit.bundled.files import bundled_path

DATA = ("--source", "demo", "--target", "demo", "--max-images", "100", "--episodes", "50")


def make_zoo(folder, count):
    """The demo's checkpoint and others with one layer perturbed, ever more."""
    for number in range(count):
        place = shutil.copytree(bundled_path("demo-model"), folder / f"model-{number}")
        weights = load_file(place / "model.safetensors")
        name = "layer1.0.conv1.weight"
        noise = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(number))
        weights[name] = weights[name] + number * weights[name].std() * noise
        save_file(weights, place / "model.safetensors")
    return [str(folder / f"model-{number}") for number in range(count)]


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_zoo(tmp_path, 4)


def test_a_ranking_and_a_second_one_from_the_store(run, zoo, tmp_path):
    code, out, err = run("compare", *zoo, *DATA)
    assert code == 0, err
    assert "4 cells: 4 measured, 0 from gcaudit.db, 0 failed" in err
    assert "1/4 model-0: demo -> demo: done" in err
    lines = [line.split()[2] for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert sorted(lines) == ["model-0", "model-1", "model-2", "model-3"]
    code, again, err = run("compare", *zoo, *DATA)
    assert (code, again) == (0, out)
    assert "4 cells: 0 measured, 4 from gcaudit.db, 0 failed" in err
    assert run("compare", *zoo, *DATA, "--quiet")[2] == ""


@pytest.mark.parametrize(("suffix", "read"), [("csv", pd.read_csv), ("parquet", pd.read_parquet)])
def test_tables_in_files(run, zoo, tmp_path, suffix, read):
    assert run("compare", *zoo[:2], *DATA, "-o", tmp_path / f"x.{suffix}")[:2] == (0, "")
    frame = read(tmp_path / f"x.{suffix}")
    assert set(frame["model"]) == {"model-0", "model-1"}
    assert list(frame["rank"]) == [1, 2]
    assert frame["target.probe_accuracy"].is_monotonic_decreasing


def test_names_of_a_file_of_models_are_those_of_the_store(run, zoo, tmp_path):
    models = f"- {{model: {zoo[0]}, name: old}}\n- {{model: {zoo[1]}, name: new}}\n- {{model: gone.pt, name: lost}}\n"
    settings = "settings: {max-images: 100, episodes: 50}\n"
    (tmp_path / "zoo.yaml").write_text(f"models:\n{models}sources: [{{data: demo, name: seen}}]\ntargets: [demo]\n{settings}")
    assert run("compare", *zoo[:2], *DATA, "-q")[0] == 0  # under other names
    assert run("compare", "zoo.yaml", "-o", "ranking.csv", "-q")[0] == 3
    assert run("results", "export", "cells.csv")[0] == 0
    ranking, cells = pd.read_csv("ranking.csv"), pd.read_csv("cells.csv")
    names, value = ["model", "source", "target"], "target.probe_accuracy"
    joined = ranking[[*names, value]].merge(cells[[*names, "spec", value]], on=names, suffixes=("", "_of_store")).set_index("model")
    assert sorted(joined.index) == ["lost", "new", "old"]
    assert list(joined.loc[["old", "new"], value]) == list(joined.loc[["old", "new"], f"{value}_of_store"])
    assert list(joined.loc[["old", "new"], "spec"]) == zoo[:2]
    out = run("results", "list", "--where", f"spec={zoo[1]}")[1]
    assert (" new " in out, " old " in out, "seen" in out) == (True, False, True)


def test_no_file_is_written_over_another(run, zoo, tmp_path):
    (tmp_path / "zoo.yaml").write_text("models: [demo]\nsources: [demo]\n")
    (tmp_path / "t.csv").write_text("model,accuracy\ndemo,0.5\n")
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    (tmp_path / "loop").symlink_to("loop")
    truth = ("--truth", "t.csv", "--scatter", "source.cdnv=a.svg")
    for arguments, named in (
        (("zoo.yaml", "-o", "zoo.yaml", "-f", "json"), "--output to leave MODEL as it is"),
        (("zoo.yaml", *truth, "-o", "a.svg", "-f", "json"), "--scatter to leave --output as it is"),
        (("zoo.yaml", *truth, "--scatter", "source.gc=a.svg"), "--scatter to leave --scatter as it is"),
        (("zoo.yaml", "-o", "data.parquet", "-t", "data.parquet"), "--output to leave a data set as it is"),
        (("demo", "-s", "data.parquet", "-o", "data.parquet"), "--output to leave a data set as it is"),
        (("zoo.yaml", "-o", "loop", "-f", "json"), "--output that can be written"),
        (("zoo.yaml", "--store", "zoo.yaml"), "--store to leave MODEL as it is"),
        (("zoo.yaml", "-o", "gcaudit.db", "-f", "json"), "--store to leave --output as it is"),
        (("zoo.yaml", "--truth", "r.predictions.csv", "-o", "r.csv"), "correlations beside --output to leave --truth as it is"),
    ):
        (tmp_path / "r.predictions.csv").write_text("model,accuracy\ndemo,0.5\n")
        code, out, err = run("compare", *arguments)
        assert (code, out, named in err) == (2, "", True), err
    assert (tmp_path / "zoo.yaml").read_text().startswith("models")


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_what_a_table_says_beside_its_rows_is_told_where_no_table_is_seen(run, zoo, tmp_path, suffix):
    for number in range(24):
        place = tmp_path / "photos" / f"class-{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    asked = (
        "compare",
        zoo[0],
        "-s",
        "photos",
        "-t",
        "photos",
        "--n-way",
        "3",
        "--n-shot",
        "1",
        "--n-query",
        "2",
        "--episodes",
        "20",
        "-q",
    )
    code, out, _ = run(*asked)
    told = [out.splitlines()[0], *(line.removeprefix("warning: ") for line in out.splitlines() if line.startswith("warning: "))]
    assert (code, "this is not transfer" in told[0], len(told) > 1) == (0, True, True), out
    code, out, err = run(*asked, "-o", f"x.{suffix}")
    assert (code, out) == (0, "")
    assert [line.removeprefix("gcaudit: warning: ") for line in err.splitlines()] == told


def test_a_failed_cell_is_a_row_and_exit_code_3(run, zoo):
    code, out, err = run("compare", zoo[0], "nothing.pt", *DATA, "--format", "json")
    assert code == 3
    held = json.loads(out)
    assert [row["model"] for row in held["tables"][0]["rows"]] == ["model-0"]
    assert "nothing.pt" in held["failed"][0]["reason"]
    assert "1 failed" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "dask"], "expected --engine of local, ray; found 'dask'"),
        (["--address", "auto"], "add --engine ray"),
        (["--sort", "source.nothing"], "expected the name of a metric, found 'nothing'"),
        (["--metrics", "nothing"], "expected the name of a metric"),
        (["--device", "abacus"], "expected --device"),
        (["--scatter", "source.gc=x.svg"], "expected --truth with --scatter"),
        (["--scatter", "source.gc", "--truth", "target.cdnv"], "expected --scatter METRIC=FILE.svg"),
        (["--scatter", "source.logme=x.svg", "--truth", "target.cdnv"], "expected --scatter of a metric that is measured"),
        (["--scatter", "target.cdnv=x.svg", "--truth", "target.cdnv"], "expected --scatter of a metric that is measured"),
        (["--truth", "target.logme"], "expected --truth of a metric that is measured"),
        (["--truth", "x.csv"], "expected --truth to be a CSV file, found no x.csv"),
        (["--truth", "nothing"], "expected --truth to be a CSV file or a metric"),
        (["--format", "parquet"], "expected --output FILE.parquet"),
        (["--format", "yaml"], "expected --format of table, json, markdown, csv, parquet"),
        (["--store", "no/such/folder/x.db"], "expected --store in a folder that exists"),
    ],
)
def test_wrong_requests_are_told_before_any_work(run, zoo, arguments, message, tmp_path):
    code, out, err = run("compare", zoo[0], *DATA, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "gcaudit.db").exists()


def test_no_source_is_told(run, zoo):
    code, _, err = run("compare", zoo[0])
    assert code == 2
    assert "expected --source DATA, or sources in a YAML file" in err


def test_scores_against_the_truth(run, zoo, tmp_path):
    (tmp_path / "truth.csv").write_text("model,accuracy\nmodel-0,0.9\nmodel-1,0.8\nmodel-2,0.6\nmodel-3,0.5\n")
    truth = ["--truth", "truth.csv", "--scatter", "source.cdnv=x.svg"]
    code, out, err = run("compare", *zoo, *DATA, *truth, "--format", "json")
    assert code == 0, err
    held = json.loads(out)
    entry = next(e for e in held["predictions"] if e["metric"] == "source.cdnv")
    assert sorted(entry["models"]) == [f"model-{n}" for n in range(4)]
    assert -1 <= entry["weighted_tau"]["value"] <= 1
    assert entry["spearman"]["ci95"] is not None
    assert (tmp_path / "x.svg").read_text().startswith("<?xml")
    code, out, _ = run("compare", *zoo, *DATA, *truth)
    assert "weighted Kendall tau" in out
    code, out, _ = run("compare", *zoo, *DATA, "--truth", "target.ncm_accuracy", "--format", "markdown")
    assert "scores against target.ncm_accuracy" in out
    assert "| target.ncm_accuracy |" not in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,accuracy\nsomebody,0.5\n", "expected accuracies of the models compared"),
        ("name,accuracy\nmodel-0,0.5\n", "expected columns model and accuracy"),
        ("model,accuracy\nmodel-0,high\n", "line 2: expected a number as accuracy, found 'high'"),
        ("model,accuracy\nmodel-0,91%\n", "found '91%'; write it as 91"),
        ("model,top1\nmodel-0,91\n", "expected columns model and accuracy, found model, top1; rename top1"),
        ("model;accuracy\nmodel-0;0,91\n", "found '0,91'"),
        ("model,accuracy\nmodel-0,NaN\n", "line 2: expected a number as accuracy, found nothing"),
        ("model,accuracy\nmodel-0,0.5\nmodel-0,0.6\n", "line 3: expected one accuracy"),
    ],
)
def test_wrong_truth_is_told(run, zoo, tmp_path, text, message):
    (tmp_path / "truth.csv").write_text(text)
    code, _, err = run("compare", zoo[0], *DATA, "--truth", "truth.csv")
    assert code == 2
    assert message in err
    assert not (tmp_path / "gcaudit.db").exists()


def test_what_is_in_the_store(run, zoo, tmp_path):
    assert run("compare", *zoo[:2], "nothing.pt", *DATA, "--quiet")[0] == 3
    code, out, _ = run("results")
    assert code == 0
    assert out == run("results", "list")[1]
    rows = out.splitlines()
    assert sum("nothing.pt" in row for row in rows) == 1
    assert "source demo" in out[out.index("alike in all: ") :]
    code, out, _ = run("results", "--where", "model=*model-1")
    assert (code, "model-1" in out, "model-0" in out) == (0, True, False)
    code, _, err = run("results", "--where", "seed=0", "export", "all.csv")
    assert (code, "type gcaudit results export --where" in err) == (2, True)
    assert "model-1" not in run("results", "list", "--where", "model=*model-0 and seed=0")[1]
    assert run("results", "list", "--where", "seed=1")[1] == "none of 3 cells fulfils --where\n"
    key = next(row.split()[0] for row in rows[1:] if "model-0" in row)
    code, out, _ = run("results", "show", key, "--format", "json")
    assert json.loads(out)["model"]["spec"] == zoo[0]
    assert "few-shot probe accuracy" in run("results", "show", key)[1]
    code, _, err = run("results", "export", "none.csv", "--where", "seed=1")
    assert (code, (tmp_path / "none.csv").exists()) == (2, False)
    assert "expected cells to export, found none of 3 that fulfils --where" in err
    assert run("results", "export", "all.csv")[0] == 0
    assert len(pd.read_csv(tmp_path / "all.csv")) == 3
    assert run("results", "export", "all.json")[0] == 0
    assert len(json.loads((tmp_path / "all.json").read_text())) == 3
    assert run("results", "prune", "--failed", "--dry-run")[1] == "would remove 1 of 3 cells\n"
    assert run("results", "prune", "--failed")[1] == "removed 1 of 3 cells\n"
    assert run("results", "prune", "--model", "*model-1")[1] == "removed 1 of 2 cells\n"
    assert "model-1" not in run("results")[1]
    code, _, err = run("results", "prune")
    assert (code, "expected --failed" in err) == (2, True)
    code, _, err = run("results", "--store", "other.db")
    assert (code, "expected a store at other.db" in err) == (2, True)


def test_ctrl_c_says_what_is_kept(zoo, tmp_path, stuck):
    path, _, arch = stuck.model
    (tmp_path / "zoo.yaml").write_text(f"models: [{zoo[0]}, {{model: {path}, arch: {arch}}}]")
    command = [sys.executable, "-m", "gcaudit", "compare", "zoo.yaml", *DATA, "--workers", "0"]
    with started(command, stderr=subprocess.PIPE, text=True) as process:
        until(stuck.reached)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=GUARD_SECONDS)
    assert process.returncode == 130, err
    assert "done" in err.splitlines()[0]
    assert "interrupted; finished cells are kept in gcaudit.db" in err


@pytest.mark.slow
def test_killed_twenty_times_and_resumed_to_the_same_table(zoo, tmp_path):
    """SIGKILL at a random moment of a run, twenty times: the file is sound, nothing finished is lost, and the table is the undisturbed one."""

    # cells that take longer than the start of the process, so that kills fall among them
    data = (
        "--source",
        "demo",
        "--target",
        "demo",
        "--target",
        str(bundled_path("demo-train.parquet")),
        "--gc",
        "exact",
        "--gc-rtol",
        "0",
    )

    def command(store):
        return [sys.executable, "-m", "gcaudit", "compare", *zoo, *data, "--keep-embeddings", "--store", str(store)]

    began = time.monotonic()
    undisturbed = subprocess.run(command(tmp_path / "whole.db"), capture_output=True, text=True, check=True)
    length = time.monotonic() - began
    rng = random.Random(0)
    finished = []
    for number in range(20):
        store = tmp_path / f"{number}.db"
        with started(command(store), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(rng.uniform(0.2, 1.0) * length)
            process.kill()
            told = sum(": done" in line for line in process.stderr)
        kept = 0
        if store.exists():
            with sqlite3.connect(store) as database:
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                tables = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'cells'").fetchone()[0]
                kept = database.execute("SELECT count(*) FROM cells").fetchone()[0] if tables else 0
        assert kept >= told
        resumed = subprocess.run(command(store), capture_output=True, text=True, check=True)
        assert resumed.stdout == undisturbed.stdout
        assert f"{8 - kept} measured, {kept} from" in resumed.stderr
        finished.append(kept)
    print(f"cells that were finished when the process was killed: {finished}")
    assert len(set(finished)) > 3
