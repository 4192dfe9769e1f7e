"""The architecture of files that do not name it."""

import time

import pytest
import timm
import torch
import torchvision
from torch import nn

from gcaudit.encoders import identification
from gcaudit.encoders.architectures import build_architecture
from gcaudit.encoders.fingerprint import Table, fingerprint, identify, in_head, known_fingerprints, prefixes_of
from gcaudit.encoders.identification import identified, installed_versions
from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.placing import shapes_of
from gcaudit.encoders.request import ModelRequest
from gcaudit.errors import ArchitectureError

IMAGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
needs_same_versions = pytest.mark.skipif(
    known_fingerprints().versions != installed_versions(), reason="the table is of other versions of timm or torchvision"
)


def network(name, **options):
    torch.manual_seed(1)
    return timm.create_model(name, **options).eval()


def saved(tmp_path, tensors):
    torch.save(tensors, tmp_path / "m.pth")
    return tmp_path / "m.pth"


def behind(prefix, module, head=("fc",)):
    return {prefix + name: tensor for name, tensor in module.state_dict().items() if not in_head(name, head)}


def test_fingerprints_do_not_depend_on_order_or_head():
    shapes = {"a.weight": (2, 3), "b.weight": (3,), "fc.weight": (5, 3), "fc.bias": (5,)}
    assert fingerprint(shapes, ("fc",)) == fingerprint({"b.weight": (3,), "a.weight": (2, 3), "fc.weight": (9, 3)}, ("fc",))
    for other in ({"a.weight": (3, 2), "b.weight": (3,)}, {"a.weight": (2, 3)}, {"a.weight": (2, 3), "c.weight": (3,)}):
        assert fingerprint(shapes, ("fc",)) != fingerprint(other, ("fc",))


def test_names_are_grouped_by_all_prefixes():
    assert prefixes_of(["a.b.c", "a.d", "e"]) == {"": ["a.b.c", "a.d", "e"], "a.": ["a.b.c", "a.d"], "a.b.": ["a.b.c"]}


def test_two_networks_in_one_file_are_two_matches():
    one = {f"a.{name}": shape for name, shape in shapes_of(network("test_resnet")).items()}
    other = {f"b.{name}": shape for name, shape in shapes_of(network("test_vit")).items()}
    found = identify(one | other, known_fingerprints())
    assert {(match.prefix, match.groups[0][0]) for match in found} == {("a.", "timm:test_resnet"), ("b.", "timm:test_vit")}


@needs_same_versions
@pytest.mark.parametrize("prefix", ["", "module.", "net.backbone.", "model._orig_mod.module."])
@pytest.mark.parametrize("arch", [None, "auto"])
def test_a_bare_file_is_read_with_nothing_else_said(tmp_path, prefix, arch):
    model = network("test_resnet")
    encoder = load_encoder(ModelRequest(saved(tmp_path, behind(prefix, model)), arch=arch))
    assert encoder.arch == "timm:test_resnet"
    with torch.no_grad():
        assert torch.equal(
            encoder.tap(encoder.module, IMAGE)[0], model.forward_head(model.forward_features(IMAGE), pre_logits=True)
        )
    assert "by names and shapes it is timm:test_resnet" in " ".join(warning.message for warning in encoder.warnings)


@needs_same_versions
@pytest.mark.parametrize(("name", "classes"), [("test_resnet", 7), ("test_vit", 3), ("resnetv2_50", 5)])
def test_the_number_of_classes_is_the_files(tmp_path, name, classes):
    model = network(name, num_classes=classes)
    encoder = load_encoder(ModelRequest(saved(tmp_path, model.state_dict())))
    assert (encoder.arch, encoder.head_outputs) == (f"timm:{name}", classes)
    size = encoder.preprocessing.input_size
    with torch.no_grad():
        image = torch.rand(1, *size, generator=torch.Generator().manual_seed(2))
        assert torch.equal(encoder.tap(encoder.module, image, logits=True)[1], model(image))


@needs_same_versions
def test_weights_are_found_among_other_things(tmp_path):
    content = {"discriminator": {"layer.weight": torch.ones(9, 9, 9, 99)}, "generator": {"net": network("test_vit").state_dict()}}
    encoder = load_encoder(ModelRequest(saved(tmp_path, content)))
    assert (encoder.arch, encoder.checkpoint.container) == ("timm:test_vit", "generator.net")


