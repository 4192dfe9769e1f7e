import numpy as np
import pytest
from reports import make_worse, only

import gcaudit
from gcaudit.report.evidence import ReportEvidence


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Evidence of the demo and of a worse demo, many episodes on the same seed, and all images."""
    folder = tmp_path_factory.mktemp("stored")
    make_worse(folder / "worse", 1)
    options = {"source": "demo", "target": "demo", "episodes": 4000}
    return gcaudit.score("demo", **options), gcaudit.score(str(folder / "worse"), **options)


def episode_report(template, accuracies, seed):
    """The report that these episodes would have given."""
    size = len(accuracies)
    value = float(accuracies.mean())
    influence = (accuracies - value) / (size * (size - 1)) ** 0.5
    half = 1.959963984540054 * float(np.linalg.norm(influence))
    probe = template.target.metrics["probe_accuracy"].model_copy(
        update={"value": value, "stderr": half / 1.96, "ci95": (value - half, value + half), "n": size, "episodes": size}
    )
    target = template.target.model_copy(update={"metrics": {"probe_accuracy": probe}})
    report = template.model_copy(update={"target": target, "settings": {**template.settings, "seed": seed}})
    return report.with_evidence(ReportEvidence({"target.probe_accuracy": influence}))


def collapse_report(template, rows, influence, seed):
    """The report that these images would have given, to first order."""
    old = template.source.metrics["geometric_collapse"]
    value = old.value + float(influence[rows].sum())
    half = 1.959963984540054 * float(np.linalg.norm(influence[rows]))
    metric = old.model_copy(update={"value": value, "stderr": half / 1.96, "ci95": (value - half, value + half)})
    return template.source.model_copy(
        update={"metrics": {"geometric_collapse": metric}, "fingerprint": template.source.fingerprint}
    )


def test_false_failures_are_rare(stored):
    """A checkpoint against itself, both headline metrics, other images' vectors and episodes each time."""
    report, _ = stored
    accuracies = report.evidence.draws["target.episode_accuracies@5"]
    influence = report.evidence.influences["source.geometric_collapse"]
    rng = np.random.default_rng(0)

    def draw(seed):
        found = episode_report(report, rng.choice(accuracies, 1000), seed)
        rows = rng.integers(0, len(influence), len(influence))
        return found.model_copy(update={"source": collapse_report(report, rows, influence, seed)})

    failures = sum(
        not gcaudit.gate(draw(0).with_evidence(None), [], draw(1).with_evidence(None), max_regression=0).passed for _ in range(1000)
    )
    print(f"false failures: {failures} of 1000")
    assert 10 <= failures <= 50


def test_false_failures_are_rare_when_paired(stored):
    """Two checkpoints of equal accuracy on the same episodes."""
    report, worse = stored
    a, b = (r.evidence.draws["target.episode_accuracies@5"] for r in (report, worse))
    b = b + a.mean() - b.mean()
    rng = np.random.default_rng(1)
    rule = ["target.probe_accuracy regression <= 0%"]
    failures = 0
    for _ in range(1000):
        rows = rng.integers(0, len(a), 1000)
        verdict = only(gcaudit.gate(episode_report(report, b[rows], 0), rule, episode_report(report, a[rows], 0)))
        assert verdict.comparison == "paired"
        failures += verdict.status == "failed"
    print(f"false failures, paired: {failures} of 1000")
    assert 10 <= failures <= 50


def test_a_change_of_four_standard_errors_is_caught(stored):
    report, _ = stored
    accuracies = report.evidence.draws["target.episode_accuracies@5"]
    change = 4 * np.sqrt(2 / 1000) * accuracies.std()
    rng = np.random.default_rng(2)
    rule = ["target.probe_accuracy regression <= 0%"]
    caught = 0
    for _ in range(1000):
        old = episode_report(report, rng.choice(accuracies, 1000), 1)
        new = episode_report(report, rng.choice(accuracies, 1000) - change, 0)
        caught += not gcaudit.gate(new, rule, old).passed
    print(f"changes of 4 standard errors caught: {caught} of 1000")
    assert caught >= 800


def power(new, old, size, paired, repeats, seed):
    """Share of failures at 0% on episodes drawn from stored ones."""
    rng = np.random.default_rng(seed)
    rule = ["target.probe_accuracy regression <= 0%"]
    caught = 0
    for _ in range(repeats):
        rows = rng.integers(0, len(new), size)
        others = rows if paired else rng.integers(0, len(new), size)
        a, b = episode_report(_TEMPLATE[0], new[rows], 0), episode_report(_TEMPLATE[0], old[others], 0 if paired else 1)
        caught += not gcaudit.gate(a, rule, b).passed
    return caught / repeats


_TEMPLATE = []


def test_pairing_needs_a_third_of_the_episodes(stored):
    report, worse = stored
    _TEMPLATE[:] = [report]
    old, new = (r.evidence.draws["target.episode_accuracies@5"] for r in (report, worse))
    # a small true change, so that the question needs hundreds of episodes; the episodes' noise is the checkpoints' own
    new = new - new.mean() + old.mean() - 0.01
    variance = new.var() + old.var(), (new - old).var()
    unpaired_size = int(np.ceil((1.96 + 0.84) ** 2 * variance[0] / 0.01**2))
    paired_size = unpaired_size // 3
    unpaired = power(new, old, unpaired_size, paired=False, repeats=1000, seed=3)
    paired = power(new, old, paired_size, paired=True, repeats=1000, seed=4)
    print(
        f"power {unpaired:.3f} with {unpaired_size} episodes unpaired, {paired:.3f} with {paired_size} paired; "
        f"variance ratio {variance[0] / variance[1]:.2f}"
    )
    assert 0.75 < unpaired < 0.85
    assert paired >= unpaired
