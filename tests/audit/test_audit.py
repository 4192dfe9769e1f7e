import dataclasses
import math

import numpy as np
import pytest
import torch
from cases import TinyNet, tiny_images

import gcaudit
from gcaudit.audit.blocks import metric_value
from gcaudit.audit.checks import head_warnings
from gcaudit.audit.options import OPTIONS
from gcaudit.audit.run import inspect_model, run_audit
from gcaudit.audit.spec import AuditSpec
from gcaudit.encoders.request import ModelRequest
from gcaudit.errors import ArchitectureError, DataError, RequestError
from gcaudit.geometry.estimate import Estimate
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.table import METRICS


def tiny_score(**options):
    source, target = tiny_images(per_class=12), tiny_images(per_class=25, classes=6, seed=5)
    return gcaudit.score(TinyNet(), source, target, **{"n_shot": (5,), "episodes": 50, **options})


@pytest.fixture(scope="module")
def report():
    return tiny_score()


def numbers(report):
    for role, block in report.blocks().items():
        for name, value in block.metrics.items():
            yield f"{role}.{name}", value


def test_every_metric_is_measured_where_it_belongs(report):
    assert list(report.source.metrics) == [m.name for m in METRICS if "source" in m.roles and m.group == "core"]
    assert set(report.target.metrics) == {"cdnv", "directional_cdnv", "ncm_accuracy", "probe_accuracy"}
    for name, value in numbers(report):
        assert value.value is not None, name
        assert value.ci95[0] <= value.value <= value.ci95[1], name
        assert value.stderr is not None, name


def test_the_target_gets_a_jacobian_when_asked():
    found = tiny_score(target_gc=True)
    assert found.target.metrics["gc"].value > 0
    assert "head_accuracy" not in found.target.metrics


def test_a_source_alone_is_enough():
    found = gcaudit.score(TinyNet(), tiny_images())
    assert found.target is None
    assert "probe_accuracy" not in found.source.metrics


def test_metrics_can_be_chosen():
    found = tiny_score(metrics=("cdnv", "probe_accuracy"))
    assert list(found.source.metrics) == ["cdnv"]
    assert list(found.target.metrics) == ["cdnv", "probe_accuracy"]


def test_the_same_request_gives_the_same_numbers(report):
    again = tiny_score()
    assert [value for _, value in numbers(again)] == [value for _, value in numbers(report)]


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 7}, {"batch_size": 64, "workers": 2}])
def test_batch_size_and_workers_do_not_matter(report, options):
    other = dict(numbers(tiny_score(**options)))
    for name, value in numbers(report):
        tolerance = {"abs": 1 / 3} if "accuracy" in name and "probe" not in name else {"rel": 1e-5}
        assert other[name].value == pytest.approx(value.value, **tolerance), name
        assert other[name].stderr == pytest.approx(value.stderr, rel=1e-3), name


def test_the_seed_draws_other_vectors_and_episodes(report):
    other = tiny_score(seed=1)
    assert other.source.metrics["gc"].value != report.source.metrics["gc"].value
    assert other.target.metrics["probe_accuracy"].value != report.target.metrics["probe_accuracy"].value
    assert other.source.metrics["cdnv"].value == report.source.metrics["cdnv"].value
    assert other.source.fingerprint == report.source.fingerprint


def test_exact_and_sketch_agree():
    source = tiny_images(per_class=60)
    exact = gcaudit.score(TinyNet(), source, gc="exact").source.metrics["gc"]
    sketch = gcaudit.score(TinyNet(), source, gc="sketch").source.metrics["gc"]
    assert (exact.estimator, exact.vectors) == ("exact", 6)
    assert (sketch.estimator, sketch.vectors) == ("sketch", 1)
    assert abs(sketch.value - exact.value) < 3 * sketch.stderr


def test_the_users_module_is_left_alone():
    net = TinyNet().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    gcaudit.score(net, tiny_images(), precision="float64")
    assert net.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in net.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_the_model_block_says_what_was_audited(report):
    block = report.model
    assert (block.embedding_dim, block.layer, block.embedding) == (6, "head", "input of head")
    assert block.parameters == sum(parameter.numel() for parameter in TinyNet().parameters())
    assert block.preprocessing.input_size == (3, 8, 8)
    assert not block.preprocessing.assumed
    assert len(block.sha256) == 64


def test_settings_say_how(report):
    assert report.settings["seed"] == 0
    assert report.settings["gc"] == "sketch"
    assert report.settings["torch"] == torch.__version__


def test_assumed_preprocessing_is_a_warning():
    net = TinyNet()
    del net.pretrained_cfg
    net.mix = torch.nn.LazyLinear(6)
    net(torch.zeros(2, 3, 224, 224))
    found = gcaudit.score(net, tiny_images(size=224, per_class=2), metrics=("cdnv",))
    assert found.model.preprocessing.assumed
    assert any("preprocessing was assumed" in line.message for line in found.warnings)


