"""Make the table of fingerprints of timm's and torchvision's architectures that gcaudit ships.

    python scripts/fingerprints.py [OUTPUT] [--only GLOB]

Each architecture is built on the meta device. Those of one fingerprint are then built with the same random weights, and put into one group where their
embeddings of the same image agree. It takes about half an hour and the memory of the two largest networks that are compared.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from gcaudit.encoders.architectures import build_architecture
from gcaudit.encoders.fingerprint import fingerprint
from gcaudit.encoders.placing import shapes_of
from gcaudit.encoders.taps import Tap, classifier_tap, dry_input, head_modules, pre_logits_tap

LARGEST = 450_000_000
"""Parameters of networks that are not built to be compared: they stay apart."""
CLOSE = 1e-3
FILLING = frozenset((torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.erfinv_))


def names(glob: str) -> list[str]:
    """List all architectures."""
    family, _, pattern = glob.rpartition(":")
    found = [f"timm:{name}" for name in timm.list_models(pattern)] if family in ("", "timm") else []
    if family in ("", "torchvision"):
        found += [f"torchvision:{name}" for name in torchvision.models.list_models(torchvision.models, include=pattern)]
    return found


def build(name: str, device: str) -> tuple[nn.Module, Tap, torch.Tensor]:
    """Build an architecture, and find its embedding."""
    with torch.device(device):
        made = build_architecture(name, {})
    module = made.module.requires_grad_(False)
    blank = dry_input(made.config["input_size"], module)
    with torch.no_grad():
        tap = pre_logits_tap(module) if made.family == "timm" else classifier_tap(module, blank)
    return module, tap, blank


class Unfilled(TorchFunctionMode):
    """Leaves out the random numbers that networks begin with, which take most of the time."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function, or return the tensor that it would fill."""
        return args[0] if function in FILLING else function(*args, **(kwargs or {}))


def build_anywhere(name: str) -> tuple[nn.Module, Tap, torch.Tensor]:
    """Build on the meta device, or in memory where that cannot be."""
    try:
        return build(name, "meta")
    except Exception:
        return build(name, "cpu")


def embedding(name: str) -> torch.Tensor | None:
    """Embed an image with weights that depend on their names and shapes alone."""
    small = build_anywhere(name)[0]
    if sum(parameter.numel() for parameter in small.parameters()) > LARGEST:
        return None
    with Unfilled():
        module, tap, blank = build(name, "cpu")
    with torch.no_grad():
        for key, tensor in sorted(module.state_dict().items()):
            if tensor.is_floating_point():
                generator = torch.Generator().manual_seed(fingerprint({key: tuple(tensor.shape)}, ()) % 2**63)
                tensor.copy_(
                    torch.rand(tensor.shape, generator=generator) * (0.5 if tensor.ndim < 2 else 2 * tensor[0].numel() ** -0.5)
                )
                if tensor.ndim < 2:
                    tensor.add_(0.5)
                else:
                    tensor.sub_(tensor.mean())
        image = torch.rand(blank.shape, generator=torch.Generator().manual_seed(1))
        return tap(module, image)[0].flatten().double()


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether two embeddings are the same but for rounding."""
    return one.shape == other.shape and float((one - other).norm()) <= CLOSE * float(one.norm())


def grouped(members: list[str]) -> list[list[str]]:
    """Put architectures that compute the same into one group."""
    print(f"  {' '.join(members)}", flush=True)
    groups: list[tuple[torch.Tensor | None, list[str]]] = []
    for name in members:
        try:
            found = embedding(name)
        except Exception as error:
            print(f"  {name}: {type(error).__name__}: {str(error)[:100]}", flush=True)
            found = None
        if found is not None and not bool(found.isfinite().all()):
            print(f"  {name}: not finite", flush=True)
            found = None
        for first, group in groups:
            if found is not None and first is not None and alike(first, found):
                group.append(name)
                break
        else:
            groups.append((found, [name]))
    return [group for _, group in groups]


def main() -> None:
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", nargs="?", type=Path, default=Path(__file__).parents[1] / "gcaudit/bundled/fingerprints.json.gz")
    parser.add_argument("--only", default="*")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    heads: dict[tuple[str, ...], int] = {}
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    start, skipped = time.monotonic(), []
    for name in names(asked.only):
        try:
            module, tap, _ = build_anywhere(name)
        except Exception as error:
            skipped.append(name)
            print(f"{name}: {type(error).__name__}: {str(error)[:100]}", flush=True)
            continue
        head = head_modules(module, tap)
        place = heads.setdefault(head, len(heads))
        found[place, fingerprint(shapes_of(module), head)].append(name)
    ties = {key: members for key, members in found.items() if len(members) > 1}
    print(
        f"{sum(map(len, found.values()))} built, {len(skipped)} not, {len(ties)} ties, {time.monotonic() - start:.0f} s", flush=True
    )
    groups = {key: grouped(members) if len(members) > 1 else [members] for key, members in sorted(found.items())}
    content = {
        "versions": {"timm": timm.__version__, "torchvision": torchvision.__version__.partition("+")[0]},
        "heads": list(heads),
        "fingerprints": [[place, f"{key:016x}", groups[place, key]] for place, key in sorted(groups)],
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    asked.output.write_bytes(gzip.compress(text, mtime=0))
    one = sum(len(each[0]) for each in groups.values() if len(each) == 1)
    print(
        f"{one} of {sum(map(len, found.values()))} alone or in one group, {asked.output.stat().st_size} bytes, {time.monotonic() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
