"""The paper's inequalities on trained networks, how tight they are, and how far an estimate of the Poincare constant is off. Run with `-s` to see it."""

import numpy as np
import pytest
from conftest import ROOT

from gcaudit.audit.run import run_audit
from gcaudit.audit.spec import AuditSpec
from gcaudit.metrics.complexity import poincare_lower_bound
from gcaudit.metrics.measuring import evidence_of


@pytest.mark.parametrize("layers", [20, 44])
def test_inequalities_hold_on_trained_networks(benchmark, report, shared, layers):
    """5,000 training images of CIFAR-10, 5,000 test images held out, 5,000 images of 100 classes of Tiny ImageNet as target."""
    data = shared / "data"
    options = {
        "arch": f"{ROOT / 'examples' / 'cifar_resnet.py'}:resnet{layers}", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
        "input_size": 32, "data_root": str(data), "max_images": 5000, "source_test": "cifar10", "metrics": ("core", "theory"),
        "target_gc": True, "n_shot": (1, 5, 20), "gc_rtol": 0.0,
    }  # fmt: skip
    target = str(data / "tiny-imagenet-32" / "validation-*.parquet")
    spec = AuditSpec.from_options(str(shared / "checkpoints" / f"cifar10_resnet{layers}.th"), "cifar10", target, **options)
    found = benchmark.pedantic(run_audit, (spec,))
    source, target = found.source.metrics, found.target.metrics
    collapse, refined, variation = (
        source[name].plug_in or source[name].value for name in ("geometric_collapse", "geometric_collapse_refined", "cdnv")
    )
    kappa = source["poincare_lower_bound"].plug_in
    report(refined=variation / (kappa * refined), collapse=variation / (kappa * collapse))
    assert variation <= kappa * refined <= kappa * collapse
    for point in source["ncm_error_bound"].curve:
        report(
            **{
                f"error, means of {point.n_shot}": point.terms["error"],
                "by CDNV": point.terms["by_cdnv"],
                "by collapse": point.value,
            }
        )
        assert point.terms["held_out_images"] == 5000
        assert point.terms["error"] <= point.terms["by_cdnv"] <= point.value
    deviation, constant = source["gc_deviation"], source["lipschitz_bound"]
    report(half_width=deviation.terms["half_width"], deviation=deviation.value, by_lipschitz=deviation.terms["by_lipschitz"])
    assert deviation.terms["half_width"] <= deviation.value <= deviation.terms["by_lipschitz"]
    report(lipschitz=constant.value, tightness=constant.tightness)
    assert constant.tightness <= 1
    both, hull = target["gc_over_least_distance"], target["granularity"]
    report(**both.terms, value=both.value if both.value is not None else float("nan"))
    report(granularity=hull.value, **hull.terms)
    report(
        slope=source["loss_slope"].value,
        sharpness=source["loss_sharpness"].value,
        logits=source["logits_gc"].value,
        gc=source["gc"].value,
    )
    assert source["loss_sharpness"].ci95[0] > 0


@pytest.mark.parametrize(("classes", "images"), [(10, 20), (10, 100), (100, 20), (100, 100)])
def test_bias_of_the_largest_ratio(benchmark, report, classes, images):
    """Gaussian classes in 64 dimensions, all ratios v_c / GC_c within a factor 1.5, energies like those seen on trained networks."""
    rng = np.random.default_rng(classes + images)
    spread = rng.uniform(1, 1.5, classes)
    y = np.repeat(np.arange(classes), images)
    plain, found, held = [], [], []
    for _ in range(100):
        z = 5 * rng.standard_normal((classes, 64))[y] + np.sqrt(spread[y])[:, None] * rng.standard_normal((len(y), 64))
        g = rng.gamma(2.0, 0.5, size=len(y))
        evidence = evidence_of(z, y, energies=g)
        estimate = poincare_lower_bound(evidence)
        true = 64 * spread.max()
        plain.append(estimate.details["plug_in"] / true - 1)
        found.append(estimate.value / true - 1)
        held.append(estimate.ci95[0] <= true <= estimate.ci95[1])
    benchmark.pedantic(poincare_lower_bound, (evidence,))
    report(**{f"plug-in, {classes} x {images}": np.mean(plain), "estimate": np.mean(found), "held": np.mean(held)})
    assert abs(np.mean(found)) < abs(np.mean(plain))
