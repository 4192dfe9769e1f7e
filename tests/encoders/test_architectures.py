import json
import sys
import urllib.parse
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from gcaudit.bundled.files import bundled_path
from gcaudit.encoders.architectures import build_architecture, describe_module, known_names, published_names
from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.errors import ArchitectureError, CheckpointError, RequestError

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "cifar_resnet.py")


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """The hub's client and torch's own, with no network and a cache of one's own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def refuse(spec, pattern, kind=ArchitectureError, **options):
    with pytest.raises(kind, match=pattern) as caught:
        load_encoder(ModelRequest(str(spec), **options))
    assert caught.value.exit_code == 2
    assert str(caught.value).isprintable()
    return str(caught.value)


def saved(path, content):
    torch.save(content, path)
    return str(path)


def test_bare_names():
    assert known_names("resnet50") == ["timm:resnet50", "torchvision:resnet50"]
    assert known_names("resnet50.a1_in1k") == ["timm:resnet50.a1_in1k"]
    assert known_names("vit_b_16") == ["torchvision:vit_b_16"]
    assert known_names("convmixer_768_32") == ["timm:convmixer_768_32"]
    assert known_names("fasterrcnn_resnet50_fpn") == []
    assert known_names("") == []


def test_names_of_published_weights(monkeypatch):
    assert published_names("timm:test_vit?.*") == ["timm:test_vit2.r160_in1k", "timm:test_vit3.r160_in1k"]
    assert timm.is_model("resnet50t")  # timm has no weights of it
    assert published_names("timm:resnet50t*") == []
    resnets = ["torchvision:resnet101", "torchvision:resnet152", "torchvision:resnet18"]
    assert published_names("torchvision:resnet1*") == resnets
    assert published_names("torchvision:fasterrcnn*") == []
    weights = torchvision.models.get_model_weights
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: [] if name == "resnet152" else weights(name))
    assert published_names("torchvision:resnet1*") == [resnets[0], resnets[2]]


@pytest.mark.parametrize("hint", ["shufflenet_v2_x0_5", "timm:test_resnet", "torchvision:shufflenet_v2_x0_5", "test_resnet"])
def test_hint_names_the_architecture(tmp_path, hint):
    name = hint if ":" in hint else known_names(hint)[0]
    state = build_architecture(name, {}).module.state_dict()
    encoder = load_encoder(ModelRequest(saved(tmp_path / "m.pt", {"state_dict": state, "arch": hint})))
    assert encoder.arch == name
    # the file names the architecture and says nothing of preprocessing, which is then that of published weights
    assert [warning.kind for warning in encoder.warnings] == ["preprocessing"]


def test_timm_comes_before_torchvision(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    encoder = load_encoder(ModelRequest(saved(tmp_path / "m.pt", {"state_dict": state, "arch": "resnet18"})))
    assert encoder.arch == "timm:resnet18"


def test_torchvision_is_taken_when_only_its_keys_fit(tmp_path):
    state = torchvision.models.efficientnet_b0().state_dict()
    args = {"model": "efficientnet_b0", "in_chans": 3}
    encoder = load_encoder(ModelRequest(saved(tmp_path / "m.pt", {"state_dict": state, "args": args})))
    assert encoder.arch == "torchvision:efficientnet_b0"
    assert encoder.dim == 1280


def test_hint_whose_keys_fit_neither_is_told_of_the_first(tmp_path):
    message = refuse(saved(tmp_path / "m.pt", {"state_dict": {"w": torch.ones(1)}, "arch": "resnet18"}), "weights that fit")
    assert "missing: conv1.weight" in message
    assert "unexpected: w" in message


@pytest.mark.parametrize("hint", ["my_net", "hf-hub:org/repo", "nets.py:make", "os:getcwd", "timm"])
def test_hint_of_no_known_architecture(tmp_path, hint):
    path = saved(tmp_path / "m.pt", {"state_dict": {"w": torch.ones(1)}, "arch": hint})
    refuse(
        path,
        f"expected an architecture of timm or torchvision, found '{hint}' in the checkpoint's arch; name yours with --arch FILE",
    )


@pytest.mark.parametrize("hint", ["timm:hf-hub:org/repo", "timm:nets.py:make", "timm:local-dir:/tmp"])
def test_prefixed_hint_reaches_no_further_than_timm(tmp_path, hint):
    path = saved(tmp_path / "m.pt", {"state_dict": {"w": torch.ones(1)}, "arch": hint})
    refuse(path, f"expected a model of timm, found '{hint}'")


def test_no_hint(tmp_path):
    path = saved(tmp_path / "m.pt", {"a": torch.ones(1), "b": torch.ones(1)})
    refuse(
        path,
        "expected the checkpoint to name its architecture, or names and shapes of one of timm .*, found 2 tensors of neither; add --arch timm:NAME, torchvision:NAME",
    )


def test_arch_typed_comes_before_the_hint(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    path = saved(tmp_path / "m.pt", {"state_dict": state, "arch": "resnet18"})
    assert load_encoder(ModelRequest(path, arch="timm:test_resnet")).arch == "timm:test_resnet"


def test_arguments_in_the_file_are_passed_on_and_may_be_overridden(tmp_path):
    args = {"model": "test_vit", "model_kwargs": {"num_classes": 3}, "in_chans": 1, "img_size": 32}
    state = timm.create_model("test_vit", num_classes=3, in_chans=1, img_size=96).state_dict()
    path = saved(tmp_path / "m.pt", {"state_dict": state, "args": args})
    encoder = load_encoder(ModelRequest(path, arch_args={"img_size": 96}, changes={"input_size": (96, 96)}))
    assert encoder.preprocessing.input_size == (1, 96, 96)
    assert encoder.head_outputs == 3


@pytest.mark.parametrize("name", ["checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"])
def test_file_cannot_ask_for_other_files(tmp_path, name):
    args = {"model": "test_resnet", "model_kwargs": {name: str(tmp_path / "other.pt")}}
    state = timm.create_model("test_resnet").state_dict()
    path = saved(tmp_path / "m.pt", {"state_dict": state, "args": args})
    assert load_encoder(ModelRequest(path)).arch == "timm:test_resnet"


def test_arguments_in_the_file_are_not_for_other_factories(tmp_path):
    state = build_architecture(f"{EXAMPLE}:resnet20", {}).module.state_dict()
    path = saved(tmp_path / "m.pt", {"state_dict": state, "args": {"model": "resnet20", "in_chans": 3}})
    assert load_encoder(ModelRequest(path, arch=f"{EXAMPLE}:resnet20")).dim == 64


def test_bundled_model_is_called_demo():
    encoder = load_encoder(ModelRequest("demo"))
    assert encoder.arch == "timm:test_resnet"
    assert encoder.preprocessing.input_size == (1, 28, 28)
    assert (encoder.head_outputs, encoder.warnings, encoder.preprocessing.origin) == (5, (), "checkpoint")
    assert encoder.sha256 == load_encoder(ModelRequest(str(bundled_path("demo-model")))).sha256


def test_factory_in_a_file(tmp_path):
    trained = build_architecture(f"{EXAMPLE}:resnet20", {"num_classes": 7}).module
    state = {f"module.{name}": tensor for name, tensor in trained.state_dict().items()}
    encoder = load_encoder(
        ModelRequest(saved(tmp_path / "m.th", {"state_dict": state, "best_prec1": 0.9}), arch=f"{EXAMPLE}:resnet20")
    )
    assert (encoder.arch, encoder.dim, encoder.head_outputs) == (f"{EXAMPLE}:resnet20", 64, 7)
    assert encoder.preprocessing.input_size == (3, 32, 32)
    assert encoder.preprocessing.std == (0.229, 0.224, 0.225)
    assert encoder.warnings == ()
    assert encoder.tap.describe() == "input of linear"


def test_public_cifar_resnet(shared):
    encoder = load_encoder(ModelRequest(str(shared / "checkpoints" / "cifar10_resnet20.th"), arch=f"{EXAMPLE}:resnet20"))
    assert (encoder.dim, encoder.head_outputs, encoder.warnings, encoder.parameters) == (64, 10, (), 269722)


def test_factory_in_a_package(tmp_path, monkeypatch):
    (tmp_path / "lab_of_mine").mkdir()
    (tmp_path / "lab_of_mine" / "nets.py").write_text("from torch import nn\n\n\ndef make(dim): return nn.Linear(dim, 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    built = build_architecture("lab_of_mine.nets:make", {"dim": 5})
    assert (built.family, built.module.in_features, built.name) == ("custom", 5, "lab_of_mine.nets:make")


def test_factory_class_is_a_factory():
    assert isinstance(build_architecture("torch.nn:Identity", {}).module, nn.Identity)


@pytest.mark.parametrize("stem", ["timm", "random", "json"])
def test_file_does_not_take_the_place_of_a_module_of_its_name(tmp_path, stem):
    before = sys.modules.get(stem)
    (tmp_path / f"{stem}.py").write_text("from torch import nn\n\n\ndef make(): return nn.Identity()\n")
    build_architecture(f"{tmp_path / stem}.py:make", {})
    assert sys.modules.get(stem) is before


def test_file_may_hold_dataclasses(tmp_path):
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n\n\n"
        "@dataclass\nclass Config:\n    dim: int = 3\n\n\ndef make(): return nn.Linear(Config().dim, 2)\n"
    )
    (tmp_path / "nets.py").write_text(text)
    assert build_architecture(f"{tmp_path / 'nets.py'}:make", {}).module.in_features == 3


FILE = """
from torch import nn

