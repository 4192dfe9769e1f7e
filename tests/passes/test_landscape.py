"""Logits' energies, flatness and layers in one pass, against the network itself in float64."""

import numpy as np
import pytest
import reference
import timm
import torch
from cases import TinyNet, tiny_images
from torch import nn

import gcaudit
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.errors import RequestError
from gcaudit.geometry.counter import derive_seed
from gcaudit.geometry.curvature import flatness, sampled_flatness
from gcaudit.passes import landscape
from gcaudit.passes.observe import PassSettings, observe
from gcaudit.passes.runner import Runner, RunSettings


def look(net, pair=None, settings=None, layer=None, **run):
    images = open_data(DataRequest(pair or tiny_images(), "source"))
    runner = Runner(load_encoder(ModelRequest(net, layer=layer)), RunSettings(**run))
    return observe(runner, images, settings or PassSettings(logit_gc=True, gc_rtol=0.0)).evidence


def plain(net):
    net = net.double().eval().requires_grad_(False)
    return lambda x: net((x - 0.4) / 0.2)


@pytest.mark.parametrize("layer", [None, "conv"])
def test_energies_of_logits_are_those_of_the_network(layer, device):
    images, _ = tiny_images()
    found = look(TinyNet(), layer=layer, estimator="exact", precision="float64", device=device)
    slow = reference.energies(plain(TinyNet()), images.double())
    np.testing.assert_allclose(found.logit_energies.values.numpy(), slow, rtol=1e-6)
    assert (found.logit_energies.estimator, found.logit_energies.vectors) == ("exact", 4)
    alone = look(TinyNet(), layer=layer, settings=PassSettings(gc_rtol=0.0), estimator="exact", precision="float64", device=device)
    torch.testing.assert_close(found.energies, alone.energies, rtol=1e-10, atol=0)
    assert alone.logit_energies is None


def test_a_sketch_of_logits_has_no_bias_and_its_own_number_of_vectors():
    images, _ = tiny_images(per_class=3)
    slow = torch.tensor(reference.energies(plain(TinyNet()), images.double()))
    found = torch.stack([look(TinyNet(), tiny_images(per_class=3), seed=seed).logit_energies.values for seed in range(300)])
    error = found.std(0) / 300**0.5
    assert bool(((found.mean(0) - slow).abs() <= 4.5 * error).all())
    several = look(TinyNet(), vectors=4)
    assert (several.estimator, several.vectors) == ("sketch", 4)
    assert (several.logit_energies.estimator, several.logit_energies.vectors) == ("exact", 4)


def test_the_layer_logits_is_the_network_s_output():
    found = gcaudit.score(TinyNet(), tiny_images(), layer="logits", gc="exact", metrics=("gc", "logits_gc", "cdnv"))
    assert (found.model.layer, found.model.embedding, found.model.embedding_dim) == ("logits", "the network's output", 4)
    metrics = found.source.metrics
    assert metrics["gc"].value == pytest.approx(metrics["logits_gc"].value, rel=1e-9)
    at_embedding = gcaudit.score(TinyNet(), tiny_images(), gc="exact", metrics=("gc", "logits_gc"))
    assert at_embedding.source.metrics["logits_gc"].value == pytest.approx(metrics["gc"].value, rel=1e-5)
    assert at_embedding.source.metrics["gc"].value != pytest.approx(metrics["gc"].value, rel=0.1)


def test_a_network_with_a_layer_of_this_name_keeps_it():
    class Named(TinyNet):
        def __init__(self):
            super().__init__()
            self.logits = nn.Linear(4, 2)

        def forward(self, x):
            return self.logits(super().forward(x)).softmax(1)

    encoder = load_encoder(ModelRequest(Named(), layer="logits"))
    assert encoder.tap.layer == "logits"
    assert encoder.tap.describe() == "output of logits"


def test_logits_and_compiled_code_are_refused():
    with pytest.raises(RequestError, match="no --compile with the GC of logits"):
        look(TinyNet(), compile=True)


def test_a_model_without_a_head_says_so():
    class Headless(TinyNet):
        def forward(self, x):
            return self.features(x)

    report = gcaudit.score(Headless(), tiny_images(), layer="mix", metrics=("logits_gc", "loss_slope"))
    reasons = {name: value.reason for name, value in report.source.metrics.items()}
    assert reasons["loss_slope"]
    report = gcaudit.score(TinyNet(classes=7), tiny_images(), metrics=("loss_sharpness", "loss_slope", "logits_gc"))
    assert report.source.metrics["loss_sharpness"].reason == "the model's head has 7 classes, the data have 4"
    assert report.source.metrics["logits_gc"].value > 0


