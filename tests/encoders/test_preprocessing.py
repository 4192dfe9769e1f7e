import io
import math
import pickle

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from timm.data import ImageDataset
from timm.data.transforms_factory import create_transform

from gcaudit.encoders.preprocessing import (
    CROP_MODES,
    INTERPOLATIONS,
    PARTS,
    Preprocessing,
    crop_share,
    override,
    picture_transform,
    preprocessing_from,
)
from gcaudit.errors import RequestError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def preprocessing(**changes):
    return Preprocessing(**{"input_size": (3, 48, 48), "mean": MEAN, "std": STD} | changes)


def noise(mode, size=(97, 61)):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 3)
    if mode in ("L", "P"):
        return Image.fromarray(values[..., 0]).convert(mode)
    if mode == "CMYK":
        return Image.fromarray(values, "RGBA").convert("RGB").convert("CMYK")
    return Image.fromarray(values, "RGBA").convert(mode)


def save_picture(folder, mode, rotated=False):
    suffix = "jpg" if mode == "CMYK" or rotated else "png"
    options = {}
    if rotated:
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif
    noise(mode).save(folder / f"picture.{suffix}", **options)
    return folder / f"picture.{suffix}"


PICTURES = [("RGB", False), ("L", False), ("P", False), ("RGBA", False), ("I;16", False), ("CMYK", False), ("RGB", True)]


@pytest.mark.parametrize(("mode", "rotated"), PICTURES)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_of_timm(tmp_path, mode, rotated, channels):
    path = save_picture(tmp_path, mode, rotated)
    with Image.open(path) as picture:
        assert picture.mode == mode
        assert picture.getexif().get(0x0112) == (6 if rotated else None)
        ours = preprocessing(input_size=(channels, 48, 48), mean=MEAN[:channels], std=STD[:channels])
        pixels = picture_transform(ours)(picture)
    theirs = create_transform(
        (channels, 48, 48), is_training=False, interpolation="bicubic", crop_pct=0.875, mean=MEAN[:channels], std=STD[:channels]
    )
    files = [(io.BytesIO(path.read_bytes()), 0)]
    data = ImageDataset("", reader=files, transform=theirs, input_img_mode="RGB" if channels == 3 else "L")
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (channels, 48, 48)
    assert torch.allclose(ours.normalize(pixels / 255), data[0][0], atol=1e-6)


@pytest.mark.parametrize("mode", CROP_MODES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(3, 32, 32), (3, 24, 40)])
def test_every_resize_is_that_of_timm(mode, interpolation, size):
    ours = preprocessing(input_size=size, interpolation=interpolation, crop_pct=0.9, crop_mode=mode)
    theirs = create_transform(
        size, is_training=False, interpolation=interpolation, crop_pct=0.9, crop_mode=mode, mean=MEAN, std=STD
    )
    picture = noise("RGB")
    assert torch.allclose(ours.normalize(picture_transform(ours)(picture) / 255), theirs(picture), atol=1e-6)


def test_transform_can_be_sent_to_workers():
    transform = picture_transform(preprocessing())
    assert torch.equal(pickle.loads(pickle.dumps(transform))(noise("RGB")), transform(noise("RGB")))


WEIGHTS = [
    w for name in torchvision.models.list_models(module=torchvision.models) for w in torchvision.models.get_model_weights(name)
]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_resize_of_every_torchvision_preset_can_be_said(weights):
    preset = weights.transforms()
    (crop,), (resize,) = preset.crop_size, preset.resize_size
    assert math.floor(crop / crop_share(resize, crop)) == resize
    assert preset.interpolation.value in INTERPOLATIONS


@pytest.mark.parametrize(
    "name",
    [
        "ResNet50_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V2",
        "Swin_T_Weights.IMAGENET1K_V1",
        "EfficientNet_B1_Weights.IMAGENET1K_V2",
        "Inception_V3_Weights.IMAGENET1K_V1",
        "ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1",
    ],
)
@pytest.mark.parametrize("size", [(640, 427), (301, 400), (120, 90)])
def test_pixels_are_those_of_torchvision(name, size):
    preset = torchvision.models.get_weight(name).transforms()
    (crop,), (resize,) = preset.crop_size, preset.resize_size
    ours = preprocessing(
        input_size=(3, crop, crop),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        crop_pct=crop_share(resize, crop),
        interpolation=preset.interpolation.value,
    )
    picture = noise("RGB", size)
    assert torch.allclose(ours.normalize(picture_transform(ours)(picture) / 255), preset(picture), atol=1e-5)


