"""`--source-test`: images of the source's classes, matched by name, that no class mean is of."""

import numpy as np
import pytest
import torch
from cases import TinyNet, tiny_images
from PIL import Image

import gcaudit
from gcaudit.audit.run import run_audit
from gcaudit.audit.spec import AuditSpec
from gcaudit.errors import DataError, GcauditWarning, RequestError
from gcaudit.store.results import Store
from gcaudit.zoo.cells import CellRequest, Scheduler
from gcaudit.zoo.engine import LocalEngine
from gcaudit.zoo.zoo_text import DataEntry

NAMES = ("ant", "bee", "cat", "dog")


def folder(path, images, labels, names=NAMES):
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = path / names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy()).save(place / f"{number:03}.png")
    return str(path)


@pytest.fixture
def source(tmp_path):
    return folder(tmp_path / "source", *tiny_images(per_class=12))


def error_of(report):
    return report.source.metrics["ncm_error_bound"].terms


OPTIONS = {"metrics": ("ncm_error_bound",), "n_shot": (5,)}


def audit(source, **options):
    return run_audit(AuditSpec.from_options(TinyNet(), source, **{**OPTIONS, **options}))


def test_classes_are_matched_by_name(source, tmp_path):
    images, labels = tiny_images(per_class=9)
    images = (images + 0.02).clamp(0, 1)
    same = folder(tmp_path / "same", images, labels)
    renamed = folder(tmp_path / "other", images, 3 - labels, NAMES[::-1])  # written in another order, with the same names
    plain, turned = (error_of(audit(source, source_test=path)) for path in (same, renamed))
    assert plain["held_out_images"] == 36
    assert turned["error"] == pytest.approx(plain["error"], abs=1e-12)
    wrong = folder(tmp_path / "wrong", images, (labels + 1) % 4)
    assert error_of(audit(source, source_test=wrong))["error"] > 0.9 - plain["error"]
    assert plain["error"] < 0.5


def test_what_differs_is_told(source, tmp_path):
    images, labels = tiny_images(per_class=9)
    images = (images + 0.02).clamp(0, 1)
    other = folder(tmp_path / "other", images, labels, ("ant", "bee", "cow", "elk"))
    found = audit(source, source_test=other)
    lines = [str(warning) for warning in found.warnings]
    assert "source: source-test: it has no images of 2 classes of the source (cat, dog)" in lines
    assert "source: source-test: 2 classes are not the source's and were left out (cow, elk)" in lines
    assert error_of(found)["held_out_images"] == 18
    shared = audit(source, source_test=source)
    assert "source: source-test: 48 images are the source's too: the error on them is too small" in map(str, shared.warnings)


def test_what_makes_no_sense_is_refused(source, tmp_path):
    images, labels = tiny_images(per_class=3)
    others = folder(tmp_path / "others", images, labels, ("elk", "fox", "gnu", "hen"))
    with pytest.raises(DataError, match=r"expected --source-test with classes of the source, such as ant, bee.* found elk"):
        audit(source, source_test=others)
    with pytest.raises(RequestError, match="expected no --source-test without ncm_error_bound; pass --metrics core,theory"):
        audit(source, source_test=source, metrics=("gc",))
    with pytest.raises(RequestError, match="expected --source-test-max-images of at least 1, found 0"):
        audit(source, source_test=source, source_test_max_images=0)
    with pytest.raises(DataError, match="missing"):
        audit(source, source_test=str(tmp_path / "missing"))


def test_arrays_are_taken_too():
    images, labels = tiny_images(per_class=12)
    with pytest.warns(GcauditWarning):
        found = gcaudit.score(TinyNet(), (images, labels), source_test=(images, labels), **OPTIONS)
    assert error_of(found)["held_out_images"] == 48
    few = audit((images, labels), source_test=(images, labels), source_test_max_images=8)
    assert error_of(few)["held_out_images"] == 8


def test_a_comparison_measures_what_an_audit_does(source, tmp_path):
    """Cells kept in a store have the held-out error and what needs both data sets; other held-out images are another cell."""
    images, labels = tiny_images(per_class=9)
    held = folder(tmp_path / "held", (images + 0.02).clamp(0, 1), labels)
    target = folder(tmp_path / "target", *tiny_images(per_class=12, seed=5), ("elk", "fox", "gnu", "hen"))
    weights = tmp_path / "net.pt"
    torch.save({"state_dict": TinyNet().state_dict()}, weights)
    code = tmp_path / "net.py"
    code.write_text("from cases import TinyNet\n\n\ndef build():\n    return TinyNet()\n")
    options = {
        "metrics": ("theory",), "n_shot": (5,), "arch": f"{code}:build", "input_size": 8, "mean": 0.4, "std": 0.2, "target_gc": True,
    }  # fmt: skip
    spec = AuditSpec.from_options(str(weights), source, target, source_test=held, **options)
    alone = run_audit(spec)
    store = Store(tmp_path / "results.sqlite")

    def compare(spec, **how):
        return Scheduler(store, LocalEngine(), **how).run([CellRequest("net", "source", "target", spec)])[0]

    first, again = compare(spec, keep=True), compare(spec)
    assert (first.fresh, again.fresh) == (True, False)
    for found in (first.report, again.report):
        for role, block in alone.blocks().items():
            for name, value in block.metrics.items():
                ours = found.blocks()[role].metrics[name]
                assert ours.reason == value.reason
                assert ours.value == pytest.approx(value.value, rel=1e-9), name
                assert (ours.terms or {}).keys() == (value.terms or {}).keys()
    assert found.target.metrics["granularity"].mixture_per_class == alone.target.metrics["granularity"].mixture_per_class
    without = AuditSpec.from_options(str(weights), source, target, **options)
    other = compare(without)
    assert other.fresh
    assert "held_out_images" not in error_of(other.report)
    kept = AuditSpec.from_options(str(weights), source, target, source_test=held, **{**options, "n_shot": (1, 2)})
    reused = compare(kept)
    assert reused.report.source.metrics["loss_slope"] == first.report.source.metrics["loss_slope"]
    assert reused.report.source.metrics["logits_gc"] == first.report.source.metrics["logits_gc"]
    assert error_of(reused.report)["held_out_images"] == 36
    assert np.isfinite(reused.report.source.metrics["lipschitz_bound"].value)


def test_what_sets_two_data_sets_side_by_side_is_part_of_a_cell(source, tmp_path):
    target = folder(tmp_path / "target", *tiny_images(per_class=12, seed=5), ("elk", "fox", "gnu", "hen"))
    store = Store(tmp_path / "results.sqlite")
    for name in ("granularity", "gc_over_least_distance"):
        spec = AuditSpec.from_options("demo", source, target, metrics=(name, "cdnv"))
        found = Scheduler(store, LocalEngine()).run([CellRequest("demo", "source", "target", spec)])[0]
        assert set(found.report.target.metrics) == {name, "cdnv"}


def test_a_split_of_nothing_is_refused(source):
    with pytest.raises(RequestError, match="expected --source-test with --source-test-split test, found none; name the data"):
        audit(source, source_test_split="test")


def test_held_out_images_are_read_as_the_source_is(tmp_path):
    """Columns and class map of the source are those of the images held out, from flat options and from a zoo file's entry."""
    spec = AuditSpec.from_options(
        "demo", "a", source_test="b", source_label_key="species", source_class_map="m.csv", metrics=("theory",)
    )
    assert (spec.held_out.label_key, spec.held_out.class_map) == ("species", "m.csv")
    assert {"image_key", "label_key", "class_map"} <= set(DataEntry.model_fields)
