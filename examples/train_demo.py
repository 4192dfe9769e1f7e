"""Make what `gcaudit demo` uses: a small model trained on five classes of Fashion-MNIST, and images of all ten.

    python examples/train_demo.py --data /usr/share/datasets/fashion-mnist --output gcaudit/bundled

The data are Debian's package dataset-fashion-mnist, or the four files of https://github.com/zalandoresearch/fashion-mnist. The
model is timm's `test_resnet` on 28x28 grey images. It sees the training images of five classes and nothing else; the other five are
the demo's target. Takes a few minutes on two cores.
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from gcaudit.data import DataRequest, ImageSet, open_data
from gcaudit.geometry import balanced_order

SOURCE = ("T-shirt/top", "Trouser", "Coat", "Sneaker", "Bag")
TARGET = ("Pullover", "Dress", "Sandal", "Shirt", "Ankle boot")
MEAN, STD = 0.286, 0.353
ARCHITECTURE = "test_resnet"


def load(root: Path, split: str, classes: tuple[str, ...]) -> ImageSet:
    """Open Fashion-MNIST's images of some classes."""
    request = DataRequest("fashion-mnist", "source", split=split, classes=",".join(classes), root=str(root.parent))
    return open_data(request)


def pixels_of(images: ImageSet) -> Tensor:
    """Read all images as (N, 1, 28, 28) in [0, 1]."""
    rows = np.stack([images.reader.read(row) for row in images.index.tolist()])
    return torch.from_numpy(rows)[:, None].float() / 255


def augment(batch: Tensor) -> Tensor:
    """Shift by up to two pixels and mirror half of the images."""
    dy, dx = (int(n) for n in torch.randint(-2, 3, (2,)))
    batch = torch.roll(batch, (dy, dx), (2, 3))
    flip = torch.rand(len(batch)) < 0.5
    return torch.where(flip[:, None, None, None], batch.flip(3), batch)


def train(images: ImageSet, epochs: int, seed: int) -> nn.Module:
    """Train the classifier on the five source classes."""
    torch.manual_seed(seed)
    model = timm.create_model(ARCHITECTURE, in_chans=1, num_classes=len(SOURCE))
    x, y = (pixels_of(images) - MEAN) / STD, images.labels
    batch_size, steps = 256, epochs * (len(x) // 256)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for rows in torch.randperm(len(x))[: len(x) // batch_size * batch_size].split(batch_size):
            loss = nn.functional.cross_entropy(model(augment(x[rows])), y[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        print(f"epoch {epoch + 1} of {epochs}: loss {total / len(x):.4f}")
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: ImageSet) -> float:
    """Share of images that the model classifies rightly."""
    logits = torch.cat([model(part) for part in ((pixels_of(images) - MEAN) / STD).split(500)])
    return float((logits.argmax(1) == images.labels).float().mean())


def png(picture: np.ndarray) -> bytes:
    """Encode a grey picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def save_images(images: ImageSet, per_class: int, path: Path) -> None:
    """Write a class-balanced draw as parquet in the Hugging Face layout."""
    keep = balanced_order(images.labels, images.index, seed=0)[: per_class * len(images.class_names)].sort().values
    keep = keep[torch.argsort(images.labels[keep], stable=True)]
    cells = [{"bytes": png(images.reader.read(int(images.index[place]))), "path": None} for place in keep]
    features = {"image": {"_type": "Image"}, "label": {"names": list(images.class_names), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())], metadata)
    table = pa.table({"image": cells, "label": images.labels[keep].tolist()}, schema=schema)
    pq.write_table(table, path, compression="zstd")


def save_model(model: nn.Module, folder: Path) -> None:
    """Write the model as timm's hub does: config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": len(SOURCE),
        "model_args": {"in_chans": 1},
        "label_names": list(SOURCE),
        "pretrained_cfg": {
            "input_size": [1, 28, 28],
            "mean": [MEAN],
            "std": [STD],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "center",
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")


def main() -> None:
    """Train, check and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--output", type=Path, default=Path("gcaudit/bundled"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    model = train(load(options.data, "train", SOURCE), options.epochs, options.seed)
    print(f"accuracy on the test images of the source classes: {accuracy(model, load(options.data, 'test', SOURCE)):.4f}")
    save_model(model, options.output / "demo-model")
    save_images(load(options.data, "train", SOURCE), options.per_class, options.output / "demo-train.parquet")
    save_images(load(options.data, "test", TARGET), options.per_class, options.output / "demo-test.parquet")
    for path in sorted(options.output.rglob("*")):
        if path.is_file():
            print(f"{path.relative_to(options.output)}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
