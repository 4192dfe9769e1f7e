import inspect
import json

import numpy as np
import pytest
import torch
from cases import clouds

import gcaudit
from gcaudit.errors import DataError, RequestError
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.ridge import ProbeSettings
from gcaudit.metrics.table import _OTHER_NAMES, METRICS, find_metric, find_metrics


def test_measure_agrees_with_exact_arithmetic(shared):
    data = np.load(shared / "golden" / "small.npz")
    golden = json.loads((shared / "golden" / "golden.json").read_text())["small"]
    found = gcaudit.measure(data["features"], data["labels"], metrics=["cdnv"])
    assert found["cdnv"].details["plug_in"] == pytest.approx(golden["truth__cdnv"]["value"], rel=1e-14)
    moments = evidence_of(data["features"], data["labels"]).moments
    assert moments.variances().mean().item() == pytest.approx(golden["truth__trace_within_class_mean"]["value"], rel=1e-14)
    spread = (moments.means - moments.means.mean(0)).square().sum(1).mean().item()
    assert spread == pytest.approx(golden["truth__trace_between_class_balanced"]["value"], rel=1e-14)


def test_measure_takes_arrays_tensors_and_lists():
    z, y = clouds()
    values = {
        gcaudit.measure(kind(z), kind2(y), metrics=["cdnv"])["cdnv"].value
        for kind, kind2 in ((np.asarray, np.asarray), (torch.from_numpy, torch.from_numpy), (np.ndarray.tolist, list))
    }
    assert len(values) == 1


def test_measure_takes_what_the_arguments_allow():
    z, y = clouds(per_class=(30,) * 5)
    plain = gcaudit.measure(z, y)
    assert set(plain) == {"cdnv", "directional_cdnv", "ncm_accuracy", "probe_accuracy"}
    full = gcaudit.measure(z, y, logits=np.eye(5)[y], energies=np.ones(len(y)))
    assert list(full) == [metric.name for metric in METRICS if metric.group == "core"]
    assert all(estimate.value is not None for estimate in full.values())
    assert full["head_accuracy"].value == 1.0
    assert full["gc"].value == 1.0


def test_asking_for_energies_without_giving_them_is_a_reason():
    z, y = clouds()
    assert "not measured" in gcaudit.measure(z, y, metrics=["gc"])["gc"].reason


def test_labels_may_be_any_integers():
    z, y = clouds()
    assert gcaudit.measure(z, 1000 - 7 * y, metrics=["cdnv"])["cdnv"].value == pytest.approx(
        gcaudit.measure(z, y, metrics=["cdnv"])["cdnv"].value, rel=1e-13
    )


def test_two_models_see_the_same_episodes():
    z, y = clouds(per_class=(30,) * 5)
    assert evidence_of(z, y).fingerprint == evidence_of(2 * z, y).fingerprint


def test_half_precision_embeddings_are_widened():
    z, y = clouds()
    assert evidence_of(torch.from_numpy(z).half(), y).embeddings.dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, y: gcaudit.measure(z[0], y), "embeddings of 2 dimensions"),
        (lambda z, y: gcaudit.measure(z, y[:, None]), "labels of 1 dimensions"),
        (lambda z, y: gcaudit.measure(z, y[:-1]), "as many labels as embeddings"),
        (lambda z, y: gcaudit.measure(z[:0], y[:0]), "at least one"),
        (lambda z, y: gcaudit.measure(z, y.astype(float)), "integer labels"),
        (
            lambda z, y: gcaudit.measure(z, [f"class {n}" for n in y]),
            "labels that are numbers, found <U7; number text by numpy.unique",
        ),
        (lambda z, y: gcaudit.measure(z.astype(object), y), "embeddings that are numbers, found object"),
        (lambda z, y: gcaudit.measure(np.where(z == z[3, 2], np.nan, z), y), "NaN or inf in row 3"),
        (lambda z, y: gcaudit.measure(np.where(z == z[4, 0], np.inf, z), y), "NaN or inf in row 4"),
        (lambda z, y: gcaudit.measure(z, y, logits=np.zeros((2, 3))), "65 rows of logits"),
        (lambda z, y: gcaudit.measure(z, y, logits=np.full((65, 3), np.nan)), "finite logits"),
        (lambda z, y: gcaudit.measure(z, y, head_weight=np.zeros((3, 6))), r"head_weight of shape \(3, 7\)"),
        (lambda z, y: gcaudit.measure(z, y, energies=np.zeros(2)), "65 energies"),
        (lambda z, y: gcaudit.measure(z, y, energies=np.full(65, np.nan)), "energies that are finite"),
        (lambda z, y: gcaudit.measure(z, y, energies=np.full(65, -1.0)), "energies that are finite and not negative"),
    ],
)
def test_wrong_arrays_are_told(call, message):
    with pytest.raises(DataError, match=message):
        call(*clouds())


