from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from cases import clouds

from gcaudit.errors import DataError, RequestError
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.ridge import (
    ProbeSettings,
    accuracies_of,
    draw_episodes,
    gram_answers,
    probe_accuracy,
    ridge_answers,
    score_episodes,
)
from gcaudit.passes.embeddings import EmbeddingFile

NAMES = tuple("abcdef")


def members_of(counts):
    start = np.concatenate([[0], np.cumsum(counts)])
    rows = [torch.arange(start[c], start[c + 1]) for c in range(len(counts))]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(counts)


def drawn(counts=(20, 20, 20, 20, 20, 20), numbers=range(50), n_shot=5, seed=0, **options):
    members, sizes = members_of(counts)
    settings = ProbeSettings(**{"n_way": 3, "n_query": 4, **options})
    return draw_episodes(members, sizes, torch.tensor(list(numbers)), settings=settings, n_shot=n_shot, seed=seed)


def ridge_accuracies(pool, episodes, *settings):
    return accuracies_of(*ridge_answers(pool, episodes, *settings), episodes)


def gram_accuracies(gram, pool, episodes, *settings):
    return accuracies_of(*gram_answers(gram, pool, episodes, *settings), episodes)


def episode_accuracies(evidence, settings):
    return [scores.accuracies for scores in score_episodes(evidence, settings)]


