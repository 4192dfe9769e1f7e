"""What can be computed of the paper's bound for new classes.

Proposition 5.1 bounds the geometric collapse that target classes can be expected to have, where source and target classes are drawn from one distribution of
classes. Of its terms there can be computed, for the classes at hand: GC on source, target and both; the smallest squared distance of class means over all
classes, by which GC is divided; the number of source classes, with which the bound falls. There cannot: the complexity of the family of networks
that training could have ended in (a Rademacher complexity, as of the source's loss alone), the distribution of classes over which it takes the expectation,
and the Poincare constant of that distribution (`poincare_lower_bound` estimates the least that is possible). So it is no bound that is given, but
its part that depends on the model at hand.

Reference: Munn, Dherin, Gonzalvo, NeurIPS 2024, proposition 5.1; Galanti, Gyorgy, Hutter, "On the role of neural collapse in transfer learning", ICLR 2022.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gcaudit.errors import folded
from gcaudit.geometry import ClassSummary, Estimate, missing, squared_distances

_NO_ENERGIES = "the Jacobian was not measured on the {role}{how}"


def gc_over_least_distance(source: ClassSummary, target: ClassSummary) -> Estimate:
    """Measure GC over all classes, divided by the smallest squared distance of class means over all classes.

    GC is the mean of GC_c over the K source and L target classes together. The squared distance has no bias for a pair, d_ij^2 - u_i/n_i - u_j/n_j; the smallest
    of noisy ones is rather too small, so that the value is rather too large. A class that source and target share is left out of the pairs with
    itself: the proposition is about new classes.

    Args:
        source: of the source's classes, at least two images each, with energies.
        target: of the target's classes.

    Returns:
        The estimate, per squared pixel unit; invariant under scale, rotation and shift of the embedding. `terms` are the parts, also where the value is
        None: `gc_source`, `gc_target`, `gc_both`, `least_squared_distance`, `source_classes` and, where there are any, `shared_classes`.
    """
    images = int(source.counts.sum() + target.counts.sum())
    if reason := source.reason or target.reason:
        return missing(reason, images)
    least, pair, shared = _least(source, target)
    terms = {"source_classes": float(len(source.names))} | ({"shared_classes": float(shared)} if shared else {})
    parts = {"source": source.complexities, "target": target.complexities}
    terms |= {f"gc_{role}": float(found.mean()) for role, found in parts.items() if found is not None}
    if math.isfinite(least):
        terms["least_squared_distance"] = least
    absent = [role for role, found in parts.items() if found is None]
    if absent:
        how = "; score with --target-gc" if absent == ["target"] else ""
        return missing(_NO_ENERGIES.format(role=" and ".join(absent), how=how), images, terms=terms)
    terms["gc_both"] = float(torch.cat([found for found in parts.values() if found is not None]).mean())
    if math.isinf(least):
        return missing("there is no pair of different classes", images, terms=terms)
    if not least > 0:
        return missing(f"classes {pair[0]!r} and {pair[1]!r} cannot be told apart by these images", images, terms=terms)
    value = terms["gc_both"] / least
    if not math.isfinite(value):
        return missing("the value is beyond the range of 64-bit floating point", images)
    return Estimate(value, n=images, details={"terms": terms})


def _least(source: ClassSummary, target: ClassSummary) -> tuple[float, tuple[str, str], int]:
    """Return the smallest unbiased squared distance over all pairs of classes, which pair has it, and how many classes are in both data sets."""
    names = (*source.names, *target.names)
    shares: Tensor = torch.cat([side.variances / side.counts.sum(0) for side in (source, target)])
    squared = squared_distances(torch.cat([source.whole, target.whole])) - shares[:, None] - shares[None, :]
    squared.fill_diagonal_(math.inf)
    known = {
        folded(name): place for place, name in enumerate(source.names) if not name.isdecimal()
    }  # numbers say nothing across data sets
    both = [(known[folded(name)], len(source.names) + place) for place, name in enumerate(target.names) if folded(name) in known]
    for first, second in both:
        squared[first, second] = squared[second, first] = math.inf
    place = int(torch.argmin(squared))
    return float(squared.flatten()[place]), (names[place // len(names)], names[place % len(names)]), len(both)
