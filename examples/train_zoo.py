"""Train a small model zoo on CIFAR-10 and write the YAML file that ranks it.

    python examples/train_zoo.py --data data --output zoo
    gcaudit compare zoo/zoo.yaml --store zoo/gcaudit.db

`--data` is a folder with cifar10/train.parquet, cifar10/test.parquet and the two targets, dtd10/train.parquet and tiny-imagenet-32/validation-*.parquet.
`--checkpoints` is a folder with cifar10_resnet20.th, cifar10_resnet44.th and tf_efficientnet_lite0.safetensors; those that are there join the zoo.

All are ResNet-20 (He et al. 2015) on the same images; they differ in how long, on which labels and with how much weight decay they were trained. Takes
about five minutes on two cores.
"""

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from cifar_resnet import resnet20
from torch import Tensor, nn

from gcaudit.data import DataRequest, open_data, stream_batches
from gcaudit.encoders import ModelRequest, load_encoder, picture_transform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ARCHITECTURE = Path(__file__).resolve().parent / "cifar_resnet.py"


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint is trained: `noise` is the share of images that get a random label."""

    name: str
    epochs: int
    noise: float = 0.0
    weight_decay: float = 5e-4
    augment: bool = True


RECIPES = (
    Recipe("untrained", 0),
    Recipe("one-epoch", 1),
    Recipe("three-epochs", 3),
    Recipe("six-epochs", 6),
    Recipe("half-random-labels", 3, noise=0.5),
    Recipe("no-augmentation", 3, augment=False, weight_decay=0.0),
)
PUBLIC = (
    ("cifar10_resnet20.th", f"{ARCHITECTURE}:resnet20", "public ResNet-20"),
    ("cifar10_resnet44.th", f"{ARCHITECTURE}:resnet44", "public ResNet-44"),
    ("tf_efficientnet_lite0.safetensors", "timm:tf_efficientnet_lite0", "tf_efficientnet_lite0"),
)


def load(path: Path, images: int) -> tuple[Tensor, Tensor]:
    """Read images as (N, 3, 32, 32), normalised, with their labels."""
    chosen = open_data(DataRequest(str(path), "source", max_images=images))
    transform = picture_transform(
        load_encoder(ModelRequest(resnet20(), changes={"mean": MEAN, "std": STD, "input_size": (32, 32)})).preprocessing
    )
    order = [list(range(len(chosen.labels)))]
    (batch,) = stream_batches(chosen.reader, chosen.index, order, transform, workers=0, pin=False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (batch.pixels / 255 - mean) / std, chosen.labels


def augment(batch: Tensor) -> Tensor:
    """Shift by up to four pixels and mirror half of the images."""
    dy, dx = (int(n) for n in torch.randint(-4, 5, (2,)))
    batch = torch.roll(batch, (dy, dx), (2, 3))
    flip = torch.rand(len(batch)) < 0.5
    return torch.where(flip[:, None, None, None], batch.flip(3), batch)


def train(recipe: Recipe, x: Tensor, y: Tensor, seed: int) -> nn.Module:
    """Train one checkpoint."""
    torch.manual_seed(seed)
    model = resnet20()
    wrong = torch.rand(len(y)) < recipe.noise
    y = torch.where(wrong, torch.randint(0, 10, y.shape), y)
    size = 128
    steps = recipe.epochs * (len(x) // size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=max(1, steps))
    for epoch in range(recipe.epochs):
        model.train()
        total = 0.0
        for rows in torch.randperm(len(x))[: len(x) // size * size].split(size):
            inputs = augment(x[rows]) if recipe.augment else x[rows]
            loss = nn.functional.cross_entropy(model(inputs), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        print(f"{recipe.name}: epoch {epoch + 1} of {recipe.epochs}, loss {total / len(x):.3f}", flush=True)
    return model.eval()


def zoo_file(output: Path, data: Path, checkpoints: Path | None) -> str:
    """Write the YAML file's text; its paths are relative to its folder."""
    own = [
        {
            "model": f"{recipe.name}.pt",
            "name": recipe.name,
            "arch": f"{ARCHITECTURE}:resnet20",
            "mean": list(MEAN),
            "std": list(STD),
            "input-size": 32,
        }
        for recipe in RECIPES
    ]
    public = []
    for file, arch, name in PUBLIC if checkpoints is not None else ():
        if (checkpoints / file).is_file():
            entry = {"model": os.path.relpath(checkpoints / file, output), "name": name, "arch": arch}
            if file.startswith("cifar10"):
                entry |= {"mean": list(MEAN), "std": list(STD), "input-size": 32}
            public.append(entry)
    here = os.path.relpath(data, output)
    content = {
        "models": own + public,
        "sources": [{"data": f"{here}/cifar10/test.parquet", "name": "cifar10", "max-images": 1000}],
        "targets": [
            {"data": f"{here}/dtd10/train.parquet", "name": "dtd10"},
            {"data": f"{here}/tiny-imagenet-32/validation-*.parquet", "name": "tiny-imagenet", "max-images": 1000},
        ],
        "settings": {"n-shot": 5, "n-query": 5, "metrics": "all", "device": "cpu"},
    }
    return yaml.safe_dump(content, sort_keys=False)


def main() -> None:
    """Train the zoo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--output", type=Path, default=Path("zoo"))
    parser.add_argument("--images", type=int, default=10_000, help="of CIFAR-10's training images")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    x, y = load(arguments.data / "cifar10" / "train.parquet", arguments.images)
    began = time.perf_counter()
    for recipe in RECIPES:
        path = arguments.output / f"{recipe.name}.pt"
        if not path.exists():
            torch.save(train(recipe, x, y, arguments.seed).state_dict(), path)
    text = zoo_file(arguments.output.resolve(), arguments.data.resolve(), arguments.checkpoints and arguments.checkpoints.resolve())
    (arguments.output / "zoo.yaml").write_text(text, encoding="utf-8")
    print(f"{len(RECIPES)} checkpoints in {time.perf_counter() - began:.0f} s; gcaudit compare {arguments.output / 'zoo.yaml'}")


if __name__ == "__main__":
    main()
