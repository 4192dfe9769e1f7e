"""What a pass says of the sizes and conversions of its pictures."""

import pytest
import torch
from cases import TinyNet, tiny_images

import gcaudit
from gcaudit.data.batches import Batch
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.encoders.preprocessing import Preprocessing
from gcaudit.errors import DataError
from gcaudit.passes.remarks import Remarks

HALF = (0.5,) * 3


def said(sizes, *, assumed=(), shape=(3, 32, 32), remarks=()):
    """What is said of pictures of these sizes that went into an input of 32 x 32."""
    count = len(sizes)
    images = open_data(DataRequest((torch.zeros(count, *shape), torch.arange(count) % 2), "source"))
    found = Remarks(images, Preprocessing((3, 32, 32), HALF, HALF, assumed=assumed))
    place = torch.arange(count)
    digests, perceptual = (torch.zeros(count, width, dtype=torch.uint8) for width in (16, 32))
    found.update(Batch(torch.zeros(count, *shape), place, digests, perceptual, (), torch.tensor(sizes), remarks))
    return found


@pytest.mark.parametrize(
    ("sizes", "kinds"),
    [
        ([(32, 32)] * 4, []),
        ([(17, 40), (500, 400)], []),
        ([(15, 40), (32, 32)], ["picture-size"]),
        ([(600, 520), (32, 32)], ["picture-size"]),
        ([(600, 520), (8, 8)], ["picture-size", "picture-size"]),
        ([(0, 0)] * 2, []),
    ],
)
def test_pictures_of_quite_another_size_are_told(sizes, kinds):
    assert [warning.kind for warning in said(sizes).warnings()] == kinds


def test_the_warning_counts_and_names():
    (warning,) = said([(8, 9), (32, 32), (8, 9), (8, 9), (8, 9)]).warnings()
    assert (warning.count, warning.first) == (4, ("image 0 of the tensor", "image 2 of the tensor", "image 3 of the tensor"))
    assert (
        "4 pictures are much smaller (less than 1/2 of its side) than the input of 32 x 32 (the middle one 8 x 9)"
        in warning.message
    )


def test_an_assumed_crop_is_told_where_pictures_were_resized():
    assert said([(32, 32)] * 3, assumed=("crop_pct", "interpolation")).warnings() == []
    (warning,) = said([(32, 32), (40, 40)], assumed=("crop_pct", "interpolation")).warnings()
    assert (warning.kind, warning.count) == ("preprocessing", 1)
    assert "crop 0.875 and bicubic interpolation assumed for 1 pictures" in warning.message
    assert said([(32, 32), (40, 40)]).warnings() == []


def test_pictures_that_are_left_alone_are_counted():
    assert said([(32, 32), (40, 40), (32, 32)], assumed=("crop_pct",)).left_alone == 2
    assert said([(32, 32), (40, 40), (32, 32)]).left_alone == 0


def test_tensors_of_another_size_are_told_and_of_other_channels_refused():
    (warning,) = said([(0, 0)] * 2, shape=(3, 24, 30)).warnings()
    assert "images come as tensors of 30 x 24 and are taken as they are, while the preprocessing says 32 x 32" in warning.message
    with pytest.raises(DataError, match=r"expected images \(N, 3, H, W\) for this encoder, found 1 x 32 x 32$"):
        said([(0, 0)] * 2, shape=(1, 32, 32))
    with pytest.raises(DataError, match=r"found 32 x 32 x 3; \(H, W, C\) images have to be permuted"):
        said([(0, 0)] * 2, shape=(32, 32, 3))


def test_remarks_become_warnings():
    (warning,) = said([(32, 32)] * 3, remarks=((0, "alpha"), (2, "alpha"))).warnings()
    assert (warning.kind, warning.count, warning.first) == ("converted", 2, ("image 0 of the tensor", "image 2 of the tensor"))


def test_classes_that_may_be_names_or_places_are_told():
    images, labels = tiny_images()
    chosen = [str(name) for name in range(6, 10)]
    data = [(image, chosen[label]) for image, label in zip(images, labels.tolist(), strict=True)]
    found = open_data(DataRequest(data, "source", classes="0-2"))
    assert (found.class_names, [warning.kind for warning in found.warnings]) == (("6", "7", "8"), ["class-choice"])
    assert open_data(DataRequest(data, "source", classes="6,7")).warnings == ()
    told = [warning.kind for warning in gcaudit.score(TinyNet(), data, source_classes="0-2", metrics=("cdnv",)).warnings]
    assert "class-choice" in told