value = 3


def make(dim): return nn.Linear(dim, 2)


def number(): return 7


def broken(): raise RuntimeError("no\\nluck")


def _hidden(): pass
"""


@pytest.mark.parametrize(
    ("name", "arguments", "pattern"),
    [
        ("{file}:nothing", {}, r"expected a function 'nothing' in .*nets.py, found make, number, broken"),
        ("{file}:value", {}, r"expected a function 'value' in .*nets.py, found make"),
        ("{file}:number", {}, r"expected .*nets.py:number to return a torch\.nn\.Module, found a int"),
        ("{file}:make", {}, r"expected .*nets.py:make to be built from no arguments: TypeError: .*'dim'; see --arch-arg"),
        ("{file}:make", {"depth": 2}, r"to be built from depth=2: TypeError: .*'depth'; see --arch-arg"),
        ("{file}:broken", {}, r"RuntimeError: no luck; see --arch-arg"),
        ("{folder}/other.py:make", {}, r"expected the factory's file at .*other.py, found none; check --arch"),
        ("{folder}/raises.py:make", {}, r"expected to import '.*raises.py': ValueError: two lines"),
        ("{folder}/syntax.py:make", {}, r"expected to import '.*syntax.py': SyntaxError: "),
        (
            "{folder}/needs.py:make",
            {},
            r"expected to import '.*needs.py' for --arch .*: No module named 'nowhere_at_all'; is it installed\?",
        ),
        (
            "nowhere_at_all.nets:make",
            {},
            r"expected to import 'nowhere_at_all.nets' for --arch nowhere_at_all.nets:make: .*installed",
        ),
        ("json.decoder:nothing", {}, r"expected a function 'nothing' in json.decoder, found py_scanstring, JSONObject, JSONArray"),
        ("gcaudit.bundled.nowhere:f", {}, r"is it installed\?"),
        ("torch.version:nothing", {}, r"expected a function 'nothing' in torch.version, found no functions"),
        (":make", {}, r"expected to import '': ValueError"),
    ],
)
def test_wrong_factory(tmp_path, name, arguments, pattern):
    (tmp_path / "nets.py").write_text(FILE)
    (tmp_path / "raises.py").write_text("raise ValueError('two\\nlines')")
    (tmp_path / "syntax.py").write_text("def make(:")
    (tmp_path / "needs.py").write_text("import nowhere_at_all")
    with pytest.raises(ArchitectureError, match=pattern) as caught:
        build_architecture(name.format(file=tmp_path / "nets.py", folder=tmp_path), arguments)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["resnet50", "timm:", "nets.py", "", "C:/models/nets", "C:\\models"])
def test_arch_without_a_prefix(name):
    with pytest.raises(
        ArchitectureError, match=r"expected --arch timm:NAME, torchvision:NAME, FILE\.py:FACTORY or package\.module:FACTORY"
    ):
        build_architecture(name, {})


def test_arch_without_a_prefix_is_told_the_readings():
    with pytest.raises(ArchitectureError, match=r"found 'resnet50'; did you mean timm:resnet50 or torchvision:resnet50\?"):
        build_architecture("resnet50", {})


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("timm:resnt18", r"expected a model of timm, found 'timm:resnt18'; did you mean resnet18, .*\?"),
        ("timm:resnt18.a1_in1k", r"expected a model of timm, found 'timm:resnt18.a1_in1k'; did you mean resnet18, .*\?"),
        ("timm:qqqqqqqq", r"found 'timm:qqqqqqqq'; see timm's list_models\(\)"),
        ("torchvision:resnt18", r"expected a model of torchvision, found 'torchvision:resnt18'; did you mean resnet18, .*\?"),
        ("torchvision:fasterrcnn_resnet50_fpn", "expected a model of torchvision, found"),
        ("torchvision:qqqqqqqq", r"found 'torchvision:qqqqqqqq'; see torchvision's list_models\(\)"),
        ("torchvision:resnet50:IMAGENET1K_V9", r"torchvision's resnet50 \(IMAGENET1K_V1, IMAGENET1K_V2\), found 'IMAGENET1K_V9'"),
        ("timm:resnet18.nothing", r"expected weights of timm's resnet18 \(a1_in1k, .*tv_in1k\), found 'nothing'"),
        ("timm:test_resnet.nothing", r"expected weights of timm's test_resnet \(r160_in1k\), found 'nothing'"),
        ("timm:resnet51q.ra2_in1k.x", r"found 'ra2_in1k.x'"),
        ("timm:resnet20ts.nothing", r"expected a model of timm|it has none"),
    ],
)
def test_published_name_that_is_unknown(name, pattern):
    refuse(name, pattern)


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:shufflenet_v2_x0_5"])
def test_arguments_the_model_does_not_take(name):
    with pytest.raises(ArchitectureError, match=f"expected {name} to be built from colour='red': .*; see --arch-arg"):
        build_architecture(name, {"colour": "red"})


def test_arguments_of_timm():
    built = build_architecture("timm:test_vit", {"in_chans": 1, "num_classes": 3, "img_size": 64})
    assert (built.channels, built.config["input_size"], built.module.num_classes) == (1, (3, 64, 64), 3)
    assert not built.module.training


def test_arguments_of_torchvision():
    assert build_architecture("torchvision:shufflenet_v2_x0_5", {"num_classes": 3}).module.fc.out_features == 3


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("torchvision:vit_b_16", {}, 224),
        ("torchvision:vit_b_16:IMAGENET1K_SWAG_E2E_V1", {}, 384),
        ("torchvision:vit_b_16:IMAGENET1K_SWAG_LINEAR_V1", {}, 224),
        ("torchvision:vit_b_16:IMAGENET1K_SWAG_E2E_V1", {"image_size": 64}, 64),
    ],
)
def test_vision_transformer_of_torchvision_takes_the_size_of_its_weights(name, arguments, size):
    with torch.device("meta"):
        built = build_architecture(name, arguments)
    assert built.config["input_size"] == (3, size, size)
    assert built.module.image_size == size


@pytest.mark.parametrize("name", ["torchvision:googlenet", "torchvision:inception_v3"])
def test_torchvision_models_that_warn_of_their_own_weights(name):
    built = build_architecture(name, {})
    assert built.config["input_size"][0] == 3
    assert not built.module.training


def test_torchvision_preprocessing_follows_the_weights():
    first, second = (build_architecture(f"torchvision:resnet50:IMAGENET1K_V{n}", {}).config for n in (1, 2))
    assert (first["input_size"], second["input_size"]) == ((3, 224, 224),) * 2
    assert (first["crop_pct"], second["crop_pct"]) == (224 / 256, 224 / 232)
    assert build_architecture("torchvision:resnet50", {}).config == second


@pytest.mark.parametrize(
    ("spec", "pattern"),
    [
        ("org/repo", "found no file 'org/repo'; for a model of the hub type hf-hub:org/repo, for a file check the path"),
        ("resnet50", "found no file 'resnet50'; for a published model type timm:resnet50 or torchvision:resnet50"),
        ("vit_b_16", "found no file 'vit_b_16'; for a published model type torchvision:vit_b_16"),
        ("my_net", "found no file 'my_net'; for a published model type timm:my_net or torchvision:my_net"),
        ("runs/1/best", "found no file 'runs/1/best'"),
        ("best.pth", r"expected a checkpoint at best\.pth, found nothing there; check the path"),
        ("runs/best.safetensors", "expected a checkpoint at .*, found nothing there"),
        ("./runs", "expected a checkpoint at runs, found nothing there"),
        ("/nowhere/at/all", "expected a checkpoint at /nowhere/at/all, found nothing there"),
    ],
)
def test_bare_model_that_is_no_file(tmp_path, monkeypatch, spec, pattern):
    monkeypatch.chdir(tmp_path)
    refuse(spec, pattern, kind=CheckpointError)


@pytest.mark.parametrize("spec", ["timm:test_resnet", "torchvision:resnet18", "hf-hub:org/repo"])
def test_published_model_takes_no_arch(spec):
    refuse(spec, f"expected --arch with a file only, found it with {spec}; drop --arch", kind=RequestError, arch="timm:resnet18")


@pytest.mark.parametrize("spec", ["timm:resnet18", "timm:resnet18.tv_in1k", "hf-hub:org/repo", "hf-hub:org/repo@v1.0"])
def test_published_weights_that_are_not_in_the_cache(offline, spec):
    message = refuse(
        spec,
        f"expected to fetch the published weights of {spec}, found .*; (check the name|try again), or.* fetch the file elsewhere",
    )
    assert len(message) < 450


def test_damaged_torchvision_weights_in_the_cache(offline):
    url = torchvision.models.get_model_weights("shufflenet_v2_x0_5")["DEFAULT"].url
    folder = offline / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / Path(urllib.parse.urlsplit(url).path).name).write_bytes(b"PK")
    refuse("torchvision:shufflenet_v2_x0_5", "expected to fetch the published weights of torchvision:shufflenet_v2_x0_5, found ")


def test_torchvision_weights_in_the_cache(offline):
    trained = torchvision.models.shufflenet_v2_x0_5()
    url = torchvision.models.get_model_weights("shufflenet_v2_x0_5")["DEFAULT"].url
    folder = offline / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(trained.state_dict(), folder / Path(urllib.parse.urlsplit(url).path).name)
    encoder = load_encoder(ModelRequest("torchvision:shufflenet_v2_x0_5:IMAGENET1K_V1"))
    assert (encoder.arch, encoder.dim, encoder.head_outputs) == ("torchvision:shufflenet_v2_x0_5:IMAGENET1K_V1", 1024, 1000)
    assert torch.equal(encoder.module.fc.weight, trained.fc.weight)
    assert encoder.warnings == ()


CONFIG = {
    "architecture": "test_resnet",
    "num_classes": 7,
    "model_args": {"in_chans": 1},
    "pretrained_cfg": {
        "input_size": [1, 64, 64],
        "mean": [0.4],
        "std": [0.2],
        "interpolation": "bilinear",
        "crop_pct": 0.9,
        "first_conv": "conv1.0",
        "classifier": "fc",
    },
}


def hub_cache(root, repo, config, tensors):
    """Lay a repository out as the hub's client does."""
    folder, commit = root / f"models--{repo.replace('/', '--')}", "0123456789abcdef" * 2 + "01234567"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    (snapshot / "config.json").write_text(json.dumps(config))
    save_file(tensors, snapshot / "model.safetensors")
    return snapshot


