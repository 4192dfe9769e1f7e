import argparse
import hashlib
import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gcaudit.bundled.files import bundled_path
from gcaudit.checkpoints.contents import EMA_CONTAINERS, PLAIN_CONTAINERS
from gcaudit.checkpoints.hints import Hints, plain_dict, preprocessing_in
from gcaudit.checkpoints.reading import read_checkpoint
from gcaudit.errors import CheckpointError


def weights(value=1.0):
    return OrderedDict({"fc.weight": torch.full((2, 3), value), "fc.bias": torch.full((2,), value)})


def saved(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def refuse(path, pattern, named=None, **options):
    with pytest.raises(CheckpointError, match=pattern) as caught:
        read_checkpoint(path, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert str(named or path) in str(caught.value)


def value_of(checkpoint):
    return float(checkpoint.tensors["fc.bias"][0])


@pytest.mark.parametrize("name", PLAIN_CONTAINERS)
def test_weights_under_a_plain_name(tmp_path, name):
    checkpoint = read_checkpoint(saved(tmp_path, {"epoch": 3, name: weights(), "optimizer": {"state": {0: torch.ones(1)}}}))
    assert checkpoint.container == name
    assert checkpoint.tensors.keys() == weights().keys()
    assert checkpoint.other_containers == ()


@pytest.mark.parametrize("name", EMA_CONTAINERS)
def test_averaged_weights_are_taken_when_asked_for(tmp_path, name):
    path = saved(tmp_path, {name: weights(2.0), "state_dict": weights(1.0)})
    plain, averaged = read_checkpoint(path), read_checkpoint(path, ema=True)
    assert (plain.container, value_of(plain), plain.other_containers) == ("state_dict", 1.0, (name,))
    assert (averaged.container, value_of(averaged), averaged.other_containers) == (name, 2.0, ("state_dict",))


@pytest.mark.parametrize("name", EMA_CONTAINERS)
def test_averaged_weights_alone_must_be_asked_for(tmp_path, name):
    path = saved(tmp_path, {name: weights(2.0), "epoch": 3})
    refuse(path, f"expected plain weights, found only averaged ones under {name}; add --ema")
    assert value_of(read_checkpoint(path, ema=True)) == 2.0


@pytest.mark.parametrize("content", [weights(), {"state_dict": weights()}])
def test_averaged_weights_that_are_not_there(tmp_path, content):
    refuse(saved(tmp_path, content), "expected averaged weights under state_dict_ema, .*, found none; drop --ema", ema=True)


def test_state_dict_comes_before_other_names(tmp_path):
    checkpoint = read_checkpoint(saved(tmp_path, {"model": weights(2.0), "state_dict": weights(1.0), "model_ema": weights(3.0)}))
    assert (checkpoint.container, value_of(checkpoint)) == ("state_dict", 1.0)
    assert set(checkpoint.other_containers) == {"model", "model_ema"}


def test_the_dict_itself(tmp_path):
    checkpoint = read_checkpoint(saved(tmp_path, {**weights(), "epoch": 3, 7: torch.ones(1)}))
    assert checkpoint.container is None
    assert checkpoint.tensors.keys() == weights().keys()


def test_names_of_containers_that_hold_no_weights_are_passed_over(tmp_path):
    checkpoint = read_checkpoint(saved(tmp_path, {"model": "resnet18", "state_dict": {"epoch": 3}, "net": weights()}))
    assert (checkpoint.container, checkpoint.other_containers) == ("net", ())


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_mappings_of_any_kind(tmp_path, kind):
    assert value_of(read_checkpoint(saved(tmp_path, kind({"state_dict": kind(weights())})))) == 1.0


def test_state_dict_with_metadata_of_modules(tmp_path):
    state = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict()
    checkpoint = read_checkpoint(saved(tmp_path, {"state_dict": state}))
    assert list(checkpoint.tensors) == list(state)


def test_no_hints(tmp_path):
    assert read_checkpoint(saved(tmp_path, weights())).hints == Hints()


def test_arch_hint(tmp_path):
    hints = read_checkpoint(saved(tmp_path, {"state_dict": weights(), "arch": "resnet18"})).hints
    assert (hints.arch, hints.source) == ("resnet18", "the checkpoint's arch")


OPTIONS = {"model": "resnet26", "img_size": 160, "mean": (0.1, 0.2, 0.3), "std": [0.4, 0.5, 0.6], "in_chans": 3, "lr": 0.1}


@pytest.mark.parametrize("args", [argparse.Namespace(**OPTIONS), OPTIONS])
def test_args_hint(tmp_path, args):
    hints = read_checkpoint(saved(tmp_path, {"state_dict": weights(), "args": args})).hints
    assert (hints.arch, hints.source) == ("resnet26", "the checkpoint's args.model")
    assert hints.arch_args == {"in_chans": 3}
    assert hints.preprocessing == {"input_size": [3, 160, 160], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


def test_arch_comes_before_args(tmp_path):
    args = argparse.Namespace(model="resnet26", model_kwargs={"drop_rate": 0.1}, in_chans=None)
    hints = read_checkpoint(saved(tmp_path, {"state_dict": weights(), "arch": "resnet18", "args": args})).hints
    assert (hints.arch, hints.source, hints.arch_args) == ("resnet18", "the checkpoint's arch", {"drop_rate": 0.1})


def test_args_without_a_model(tmp_path):
    hints = read_checkpoint(saved(tmp_path, {"state_dict": weights(), "args": {"crop_pct": 0.9, "in_chans": 1}})).hints
    assert hints == Hints(None, {"in_chans": 1}, {"crop_pct": 0.9})


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.int64(5), np.int32(5), np.bool_(True)])
@pytest.mark.parametrize("modern", [True, False])
def test_numpy_numbers_beside_the_weights(tmp_path, number, modern):
    content = {"state_dict": weights(), "best": number, "args": {"model": "resnet18", "crop_pct": number}}
    torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=modern)
    checkpoint = read_checkpoint(tmp_path / "m.pt")
    assert value_of(checkpoint) == 1.0
    assert checkpoint.hints.preprocessing == {"crop_pct": number}
    assert type(checkpoint.hints.preprocessing["crop_pct"]) is type(number.item())


