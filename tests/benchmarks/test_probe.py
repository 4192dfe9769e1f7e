"""Episodes at once against a loop of scikit-learn's Ridge."""

import numpy as np
import pytest
import torch
from conftest import interleaved
from sklearn.linear_model import Ridge

from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.ridge import ProbeSettings, draw_episodes, score_episodes

EPISODES = 10_000


@pytest.mark.parametrize(("classes", "per_class", "bound"), [(10, 20, 20), (20, 100, 10), (20, 600, 1)])
def test_ten_thousand_episodes(benchmark, report, classes, per_class, bound):
    """Bound: 20 times as fast as the loop, one thread each, on a pool of 200 (as dtd10); larger pools are reported beside it."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    z = rng.normal(size=(len(labels), 1280)).astype(np.float32)
    z[np.arange(len(labels)), labels] += 5
    settings = ProbeSettings(episodes=EPISODES)
    evidence = evidence_of(z, labels)
    members, counts = torch.arange(len(labels)).view(classes, per_class), evidence.moments.counts
    drawn = draw_episodes(members, counts, torch.arange(EPISODES), settings=settings, n_shot=5, seed=0)
    wide, targets = z.astype(np.float64), np.eye(5)[np.repeat(np.arange(5), 5)]
    truth = np.repeat(np.arange(5), drawn.query.shape[2])
    loop_accuracy = []

    def loop():
        loop_accuracy.clear()
        for support, query in zip(drawn.support.flatten(1).numpy(), drawn.query.flatten(1).numpy(), strict=True):
            rows = wide[support]
            penalty = ((rows - rows.mean(0)) ** 2).sum() / len(rows)
            predicted = Ridge(alpha=penalty).fit(rows, targets).predict(wide[query])
            loop_accuracy.append((predicted.argmax(1) == truth).mean())

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = interleaved({"ours": lambda: score_episodes(evidence, settings), "loop": loop}, 3, warm=False)
        ours = benchmark.pedantic(lambda: score_episodes(evidence, settings), rounds=1)[0].accuracies
    finally:
        torch.set_num_threads(threads)
    spread = float(ours.std()) * (2 / EPISODES) ** 0.5
    assert abs(float(ours.mean()) - np.mean(loop_accuracy)) < 5 * spread
    report(ratio=times["loop"] / times["ours"], seconds=times["ours"], loop_seconds=times["loop"])
    assert times["loop"] >= bound * times["ours"]
