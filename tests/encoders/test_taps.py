from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from cases import TinyNet
from torch import nn

from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.nodes import named_tap
from gcaudit.encoders.request import ModelRequest
from gcaudit.encoders.taps import Tap, captured, classifier_tap, dry_input, head_modules, main_output, pre_logits_tap
from gcaudit.errors import ArchitectureError

IMAGE = torch.zeros(1, 3, 8, 8)


class Gate(nn.Module):
    """Squeeze-and-excitation: its last layer has as many outputs as the maps have channels."""

    def __init__(self, channels, layer):
        super().__init__()
        self.layer = layer
        self.fc = nn.Linear(channels, channels) if layer is nn.Linear else nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        pooled = x.mean((2, 3)) if self.layer is nn.Linear else x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc(pooled)).reshape(*x.shape[:2], 1, 1)


class After(nn.Module):
    """A network and what it does to its output."""

    def __init__(self, body, after):
        super().__init__()
        self.body, self.after = body, after

    def forward(self, x):
        return self.after(self.body(x))


def random_images(size=64, n=2):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "fc"),
        ("shufflenet_v2_x0_5", "fc"),
        ("mobilenet_v2", "classifier.1"),
        ("mobilenet_v3_small", "classifier.3"),
        ("efficientnet_b0", "classifier.1"),
        ("densenet121", "classifier"),
        ("convnext_tiny", "classifier.2"),
        ("swin_t", "head"),
    ],
)
def test_embedding_is_the_input_of_torchvisions_classifier(name, layer):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name).eval()
    encoder = load_encoder(ModelRequest(model, changes={"input_size": (64, 64)}))
    inputs, seen = random_images(), []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    with torch.no_grad():
        expected = model(inputs)
        handle.remove()
        embeddings, logits = encoder.encode(inputs, logits=True)
    assert encoder.tap == Tap(layer, "input")
    assert encoder.dim == seen[0].shape[1] == model.get_submodule(layer).in_features
    assert torch.allclose(embeddings, seen[0], atol=1e-5)
    assert torch.allclose(logits, expected, atol=1e-5)


def test_embedding_before_a_convolution_that_classifies_is_averaged():
    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1().eval()
    encoder = load_encoder(ModelRequest(model, changes={"input_size": (64, 64)}))
    inputs = random_images()
    with torch.no_grad():
        embeddings, logits = encoder.encode(inputs, logits=True)
        assert torch.allclose(embeddings, model.features(inputs).mean((2, 3)), atol=1e-6)
        assert torch.equal(logits, model(inputs))
    assert (encoder.dim, encoder.head_outputs) == (512, 1000)
    assert encoder.tap.describe() == "input of classifier.1, averaged over 3x3 positions"


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_mambaout"])
def test_embedding_of_timm_is_its_pre_logits(name):
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    encoder = load_encoder(ModelRequest(model))
    inputs, seen = random_images(model.pretrained_cfg["input_size"][1]), []
    handle = model.get_classifier().register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    with torch.no_grad():
        expected = model(inputs)
        handle.remove()
        embeddings, logits = encoder.encode(inputs, logits=True)
    assert encoder.tap.side == "pre_logits"
    assert encoder.tap.describe() == f"forward_head(..., pre_logits=True), input of {model.pretrained_cfg['classifier']}"
    assert encoder.head_outputs == 1000
    assert torch.allclose(embeddings, seen[0], atol=1e-5)
    assert torch.allclose(logits, expected, atol=1e-5)


def test_timm_model_without_a_head_has_no_logits():
    encoder = load_encoder(ModelRequest(timm.create_model("test_resnet", num_classes=0)))
    embeddings, logits = encoder.encode(torch.zeros(2, 3, 160, 160), logits=True)
    assert (embeddings.shape, logits, encoder.head_outputs) == ((2, 96), None, None)


def test_own_network():
    model = TinyNet().eval()
    images = torch.rand(3, 3, 8, 8)
    tap = classifier_tap(model, IMAGE)
    embeddings, logits = tap(model, images, logits=True)
    assert tap == Tap("head", "input")
    assert torch.equal(embeddings, model.features(images))
    assert torch.equal(logits, model(images))
    assert tap(model, images)[1] is None


@pytest.mark.parametrize("layer", [nn.Linear, nn.Conv2d])
def test_squeeze_and_excitation_is_not_mistaken_for_the_head(layer):
    model = nn.Sequential(nn.Conv2d(3, 6, 3), Gate(6, layer), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(
        ArchitectureError, match=r"expected a network that ends in a Linear classifier, found none; .* --layer 1\.fc"
    ):
        classifier_tap(model, IMAGE)


@pytest.mark.parametrize("layer", [nn.Linear, nn.Conv2d])
def test_head_before_a_gate_of_its_shape_is_found(layer):
    gate = nn.Sequential(nn.Unflatten(1, (6, 1, 1)), Gate(6, layer), nn.Flatten())
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Linear(5, 6), gate)
    assert classifier_tap(model, IMAGE).layer == "2"


