import threading

import pytest
import torch
from cases import TinyNet, tiny_images
from torch import nn

from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.errors import AuditError, RequestError
from gcaudit.geometry.jacobian import energies
from gcaudit.passes import runner as runner_module
from gcaudit.passes.runner import Runner, RunSettings


def make(net=None, device="cpu", **options):
    return Runner(load_encoder(ModelRequest(net or TinyNet())), RunSettings(device=device, **options))


def run(runner, images, want=True, logits=True):
    index = torch.arange(len(images)).to(runner.device)
    return runner.run(images.to(runner.device), index, want=want, logits=logits)


@pytest.mark.parametrize("estimator", ["sketch", "outputs", "exact"])
@pytest.mark.parametrize("batch_size", [1, 7, 64, None])
def test_a_batch_gives_what_the_plain_network_gives(estimator, batch_size, device):
    images, _ = tiny_images(per_class=4)
    runner = make(device=device, estimator=estimator, precision="float64", batch_size=batch_size)
    assert runner.folded == 1
    net = TinyNet().double().eval().requires_grad_(False)

    def embed(x):
        return net.features((x - 0.4) / 0.2)

    found = run(runner, images)
    torch.testing.assert_close(found.embeddings.cpu(), embed(images.double()), rtol=1e-9, atol=0)
    torch.testing.assert_close(found.energies.cpu(), energies(embed, images.double(), estimator=estimator), rtol=1e-9, atol=0)
    assert torch.equal(found.predictions.cpu(), net((images.double() - 0.4) / 0.2).argmax(1))


class Viewed(TinyNet):
    """Looks at its maps with `view`, which channels last forbids."""

    def features(self, x):
        maps = torch.tanh(self.bn(self.conv(x)))
        return torch.tanh(self.mix(nn.functional.avg_pool2d(maps, 2).view(len(x), -1)))


class Deep(TinyNet):
    """Has weights of five dimensions."""

    def __init__(self):
        super().__init__()
        self.deep = nn.Conv3d(3, 3, 1, bias=False)

    def features(self, x):
        return super().features(self.deep(x[:, :, None])[:, :, 0])


class Single(TinyNet):
    """Takes one image at a time."""

    def forward(self, x):
        assert len(x) == 1
        return super().forward(x)