def test_crop_share_says_every_resize():
    wrong = [
        (crop, resize)
        for crop in range(1, 130)
        for resize in range(crop, 260)
        if math.floor(crop / crop_share(resize, crop)) != resize
    ]
    assert wrong == []
    assert crop_share(256, 224) == 224 / 256


def test_normalisation_in_the_type_of_the_pixels():
    pixels = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    inputs = preprocessing().normalize(pixels)
    assert inputs.dtype == torch.float64
    for c in range(3):
        assert torch.allclose(inputs[:, c] * STD[c] + MEAN[c], pixels[:, c], rtol=0, atol=1e-15)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_image_mode(channels, mode):
    assert preprocessing(input_size=(channels, 8, 8), mean=(0.5,) * channels, std=(0.5,) * channels).image_mode == mode


def test_image_mode_of_other_channels():
    odd = preprocessing(input_size=(4, 8, 8), mean=(0.5,) * 4, std=(0.5,) * 4)
    with pytest.raises(
        RequestError, match="expected an encoder of 1 or 3 channels for pictures, found 4; pass tensors from Python"
    ):
        _ = odd.image_mode


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"input_size": (3, 48)}, r"expected an input size of \(channels, height, width\), found \(3, 48\)"),
        ({"input_size": (3, 0, 48)}, "expected an input size of"),
        ({"mean": (0.5,)}, "expected 3 numbers for --mean and --std, one a channel; found 1 and 3"),
        ({"std": (0.5,) * 4}, "found 3 and 4"),
        ({"std": (0.5, 0.0, 0.5)}, r"expected --std above 0, found \(0.5, 0.0, 0.5\)"),
        ({"std": (0.5, -1.0, 0.5)}, "expected --std above 0"),
        ({"std": (0.5, math.nan, 0.5)}, "expected finite numbers for --mean and --std"),
        ({"mean": (0.5, math.inf, 0.5)}, "expected finite numbers for --mean and --std"),
        ({"interpolation": "random"}, "expected --interpolation of nearest, bilinear, .*; found 'random'"),
        ({"crop_mode": "corner"}, "expected a crop mode of center, squash, border; found 'corner'"),
        ({"crop_pct": 0.0}, "expected --crop-pct above 0 and at most 2, found 0.0"),
        ({"crop_pct": 2.1}, "expected --crop-pct above 0 and at most 2, found 2.1"),
        ({"crop_pct": math.nan}, "expected --crop-pct above 0"),
    ],
)
def test_numbers_out_of_range(changes, pattern):
    with pytest.raises(RequestError, match=pattern):
        preprocessing(**changes)


FULL = {"input_size": (3, 32, 40), "mean": MEAN, "std": STD, "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"}


def test_configuration_is_read():
    found = preprocessing_from(FULL, "checkpoint")
    assert found == Preprocessing((3, 32, 40), MEAN, STD, "bilinear", 1.0, "squash", "checkpoint", assumed=())


def test_configuration_without_anything_is_that_of_imagenet():
    found = preprocessing_from({}, "architecture")
    assert found.input_size == (3, 224, 224)
    assert found.mean == (0.485, 0.456, 0.406)
    assert found.std == (0.229, 0.224, 0.225)
    assert (found.interpolation, found.crop_pct, found.crop_mode, found.assumed) == ("bicubic", 0.875, "center", PARTS)


@pytest.mark.parametrize(
    ("missing", "assumed"),
    [*((part, (part,)) for part in PARTS), ("crop_mode", ())],
)
@pytest.mark.parametrize("as_none", [True, False])
def test_what_is_assumed(missing, assumed, as_none):
    config = FULL | {missing: None} if as_none else {key: value for key, value in FULL.items() if key != missing}
    assert preprocessing_from(config, "checkpoint").assumed == assumed
    said = set(FULL) - {missing}
    assert preprocessing_from(FULL, "architecture", said=said).assumed == assumed  # a default that nobody has said


@pytest.mark.parametrize(
    ("config", "channels", "size", "mean", "assumed"),
    [
        ({"input_size": [32, 40]}, None, (3, 32, 40), MEAN, ()),
        ({"input_size": (1, 28, 28), "mean": 0.3, "std": 0.3}, None, (1, 28, 28), (0.3,), ()),
        ({"input_size": (1, 28, 28), "mean": [0.3], "std": [0.3]}, 1, (1, 28, 28), (0.3,), ()),
        ({"mean": [0.3], "std": 0.3}, None, (3, 32, 40), (0.3,) * 3, ()),
        ({"mean": [0.5] * 3, "std": [0.5] * 3}, 1, (1, 32, 40), (0.5,), ()),
        ({}, 1, (1, 32, 40), (pytest.approx(0.4),), ("mean", "std")),
        ({}, 4, (4, 32, 40), (pytest.approx(0.4),) * 4, ("mean", "std")),
        ({"mean": "0.5"}, None, (3, 32, 40), (0.5,) * 3, ()),
    ],
)
def test_numbers_are_fitted_to_the_channels(config, channels, size, mean, assumed):
    found = preprocessing_from(FULL | config, "checkpoint", channels)
    assert (found.input_size, found.mean, found.assumed) == (size, mean, assumed)


