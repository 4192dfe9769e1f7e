"""Slow, obvious definitions in float64, one loop per sum. What gcaudit computes is compared with these."""

import itertools
import math

import numpy as np
import torch


def by_class(embeddings, labels):
    z, y = np.asarray(embeddings, dtype=np.float64), np.asarray(labels)
    return [z[y == c] for c in sorted(set(y.tolist()))]


def means(groups):
    return [group.mean(0) for group in groups]


def variances(groups, ddof=0):
    return [((group - group.mean(0)) ** 2).sum() / (len(group) - ddof) for group in groups]


def ordered_pairs(count):
    return list(itertools.permutations(range(count), 2))


def cdnv(embeddings, labels):
    groups = by_class(embeddings, labels)
    mu, v = means(groups), variances(groups)
    pairs = ordered_pairs(len(groups))
    return sum((v[i] + v[j]) / (2 * ((mu[i] - mu[j]) ** 2).sum()) for i, j in pairs) / len(pairs)


def cdnv_debiased(embeddings, labels):
    groups = by_class(embeddings, labels)
    mu, u, n = means(groups), variances(groups, ddof=1), [len(group) for group in groups]
    pairs = ordered_pairs(len(groups))
    total = 0.0
    for i, j in pairs:
        total += (u[i] + u[j]) / 2 / (((mu[i] - mu[j]) ** 2).sum() - u[i] / n[i] - u[j] / n[j])
    return total / len(pairs)


def class_gc(energies, labels):
    g, y = np.asarray(energies, dtype=np.float64), np.asarray(labels)
    return [g[y == c].mean() for c in sorted(set(y.tolist()))]


def gc(energies, labels):
    return float(np.mean(class_gc(energies, labels)))


def relative_gc(embeddings, energies, labels):
    groups = by_class(embeddings, labels)
    grand = np.mean(means(groups), axis=0)
    total = np.mean([((group - grand) ** 2).sum(1).mean() for group in groups])
    return gc(energies, labels) / total


def geometric_collapse(embeddings, energies, labels):
    mu = means(by_class(embeddings, labels))
    unordered = sum(1 / ((mu[i] - mu[j]) ** 2).sum() for i, j in itertools.combinations(range(len(mu)), 2))
    return gc(energies, labels) / (len(mu) - 1) * unordered


def geometric_collapse_refined(embeddings, energies, labels):
    mu, g = means(by_class(embeddings, labels)), class_gc(energies, labels)
    pairs = ordered_pairs(len(mu))
    return sum((g[i] + g[j]) / (2 * ((mu[i] - mu[j]) ** 2).sum()) for i, j in pairs) / len(pairs)


def poincare_lower_bound(embeddings, energies, labels):
    return max(v / g for v, g in zip(variances(by_class(embeddings, labels)), class_gc(energies, labels), strict=True))


def ncm_accuracy(embeddings, labels):
    """Leave-one-out by really leaving each image out."""
    z, y = np.asarray(embeddings, dtype=np.float64), np.asarray(labels)
    classes = sorted(set(y.tolist()))
    shares = []
    for c in classes:
        hits = 0
        for row in np.flatnonzero(y == c):
            keep = np.arange(len(y)) != row
            distances = [np.linalg.norm(z[row] - z[keep & (y == k)].mean(0)) for k in classes]
            hits += int(np.argmin(distances)) == classes.index(c)
        shares.append(hits / (y == c).sum())
    return float(np.mean(shares))


def energies(function, images):
    """Squared Frobenius norm of the Jacobian of each image, row by row."""
    found = []
    for image in images:
        x = image[None].clone().requires_grad_()
        total = 0.0
        for output in function(x)[0]:
            (row,) = torch.autograd.grad(output, x, retain_graph=True)
            total += float(row.to(torch.float64).square().sum())
        found.append(total)
    return np.array(found)


def ridge_predictions(support, targets, queries, ridge):
    """Primal ridge regression on centred one-hot targets; returns the class of each query."""
    x, q = np.asarray(support, dtype=np.float64), np.asarray(queries, dtype=np.float64)
    y = np.eye(max(targets) + 1)[targets]
    centre = x.mean(0)
    x = x - centre
    penalty = ridge * (x**2).sum() / len(x)
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y - y.mean(0)))
    return ((q - centre) @ weights + y.mean(0)).argmax(1)


def splitmix(seed, *counters):
    """The counter-based hash in Python's own integers."""
    mask = 2**64 - 1

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    state = mix((seed + 0x9E3779B97F4A7C15) & mask)
    for counter in counters:
        state = mix(state ^ mix((counter + 0x9E3779B97F4A7C15) & mask))
    return state - 2**64 if state >= 2**63 else state


def hadamard(size):
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def stratified_bootstrap(statistic, labels, repeats, seed):
    """Standard deviation of a statistic of row numbers under resampling within classes."""
    rng, y = np.random.default_rng(seed), np.asarray(labels)
    rows = [np.flatnonzero(y == c) for c in sorted(set(y.tolist()))]
    values = [statistic(np.concatenate([rng.choice(r, len(r)) for r in rows])) for _ in range(repeats)]
    return float(np.std(values)) * math.sqrt(len(rows[0]) / (len(rows[0]) - 1))


def jackknife(statistic, labels):
    """Standard error by leaving out each image in turn, class by class; the statistic is of the rows that stay."""

    def left_out(row):
        return statistic(np.delete(np.arange(len(labels)), row))

    return _spread(left_out, labels)


def weight_jackknife(statistic, labels):
    """The same where the others of the class take over the image's weight; the statistic is of weights that sum to 1."""

    def left_out(row):
        weights = np.ones(len(labels)) / len(labels)
        own = np.asarray(labels) == labels[row]
        weights[own] *= own.sum() / (own.sum() - 1)
        weights[row] = 0
        return statistic(weights)

    return _spread(left_out, labels)


def _spread(left_out, labels):
    total = 0.0
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        values = np.array([left_out(row) for row in rows])
        total += (len(rows) - 1) / len(rows) * ((values - values.mean()) ** 2).sum()
    return total**0.5
