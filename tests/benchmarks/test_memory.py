"""Memory against the number of images: a million of them in a fresh process."""

import json
import subprocess
import sys

STREAM = '''
import json, resource, sys, time
import torch
from torch import nn
from gcaudit.data import ImageSet
from gcaudit.encoders import ModelRequest, load_encoder
from gcaudit.metrics import find_metrics, measure_evidence
from gcaudit.metrics.ridge import ProbeSettings
from gcaudit.passes import PassSettings, Runner, RunSettings, observe

CLASSES, DIM = 1000, 2048
METRICS = ("gc", "relative_gc", "cdnv", "cdnv_debiased", "geometric_collapse", "geometric_collapse_refined", "poincare_lower_bound")

class Endless:
    """Images made of their number: a pattern of the class, and noise."""
    def read(self, row):
        noise = (torch.arange(16) * 2654435761 + row * 40503) * (row % 977 + 3) >> 7
        pattern = (torch.arange(16) * 7919 + 1) * (row % CLASSES * 104729 + 11) >> 5
        return (pattern % 180 + noise % 70).to(torch.uint8).view(1, 4, 4)
    def where(self, row):
        return f"image {row}"

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix, self.head = nn.Linear(16, DIM), nn.Linear(DIM, 7)
        self.mix.weight.data = torch.randn(DIM, 16, generator=generator)
        self.pretrained_cfg = {"input_size": (1, 4, 4), "mean": (0.5,), "std": (0.25,), "crop_pct": 1.0}
    def forward(self, x):
        return self.head(torch.relu(self.mix(x.flatten(1))))

count = int(sys.argv[1])
labels = torch.arange(count) % CLASSES
images = ImageSet("stream", None, "stream", Endless(), labels, torch.arange(count), tuple(map(str, range(CLASSES))), tuple(range(CLASSES)), CLASSES)
runner = Runner(load_encoder(ModelRequest(Wide())), RunSettings(batch_size=250))
began = time.perf_counter()
found = observe(runner, images, PassSettings(workers=0))
after_pass = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
estimates = measure_evidence(found.evidence, find_metrics(METRICS), ProbeSettings())
print(json.dumps({
    "pass": after_pass, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "seconds": time.perf_counter() - began,
    "reasons": [estimate.reason for estimate in estimates.values() if estimate.stderr is None],
}))
'''


def stream(count):
    result = subprocess.run([sys.executable, "-c", STREAM, str(count)], capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def test_a_million_images(benchmark, report):
    """Bound: 100 MB more than 20,000 images take, K = 1000 and D = 2048, with values, standard errors and influences of seven metrics."""
    few = stream(20_000)
    many = benchmark.pedantic(lambda: stream(1_000_000), rounds=1)
    report(
        growth_mib=many["peak"] - few["peak"],
        growth_of_the_pass_mib=many["pass"] - few["pass"],
        peak_mib=many["peak"],
        embeddings_mib=1_000_000 * 2048 * 4 / 2**20,
        seconds=many["seconds"],
    )
    assert many["reasons"] == few["reasons"] == []
    assert many["peak"] - few["peak"] < 100 * 1e6 / 2**20
