"""Which reports may be compared, and where a rule's value stands in them."""

from __future__ import annotations

from collections.abc import Iterable

from gcaudit.errors import shorten
from gcaudit.gate.rules import Rule
from gcaudit.metrics import Metric, find_metric
from gcaudit.report import MetricValue, Report


def differences(report: Report, baseline: Report, rules: Iterable[Rule]) -> list[str]:
    """List why two reports may not be compared by some rules.

    Args:
        report: the new one.
        baseline: the old one.
        rules: regressions to judge.

    Returns:
        One line a difference; empty when they may be compared.
    """
    found: list[str] = []
    new, old = report.model, baseline.model
    for what, a, b in (
        ("embedding", new.embedding, old.embedding),
        *((key, getattr(new.preprocessing, key), getattr(old.preprocessing, key)) for key in _PREPROCESSING),
    ):
        if a != b:
            found.append(f"{what}: {_show(a)} against {_show(b)} in the baseline")
    converted = [str(warning) for warning in report.warnings if warning.kind in ("converted", "orientation")]
    if converted and report.schema_ != baseline.schema_:
        found.append(f"conversion of pictures than {baseline.schema_} in the baseline ({converted[0]})")
    for rule in rules:
        found += _rule_differences(report, baseline, rule)
    return list(dict.fromkeys(found))


_PREPROCESSING = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "input_space")
_PROBE = ("n_way", "n_query", "ridge", "n_shot")


def _show(value: object) -> str:
    return ", ".join(str(part) for part in value) if isinstance(value, tuple) else str(value)


def _rule_differences(report: Report, baseline: Report, rule: Rule) -> list[str]:
    new, old = report.blocks().get(rule.role), baseline.blocks().get(rule.role)
    if new is None or old is None:
        return []
    if new.class_names != old.class_names:
        return [f"{rule.role} classes: {shorten(new.class_names, 3)} against {shorten(old.class_names, 3)} in the baseline"]
    if new.fingerprint != old.fingerprint:
        return [f"{rule.role} images: {new.images} of {new.spec} against {old.images} others of {old.spec} in the baseline"]
    found = []
    if bool(new.left_alone) != bool(old.left_alone) and report.model.preprocessing.crop_pct != 1:
        told = " against ".join("left alone" if block.left_alone else "resized and cropped" for block in (new, old))
        found.append(f"preprocessing of {rule.role} pictures that have the input's size: {told} in the baseline")
    if find_metric(rule.metric).sized and report.model.embedding_dim != baseline.model.embedding_dim:
        told = f"{report.model.embedding_dim} against {baseline.model.embedding_dim}"
        found.append(f"number of dimensions, for {rule.name}: {told} in the baseline")
    if rule.metric == "gc" and report.model.arch != baseline.model.arch:
        found.append(f"architecture, for {rule.name}: {report.model.arch} against {baseline.model.arch} in the baseline")
    a, b = find_value(report, rule), find_value(baseline, rule)
    if isinstance(a, MetricValue) and isinstance(b, MetricValue):
        if a.n_way is not None and (a.pool_ci95 is None) != (b.pool_ci95 is None) and not rule.pool:
            told = " against ".join("these images alone" if value.pool_ci95 is None else "the distribution" for value in (a, b))
            found.append(f"interval of {rule.name}: for {told} in the baseline")
        if (a.plug_in is None) != (b.plug_in is None) and a.value is not None and b.value is not None:
            told = " against ".join("the images at hand" if value.plug_in is None else "the distribution" for value in (a, b))
            found.append(f"meaning of {rule.name}: that of {told} in the baseline")
        found += [
            f"{key} of {rule.name}: {getattr(a, key)} against {getattr(b, key)} in the baseline"
            for key in _PROBE
            if getattr(a, key) != getattr(b, key)
        ]
    return found


def find_value(report: Report, rule: Rule) -> MetricValue | str:
    """Find a rule's value.

    Args:
        report: where to look.
        rule: that names it.

    Returns:
        The value, or why there is none.
    """
    block = report.blocks().get(rule.role)
    if block is None:
        return f"the report has no {rule.role}; score with --{rule.role}"
    value = block.metrics.get(rule.metric)
    if value is None:
        return f"the report has no {rule.role}.{rule.metric}; {_to_measure(rule)}"
    if rule.shot is None:
        return value
    points = {point.n_shot: point for point in value.curve or (value,)}
    if rule.shot not in points:
        return f"the report has no {rule.shot}-shot {rule.metric}, only {', '.join(str(shot) for shot in points)}"
    return points[rule.shot]


def _to_measure(rule: Rule) -> str:
    """Say how a value comes into a report."""
    metric = find_metric(rule.metric)
    if rule.role not in metric.roles:
        return f"it is measured on the {' and '.join(metric.roles)}"
    if rule.role == "target" and metric.per_pixel:
        return "score with --target-gc"
    return "score again" if metric.group == "core" else f"score with --metrics core,{metric.name}"


def pool_part(value: MetricValue) -> tuple[float | None, tuple[float, float] | None]:
    """Return standard error and interval given the pool of images.

    Args:
        value: a mean over episodes, also of a version that knew no others.
    """
    if value.n_way is not None and value.pool_stderr is None and value.pool_ci95 is None:
        return value.stderr, value.ci95
    return value.pool_stderr, value.pool_ci95


def comparable_group(report: Report, rule: Rule, metric: Metric) -> str:
    """Say what another report must share for a metric to be compared; preprocessing counts as part of the model.

    Args:
        report: the report.
        rule: that names the metric.
        metric: the metric.

    Returns:
        In words; equal for reports that may be compared.
    """
    parts = []
    if metric.per_pixel:
        preprocessing = report.model.preprocessing
        parts += [f"input {preprocessing.size}", f"gradients in {preprocessing.input_space} space"]
        if metric.name == "gc":
            parts.append(f"architecture {report.model.arch}")
    if metric.sized:
        parts.append(f"{report.model.embedding_dim} dimensions")
    block = report.blocks().get(rule.role)
    if block is not None:
        parts.append(f"{block.images} images of {rule.role} {block.fingerprint[:8]}")
    return ", ".join(parts)
