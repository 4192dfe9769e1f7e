"""Energies: the squared Frobenius norm of the Jacobian of an embedding, image by image.

    g(x) = ||J(x)||_F^2 = E ||J(x)^T v||^2    for random v with E[v v^T] = I

so that each vector costs one vector-Jacobian product (VJP) in reverse mode, whatever D is. Drawing the vectors
(`sketch_vectors`, `output_vectors`) and using them (`squared_vjps`) are separate, so that the use is tested exactly and the draw by
its second moment.

    exact    the D unit vectors, summed: no noise, D VJPs
    sketch   m rows of a randomly signed, randomly ordered Hadamard matrix, averaged
    outputs  m of the D outputs drawn without replacement, times D/m: the paper's sampling
    entries  m of the D*d entries drawn with replacement, times D*d/m: the paper's too, for the study of estimators only

The noise of `sketch` comes only from the off-diagonal entries of J J^T, that of `outputs` from how unequal the outputs'
gradients are, which in trained networks is far more, and that of `entries` from how unequal all entries are.

`exact` needs D backward passes through one graph. A batch of a few images leaves the machine idle, so each image is put into the batch
`copies` times and its copies take different unit vectors: the forward pass is repeated, the D backward passes, which are nearly all of the
work, run at the batch size that suits the machine. Unlike batched gradients by vmap this works for every network.

References: Munn, Dherin, Gonzalvo, NeurIPS 2024 (`outputs`); Hutchinson, "A stochastic estimator of the trace of the influence
matrix", Communications in Statistics 1989; Yu, Suresh et al., "Orthogonal random features", NeurIPS 2016 (signed Hadamard rows).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor

from gcaudit.errors import RequestError
from gcaudit.geometry.counter import derive_seed, random_bits, random_order_keys

Estimator = Literal["sketch", "exact", "outputs", "entries"]
_DETACHED = (
    "expected an embedding that is differentiable in the pixels, found one that does not depend on them "
    "(computed under no_grad, or from something else); choose another --layer"
)
ESTIMATORS: tuple[Estimator, ...] = ("sketch", "exact", "outputs")
"""What an audit offers."""
STUDY_ESTIMATORS: tuple[Estimator, ...] = (*ESTIMATORS, "entries")
"""What `energies` offers."""


def vectors_per_image(estimator: Estimator, vectors: int, dim: int) -> tuple[Estimator, int]:
    """Settle how many VJPs an image takes.

    Args:
        estimator: as asked for.
        vectors: m, as asked for; ignored by `exact`.
        dim: D.

    Returns:
        The estimator used and its VJPs an image; m >= D is `exact`, except for `entries`.
    """
    if vectors < 1:
        raise RequestError(f"expected at least 1 vector an image, found {vectors}; pass --vectors 1 or more")
    if estimator == "exact" or (vectors >= dim and estimator != "entries"):
        return "exact", dim
    return estimator, vectors


def _first_of_order(index: Tensor, count: int, size: int, seed: int) -> Tensor:
    """Return the first `count` places of each image's own random order of 0..size-1, shape (N, count)."""
    keys = random_order_keys(seed, index[:, None], torch.arange(size, device=index.device))
    return torch.topk(keys, count, dim=1, largest=False, sorted=True).indices