@pytest.mark.parametrize("scalar", [np.str_("best"), np.datetime64("2026-01-01"), np.complex64(1j)])
def test_numpy_scalars_that_are_no_numbers_are_passed_over(tmp_path, scalar):
    path = saved(tmp_path, {"state_dict": weights(), "args": {"crop_pct": scalar}})
    assert read_checkpoint(path).hints.preprocessing == {}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({}, {}),
        ({"mean": None, "interpolation": "", "crop_pct": None}, {}),
        ({"interpolation": "bilinear", "crop_mode": "squash", "lr": 1}, {"interpolation": "bilinear", "crop_mode": "squash"}),
        ({"img_size": 64}, {"input_size": [3, 64, 64]}),
        ({"img_size": (64, 96), "in_chans": 1}, {"input_size": [1, 64, 96]}),
        ({"img_size": 64, "in_chans": "many"}, {"input_size": [3, 64, 64]}),
        ({"img_size": 64, "input_size": (3, 32, 32)}, {"input_size": [3, 32, 32]}),
        ({"mean": torch.tensor([0.25, 0.5]), "std": np.float64(0.5)}, {"mean": [0.25, 0.5], "std": 0.5}),
        ({"mean": torch.zeros(1000), "std": torch.zeros(3, device="meta"), "crop_pct": object()}, {}),
    ],
)
def test_preprocessing_among_options(config, found):
    assert preprocessing_in(config) == found


@pytest.mark.parametrize(("value", "found"), [({"a": 1, 1: 2}, {"a": 1}), (None, {}), ([1], {}), ("model", {})])
def test_options_as_a_dict(value, found):
    assert plain_dict(value) == found


@pytest.mark.parametrize("key", ["architecture", "arch"])
def test_metadata_of_safetensors(tmp_path, key):
    save_file(weights(), tmp_path / "m.safetensors", metadata={key: "resnet18", "format": "pt"})
    checkpoint = read_checkpoint(tmp_path / "m.safetensors")
    assert (checkpoint.hints.arch, checkpoint.hints.source) == ("resnet18", "the checkpoint's arch")
    assert checkpoint.tensors.keys() == weights().keys()


def test_tensor_called_arch_is_a_tensor(tmp_path):
    save_file({"arch": torch.ones(2)}, tmp_path / "m.safetensors", metadata={"arch": "resnet18"})
    checkpoint = read_checkpoint(tmp_path / "m.safetensors")
    assert checkpoint.hints.arch is None
    assert torch.equal(checkpoint.tensors["arch"], torch.ones(2))


CONFIG = {
    "architecture": "test_resnet",
    "num_classes": 2,
    "model_args": {"in_chans": 1, "img_size": 28},
    "pretrained_cfg": {"input_size": [1, 28, 28], "mean": [0.3], "std": [0.35], "interpolation": "bilinear", "crop_pct": 1.0},
}


def folder_of(tmp_path, config=CONFIG, **files):
    for name, content in files.items():
        path = tmp_path / name.replace("__", ".")
        (save_file if path.suffix == ".safetensors" else torch.save)(content, path)
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["model__safetensors", "pytorch_model__bin", "open_clip_model__safetensors", "anything__pth"])
def test_folder_with_a_config(tmp_path, name):
    checkpoint = read_checkpoint(folder_of(tmp_path, **{name: weights()}))
    file = tmp_path / name.replace("__", ".")
    assert checkpoint.hints == Hints("test_resnet", CONFIG["model_args"], CONFIG["pretrained_cfg"], "config.json")
    assert checkpoint.format == f"folder of 1 {'safetensors' if file.suffix == '.safetensors' else 'torch.save (zip)'} file"
    assert checkpoint.path == tmp_path
    assert checkpoint.bytes == file.stat().st_size
    assert checkpoint.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_flat_config(tmp_path):
    folder = folder_of(tmp_path, {"architecture": "resnet18", "mean": [0.1] * 3, "pretrained_cfg": 3}, model__safetensors=weights())
    assert read_checkpoint(folder).hints == Hints("resnet18", {}, {"mean": [0.1] * 3}, "config.json")


