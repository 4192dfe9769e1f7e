"""One network in every way that people save it: containers, prefixes, formats, extras, damage; what comes of each.

Where it is read, its embedding is that of plain timm on the same weights.
"""

import argparse
import bz2
import collections
import datetime
import enum
import functools
import itertools
import json
import pathlib
import re
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from gcaudit.encoders.loading import load_encoder
from gcaudit.encoders.request import ModelRequest
from gcaudit.errors import GcauditError

ARCH = "test_resnet"
IMAGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))


class Phase(enum.Enum):
    LAST = 2


@functools.cache
def network(seed=1):
    torch.manual_seed(seed)
    model = timm.create_model(ARCH, num_classes=7).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape) * (1 if "var" in name else 0.5))
    return model


@functools.cache
def wanted():
    model = network()
    with torch.no_grad():
        return model.forward_head(model.forward_features(IMAGE), pre_logits=True)


def weights(seed=1):
    return {name: tensor.clone() for name, tensor in network(seed).state_dict().items()}


def behind(prefix, seed=1):
    return {prefix + name: tensor for name, tensor in weights(seed).items()}


def saved(content, legacy=False):
    def write(folder):
        torch.save(content() if callable(content) else content, folder / "m.pth", _use_new_zipfile_serialization=not legacy)
        return folder / "m.pth"

    return write


def within(**beside):
    """The weights as `state_dict` with other things beside them."""
    return saved(lambda: {"state_dict": weights(), **beside})


def tensors(path, content, metadata=None):
    path.parent.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in content.items()}, path, metadata)


def safe(folder):
    tensors(folder / "m.safetensors", weights())
    return folder / "m.safetensors"


def tied(folder):
    """safetensors' way to say that one tensor has two names."""
    tensors(folder / "m.safetensors", weights(), {"format": "pt", "another.name": "fc.weight"})
    return folder / "m.safetensors"


def timm_folder(folder):
    tensors(folder / "hub/model.safetensors", weights())
    config = {
        "architecture": ARCH,
        "num_classes": 7,
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 64, 64]},
    }
    (folder / "hub/config.json").write_text(json.dumps(config))
    return folder / "hub"


def shards(suffix):
    def write(folder):
        (folder / "hub").mkdir()
        parts = [{}, {}]
        for number, (name, tensor) in enumerate(weights().items()):
            parts[number % 2][name] = tensor
        names = [f"model-0000{number + 1}-of-00002.{suffix}" for number in range(2)]
        for part, name in zip(parts, names, strict=True):
            save_file(part, folder / "hub" / name) if suffix == "safetensors" else torch.save(part, folder / "hub" / name)
        stem = "model.safetensors" if suffix == "safetensors" else "pytorch_model.bin"
        index = {name: names[number % 2] for number, name in enumerate(weights())}
        (folder / f"hub/{stem}.index.json").write_text(json.dumps({"weight_map": index}))
        return folder / "hub"

    return write


def tarred(mode, name="runs/m.pth"):
    def write(folder):
        path = saved(weights)(folder)
        with tarfile.open(folder / "m.tar", mode) as archive:
            archive.add(path, name)
            archive.add(__file__, "runs/readme.txt")
        return folder / "m.tar"

    return write


def zipped(kind, *names):
    def write(folder):
        path = safe(folder)
        with zipfile.ZipFile(folder / "m.zip", "w", kind) as archive:
            for name in names:
                archive.write(path, name)
        return folder / "m.zip"

    return write


def zip_in_zip(folder):
    inner = zipped(zipfile.ZIP_STORED, "m.safetensors")(folder)
    with zipfile.ZipFile(folder / "outer.zip", "w") as archive:
        archive.write(inner, "m.pth")
    return folder / "outer.zip"


