"""How often 95% intervals hold the truth: images are drawn from a fixed pool, whose own value is the truth.

    python tests/statistics/coverage.py MODEL --arch ARCH --source DATA [--images 3,10,50] [--draws 300] [--metrics NAMES]

A pass over the pool takes embeddings and energies of all its images once. Each draw takes so many images of each class, with replacement, so
that the pool is the population that it comes from, and measures them as gcaudit does. The table has the share of draws whose interval holds
the population's value, the bias in units of that value, and the stated standard error over the true spread.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gcaudit.audit.spec import AuditSpec
from gcaudit.data.opening import open_data
from gcaudit.encoders.loading import load_encoder
from gcaudit.metrics.measuring import measure
from gcaudit.metrics.ridge import ProbeSettings
from gcaudit.passes.observe import observe
from gcaudit.passes.runner import Runner

METRICS = (
    "gc",
    "relative_gc",
    "cdnv",
    "directional_cdnv",
    "geometric_collapse",
    "geometric_collapse_refined",
    "poincare_lower_bound",
    "ncm_accuracy",
    "head_accuracy",
)


@dataclass(frozen=True)
class Pool:
    """A population of images, as one model sees them.

    Attributes:
        embeddings: (N, D).
        labels: (N,) int64 in 0..K-1.
        energies: (N,), or None.
        logits: (N, K) of a head whose classes are the labels, or None.
    """

    embeddings: Tensor
    labels: Tensor
    energies: Tensor | None
    logits: Tensor | None

    def draw(self, counts: Sequence[int], generator: torch.Generator) -> Pool:
        """Take images of each class, with replacement."""
        rows = []
        for number, count in enumerate(counts):
            places = torch.nonzero(self.labels == number).flatten()
            rows.append(places[torch.randint(len(places), (count,), generator=generator)])
        return self.take(torch.cat(rows))

    def take(self, rows: Tensor) -> Pool:
        """Take images by their rows."""
        energies = None if self.energies is None else self.energies[rows]
        logits = None if self.logits is None else self.logits[rows]
        return Pool(self.embeddings[rows], self.labels[rows], energies, logits)

    def measured(self, metrics: Sequence[str]) -> Mapping[str, object]:
        """Measure it as gcaudit measures embeddings at hand."""
        return measure(self.embeddings, self.labels, self.logits, metrics, energies=self.energies, probe=ProbeSettings())


def population_values(pool: Pool, metrics: Sequence[str]) -> dict[str, float]:
    """Return the exact values of the distribution that draws come from: every class is its images in the pool, each equally likely."""
    found = pool.measured(tuple(metrics))
    # a whole population has nothing to correct
    values = {name: value.details.get("plug_in", value.value) for name, value in found.items()}
    if "ncm_accuracy" in metrics:  # no image is left out of its own mean: it weighs nothing there
        z, classes = pool.embeddings.double(), int(pool.labels.max()) + 1
        means = torch.stack([z[pool.labels == number].mean(0) for number in range(classes)])
        right = (torch.cdist(z, means).argmin(1) == pool.labels).double()
        values["ncm_accuracy"] = float(torch.stack([right[pool.labels == number].mean() for number in range(classes)]).mean())
    return values


@dataclass(frozen=True)
class Coverage:
    """What became of a metric's intervals.

    Attributes:
        truth: the population's value.
        holds: share of intervals that hold it, of those that there are.
        null: share of draws without an interval.
        bias: mean of the values less the truth, over the truth.
        spread: mean of the standard errors over the standard deviation of the values.
    """

    truth: float
    holds: float | None
    null: float
    bias: float | None
    spread: float | None


def cover(pool: Pool, counts: Sequence[int], draws: int, metrics: Sequence[str], seed: int = 0) -> dict[str, Coverage]:
    """Draw from a pool and count.

    Args:
        pool: the population.
        counts: images of each class in a draw.
        draws: how many.
        metrics: names.
        seed: of the draws.

    Returns:
        What became of each metric.
    """
    truths = population_values(pool, metrics)
    generator = torch.Generator().manual_seed(seed)
    seen: dict[str, list] = {name: [] for name in metrics}
    for _ in range(draws):
        for name, estimate in pool.draw(counts, generator).measured(metrics).items():
            seen[name].append(estimate)
    return {name: _coverage(truths[name], estimates) for name, estimates in seen.items()}


def _coverage(truth: float, estimates: Sequence) -> Coverage:
    told = [estimate for estimate in estimates if estimate.ci95 is not None]
    null = 1 - len(told) / len(estimates)
    if len(told) < 2:
        return Coverage(truth, None, null, None, None)
    values = [estimate.value for estimate in told]
    holds = statistics.mean(estimate.ci95[0] <= truth <= estimate.ci95[1] for estimate in told)
    deviation = statistics.stdev(values)
    spread = statistics.mean(estimate.stderr for estimate in told) / deviation if deviation else None
    return Coverage(truth, holds, null, statistics.mean(values) / truth - 1 if truth else None, spread)


def pool_of(model: str, source: str, **options) -> Pool:
    """Look at a whole data set with a model, and take the Jacobian of every image.

    Args:
        model: as on the command line.
        source: as on the command line.
        options: flat options of an audit.

    Returns:
        The pool.
    """
    spec = AuditSpec.from_options(model=model, source=source, gc_rtol=0, **options)
    found = observe(Runner(load_encoder(spec.model), spec.run), open_data(spec.source), spec.pass_settings("source")).evidence
    energies = None
    if found.energies is not None:
        assert len(found.energies) == found.images
        energies = torch.empty_like(found.energies)
        energies[found.energy_rows] = found.energies
    logits = None
    if found.predictions is not None:
        logits = torch.nn.functional.one_hot(found.predictions.clamp(min=0), found.classes).double()
        logits[found.predictions < 0] = -1
    return Pool(found.embeddings[slice(None)], found.labels, energies, logits)


def table(cells: Mapping[str, Mapping[str, Coverage]], metrics: Sequence[str]) -> str:
    """Write coverages as Markdown: a row a design, a column a metric; what misses 0.92 to 0.98 is bold."""

    def cell(found: Coverage) -> str:
        if found.holds is None:
            return "null"
        text = f"{found.holds:.2f}".lstrip("0") if found.holds < 1 else "1"
        text = text if 0.92 <= found.holds <= 0.98 else f"**{text}**"
        return text + (f" (null {found.null:.0%})" if found.null > 0.05 else "")

    lines = [f"| images a class | {' | '.join(metrics)} |", f"|---|{'---|' * len(metrics)}"]
    lines += [f"| {name} | {' | '.join(cell(found[metric]) for metric in metrics)} |" for name, found in cells.items()]
    return "\n".join(lines) + "\n"


def designs(text: str, classes: int) -> dict[str, list[int]]:
    """Read `3,10,10:100`: as many of each class, or from the first number to the second in equal ratios."""
    found = {}
    for part in text.split(","):
        low, _, high = part.partition(":")
        first, last = int(low), int(high or low)
        steps = max(1, classes - 1)
        found[part] = [round(first * (last / first) ** (number / steps)) for number in range(classes)]
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--arch")
    parser.add_argument("--source", required=True)
    parser.add_argument("--source-split")
    parser.add_argument("--data-root")
    parser.add_argument("--max-images", type=int, help="take a class-balanced pool of so many")
    parser.add_argument("--images", default="3,10,50,10:100")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--metrics", default=",".join(METRICS))
    parser.add_argument("--json", type=Path, help="also write every figure there")
    given = parser.parse_args()
    options = {"arch": given.arch, "source_split": given.source_split, "data_root": given.data_root}
    options["source_max_images"] = given.max_images
    pool = pool_of(given.model, given.source, **{name: value for name, value in options.items() if value is not None})
    metrics = tuple(given.metrics.split(","))
    if pool.logits is None:
        metrics = tuple(name for name in metrics if name != "head_accuracy")
    cells = {
        name: cover(pool, counts, given.draws, metrics)
        for name, counts in designs(given.images, int(pool.labels.max()) + 1).items()
    }
    print(table(cells, metrics), end="")
    if given.json is not None:
        content = {name: {metric: vars(found) for metric, found in row.items()} for name, row in cells.items()}
        given.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