def sketch_vectors(index: Tensor, dim: int, vectors: int, seed: int) -> Tensor:
    """Draw rows of a signed Hadamard matrix, a pure function of (seed, image index, vector number).

    v_k = s * H[pi(k)] with H the Hadamard matrix of the next power of two P >= D, its first D columns used, s random signs and pi
    a random order of its rows. E[v_k v_k^T] = I; the mean over all P rows of (v_k^T a)^2 is |a|^2 without noise.

    Args:
        index: (N,) int64 index of each image in its data set.
        dim: D.
        vectors: m <= P.
        seed: the seed of the run.

    Returns:
        (m, N, D) float32 of +1 and -1.
    """
    size = 1 << (dim - 1).bit_length()
    if not 1 <= vectors <= size:
        raise RequestError(f"expected 1 to {size} sketch vectors for an embedding of {dim}, found {vectors}")
    rows = _first_of_order(index, vectors, size, derive_seed(seed, "sketch rows"))
    column = torch.arange(dim, device=index.device)
    parity = rows.T[:, :, None] & column
    for shift in (16, 8, 4, 2, 1):
        parity = parity ^ (parity >> shift)
    words = torch.arange((dim + 63) // 64, device=index.device)
    bits = random_bits(derive_seed(seed, "sketch signs"), index[:, None], words)
    signs = bits[:, column // 64] >> (column % 64)
    return (1 - 2 * ((parity ^ signs) & 1)).to(torch.float32)


def output_vectors(index: Tensor, dim: int, vectors: int, seed: int) -> Tensor:
    """Draw distinct outputs, as sqrt(D) times unit vectors.

    Args:
        index: (N,) int64 index of each image in its data set.
        dim: D.
        vectors: m <= D.
        seed: the seed of the run.

    Returns:
        (m, N, D) float32; E[v_k v_k^T] = I.
    """
    if not 1 <= vectors <= dim:
        raise RequestError(f"expected 1 to {dim} outputs for an embedding of {dim}, found {vectors}")
    outputs = _first_of_order(index, vectors, dim, derive_seed(seed, "outputs"))
    drawn = torch.zeros(vectors, len(index), dim, device=index.device)
    return drawn.scatter_(2, outputs.T[:, :, None], dim**0.5)


def unit_vectors(dim: int, images: int, copies: int = 1, device: torch.device | str = "cpu") -> Iterator[Tensor]:
    """Yield the D unit vectors, `copies` of them at a time.

    Args:
        dim: D.
        images: N.
        copies: rows an image has in the batch, one after the other.
        device: where they are made.

    Yields:
        ceil(D / copies) tensors (N * copies, D), zero in rows for which no unit vector is left. Over all of them, the squared VJPs of an
        image's rows sum to its exact energy.
    """
    for start in range(0, dim, copies):
        units = torch.zeros(copies, dim, device=device)
        count = min(copies, dim - start)
        units[:count, start : start + count] = torch.eye(count, device=device)
        yield units.repeat(images, 1)


def _pixel_gradients(embeddings: Tensor, inputs: Tensor, vectors: Iterable[Tensor], keep_graph: bool = False) -> Iterator[Tensor]:
    """Yield J(x)^T v for each v, keeping the graph until the last, or for good."""
    if not embeddings.requires_grad:
        raise RequestError(_DETACHED)
    waiting = iter(vectors)
    vector = next(waiting, None)
    while vector is not None:
        following = next(waiting, None)
        direction = vector.to(embeddings).expand_as(embeddings)
        keep = keep_graph or following is not None
        (gradient,) = torch.autograd.grad(embeddings, inputs, direction, retain_graph=keep, allow_unused=True)
        if gradient is None:
            raise RequestError(_DETACHED)
        yield gradient
        vector = following


def _squared_norms(gradient: Tensor) -> Tensor:
    """Sum the squares of each image's entries.

    Rows of pixels are summed in the gradient's own precision, about their largest entry so that nothing overflows or vanishes, and these sums
    in float64: a copy of the whole gradient in float64 would cost more than all of this.
    """
    if gradient.ndim < 4:
        return gradient.flatten(1).to(torch.float64).square().sum(1)
    kind = torch.float32 if gradient.dtype in (torch.float16, torch.bfloat16) else gradient.dtype
    largest = gradient.abs().amax((1, 2, 3), keepdim=True).to(kind).clamp(min=torch.finfo(kind).tiny)
    rows = (gradient / largest).square().sum(-1)
    return rows.flatten(1).to(torch.float64).sum(1) * largest.flatten().to(torch.float64).square()


def squared_vjps(embeddings: Tensor, inputs: Tensor, vectors: Iterable[Tensor], keep_graph: bool = False) -> Tensor:
    """Sum ||J(x)^T v||^2 over vectors, image by image, on the graph that made the embeddings.

    Args:
        embeddings: (N, D), differentiable with respect to `inputs`; no image may depend on another.
        inputs: (N, ...) with requires_grad.
        vectors: tensors of shape (N, D) or (D,).
        keep_graph: for a further use of the graph.

    Returns:
        (N,) float64, in squared embedding units per squared pixel unit.

    Raises:
        RequestError: the embedding does not depend on the pixels.
    """
    total = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    for gradient in _pixel_gradients(embeddings, inputs, vectors, keep_graph):
        total += _squared_norms(gradient)
    return total


def entry_places(index: Tensor, dim: int, pixels: int, entries: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw entries of the Jacobian, with replacement.

    Args:
        index: (N,) int64 index of each image in its data set.
        dim: D.
        pixels: d.
        entries: m.
        seed: the seed of the run.

    Returns:
        (N, m) int64 outputs and (N, m) int64 pixels; the mean of J^2 there, times D*d, is unbiased for the energy.
    """
    draw = torch.arange(entries, device=index.device)
    output = random_order_keys(derive_seed(seed, "entry outputs"), index[:, None], draw) % dim
    return output, random_order_keys(derive_seed(seed, "entry pixels"), index[:, None], draw) % pixels


def _squared_entries(embeddings: Tensor, inputs: Tensor, index: Tensor, count: int, seed: int) -> Tensor:
    """Sum `count` entries of J squared, weighted to be unbiased; (N,) float64."""
    dim, pixels = embeddings.shape[1], inputs[0].numel()
    output, place = entry_places(index, dim, pixels, count, seed)
    units = (torch.nn.functional.one_hot(column, dim) for column in output.T)
    total = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    for column, gradient in zip(place.T, _pixel_gradients(embeddings, inputs, units), strict=True):
        total += gradient.flatten(1).gather(1, column[:, None])[:, 0].to(torch.float64).square()
    return total * dim * pixels


def copies_per_image(estimator: Estimator, dim: int, images: int, rows: int) -> int:
    """Settle how often `exact` puts each image into a batch.

    Args:
        estimator: as settled by `vectors_per_image`.
        dim: D.
        images: N.
        rows: rows that a batch may have, which is what bounds the memory.

    Returns:
        As many copies as fit, at most D; 1 for the estimators of few vectors.
    """
    return max(1, min(dim, rows // max(1, images))) if estimator == "exact" else 1


def batch_energies(
    embeddings: Tensor,
    inputs: Tensor,
    index: Tensor,
    *,
    estimator: Estimator,
    vectors: int,
    seed: int,
    copies: int = 1,
    keep_graph: bool = False,
) -> Tensor:
    """Measure the energies of a batch whose forward pass has been done.

    Args:
        embeddings: (N * copies, D), on the graph of `inputs`.
        inputs: (N * copies, ...) with requires_grad; the copies of an image follow each other.
        index: (N,) int64 index of each image in its data set.
        estimator: `exact`, `sketch`, `outputs` or `entries`.
        vectors: m; ignored by `exact`.
        seed: the seed of the run.
        copies: rows of each image, see `copies_per_image`; 1 unless exact.
        keep_graph: for a further use of the graph.

    Returns:
        (N,) float64 energies.
    """
    dim = embeddings.shape[1]
    estimator, count = vectors_per_image(estimator, vectors, dim)
    if estimator == "exact":
        units = unit_vectors(dim, len(index), copies, embeddings.device)
        return squared_vjps(embeddings, inputs, units, keep_graph).view(len(index), copies).sum(1)
    index = index.to(embeddings.device)
    if estimator == "entries":
        return _squared_entries(embeddings, inputs, index, count, seed) / count
    draw = sketch_vectors if estimator == "sketch" else output_vectors
    return squared_vjps(embeddings, inputs, draw(index, dim, count, seed), keep_graph) / count


def never_alone(images: Tensor, index: Tensor, copies: int) -> tuple[Tensor, Tensor]:
    """Put an image that would be a batch of one beside itself.

    torch 2.14 on a CPU gives a wrong gradient of batch_norm in eval mode for a batch of one whose gradient comes transposed (convolution,
    batch_norm, flatten(2).transpose(1, 2)). `tests/geometry/test_jacobian.py` tells when that has been mended.

    Args:
        images: (N, ...).
        index: (N,) int64.
        copies: rows of each image.

    Returns:
        Images and indices: as given, or the only one twice; what comes of the second is to be left out.
    """
    if len(images) * copies != 1:
        return images, index
    return torch.cat((images, images)), torch.cat((index, index))


def energies(
    embed: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    seed: int = 0,
    vectors: int = 1,
    estimator: Estimator = "sketch",
    index: Tensor | None = None,
    batch_size: int = 64,
) -> Tensor:
    """Measure g(x), the sum of squares of all entries of the Jacobian of an embedding, for each image.

    Each image's random vectors depend on (seed, its index, vector number) alone, so batch size and order change nothing
    but rounding. Unbiased for every `vectors`; `exact` has no noise.

    Args:
        embed: maps (N, ...) images to (N, D) embeddings, treating each image alone (BatchNorm in eval mode).
        images: (N, ...) floating point; derivatives are taken with respect to these numbers.
        seed: of the random vectors.
        vectors: VJPs an image.
        estimator: `sketch`, `exact`, `outputs` or `entries`.
        index: (N,) int64 index of each image in its data set; 0..N-1 when None.
        batch_size: rows per pass; `exact` fills them with copies of the images when these are fewer.

    Returns:
        (N,) float64 energies; scaling the embedding by a scales them by a^2.

    Raises:
        RequestError: the embedding is not (N, D) or does not depend on the images.

    Example:
        >>> weight = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
        >>> energies(lambda x: x @ weight.T, torch.zeros(1, 2), estimator="exact").item()
        25.0
    """
    if estimator not in STUDY_ESTIMATORS:
        raise RequestError(f"expected an estimator of {', '.join(STUDY_ESTIMATORS)}, found {estimator!r}")
    index = torch.arange(len(images)) if index is None else index
    found = []
    for start in range(0, len(images), batch_size):
        given = images[start : start + batch_size].detach()
        copies = 1
        if estimator == "exact":
            with torch.no_grad():
                copies = copies_per_image(estimator, embed(given[:1]).shape[-1], len(given), batch_size)
        count = len(given)
        given, places = never_alone(given, index[start : start + batch_size], copies)
        x = given.repeat_interleave(copies, 0).requires_grad_()
        with torch.enable_grad():
            z = embed(x)
            if z.ndim != 2 or len(z) != len(x):
                raise RequestError(f"expected embeddings of shape ({len(x)}, D), found {tuple(z.shape)}")
            options = {"estimator": estimator, "vectors": vectors, "seed": seed, "copies": copies}
            found.append(batch_energies(z, x, places, **options)[:count])  # type: ignore[arg-type]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
