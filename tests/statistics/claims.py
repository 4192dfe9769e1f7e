"""What gates and rankings say of models that are equal: how often they are wrong, over many draws of images.

    python tests/statistics/claims.py [--draws 1000] [--only looser,probe,letters,gates,unbalanced,tails] [--model MODEL --arch ARCH --source DATA]

Each line is a share that should be at most 5%, or a coverage that should be 95%:

    looser      a model against the same with dimensions of noise, of equal geometric collapse: how often paired intervals tell them apart
    probe       two models of equal few-shot accuracy on the same images: how often their letters differ
    letters     10 and 50 equal models, each with its own noise: how often two have different letters
    gates       an equal model against a baseline, by 2, 5 and 10 rules: how often the gate fails
    unbalanced  accuracy where a rare class is hard: how often the interval holds the truth
    tails       GC where few images hold most of it: how often the interval holds the truth, or is withheld

`looser` takes the embeddings of a real model when one is given.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import gcaudit
from gcaudit.audit.blocks import metric_value
from gcaudit.gate.contrast import joint_covariance
from gcaudit.gate.rules import parse_name, parse_rule
from gcaudit.geometry.proportion import balanced_proportion
from gcaudit.geometry.stopping import relative_error
from gcaudit.metrics.measuring import measure
from gcaudit.metrics.ridge import ProbeSettings
from gcaudit.report import Report
from gcaudit.report.evidence import ReportEvidence
from gcaudit.zoo.letters import letters_of, told_apart

CLASSES, DIMS = 6, 12
RULES = (
    *("source.cdnv", "target.probe_accuracy", "source.geometric_collapse", "target.ncm_accuracy", "source.gc"),
    *("source.directional_cdnv", "source.relative_gc", "target.cdnv", "source.ncm_accuracy", "source.nc2"),
)


def draw(rng: np.random.Generator, per_class: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw what one model sees: round classes around fixed centres, and energies."""
    centres = np.random.default_rng(11).normal(size=(CLASSES, DIMS))
    labels = np.repeat(np.arange(CLASSES), per_class)
    noise = rng.normal(size=(len(labels), DIMS)) * spread
    return centres[labels] + noise, labels, rng.gamma(3.0, size=len(labels))


def report_of(template: Report, blocks: dict[str, dict], seed: int = 0) -> Report:
    """Put estimates of both roles into the form of a report."""
    influences, episodes, parts = {}, {}, {}
    for role, estimates in blocks.items():
        for name, estimate in estimates.items():
            if estimate.influence is not None:
                influences[f"{role}.{name}"] = estimate.influence.numpy()
            if estimate.given_pool is not None:
                episodes[f"{role}.{name}"] = estimate.given_pool.influence.numpy()
        values = {name: metric_value(estimate) for name, estimate in estimates.items()}
        parts[role] = template.blocks()[role].model_copy(update={"metrics": values})
    found = template.model_copy(update={**parts, "settings": {**template.settings, "seed": seed}})
    return found.with_evidence(ReportEvidence(influences, {}, episodes))


def looser(draws: int, pool: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None) -> None:
    """Compare a model with itself and 200 dimensions of noise."""
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    for images in (20, 50, 100):
        apart = better = told = 0
        for _ in range(draws):
            if pool is None:
                z, labels, energies = map(torch.from_numpy, draw(rng, images))
            else:
                rows = [torch.nonzero(pool[1] == c).flatten() for c in range(int(pool[1].max()) + 1)]
                chosen = torch.cat([row[torch.randint(len(row), (images,), generator=generator)] for row in rows])
                z, labels, energies = (part[chosen] for part in pool)
            z = z.double()
            centres = torch.stack([z[labels == c].mean(0) for c in range(int(labels.max()) + 1)])
            distances = torch.pdist(centres).square()
            deviation = float((1 / (1 / distances).mean() / 60).sqrt())
            noise = deviation * torch.randn(len(z), 200, generator=generator, dtype=torch.float64)
            a, b = (
                measure(x, labels, metrics=["geometric_collapse"], energies=energies)["geometric_collapse"]
                for x in (z, torch.cat((z, noise), 1))
            )
            if a.influence is None or b.influence is None:
                continue
            told += 1
            apart += abs(a.value - b.value) > 1.96 * float((a.influence - b.influence).norm())
            better += b.details["plug_in"] < a.details["plug_in"]
        kind = "the model given" if pool is not None else "round classes"
        print(
            f"looser, {kind}, {images} images a class: told apart {apart / told:.1%}; plug-in flatters in {better / told:.0%}",
            flush=True,
        )


def probe(draws: int, template: Report) -> None:
    """Rank two models of equal accuracy."""
    rng = np.random.default_rng(1)
    rule = parse_name("target.probe_accuracy", "a metric")
    for images in (20, 50, 200):
        apart = pooled = 0
        for _ in range(draws):
            reports = []
            for _ in range(2):
                z, labels, _ = draw(rng, images, 2.2)
                reports.append(
                    report_of(template, {"target": measure(z, labels, metrics=["probe_accuracy"], probe=ProbeSettings())})
                )
            values = [report.target.metrics["probe_accuracy"] for report in reports]
            numbers = np.array([value.value for value in values])
            apart += told_apart(numbers, joint_covariance(reports, rule, values)[0]).any()
            pool = parse_rule("target.probe_accuracy >= 0 given the pool")
            pooled += told_apart(numbers, joint_covariance(reports, pool, values)[0]).any()
        print(
            f"probe, {images} images a class: different letters {apart / draws:.1%}; given the pool {pooled / draws:.0%}",
            flush=True,
        )