class Locked(TinyNet):
    """Holds something that cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = None


@pytest.mark.parametrize(("kind", "layout"), [(Viewed, torch.contiguous_format), (Deep, torch.channels_last)])
def test_networks_that_cannot_take_a_layout_get_another(kind, layout):
    net = kind()
    runner = make(net, batch_size=4)
    assert runner.layout == layout
    images = tiny_images(per_class=1)[0]
    net = net.eval().requires_grad_(False)
    expected = energies(lambda x: net.features((x - 0.4) / 0.2), images)
    torch.testing.assert_close(run(runner, images).energies, expected, rtol=1e-4, atol=0)


def test_what_cannot_be_folded_is_run_as_it_is():
    images = tiny_images(per_class=1)[0][:1]
    assert run(make(Single(), batch_size=1), images).energies is not None
    encoder = load_encoder(ModelRequest(Locked()))
    encoder.module.lock = threading.Lock()
    runner = Runner(encoder, RunSettings(device="cpu"))
    assert runner.folded == 0
    torch.testing.assert_close(run(runner, images).energies, run(make(), images).energies, rtol=1e-4, atol=0)


def test_what_is_not_wanted_is_not_made():
    found = run(make(), tiny_images(per_class=2)[0], want=False, logits=False)
    assert found.energies is None
    assert found.predictions is None
    assert found.embeddings.is_inference()


def test_the_encoders_own_weights_stay():
    encoder = load_encoder(ModelRequest(TinyNet()))
    before = {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}
    run(Runner(encoder, RunSettings()), tiny_images()[0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.module.state_dict().items())


def test_folding_in_float64_is_exact_to_float64():
    """Weights are folded in the precision they are used in, not in that of the file."""
    images = tiny_images()[0].double()
    net = TinyNet().double().eval()
    found = run(make(precision="float64"), images).embeddings
    torch.testing.assert_close(found, net.features((images - 0.4) / 0.2).detach(), rtol=1e-13, atol=1e-15)


def test_the_batch_size_settles_on_batches_that_count():
    runner = make()
    images = tiny_images(per_class=64)[0]
    sizes = []
    for _ in range(30):
        size = runner.images_per_batch(True)
        sizes.append(size)
        run(runner, images[:size])
    assert sizes[0] == 32
    assert len(set(sizes[-10:])) == 1
    assert max(sizes) <= runner.largest_batch() == 256
    assert runner.images_per_batch(False) == 32, "passes without gradients have a size of their own"


def test_memory_bounds_the_batch(monkeypatch):
    monkeypatch.setattr(runner_module, "_free_memory", lambda: 100_000)
    runner = make()
    run(runner, tiny_images(per_class=8)[0][:32])
    assert runner.images_per_batch(True) < 32


def test_halving_ends_at_one():
    runner = make(batch_size=5)
    sizes = []
    while runner.halve():
        sizes.append(runner.images_per_batch(True))
    assert sizes == [2, 1]


def test_exact_takes_fewer_images_a_batch_when_the_embedding_is_wide():
    assert make(estimator="exact", batch_size=64).images_per_batch(True) == 64
    wide = make(TinyNet(dim=256), estimator="exact", batch_size=64)
    assert wide.images_per_batch(True) == 16
    assert wide.images_per_batch(False) == 64
    images = tiny_images(per_class=1)[0]
    plain = TinyNet(dim=256).eval().requires_grad_(False)
    expected = energies(lambda x: plain.features((x - 0.4) / 0.2), images, estimator="exact")
    torch.testing.assert_close(run(wide, images).energies, expected, rtol=1e-5, atol=0)


def test_a_compiled_network_gives_the_same(device):
    images = tiny_images(per_class=4)[0]
    plain, compiled = (run(make(device=device, compile=flag), images) for flag in (False, True))
    torch.testing.assert_close(plain.embeddings, compiled.embeddings, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain.energies, compiled.energies, rtol=1e-4, atol=0)


@pytest.mark.parametrize("options", [{"vectors": 2}, {"estimator": "exact"}])
def test_a_compiled_graph_is_walked_once(options):
    with pytest.raises(RequestError, match=r"expected --compile with one vector an image, found [26]"):
        make(compile=True, **options)


def test_a_compiler_that_fails_is_told(monkeypatch):
    def fail(*_arguments):
        raise torch._dynamo.exc.InternalTorchDynamoError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda _function: fail)
    runner = make(compile=True)
    with pytest.raises(AuditError, match=r"expected torch.compile to take this network: .*leave --compile out"):
        run(runner, tiny_images()[0])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_attention_goes_by_plain_reverse_mode(name):
    import timm

    size = {"img_size": 32} if name.startswith("vit") else {"img_size": 64, "window_size": 2}
    net = timm.create_model(name, num_classes=3, **size)
    edge = size["img_size"]
    net.pretrained_cfg = {**net.pretrained_cfg, "input_size": (3, edge, edge)}
    runner = Runner(load_encoder(ModelRequest(net)), RunSettings(device="cpu", vectors=2))
    images = torch.rand(2, 3, edge, edge, generator=torch.Generator().manual_seed(0))
    plain = load_encoder(ModelRequest(net))
    expected = energies(plain.embed, images, vectors=2)
    torch.testing.assert_close(run(runner, images).energies, expected, rtol=1e-4, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("estimator", ["sketch", "outputs"])
def test_no_batch_makes_the_host_wait(estimator):
    from gcaudit.geometry.moments import ClassMoments

    runner = make(device="cuda", estimator=estimator, batch_size=16)
    images, labels = (part.cuda() for part in tiny_images(per_class=4))
    moments, index = ClassMoments(4, 6, "cuda"), torch.arange(16, device="cuda")
    with runner.numerics():
        for mode in ("default", "error"):  # what is done once may wait
            torch.cuda.set_sync_debug_mode(mode)
            try:
                found = runner.run(images, index, want=True, logits=True)
                moments.update(found.embeddings, labels)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert moments.counts.tolist() == [8] * 4
