"""The penalty against the Jacobian itself, in float64, in all the ways that networks are trained."""

import os
import sys
from pathlib import Path

import pytest
import torch
from processes import finished
from torch import nn
from torch.nn.functional import cross_entropy

import gcaudit
from gcaudit.errors import ArchitectureError, RequestError
from gcaudit.regularizers import GeometricComplexity


def network(*, norm=False, dropout=0.0, activation=nn.Tanh, dtype=torch.float64):
    torch.manual_seed(0)
    middle = [nn.BatchNorm2d(4)] if norm else []
    layers = [nn.Conv2d(3, 4, 3, padding=1), *middle, activation(), nn.Dropout(dropout), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(16, 6), activation(), nn.Linear(6, 3)).to(dtype)


def pictures(count=3, dtype=torch.float64, size=5):
    return torch.randn(count, 3, size, size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def without_running(model):
    """The same network as a function of its parameters, without a trace in its running statistics."""
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def true_complexity(model, images, part, *, together):
    """(1/B) of the squared norm of the Jacobian: of each image by itself, or of the batch as a whole."""
    embed = model[:part] if part else model
    buffers = without_running(embed)

    def call(inputs):
        return torch.func.functional_call(embed, {k: v.clone() for k, v in buffers.items()}, (inputs,))

    if together:
        return torch.autograd.functional.jacobian(call, images, create_graph=True).square().sum() / len(images)
    found = [torch.autograd.functional.jacobian(call, image[None], create_graph=True).square().sum() for image in images]
    return torch.stack(found).mean()


def gradients(value, model):
    return [torch.zeros_like(p) if g is None else g for p, g in zip(
        model.parameters(), torch.autograd.grad(value, list(model.parameters()), allow_unused=True), strict=True
    )]  # fmt: skip


def assert_alike(found, truth, **tolerance):
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.mark.parametrize(("layer", "part"), [(None, -1), ("logits", None), ("5", 6), ("0", 1)])
def test_all_dimensions_are_the_penalty_itself(layer, part):
    model, images = network(), pictures()
    outputs, found = GeometricComplexity(0.5, layer, vectors="all")(model, images)
    torch.testing.assert_close(outputs, model(images))
    if layer == "0":  # maps are averaged over positions
        model_of = nn.Sequential(model[0], nn.AdaptiveAvgPool2d(1), nn.Flatten())
        truth = true_complexity(model_of, images, None, together=False)
    else:
        truth = true_complexity(model, images, part, together=False)
    torch.testing.assert_close(found, 0.5 * truth, **EXACT)
    assert_alike(gradients(found, model), gradients(0.5 * truth, model), **EXACT)


class Attention(nn.Module):
    """Pixels as tokens, one head of attention, and a classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.take, self.fc = nn.Linear(3, 12), nn.Linear(4, 2)

    def embed(self, x):
        queries, keys, values = self.take(x.flatten(2).mT)[:, None].chunk(3, -1)
        return nn.functional.scaled_dot_product_attention(queries, keys, values)[:, 0].mean(1)

    def forward(self, x):
        return self.fc(self.embed(x))


@pytest.mark.parametrize("frozen", [False, True])
def test_attention_has_a_second_derivative(frozen):
    model, images = Attention().double(), pictures()
    _, found = GeometricComplexity(1.0, vectors="all", frozen_statistics=frozen)(model, images)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        truth = torch.stack([
            torch.autograd.functional.jacobian(model.embed, image[None], create_graph=True).square().sum() for image in images
        ]).mean()  # fmt: skip
    torch.testing.assert_close(found, truth, **EXACT)
    assert_alike(gradients(found, model), gradients(truth, model), **EXACT)


def test_one_random_vector_is_unbiased_in_value_and_gradient():
    model, images = network(), pictures()
    truth = true_complexity(model, images, -1, together=False)
    expected = torch.cat([g.flatten() for g in gradients(truth, model)])
    penalty = GeometricComplexity(1.0, generator=torch.Generator().manual_seed(0))
    values, slopes = [], []
    for _ in range(600):
        _, value = penalty(model, images)
        values.append(value.detach())
        slopes.append(torch.cat([g.flatten() for g in gradients(value, model)]))
    for drawn, wanted in ((torch.stack(values)[:, None], truth.detach()[None]), (torch.stack(slopes), expected)):
        error = drawn.std(0) / len(drawn) ** 0.5
        assert ((drawn.mean(0) - wanted).abs() <= 4.5 * error + 1e-12).all()
    assert torch.stack(values).std() > 0
    many = GeometricComplexity(1.0, vectors=8, generator=torch.Generator().manual_seed(0))
    spread = torch.stack([many(model, images)[1].detach() for _ in range(200)]).std()
    assert spread < 0.6 * torch.stack(values).std()  # 8 ** -0.5 is 0.35


def test_the_penalty_is_that_of_an_audit():
    model, images = network(dtype=torch.float32).eval(), pictures(8, torch.float32)
    _, found = GeometricComplexity(1.0, vectors="all")(model, images)
    exact = gcaudit.energies(model[:-1], images, estimator="exact")
    torch.testing.assert_close(found.detach().double(), torch.as_tensor(exact.mean()).double(), rtol=1e-5, atol=1e-7)
    std = (0.2, 0.3, 0.4)
    _, scaled = GeometricComplexity(1.0, vectors="all", std=std)(model, images)
    pixel = gcaudit.energies(
        lambda x: model[:-1](x / torch.tensor(std).view(3, 1, 1)), images * torch.tensor(std).view(3, 1, 1), estimator="exact"
    )
    torch.testing.assert_close(scaled.detach().double(), torch.as_tensor(pixel.mean()).double(), rtol=1e-5, atol=1e-7)


def test_in_train_mode_a_batch_norm_makes_it_that_of_the_batch_and_frozen_statistics_that_of_the_images():
    model, images = network(norm=True), pictures(4)
    for _ in range(20):
        model(pictures(16) * 3 + 1)
    before = without_running(model)
    _, found = GeometricComplexity(1.0, vectors="all")(model, images)
    after = without_running(model)
    truth = true_complexity(model, images, -1, together=True)
    torch.testing.assert_close(found, truth, **EXACT)
    assert_alike(gradients(found, model), gradients(truth, model), **EXACT)
    assert not torch.equal(before["1.running_mean"], after["1.running_mean"])  # the pass was the network's own
    assert int(after["1.num_batches_tracked"]) == int(before["1.num_batches_tracked"]) + 1
    outputs, frozen = GeometricComplexity(1.0, vectors="all", frozen_statistics=True)(model, images)
    assert model[1].training
    model.eval()
    alone = true_complexity(model, images, -1, together=False)
    torch.testing.assert_close(frozen, alone, **EXACT)
    assert_alike(gradients(frozen, model), gradients(alone, model), **EXACT)
    assert not torch.allclose(outputs, model(images))  # which are those of train mode


def test_random_vectors_see_the_jacobian_of_the_batch_as_well():
    model, images = network(norm=True), pictures(4)
    truth = true_complexity(model, images, -1, together=True).detach()
    penalty = GeometricComplexity(1.0, generator=torch.Generator().manual_seed(3))
    drawn = torch.stack([penalty(model, images)[1].detach() for _ in range(500)])
    assert abs(drawn.mean() - truth) <= 4 * drawn.std() / len(drawn) ** 0.5


def test_a_finite_step_is_off_by_the_square_of_the_step():
    model, images = network(), pictures(2)
    truth = true_complexity(model, images, -1, together=False).detach()

    errors = {}
    for step in (0.2, 0.1, 0.05):
        found, linear = [], []
        for seed in range(300):
            for sign in (1, -1):
                generator = torch.Generator().manual_seed(seed)
                direction = torch.randn(images.shape, dtype=images.dtype, generator=generator)
                generator = torch.Generator().manual_seed(seed)
                penalty = GeometricComplexity(1.0, method="finite-step", step=step, generator=generator)
                penalty.step *= sign  # each direction with either sign, so that odd terms cancel as they do in the mean
                found.append(penalty(model, images)[1].detach())
                _, along = torch.autograd.functional.jvp(model[:-1], images, direction)
                linear.append(along.square().sum() / len(images))
        errors[step] = float((torch.stack(found) - torch.stack(linear)).mean())
        assert abs(torch.stack(linear).mean() - truth) <= 4.5 * torch.stack(linear)[::2].std() / 300**0.5
    assert errors[0.2] / errors[0.1] == pytest.approx(4, rel=0.1)
    assert errors[0.1] / errors[0.05] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_finite_step_keeps_dropout_and_leaves_no_trace(frozen):
    model, images = network(norm=True, dropout=0.5), pictures(4)
    state, before = torch.get_rng_state(), without_running(model)
    penalty = GeometricComplexity(
        1.0, method="finite-step", step=1e-4, frozen_statistics=frozen, generator=torch.Generator().manual_seed(2)
    )
    outputs, found = penalty(model, images)
    assert found < 10 * true_complexity(model.eval(), images, -1, together=False)  # other masks would make it 1e8 times as large
    found.backward()
    kept, random = without_running(model), torch.get_rng_state()
    model.train()
    model.load_state_dict({**model.state_dict(), **before})
    torch.set_rng_state(state)
    torch.testing.assert_close(outputs, model(images))
    for name, buffer in without_running(model).items():
        torch.testing.assert_close(kept[name], buffer)
    if not frozen:
        assert torch.equal(random, torch.get_rng_state())


def test_finite_step_gradients_are_those_of_the_exact_penalty_in_the_limit():
    model, images = network(), pictures(2)
    wanted = torch.cat([g.flatten() for g in gradients(true_complexity(model, images, None, together=False), model)])
    penalty = GeometricComplexity(1.0, "logits", method="finite-step", step=1e-4, generator=torch.Generator().manual_seed(0))
    drawn = torch.stack([torch.cat([g.flatten() for g in gradients(penalty(model, images)[1], model)]) for _ in range(600)])
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - wanted).abs() <= 4.5 * error + 1e-3 * wanted.abs().max()).all()


@pytest.mark.parametrize("method", ["exact", "finite-step"])
def test_it_works_under_autocast(method):
    model, images = network(norm=True, dtype=torch.float32), pictures(8, torch.float32)
    plain = GeometricComplexity(1.0, method=method, step=0.3, vectors=64, generator=torch.Generator().manual_seed(0))(
        model, images
    )[1].item()
    with torch.autocast("cpu", torch.bfloat16):
        penalty = GeometricComplexity(1.0, method=method, step=0.3, vectors=64, generator=torch.Generator().manual_seed(0))
        outputs, found = penalty(model, images)
        loss = cross_entropy(outputs, torch.zeros(8, dtype=torch.long)) + found
    assert outputs.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(plain, rel=0.1)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("layer", [None, "logits"])
@pytest.mark.parametrize("method", ["exact", "finite-step"])
def test_a_compiled_network_has_the_same_penalty(method, layer):
    model, images = network(dtype=torch.float32), pictures(4, torch.float32)

    def penalty():
        return GeometricComplexity(1.0, layer, method=method, generator=torch.Generator().manual_seed(0))

    outputs, wanted = penalty()(model, images)
    compiled = torch.compile(model, backend="aot_eager")
    others, found = penalty()(compiled, images)
    torch.testing.assert_close(others, outputs)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
    assert_alike(gradients(found, model), gradients(wanted, model), rtol=2e-3, atol=1e-4)


DDP = """
import sys
import torch
import torch.distributed as dist
from torch import nn
sys.path[:0] = [sys.argv[4], sys.argv[4] + "/.."]
from test_regularizers import network, pictures
from gcaudit.regularizers import GeometricComplexity
rank, method = int(sys.argv[1]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
model = nn.parallel.DistributedDataParallel(network(norm=method == "frozen"))
own = pictures(4)[2 * rank : 2 * rank + 2]
options = {"vectors": "all"} if method != "finite-step" else {"method": method, "generator": torch.Generator().manual_seed(rank)}
penalty = GeometricComplexity(0.1, frozen_statistics=method == "frozen", **options)
for _ in range(2):
    model.zero_grad()
    outputs, value = penalty(model, own)
    (outputs.square().mean() + value).backward()
torch.save([p.grad for p in model.parameters()], f"{sys.argv[2]}.{rank}")
dist.destroy_process_group()
"""


@pytest.mark.parametrize("method", ["exact", "frozen", "finite-step"])
def test_data_parallel_processes_have_the_gradient_of_all_images(tmp_path, method):
    from concurrent.futures import ThreadPoolExecutor

    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    commands = [
        [sys.executable, "-c", DDP, str(rank), str(tmp_path / "meet"), method, str(Path(__file__).parent)] for rank in range(2)
    ]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda command: finished(command, env=environment), commands))
    assert [each.returncode for each in done] == [0, 0], done[0].stderr
    first, second = (torch.load(tmp_path / f"meet.{rank}") for rank in range(2))
    assert_alike(first, second)
    if method != "exact":
        return
    model, images = network(), pictures(4)
    halves = [model(part).square().mean() + 0.1 * true_complexity(model, part, -1, together=False) for part in images.split(2)]
    assert_alike(first, gradients(sum(halves) / 2, model), **EXACT)


def test_schedules():
    model, images = network(), pictures()

    def strengths(calls, **options):
        penalty = GeometricComplexity(2.0, vectors="all", **options)
        unit = GeometricComplexity(1.0, vectors="all")(model, images)[1].item()
        return [penalty(model, images)[1].item() / unit for _ in range(calls)]

    assert strengths(3) == pytest.approx([2, 2, 2])
    assert strengths(6, warmup=4) == pytest.approx([0, 0.5, 1, 1.5, 2, 2])
    assert strengths(5, every=2) == pytest.approx([4, 0, 4, 0, 4])
    first, second = (GeometricComplexity(2.0, warmup=4) for _ in range(2))
    for _ in range(3):
        first(model, images)
    second.load_state_dict(first.state_dict())
    assert second.steps == 3
    assert second._strength() == 1.5
    outputs, nothing = GeometricComplexity(0.0)(model, images)
    assert (float(nothing), nothing.requires_grad) == (0.0, False)
    (outputs.sum() + nothing).backward()


def test_what_cannot_be_penalised_is_told():
    model, images = network(), pictures()
    for options, message in (
        ({"weight": -1}, "expected weight of at least 0, found -1"),
        ({"weight": float("nan")}, "expected weight"),
        ({"every": 0}, "expected every of at least 1"),
        ({"method": "taylor"}, "a method of exact or finite-step"),
        ({"vectors": 0}, "vectors of at least 1, or 'all'"),
        ({"vectors": "every"}, "vectors of at least 1, or 'all'"),
        ({"method": "finite-step", "step": 0}, "a step above 0"),
        ({"method": "finite-step", "vectors": "all"}, "a number of vectors and a step above 0"),
    ):
        with pytest.raises(RequestError, match=message):
            GeometricComplexity(**{"weight": 1.0, **options})
    with pytest.raises(ArchitectureError, match="expected the name of a layer, found 'fc'"):
        GeometricComplexity(1.0, "fc")(model, images)
    with torch.no_grad(), pytest.raises(RequestError, match="leave no_grad out"):
        GeometricComplexity(1.0)(model, images)


def test_it_is_there_under_its_public_name():
    assert gcaudit.regularizers.GeometricComplexity is GeometricComplexity
    assert "regularizers" in dir(gcaudit)


def test_images_that_have_a_graph_of_their_own_keep_it():
    model = network()
    brightness = torch.ones((), dtype=torch.float64, requires_grad=True)
    outputs, penalty = GeometricComplexity(1.0)(model, pictures() * brightness)
    (outputs.sum() + penalty).backward()
    assert brightness.grad is not None
