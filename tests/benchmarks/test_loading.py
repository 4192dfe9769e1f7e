"""Reading a checkpoint of 500 MB, beside torch.load(weights_only=True, mmap=True) doing the same: digest of the file, check of finite numbers.

Each reading is a process of its own, so that its peak of memory is its own.
"""

import statistics
import subprocess
import sys

import torch

READING = """
import hashlib, sys, time
import torch
from gcaudit.checkpoints.reading import read_checkpoint
kind, path = sys.argv[1:]
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])  # getrusage's includes that of the parent
before, began = peak(), time.perf_counter()
if kind == "gcaudit":
    tensors = read_checkpoint(path).tensors
else:
    tensors = torch.load(path, weights_only=True, mmap=True)
    with open(path, "rb") as file:
        hashlib.file_digest(file, "sha256").hexdigest()
    for tensor in tensors.values():
        assert bool(torch.isfinite(tensor).all())
assert len(tensors) == 100
print(time.perf_counter() - began, peak() - before)
"""
TURNS = 7


def test_a_checkpoint_of_500_mb(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({f"layer{number}.weight": torch.randn(1310, 1000) for number in range(100)}, path)
    assert path.stat().st_size > 5e8
    found = {"gcaudit": [], "torch": []}
    for turn in range(TURNS + 1):
        for kind, runs in found.items():
            out = subprocess.run([sys.executable, "-c", READING, kind, path], capture_output=True, text=True, check=True).stdout
            if turn:  # the first brings the file into the page cache
                runs.append([float(part) for part in out.split()])
    seconds = {kind: statistics.median(run[0] for run in runs) for kind, runs in found.items()}
    memory = {kind: statistics.median(run[1] for run in runs) for kind, runs in found.items()}
    ratios = seconds["gcaudit"] / seconds["torch"], memory["gcaudit"] / memory["torch"]
    print(
        f"\n500 MB: gcaudit {seconds['gcaudit']:.2f} s and {memory['gcaudit'] / 1024:.0f} MiB, torch {seconds['torch']:.2f} s and "
        f"{memory['torch'] / 1024:.0f} MiB; ratios {ratios[0]:.2f} and {ratios[1]:.2f}"
    )
    assert ratios[0] < 1.1
    assert ratios[1] < 1.1
