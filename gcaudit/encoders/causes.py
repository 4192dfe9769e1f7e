"""What an error advises: the likeliest cause, for the evidence at hand, of weights that do not fit and of a network that takes no image."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gcaudit.encoders.fit import Fit

Size = tuple[int, int, int]
_POSITIONS = ("pos_embed", "position_embedding", "pos_embedding", "relative_position", "rel_pos")
_CUSTOMARY_EDGES = (224, 32, 28, 64, 96, 128, 160, 256, 384)
_MEMORY_SIGNS = ("allocate memory", "out of memory", "ALLOC_FAILED")


def weights_cause(fit: Fit, lost: float) -> str:
    """Say why the weights of a file may not fit a network.

    Args:
        fit: what fits and what does not.
        lost: the share of the network's numbers that is missing.

    Returns:
        The likeliest cause, and what to do about it.
    """
    if not fit.tensors and not fit.misshapen:
        return "no name in the file is one of the network's: it holds another architecture, or names of another library; see --arch"
    if fit.misshapen and not fit.missing and not fit.unexpected:
        return _shapes_cause(fit)
    if not fit.misshapen and not fit.unexpected:
        return (
            f"{100 * lost:.0f}% of the weights are not in the file, which may hold a part of the network only; fetch the whole file"
        )
    names = len(fit.tensors) + len(fit.misshapen)
    return f"{names} names fit, {len(fit.tensors)} of them with their shapes: another variant of the architecture may be meant; see --arch and --arch-arg"


def spare_cause(fit: Fit) -> str:
    """Say what can be done about a file that has a little less or more than the network.

    Args:
        fit: nothing has another shape, and little is missing.

    Returns:
        What `--allow-missing` would do.
    """
    parts = []
    if fit.missing:
        parts.append("leaves what is missing at random")
    if fit.unexpected:
        parts.append("leaves out what is unexpected")
    return f"another --arch may fit whole; --allow-missing {' and '.join(parts)}"


def _shapes_cause(fit: Fit) -> str:
    if all(any(sign in name for sign in _POSITIONS) for name in fit.misshapen):
        return (
            "only position embeddings differ: training used another input size; build it for that one (timm: --arch-arg img_size=N)"
        )
    if len(fit.misshapen) == 1:
        ((found, own),) = fit.misshapen.values()
        if found.ndim == own.ndim == 4 and found.shape[0] == own.shape[0] and found.shape[2:] == own.shape[2:]:
            channels = found.shape[1]
            return f"only one convolution differs: training used images of {channels} channels; build it so (timm: --arch-arg in_chans={channels})"
    return "the names fit and the shapes do not: another variant of the architecture is meant; see --arch and --arch-arg"


def image_cause(size: Size, error: Exception, default: Size | None, takes: Callable[[Size], bool]) -> str:
    """Say why a network may not take an image.

    Args:
        size: (C, H, W) of the image.
        error: what it raised.
        default: (C, H, W) that its architecture names, if any.
        takes: tells whether the network takes an image of another size.

    Returns:
        The likeliest cause, and what to do about it.
    """
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _MEMORY_SIGNS):
        return "memory ran out; pass a smaller --input-size"
    if takes(size):
        return "its embedding cannot be taken of it, though it takes the image; name another --layer"
    for other in _other_sizes(size, default):
        if takes(other):
            if other[0] != size[0]:
                return f"it takes {other[0]} channels; give the module an attribute pretrained_cfg with input_size={other}"
            return f"it takes one of {'x'.join(str(edge) for edge in other)}; pass --input-size {other[1]}x{other[2]}"
    return "it takes none of the customary sizes either, so that its own code is at fault, or --arch-arg; run it on an image in Python to see where"


def _other_sizes(size: Size, default: Size | None) -> Iterable[Size]:
    """List the sizes to try: the architecture's own first, then squares and other numbers of channels."""
    channels = size[0]
    sizes: list[Size] = [] if default is None else [default]
    sizes += [(channels, edge, edge) for edge in _CUSTOMARY_EDGES]
    sizes += [(other, *size[1:]) for other in (3, 1, 4) if other != channels]
    return [one for one in dict.fromkeys(sizes) if one != size]
