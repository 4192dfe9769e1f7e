"""Folders of Hugging Face transformers, made with random weights by that library itself, which is also what their embeddings are compared with."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.errors import ArchitectureError, CheckpointError

transformers = pytest.importorskip("transformers")
SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
STAGES = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "image_size": 32, "patch_size": 2}
WIDE = {"hidden_sizes": [8, 12], "depths": [1, 1], "image_size": 32}
CONFIGS = {
    "ViT": SMALL,
    "DeiT": SMALL,
    "Beit": SMALL,
    "Dinov2": SMALL | {"mlp_ratio": 2},
    "Dinov2WithRegisters": SMALL | {"mlp_ratio": 2},
    "Swin": STAGES,
    "Swinv2": STAGES,
    "ConvNext": WIDE | {"num_stages": 2},
    "ConvNextV2": WIDE | {"num_stages": 2},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_channels": 3},
    "SiglipVision": SMALL,
    "CLIPVision": SMALL,
}
CLASSES = [f"{name}ForImageClassification" for name in CONFIGS if "Vision" not in name] + [f"{name}Model" for name in CONFIGS]
IMAGE = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
PROCESSOR = {
    "size": {"height": 32, "width": 32},
    "image_mean": [0.5] * 3,
    "image_std": [0.25] * 3,
    "resample": 3,
    "do_resize": True,
}


def folder(tmp_path, kind, processor=PROCESSOR, **options):
    made = getattr(transformers, kind)
    family = kind.removesuffix("ForImageClassification").removesuffix("Model")
    torch.manual_seed(3)
    model = made(made.config_class(**CONFIGS[family], num_labels=5)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(tmp_path / "model", **options)
    if processor is not None:
        (tmp_path / "model/preprocessor_config.json").write_text(json.dumps(processor))
    return model, tmp_path / "model"


def theirs(model, kind, pixels):
    """What the model's classifier takes, by the library's own forward."""
    with torch.no_grad():
        if kind.endswith("ForImageClassification"):
            taken = []
            model.classifier.register_forward_pre_hook(lambda _module, inputs: taken.append(inputs[0]))
            head = model.classifier[-1] if isinstance(model.classifier, torch.nn.Sequential) else model.classifier
            head.register_forward_pre_hook(lambda _module, inputs: taken.append(inputs[0]))
            logits = model(pixels).logits
            return taken[-1], logits
        output = model(pixels)
        return (output.last_hidden_state[:, 0] if kind in ("ViTModel", "DeiTModel") else output.pooler_output.flatten(1)), None


@pytest.mark.parametrize("kind", CLASSES)
def test_embeddings_are_those_of_the_library(tmp_path, kind):
    model, path = folder(tmp_path, kind)
    encoder = load_encoder(ModelRequest(path))
    pixels = (IMAGE - 0.5) / 0.25
    wanted, logits = theirs(model, kind, pixels)
    with torch.no_grad():
        found, own = encoder.tap(encoder.module, pixels, logits=True)
    assert encoder.arch == f"transformers:{kind}"
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-6)
    if logits is not None:
        assert torch.allclose(own, logits, rtol=1e-5, atol=1e-6)
    prepared = encoder.preprocessing
    assert (prepared.mean, prepared.std, prepared.interpolation, prepared.crop_mode) == (
        (0.5,) * 3,
        (0.25,) * 3,
        "bicubic",
        "squash",
    )
    assert prepared.assumed == ()


@pytest.mark.parametrize("options", [{"max_shard_size": "10KB"}])
def test_sharded_folder(tmp_path, options):
    model, path = folder(tmp_path, "ViTForImageClassification", **options)
    assert len(list(path.glob("*.safetensors"))) > 1
    encoder = load_encoder(ModelRequest(path))
    with torch.no_grad():
        assert torch.allclose(encoder.module(IMAGE).logits, model(IMAGE).logits, atol=1e-6)


def test_pickled_weights(tmp_path):
    model, path = folder(tmp_path, "ViTForImageClassification")
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    encoder = load_encoder(ModelRequest(path))
    with torch.no_grad():
        assert torch.allclose(encoder.module(IMAGE).logits, model(IMAGE).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}, ((3, 32, 32), 0.8, "center")),
        ({"size": 32, "crop_pct": 0.8, "feature_extractor_type": "ConvNextFeatureExtractor"}, ((3, 32, 32), 0.8, "center")),
        ({"size": {"shortest_edge": 32}, "image_processor_type": "ConvNextImageProcessor"}, ((3, 32, 32), 0.875, "center")),
        ({"size": 32, "feature_extractor_type": "ViTFeatureExtractor"}, ((3, 32, 32), 1.0, "squash")),
        ({"size": {"height": 32, "width": 32}}, ((3, 32, 32), 1.0, "squash")),
    ],
)
def test_processors(tmp_path, said, found):
    _, path = folder(tmp_path, "ViTForImageClassification", processor=said)
    prepared = load_encoder(ModelRequest(path)).preprocessing
    assert (prepared.input_size, prepared.crop_pct, prepared.crop_mode) == (found[0], pytest.approx(found[1]), found[2])


@pytest.mark.parametrize(
    "said",
    [
        {"size": 48, "crop_size": 32, "do_center_crop": True, "image_processor_type": "DeiTImageProcessor"},
        {"size": {"height": 32, "width": 32}, "do_resize": False},
        {"size": {"shortest_edge": 32}},
        {"size": {"height": 10**400, "width": 10**400}, "crop_size": None},
    ],
)
def test_what_timm_has_no_words_for_is_assumed_and_told(tmp_path, said):
    _, path = folder(tmp_path, "ViTForImageClassification", processor=said | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    assert "crop_pct" in load_encoder(ModelRequest(path)).preprocessing.assumed


@pytest.mark.parametrize(
    "change", [{"num_labels": 2 * 10**8}, {"hidden_size": 10**30}, {"id2label": dict.fromkeys(map(str, range(60_000)), "x")}]
)
def test_configurations_without_bounds_are_refused(tmp_path, change):
    _, path = folder(tmp_path, "ViTForImageClassification")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ArchitectureError, match="expected a configuration of ViTForImageClassification with"):
        load_encoder(ModelRequest(path))


def test_code_of_a_hub_is_not_asked_for(tmp_path):
    model, path = folder(tmp_path, "ViTForImageClassification")
    config = json.loads((path / "config.json").read_text())
    asked = {"_attn_implementation": "someone/kernel", "attn_implementation": "someone/kernel", "_name_or_path": "someone/model"}
    (path / "config.json").write_text(json.dumps(config | asked))
    with torch.no_grad():
        assert torch.allclose(load_encoder(ModelRequest(path)).module(IMAGE).logits, model(IMAGE).logits, atol=1e-6)


def test_processor_with_another_scale_is_refused(tmp_path):
    _, path = folder(tmp_path, "ViTForImageClassification", processor=PROCESSOR | {"rescale_factor": 1 / 127.5})
    with pytest.raises(CheckpointError, match=r"expected pixels divided by 255, found rescale_factor 0\.0078"):
        load_encoder(ModelRequest(path))


def test_without_a_processor_the_preprocessing_is_assumed(tmp_path):
    _, path = folder(tmp_path, "ResNetForImageClassification", processor=None)
    assert {"mean", "std"} <= set(load_encoder(ModelRequest(path)).preprocessing.assumed)


def test_other_classes_are_refused_by_name(tmp_path):
    _, path = folder(tmp_path, "ViTForImageClassification")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"architectures": ["ViTMAEForPreTraining"]}))
    with pytest.raises(ArchitectureError, match="found ViTMAEForPreTraining; pass a module from Python"):
        load_encoder(ModelRequest(path))


def test_code_of_the_folder_is_not_run(tmp_path):
    model, path = folder(tmp_path, "ViTForImageClassification")
    touched = tmp_path / "touched"
    (path / "evil.py").write_text(f"open({str(touched)!r}, 'w')")
    config = json.loads((path / "config.json").read_text())
    mapping = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model"}
    (path / "config.json").write_text(json.dumps(config | {"auto_map": mapping, "trust_remote_code": True}))
    encoder = load_encoder(ModelRequest(path))
    with torch.no_grad():
        assert torch.allclose(encoder.module(IMAGE).logits, model(IMAGE).logits, atol=1e-6)
    assert not touched.exists()


def test_quantised_models_are_refused(tmp_path):
    _, path = folder(tmp_path, "ViTForImageClassification")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(ArchitectureError, match="found a quantised ViTForImageClassification"):
        load_encoder(ModelRequest(path))


def test_a_network_larger_than_the_file_is_refused(tmp_path):
    _, path = folder(tmp_path, "ViTForImageClassification")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"hidden_size": 20_000, "intermediate_size": 60_000}))
    with pytest.raises(ArchitectureError, match="expected a network of up to"):
        load_encoder(ModelRequest(path))


def test_missing_weights_are_named(tmp_path):
    _, path = folder(tmp_path, "ViTForImageClassification")
    tensors = load_file(path / "model.safetensors")
    del tensors["vit.layernorm.weight"]
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArchitectureError, match=r"missing: vit\.layernorm\.weight"):
        load_encoder(ModelRequest(path))


def test_timms_names_are_not_theirs(tmp_path):
    _, path = folder(tmp_path, "ViTForImageClassification")
    with pytest.raises(
        ArchitectureError,
        match=r"a checkpoint of transformers \(ViTForImageClassification\), whose names are not those of timm:test_vit",
    ):
        load_encoder(ModelRequest(path, arch="timm:test_vit"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache, with no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache, name, revision, files):
    """Lay files into the cache as the hub's client does: blobs, and links to them by revision."""
    root = cache / f"models--{name.replace('/', '--')}"
    commit = f"{len(list(cache.glob('*/refs/*'))):040x}"
    snapshot = root / "snapshots" / commit
    for folder in (root / "blobs", root / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(commit)
    for file in files.iterdir():
        blob = root / "blobs" / f"{commit}-{file.name}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(blob)


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
def test_repositories_of_the_hub_are_read_from_its_cache_by_revision(tmp_path, cache, shards):
    config = transformers.ViTConfig(**SMALL)
    networks = {revision: transformers.ViTForImageClassification(config).eval() for revision in ("main", "v1.0")}
    for revision, network in networks.items():
        network.save_pretrained(tmp_path / revision, max_shard_size=shards)
        put(cache, "org/repo", revision, tmp_path / revision)
    image = torch.rand(1, 3, 32, 32)
    for spec, network in (("hf-hub:org/repo", networks["main"]), ("hf-hub:org/repo@v1.0", networks["v1.0"])):
        encoder = load_encoder(ModelRequest(spec))
        with torch.no_grad():
            wanted = network.vit(image).last_hidden_state[:, 0]
            torch.testing.assert_close(encoder.tap(encoder.module, image)[0], wanted)
        assert (encoder.spec, encoder.arch) == (spec, "transformers:ViTForImageClassification")
    with pytest.raises(ArchitectureError, match="expected to fetch the published weights of hf-hub:org/repo@v2"):
        load_encoder(ModelRequest("hf-hub:org/repo@v2"))


def test_repositories_of_timm_are_read_from_the_cache_by_timm(tmp_path, cache):
    import timm

    network = timm.create_model("test_vit", num_classes=3).eval()
    network.pretrained_cfg["mean"] = (0.4, 0.4, 0.4)
    timm.models.save_for_hf(network, tmp_path / "files", safe_serialization=True)
    put(cache, "org/timm", "main", tmp_path / "files")
    encoder = load_encoder(ModelRequest("hf-hub:org/timm"))
    assert (encoder.preprocessing.mean, encoder.head_outputs) == ((0.4, 0.4, 0.4), 3)
    image = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(encoder.tap(encoder.module, image, logits=True)[1], network(image))


@pytest.mark.parametrize(
    ("config", "kind", "told"),
    [
        ("{oops", CheckpointError, "config.json: expected JSON: "),
        ('["architecture"]', CheckpointError, "config.json: expected a JSON object, found a list"),
        ('{"model_type": "vit"}', ArchitectureError, "hf-hub:org/odd: expected weights beside config.json, found none there"),
    ],
)
def test_odd_repositories_of_the_hub_are_one_line(tmp_path, cache, config, kind, told):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "config.json").write_text(config)
    put(cache, "org/odd", "main", tmp_path / "files")
    with pytest.raises(kind, match=told):
        load_encoder(ModelRequest("hf-hub:org/odd"))