@pytest.mark.parametrize("revision", ["", "@main"])
def test_hub_model_in_the_cache(offline, revision):
    trained = timm.create_model("test_resnet", num_classes=7, in_chans=1).eval()
    hub_cache(offline / "hub", "org/repo", CONFIG, trained.state_dict())
    encoder = load_encoder(ModelRequest(f"hf-hub:org/repo{revision}"))
    assert (encoder.arch, encoder.dim, encoder.head_outputs) == (f"hf-hub:org/repo{revision}", 96, 7)
    found = encoder.preprocessing
    assert (found.input_size, found.mean, found.std, found.crop_pct) == ((1, 64, 64), (0.4,), (0.2,), 0.9)
    assert (found.interpolation, found.assumed, encoder.warnings) == ("bilinear", (), ())
    images = torch.rand(2, 1, 64, 64)
    assert torch.allclose(encoder.encode(images, logits=True)[1], trained(images), atol=1e-6)


def test_snapshot_of_the_hub_is_read_the_same_as_a_folder(offline):
    trained = timm.create_model("test_resnet", num_classes=7, in_chans=1)
    snapshot = hub_cache(offline / "hub", "org/repo", CONFIG, trained.state_dict())
    of_folder, of_hub = load_encoder(ModelRequest(str(snapshot))), load_encoder(ModelRequest("hf-hub:org/repo"))
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(of_folder.embed(images), of_hub.embed(images))
    assert of_folder.preprocessing.input_size == of_hub.preprocessing.input_size