def drawn(images, labels, **options):
    """The images that flatness is looked at on, as the network's input."""
    found = open_data(DataRequest((images, labels), "source", **options))
    places = torch.tensor([place for batch in landscape._draw(found, derive_seed(0, "flatness images")) for place in batch])
    rows = found.index[places]
    return [((images.double()[rows] - 0.4) / 0.2, labels[rows])]


@pytest.mark.parametrize("classes", [None, "2,3"])
def test_flatness_is_that_of_the_unfolded_network(classes):
    """Slope's plug-in is the gradient of the mean loss of the images drawn; chosen classes keep their place in the head."""
    images, labels = tiny_images(per_class=10)
    options = {"metrics": ("loss_slope", "loss_sharpness"), "precision": "float64", "source_classes": classes}
    found = gcaudit.score(TinyNet(), (images, labels), **options).source.metrics
    net = TinyNet().double().eval()
    data = drawn(images, labels, classes=classes)
    truth = flatness(net, data, vectors=2)
    assert found["loss_slope"].plug_in == pytest.approx(truth.slope.value, rel=1e-6)
    assert found["loss_slope"].terms["loss"] == pytest.approx(truth.loss, rel=1e-6)
    assert found["loss_slope"].terms["parameters"] == sum(p.numel() for p in net.parameters())
    assert found["loss_slope"].n == len(data[0][1]) == (20 if classes is None else 10)
    assert found["loss_sharpness"].ci95[0] < found["loss_sharpness"].value < found["loss_sharpness"].ci95[1]
    assert all(not p.requires_grad for p in load_encoder(ModelRequest(TinyNet())).module.parameters())


def test_flatness_draws_classes_alike_and_batches_apart():
    images = open_data(DataRequest(tiny_images(per_class=9, classes=300, size=1), "source"))
    batches = landscape._draw(images, 0)
    chosen = torch.tensor([place for batch in batches for place in batch])
    assert [len(batch) for batch in batches] == [32] * 8
    assert len(set(chosen.tolist())) == 256
    assert int((images.labels[chosen] >= 150).sum()) == pytest.approx(128, abs=40)
    assert len(set(images.labels[chosen].tolist())) < 200  # drawn anew for each image
    few = open_data(DataRequest(tiny_images(per_class=1, classes=2), "source"))
    assert len(landscape._draw(few, 0)) <= 1


def test_the_slope_has_no_bias():
    """Over many draws of images of the same distribution, whose classes' gradients differ, the mean is the slope of the distribution."""
    found = []
    images, labels = tiny_images(per_class=400)
    inputs = (images.double() - 0.4) / 0.2
    net = TinyNet().double().eval()
    whole = flatness(net, [(inputs, labels)], vectors=2).slope.value
    pool = open_data(DataRequest((images, labels), "source"))
    for seed in range(40):
        places = [torch.tensor(batch) for batch in landscape._draw(pool, seed)]
        found.append(sampled_flatness(net, [(inputs[place], labels[place]) for place in places], vectors=1, seed=seed).slope)
    values = torch.tensor([one.value for one in found])
    assert abs(float(values.mean()) - whole) <= 4 * float(values.std()) / 40**0.5
    assert float(torch.tensor([one.stderr for one in found]).mean()) == pytest.approx(float(values.std()), rel=0.4)


def test_too_few_images_for_flatness_is_told():
    found = gcaudit.score(TinyNet(classes=2), tiny_images(per_class=1, classes=2), metrics=("loss_slope",))
    assert found.source.metrics["loss_slope"].reason == "slope and sharpness need at least 3 batches of images, found 2 images"


def test_attention_has_flatness_and_no_lipschitz_constant():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=4).eval()
    images, labels = tiny_images(per_class=3, size=32)
    found = gcaudit.score(model, (images, labels), metrics=("loss_slope", "loss_sharpness", "lipschitz_bound"), input_size=32)
    metrics = found.source.metrics
    assert metrics["loss_sharpness"].value is not None
    assert "has no Lipschitz constant that is known here" in metrics["lipschitz_bound"].reason


def test_the_constant_is_per_pixel_and_above_what_is_seen():
    options = {"metrics": ("lipschitz_bound", "gc"), "gc": "exact"}
    pixel = gcaudit.score(TinyNet(), tiny_images(), **options).source.metrics["lipschitz_bound"]
    normalized = gcaudit.score(TinyNet(), tiny_images(), input_space="normalized", **options).source.metrics["lipschitz_bound"]
    assert pixel.value == pytest.approx(normalized.value / 0.2, rel=1e-6)
    assert 0 < pixel.tightness < 1


def test_a_network_without_a_second_derivative_says_so():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return gradient * 2

    class Net(TinyNet):
        def forward(self, x):
            return Once.apply(super().forward(x))

    reason = gcaudit.score(Net(), tiny_images(), layer="mix", metrics=("loss_slope",)).source.metrics["loss_slope"].reason
    assert reason.startswith("the loss could not be differentiated twice: ")
