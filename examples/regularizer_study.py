"""Does a penalty on the embedding's geometric complexity lower it, and what becomes of collapse and transfer? ResNet-8 on CIFAR-10.

    python examples/regularizer_study.py --source data/cifar10 --target data/tiny-imagenet-32/validation-00000-of-00001.parquet -o study.csv

Trains one network for each weight and seed, all else equal, and audits each as `gcaudit score` does: GC and CDNV on CIFAR-10's test images,
few-shot accuracy on the target. The table says for each weight the mean over seeds and its standard error. Takes half an hour on two cores.

Reference: Munn, Dherin, Gonzalvo, NeurIPS 2024, section 5, where the penalty is on the logits, with one seed.
"""

import argparse
import csv
import platform
import statistics
import time
from pathlib import Path

import torch
from cifar_resnet import CifarResNet
from torch import Tensor, nn
from train_zoo import MEAN, STD, augment, load

import gcaudit
from gcaudit.cli.heap import keep_freed_memory
from gcaudit.regularizers import GeometricComplexity

WEIGHTS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
COLUMNS = ("source.gc", "source.cdnv", "source.head_accuracy", "target.probe_accuracy")
SIZE = 128


def train(weight: float, seed: int, x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """Train one network; equal seeds draw equal weights, batches and augmentation whatever the penalty."""
    torch.manual_seed(seed)
    model = CifarResNet(1)
    penalty = GeometricComplexity(weight, warmup=20, generator=torch.Generator().manual_seed(seed))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * (len(x) // SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x))[: len(x) // SIZE * SIZE].split(SIZE):
            outputs, complexity = penalty(model, augment(x[rows]))
            optimizer.zero_grad()
            (nn.functional.cross_entropy(outputs, y[rows]) + complexity).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def audit(model: nn.Module, source: str, target: str) -> dict[str, float]:
    """Measure one network."""
    report = gcaudit.score(
        model, source, target, mean=MEAN, std=STD, input_size=(32, 32), source_max_images=2000, episodes=500, workers=0
    )
    found = {f"{role}.{name}": value.value for role, block in report.blocks().items() for name, value in block.metrics.items()}
    return {name: found[name] for name in COLUMNS}


def main() -> None:
    """Train, audit, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="folder with train.parquet and test.parquet of CIFAR-10")
    parser.add_argument("--target", required=True, help="data set of new classes")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS)
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV of all runs")
    given = parser.parse_args()
    keep_freed_memory()
    x, y = load(given.source / "train.parquet", given.images)
    rows = []
    for seed in range(given.seeds):
        for weight in given.weights:
            began = time.perf_counter()
            model = train(weight, seed, x, y, given.epochs)
            rows.append({"weight": weight, "seed": seed, **audit(model, str(given.source / "test.parquet"), given.target)})
            print(rows[-1], f"{time.perf_counter() - began:.0f} s", flush=True)
            with given.output.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    print(
        f"\n{platform.machine()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}: mean over {given.seeds} seeds ± standard error"
    )
    print("| weight | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1))
    for weight in given.weights:
        cells = []
        for name in COLUMNS:
            values = [row[name] for row in rows if row["weight"] == weight]
            error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            cells.append(f"{statistics.fmean(values):.4g} ± {error:.2g}")
        print(f"| {weight:g} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