@pytest.mark.parametrize("ridge", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("n_shot", [1, 5])
@pytest.mark.parametrize("dim", [3, 40])
def test_accuracies_equal_primal_ridge_regression(ridge, n_shot, dim):
    z, _ = clouds(per_class=(20,) * 6, dim=dim, spread=4.0)
    episodes = drawn(n_shot=n_shot)
    found = ridge_accuracies(torch.from_numpy(z), episodes, ridge)
    for e in range(50):
        targets = np.repeat(np.arange(3), n_shot)
        predicted = reference.ridge_predictions(z[episodes.support[e].flatten()], targets, z[episodes.query[e].flatten()], ridge)
        assert found[e].item() == pytest.approx((predicted == np.repeat(np.arange(3), 4)).mean(), abs=1e-12)


def gram_of(z):
    centred = z - z.mean(0)
    return centred @ centred.T


@pytest.mark.parametrize("ridge", [1e-4, 1.0, 30.0])
@pytest.mark.parametrize("n_shot", [1, 5])
@pytest.mark.parametrize("dim", [3, 40])
def test_inner_products_of_the_pool_give_the_same_as_embeddings(ridge, n_shot, dim):
    z = torch.from_numpy(clouds(per_class=(20,) * 6, dim=dim, spread=4.0)[0])
    episodes = drawn(numbers=range(200), n_shot=n_shot)
    assert torch.equal(gram_accuracies(gram_of(z), z, episodes, ridge), ridge_accuracies(z, episodes, ridge))


@pytest.mark.parametrize("ridge", [1e-7, 1e-10])
def test_a_tiny_penalty_does_not_magnify_rounding(ridge):
    z, _y = clouds(per_class=(30,) * 6, dim=10, spread=3.0)
    episodes = drawn(counts=(30,) * 6, numbers=range(200), n_way=5)
    pool = torch.from_numpy(z)
    found, direct = gram_accuracies(gram_of(pool), pool, episodes, ridge), ridge_accuracies(pool, episodes, ridge)
    assert abs(float(found.mean() - direct.mean())) < 0.005
    assert (found != direct).sum() <= 10  # near ties


def test_tight_supports_far_from_the_centre_are_done_again():
    """Centring their inner products leaves nothing but rounding."""
    rng = np.random.default_rng(0)
    z = torch.from_numpy(
        np.repeat([[1e9], [-1e9]], 60, 0) + rng.normal(size=(120, 4)) * 0.3 + np.repeat(rng.normal(size=(6, 4)), 20, 0)
    )
    episodes = drawn(numbers=range(200))
    one_side = (episodes.support < 60).all((1, 2)) | (episodes.support >= 60).all((1, 2))
    assert one_side.any()
    found, expected = gram_accuracies(gram_of(z), z, episodes, 1.0), ridge_accuracies(z, episodes, 1.0)
    assert torch.equal(found[one_side], expected[one_side])


def test_identical_supports_have_no_accuracy():
    noise = torch.randint(-1, 2, (120, 16), generator=torch.Generator().manual_seed(0)) * 1.2e-13
    z = 1000 + noise.double()
    episodes, resolution = drawn(numbers=range(3)), 64 * 2.2e-16 * 4000
    for found in (ridge_accuracies(z, episodes, 1.0, resolution), gram_accuracies(gram_of(z), z, episodes, 1.0, resolution)):
        assert bool(found.isnan().all())


@pytest.mark.parametrize("rows", [0, 10_000], ids=["embeddings", "inner products"])
def test_both_ways_score_the_same_episodes(monkeypatch, rows):
    z, y = clouds(per_class=(30,) * 6, dim=10, spread=4.0)
    evidence, settings = evidence_of(z, y), ProbeSettings(episodes=300, n_shot=(1, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gcaudit.metrics.ridge._GRAM_ROWS", 0 if rows else 10_000)
        plain = episode_accuracies(evidence, settings)
    monkeypatch.setattr("gcaudit.metrics.ridge._GRAM_ROWS", rows)
    for found, expected in zip(episode_accuracies(evidence, settings), plain, strict=True):
        assert torch.equal(found, expected)


def test_a_pool_in_a_file_gives_the_same():
    z, y = clouds(per_class=(30,) * 6, dim=10, spread=4.0)
    evidence, settings = evidence_of(z, y), ProbeSettings(episodes=40)
    rows = EmbeddingFile(180, 10, torch.float64)
    rows.put(torch.arange(180), torch.from_numpy(z))
    for gram_rows in (0, 8192):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gcaudit.metrics.ridge._GRAM_ROWS", gram_rows)
            found = episode_accuracies(replace(evidence, embeddings=rows), settings)[0]
        assert torch.equal(found, episode_accuracies(evidence, settings)[0])


def test_episodes_are_made_of_distinct_classes_and_images():
    episodes = drawn()
    for e in range(50):
        classes = episodes.support[e] // 20
        assert len(set(classes[:, 0].tolist())) == 3
        assert torch.equal(classes, classes[:, :1].expand_as(classes))
        assert torch.equal(episodes.query[e] // 20, classes[:, :1].expand(-1, 4))
        rows = episodes.support[e].flatten().tolist() + episodes.query[e].flatten().tolist()
        assert len(set(rows)) == 3 * (5 + 4)
    assert bool(episodes.present.all())


def test_an_episode_depends_on_its_number_and_seed_alone():
    whole, part = drawn(), drawn(numbers=[7, 31])
    assert torch.equal(whole.support[[7, 31]], part.support)
    assert torch.equal(whole.query[[7, 31]], part.query)
    assert not torch.equal(drawn(seed=1).support, whole.support)


def test_supports_are_nested_and_queries_the_same_across_shots():
    one, five = drawn(n_shot=1), drawn(n_shot=5)
    assert torch.equal(one.support[:, :, 0], five.support[:, :, 0])
    assert torch.equal(one.query, five.query)


def test_images_and_classes_are_drawn_evenly():
    episodes = drawn(counts=(8,) * 6, numbers=range(4000), n_shot=2, n_query=1)
    counts = torch.bincount(episodes.support.flatten(), minlength=48).double()
    expected = 4000 * 3 * 2 / 48
    assert ((counts - expected) / expected**0.5).square().mean() < 2
    queries = torch.bincount(episodes.query.flatten(), minlength=48).double()
    assert ((queries - expected / 2) / (expected / 2) ** 0.5).square().mean() < 2


def test_short_classes_give_fewer_queries():
    episodes = drawn(counts=(7, 20, 20), numbers=range(10))
    for e in range(10):
        for way in range(3):
            short = bool(episodes.support[e, way, 0] < 7)
            assert int(episodes.present[e, way].sum()) == (2 if short else 4)
            real = episodes.query[e, way][episodes.present[e, way]].tolist()
            assert len({*real, *episodes.support[e, way].tolist()}) == len(real) + 5


def test_all_queries_are_all_that_is_left():
    episodes = drawn(counts=(7, 9, 8), numbers=range(5), n_query=None)
    for e in range(5):
        rows = torch.cat([episodes.support[e].flatten(), episodes.query[e][episodes.present[e]]])
        assert sorted(rows.tolist()) == list(range(24))


def test_accuracy_is_class_balanced_over_unequal_queries():
    z = torch.tensor([[0.0], [0.131], [0.217], [1.009], [1.171], [0.053], [0.389], [0.743]], dtype=torch.float64)
    members, counts = members_of((3, 5))
    settings = ProbeSettings(n_way=2, n_shot=(1,), n_query=None)
    episodes = draw_episodes(members, counts, torch.arange(20), settings=settings, n_shot=1, seed=0)
    found = ridge_accuracies(z, episodes, 1.0)
    for e in range(20):
        own, other = episodes.support[e].flatten(), episodes.support[e].flatten().flip(0)
        shares = []
        for way in range(2):
            query = z[episodes.query[e, way][episodes.present[e, way]]]
            shares.append(float(((query - z[own[way]]).abs() < (query - z[other[way]]).abs()).double().mean()))
        assert len({int(n) for n in episodes.present[e].sum(1)}) == 2
        assert found[e].item() == pytest.approx(np.mean(shares), abs=1e-12)


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (1e4, 0.0), (1.0, 1e3)])
def test_the_probe_is_free_of_scale_rotation_and_shift(scale, shift):
    z, y = clouds(per_class=(30,) * 6, dim=10, spread=4.0)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0]
    settings = ProbeSettings(episodes=100)
    plain = probe_accuracy(evidence_of(z, y), settings).value
    assert probe_accuracy(evidence_of(scale * z @ rotation + shift, y), settings).value == pytest.approx(plain, abs=1 / 7500)


def test_the_curve_holds_each_shot():
    z, y = clouds(per_class=(30,) * 6, dim=10, spread=4.0)
    found = probe_accuracy(evidence_of(z, y), ProbeSettings(n_shot=(1, 5, 10), episodes=200))
    curve = found.details["curve"]
    assert [point.details["n_shot"] for point in curve] == [1, 5, 10]
    assert curve[0].value < curve[1].value < curve[2].value
    assert found.value == curve[0].value
    alone = probe_accuracy(evidence_of(z, y), ProbeSettings(n_shot=(5,), episodes=200))
    assert alone.value == curve[1].value
    assert "curve" not in alone.details


def test_the_interval_given_the_pool_is_over_episodes():
    z, y = clouds(per_class=(30,) * 6, dim=10, spread=4.0)
    settings = ProbeSettings(episodes=300)
    evidence = evidence_of(z, y)
    whole, values = probe_accuracy(evidence, settings), episode_accuracies(evidence, settings)[0]
    found = whole.given_pool
    assert (found.n, whole.n) == (300, 180)
    assert whole.stderr > 2 * found.stderr
    assert found.stderr == pytest.approx(float(np.std(values.numpy(), ddof=1)) / 300**0.5, rel=1e-12)
    assert "given the pool of images" in whole.details["interval"]


def test_chunks_of_episodes_do_not_matter(monkeypatch):
    z, y = clouds(per_class=(30,) * 6, dim=10, spread=4.0)
    evidence, settings = evidence_of(z, y), ProbeSettings(episodes=50)
    whole = episode_accuracies(evidence, settings)[0]
    monkeypatch.setattr("gcaudit.metrics.ridge._BYTES", 1)
    assert torch.equal(episode_accuracies(evidence, settings)[0], whole)


def test_one_episode_has_no_standard_error():
    z, y = clouds(per_class=(30,) * 6)
    found = probe_accuracy(evidence_of(z, y), ProbeSettings(episodes=1))
    assert found.value is not None
    assert found.stderr is None
    assert "one episode" in found.reason


@pytest.mark.parametrize("constant", [0.0, 1.0, 1 / 3, 1e6])
def test_identical_embeddings_are_a_reason(constant):
    found = probe_accuracy(evidence_of(np.full((60, 4), constant), np.arange(60) % 6), ProbeSettings(n_query=3))
    assert found.value is None
    assert "identical in 1000 of 1000 episodes" in found.reason


def test_too_few_classes_are_a_reason():
    z, y = clouds(per_class=(30, 30))
    found = probe_accuracy(evidence_of(z, y), ProbeSettings())
    assert found.value is None
    assert "at least 5 target classes for --n-way 5, found 2" in found.reason


def test_checks_name_the_class_that_is_too_short():
    with pytest.raises(DataError, match=r"at least 6 images a class .* found 5 in class 'b'"):
        ProbeSettings(n_way=2).check(torch.tensor([30, 5]), NAMES[:2])
    with pytest.raises(DataError, match="pass --n-way 3"):
        ProbeSettings().check(torch.tensor([30, 30, 30]), NAMES[:3])


def test_checks_warn_of_fewer_queries():
    (line,) = ProbeSettings(n_way=2).check(torch.tensor([30, 12, 19]), NAMES[:3])
    assert "2 classes have fewer than n_shot + n_query = 20 images (the smallest, 'b', has 12)" in line
    assert ProbeSettings(n_way=2).check(torch.tensor([20, 20]), NAMES[:2]) == []
    assert ProbeSettings(n_way=2, n_query=None).check(torch.tensor([20, 6]), NAMES[:2]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_way": 1}, "--n-way of at least 2"),
        ({"n_shot": ()}, "--n-shot of distinct"),
        ({"n_shot": (0,)}, "--n-shot of distinct"),
        ({"n_shot": (5, 5)}, "--n-shot of distinct"),
        ({"n_query": 0}, "--n-query of at least 1"),
        ({"episodes": 0}, "--episodes of at least 1"),
        ({"ridge": 0.0}, "--ridge above 0"),
        ({"ridge": float("inf")}, "--ridge above 0"),
        ({"ridge": float("nan")}, "--ridge above 0"),
    ],
)
def test_settings_out_of_range_are_told(options, message):
    with pytest.raises(RequestError, match=message):
        ProbeSettings(**options)