def test_unknown_metrics_are_told_with_the_nearest():
    with pytest.raises(RequestError, match="found 'cdvn'; did you mean cdnv"):
        find_metrics(["cdvn"])
    with pytest.raises(RequestError, match="known: all, core, field, theory, gc, relative_gc"):
        find_metrics(["???"])


def test_metrics_come_in_the_order_of_the_table():
    assert [metric.name for metric in find_metrics(["probe_accuracy", "gc"])] == ["gc", "probe_accuracy"]


def test_names_are_unique():
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_examples_in_docstrings_are_true():
    import doctest

    from gcaudit.geometry import counter, jacobian, moments

    results = [doctest.testmod(module) for module in (counter, jacobian, moments, inspect.getmodule(find_metrics))]
    assert [result.failed for result in results] == [0] * 4
    assert sum(result.attempted for result in results) >= 6


@pytest.mark.parametrize(("scale", "side"), [(1e160, "beyond"), (1e-210, "below")])
def test_no_metric_makes_a_number_of_embeddings_that_cannot_be_squared(scale, side):
    z, y = clouds(per_class=(40, 50, 60))
    head = np.random.default_rng(0).normal(size=(3, 7))
    evidence = evidence_of(scale * z, y, z @ head.T, head_weight=head)
    settings = ProbeSettings(n_way=2, n_shot=(1,), n_query=3, episodes=10)
    others = ("energies", "logits", "logit_energies", "flatness", "lipschitz")
    needed = [metric for metric in METRICS if metric.needs not in others and not metric.across and metric.name != "head_accuracy"]
    assert len(needed) > 20
    for metric in needed:
        found = metric.measure(evidence, settings)
        assert found.value is None, metric.name
        assert found.reason == f"the squares of the embeddings are {side} the range of 64-bit floating point", metric.name


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("transrate", "trans_rate"), ("TransRate", "trans_rate"), ("nleep", "n_leep"), ("N-LEEP", "n_leep"), ("NLEEP", "n_leep"),
        ("hscore", "h_score"), ("H-score", "h_score"), ("LogME", "logme"), ("log_maximum_evidence", "logme"), ("NC1", "nc1"),
        ("regularized_h_score", "h_score_regularized"), ("reg-H", "h_score_regularized"), ("h_score_regularised", "h_score_regularized"),
        ("knn", "knn_accuracy"), ("linear probe", "linear_probe_accuracy"), ("PACTran", "pactran_gaussian"), ("GC", "gc"),
        ("geometric complexity", "gc"), ("CDNV", "cdnv"), ("debiased", None), ("score", None), ("", None),
    ],
)  # fmt: skip
def test_metrics_are_known_by_the_names_that_papers_and_tools_use(spelling, name):
    if name is None:
        with pytest.raises(RequestError, match="expected the name of a metric"):
            find_metric(spelling)
    else:
        assert find_metric(spelling).name == name
        assert [metric.name for metric in find_metrics([spelling])] == [name]


def test_no_spelling_stands_for_two_metrics():
    names = [*(metric.name for metric in METRICS), *_OTHER_NAMES]
    letters = ["".join(filter(str.isalnum, name.casefold())) for name in names]
    assert len(set(letters)) == len(letters)
    assert not {"all", "core", "field", "theory"} & set(letters)
