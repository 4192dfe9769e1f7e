from dataclasses import fields

import numpy as np
import pytest
import reference
import torch
from cases import TinyNet, tiny_images

from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.errors import AuditError, DataError, RequestError
from gcaudit.geometry.stopping import relative_error
from gcaudit.metrics.ridge import ProbeSettings
from gcaudit.metrics.table import METRICS, measure_evidence
from gcaudit.passes.embeddings import EmbeddingFile, EmbeddingStore
from gcaudit.passes.observe import PassSettings, energy_segments, observe
from gcaudit.passes.runner import Runner, RunSettings, resolve_device

RUNS = {field.name for field in fields(RunSettings)}


@pytest.fixture
def encoder():
    return load_encoder(ModelRequest(TinyNet()))


def image_set(images=None, labels=None, **options):
    pair = tiny_images(**options) if images is None else (images, labels)
    return open_data(DataRequest(pair, "source"))


def look(encoder, images, **options):
    run = {name: options.pop(name) for name in RUNS & set(options)}
    return observe(Runner(encoder, RunSettings(**run)), images, PassSettings(**options))


def test_embeddings_and_energies_equal_the_network(encoder, device):
    images, labels = tiny_images()
    found = look(encoder, image_set(images, labels), device=device, precision="float64", estimator="exact", gc_images=None).evidence
    net = TinyNet().double().eval().requires_grad_(False)

    def embed(x):
        return net.features((x - 0.4) / 0.2)

    np.testing.assert_allclose(found.embeddings.numpy(), embed(images.double()).numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.energies.numpy(), reference.energies(embed, images.double()), rtol=1e-6)
    assert torch.equal(found.labels, labels)
    assert found.estimator == "exact"
    assert found.vectors == 6


def test_normalized_input_space_leaves_the_std_out(encoder):
    pixel = look(encoder, image_set(), estimator="exact").evidence.energies
    normalized = look(encoder, image_set(), estimator="exact", input_space="normalized").evidence.energies
    torch.testing.assert_close(pixel * 0.2**2, normalized, rtol=1e-5, atol=0)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 7}, {"batch_size": 64}, {"batch_size": 7, "workers": 2}])