def test_shared_images_are_a_warning():
    source = tiny_images(per_class=25, classes=6)
    found = gcaudit.score(TinyNet(), source, (source[0][:149], source[1][:149]), episodes=2)
    assert any("share 149 images" in line.message for line in found.warnings)


def test_classes_of_equal_names_are_a_warning_also_in_two_data_sets(repository, tmp_path):
    import shutil

    bundled = repository / "gcaudit" / "bundled"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(bundled / "demo-train.parquet", tmp_path / name / "train.parquet")
    shutil.copy(bundled / "demo-train.parquet", tmp_path / "a" / "test.parquet")
    options = {"metrics": ("cdnv",), "source_max_images": 10, "target_max_images": 10}
    one = gcaudit.score("demo", str(tmp_path / "a" / "train.parquet"), str(tmp_path / "a" / "test.parquet"), **options)
    assert any("share 5 classes (T-shirt/top, Trouser, Coat and 2 more)" in line.message for line in one.warnings)
    two = gcaudit.score("demo", str(tmp_path / "a" / "train.parquet"), str(tmp_path / "b" / "train.parquet"), **options)
    assert any("share 5 classes (T-shirt/top, Trouser, Coat and 2 more)" in line.message for line in two.warnings)
    assert any("share 10 images" in line.message for line in two.warnings)


def test_separate_images_are_no_warning(report):
    assert not [warning for warning in report.warnings if warning.kind == "shared"]


def test_numbers_as_names_are_not_shared_between_data_sets(report):
    assert set(report.source.class_names) & set(report.target.class_names)
    assert all(name.isdecimal() for name in report.source.class_names)


def labelled(order, count=60, classes=4, wrong=0.0):
    """Evidence of a head that says the class `order[label]`, but for a share of the images."""
    labels = np.arange(count) % classes
    logits = np.eye(classes)[np.asarray(order)[labels]]
    logits[: int(wrong * count)] = np.eye(classes)[0]
    return evidence_of(np.random.default_rng(0).normal(size=(count, 3)), labels, logits)


@pytest.mark.parametrize(
    ("evidence", "told"),
    [
        (labelled([0, 1, 2, 3]), None),
        (labelled([0, 1, 2, 3], wrong=0.3), None),
        (labelled([1, 0, 2, 3]), "right for 0.500 of the images, and for 1.000 with its classes in another order"),
        (labelled([1, 2, 3, 0]), "right for 0.000 of the images, and for 1.000 with its classes in another order"),
        (labelled([0, 0, 0, 0]), "right for 0.250 of the images, chance is 0.250"),
        (labelled([1, 0, 3, 2], count=12), None),
    ],
)
def test_a_head_that_answers_as_if_labels_were_others_is_told(evidence, told):
    found = head_warnings(evidence)
    assert [warning.kind for warning in found] == ["head"] * (told is not None)
    assert told is None or told in found[0].message


def test_strict_makes_an_error_of_a_warning():
    model = TinyNet()
    del model.pretrained_cfg["mean"]
    with pytest.raises(RequestError, match=r"preprocessing was assumed: mean .*; leave --strict out to go on"):
        gcaudit.score(model, tiny_images(), strict=True)
    source = tiny_images(per_class=25, classes=6)
    with pytest.raises(RequestError, match="source and target share"):
        gcaudit.score(TinyNet(), source, (source[0][:149], source[1][:149]), episodes=2, strict=True)
    assert gcaudit.score("demo", "demo", "demo", episodes=5, strict=True).warnings == ()


def test_short_classes_are_a_warning():
    found = gcaudit.score(TinyNet(), tiny_images(), tiny_images(per_class=10, classes=6, seed=5), episodes=2)
    assert any("fewer queries are taken" in line.message for line in found.warnings)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gc": "magic"}, RequestError, "--gc of sketch, exact, outputs"),
        ({"precision": "half"}, RequestError, "--precision of float32"),
        ({"input_space": "x"}, RequestError, "--input-space of pixel, normalized"),
        ({"vectors": 0}, RequestError, "--vectors of at least 1"),
        ({"gc_images": 0}, RequestError, "--gc-images of at least 1"),
        ({"batch_size": 0}, RequestError, "--batch-size of at least 1"),
        ({"workers": -1}, RequestError, "--workers of at least 0"),
        ({"source_max_images": 0}, RequestError, "--source-max-images of at least 1"),
        ({"metrics": ("gcc",)}, RequestError, "did you mean gc"),
        ({"n_way": 7}, DataError, "at least 7 target classes"),
        ({"n_shot": (25,)}, DataError, "at least 26 images a class"),
        ({"n_shots": 3}, RequestError, "found 'n_shots'; did you mean n_shot"),
        ({"colour": 3}, RequestError, "found 'colour'; known: arch, arch_args, ema"),
        ({"device": "quantum"}, RequestError, "--device auto"),
    ],
)
def test_wrong_requests_are_told_before_any_work(options, error, message):
    with pytest.raises(error, match=message):
        tiny_score(**options)