def bomb(folder):
    with zipfile.ZipFile(folder / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.pth", b"\0" * 2**26)
    return folder / "m.zip"


def cast(kind):
    return saved(lambda: {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in weights().items()})


def shared():
    """All tensors in one storage, one of them transposed."""
    whole = torch.cat([tensor.double().flatten() for tensor in weights().values()]).float()
    found, place = {}, 0
    for name, tensor in weights().items():
        found[name] = whole[place : place + tensor.numel()].view(tensor.shape)
        place += tensor.numel()
    found["fc.weight"] = weights()["fc.weight"].T.contiguous().T
    return found


def without(name):
    return saved(lambda: {key: tensor for key, tensor in weights().items() if key != name})


def broken(**changes):
    return saved(lambda: weights() | changes)


def quantised(folder):
    whole = torch.quantize_per_tensor(torch.ones(7, 8), 0.1, 0, torch.qint8)
    return broken(**{"fc.weight": whole})(folder)


def cut(folder):
    path = saved(weights)(folder)
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def checkpointed():
    """Names as activation checkpointing, FSDP and torch.compile put their own into them."""
    words = ("_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod")
    return {
        f"{name.partition('.')[0]}.{words[number % 3]}.{name.partition('.')[2]}": tensor
        for number, (name, tensor) in enumerate(weights().items())
    }


OPTIONS = argparse.Namespace(lr=0.1, out=pathlib.Path("runs"), when=datetime.date(2026, 1, 2), phase=Phase.LAST)
READ = {
    # containers
    "bare": saved(weights),
    "OrderedDict with metadata": saved(lambda: network().state_dict()),
    "state_dict": within(),
    "model": saved(lambda: {"model": weights(), "epoch": 3}),
    "model_state_dict beside a loss": saved(lambda: {"model_state_dict": weights(), "loss": torch.tensor(0.3)}),
    "params": saved(lambda: {"params": weights()}),
    "weights": saved(lambda: {"weights": weights()}),
    "generator": saved(lambda: {"generator": weights()}),
    "three keys deep": saved(lambda: {"a": {"b": {"c": weights()}}}),
    "teacher and student": saved(lambda: {"student": behind("module.", 2), "teacher": behind("module.")}),
    "model and its average": saved(lambda: {"model": weights(), "model_ema": weights(2)}),
    "beside an optimizer": within(optimizer={"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}),
    "Lightning": saved(lambda: {"state_dict": behind("net."), "hyper_parameters": {"lr": 0.1}, "pytorch-lightning_version": "2.4"}),
    "DeepSpeed": saved(lambda: {"module": weights(), "dp_world_size": 2, "ds_config": {"train_batch_size": 8}}),
    "AveragedModel": saved(lambda: torch.optim.swa_utils.AveragedModel(network()).state_dict()),
    # prefixes
    "module.": saved(lambda: behind("module.")),
    "model._orig_mod.module.": saved(lambda: behind("model._orig_mod.module.")),
    "net.backbone.": saved(lambda: behind("net.backbone.")),
    "base_encoder.": saved(lambda: behind("base_encoder.")),
    "visual.trunk. beside a text tower": saved(lambda: behind("visual.trunk.") | {"text.weight": torch.ones(2, 2)}),
    "resnet.": saved(lambda: behind("resnet.")),
    "MoCo": saved(lambda: behind("module.encoder_q.") | behind("module.encoder_k.", 2) | {"module.queue": torch.ones(2, 2)}),
    "wrappers inside of names": saved(checkpointed),
    # formats
    "legacy": saved(weights, legacy=True),
    "safetensors": safe,
    "safetensors with tied names": tied,
    "timm folder": timm_folder,
    "sharded safetensors": shards("safetensors"),
    "sharded bin": shards("bin"),
    "tar": tarred("w"),
    "tar.gz": tarred("w:gz"),
    "zip of one file": zipped(zipfile.ZIP_STORED, "a/m.safetensors"),
    "packed zip of one file": zipped(zipfile.ZIP_DEFLATED, "m.safetensors", "license.txt"),
    "float16": cast(torch.float16),
    "bfloat16": cast(torch.bfloat16),
    "float64": cast(torch.float64),
    "one storage": saved(shared),
    # extras
    "Namespace of anything": within(args=OPTIONS),
    "numpy": within(best=np.float64(0.9), curve=np.arange(4.0), seed=np.int64(3)),
    "paths, dates, enums": within(out=pathlib.Path("x"), when=datetime.datetime(2026, 1, 2), phase=Phase.LAST),
    "partial": within(norm=functools.partial(torch.nn.LayerNorm, eps=1e-6)),
    "counters": broken(n_averaged=torch.tensor(9), queue_ptr=torch.tensor([3])),
    "sets and counters": within(seen={1, 2}, counts=collections.Counter(a=1), grid=collections.defaultdict(list)),
    "random states": within(rng=torch.random.get_rng_state(), numpy_rng=np.random.RandomState(0).get_state()),
    # less or more than the network
    "without the head": saved(lambda: {name: tensor for name, tensor in weights().items() if not name.startswith("fc.")}),
    "without counters": saved(lambda: {name: tensor for name, tensor in weights().items() if "num_batches" not in name}),
    "with a projector": broken(**{"projector.0.weight": torch.ones(3, 3)}),
}
REFUSED = {
    "zip of two files": (
        zipped(zipfile.ZIP_STORED, "a.safetensors", "b.safetensors"),
        "an archive of one weight file, found a.safetensors, b",
    ),
    "zip in a zip": (zip_in_zip, "found another zip archive"),
    "zip that unpacks to far more": (bomb, r"refused: \d+ bytes that unpack to 67108864"),
    "tar of none": (tarred("w", "runs/m.txt"), "an archive of one weight file, found none"),
    "truncated": (cut, "truncated or damaged zip"),
    "a tensor is missing": (without("layer1.0.bn1.weight"), r"missing: layer1\.0\.bn1\.weight"),
    "a tensor has another shape": (broken(**{"conv1.0.weight": torch.ones(1, 2, 3, 4)}), r"wrong shape: conv1\.0\.weight"),
    "a tensor too many": (broken(**{"layer9.weight": torch.ones(2)}), r"unexpected: layer9\.weight"),
    "not a number": (broken(**{"fc.bias": torch.full((7,), torch.nan)}), "expected finite weights, found 7 NaN"),
    "whole numbers": (cast(torch.int8), "found int8 in .*: quantised or packed weights"),
    "float8": (cast(torch.float8_e4m3fn), "found float8_e4m3fn in"),
    "quantised": (quantised, "found a quantised tensor"),
    "sparse": (broken(**{"fc.weight": torch.eye(7).to_sparse()}), "found a sparse tensor"),
    "a pickled module": (saved(network), r"wants to import timm\.models\.resnet\.ResNet"),
    "a module among others": (saved(lambda: {"model": network(), "epoch": 3}), r"wants to import timm\.models\.resnet\.ResNet"),
    "code": (within(evil=functools.partial(eval, "1")), r"wants to import functools\.partial, \w+\.eval"),
    "only averages": (saved(lambda: {"model_ema": weights()}), "found only averaged ones under model_ema; add --ema"),
    "another network": (saved(lambda: timm.create_model("test_vit").state_dict()), "see --arch"),
    "optimizer alone": (saved(lambda: {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}), "found no tensors"),
}


def load(path, **options):
    return load_encoder(ModelRequest(path, **options))


def is_network(encoder, tolerance):
    with torch.no_grad():
        found, _ = encoder.tap(encoder.module.float(), IMAGE)
    return torch.allclose(found, wanted(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("variant", READ)
def test_is_read(tmp_path, variant):
    tolerance = {"float16": 1e-2, "bfloat16": 5e-2}.get(variant, 1e-5)
    path = READ[variant](tmp_path)
    arch = {} if variant == "timm folder" else {"arch": f"timm:{ARCH}"}
    assert is_network(load(path, **arch), tolerance)


@pytest.mark.filterwarnings("ignore:torch.quantize", "ignore:.*TypedStorage")
@pytest.mark.parametrize("variant", REFUSED)
def test_is_refused_in_one_line(tmp_path, variant):
    write, reason = REFUSED[variant]
    with pytest.raises(GcauditError, match=reason) as caught:
        load(write(tmp_path), arch=f"timm:{ARCH}")
    assert "\n" not in str(caught.value)


def test_there_are_enough_of_them():
    assert len(READ) + len(REFUSED) >= 40


def test_what_else_fits_is_told_and_can_be_chosen(tmp_path):
    path = READ["teacher and student"](tmp_path)
    (told,) = [w.message for w in load(path, arch=f"timm:{ARCH}").warnings if w.kind == "averaged-weights"]
    assert "'teacher' were taken" in told
    assert "(student); --weights-key takes another" in told
    assert not is_network(load(path, arch=f"timm:{ARCH}", weights_key="student"), 1e-3)
    with pytest.raises(GcauditError, match="expected weights under 'x', found some under student, teacher; see --weights-key"):
        load(path, arch=f"timm:{ARCH}", weights_key="x")
    path = READ["MoCo"](tmp_path)
    assert not is_network(load(path, arch=f"timm:{ARCH}", prefix="module.encoder_k."), 1e-3)


def test_a_file_cannot_name_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touched = tmp_path / "touched"
    (tmp_path / "transformers:m").mkdir()
    (tmp_path / "transformers:m/evil.py").write_text(f"open({str(touched)!r}, 'w')")
    for name in ("transformers:m/evil.py:f", "transformers:AutoModel", "evil.py:f", "os:getcwd"):
        torch.save({"arch": name, "state_dict": weights()}, tmp_path / "m.pth")
        with pytest.raises(GcauditError, match="expected an architecture of timm or torchvision"):
            load(tmp_path / "m.pth")
        (tmp_path / "hub").mkdir(exist_ok=True)
        tensors(tmp_path / "hub/model.safetensors", weights())
        (tmp_path / "hub/config.json").write_text(json.dumps({"architecture": name}))
        with pytest.raises(GcauditError, match="expected an architecture of timm or torchvision"):
            load(tmp_path / "hub")
    assert not touched.exists()


def test_weights_that_are_used_without_their_module_being_called_are_missed(tmp_path):
    model = torchvision.models.vit_b_32()
    state = {name: tensor for name, tensor in model.state_dict().items() if "encoder_layer_1.self_attention.out_proj" not in name}
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(GcauditError, match=r"missing: encoder\.layers\.encoder_layer_1\.self_attention\.out_proj\.weight"):
        load(tmp_path / "m.pth", arch="torchvision:vit_b_32")


def test_auxiliary_heads_need_not_be_there(tmp_path):
    model = torchvision.models.googlenet(init_weights=False).eval()
    torch.save({name: tensor for name, tensor in model.state_dict().items() if not name.startswith("aux")}, tmp_path / "m.pth")
    encoder = load(tmp_path / "m.pth", arch="torchvision:googlenet")
    (told,) = [w for w in encoder.warnings if "used in training alone" in w.message]
    assert told.first[0].startswith("aux1")
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(encoder.module(image), model(image))


def test_a_prefix_that_was_typed_holds_for_conversions(tmp_path):
    def older(seed):
        torch.manual_seed(seed)
        state = torchvision.models.densenet121().eval().state_dict()
        return {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): tensor for name, tensor in state.items()}

    first, second = older(1), older(2)
    both = {f"student.{name}": tensor for name, tensor in first.items()} | {
        f"teacher.{name}": tensor for name, tensor in second.items()
    }
    torch.save(both, tmp_path / "m.pth")
    for prefix, state in (("student.", first), ("teacher.", second)):
        encoder = load(tmp_path / "m.pth", arch="torchvision:densenet121", prefix=prefix)
        assert torch.equal(encoder.module.classifier.weight, state["classifier.weight"])
        assert torch.equal(encoder.module.features.conv0.weight, state["features.conv0.weight"])


def test_sets_that_fit_as_well_are_told_whatever_their_prefixes(tmp_path):
    torch.save({"student": behind("net."), "tutor": behind("trunk.", 2)}, tmp_path / "m.pth")
    (told,) = [w for w in load(tmp_path / "m.pth", arch=f"timm:{ARCH}").warnings if w.kind == "averaged-weights"]
    assert told.first == ("tutor",)


def test_averages_and_a_key_are_not_both_asked_for(tmp_path):
    with pytest.raises(GcauditError, match="expected --ema or --weights-key, found both"):
        load(READ["model and its average"](tmp_path), arch=f"timm:{ARCH}", ema=True, weights_key="model")


def test_the_tensors_become_the_networks_own_and_no_two_share_memory(tmp_path):
    encoder = load(READ["one storage"](tmp_path), arch=f"timm:{ARCH}")
    spans = sorted((p.data_ptr(), p.data_ptr() + p.numel() * 4) for p in encoder.module.parameters())
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    assert encoder.checkpoint.tensors == {}


def test_patches_of_another_size_are_another_network(tmp_path):
    torch.save(timm.create_model("test_vit", patch_size=8).state_dict(), tmp_path / "m.pth")
    with pytest.raises(GcauditError, match=r"wrong shape: .*patch_embed\.proj\.weight"):
        load(tmp_path / "m.pth", arch="timm:test_vit")


def long_name_header(claimed):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, claimed
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: bz2.compress(long_name_header(2**31) + bytes(2**27)), "refused: .* that unpack to more than 4 times as many"),
        (lambda: long_name_header(512) * 3000, "expected a sound archive, found"),
        (lambda: b"PK\3\4" + bytes(30), "truncated or damaged zip"),
    ],
)
def test_archives_that_ask_for_more_than_is_there(tmp_path, content, reason):
    (tmp_path / "m.tar").write_bytes(content())
    tracemalloc.start()
    try:
        with pytest.raises(GcauditError, match=reason):
            load(tmp_path / "m.tar", arch=f"timm:{ARCH}")
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a." * 5000 + "b", "x" * 10_000])
def test_endless_names_are_refused(tmp_path, name):
    tensors(tmp_path / "m.safetensors", {name: torch.ones(1)})
    with pytest.raises(GcauditError, match="names of up to 500 characters and 40 dots"):
        load(tmp_path / "m.safetensors", arch=f"timm:{ARCH}")


def test_versions_of_modules_are_the_files(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "class Scaled(torch.nn.Linear):\n"
        "    _version = 2\n"
        "    def _load_from_state_dict(self, state, prefix, metadata, *rest):\n"
        "        if metadata.get('version') == 1:\n"
        "            state[prefix + 'weight'] = state[prefix + 'weight'] * 2\n"
        "        super()._load_from_state_dict(state, prefix, metadata, *rest)\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), Scaled(12, 3), torch.nn.Linear(3, 2))\n"
    )
    state = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3), torch.nn.Linear(3, 2)).state_dict()
    state._metadata["1"] = {"version": 1}
    for content in (state, {"state_dict": state}):
        torch.save(content, tmp_path / "m.pth")
        encoder = load(tmp_path / "m.pth", arch=f"{tmp_path}/own.py:make", changes={"input_size": (2, 2)})
        assert torch.equal(encoder.module[1].weight, 2 * state["1.weight"])