@pytest.mark.parametrize(
    "after",
    [
        nn.LogSoftmax(1),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(4).eval(),
        nn.Dropout(),
        lambda x: x / 0.07,
        lambda x: (x, None),
        lambda x: [x],
        lambda x: {"loss": x.sum(), "logits": x},
        lambda x: {"out": x},
        lambda x: SimpleNamespace(logits=x),
    ],
)
def test_head_is_found_under_what_follows_it(after):
    wrapped = After(TinyNet(), after if isinstance(after, nn.Module) else nn.Identity()).eval()
    if not isinstance(after, nn.Module):
        wrapped.after = SimpleCall(after)
    tap = classifier_tap(wrapped, IMAGE)
    images = torch.rand(2, 3, 8, 8)
    embeddings, logits = tap(wrapped, images, logits=True)
    assert tap.layer == "body.head"
    assert torch.equal(embeddings, wrapped.body.features(images))
    assert torch.equal(logits, main_output(wrapped(images)))


class SimpleCall(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(192, 4), nn.Linear(192, 4)

    def forward(self, x):
        return (self.first(x.flatten(1)) + self.second(x.flatten(1))) / 2


def test_two_heads_are_no_one_classifier():
    with pytest.raises(ArchitectureError, match="found none; name the layer: --layer second"):
        classifier_tap(TwoHeads(), IMAGE)


@pytest.mark.parametrize(
    ("model", "last"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "0"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), "0"),
        (nn.Flatten(), "a layer's name"),
        (nn.Sequential(nn.Linear(8, 4)), "0"),
        (After(nn.Linear(8, 4), SimpleCall(lambda x: None)), "body"),
    ],
)
def test_network_that_ends_in_no_classifier(model, last):
    with pytest.raises(
        ArchitectureError, match=f"expected a network that ends in a Linear classifier, found none; .*--layer {last}$"
    ):
        classifier_tap(model, IMAGE)


def test_looking_for_the_head_leaves_no_hooks_and_no_gradients():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), Gate(6, nn.Linear), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 6), nn.Tanh())
    classifier_tap(model, IMAGE)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not IMAGE.requires_grad


def test_hook_is_gone_after_an_error():
    model = TinyNet()
    with pytest.raises(RuntimeError, match="shape"), captured(model, "head", "output"):
        model(torch.zeros(1, 3, 9, 90))
    assert not model.head._forward_hooks


def test_layer_that_gives_vectors():
    model = TinyNet().eval()
    tap = named_tap(model, "mix", IMAGE)
    images = torch.rand(2, 3, 8, 8)
    embeddings, logits = tap(model, images, logits=True)
    assert tap.describe() == "output of mix"
    assert torch.equal(torch.tanh(embeddings), model.features(images))
    assert torch.equal(logits, model(images))


def test_layer_that_gives_maps():
    model = TinyNet().eval()
    tap = named_tap(model, "conv", IMAGE)
    images = torch.rand(2, 3, 8, 8)
    assert tap.describe() == "output of conv, averaged over 8x8 positions"
    assert torch.equal(tap(model, images)[0], model.conv(images).mean((2, 3)))


def test_layer_that_gives_tokens():
    model = timm.create_model("test_vit").eval()
    inputs = random_images(160)
    encoder = load_encoder(ModelRequest(model, layer="blocks.1"))
    with torch.no_grad(), captured(model, "blocks.1", "output") as found:
        model(inputs)
        embeddings, logits = encoder.encode(inputs, logits=True)
    assert encoder.tap.describe() == f"output of blocks.1, averaged over {found[0].shape[1]} tokens"
    assert torch.equal(embeddings, found[0].mean(1))
    assert encoder.head_outputs == logits.shape[1] == 1000


@pytest.mark.parametrize(
    ("layer", "last"), [("features.1", True), ("features.0.0", False), ("norm", True), ("permute", False), ("avgpool", False)]
)
def test_maps_of_torchvisions_swin(layer, last):
    model = torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [1, 2], [4, 4], num_classes=5).eval()
    inputs = random_images()
    tap = named_tap(model, layer, inputs[:1])
    with torch.no_grad(), captured(model, layer, "output") as found:
        model(inputs)
        embeddings = tap(model, inputs)[0]
    assert tap.channels_last is last
    assert torch.equal(embeddings, found[0].mean((1, 2) if last else (2, 3)))
    assert embeddings.shape[1] == found[0].shape[3 if last else 1]


def test_maps_of_timms_swin():
    model = timm.create_model("swin_tiny_patch4_window7_224", embed_dim=12, depths=(1, 1), num_heads=(1, 2), img_size=56).eval()
    inputs = random_images(56)
    for layer, last in [("layers.0", True), ("patch_embed.proj", False)]:
        tap = named_tap(model, layer, inputs[:1])
        with torch.no_grad(), captured(model, layer, "output") as found:
            embeddings = tap(model, inputs)[0]
        assert tap.channels_last is last
        assert torch.equal(embeddings, found[0].mean((1, 2) if last else (2, 3)))


