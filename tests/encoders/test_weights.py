import hashlib

import pytest
import torch
from cases import TinyNet
from torch import nn

from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.placing import places
from gcaudit.encoders.request import ModelRequest
from gcaudit.encoders.weights import Loading, fit_weights, load_weights, resize_head, state_digest
from gcaudit.errors import ArchitectureError


class OwnPrefix(nn.Module):
    """A module whose own names begin like a wrapper's."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.model(x.flatten(1)))


def blank(channels=3, classes=4, **options):
    """A TinyNet of other weights than TinyNet()."""
    return TinyNet(channels=channels, classes=classes, seed=99, **options)


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "chain",
    [
        "",
        "module.",
        "_orig_mod.",
        "model.",
        "backbone.",
        "encoder.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.backbone.encoder.",
        "module." * 6,
    ],
)
def test_wrapper_prefixes_are_stripped(chain):
    module = blank()
    fit, notes = load_weights(module, prefixed(TinyNet().state_dict(), chain), ("head",), Loading())
    assert (fit.prefix, fit.head, notes, fit.complete) == (chain, "fits", [], True)
    assert state_digest(module) == state_digest(TinyNet())


def best_prefix(names, expected):
    """The prefix that names alone say."""
    found = places(dict.fromkeys(names, ()), dict.fromkeys(expected, ()))
    return found[0].prefix if found else ""


@pytest.mark.parametrize("chain", ["", "module.", "model.", "model.model."])
def test_own_names_that_begin_like_a_wrapper_are_kept(chain):
    state = OwnPrefix().state_dict()
    assert best_prefix(prefixed(state, chain), state) == chain


def test_prefix_is_stripped_only_where_keys_then_fit():
    assert best_prefix(["model.a", "model.b"], ["c"]) == ""
    assert best_prefix(["model.a", "b", "c"], ["a", "b", "c"]) == ""
    assert best_prefix(["model.a", "model.b", "c"], ["a", "b", "c"]) == "model."


def test_fitting_changes_nothing():
    module, state = blank(), TinyNet(classes=9).state_dict()
    before = state_digest(module)
    assert fit_weights(module, state, ("head",)).head == "resized"
    assert state_digest(module) == before


@pytest.mark.parametrize("prefix", ["", "module."])
def test_head_of_other_classes_is_resized(prefix):
    module, trained = blank(classes=4), TinyNet(classes=9).eval()
    fit, notes = load_weights(module, prefixed(trained.state_dict(), prefix), ("head",), Loading())
    assert (fit.head, notes) == ("fits", [])
    assert module.head.out_features == 9
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(module.eval()(images), trained(images))


def test_head_without_bias_is_resized():
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    weight = torch.arange(20.0).view(5, 4)
    load_weights(module, {"1.weight": weight}, ("1",), Loading())
    assert module[1].bias is None
    assert torch.equal(module(torch.eye(4)[:, None]), weight.T)


def test_head_inside_a_module_is_resized():
    module = nn.ModuleDict({"top": nn.Sequential(nn.Tanh(), nn.Linear(4, 3))})
    resize_head(module, {"top.1.weight": torch.zeros(7, 4), "top.1.bias": torch.zeros(7)}, "", ("top.1",))
    assert module["top"][1].out_features == 7


def test_head_of_another_kind_is_left_and_counts_as_absent():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 10, 1))
    trained = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    fit, notes = load_weights(module, trained.state_dict(), ("1",), Loading())
    assert (fit.head, [note.first for note in notes]) == ("absent", [("1.weight", "1.bias")])
    assert torch.equal(module[0].weight, trained[0].weight)
    assert module[1].out_channels == 10


def test_head_of_another_width_is_absent():
    module = blank()
    state = TinyNet().state_dict() | {"head.weight": torch.zeros(4, 77)}
    assert load_weights(module, state, ("head",), Loading())[0].head == "absent"


def test_absent_head_leaves_the_rest():
    module, state = blank(), TinyNet().state_dict()
    fit, notes = load_weights(module, {k: v for k, v in state.items() if not k.startswith("head.")}, ("head",), Loading())
    assert (fit.head, fit.missing, notes) == ("absent", (), [])
    assert torch.equal(module.mix.weight, TinyNet().mix.weight)


def test_further_entries_of_the_head_are_passed_over():
    state = TinyNet().state_dict() | {"head.scale": torch.ones(1)}
    assert load_weights(blank(), state, ("head",), Loading())[0].complete


def test_batch_counters_may_be_absent():
    state = {name: tensor for name, tensor in TinyNet().state_dict().items() if "num_batches" not in name}
    assert load_weights(blank(), state, ("head",), Loading())[0].complete


def test_missing_and_unexpected_keys_are_listed():
    state = TinyNet().state_dict()
    del state["conv.bias"]
    state["module.extra"] = torch.ones(1)
    with pytest.raises(ArchitectureError, match=r"missing: conv\.bias; unexpected: module\.extra; .*; --allow-missing leaves"):
        load_weights(blank(), state, ("head",), Loading())


def test_long_lists_are_counted():
    state = TinyNet().state_dict() | {f"extra{n}": torch.ones(1) for n in range(9)}
    with pytest.raises(ArchitectureError, match="unexpected: extra0, extra1, extra2, extra3, extra4 and 4 more;"):
        load_weights(blank(), state, ("head",), Loading())


def test_averaged_models_of_torch_fit():
    averaged = torch.optim.swa_utils.AveragedModel(TinyNet())
    averaged.update_parameters(TinyNet())
    fit, notes = load_weights(blank(), averaged.state_dict(), ("head",), Loading())
    assert (fit.complete, fit.prefix, notes) == (True, "module.", [])


def test_keys_outside_the_prefix_are_told():
    state = prefixed(TinyNet().state_dict(), "module.") | {"neck.conv.weight": torch.ones(1)}
    fit, notes = load_weights(blank(), state, ("head",), Loading())
    assert (fit.prefix, fit.outside, [note.first for note in notes]) == ("module.", ("neck.conv.weight",), [("neck.conv.weight",)])


def test_keys_behind_the_prefix_without_a_place_are_unexpected():
    state = prefixed(TinyNet().state_dict() | {"neck.conv.weight": torch.ones(1)}, "module.")
    with pytest.raises(ArchitectureError, match=r"found unexpected: module\.neck\.conv\.weight;"):
        load_weights(blank(), state, ("head",), Loading())


@pytest.mark.parametrize(
    "prefix", ["net.", "visual.trunk.", "model._orig_mod.module.", "module.base_encoder.", "teacher.backbone."]
)
def test_any_prefix_is_found(prefix):
    module = blank()
    fit, _ = load_weights(module, prefixed(TinyNet().state_dict(), prefix), ("head",), Loading())
    assert (fit.prefix, fit.complete) == (prefix, True)
    assert state_digest(module) == state_digest(TinyNet())


def test_two_networks_in_one_file_are_both_named_and_can_be_chosen():
    first, second = TinyNet(seed=1), TinyNet(seed=2)
    state = prefixed(second.state_dict(), "module.encoder_k.") | prefixed(first.state_dict(), "module.encoder_q.")
    state |= {"module.queue": torch.zeros(4, 4), "module.queue_ptr": torch.tensor([3])}
    module = blank()
    fit, notes = load_weights(module, state, ("head",), Loading())
    assert (fit.prefix, fit.prefixes) == ("module.encoder_q.", ("module.encoder_k.",))
    assert "the names behind module.encoder_q. were taken, those behind module.encoder_k. fit as well; --prefix" in notes[0].message
    assert state_digest(module) == state_digest(first)
    load_weights(module, state, ("head",), Loading(prefix="module.encoder_k."))
    assert state_digest(module) == state_digest(second)


def test_allowed_missing_keys_are_a_warning():
    module, state = blank(), TinyNet().state_dict()
    del state["conv.bias"]
    state["extra"] = torch.ones(1)
    fit, notes = load_weights(module, state, ("head",), Loading(allow_missing=True))
    assert fit.missing == ("conv.bias",)
    assert [note.message for note in notes] == [
        "tensors that are not in the file are left at random: conv.bias",
        "tensors of the file that have no place in the network are left out: extra",
    ]
    assert torch.equal(module.conv.weight, TinyNet().conv.weight)


@pytest.mark.parametrize("allowed", [False, True])
def test_wrong_shape_names_the_tensor(allowed):
    state = prefixed(TinyNet(channels=1).state_dict(), "module.")
    with pytest.raises(
        ArchitectureError, match=r"found wrong shape: module\.conv\.weight \(5, 1, 3, 3\), expected \(5, 3, 3, 3\); "
    ):
        load_weights(blank(), state, ("head",), Loading(allow_missing=allowed))


@pytest.mark.parametrize("allowed", [False, True])
def test_strange_weights_are_refused_whatever_is_allowed(allowed):
    with pytest.raises(ArchitectureError, match=r"missing: .* and [0-9]+ more; unexpected: 0\.weight; no name in the file"):
        load_weights(blank(), {"0.weight": torch.ones(2)}, (), Loading(allow_missing=allowed))


def test_types_of_the_module_are_kept():
    module = blank()
    load_weights(
        module, {name: t.half() if t.is_floating_point() else t for name, t in TinyNet().state_dict().items()}, (), Loading()
    )
    assert module.conv.weight.dtype == torch.float32
    assert torch.equal(module.conv.weight, TinyNet().conv.weight.half().float())


def test_digest_is_of_names_types_shapes_and_bytes():
    module = nn.Linear(1, 1)
    nn.init.ones_(module.weight)
    nn.init.zeros_(module.bias)
    text = b"bias\0torch.float32\0(1,)\0" + bytes(4) + b"weight\0torch.float32\0(1, 1)\0" + b"\x00\x00\x80\x3f"
    assert state_digest(module) == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.conv.weight.data.mul_(1.0001),
        lambda m: m.bn.num_batches_tracked.add_(1),
        lambda m: m.half(),
        lambda m: m.register_buffer("more", torch.tensor(True)),
        lambda m: m.register_buffer("none", torch.zeros(0)),
    ],
)
def test_digest_tells_models_apart(change):
    module = TinyNet()
    before = state_digest(module)
    change(module)
    assert state_digest(module) != before
    assert state_digest(TinyNet()) == before


FACTORY = "from cases import TinyNet\n\n\ndef tiny(**options):\n    return TinyNet(seed=99, **options)\n"


@pytest.fixture
def factory(tmp_path):
    (tmp_path / "nets.py").write_text(FACTORY, encoding="utf-8")
    return f"{tmp_path / 'nets.py'}:tiny"


def test_file_with_another_head_gives_its_logits(tmp_path, factory):
    trained, images = TinyNet(classes=9).eval(), torch.rand(3, 3, 8, 8)
    torch.save({"state_dict": prefixed(trained.state_dict(), "module.")}, tmp_path / "m.pt")
    encoder = load_encoder(ModelRequest(str(tmp_path / "m.pt"), arch=factory))
    embeddings, logits = encoder.encode(images, logits=True)
    assert encoder.head_outputs == 9
    assert torch.allclose(logits, trained(images), atol=1e-6)
    assert torch.allclose(embeddings, trained.features(images), atol=1e-6)
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())
    assert not any(module.training for module in encoder.module.modules())


def test_file_without_a_head_gives_no_logits(tmp_path, factory):
    trained, images = TinyNet().eval(), torch.rand(3, 3, 8, 8)
    torch.save({k: v for k, v in trained.state_dict().items() if not k.startswith("head")}, tmp_path / "m.pt")
    encoder = load_encoder(ModelRequest(str(tmp_path / "m.pt"), arch=factory))
    embeddings, logits = encoder.encode(images, logits=True)
    assert (encoder.head_outputs, logits) == (None, None)
    assert torch.allclose(embeddings, trained.features(images), atol=1e-6)


def test_allowed_missing_keys_reach_the_encoder(tmp_path, factory):
    state = TinyNet().state_dict()
    del state["mix.bias"]
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(ArchitectureError, match=r"missing: mix\.bias; .*--allow-missing leaves what is missing at random"):
        load_encoder(ModelRequest(str(tmp_path / "m.pt"), arch=factory))
    encoder = load_encoder(ModelRequest(str(tmp_path / "m.pt"), arch=factory, allow_missing=True))
    assert [note.message for note in encoder.warnings] == ["tensors that are not in the file are left at random: mix.bias"]


def test_layer_in_the_middle_does_not_make_the_head_a_stranger(tmp_path, factory):
    torch.save(TinyNet(classes=9).state_dict(), tmp_path / "m.pt")
    encoder = load_encoder(ModelRequest(str(tmp_path / "m.pt"), arch=factory, layer="conv"))
    assert (encoder.dim, encoder.head_outputs) == (5, 9)
