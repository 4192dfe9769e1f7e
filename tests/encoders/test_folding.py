import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from gcaudit.encoders.folding import fold_batch_norms
from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.passes.runner import Runner, RunSettings


def shaken(module):
    """Give every BatchNorm statistics that are not those of a fresh one."""
    generator = torch.Generator().manual_seed(0)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean.copy_(torch.randn(child.running_mean.shape, generator=generator) * 0.2)
            child.running_var.copy_(torch.rand(child.running_var.shape, generator=generator) + 0.5)
            if child.affine:
                child.weight.data.copy_(torch.rand(child.weight.shape, generator=generator) + 0.5)
                child.bias.data.copy_(torch.randn(child.bias.shape, generator=generator) * 0.2)
    return module.double().eval().requires_grad_(False)


def pixels(size=8, channels=3):
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def check(module, count, size=8):
    """Fold, and compare outputs and gradients."""
    module = shaken(module)
    x = pixels(size)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    folded, found = fold_batch_norms(module, lambda network: network(x))
    assert found == count
    assert (folded is module) == (count == 0)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name]), "the network itself must stay as it is"
    gradients = []
    for network in (module, folded):
        leaf = x.clone().requires_grad_()
        z = network(leaf)
        gradients.append((z.detach(), *torch.autograd.grad(z.sum(), leaf)))
    for plain, other in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, other, rtol=1e-10, atol=1e-12)
    return folded


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_a_convolution_and_its_batch_norm_become_one(bias, affine):
    folded = check(nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, affine=affine), nn.ReLU(), nn.Flatten()), 1)
    assert isinstance(folded[1], nn.Identity)


def test_grouped_and_strided_convolutions_are_folded():
    layers = nn.Conv2d(3, 6, 3, stride=2, groups=3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1, groups=2), nn.BatchNorm2d(6)
    check(nn.Sequential(*layers, nn.Flatten()), 2)


@pytest.mark.parametrize(
    ("name", "folded", "size"),
    [
        ("resnet18", 20, 32),
        ("tf_efficientnet_lite0", 49, 32),
        ("regnety_002", 44, 32),
        ("densenet121", 59, 64),
        ("convnext_atto", 0, 32),
    ],
)
def test_networks_of_timm(name, folded, size):
    check(timm.create_model(name, num_classes=0), folded, size)


class Wired(nn.Module):
    """One convolution and one BatchNorm, put together in some way that must not be folded."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.other = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)


class UsedTwice(Wired):
    def forward(self, x):
        y = self.conv(x)
        return (self.bn(y) + y).flatten(1)


class ConvolutionTwice(Wired):
    def forward(self, x):
        return (self.bn(self.conv(x)) + self.conv(2 * x)).flatten(1)


class BatchNormTwice(Wired):
    def forward(self, x):
        return (self.bn(self.conv(x)) + self.bn(self.other(x))).flatten(1)


class Between(Wired):
    def forward(self, x):
        return self.bn(F.relu(self.conv(x))).flatten(1)


class Standardized(Wired):
    """The weight that is used is not the weight that is kept."""

    def forward(self, x):
        return self.bn(F.conv2d(x, self.conv.weight - self.conv.weight.mean(), self.conv.bias, padding=1)).flatten(1)


class SharedWeight(Wired):
    def forward(self, x):
        return (self.bn(self.conv(x)) + F.conv2d(x, self.conv.weight, padding=1)).flatten(1)


class InAList(Wired):
    def forward(self, x):
        y = self.conv(x)
        return torch.cat([self.bn(y), y], 1).flatten(1)


@pytest.mark.parametrize("kind", [UsedTwice, ConvolutionTwice, BatchNormTwice, Between, Standardized, SharedWeight, InAList])
def test_what_would_change_the_function_is_left(kind):
    check(kind(), 0)


def test_a_layer_that_is_looked_at_is_left():
    module = shaken(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))
    x = pixels()

    def run(network):
        seen = []
        handle = network[0].register_forward_hook(lambda _m, _a, out: seen.append(out.clone()))
        network(x)
        handle.remove()
        return seen[0]

    folded, count = fold_batch_norms(module, run)
    assert count == 1
    assert isinstance(folded[1], nn.BatchNorm2d)
    assert isinstance(folded[3], nn.Identity)
    torch.testing.assert_close(run(folded), run(module), rtol=0, atol=0)


@pytest.mark.parametrize("layer", ["bn2.act", "bn1.drop", "blocks.0.0.bn1.act", "conv_stem", "bn1"])
def test_layers_inside_a_folded_norm_can_be_tapped(layer):
    encoder = load_encoder(ModelRequest(shaken(timm.create_model("tf_efficientnet_lite0", num_classes=3)).float(), layer=layer))
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    runner = Runner(encoder, RunSettings(device="cpu", precision="float64"))
    assert runner.folded >= 48
    torch.testing.assert_close(runner.embed(x.double()), encoder.embed(x.double()), rtol=1e-9, atol=1e-10)


def test_a_copy_that_disagrees_is_thrown_away():
    """A network that treats folded weights otherwise: caught by comparing embeddings."""

    class Sly(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, bias=False)
            self.bn = nn.BatchNorm2d(4)

        def forward(self, x):
            scale = 2.0 if self.conv.bias is None else 1.0
            return scale * self.bn(self.conv(x)).flatten(1)

    check(Sly(), 0)


def test_batch_norm_in_training_mode_is_left():
    module = shaken(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()))
    module[1].train()
    x = pixels()
    with torch.no_grad():
        assert fold_batch_norms(module, lambda network: network(x))[1] == 0
