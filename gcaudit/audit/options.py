"""The options of an audit by the flat names that people type, and where in an `AuditSpec` each belongs.

One list for the command line (with dashes), for keyword arguments in Python, for YAML files and for a report's settings. Nothing here is heavy
to import: `--help` reads it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gcaudit.audit.option import Option
from gcaudit.audit.option_values import read_value
from gcaudit.errors import RequestError, suggest

MODEL, DATA, GC, PROBE, RUN = "Model", "Data", "Geometric complexity", "Few-shot probe", "Running"

OPTIONS: tuple[Option, ...] = (
    Option(
        "arch",
        ("model.arch",),
        "text",
        MODEL,
        "what a bare state dict is: timm:NAME, torchvision:NAME, FILE.py:FACTORY; auto finds it by names and shapes",
        unset="what the file says, or its names and shapes",
    ),
    Option(
        "arch_args",
        ("model.arch_args",),
        "pairs",
        MODEL,
        "KEY=VALUE for the architecture; repeatable",
        metavar="KEY=VALUE",
        flags="--arch-arg",
        unset="none",
    ),
    Option("ema", ("model.ema",), "flag", MODEL, "take averaged weights", False, flags="--ema/--no-ema"),
    Option(
        "weights_key",
        ("model.weights_key",),
        "text",
        MODEL,
        "where the weights lie in the file, such as teacher",
        metavar="NAME",
        unset="the network's own weights; several sets are a warning",
    ),
    Option(
        "prefix",
        ("model.prefix",),
        "text",
        MODEL,
        "what stands before the network's names in the file",
        metavar="TEXT",
        unset="found by names and shapes",
    ),
    Option("allow_missing", ("model.allow_missing",), "flag", MODEL, "missing and unexpected keys are a warning", False),
    Option("max_parameters", ("model.max_parameters",), "whole", MODEL, "largest network to build", unset="what the file may fill"),
    Option(
        "layer",
        ("model.layer",),
        "text",
        MODEL,
        "take this layer's output instead of the classifier's input",
        unset="the classifier's input",
    ),
    Option(
        "mean",
        ("model.changes.mean",),
        "numbers",
        MODEL,
        "override, such as 0.485,0.456,0.406",
        metavar="NUMBERS",
        unset="what the checkpoint or architecture says",
    ),
    Option(
        "std",
        ("model.changes.std",),
        "numbers",
        MODEL,
        "override, such as 0.229,0.224,0.225",
        metavar="NUMBERS",
        unset="what the checkpoint or architecture says",
    ),
    Option(
        "input_size",
        ("model.changes.input_size",),
        "size",
        MODEL,
        "override, such as 224 or 224x160",
        metavar="SIZE",
        unset="what the checkpoint or architecture says",
    ),
    Option("crop_pct", ("model.changes.crop_pct",), "number", MODEL, "override", unset="what the checkpoint or architecture says"),
    Option(
        "interpolation",
        ("model.changes.interpolation",),
        "text",
        MODEL,
        "override: bilinear, bicubic, ...",
        unset="what the checkpoint or architecture says",
    ),
    Option("source_split", ("source.split",), "text", DATA, "split of the source", unset="train of known names, else all"),
    Option("source_classes", ("source.classes",), "classes", DATA, "such as 0-9,12 or names", unset="all"),
    Option("source_max_images", ("source.max_images",), "whole", DATA, "class-balanced draw", unset="all"),
    Option(
        "source_test",
        ("held_out.spec",),
        "text",
        DATA,
        "further images of the source's classes, for the error that --metrics theory bounds",
        metavar="DATA",
        unset="none",
    ),
    Option("source_test_split", ("held_out.split",), "text", DATA, "its split", unset="test of known names, else all"),
    Option("source_test_max_images", ("held_out.max_images",), "whole", DATA, "class-balanced draw", unset="all"),
    Option("target_split", ("target.split",), "text", DATA, "split of the target", unset="test of known names, else all"),
    Option("target_classes", ("target.classes",), "classes", DATA, "such as 0-9,12 or names", unset="all"),
    Option("target_max_images", ("target.max_images",), "whole", DATA, "class-balanced draw", unset="all"),
    Option(
        "max_images",
        ("source.max_images", "target.max_images", "held_out.max_images"),
        "whole",
        DATA,
        "the same for all data sets",
        shorthand=True,
        unset="all",
    ),
    Option(
        "data_root",
        ("source.root", "target.root", "held_out.root"),
        "text",
        DATA,
        "where known data sets lie",
        unset="$GCAUDIT_DATA, ./data, /usr/share/datasets",
    ),
    Option(
        "follow_links",
        ("source.follow_links", "target.follow_links", "held_out.follow_links"),
        "flag",
        DATA,
        "also read pictures that are links out of their folder",
        False,
    ),
    Option(
        "drop_duplicates",
        ("source.drop_duplicates", "target.drop_duplicates"),
        "flag",
        DATA,
        "leave out images whose stored bytes came before, in the data set or, for the target, in the source",
        False,
    ),
    Option(
        "source_image_key",
        ("source.image_key",),
        "text",
        DATA,
        "column or part that holds images",
        unset="found by names and types",
    ),
    Option(
        "source_label_key",
        ("source.label_key",),
        "text",
        DATA,
        "column or part that holds labels",
        unset="found by names and types",
    ),
    Option("target_image_key", ("target.image_key",), "text", DATA, "the same of the target", unset="found by names and types"),
    Option("target_label_key", ("target.label_key",), "text", DATA, "the same of the target", unset="found by names and types"),
    Option(
        "image_key",
        ("source.image_key", "target.image_key"),
        "text",
        DATA,
        "the same for all data sets",
        shorthand=True,
        metavar="NAME",
        unset="found by names and types",
    ),
    Option(
        "label_key",
        ("source.label_key", "target.label_key"),
        "text",
        DATA,
        "the same for all data sets",
        shorthand=True,
        metavar="NAME",
        unset="found by names and types",
    ),
    Option(
        "source_class_map",
        ("source.class_map",),
        "text",
        DATA,
        "CSV of classes and what each becomes, for coarse labels",
        metavar="FILE",
        unset="none",
    ),
    Option("target_class_map", ("target.class_map",), "text", DATA, "the same of the target", metavar="FILE", unset="none"),
    Option(
        "streaming",
        ("source.streaming", "target.streaming", "held_out.streaming"),
        "flag",
        DATA,
        "read hf:ID as a stream, and keep no more of it than is used",
        False,
    ),
    Option("skip_bad_images", ("passes.skip_bad_images",), "flag", DATA, "count damaged images, do not stop", False),
    Option("gc", ("run.estimator",), "text", GC, "sketch, exact or outputs", "sketch"),
    Option("vectors", ("run.vectors",), "whole", GC, "vector-Jacobian products an image", 1),
    Option(
        "gc_images",
        ("passes.gc_images",),
        "whole",
        GC,
        "at most so many images whose Jacobian is taken, or 'all'",
        word="all",
        metavar="N|all",
    ),
    Option(
        "gc_rtol",
        ("passes.gc_rtol",),
        "number",
        GC,
        "stop when GC's standard error is below this share of GC; 0 goes on",
        0.02,
        metavar="SHARE",
    ),
    Option("target_gc", ("target_gc",), "flag", GC, "take the Jacobian on the target too", False),
    Option("input_space", ("run.input_space",), "text", GC, "gradients in: pixel or normalized", "pixel"),
    Option("n_way", ("probe.n_way",), "whole", PROBE, "classes an episode", 5),
    Option("n_shot", ("probe.n_shot",), "wholes", PROBE, "support images a class; 1,5,20 gives the curve", (5,), metavar="N[,N]"),
    Option("n_query", ("probe.n_query",), "whole", PROBE, "queries a class, or 'all'", 15, word="all", metavar="N|all"),
    Option("episodes", ("probe.episodes",), "whole", PROBE, "how many", 1000),
    Option("ridge", ("probe.ridge",), "number", PROBE, "penalty, relative to the embedding's scale", 1.0),
    Option("metrics", ("metrics",), "names", RUN, "names from 'gcaudit metrics', with commas", metavar="NAMES", unset="core"),
    Option("device", ("run.device",), "text", RUN, "auto, cpu, cuda, cuda:1, ...", "auto"),
    Option("precision", ("run.precision",), "text", RUN, "float32, tf32, bfloat16 or float64", "float32"),
    Option("batch_size", ("run.batch_size",), "whole", RUN, "images a batch, or 'auto'", word="auto", metavar="N|auto"),
    Option("compile", ("run.compile",), "flag", RUN, "compile the network with torch.compile", False),
    Option("workers", ("passes.workers",), "whole", RUN, "decoding processes", unset="by the number of cores"),
    Option(
        "seed", ("run.seed", "probe.seed", "source.seed", "target.seed", "held_out.seed"), "whole", RUN, "of every random draw", 0
    ),
)
"""Every option, in the order of the help and of a report's settings."""
DATASET_OPTIONS = (
    "source_split",
    "source_classes",
    "source_max_images",
    "data_root",
    "follow_links",
    "drop_duplicates",
    "source_image_key",
    "source_label_key",
    "image_key",
    "label_key",
    "source_class_map",
    "streaming",
)
"""Those that say which images a data set is."""
_SHORTHANDS = {
    option.name: [other.name for other in OPTIONS if not other.shorthand and set(other.places) <= set(option.places)]
    for option in OPTIONS
    if option.shorthand
}


