import dataclasses

import pytest
from reports import make

from gcaudit.errors import RequestError
from gcaudit.report.warnings import warn
from gcaudit.store.cells import Cell
from gcaudit.store.columns import alike, cell_columns, report_columns
from gcaudit.store.where import choose_cells, parse_where

PROBE = {"value": 0.6, "stderr": 0.01, "ci95": (0.58, 0.62), "n": 9, "n_way": 5, "n_shot": 5}


def cell(model, target, seed, *, reason=None, **settings):
    report = None
    if reason is None:
        report = make(target={"probe_accuracy": PROBE}, settings={"seed": seed, "n_way": 5, "n_shot": [1, 5], **settings})
    return Cell(f"{model}{seed}", "2026-01-02", model, "cifar10", target, report, reason)


CELLS = [
    *(cell("a", "dtd10", 0), cell("a", "dtd10", 1), cell("b", "dtd20", 0, episodes=100)),
    *(cell("c", None, 0), cell("d", "dtd10", 0, reason="no such file")),
]


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("target=dtd10 and seed=0", ["a0"]),
        ("target=dtd10 and seed==0.0", ["a0"]),
        ("target=dtd10", ["a0", "a1", "d0"]),
        ("target!=dtd10", ["b0", "c0"]),
        ("target=dtd*", ["a0", "a1", "b0", "d0"]),
        ("target=none", ["c0"]),
        ("seed >= 1", ["a1"]),
        ("episodes > 10", ["b0"]),
        ("n_shot='1,5' and model != a", ["b0", "c0"]),
        ("target.probe_accuracy > 0.5 and source.images=10", ["a0", "a1", "b0", "c0"]),
        ("reason=*such*", ["d0"]),
        ('model = "A"', ["a0", "a1"]),
        ("target=dtd10 AND seed=[0]", ["a0"]),
        ("n_shot=1 and target=dtd10", ["a0", "a1"]),
        ("n_shot!=5", []),
        ("n_shot=1,5 and seed=1", ["a1"]),
        ("n_shot=5.0 and seed=1", ["a1"]),
        ("n_shot=N*", []),
        ("target.probe_accuracy=60%", ["a0", "a1", "b0", "c0"]),
        ("target.probe_accuracy>50% and model='a and b'", []),
        ("model=lr=0.1", []),
    ],
)
def test_cells_are_chosen_by_their_columns(where, keys):
    assert [found.key for found in choose_cells(CELLS, [where])] == keys


@pytest.mark.parametrize("where", ["target=dtd10", "target=train", "target=train.parquet", "target=/data/dtd10/*", "target=d*0"])
def test_a_path_is_called_by_any_of_its_parts(where):
    there, other = cell("a", "/data/dtd10/train.parquet", 0), cell("b", "/data/other/test.parquet", 0)
    assert choose_cells([there, other], [where]) == [there]
    assert choose_cells([there, other], [where.replace("=", "!=", 1)]) == [other]


def test_a_name_is_also_what_it_was_typed_as():
    cells = [dataclasses.replace(CELLS[0], model="best"), CELLS[1]]
    assert cells[0].report.model.spec == CELLS[0].report.model.spec
    spec = cells[0].report.model.spec
    assert choose_cells(cells, [f"model='{spec}'"]) == cells
    assert choose_cells(cells, ["model=best"]) == cells[:1]
    assert choose_cells(cells, ["model!=best"]) == cells[1:]
    assert choose_cells(cells, [f"model!='{spec}'"]) == []


def test_conditions_that_are_given_apart_hold_together():
    assert [found.key for found in choose_cells(CELLS, ["target=dtd10", "seed=1"])] == ["a1"]
    assert choose_cells([], ["anything=1"]) == []
    assert choose_cells(CELLS, []) == CELLS


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("sed=0", r"found 'sed'; did you mean seed\?"),
        ("images=10", r"found 'images'; did you mean source\.images or target\.images\?"),
        ("xyzzy=1", "found 'xyzzy'; known: key, created, model"),
        ("seed", "expected --where of conditions such as 'target=dtd10 and seed=0', found 'seed'"),
        ("seed=0 and seed", "conditions such as .*, found 'seed'"),
        ("", "conditions such as"),
        ("seed=0 or seed=1", "conditions are joined by 'and' alone"),
        ("seed=0, target=dtd10", "conditions are joined by 'and' alone"),
        ("seed=0 && target=dtd10", "conditions are joined by 'and' alone"),
        ("target=my data", "a value with spaces or signs is put in quotes"),
        ("n_shot=abc", "expected a number for n_shot in --where, found 'abc'; there are 1, 5"),
        ("seed=zero", "expected a number for seed in --where, found 'zero'; there are 0, 1"),
        ("target>dtd", "expected a number after > in --where, found 'target>dtd'"),
    ],
)
def test_conditions_that_make_no_sense_are_told(where, message):
    with pytest.raises(RequestError, match=message):
        choose_cells(CELLS, [where])


def test_a_condition_keeps_its_parts():
    first, second = parse_where("model='x' and seed<3")
    assert (first.name, first.sign, first.value) == ("model", "=", "x")
    assert (second.name, second.sign, second.value) == ("seed", "<", "3")


def test_columns_carry_every_setting_and_the_warnings():
    report = make(target={"probe_accuracy": PROBE}).model_copy(update={"warnings": (warn("shared", "one"), warn("split", "two"))})
    found = report_columns(report)
    assert found["warnings"] == "one | two"
    assert (found["input_size"], found["layer"], found["weights"], found["embedding_dim"]) == ("3x224x224", "fc", "published", 512)
    assert (found["source.split"], found["source.classes"], found["source.images"], found["target.fingerprint"]) == (
        "train",
        2,
        10,
        "f",
    )
    assert (found["seed"], found["mean"], found["schema"]) == (0, "0.5,0.5,0.5", "gcaudit.report/1")
    assert found["target.probe_accuracy.low"] == 0.58
    assert set(cell_columns(CELLS[4])) == {"key", "created", "model", "source", "target", "reason"}
    without = report_columns(make())
    assert without["target.images"] is None
    assert list(without)[: list(without).index("warnings")] == list(found)[: list(found).index("warnings")]


def test_what_is_alike_in_all_rows_is_found():
    assert alike([{"a": 1, "b": 2}, {"a": 1, "b": 3}]) == {"a": 1}
    assert alike([]) == {}
