"""Errors name the likeliest cause for the evidence at hand."""

import argparse

import pytest
import timm
import torch
from cases import TinyNet
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from gcaudit.encoders.causes import image_cause
from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.encoders.weights import Loading, load_weights
from gcaudit.errors import ArchitectureError, GcauditError


class WithPositions(nn.Module):
    """A network of no library with position embeddings."""

    def __init__(self, tokens):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, 3))


def renamed(state):
    return {f"vit.encoder.{number}": tensor for number, tensor in enumerate(state.values())}


def part(state):
    return {name: tensor for name, tensor in state.items() if name.startswith(("conv", "bn"))}


def widened(state):
    return state | {"mix.weight": torch.ones(7, 80), "mix.bias": torch.ones(7)}


def deeper(state):
    return widened(state) | {f"blocks.{number}.weight": torch.ones(3) for number in range(9)}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (renamed, "no name in the file is one of the network's: it holds another architecture, or names of another library"),
        (part, "[0-9]+% of the weights are not in the file, which may hold a part of the network only"),
        (widened, "the names fit and the shapes do not: another variant of the architecture is meant"),
        (deeper, "10 names fit, 8 of them with their shapes: another variant of the architecture may be meant"),
        (
            lambda _: TinyNet(channels=1).state_dict(),
            r"training used images of 1 channels; build it so \(timm: --arch-arg in_chans=1\)",
        ),
    ],
)
@pytest.mark.parametrize("allowed", [False, True])
def test_weights_that_do_not_fit(change, cause, allowed):
    state = {name: tensor for name, tensor in TinyNet().state_dict().items() if "num_batches" not in name}
    with pytest.raises(ArchitectureError, match=cause) as caught:
        load_weights(TinyNet(seed=1), change(state), ("head",), Loading(allow_missing=allowed))
    assert "--allow-missing" not in str(caught.value)


def test_position_embeddings_of_another_input_size_are_resampled_as_timm_does():
    state = timm.create_model("test_vit", img_size=96).state_dict()
    module, other = timm.create_model("test_vit"), timm.create_model("test_vit")
    fit, notes = load_weights(module, state, ("head",), Loading())
    other.load_state_dict(checkpoint_filter_fn(dict(state), other))
    assert fit.complete
    assert torch.equal(module.pos_embed, other.pos_embed)
    (note,) = notes
    assert note.first == (f"pos_embed from 1x{96 // 16 * 96 // 16 + 1}x64 to 1x{160 // 16 * 160 // 16 + 1}x64",)
    assert "resampled to the network's grid" in note.message
    assert "--arch-arg img_size=N" in note.message


def test_position_embeddings_of_other_networks_are_refused():
    with pytest.raises(ArchitectureError, match=r"only position embeddings differ: .*--arch-arg img_size=N"):
        load_weights(WithPositions(5), WithPositions(3).state_dict(), ("head",), Loading())


@pytest.mark.parametrize(
    ("lost", "spare", "advice"),
    [
        (True, False, "--allow-missing leaves what is missing at random$"),
        (False, True, "--allow-missing leaves out what is unexpected$"),
        (True, True, "--allow-missing leaves what is missing at random and leaves out what is unexpected$"),
    ],
)
def test_a_little_less_or_more_than_the_network(lost, spare, advice):
    state = TinyNet().state_dict()
    if lost:
        del state["mix.bias"]
    if spare:
        state["extra"] = torch.ones(1)
    with pytest.raises(ArchitectureError, match=advice):
        load_weights(TinyNet(seed=1), state, ("head",), Loading())


class Picky(nn.Module):
    """A network that refuses images in its own way."""

    def __init__(self, refuse):
        super().__init__()
        self.refuse, self.head = refuse, nn.Linear(4, 2)

    def forward(self, x):
        self.refuse(x)
        return self.head(torch.ones(len(x), 4) * x.mean())


def only(*shape):
    def refuse(x):
        if tuple(x.shape[1:]) != shape:
            raise ValueError(f"not {shape}")

    return refuse


def broken(_x):
    raise KeyError("tokens")


def full(_x):
    raise RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    )


@pytest.mark.parametrize(
    ("refuse", "cause"),
    [
        (only(3, 96, 96), r"found ValueError: not \(3, 96, 96\); it takes one of 3x96x96; pass --input-size 96x96$"),
        (only(1, 224, 224), r"it takes 1 channels; give the module an attribute pretrained_cfg with input_size=\(1, 224, 224\)$"),
        (broken, "found KeyError: 'tokens'; it takes none of the customary sizes either, so that its own code is at fault"),
        (full, "memory ran out; pass a smaller --input-size$"),
    ],
)
def test_images_that_are_not_taken(refuse, cause):
    with pytest.raises(ArchitectureError, match=cause):
        load_encoder(ModelRequest(Picky(refuse)))


def test_the_size_is_not_blamed_where_it_is_taken():
    cause = image_cause((3, 8, 8), ValueError("no"), (3, 16, 16), lambda _size: True)
    assert cause == "its embedding cannot be taken of it, though it takes the image; name another --layer"


def test_a_size_that_the_checkpoint_says_is_tried_first(tmp_path):
    options = argparse.Namespace(model="test_vit", input_size=[3, 160, 160])
    torch.save({"state_dict": timm.create_model("test_vit").state_dict(), "args": options}, tmp_path / "m.pt")
    with pytest.raises(ArchitectureError, match=r"it takes one of 3x160x160; pass --input-size 160x160$"):
        load_encoder(ModelRequest(str(tmp_path / "m.pt"), changes={"input_size": (100, 100)}))


def test_the_architectures_own_size_is_tried_first():
    with pytest.raises(ArchitectureError, match=r"it takes one of 3x160x160; pass --input-size 160x160$"):
        load_encoder(ModelRequest(timm.create_model("test_vit"), changes={"input_size": (100, 100)}))


@pytest.mark.parametrize(
    ("arch", "options", "told"),
    [
        ("test_resnet", {"in_chans": 10**9}, "expected arguments of a network of up to 65536, found in_chans=1000000000"),
        ("vit_tiny_patch16_224", {"model_kwargs": {"depth": 10**9}}, "found depth=1000000000; pass --arch-arg"),
        (
            "vit_tiny_patch16_224",
            {"model_kwargs": {"depth": 5000}},
            "expected a network of up to 50000002 numbers, as the file may fill",
        ),
        ("vit_tiny_patch16_224", {"model_kwargs": {"embed_dim": 60000}}, "as the file may fill"),
        ("test_resnet", {"input_size": [10**9, 32, 32]}, "found an input of 1000000000 channels"),
        ("test_resnet", {"input_size": [3, 8192, 8192]}, "expected an input of up to 4194304 pixels, found 8192 x 8192"),
        ("eva02_enormous_patch14_clip_224", {}, "as the file may fill"),
    ],
)
def test_files_that_name_networks_without_end(tmp_path, arch, options, told):
    content = {"state_dict": {"w": torch.ones(1)}, "args": argparse.Namespace(model=arch, **options)}
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(GcauditError, match=told):
        load_encoder(ModelRequest(str(tmp_path / "m.pt")))


def test_a_network_that_a_user_names_is_built(tmp_path):
    torch.save({"state_dict": timm.create_model("test_resnet").state_dict()}, tmp_path / "m.pt")
    assert load_encoder(ModelRequest(str(tmp_path / "m.pt"), arch="timm:test_resnet")).parameters > 0
    with pytest.raises(ArchitectureError, match="expected a network of up to 1000 numbers"):
        load_encoder(ModelRequest(str(tmp_path / "m.pt"), arch="timm:test_resnet", max_parameters=1000))