def test_single_values_and_paths_are_taken_as_users_write_them(tmp_path):
    spec = AuditSpec.from_options(
        model=tmp_path / "m.pt", source="demo", n_shot=3, mean=0.5, std=0.25, input_size=8, metrics="cdnv"
    )
    found = spec.to_options()
    assert tuple(found[name] for name in ("n_shot", "mean", "std", "input_size", "metrics")) == (
        (3,),
        (0.5,),
        (0.25,),
        (8, 8),
        ("cdnv",),
    )
    assert spec.model.spec == str(tmp_path / "m.pt")
    with pytest.raises(RequestError, match="at least one metric"):
        AuditSpec.from_options(model="demo", source="demo", metrics=())


def test_splits_of_one_folder_are_one_data_set(tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (8, 8), (number * 9, len(split) * 20, 0)).save(tmp_path / split / name / f"{number}.png")
    found = gcaudit.score(TinyNet(), str(tmp_path / "train"), str(tmp_path / "test"), metrics=("cdnv",))
    assert any("share 2 classes (a, b)" in line.message for line in found.warnings)


def test_nan_weights_end_the_audit():
    net = TinyNet()
    net.mix.weight.data.fill_(math.nan)
    with pytest.raises(ArchitectureError, match=r"found NaN or inf in mix\.weight"):
        gcaudit.score(net, tiny_images())


def test_one_class_gives_reasons():
    images, labels = tiny_images()
    found = gcaudit.score(TinyNet(), (images[labels == 0], labels[labels == 0]))
    values = found.source.metrics
    assert values["gc"].value > 0
    assert values["relative_gc"].value > 0
    for name in ("cdnv", "geometric_collapse", "geometric_collapse_refined", "ncm_accuracy"):
        assert values[name].value is None
        assert "at least 2 classes, found 1" in values[name].reason


def test_estimates_go_into_the_report_unrounded():
    curve = (Estimate(0.1, 0.01, (0.08, 0.12), 5, None, {"n_shot": 1}), Estimate(1 / 3, 0.1, (0.1, 0.5), 5, None, {"n_shot": 5}))
    value = metric_value(Estimate(0.1, 0.01, (0.08, 0.12), 5, None, {"n_shot": 1, "curve": curve}))
    assert value.curve[1].value == 1 / 3
    assert value.curve[1].n_shot == 5


def test_inspect_looks_at_no_data():
    model, warnings = inspect_model(ModelRequest(TinyNet()))
    assert (model.embedding_dim, warnings) == (6, ())


def test_every_option_has_its_line_in_the_docstring():
    for field in dataclasses.fields(AuditSpec):
        assert f"\n        {field.name}: " in AuditSpec.__doc__ or f"\n    {field.name}: " in AuditSpec.__doc__.replace(
            "        ", "    "
        )


def test_every_option_is_remembered_by_its_name_and_its_default_is_what_help_shows():
    found = AuditSpec.from_options("demo", "demo").to_options()
    assert list(found) == [option.name for option in OPTIONS if not option.shorthand]
    for option in OPTIONS:
        assert option.text
        if not option.shorthand:
            assert (found[option.name] or None) == (option.default or None), option.name
    typed = {"seed": 3, "max_images": 7, "target_max_images": 5, "n_shot": (1, 2), "mean": (0.5,), "gc": "exact", "data_root": "d"}
    spec = AuditSpec.from_options("demo", "demo", "demo", **typed)
    assert (spec.run.seed, spec.probe.seed, spec.source.seed, spec.target.seed) == (3, 3, 3, 3)
    assert (spec.source.max_images, spec.target.max_images, spec.source.root, spec.target.root) == (7, 5, "d", "d")
    again = {name: value for name, value in spec.to_options().items() if value is not None}
    assert AuditSpec.from_options("demo", "demo", "demo", **again) == spec
    with pytest.raises(RequestError, match="found 'n_shots'; did you mean n_shot"):
        AuditSpec.from_options("demo", "demo", n_shots=1)
    with pytest.raises(RequestError, match="expected one seed of all draws, found several"):
        dataclasses.replace(spec, probe=dataclasses.replace(spec.probe, seed=4))
    with pytest.raises(RequestError, match="expected a source and a target in their roles"):
        dataclasses.replace(spec, source=spec.target)


def test_too_few_images_of_a_draw_name_the_draw():
    spec = AuditSpec.from_options(model="demo", source="demo", target="demo", target_max_images=20)
    with pytest.raises(DataError, match=r"lower --n-shot .*, or raise --target-max-images above 20"):
        run_audit(spec)