def test_batch_size_and_workers_change_nothing_but_rounding(encoder, options):
    images = image_set()
    plain, other = look(encoder, images, gc_images=20).evidence, look(encoder, images, gc_images=20, **options).evidence
    torch.testing.assert_close(plain.embeddings, other.embeddings, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(plain.energies, other.energies, rtol=1e-5, atol=0)
    torch.testing.assert_close(plain.moments.means, other.moments.means, rtol=1e-5, atol=1e-6)
    assert torch.equal(plain.energy_rows, other.energy_rows)
    assert plain.fingerprint == other.fingerprint


def test_energies_go_to_a_class_balanced_draw(encoder):
    images = image_set(per_class=30)
    (places,) = energy_segments(images, PassSettings(gc_images=10), 0)
    counts = torch.bincount(images.labels[places])
    assert counts.sum() == 10
    assert counts.max() - counts.min() <= 1
    assert torch.equal(places, places.sort().values)
    (more,) = energy_segments(images, PassSettings(gc_images=40), 0)
    assert set(places.tolist()) <= set(more.tolist())
    assert places.tolist() != energy_segments(images, PassSettings(gc_images=10), 1)[0].tolist()
    assert len(energy_segments(images, PassSettings(gc_images=None), 0)[0]) == 120
    assert energy_segments(images, PassSettings(gc_images=0), 0) == []


def test_an_image_keeps_its_vectors_when_others_are_left_out(encoder):
    images, labels = tiny_images()
    whole = look(encoder, open_data(DataRequest((images, labels), "source")), gc_images=None).evidence
    part = look(encoder, open_data(DataRequest((images, labels), "source", classes="1,3")), gc_images=None).evidence
    keep = (labels == 1) | (labels == 3)
    torch.testing.assert_close(part.energies, whole.energies[keep], rtol=1e-5, atol=0)


def test_no_energies_when_none_are_wanted(encoder):
    found = look(encoder, image_set(), gc_images=0).evidence
    assert found.energies is None
    assert found.energy_rows is None


def test_predictions_are_the_heads(encoder):
    images, labels = tiny_images()
    found = look(encoder, image_set(images, labels)).evidence
    net = TinyNet().eval()
    assert torch.equal(found.predictions, net((images - 0.4) / 0.2).argmax(1))


def test_predictions_are_numbered_like_the_chosen_classes(encoder):
    images, labels = tiny_images()
    chosen = open_data(DataRequest((images, labels), "source", classes="3,1"))
    found = look(encoder, chosen).evidence
    said = TinyNet().eval()((images - 0.4) / 0.2).argmax(1)[(labels == 1) | (labels == 3)]
    assert chosen.class_names == ("3", "1")
    assert found.predictions.tolist() == [{3: 0, 1: 1}.get(n, -1) for n in said.tolist()]


def test_a_head_of_other_classes_says_why_it_is_not_judged(encoder):
    found = look(encoder, image_set(classes=3)).evidence
    assert found.predictions is None
    assert found.predictions_reason == "the model's head has 4 classes, the data have 3"


def test_the_network_is_left_without_gradients(encoder):
    look(encoder, image_set())
    assert all(p.grad is None and not p.requires_grad for p in encoder.module.parameters())


class Hungry(TinyNet):
    """Runs out of memory on more than `fits` images."""

    fits = 5

    def forward(self, x):
        if len(x) > self.fits:
            raise torch.OutOfMemoryError("DefaultCPUAllocator: can't allocate memory")
        return super().forward(x)


def test_out_of_memory_halves_the_batch_and_goes_on(encoder):
    found = look(load_encoder(ModelRequest(Hungry())), image_set(), batch_size=48)
    plain = look(encoder, image_set())
    torch.testing.assert_close(found.evidence.embeddings, plain.evidence.embeddings, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.evidence.energies, plain.evidence.energies, rtol=1e-5, atol=0)
    assert found.batch_size == 3
    assert [warning.message for warning in found.warnings] == ["memory ran out 4 times; the batch was halved to 3"]


def test_a_batch_is_counted_once_however_often_memory_ran_out(encoder, monkeypatch):
    failures = iter([True, False, True, False, False, True])
    plain = Runner.run

    def starved(self, *arguments, **options):
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory, allocate memory")
        return plain(self, *arguments, **options)

    monkeypatch.setattr("gcaudit.passes.runner.Runner.run", starved)
    found = look(encoder, image_set(), batch_size=16).evidence
    assert found.moments.counts.tolist() == [12] * 4


def test_no_memory_for_one_image_ends_the_audit():
    net = Hungry()
    encoder = load_encoder(ModelRequest(net))
    encoder.module.fits = 0
    with pytest.raises(AuditError, match="memory for one image"):
        look(encoder, image_set())


def test_other_runtime_errors_are_not_taken_for_memory(encoder):
    encoder.module.mix = torch.nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        look(encoder, image_set())


def test_nan_embeddings_end_the_audit_naming_the_image(encoder):
    images, labels = tiny_images()
    encoder.module.mix.bias.data[0] = torch.nan
    with pytest.raises(AuditError, match="finite embedding, found NaN or inf for image 0 of the tensor"):
        look(encoder, image_set(images, labels), gc_images=0)


class Vertical(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g * torch.inf


def test_infinite_jacobians_end_the_audit_naming_the_image():
    class Steep(TinyNet):
        def features(self, x):
            return Vertical.apply(super().features(x))

    with pytest.raises(AuditError, match="finite Jacobian, found NaN or inf for image"):
        look(load_encoder(ModelRequest(Steep())), image_set())


def test_bad_images_stop_the_pass_or_are_counted(encoder, tmp_path):
    from PIL import Image

    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (9, 9), (number * 40, 90, 0)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "a" / "1.png").write_text("no picture")
    images = open_data(DataRequest(str(tmp_path), "source"))
    with pytest.raises(DataError, match=r"a/1\.png: these bytes are no picture; .*--skip-bad-images"):
        look(encoder, images)
    found = look(encoder, images, skip_bad_images=True)
    assert found.evidence.labels.tolist() == [0, 0, 1, 1, 1]
    assert found.evidence.embeddings.shape == (5, 6)
    assert found.evidence.energy_rows.tolist() == [0, 1, 2, 3, 4]
    assert len(found.digests) == 5
    assert found.warnings[0].message.startswith("1 images could not be decoded and were left out; the first: ")
    for number in range(3):
        (tmp_path / "b" / f"{number}.png").write_text("no picture")
    with pytest.raises(DataError, match=r"none that could be decoded of b; the first: .*a/1\.png: these bytes are no picture"):
        look(encoder, images, skip_bad_images=True)


def test_a_bad_tail_is_not_the_whole_data_set(encoder, tmp_path):
    from PIL import Image

    for number in range(40):
        place = tmp_path / "ab"[number // 20] / f"{number:02}.png"
        place.parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (number, 90, 0)).save(place)
        if number > 35:
            place.write_bytes(place.read_bytes()[:40])
    with pytest.raises(DataError, match="mend or remove it, or pass --skip-bad-images"):
        look(encoder, open_data(DataRequest(str(tmp_path), "source")), gc_images=0, batch_size=4)


def test_where_every_image_fails_none_is_at_fault(encoder):
    images, labels = tiny_images()
    with pytest.raises(
        DataError, match=r"leave Normalize out; so do all [0-9]+ images that were looked at: the data set"
    ) as caught:
        look(encoder, image_set(images * 4 - 2, labels))
    assert "--skip-bad-images" not in str(caught.value)


def test_the_fingerprint_is_of_content_and_classes(encoder):
    images, labels = tiny_images()
    plain = look(encoder, image_set(images, labels), gc_images=0).evidence.fingerprint
    assert look(encoder, image_set(images.clone(), labels), gc_images=0).evidence.fingerprint == plain
    changed = images.clone()
    changed[5, 0, 0, 0] = 1 - changed[5, 0, 0, 0]
    assert look(encoder, image_set(changed, labels), gc_images=0).evidence.fingerprint != plain
    assert look(encoder, image_set(images, labels.flip(0)), gc_images=0).evidence.fingerprint != plain


def test_progress_counts_every_image(encoder):
    seen = []
    observe(Runner(encoder, RunSettings(batch_size=7)), image_set(), PassSettings(), seen.append)
    assert sum(seen) == 48
    assert max(seen) == 7


@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
def test_low_precision_is_near_float32_and_puts_settings_back(encoder, precision):
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
    plain, low = look(encoder, image_set()).evidence, look(encoder, image_set(), precision=precision).evidence
    assert (low.energies.mean() / plain.energies.mean() - 1).abs() < 0.02
    assert (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision) == before


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_of_any_type_run_at_the_precision_asked_for(encoder, kind):
    plain = look(encoder, image_set()).evidence.embeddings
    other = look(load_encoder(ModelRequest(TinyNet().to(kind))), image_set()).evidence.embeddings
    assert other.dtype == torch.float32
    torch.testing.assert_close(other, plain, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("text", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x", "unable to find an engine to execute"])
def test_libraries_that_run_out_of_memory_are_understood(text):
    class Starved(Hungry):
        def forward(self, x):
            if len(x) > self.fits:
                raise RuntimeError(text)
            return super().forward(x)

    found = look(load_encoder(ModelRequest(Starved())), image_set(), batch_size=48)
    assert found.batch_size == 3


def test_a_worker_that_dies_while_the_network_runs_ends_the_audit(encoder, monkeypatch):
    def die(*_arguments, **_options):
        raise RuntimeError("DataLoader worker (pid 7) exited unexpectedly")

    monkeypatch.setattr("gcaudit.passes.runner.Runner.run", die)
    with pytest.raises(AuditError, match="expected the decoding workers to live"):
        look(encoder, image_set())


def test_auto_finds_a_device():
    assert resolve_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps" if not torch.backends.mps.is_available() else "xpu:7"])
def test_devices_that_are_not_there_are_told(name):
    with pytest.raises(RequestError, match="--device auto, cpu or a device of this machine"):
        resolve_device(name)


def test_energies_stop_at_a_look_and_everything_else_goes_on(encoder):
    images = image_set(per_class=150)  # 600 images, looks at 256 and 512
    full = look(encoder, images, gc_rtol=0.0).evidence
    assert len(full.energies) == 600
    assert look(encoder, images, gc_rtol=1e-9).evidence.energy_rows.tolist() == list(range(600))
    for size, workers in ((7, 0), (64, 2), (None, 0)):
        stopped = look(encoder, images, gc_rtol=0.5, batch_size=size, workers=workers).evidence
        assert len(stopped.energies) == 256
        assert torch.equal(stopped.energy_counts(), torch.full((4,), 64))
        torch.testing.assert_close(stopped.energies, full.energies[stopped.energy_rows], rtol=1e-5, atol=0)
        torch.testing.assert_close(stopped.moments.means, full.moments.means, rtol=1e-5, atol=1e-7)
        assert stopped.images == 600


def test_the_rule_is_what_stops(encoder):
    images = image_set(per_class=150)
    found = look(encoder, images, gc_rtol=0.0).evidence
    first, second = energy_segments(images, PassSettings(gc_rtol=0.5), 0)[:2]
    rows = torch.cat([first, second])
    errors = [relative_error(found.energies[part], found.labels[part], 4) for part in (first, rows)]
    assert errors[1] < errors[0]
    between = (errors[0] + errors[1]) / 2
    assert len(look(encoder, images, gc_rtol=between).evidence.energies) == 512
    assert len(look(encoder, images, gc_rtol=1.01 * errors[0]).evidence.energies) == 256


def test_images_that_cannot_be_decoded_do_not_move_the_looks(encoder, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(200):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / name / f"{number:03}.png")
    images = open_data(DataRequest(str(tmp_path), "source"))
    first = energy_segments(images, PassSettings(), 0)[0]
    bad = int(first[3])
    images.reader.paths[int(images.index[bad])].write_text("no picture")
    for size in (7, None):
        found = look(encoder, images, gc_rtol=0.9, skip_bad_images=True, batch_size=size).evidence
        assert len(found.energies) == 255
        assert found.images == 399


def test_a_large_pass_goes_through_a_file_and_gives_the_same(encoder, monkeypatch):
    plain = look(encoder, image_set()).evidence
    monkeypatch.setattr("gcaudit.passes.collector.EmbeddingStore", lambda *shape: EmbeddingStore(*shape, memory_bytes=0))
    filed = look(encoder, image_set()).evidence
    assert isinstance(filed.embeddings, EmbeddingFile)
    assert torch.equal(filed.embeddings[slice(0, 99)], plain.embeddings)
    one, other = (measure_evidence(found, METRICS, ProbeSettings(n_way=2, episodes=9)) for found in (plain, filed))
    assert one == other
    assert one["cdnv"].stderr is not None
    assert one["probe_accuracy"].value is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_what_the_cpu_gives(encoder):
    images = image_set(per_class=150)
    cpu, gpu = (look(encoder, images, device=name, gc_rtol=0.5).evidence for name in ("cpu", "cuda"))
    assert torch.equal(cpu.energy_rows, gpu.energy_rows)
    torch.testing.assert_close(cpu.embeddings, gpu.embeddings, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cpu.energies, gpu.energies, rtol=1e-4, atol=0)
    torch.testing.assert_close(cpu.moments.squares, gpu.moments.squares, rtol=1e-4, atol=0)
    assert torch.equal(cpu.predictions, gpu.predictions)
    assert cpu.fingerprint == gpu.fingerprint