def options_under(place: str) -> tuple[Option, ...]:
    """List the options that set one part of an `AuditSpec` alone.

    Args:
        place: such as `model` or `source`.

    Returns:
        The options, in the order of the list.
    """
    return tuple(option for option in OPTIONS if all(at.split(".")[0] == place for at in option.places))


def check_options(names: Iterable[str]) -> None:
    """Check that options that were typed are known.

    Args:
        names: as keyword arguments.

    Raises:
        RequestError: one is unknown.
    """
    known = [option.name for option in OPTIONS]
    for name in names:
        if name not in known:
            raise RequestError(f"expected an option of an audit, found {name!r}; {suggest(name, known)}")


def expand_shorthands(given: Mapping[str, Any]) -> dict[str, Any]:
    """Replace options that stand for others by these; what is said of one of them alone wins.

    Args:
        given: values by flat name.

    Returns:
        The same options without shorthands.
    """
    found = {name: value for name, value in given.items() if name not in _SHORTHANDS}
    for name, others in _SHORTHANDS.items():
        if name in given:
            found = dict.fromkeys(others, given[name]) | found
    return found


def place_options(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sort options by the part of an `AuditSpec` that they set.

    Args:
        given: values by flat name.

    Returns:
        For each part the values of its fields; those of the spec itself under the empty name.

    Raises:
        RequestError: a name is unknown.
    """
    check_options(given)
    parts: dict[str, dict[str, Any]] = {}
    options = expand_shorthands(given)
    for option in OPTIONS:
        if option.name in options:
            for place in option.places:
                part, _, name = place.rpartition(".")
                parts.setdefault(part, {})[name] = read_value(option, options[option.name])
    return parts