def test_config_without_an_architecture_leaves_that_to_the_weights(tmp_path):
    content = {"state_dict": weights(), "arch": "resnet18"}
    hints = read_checkpoint(folder_of(tmp_path, {"hidden_size": 3}, pytorch_model__bin=content)).hints
    assert (hints.arch, hints.source) == ("resnet18", "the checkpoint's arch")


def test_folder_without_a_config(tmp_path):
    assert read_checkpoint(folder_of(tmp_path, None, model__safetensors=weights())).hints == Hints()


def test_bundled_folder_is_read():
    assert read_checkpoint(bundled_path("demo-model")).hints.arch == "test_resnet"


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("{", "config.json: expected JSON: "), ("[1]", "expected a JSON object, found a list"), ("[" * 100_000, "expected JSON: ")],
)
def test_damaged_config(tmp_path, text, pattern):
    refuse(folder_of(tmp_path, text, model__safetensors=weights()), pattern, named=tmp_path / "config.json")


def test_safetensors_come_before_pickles_in_a_folder(tmp_path):
    folder = folder_of(tmp_path, model__safetensors=weights(1.0), pytorch_model__bin=weights(2.0), optimizer__pt=weights(3.0))
    assert value_of(read_checkpoint(folder)) == 1.0


def test_several_weight_files(tmp_path):
    folder = folder_of(tmp_path, a__pth=weights(), b__ckpt=weights())
    refuse(folder, "expected one weight file, found a.pth, b.ckpt; name the file itself")


def test_folder_without_weights(tmp_path):
    (tmp_path / "sub.pth").mkdir()
    refuse(folder_of(tmp_path), "expected model.safetensors or pytorch_model.bin, found no weights; name a weight file")


def test_error_in_a_folder_names_it(tmp_path):
    refuse(folder_of(tmp_path, model__safetensors={"w": torch.tensor([torch.nan])}), "found 1 NaN or inf in tensor 'w'")


def test_missing_link_target_in_a_folder(tmp_path):
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "nowhere")
    refuse(tmp_path, "found no weights")


def sharded(tmp_path, index, suffix, mapping=None, parts=3):
    names = [f"model-{n}-of-{parts}.{suffix}" for n in range(parts)]
    for n, name in enumerate(names):
        part = {f"layer{n}.weight": torch.full((2, 2), float(n))}
        (save_file if suffix == "safetensors" else torch.save)(part, tmp_path / name)
    mapping = {f"layer{n}.weight": name for n, name in enumerate(names)} if mapping is None else mapping
    (tmp_path / index).write_text(json.dumps({"metadata": {}, "weight_map": mapping}), encoding="utf-8")
    return [tmp_path / name for name in names]


INDEXES = [("model.safetensors.index.json", "safetensors"), ("pytorch_model.bin.index.json", "bin")]


@pytest.mark.parametrize(("index", "suffix"), INDEXES)
def test_sharded_folder(tmp_path, index, suffix):
    files = sharded(tmp_path, index, suffix)
    checkpoint = read_checkpoint(tmp_path)
    assert {name: float(tensor.mean()) for name, tensor in checkpoint.tensors.items()} == {f"layer{n}.weight": n for n in range(3)}
    assert checkpoint.bytes == sum(file.stat().st_size for file in files)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert checkpoint.sha256 == hashlib.sha256("\n".join(digests).encode()).hexdigest()
    assert checkpoint.format == f"folder of 3 {'safetensors' if suffix == 'safetensors' else 'torch.save (zip)'} files"


@pytest.mark.parametrize(("index", "suffix"), INDEXES)
def test_missing_shard(tmp_path, index, suffix):
    files = sharded(tmp_path, index, suffix)
    files[1].unlink()
    refuse(tmp_path, rf"expected the shards named in {index}, missing model-1-of-3.{suffix}; fetch them")


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", "a\n.safetensors", 3, ["x"], None])
def test_shard_that_escapes_the_folder(tmp_path, name):
    (tmp_path / "model").mkdir()
    save_file(weights(), tmp_path / "x.safetensors")
    sharded(tmp_path / "model", INDEXES[0][0], "safetensors", {"w": name})
    index = tmp_path / "model" / INDEXES[0][0]
    refuse(tmp_path / "model", "expected shards in the same folder, found ", named=index)


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_shard_that_is_a_folder(tmp_path, name):
    sharded(tmp_path, INDEXES[0][0], "safetensors", {"w": name})
    refuse(tmp_path, "expected shards in the same folder|expected the shards named in")


@pytest.mark.parametrize("mapping", [{}, [], "model.safetensors"])
def test_index_without_a_map(tmp_path, mapping):
    sharded(tmp_path, INDEXES[0][0], "safetensors", mapping)
    refuse(tmp_path, "expected a 'weight_map' from tensor names to files, found none")


def test_hostile_shard_is_refused(tmp_path):
    files = sharded(tmp_path, INDEXES[1][0], "bin")
    torch.save(torch.nn.Linear(1, 1), files[2])
    refuse(tmp_path, "wants to import torch.nn.modules.linear.Linear", named=files[2])
