"""gcaudit: audit pre-trained vision checkpoints for transfer.

    gcaudit.score(model, source=..., target=...) -> Report
    gcaudit.measure(embeddings, labels) -> {metric: Estimate}
    gcaudit.energies(embed, images) -> energies of the images
    gcaudit.flatness(network, batches) -> slope and sharpness of the loss
    gcaudit.regularizers.GeometricComplexity(weight) -> a penalty for training
    gcaudit.compare(models, sources, targets) -> Comparison
    gcaudit.gate(report, rules, baseline) -> GateResult

Names are imported when they are first used, so that `gcaudit --help` need not wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
