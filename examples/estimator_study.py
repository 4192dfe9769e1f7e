"""How well is geometric complexity estimated? The paper's Figure 2 for any checkpoint, with the sketch beside the paper's ways of sampling.

    pip install 'gcaudit[study]'
    python examples/estimator_study.py weights.safetensors --arch timm:tf_efficientnet_lite0 --data photos/ --images 50 -o study.png

The whole Jacobian J of a few images is taken once. Every estimate then follows from it: v^T J J^T v for the vectors that gcaudit would have drawn
(`sketch`, `outputs`), the drawn entries of J (`entries`), and the exact energies of fewer images. Each is repeated with other seeds;
the figure shows mean and spread against the exact value, the table the spread as a share of it and what follows from it:

    VJPs, outputs over sketch   for the same standard error of an image's energy, averaged over the images
    time, exact over sketch     for the same standard error of GC, from the measured times and the spread between images

Reference: Munn, Dherin, Gonzalvo, NeurIPS 2024, Figure 2.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gcaudit.cli.heap import keep_freed_memory
from gcaudit.data import DataRequest, ImageSet, open_data, stream_batches
from gcaudit.encoders import ModelRequest, load_encoder, picture_transform
from gcaudit.errors import DataError, GcauditError
from gcaudit.geometry import batch_energies
from gcaudit.geometry.jacobian import entry_places, output_vectors, sketch_vectors, unit_vectors
from gcaudit.passes import Runner, RunSettings

PANELS = ("images", "sketch", "outputs", "entries")
TITLES = {
    "images": "images, exact Jacobians",
    "sketch": "random vectors an image",
    "outputs": "outputs an image",
    "entries": "Jacobian entries an image",
}


@dataclass(frozen=True)
class Study:
    """What was measured.

    Attributes:
        name: of the checkpoint.
        dim: D.
        exact: (N,) exact energies.
        points: for each panel, counts with the estimates of GC from each repeat.
        outputs_over_sketch: VJPs for the same standard error.
        exact_over_sketch: time for the same standard error of the mean.
    """

    name: str
    dim: int
    exact: Tensor
    points: dict[str, dict[int, list[float]]]
    outputs_over_sketch: float
    exact_over_sketch: float


def decode(runner: Runner, images: ImageSet) -> Tensor:
    """Decode all images to pixels in [0, 1]."""
    order = [list(range(len(images.labels)))]
    transform = picture_transform(runner.encoder.preprocessing)
    (batch,) = stream_batches(images.reader, images.index, order, transform, workers=0, pin=False)
    if batch.failures:
        raise DataError(f"{batch.failures[0][1]}; mend or remove it")
    return (batch.pixels.float() / 255).to(runner.device, memory_format=runner.layout)


def jacobian(runner: Runner, pixels: Tensor, copies: int) -> Tensor:
    """Take the whole Jacobian of one image, (D, d): each backward pass takes `copies` outputs."""
    dim = runner.encoder.dim
    x = pixels[None].repeat_interleave(copies, 0).contiguous(memory_format=runner.layout).requires_grad_()
    z = runner.embed(x)
    rows = torch.empty(dim, pixels.numel(), device=runner.device)
    for start, units in zip(range(0, dim, copies), unit_vectors(dim, 1, copies, runner.device), strict=True):
        (gradient,) = torch.autograd.grad(z, x, units, retain_graph=start + copies < dim)
        count = min(copies, dim - start)
        rows[start : start + count] = gradient.flatten(1)[:count]
    return rows


def doublings(most: int) -> list[int]:
    """List 1, 2, 4, ... and the end."""
    return [*(1 << k for k in range(most.bit_length()) if 1 << k < most), most]


def study(runner: Runner, images: ImageSet, *, repeats: int, copies: int, most_entries: int = 4096) -> Study:
    """Take the Jacobians and estimate from them in every way."""
    pixels, index, dim = decode(runner, images), images.index, runner.encoder.dim
    counts = {name: doublings(most) for name, most in (("sketch", dim), ("outputs", dim), ("entries", most_entries))}
    points = {name: {count: torch.zeros(repeats, dtype=torch.float64) for count in counts[name]} for name in counts}
    exact = torch.zeros(len(index), dtype=torch.float64)
    within = {name: torch.zeros(len(index), dtype=torch.float64) for name in ("sketch", "outputs")}
    exact_seconds = []
    for image in range(len(index)):
        began = time.perf_counter()
        rows = jacobian(runner, pixels[image], copies)
        rows[0, 0].item()  # a GPU has done its work only when a number has come back
        exact_seconds.append(time.perf_counter() - began)
        gram = (rows @ rows.T).cpu().double()
        diagonal = gram.diagonal()
        exact[image] = diagonal.sum()
        # the variance of one vector's estimate: signs only see the entries off the diagonal, outputs only those on it
        within["sketch"][image] = 2 * (gram.square().sum() - diagonal.square().sum())
        within["outputs"][image] = dim * diagonal.square().sum() - diagonal.sum() ** 2
        here = index[image : image + 1]
        for seed in range(repeats):
            for name, draw in (("sketch", sketch_vectors), ("outputs", output_vectors)):
                vectors = draw(here, dim, dim, seed)[:, 0].double()
                energies = ((vectors @ gram) * vectors).sum(1).cumsum(0)
                for count in counts[name]:
                    points[name][count][seed] += energies[count - 1] / count
            output, place = entry_places(here, dim, rows.shape[1], most_entries, seed)
            entries = rows[output[0], place[0]].cpu().double().square().cumsum(0) * rows.numel()
            for count in counts["entries"]:
                points["entries"][count][seed] += entries[count - 1] / count
    found = {name: {count: (values / len(index)).tolist() for count, values in panel.items()} for name, panel in points.items()}
    generator = torch.Generator().manual_seed(0)
    found["images"] = {
        count: [float(exact[torch.randperm(len(exact), generator=generator)[:count]].mean()) for _ in range(repeats)]
        for count in doublings(len(exact))
    }
    ratio = float(within["outputs"].mean() / within["sketch"].mean())
    spread = float(exact.var())
    more_images = 1 + float(within["sketch"].mean()) / spread
    sketch_seconds = time_sketch(runner, pixels, index)
    name = Path(runner.encoder.spec).name
    speed = statistics.median(exact_seconds) / (sketch_seconds * more_images)
    return Study(name, dim, exact, {panel: found[panel] for panel in PANELS}, ratio, speed)


def time_sketch(runner: Runner, pixels: Tensor, index: Tensor, batch: int = 16) -> float:
    """Time forward pass and one VJP, in seconds an image."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for start in range(0, len(pixels), batch):
            x = pixels[start : start + batch].clone().requires_grad_()
            batch_energies(runner.embed(x), x, index[start : start + batch], estimator="sketch", vectors=1, seed=0).cpu()
        times.append((time.perf_counter() - began) / len(pixels))
    return statistics.median(times)


