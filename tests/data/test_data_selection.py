from itertools import pairwise

import pytest
import torch

from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.errors import RequestError


@pytest.fixture
def folder(tmp_path):
    """Class folders of empty files: choosing decodes nothing."""

    def make(**counts):
        for name, count in counts.items():
            (tmp_path / name).mkdir()
            for row in range(count):
                (tmp_path / name / f"{row:03}.png").touch()
        return tmp_path

    return make


def opened(spec, role="source", **options):
    return open_data(DataRequest(spec, role, **options))


def numbered(*counts):
    """A data set of as many images of class 0, 1, ..."""
    labels = torch.tensor([number for number, count in enumerate(counts) for _ in range(count)])
    return torch.zeros(len(labels), 1, 1, 1), labels


def refused(spec, role="source", **options):
    with pytest.raises(RequestError) as caught:
        opened(spec, role, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", (0,)),
        ("0-2", (0, 1, 2)),
        ("0-1,4", (0, 1, 4)),
        ("3,1", (3, 1)),
        ("2-2", (2,)),
        (" 1 , 3 ", (1, 3)),
        (",2,,", (2,)),
        ("1,1,0-2,2", (1, 0, 2)),
        ("04", (4,)),
        ("0-4", (0, 1, 2, 3, 4)),
    ],
)
def test_numbers_and_ranges(text, numbers):
    images = opened(numbered(2, 2, 2, 2, 2), classes=text)
    assert images.class_numbers == numbers
    assert images.class_names == tuple(str(n) for n in numbers)
    assert images.total_classes == 5
    expected = {row: numbers.index(row // 2) for row in range(10) if row // 2 in numbers}
    assert dict(zip(images.index.tolist(), images.labels.tolist(), strict=True)) == expected
    assert images.index.tolist() == sorted(images.index.tolist())
    assert images.counts.tolist() == [2] * len(numbers)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat", ("cat",)),
        ("dog,ant", ("dog", "ant")),
        ("0,dog", ("ant", "dog")),
        ("ant,0,0-1", ("ant", "cat")),
        ("dog, dog", ("dog",)),
    ],
)
def test_names(folder, text, names):
    images = opened(folder(ant=1, cat=2, dog=3), classes=text)
    assert images.class_names == names
    assert images.class_numbers == tuple(("ant", "cat", "dog").index(name) for name in names)
    assert images.counts.tolist() == [images.class_numbers[n] + 1 for n in range(len(names))]


def test_a_name_that_looks_like_a_number_is_that_class(folder):
    place = folder(**{"10": 1, "2": 2, "0-1": 3, "7": 4})
    assert opened(place).class_names == ("0-1", "10", "2", "7")
    assert opened(place, classes="2").class_names == ("2",)
    assert opened(place, classes="10,2").class_names == ("10", "2")
    assert opened(place, classes="0-1").class_names == ("0-1",)
    assert opened(place, classes="7").counts.tolist() == [4]
    assert opened(place, classes="3").class_names == ("7",)
    assert opened(place, classes="2-3").class_names == ("2", "7")


def test_a_name_with_a_comma_is_that_class(folder):
    place = folder(**{"tench, Tinca tinca": 1, "tench": 2})
    assert opened(place, classes="tench, Tinca tinca").counts.tolist() == [1]
    assert opened(place, classes="tench").counts.tolist() == [2]


def test_case_counts(folder):
    message = refused(folder(ant=1, cat=1), classes="Cat")
    assert message.endswith("expected class numbers or names, found 'Cat'; known: ant, cat")


@pytest.mark.parametrize("text", ["5", "3-5", "4-3", "99999999999999999999999", "0-99"])
def test_numbers_that_are_none(text):
    assert refused(numbered(1, 1, 1, 1, 1), classes=text) == f"tuple: expected class numbers from 0 to 4, found '{text}'"


@pytest.mark.parametrize("text", ["cow", "-1", "1.5", "1-", "0:3"])
def test_names_that_are_none(text):
    known = "known: 0, 1, 2, 3, 4, 5, 6, 7 and 1 more"
    assert refused(numbered(*[1] * 9), classes=f"0,{text}") == f"tuple: expected class numbers or names, found '{text}'; {known}"


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_no_classes(text):
    assert refused(numbered(1, 1), classes=text) == f"tuple: expected classes such as 0-9,12 or names, found '{text}'"


def test_all_classes_without_a_choice():
    images = opened(numbered(1, 0, 2))
    assert (images.class_numbers, images.class_names, images.total_classes) == ((0, 2), ("0", "2"), 3)
    assert images.labels.tolist() == [0, 1, 1]


def test_choosing_among_the_many_is_quick():
    images, labels = torch.zeros(30_000, 1, 1, 1), torch.arange(30_000)
    assert opened((images, labels)).counts.sum() == 30_000


# --- max_images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [4, 5, 6, 7, 8, 17, 40])
def test_the_draw_is_class_balanced(limit):
    images = opened(numbered(10, 10, 10, 10), max_images=limit)
    assert len(images.index) == limit
    assert int(images.counts.max() - images.counts.min()) <= 1
    assert images.index.tolist() == sorted(set(images.index.tolist()))
    assert torch.equal(images.labels, images.index // 10)


def test_short_classes_are_made_up_for():
    assert opened(numbered(2, 20, 20), max_images=20).counts.tolist() == [2, 9, 9]


def test_draws_are_nested():
    data = numbered(9, 3, 12)
    drawn = [set(opened(data, max_images=limit).index.tolist()) for limit in range(3, 25)]
    assert all(small < large for small, large in pairwise(drawn))


def test_a_limit_beyond_the_images_takes_all():
    assert opened(numbered(3, 4), max_images=100).index.tolist() == list(range(7))


def test_draws_follow_the_seed():
    data = numbered(50, 50)
    drawn = {seed: tuple(opened(data, max_images=20, seed=seed).index.tolist()) for seed in (0, 1, 2)}
    assert len(set(drawn.values())) == 3
    assert tuple(opened(data, max_images=20, seed=1).index.tolist()) == drawn[1]


def test_draws_do_not_follow_the_role():
    data = numbered(50, 50)
    assert torch.equal(opened(data, max_images=20).index, opened(data, "target", max_images=20).index)


def test_draws_do_not_follow_the_other_classes():
    data = numbered(20, 20, 20, 20)
    every = opened(data, max_images=20).index.tolist()
    for classes in ("0-3", "3,1", "2"):
        numbers = opened(data, classes=classes).class_numbers
        alone = opened(data, classes=classes, max_images=5 * len(numbers)).index.tolist()
        assert alone == [row for row in every if row // 20 in numbers]


def test_draws_are_not_the_first_images():
    images = opened(numbered(200), max_images=50)
    assert images.index.float().mean() > 60


def test_choice_and_draw_go_together():
    images = opened(numbered(5, 6, 7), classes="2,0", max_images=4)
    assert (images.class_numbers, images.counts.tolist(), images.total_classes) == ((2, 0), [2, 2], 3)
    assert all((row < 5) == (label == 1) for row, label in zip(images.index.tolist(), images.labels.tolist(), strict=True))


@pytest.mark.parametrize("limit", [2, 1, 0, -3])
@pytest.mark.parametrize("role", ["source", "target"])
def test_fewer_than_an_image_a_class(role, limit):
    message = refused(numbered(5, 5, 5), role, max_images=limit)
    assert message == f"tuple: expected --{role}-max-images of at least one image a class (3), found {limit}; raise it"


def test_absent_classes_ask_for_no_image():
    assert opened(numbered(5, 0, 5), max_images=2).counts.tolist() == [1, 1]
