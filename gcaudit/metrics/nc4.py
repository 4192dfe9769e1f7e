"""NC4: how often the model's own head says the class whose mean is nearest.

Share of images whose largest output of the head, bias included as in the paper, is that of the class with the nearest class mean (Euclidean;
the image itself is part of its mean; ties go to the class that comes first). Classes of the data have equal weight here as everywhere in this
package; the published codes give images equal weight, and leave the bias out. An answer outside of the classes of the data never agrees.

A head that says one class to every image, such as a head without bias on embeddings far from the origin, would agree with 1/K of images
and tell nothing: there is no value.

Reference: Papyan, Han, Donoho, "Prevalence of neural collapse during the terminal phase of deep learning training", PNAS 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcaudit.geometry import ONE_IMAGE, Estimate, Evidence, balanced_proportion, chunks, means_reason, missing, nearest_mean_share


def nearest_means(evidence: Evidence) -> Tensor:
    """Return the class whose mean is nearest to each image.

    Args:
        evidence: any.

    Returns:
        (N,) int64 in 0..K-1.
    """
    centre = evidence.moments.means.mean(0)
    means = evidence.moments.means - centre
    nearest = torch.empty(evidence.images, dtype=torch.int64)
    for rows, embeddings in chunks(evidence.embeddings):
        nearest[rows] = torch.cdist(embeddings - centre, means, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    return nearest


def nc4(evidence: Evidence) -> Estimate:
    """Measure the agreement of the head with the nearest class mean.

    With the class means of the distribution; the head is fixed.

    Args:
        evidence: with predictions; at least two classes with at least 3 images each.

    Returns:
        The estimate, from 0 to 1 (collapsed); higher is better. `plug_in` is the share by the class means of the images at hand.
    """
    if evidence.predictions is None:
        return missing(evidence.predictions_reason, evidence.images)
    reason = means_reason(evidence)
    if reason:
        return missing(reason, evidence.images)
    if bool((evidence.predictions == evidence.predictions[0]).all()):
        return missing("the model's head says the same class for every image", evidence.images)
    agrees = evidence.predictions == nearest_means(evidence)
    plug_in = balanced_proportion(agrees, evidence.labels, evidence.classes)
    if bool((evidence.moments.counts < 2).any()):
        return missing(ONE_IMAGE, evidence.images, plug_in=plug_in.value)
    return nearest_mean_share(evidence, evidence.predictions, plug_in.value)