def table(found: Study) -> str:
    """Write what was found as text."""
    truth = float(found.exact.mean())
    between = float(found.exact.std()) / truth
    lines = [
        f"{found.name}: D = {found.dim}, {len(found.exact)} images, exact GC {truth:.6g}, images differ by {between:.2f} of it"
    ]
    for panel in PANELS:
        lines.append(f"  {TITLES[panel]}: mean and standard deviation of the estimate, as shares of the exact value")
        for count, values in found.points[panel].items():
            mean, spread = statistics.fmean(values) / truth, statistics.stdev(values) / truth
            lines.append(f"  {count:8d}  {mean:6.3f}  {spread:6.3f}")
    lines.append(f"  VJPs, outputs over sketch, for the same standard error: {found.outputs_over_sketch:.1f}")
    lines.append(f"  time, exact over sketch, for the same standard error of GC: {found.exact_over_sketch:.0f}")
    return "\n".join(lines)


def draw(found: Study, path: Path) -> None:
    """Draw the four panels."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(PANELS), figsize=(4 * len(PANELS), 3.4), sharey=True, layout="constrained")
    truth = float(found.exact.mean())
    for axis, panel in zip(axes, PANELS, strict=True):
        counts = list(found.points[panel])
        means = [statistics.fmean(values) / truth for values in found.points[panel].values()]
        spreads = [statistics.stdev(values) / truth for values in found.points[panel].values()]
        low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
        high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
        axis.axhline(1, color="black", linewidth=1, label="exact")
        axis.fill_between(counts, low, high, alpha=0.25, label="one standard deviation")
        axis.plot(counts, means, marker="o", markersize=3, label="mean")
        axis.set_xscale("log", base=2)
        axis.set_xlabel(TITLES[panel])
        axis.set_ylim(0, 2.2)
    axes[0].set_ylabel("estimate of GC / exact GC")
    axes[0].legend(frameon=False, fontsize="small")
    figure.suptitle(f"{found.name}: D = {found.dim}, {len(found.exact)} images")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="as for gcaudit score")
    parser.add_argument("--arch", help="as for gcaudit score")
    parser.add_argument("--data", required=True, help="as --source of gcaudit score")
    parser.add_argument("--data-root", help="as for gcaudit score")
    parser.add_argument("--images", type=int, default=50, help="images whose whole Jacobian is taken (default 50)")
    parser.add_argument("--repeats", type=int, default=20, help="seeds (default 20)")
    parser.add_argument("--copies", type=int, default=16, help="outputs a backward pass takes (default 16)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path, help="figure, .png or .svg")
    asked = parser.parse_args()
    if asked.output is not None and asked.output.suffix not in (".png", ".svg"):
        parser.error(f"expected --output of .png or .svg, found {asked.output}")
    if asked.images < 2 or asked.repeats < 2:
        parser.error("expected at least 2 --images and 2 --repeats: a spread needs them")
    keep_freed_memory()
    try:
        images = open_data(DataRequest(asked.data, "source", max_images=asked.images, root=asked.data_root))
        runner = Runner(load_encoder(ModelRequest(asked.model, arch=asked.arch)), RunSettings(device=asked.device))
        with runner.numerics():
            found = study(runner, images, repeats=asked.repeats, copies=asked.copies)
    except GcauditError as error:
        parser.error(str(error))
    print(table(found))
    device = torch.cuda.get_device_name(runner.device) if runner.device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"  {platform.machine()}, {device}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    if asked.output is not None:
        draw(found, asked.output)


if __name__ == "__main__":
    main()