def letters(draws: int, template: Report) -> None:
    """Rank many equal models."""
    rng = np.random.default_rng(2)
    rule = parse_rule("source.geometric_collapse <= 1")
    for models in (3, 10, 50):
        wrong = 0
        for _ in range(draws):
            reports = []
            for _ in range(models):
                z, labels, energies = draw(rng, 20)
                found = measure(z, labels, metrics=["geometric_collapse"], energies=energies)
                reports.append(report_of(template, {"source": found}))
            values = [report.source.metrics["geometric_collapse"] for report in reports]
            covariance, _ = joint_covariance(reports, rule, values)
            wrong += len(set(letters_of(told_apart(np.array([value.value for value in values]), covariance)))) > 1
        print(f"letters, {models} equal models: more than one letter in {wrong / draws:.1%}", flush=True)


def gates(draws: int, template: Report) -> None:
    """Judge a model that is no worse."""
    rng = np.random.default_rng(3)
    names = {role: sorted({rule.split(".")[1] for rule in RULES if rule.startswith(role)}) for role in ("source", "target")}
    failed = {2: 0, 5: 0, 10: 0}
    for _ in range(draws):
        reports = []
        for _ in range(2):
            blocks = {}
            for role, metrics in names.items():
                z, labels, energies = draw(rng, 30, 1.0 if role == "source" else 2.0)
                probe_ = ProbeSettings(episodes=300)
                blocks[role] = measure(z, labels, metrics=metrics, energies=energies, probe=probe_)
            reports.append(report_of(template, blocks))
        for count in failed:
            rules = [f"{name} regression <= 0%" for name in RULES[:count]]
            failed[count] += not gcaudit.gate(reports[0], rules, reports[1]).passed
    for count, number in failed.items():
        print(f"gates, {count} rules and no change: failed {number / draws:.1%}", flush=True)


def unbalanced(draws: int) -> None:
    """Cover accuracies of classes that differ in size and difficulty."""
    rng = np.random.default_rng(4)
    for rare in (5, 10, 20):
        counts, rates = [100] * 9 + [rare], np.array([0.95] * 9 + [0.5])
        labels = torch.repeat_interleave(torch.arange(10), torch.tensor(counts))
        held = agree = 0
        for _ in range(draws):
            found = balanced_proportion(torch.from_numpy(rng.random(len(labels)) < rates[labels.numpy()]), labels, 10)
            held += found.ci95[0] <= rates.mean() <= found.ci95[1]
            agree += abs(found.value - rates.mean()) <= 1.96 * found.stderr
        print(
            f"unbalanced, a hard class of {rare} images: held {held / draws:.3f}; value -+ 1.96 stderr {agree / draws:.3f}",
            flush=True,
        )


def tails(draws: int) -> None:
    """Cover GC of energies whose largest 1% hold two thirds of it, and of milder ones."""
    rng = np.random.default_rng(5)
    wild = np.random.default_rng(0).pareto(1.1, 8000) + 1
    ordered = np.sort(wild)
    print(
        f"tails: in the wild pool 1% of {len(wild)} hold {ordered[-80:].sum() / ordered.sum():.0%}, median {np.median(wild):.2f}, mean {wild.mean():.2f}"
    )
    pools: dict[str, Callable[[int], np.ndarray]] = {
        "wild": lambda n: wild[rng.integers(0, len(wild), n)],
        "log-normal, sigma 1": lambda n: rng.lognormal(0, 1.0, n),
        "log-normal, sigma 0.6": lambda n: rng.lognormal(0, 0.6, n),
    }
    truths = {"wild": wild.mean(), "log-normal, sigma 1": np.exp(0.5), "log-normal, sigma 0.6": np.exp(0.18)}
    for name, pool in pools.items():
        for images in (140, 259, 511):
            labels = np.arange(images) % 7
            held = told = stops = 0
            for _ in range(draws):
                energies = pool(images)
                found = measure(np.zeros((images, 1)), labels, metrics=["gc"], energies=energies)["gc"]
                stops += relative_error(torch.from_numpy(energies), torch.from_numpy(labels), 7) < 0.1
                if found.ci95 is not None:
                    told += 1
                    held += found.ci95[0] <= truths[name] <= found.ci95[1]
            share = held / told if told else float("nan")
            print(
                f"tails, {name}, {images} images: withheld {1 - told / draws:.0%}, held where told {share:.3f}, held or withheld "
                f"{(held + draws - told) / draws:.3f}; the rule of 10% stops {stops / draws:.0%}",
                flush=True,
            )


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", default="looser,probe,letters,gates,unbalanced,tails")
    parser.add_argument("--model")
    parser.add_argument("--arch")
    parser.add_argument("--source")
    given = parser.parse_args()
    only = given.only.split(",")
    torch.set_num_threads(1)
    pool = None
    if given.model is not None:
        place = Path(__file__).with_name("coverage.py")
        spec = importlib.util.spec_from_file_location("interval_coverage", place)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        found = module.pool_of(given.model, given.source, **({} if given.arch is None else {"arch": given.arch}))
        pool = (found.embeddings, found.labels, found.energies)
    template = gcaudit.score("demo", "demo", "demo", episodes=20)
    actions = {
        "looser": lambda: looser(given.draws, pool),
        "probe": lambda: probe(given.draws, template),
        "letters": lambda: letters(given.draws, template),
        "gates": lambda: gates(given.draws, template),
        "unbalanced": lambda: unbalanced(given.draws),
        "tails": lambda: tails(given.draws),
    }
    for name in only:
        began = time.perf_counter()
        actions[name]()
        print(f"({name}: {given.draws} draws in {time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