def test_hub_architecture_for_a_file(offline, tmp_path):
    trained = timm.create_model("test_resnet", num_classes=7, in_chans=1)
    hub_cache(offline / "hub", "org/repo", CONFIG, timm.create_model("test_resnet", num_classes=7, in_chans=1).state_dict())
    encoder = load_encoder(ModelRequest(saved(tmp_path / "m.pt", trained.state_dict()), arch="hf-hub:org/repo"))
    assert torch.equal(encoder.module.fc.weight, trained.fc.weight)
    refuse(
        saved(tmp_path / "m.pt", trained.state_dict()), "expected to fetch the published weights of hf-hub:a/b", arch="hf-hub:a/b"
    )


def test_module_of_timm_is_recognised():
    assert describe_module("mine", timm.create_model("test_resnet")).family == "timm"
    assert describe_module("mine", nn.Linear(1, 1)).family == "custom"


@pytest.mark.parametrize(
    ("module", "channels"),
    [
        (nn.Conv2d(1, 4, 3), 1),
        (nn.Sequential(nn.Identity(), nn.Conv2d(5, 4, 3), nn.Conv2d(4, 2, 3)), 5),
        (nn.Conv2d(4, 4, 3, groups=4), None),
        (nn.Linear(4, 4), None),
    ],
)
def test_channels_are_those_of_the_first_convolution(module, channels):
    assert describe_module("mine", module).channels == channels


@pytest.mark.parametrize(("config", "known"), [({"mean": (0.5,), "std": None}, {"mean": (0.5,)}), (None, {}), ("text", {})])
def test_preprocessing_of_a_module(config, known):
    module = nn.Conv2d(1, 2, 3)
    module.pretrained_cfg = config
    assert describe_module("mine", module).config == known
    module.pretrained_cfg, module.default_cfg = None, config
    assert describe_module("mine", module).config == known
