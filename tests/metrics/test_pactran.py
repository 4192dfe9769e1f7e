import numpy as np
import pytest
import torch
from cases import clouds

from gcaudit.geometry.subset import balanced_subset
from gcaudit.metrics.measuring import evidence_of
from gcaudit.metrics.pactran import bound, pactran_gaussian


def newton(z, y, strength, prior):
    """The definition, minimised by Newton's method; the diagonal of the Hessian is summed entry by entry."""
    x = torch.tensor(z - z.mean(0))
    labels = torch.tensor(y)
    (n, d), k = x.shape, int(labels.max()) + 1

    def objective(flat):
        w, b = flat[: k * d].reshape(k, d), flat[k * d :]
        return torch.nn.functional.cross_entropy(x @ w.T + b, labels) + w.square().sum() / (2 * strength * n)

    flat = torch.zeros(k * d + k, dtype=torch.float64)
    for _ in range(60):
        gradient = torch.autograd.functional.jacobian(objective, flat)
        step = torch.linalg.lstsq(torch.autograd.functional.hessian(objective, flat), gradient, driver="gelsd").solution
        size = 1.0
        while size > 1e-9 and objective(flat - size * step) > objective(flat) + 1e-14:
            size /= 2
        flat = flat - size * step
    assert torch.autograd.functional.jacobian(objective, flat).abs().max() < 1e-10
    least = objective(flat).item()
    p = torch.softmax(x @ flat[: k * d].reshape(k, d).T + flat[k * d :], 1)
    trace = 0.0
    for c in range(k):
        curvature = p[:, c] * (1 - p[:, c])
        trace += curvature.sum().item()
        for j in range(d):
            trace += (x[:, j].square() * curvature).sum().item() + 1 / (strength * n)
    value = least + 0.5 * k * d / (strength * n) * prior / d * np.log(trace * strength * n / (k * d) + 1e-10)
    return least, value


@pytest.mark.parametrize(
    ("strength", "prior", "least", "value"),
    [
        (10.0, 1000.0, 0.027213951508867854, 7.125127842187889),
        (10.0, 100.0, 0.027213951508867854, 0.73700534057677),
        (1.0, 100.0, 0.09554969668974078, 6.350529149713737),
        (1.0, 10.0, 0.09554969668974078, 0.7210476419921404),
        (0.1, 10.0, 0.29156607851813776, 5.581676670219487),
        (0.1, 1.0, 0.29156607851813776, 0.8205771376882727),
    ],
)
def test_published_values_stop_above_the_minimum(shared, strength, prior, least, value):
    small = np.load(shared / "golden" / "small.npz")
    z, y = torch.tensor(small["features"]), torch.tensor(small["labels"])
    found = bound(z - z.mean(0), y, 5, 16, strength=strength, prior=prior)
    assert least - 3e-6 < found[0] < least
    assert found[1] == pytest.approx(value, rel=2e-4)


@pytest.mark.parametrize(("strength", "prior"), [(10.0, 100.0), (1.0, 10.0), (0.1, 1.0)])
def test_the_minimum_is_that_of_newtons_method(strength, prior):
    z, y = clouds(per_class=(20, 15, 30), dim=4, spread=3.0)
    x = torch.tensor(z - z.mean(0))
    least, value = newton(z, y, strength, prior)
    found = bound(x, torch.tensor(y), 3, 4, strength=strength, prior=prior)
    assert found[0] == pytest.approx(least, rel=1e-12)
    assert found[1] == pytest.approx(value, rel=1e-7)


def test_rotation_shift_and_more_dimensions_than_images():
    z, y = clouds(per_class=(20, 15, 30), dim=5, spread=3.0)
    plain = pactran_gaussian(evidence_of(z, y))
    assert plain.value == pytest.approx(newton(z, y, 1.0, 10.0)[1], rel=1e-7)
    assert plain.stderr is None
    assert plain.reason.startswith("no standard error")
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    assert pactran_gaussian(evidence_of(z @ rotation + 1e4, y)).value == pytest.approx(plain.value, rel=1e-6)
    rows = torch.tensor(z, dtype=torch.float32)
    assert pactran_gaussian(evidence_of(rows, y)).value == pytest.approx(plain.value, rel=1e-5)
    wide, labels = clouds(per_class=(4, 5), dim=12)
    assert pactran_gaussian(evidence_of(wide, labels)).value == pytest.approx(newton(wide, labels, 1.0, 10.0)[1], rel=1e-7)


def test_many_images_are_drawn_from(monkeypatch):
    monkeypatch.setattr("gcaudit.metrics.pactran._IMAGES", 60)
    z, y = clouds(per_class=(100, 50, 30), dim=4, spread=4.0)
    evidence = evidence_of(z, y)
    rows = balanced_subset(evidence, "pactran_gaussian", 60).numpy()
    found = pactran_gaussian(evidence)
    assert found.n == 60
    assert found.value == pytest.approx(newton(z[rows], y[rows], 1.0, 10.0)[1], rel=1e-7)


def test_reasons():
    z, y = clouds()
    assert "at least 2 classes" in pactran_gaussian(evidence_of(z, np.zeros_like(y))).reason
    assert "all embeddings are equal" in pactran_gaussian(evidence_of(np.ones_like(z), y)).reason
    assert "scale of the embeddings is too large" in pactran_gaussian(evidence_of(1e9 * z, y)).reason
    assert "beyond the range" in pactran_gaussian(evidence_of(1e200 * z, y)).reason
