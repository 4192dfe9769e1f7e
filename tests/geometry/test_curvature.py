"""Slope and sharpness against the gradient and the Hessian themselves, in float64."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gcaudit
from gcaudit.geometry.curvature import flatness, sampled_flatness


def network(*, norm=False):
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(5)] if norm else []
    return nn.Sequential(nn.Linear(4, 5), *middle, nn.Tanh(), nn.Linear(5, 3)).double().eval()


def batches(sizes=(7, 5, 1)):
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(n, 4, dtype=torch.float64, generator=generator) for n in sizes]
    return [(x, torch.arange(len(x)) % 3) for x in rows]


def truth(model, data):
    """Slope and Hessian of the mean loss, entry by entry."""
    names, weights = zip(*model.named_parameters(), strict=True)
    x, y = torch.cat([a for a, _ in data]), torch.cat([b for _, b in data])
    flat = torch.cat([w.detach().flatten() for w in weights])

    def loss(numbers):
        parts = numbers.split([w.numel() for w in weights])
        given = {name: part.view(w.shape) for name, part, w in zip(names, parts, weights, strict=True)}
        return cross_entropy(torch.func.functional_call(model, given, (x,)), y)

    slope = torch.autograd.functional.jacobian(loss, flat).square().sum()
    return loss(flat), slope, torch.autograd.functional.hessian(loss, flat)


@pytest.mark.parametrize("norm", [False, True])
def test_they_are_what_they_say(norm):
    model, data = network(norm=norm), batches()
    loss, slope, hessian = truth(model, data)
    found = flatness(model, data, vectors=400, seed=5)
    assert found.loss == pytest.approx(float(loss), rel=1e-12)
    assert found.slope.value == pytest.approx(float(slope), rel=1e-10)
    assert (found.parameters, found.images) == (len(hessian), 13)
    off = hessian - hessian.diagonal().diag()
    spread = float((2 * off.square().sum()) ** 0.5) / len(hessian)
    assert abs(found.sharpness.value - float(hessian.trace()) / len(hessian)) <= 4 * spread / 20
    assert found.sharpness.stderr == pytest.approx(spread / 20, rel=0.25)  # signs have this variance
    low, high = found.sharpness.ci95
    assert low < found.sharpness.value < high


def test_one_diagonal_hessian_needs_no_luck():
    class Bias(nn.Module):
        """Logits (b, 0): the loss has one parameter, and its Hessian p (1 - p)."""

        def __init__(self):
            super().__init__()
            self.b = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

        def forward(self, x):
            return torch.stack((self.b.expand(len(x)), torch.zeros(len(x), dtype=torch.float64)), 1)

    found = flatness(Bias(), [(torch.zeros(4, 1), torch.tensor([0, 0, 1, 0]))], vectors=2)
    p = torch.sigmoid(torch.tensor(0.7, dtype=torch.float64))
    assert found.sharpness.value == pytest.approx(float(p * (1 - p)), rel=1e-12)
    assert found.sharpness.stderr == pytest.approx(0, abs=1e-15)
    assert found.slope.value == pytest.approx(float((p - 0.75) ** 2), rel=1e-12)


def test_batches_and_repetition_change_nothing():
    model, data = network(), batches()
    whole = [(torch.cat([a for a, _ in data]), torch.cat([b for _, b in data]))]
    first, second = (flatness(model, each, vectors=4) for each in (data, whole))
    assert first.slope.value == pytest.approx(second.slope.value, rel=1e-12)
    assert first.sharpness.value == pytest.approx(second.sharpness.value, rel=1e-10)
    assert gcaudit.flatness(model, data, vectors=4) == first
    assert all(weight.grad is None for weight in model.parameters())


def test_frozen_parameters_do_not_count_and_unused_ones_are_flat():
    model, data = network(), batches()
    model[0].requires_grad_(requires_grad=False)
    assert flatness(model, data, vectors=2).parameters == 18
    model.unused = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    seen = nn.Sequential(model)
    seen[0].forward = lambda x: model[2](model[1](model[0](x)))
    assert flatness(seen, data, vectors=2).parameters == 21


def test_what_cannot_be_measured_is_told():
    model = network()
    with pytest.raises(ValueError, match="at least 2 vectors and a parameter, found 1 and 4"):
        flatness(model, batches(), vectors=1)
    with pytest.raises(ValueError, match="at least one image"):
        flatness(model, [])
    model.requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="found 16 and 0"):
        flatness(model, batches())
    huge = network()
    with torch.no_grad():
        huge[2].weight.mul_(1e300)
    found = flatness(huge, batches(), vectors=2)
    assert found.slope.value is None or found.slope.value >= 0


def test_of_the_distribution_it_has_no_bias_and_covers():
    """Batches drawn from a finite population: means over many draws are the population's, and the errors are those seen."""
    model = network()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(400, 4, dtype=torch.float64, generator=generator)
    y = torch.randint(3, (400,), generator=generator)
    _, slope, hessian = truth(model, [(x, y)])
    found = []
    for draw in range(150):
        places = torch.randint(400, (8, 4), generator=generator)
        found.append(sampled_flatness(model, [(x[p], y[p]) for p in places], seed=draw))
    for name, true in (("slope", float(slope)), ("sharpness", float(hessian.trace()) / len(hessian))):
        estimates = [getattr(one, name) for one in found]
        values = torch.tensor([one.value for one in estimates])
        assert abs(float(values.mean()) - true) <= 4 * float(values.std()) / len(values) ** 0.5
        assert float(torch.tensor([one.stderr for one in estimates]).mean()) == pytest.approx(float(values.std()), rel=0.35)
        assert sum(one.ci95[0] <= true <= one.ci95[1] for one in estimates) >= 0.85 * len(estimates)
    assert all(one.slope.details["plug_in"] > one.slope.value for one in found)


def test_unequal_batches_are_weighed_by_their_images():
    model, data = network(), [(x, y) for n in (5, 3, 7, 2) for x, y in batches((n,))]
    found = sampled_flatness(model, data, vectors=300)
    sums = []
    for x, y in data:
        model.zero_grad()
        cross_entropy(model(x), y, reduction="sum").backward()
        sums.append(torch.cat([w.grad.flatten() for w in model.parameters()]))
    crossed = sum(float(a @ b) for i, a in enumerate(sums) for j, b in enumerate(sums) if i != j)
    weights = sum(len(a) * len(b) for i, (a, _) in enumerate(data) for j, (b, _) in enumerate(data) if i != j)
    assert found.slope.value == pytest.approx(crossed / weights, rel=1e-10)
    left = [
        sum(float(a @ b) for i, a in enumerate(sums) for j, b in enumerate(sums) if i != j and out not in (i, j))
        / sum(len(a) * len(b) for i, (a, _) in enumerate(data) for j, (b, _) in enumerate(data) if i != j and out not in (i, j))
        for out in range(4)
    ]
    assert found.slope.stderr == pytest.approx(float((3 * torch.tensor(left).double().var(correction=0)) ** 0.5), rel=1e-6)
    _, slope, hessian = truth(model, data)
    assert found.slope.details["plug_in"] == pytest.approx(float(slope), rel=1e-10)
    assert found.sharpness.value == pytest.approx(float(hessian.trace()) / len(hessian), rel=0.1)


def test_too_few_batches_are_refused():
    with pytest.raises(ValueError, match="at least 3 batches and a parameter, found 2 and 4"):
        sampled_flatness(network(), batches((4, 4)))
