"""The bound of a network's Lipschitz constant against the Jacobians and operators themselves, in float64."""

import math
import runpy
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from gcaudit.encoders.lipschitz import _SLOPES, convolution_norm, lipschitz_bound
from gcaudit.encoders.taps import Tap

SIZE = (3, 9, 9)


def matrix_of(function, size):
    """The matrix of a linear function, by its values at unit vectors."""
    units = torch.eye(math.prod(size), dtype=torch.float64).view(-1, *size)
    return function(units).flatten(1).T


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 1)])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_stays_below(stride, dilation, kernel, groups):
    torch.manual_seed(stride + dilation)
    layer = nn.Conv2d(4, 6, kernel, stride, padding=2, dilation=dilation, groups=groups, bias=False).double()
    matrix = matrix_of(layer, (4, 11, 10)).detach()
    true = torch.linalg.eigvalsh(matrix.T @ matrix)[-1].sqrt()
    bound = convolution_norm(layer.weight, groups, stride, dilation)
    assert float(true) <= bound * (1 + 1e-12)
    assert bound <= math.prod(kernel) * float(true)
    if kernel == (1, 1):
        assert bound == pytest.approx(float(true), rel=1e-10)


class Residual(nn.Module):
    """Two branches that are added, one that is concatenated, and a mean over positions."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8)
        self.pool, self.fc = nn.MaxPool2d(3, 2, 1), nn.Linear(16, 5)

    def forward(self, x):
        x = functional.relu(self.norm(self.one(x)))
        x = functional.gelu(x) * 2 + functional.relu(self.two(x))
        x = torch.cat([self.pool(x), functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0))], 1)
        return self.fc(x.mean((2, 3)))


def norms(function, size, images=20):
    """Spectral norms of Jacobians at random images."""
    found = []
    for seed in range(images):
        x = torch.randn(1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3
        jacobian = torch.autograd.functional.jacobian(lambda x: function(x).flatten(), x)
        found.append(float(torch.linalg.matrix_norm(jacobian.flatten(1), 2)))
    return found


def test_a_network_stays_below():
    torch.manual_seed(0)
    model = Residual().double()
    model(torch.randn(50, *SIZE, dtype=torch.float64))
    model.eval()
    dry = torch.zeros(1, *SIZE, dtype=torch.float64)
    for tap in (Tap("fc", "input"), Tap("fc", "output"), Tap("", "output"), Tap("two", "output"), Tap("norm", "output")):
        bound, reason = lipschitz_bound(model, tap, dry)
        assert reason == ""
        seen = norms(lambda x, tap=tap: tap(model, x)[0], SIZE)
        assert max(seen) <= bound
        assert bound <= 100 * max(seen)


def test_by_hand():
    """2 x, plus x, of which the mean over 4 positions is taken: (2 + 1) / 2; with a norm of scale 3 / sqrt(9) and slope 0.25 between."""
    twice = nn.Conv2d(1, 1, 1, bias=False)
    twice.weight.data.fill_(2.0)
    norm = nn.BatchNorm2d(1, eps=0.0)
    norm.running_var.fill_(9.0)
    norm.weight.data.fill_(-3.0)

    class Hand(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.norm, self.act, self.pool, self.fc = (
                twice,
                norm,
                nn.Sigmoid(),
                nn.AdaptiveAvgPool2d(1),
                nn.Linear(1, 1),
            )

        def forward(self, x):
            x = self.twice(x) + x
            return self.fc(torch.flatten(self.pool(self.act(self.norm(x))), 1))

    bound, _ = lipschitz_bound(Hand().eval(), Tap("fc", "input"), torch.zeros(1, 1, 2, 2))
    assert bound == pytest.approx(3 * 1 * 0.25 / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("layer", "bound"),
    [
        (nn.AvgPool2d(2, 2), 0.5),
        (nn.AvgPool2d(3, 1), 1.0),
        (nn.AvgPool2d(2, 2, ceil_mode=True), 1.0),
        (nn.MaxPool2d(2, 2), 1.0),
        (nn.MaxPool2d(3, 2), 2.0),
        (nn.LeakyReLU(-2.0), 2.0),
        (nn.LayerNorm([2, 5, 5], eps=0.25, elementwise_affine=False), 2.0),
        (nn.GroupNorm(1, 2, eps=0.01), 10.0),
        (nn.Hardswish(), 1.5),
        (nn.GELU(), 1.129),
        (nn.SiLU(), 1.0999),
        (nn.Mish(), 1.0885),
    ],
)
def test_layers_with_a_constant(layer, bound):
    model = nn.Sequential(layer, nn.Identity()).eval()
    found, reason = lipschitz_bound(model, Tap("0", "output"), torch.zeros(1, 2, 5, 5))
    pooled = 1 / math.sqrt(math.prod(layer(torch.zeros(1, 2, 5, 5)).shape[2:]))
    assert (found, reason) == (pytest.approx(bound * pooled, rel=1e-6), "")
    slopes = norms(layer.double(), (2, 5, 5))
    assert max(slopes) <= bound


@pytest.mark.parametrize("name", ["GELU", "SiLU", "Mish", "Hardswish", "Sigmoid", "Hardsigmoid", "Softplus"])
def test_slopes_of_functions_of_numbers(name):
    """The largest slope on a fine grid is below the constant, and near it."""
    x = torch.linspace(-8, 8, 160001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(getattr(nn, name)()(x).sum(), x)
    assert _SLOPES[name] * 0.999 <= float(slope.abs().max()) <= _SLOPES[name] * (1 + 1e-7)


@pytest.mark.parametrize(
    ("name", "told"),
    [("vit_tiny_patch16_224", "scaled_dot_product_attention"), ("resnet18", ""), ("legacy_seresnet18", "of several maps")],
)
def test_networks_of_timm(name, told):
    model = timm.create_model(name).eval()
    config = model.pretrained_cfg
    found, reason = lipschitz_bound(model, Tap(config["classifier"], "pre_logits"), torch.zeros(1, *config["input_size"]))
    assert (found is None) == bool(told)
    if told:
        assert told in reason
        assert "has no Lipschitz constant that is known here" in reason


def test_what_cannot_be_bounded_is_told():
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    dry = torch.zeros(1, 1, 2, 2)
    assert lipschitz_bound(Branch(), Tap("", "output"), dry)[1] == "the network's graph cannot be traced up to the embedding"
    odd = nn.Sequential(nn.Conv2d(1, 1, 1, padding_mode="circular"), nn.Identity())
    assert lipschitz_bound(odd, Tap("1", "output"), dry)[1] == "0 (Conv2d) has no Lipschitz constant that is known here"

    class Twice(nn.Module):
        def forward(self, x):
            return x[[0, 0]]

    assert lipschitz_bound(Twice(), Tap("", "output"), dry)[1] == "getitem, getitem, has no Lipschitz constant that is known here"
    uneven = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Identity())
    assert "windows of several sizes" in lipschitz_bound(uneven, Tap("0", "output"), torch.zeros(1, 1, 3, 3))[1]
    huge = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(12)])
    for layer in huge:
        layer.weight.data.fill_(1e38)
    assert "beyond the range" in lipschitz_bound(huge, Tap("11", "output"), dry)[1]


FUNCTIONS = {
    "added to itself": lambda self, x: (z := self.one(x)) + z,
    "concatenated with itself": lambda self, x: torch.cat([z := self.one(x), z], 1),
    "repeated over a map": lambda self, x: torch.relu(x) + x.mean((2, 3), keepdim=True),
    "repeated over a constant": lambda self, x: x.mean((2, 3), keepdim=True) + self.constant,
    "times a larger constant": lambda self, x: x.mean((2, 3), keepdim=True) * self.constant,
    "alpha": lambda self, x: torch.add(self.one(x), torch.relu(x), alpha=5),
    "alpha of a method": lambda self, x: self.one(x).sub(torch.relu(x), alpha=5),
    "a layer called add": lambda self, x: self.add(x),
    "multiplied in place": lambda self, x: (z := x * 3.0, z.mul_(100.0), z)[2],
    "added in place": lambda self, x: (z := self.one(x), z.add_(x), z)[2],
    "a view added in place": lambda self, x: (z := self.one(x), z.flatten(1).add_(x.flatten(1)), z)[2],
    "active in place": lambda self, x: (z := self.one(x), self.swish(z), z)[2],
    "rescaled pooling": lambda self, x: functional.avg_pool2d(x, 2, divisor_override=1),
    "tokens": lambda self, x: self.one(x).flatten(2).transpose(1, 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_odd_ways_to_write_it_stay_below(name):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.one, self.add, self.swish = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Hardswish(inplace=True)
            self.add.weight.data *= 50
            self.register_buffer("constant", torch.ones(1, 3, 8, 8))

        def forward(self, x):
            return FUNCTIONS[name](self, x)

    model = Odd().double().eval()
    tap = Tap("", "output")
    bound, reason = lipschitz_bound(model, tap, torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    assert reason == ""
    seen = norms(lambda x: tap(model, x * 1.0)[0], (3, 8, 8), 5)
    assert max(seen) <= bound * (1 + 1e-9)


@pytest.mark.parametrize("name", ["multiplied with itself", "dropped out", "standardised"])
def test_odd_ways_without_a_bound(name):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.standard = nn.Conv2d(3, 3, 1), timm.layers.StdConv2dSame(3, 3, 3)

        def forward(self, x):
            z = self.one(x)
            ways = {
                "multiplied with itself": lambda: z * z, "dropped out": lambda: functional.dropout(z, 0.9), "standardised": lambda: self.standard(z),
            }  # fmt: skip
            return ways[name]()

    assert (
        "has no Lipschitz constant that is known here"
        in lipschitz_bound(Odd().eval(), Tap("", "output"), torch.zeros(1, 3, 8, 8))[1]
    )


def test_a_cifar_network_has_a_bound():
    model = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "cifar_resnet.py"))["resnet20"]().eval()
    found, reason = lipschitz_bound(model, Tap("linear", "input"), torch.zeros(1, 3, 32, 32))
    assert reason == ""
    assert found >= max(norms(lambda x: Tap("linear", "input")(model.double(), x)[0], (3, 32, 32), 2))