def test_maps_inside_a_convnext_block():
    model = nn.Sequential(torchvision.models.convnext.CNBlock(6, 1e-6, 0.0)).eval()
    inputs = torch.rand(2, 6, 5, 7)
    for layer, size in [("0.block.0", 6), ("0.block.2", 6), ("0.block.3", 24), ("0.block.6", 6), ("0", 6)]:
        assert named_tap(model, layer, inputs[:1])(model, inputs)[0].shape == (2, size)


def test_layer_that_sees_windows_is_refused():
    with pytest.raises(ArchitectureError, match=r"expected one output an image, found 4 of '.*qkv', which sees parts of images"):
        named_tap(
            timm.create_model("swin_tiny_patch4_window7_224", embed_dim=12, depths=(1, 1), num_heads=(1, 2), img_size=56).eval(),
            "layers.0.blocks.0.attn.qkv",
            random_images(56, 1),
        )


@pytest.mark.parametrize(
    ("layer", "pattern"),
    [
        ("heda", r"expected the name of a layer, found 'heda'; did you mean head\?"),
        ("qqq", r"found 'qqq'; did you mean bn, mix, head\?"),
        ("", r"found ''; did you mean"),
    ],
)
def test_unknown_layer(layer, pattern):
    with pytest.raises(ArchitectureError, match=pattern):
        named_tap(TinyNet(), layer, IMAGE)


def test_unknown_layer_of_a_network_without_any():
    with pytest.raises(ArchitectureError, match="found 'fc'; did you mean none: it has no layers"):
        named_tap(nn.Flatten(), "fc", IMAGE)


def test_layer_that_is_not_called():
    model = TinyNet()
    model.spare = nn.Linear(2, 2)
    with pytest.raises(
        ArchitectureError, match="expected a layer that is called, found that 'spare' is not; choose another --layer"
    ):
        named_tap(model, "spare", IMAGE)


@pytest.mark.parametrize(
    ("function", "found"), [(lambda x: x.sum(), "Tensor"), (lambda x: None, "NoneType"), (lambda x: [], "list")]
)
def test_layer_that_gives_no_vectors(function, found):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd, self.head = SimpleCall(function), nn.Linear(192, 2)

        def forward(self, x):
            self.odd(x)
            return self.head(x.flatten(1))

    with pytest.raises(ArchitectureError, match=f"expected a layer that gives tensors, found {found}; choose another --layer"):
        named_tap(Odd(), "odd", IMAGE)


@pytest.mark.parametrize(
    ("output", "main"),
    [
        (3, 3),
        ((1, 2), 1),
        ([1], 1),
        ((), ()),
        ({"a": 1, "logits": 2}, 2),
        ({"a": 1}, 1),
        ({}, None),
        (SimpleNamespace(logits=5), 5),
    ],
)
def test_main_output(output, main):
    assert main_output(output) == main


def test_layer_called_twice_gives_its_last_output():
    model = nn.Sequential(shared := nn.Linear(4, 4), nn.Tanh(), shared)
    x = torch.rand(2, 4)
    assert torch.equal(named_tap(model, "0", x[:1])(model, x)[0], model(x))


@pytest.mark.parametrize(
    ("config", "layer", "modules"),
    [
        ({"classifier": "fc"}, "fc", ("fc",)),
        ({"classifier": ("head", "head_dist")}, "head", ("head", "head_dist")),
        ({}, "head", ()),
        (None, "head", ()),
        (SimpleNamespace(classifier="fc", get=lambda _key: "fc"), "fc", ("fc",)),
    ],
)
def test_classifiers_of_timm(config, layer, modules):
    module = nn.Identity()
    module.pretrained_cfg = config
    tap = pre_logits_tap(module)
    assert (tap.layer, tap.side, head_modules(module, tap)) == (layer, "pre_logits", modules)


def test_classifiers_elsewhere():
    assert head_modules(TinyNet(), Tap("head", "input")) == ("head",)
    assert head_modules(TinyNet(), Tap("conv", "output")) == ()


def test_blank_image_is_like_the_network():
    assert dry_input((3, 4, 5), nn.Linear(1, 1).double()).dtype == torch.float64
    assert dry_input((3, 4, 5), nn.Linear(1, 1, device="meta")).device.type == "meta"
    assert dry_input((3, 4, 5), nn.Identity()).shape == (1, 3, 4, 5)


def test_layer_is_seen_before_what_follows_works_in_place():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(inplace=True))
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        embeddings = named_tap(model, "1", IMAGE)(model, images)[0]
        assert torch.equal(embeddings, model[1](images.flatten(1)))
    assert embeddings.min() < 0
