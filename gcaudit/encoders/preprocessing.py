"""From a picture to the pixels an encoder takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import create_transform
from torch import Tensor

from gcaudit.errors import RequestError, one_line

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
CROP_MODES = ("center", "squash", "border")
PARTS = ("input_size", "mean", "std", "crop_pct", "interpolation")
_MOST_CHANNELS = 4096
_MOST_PIXELS = 2**24
_MODES = {1: "L", 3: "RGB"}


@final
@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop and normalisation of an encoder, in timm's terms.

    Attributes:
        input_size: (C, H, W).
        mean: C numbers in pixel scale [0, 1].
        std: C numbers in pixel scale [0, 1].
        interpolation: of the resize, as PIL calls it.
        crop_pct: the resized edge is floor(H / crop_pct) before the centre crop of H.
        crop_mode: `center` keeps the aspect ratio and cuts, `squash` stretches, `border` pads.
        origin: where it comes from.
        assumed: which of `PARTS` neither the checkpoint nor the user has said; a crop goes with its mode.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    origin: str = "architecture"
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            RequestError: something is out of range.
        """
        if len(self.input_size) != 3 or min(self.input_size) < 1:
            raise RequestError(f"expected an input size of (channels, height, width), found {self.input_size}")
        channels = self.input_size[0]
        if len(self.mean) != channels or len(self.std) != channels:
            found = f"{len(self.mean)} and {len(self.std)}"
            raise RequestError(f"expected {channels} numbers for --mean and --std, one a channel; found {found}")
        if not all(map(math.isfinite, (*self.mean, *self.std))):
            raise RequestError(f"expected finite numbers for --mean and --std, found {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise RequestError(f"expected --std above 0, found {self.std}")
        if self.interpolation not in INTERPOLATIONS:
            raise RequestError(f"expected --interpolation of {', '.join(INTERPOLATIONS)}; found {self.interpolation!r}")
        if self.crop_mode not in CROP_MODES:
            raise RequestError(f"expected a crop mode of {', '.join(CROP_MODES)}; found {self.crop_mode!r}")
        if not 0 < self.crop_pct <= 2:
            raise RequestError(f"expected --crop-pct above 0 and at most 2, found {self.crop_pct}")

    @property
    def leaves_input_size(self) -> bool:
        """Whether pictures of the input's size are neither resized nor cropped: where nobody has asked for a crop."""
        return "crop_pct" in self.assumed

    @property
    def image_mode(self) -> str:
        """The PIL mode that pictures are converted to.

        Raises:
            RequestError: the encoder takes neither 1 nor 3 channels.
        """
        if self.input_size[0] not in _MODES:
            raise RequestError(
                f"expected an encoder of 1 or 3 channels for pictures, found {self.input_size[0]}; pass tensors from Python"
            )
        return _MODES[self.input_size[0]]

    def normalize(self, pixels: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation.

        Args:
            pixels: (N, C, H, W) in [0, 1].

        Returns:
            The network's own input, same shape.
        """
        return self.normalizer(pixels.device, pixels.dtype)(pixels)

    def normalizer(self, device: torch.device, kind: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Return `normalize` with its constants already on a device: to bring them there makes the host wait.

        Args:
            device: of the pixels.
            kind: of the pixels.

        Returns:
            A function of (N, C, H, W) pixels.
        """
        mean = torch.tensor(self.mean, dtype=kind, device=device)[:, None, None]
        std = torch.tensor(self.std, dtype=kind, device=device)[:, None, None]
        return lambda pixels: (pixels - mean) / std


@final
@dataclass(frozen=True)
class PictureTransform:
    """Makes uint8 pixels of a PIL picture as timm's evaluation loaders do; can be sent to worker processes.

    Attributes:
        preprocessing: resize and crop.
        pipeline: timm's transform.
    """

    preprocessing: Preprocessing
    pipeline: Any

    @property
    def grey(self) -> bool:
        """Whether colours are lost."""
        return self.preprocessing.image_mode == "L"

    def __call__(self, picture: Image.Image) -> Tensor:
        """Convert, resize and crop; a picture of the input's size is neither resized nor cropped unless a crop has been asked for.

        Args:
            picture: of any mode.

        Returns:
            (C, H, W) uint8.

        Raises:
            ValueError: resizing the shorter edge would make a picture out of all proportion.
        """
        wanted = self.preprocessing
        _, height, width = wanted.input_size
        edge = max(height, width) / wanted.crop_pct
        if wanted.crop_mode != "squash" and edge**2 * max(picture.size) / min(picture.size) > max(
            _MOST_PIXELS, 64 * height * width
        ):
            raise ValueError(
                f"expected a picture that can be resized and cropped, found one of {picture.size[0]} x {picture.size[1]}"
            )
        converted = picture.convert(wanted.image_mode)
        if picture.size == (width, height) and wanted.leaves_input_size:
            return _to_tensor(converted)
        pixels: Tensor = self.pipeline(converted)
        return pixels


def _to_tensor(picture: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def picture_transform(preprocessing: Preprocessing) -> PictureTransform:
    """Build the transform of a preprocessing.

    Args:
        preprocessing: resize and crop.

    Returns:
        A callable from PIL pictures to (C, H, W) uint8.
    """
    pipeline = create_transform(
        preprocessing.input_size,
        is_training=False,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
        mean=preprocessing.mean,
        normalize=False,
    )
    return PictureTransform(preprocessing, pipeline)


def crop_share(resize: int, crop: int) -> float:
    """Find the crop_pct for which floor(crop / crop_pct) is the given resize.

    Args:
        resize: the shorter edge after resizing.
        crop: the edge of the crop.

    Returns:
        crop / resize, moved to a neighbouring number where rounding asks for it.
    """
    share = crop / resize
    while math.floor(crop / share) < resize:
        share = math.nextafter(share, 0)
    return share


def _numbers(values: Any, channels: int) -> tuple[tuple[float, ...], bool]:
    """Fit per-channel numbers to the channel count; says whether that took an assumption."""
    given = tuple(float(value) for value in (values if isinstance(values, list | tuple) else [values]))
    if len(given) == channels:
        return given, False
    return (sum(given) / len(given),) * channels, len(set(given)) > 1


def preprocessing_from(
    config: Mapping[str, Any], origin: str, channels: int | None = None, said: Collection[str] | None = None
) -> Preprocessing:
    """Read timm's configuration keys; what is absent is assumed as timm does.

    Args:
        config: input_size, mean, std, interpolation, crop_pct or, before it, resize_size (pixels of the shorter edge), crop_mode, each optional.
        origin: where the configuration comes from.
        channels: of the encoder; those of input_size when None.
        said: keys that the checkpoint or the user has said; None takes those that are there.

    Returns:
        The preprocessing; assumed is what was not said, or did not fit.

    Raises:
        RequestError: a value is out of range or of a wrong type.
    """
    try:
        size = tuple(int(n) for n in config.get("input_size") or (3, 224, 224))
        size = (3, *size) if len(size) == 2 else size
        if len(size) != 3:
            raise ValueError(f"an input size of {len(size)} numbers")
        if not 1 <= (channels or size[0]) <= _MOST_CHANNELS:
            raise ValueError(f"an input of {channels or size[0]} channels")
        channels = channels or size[0]
        mean, guessed_mean = _numbers(config.get("mean") or IMAGENET_DEFAULT_MEAN, channels)
        std, guessed_std = _numbers(config.get("std") or IMAGENET_DEFAULT_STD, channels)
        resize = config.get("resize_size")
        crop_pct = crop_share(int(resize), size[1]) if resize else float(config.get("crop_pct") or 0.875)
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"expected numbers as preprocessing in the {origin}, found {one_line(error)}") from None
    known = {key for key in (PARTS if said is None else said) if config.get(key) is not None}
    known |= {"crop_pct"} if resize else set()
    known -= {key for key, guessed in (("mean", guessed_mean), ("std", guessed_std)) if guessed}
    return Preprocessing(
        input_size=(channels, size[1], size[2]),
        mean=mean,
        std=std,
        interpolation=str(config.get("interpolation") or "bicubic"),
        crop_pct=crop_pct,
        crop_mode=str(config.get("crop_mode") or "center"),
        origin=origin,
        assumed=tuple(part for part in PARTS if part not in known),
    )


def override(preprocessing: Preprocessing, changes: Mapping[str, Any]) -> Preprocessing:
    """Apply what the user typed.

    Args:
        preprocessing: as found.
        changes: mean, std, input_size (H, W), crop_pct, interpolation; None is no change.

    Returns:
        The preprocessing to use; what was given is no longer assumed.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    if not given:
        return preprocessing
    channels = preprocessing.input_size[0]
    if "input_size" in given:
        given["input_size"] = (channels, *given["input_size"])
    for key in ("mean", "std"):
        if key in given and len(given[key]) == 1:
            given[key] = given[key] * channels
    assumed = tuple(part for part in preprocessing.assumed if part not in given)
    return replace(preprocessing, **given, origin=f"{preprocessing.origin}, command line", assumed=assumed)
