"""Damaged files are read or refused; nothing else comes out."""

import argparse
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gcaudit.checkpoints.reading import read_checkpoint
from gcaudit.errors import CheckpointError


def content(layers):
    generator = torch.Generator().manual_seed(0)
    tensors = {f"layer{n}.weight": torch.randn(2, 3, generator=generator) for n in range(layers)}
    return {**tensors, "half": torch.randn(5, generator=generator).half(), "count": torch.tensor(3)}


def save_zip(path, layers):
    args = argparse.Namespace(model="resnet18", mean=(0.5, 0.5, 0.5))
    torch.save({"state_dict": content(layers), "arch": "resnet18", "args": args, "best": np.float64(0.5)}, path)


def save_legacy(path, layers):
    args = argparse.Namespace(model="resnet18", mean=(0.5, 0.5, 0.5))
    state = {"state_dict": content(layers), "args": args, "best": np.float64(0.5)}
    torch.save(state, path, _use_new_zipfile_serialization=False)


def save_safetensors(path, layers):
    save_file(content(layers), path, metadata={"arch": "resnet18"})


def damaged(good, rng):
    raw = bytearray(good)
    kind = rng.choice(["flip", "flip", "flip", "byte", "cut", "drop", "swap"])
    place = rng.randrange(len(raw))
    if kind == "flip":
        for _ in range(rng.choice([1, 1, 2, 8])):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        raw[place] = rng.choice([0, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    elif kind == "cut":
        del raw[place:]
    elif kind == "drop":
        del raw[place : place + rng.randrange(1, 9)]
    else:
        other = rng.randrange(len(raw))
        raw[place], raw[other] = raw[other], raw[place]
    return bytes(raw)


@pytest.mark.parametrize("layers", [2, 70])
@pytest.mark.parametrize("save", [save_zip, save_legacy, save_safetensors])
def test_damaged_files_are_read_or_refused(tmp_path, save, layers):
    save(tmp_path / "good", layers)
    assert read_checkpoint(tmp_path / "good").hints.arch == "resnet18"
    good = (tmp_path / "good").read_bytes()
    rng = random.Random(f"{save.__name__} {layers}")
    refusals = []
    for attempt in range(250):
        path = tmp_path / str(attempt)  # a new file each: what was mapped into memory must not change
        path.write_bytes(damaged(good, rng))
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            refusals.append(str(error))
    assert 10 < len(refusals) < 240
    poor = [text for text in refusals if not text.isprintable() or len(text) > 1500 or str(tmp_path) not in text]
    assert poor == []