@pytest.mark.parametrize(
    "config",
    [
        {"mean": ["a", "b", "c"]},
        {"mean": [None] * 3},
        {"std": {"r": 1}},
        {"crop_pct": "most"},
        {"crop_pct": [1]},
        {"input_size": 32},
        {"input_size": [1, 2, 3, 4]},
        {"input_size": ["a", 3, 3]},
        {"input_size": [3, math.inf, 32]},
        {"mean": [10**400] * 3},
    ],
)
def test_configuration_of_wrong_kinds(config):
    with pytest.raises(RequestError, match="expected numbers as preprocessing in the checkpoint, found "):
        preprocessing_from(FULL | config, "checkpoint")


def test_nothing_typed_changes_nothing():
    found = preprocessing()
    assert override(found, {}) is found
    assert override(found, {"mean": None, "crop_pct": None}) is found


@pytest.mark.parametrize(
    ("changes", "attribute", "value"),
    [
        ({"input_size": (16, 20)}, "input_size", (3, 16, 20)),
        ({"mean": (0.1,)}, "mean", (0.1,) * 3),
        ({"std": (0.1, 0.2, 0.3)}, "std", (0.1, 0.2, 0.3)),
        ({"crop_pct": 1.0}, "crop_pct", 1.0),
        ({"interpolation": "nearest"}, "interpolation", "nearest"),
    ],
)
def test_what_is_typed_wins(changes, attribute, value):
    before = preprocessing(origin="checkpoint")
    after = override(before, changes)
    assert getattr(after, attribute) == value
    assert after.origin == "checkpoint, command line"
    others = set(FULL) - {attribute}
    assert all(getattr(after, name) == getattr(before, name) for name in others)


def test_typed_numbers_are_checked():
    with pytest.raises(RequestError, match="expected 3 numbers for --mean and --std, one a channel; found 2 and 3"):
        override(preprocessing(), {"mean": (0.1, 0.2)})
    with pytest.raises(RequestError, match="expected an input size of"):
        override(preprocessing(), {"input_size": (16,)})


@pytest.mark.parametrize(
    ("changes", "assumed"),
    [
        ({"mean": (0.5,)}, ("input_size", "std", "crop_pct", "interpolation")),
        ({"mean": (0.5,), "std": (0.5,)}, ("input_size", "crop_pct", "interpolation")),
        ({"input_size": (8, 8), "crop_pct": 1.0, "interpolation": "bilinear"}, ("mean", "std")),
        ({"mean": (0.5,), "std": (0.5,), "input_size": (8, 8)}, ("crop_pct", "interpolation")),
    ],
)
def test_each_part_is_assumed_until_it_is_typed(changes, assumed):
    assert override(preprocessing(assumed=PARTS), changes).assumed == assumed
    assert override(preprocessing(assumed=()), changes).assumed == ()


def test_pictures_of_the_inputs_size_are_left_alone_unless_a_crop_was_asked_for():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8))
    whole = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert torch.equal(picture_transform(preprocessing(crop_pct=0.875, assumed=("crop_pct",)))(picture), whole)
    assert not torch.equal(picture_transform(preprocessing(crop_pct=0.875))(picture), whole)
    grey = picture_transform(Preprocessing((1, 48, 48), (0.5,), (0.5,), assumed=("crop_pct",)))(picture)
    assert torch.equal(grey, torch.from_numpy(np.array(picture.convert("L")))[None])


@pytest.mark.parametrize(("size", "refused"), [((9000, 1), True), ((1, 9000), True), ((500, 20), False), ((48, 48), False)])
def test_pictures_out_of_all_proportion_are_not_blown_up(size, refused):
    transform = picture_transform(preprocessing(crop_pct=0.875))
    if refused:
        with pytest.raises(ValueError, match=f"found one of {size[0]} x {size[1]}"):
            transform(Image.new("RGB", size))
    else:
        assert transform(Image.new("RGB", size)).shape == (3, 48, 48)