@needs_same_versions
def test_what_computes_the_same_counts_as_one_and_timm_comes_first(tmp_path):
    encoder = load_encoder(ModelRequest(saved(tmp_path, torchvision.models.wide_resnet50_2().state_dict())))
    assert encoder.arch == "timm:wide_resnet50_2"
    (told,) = [warning.message for warning in encoder.warnings if "by names and shapes" in warning.message]
    assert "torchvision:wide_resnet50_2" in told


@needs_same_versions
def test_what_computes_other_things_is_listed_and_nothing_is_guessed(tmp_path):
    path = saved(tmp_path, network("tf_efficientnet_lite0").state_dict())
    with pytest.raises(ArchitectureError) as caught:
        load_encoder(ModelRequest(path))
    message = str(caught.value)
    assert "--arch timm:efficientnet_lite0 (224x224, mean 0.485)" in message
    assert "--arch timm:tf_efficientnet_lite0 (224x224, mean 0.5, Conv2dSame)" in message
    assert load_encoder(ModelRequest(path, arch="timm:tf_efficientnet_lite0")).arch == "timm:tf_efficientnet_lite0"


def test_what_is_no_architecture_is_told(tmp_path):
    path = saved(tmp_path, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5)).state_dict())
    with pytest.raises(
        ArchitectureError, match=r"found 6 tensors of neither; add --arch timm:NAME, torchvision:NAME or FILE\.py:FACTORY"
    ):
        load_encoder(ModelRequest(path))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_other_versions_than_the_tables_are_built_in_its_place(monkeypatch, name):
    empty = Table({"timm": "0.1", "torchvision": "0.1"}, (), {}, frozenset())
    monkeypatch.setattr(identification, "known_fingerprints", lambda: empty)
    monkeypatch.setattr(timm, "list_models", lambda: ["test_vit", "test_resnet", "test_efficientnet"])
    found = identified(shapes_of(network(name)), "m.pth")
    assert found.name == f"timm:{name}"
    assert "the table of architectures is of timm 0.1, torchvision 0.1; 3 of 3 of timm" in found.warnings[-1].message


def test_building_in_the_tables_place_ends_in_time(monkeypatch):
    empty = Table({"timm": "0.1", "torchvision": "0.1"}, (), {}, frozenset())
    monkeypatch.setattr(identification, "known_fingerprints", lambda: empty)
    monkeypatch.setattr(identification, "_SECONDS", -1.0)
    with pytest.raises(
        ArchitectureError, match=r"; the table of architectures is of timm 0\.1, torchvision 0\.1; 0 of \d+ of timm"
    ):
        identified(shapes_of(network("test_vit")), "m.pth")


def outcome(name):
    """Take an architecture's backbone behind a prefix without its head, and say what is made of it, and how long that took."""
    try:
        with torch.device("meta"):
            module = build_architecture(name, {}).module
    except ArchitectureError:  # torchvision's regnets, which draw their sizes from tensors
        module = build_architecture(name, {}).module
    shapes, table = shapes_of(module), known_fingerprints()
    heads = [head for place, head in enumerate(table.heads) if (place, fingerprint(shapes, head)) in table.groups]
    given = {f"student.net.{key}": shape for key, shape in shapes.items() if not in_head(key, heads[0])}
    start = time.perf_counter()
    groups = {group for match in identify(given, table) for group in match.groups}
    seconds = time.perf_counter() - start
    right = any(name in group for group in groups)
    return "wrong" if not right else "alone" if len(groups) == 1 else "tie", seconds


@needs_same_versions
@pytest.mark.parametrize(
    "name", ["timm:resnet50", "timm:vit_base_patch16_224", "timm:swin_tiny_patch4_window7_224", "torchvision:vgg11_bn"]
)
def test_backbones_are_identified(name):
    assert outcome(name)[0] in ("alone", "tie")


@pytest.mark.slow
@needs_same_versions
def test_no_architecture_is_taken_for_another():
    found = {name: outcome(name) for name in sorted(known_fingerprints().names)}
    assert not [name for name, (what, _) in found.items() if what == "wrong"]
    assert sum(what == "alone" for what, _ in found.values()) / len(found) > 0.8
