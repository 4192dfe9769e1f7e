import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)
from torchvision import transforms

from gcaudit.data.batches import stream_batches
from gcaudit.data.opening import open_data
from gcaudit.data.request import DataRequest
from gcaudit.errors import DataError


class Items(Dataset):
    """Pairs as given, with whatever attributes."""

    def __init__(self, images, given, **attributes):
        self.images, self.given = images, given
        self.reads = []
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        self.reads.append(row)
        return self.images[row], self.given[row]


def opened(spec, **options):
    return open_data(DataRequest(spec, "source", **options))


def refused(spec):
    with pytest.raises(DataError) as caught:
        opened(spec)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def to_pixels(picture):
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def stream(images, size=100):
    places = list(range(len(images.labels)))
    order = [places[start : start + size] for start in range(0, len(places), size)]
    return list(stream_batches(images.reader, images.index, order, to_pixels, workers=0, pin=False))


def random_bytes(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


PIXELS = random_bytes(6, 3, 4, 4)
LABELS = torch.tensor([0, 2, 0, 2, 2, 0])


@pytest.mark.parametrize("images", [PIXELS, PIXELS / 255, PIXELS.double() / 255, (PIXELS / 255).half(), (PIXELS / 255).bfloat16()])
@pytest.mark.parametrize("pair", [tuple, list])
def test_tensors(images, pair):
    found = opened(pair((images, LABELS)))
    (batch,) = stream(found)
    assert torch.equal(batch.pixels, images)
    assert batch.pixels.dtype == images.dtype
    assert not batch.failures
    assert (found.class_names, found.class_numbers, found.total_classes) == (("0", "2"), (0, 2), 3)
    assert found.labels.tolist() == [0, 1, 0, 1, 1, 0]
    assert (found.spec, found.split) == (pair.__name__, None)
    assert found.reader.where(3) == "image 3 of the tensor"


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_arrays(kind):
    images = PIXELS.numpy() if kind is np.uint8 else (PIXELS.numpy() / 255).astype(kind)
    (batch,) = stream(opened((images, LABELS.numpy())))
    assert np.array_equal(batch.pixels.numpy(), images)


@pytest.mark.parametrize("change", ["read only", "backwards", "transposed"])
def test_arrays_however_they_lie_in_memory(change):
    images = PIXELS.numpy().copy()
    if change == "read only":
        images.flags.writeable = False
    images = {"backwards": images[::-1], "transposed": images.transpose(0, 1, 3, 2)}.get(change, images)
    (batch,) = stream(opened((images, LABELS.numpy())))
    assert np.array_equal(batch.pixels.numpy(), images)


@pytest.mark.parametrize("labels", [LABELS, LABELS.int(), LABELS.byte(), LABELS.numpy(), LABELS.tolist(), tuple(LABELS.tolist())])
def test_labels_of_tensors(labels):
    assert opened((PIXELS, labels)).labels.tolist() == [0, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("pair", [list, np.array])
def test_names_as_labels_of_tensors(pair):
    found = opened((PIXELS, pair(["dog", "cat", "dog", "cat", "cat", "dog"])))
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [1, 0, 1, 0, 0, 1]


def test_tensors_that_need_gradients_are_data():
    (batch,) = stream(opened(((PIXELS / 255).requires_grad_(), LABELS)))
    assert not batch.pixels.requires_grad


@pytest.mark.parametrize(
    ("images", "labels", "found"),
    [
        (PIXELS, LABELS[:5], "(6, 3, 4, 4) and (5,)"),
        (PIXELS[0], LABELS[:3], "(3, 4, 4) and (3,)"),
        (PIXELS.flatten(1), LABELS, "(6, 48) and (6,)"),
        (PIXELS, LABELS[:4].reshape(2, 2), "(6, 3, 4, 4) and (2, 2)"),
        (PIXELS.numpy(), [0, 1], "(6, 3, 4, 4) and (2,)"),
    ],
)
def test_mismatched_shapes(images, labels, found):
    assert refused((images, labels)) == f"expected images (N, C, H, W) and labels (N,), found {found}"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            LABELS.reshape(6, 1),
            "the labels: expected one class an image, found lists of several (1 in one); gcaudit measures classes that exclude each other: keep one column of them",
        ),
        (
            LABELS.double() + 0.5,
            "the labels: expected a class an image, found the number 0.5; gcaudit measures classes, not quantities: --label-key names another column",
        ),
        (LABELS - 3, "the labels: expected labels >= 0, and -1 for none, found -3 and 3 of 3 below 0; mend these rows"),
        (None, "expected labels (N,) as a tensor, an array or a list, found a NoneType"),
        (torch.tensor(3), "expected labels (N,) as a tensor, an array or a list, found a Tensor"),
    ],
)
def test_labels_that_are_none(labels, message):
    assert refused((PIXELS, labels)) == message


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (PIXELS.long(), "torch.int64"),
        (PIXELS > 9, "torch.bool"),
        (PIXELS.numpy().astype(np.int32), "int32"),
        (PIXELS.numpy().astype(">f4"), ">f4"),
        (PIXELS.numpy().astype(object), "object"),
        (PIXELS.numpy().astype(complex), "complex128"),
    ],
)
def test_numbers_that_are_no_pixels(images, found):
    message = refused((images, LABELS))
    assert message.startswith("expected images of uint8, or of floating point in [0, 1], found ")
    assert message.endswith(found)


@pytest.mark.parametrize(
    ("value", "found"), [(1.5, "0 to 1.5"), (-0.25, "-0.25 to 0"), (float("nan"), "nan to nan"), (float("inf"), "0 to inf")]
)
def test_floats_out_of_range(value, found):
    images = torch.zeros(3, 1, 2, 2)
    images[1, 0, 1, 1] = value
    (batch,) = stream(opened((images, torch.tensor([0, 1, 0]))))
    expected = f"image 1 of the tensor: expected pixels in [0, 1] before normalisation, found {found}; leave Normalize out"
    assert batch.failures == ((1, expected),)
    assert batch.positions.tolist() == [0, 2]


def test_no_images():
    assert refused((PIXELS[:0], LABELS[:0])) == "tuple: expected images, found none"
    assert refused(Items([], [])) == "Items: expected images, found none"


def test_tensors_choose_classes_and_images():
    found = opened((PIXELS, LABELS), classes="2", max_images=2)
    (batch,) = stream(found)
    assert torch.equal(batch.pixels, PIXELS[found.index])
    assert LABELS[found.index].tolist() == [2, 2]


# --- Datasets --------------------------------------------------------------------------------------------------------


def test_pictures_and_labels():
    pictures = [Image.fromarray(PIXELS[row].permute(1, 2, 0).numpy()) for row in range(6)]
    found = opened(Items(pictures, LABELS.tolist()))
    (batch,) = stream(found)
    assert torch.equal(batch.pixels, PIXELS)
    assert (found.spec, found.class_names) == ("Items", ("0", "2"))
    assert found.reader.where(4) == "item 4 of Items"


def test_tensors_and_labels():
    (batch,) = stream(opened(TensorDataset(PIXELS / 255, LABELS)))
    assert torch.equal(batch.pixels, PIXELS / 255)


@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 5, 1), (4, 5)])
def test_arrays_and_labels(shape):
    arrays = random_bytes(2, *shape).numpy()
    (batch,) = stream(opened(Items(arrays, [0, 1])))
    expected = np.broadcast_to(arrays.reshape(2, 4, 5, -1), (2, 4, 5, 3)).transpose(0, 3, 1, 2)
    assert np.array_equal(batch.pixels.numpy(), expected)


def test_a_list_of_pairs_is_a_data_set():
    found = opened([(PIXELS[row], int(LABELS[row])) for row in range(6)])
    (batch,) = stream(found)
    assert torch.equal(batch.pixels, PIXELS)
    assert found.labels.tolist() == [0, 1, 0, 1, 1, 0]


@pytest.mark.parametrize(
    "labels", [[3, 0], [torch.tensor(3), torch.tensor(0)], [torch.tensor([3]), torch.tensor([0])], np.array([3, 0])]
)
def test_labels_of_items(labels):
    assert opened(Items(PIXELS[:2], labels)).class_names == ("0", "3")


def test_names_as_labels_of_items():
    assert opened(Items(PIXELS[:2], ["dog", "cat"])).class_names == ("cat", "dog")


@pytest.mark.parametrize("attribute", ["targets", "labels", "_labels"])
@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_labels_that_the_data_set_holds_spare_reading(attribute, kind):
    labels = [2, 0, 2] * 20
    data = Items(PIXELS[:3].repeat(20, 1, 1, 1), labels, **{attribute: kind(labels)})
    found = opened(data)
    assert found.labels.tolist() == [1, 0, 1] * 20
    assert set(data.reads) == {0, 30, 59}  # a look whether they agree


@pytest.mark.parametrize("row", [0, 30, 59])
def test_labels_that_disagree_with_the_items_are_refused(row):
    labels = [2, 0, 2] * 20
    held = [*labels[:row], 1, *labels[row + 1 :]]
    message = refused(Items(PIXELS[:3].repeat(20, 1, 1, 1), labels, targets=held))
    assert message.startswith(f"Items: expected labels that agree with the items, found 1 held for item {row}")


class Noisy(Items):
    """Gives another image each time, as a random transform does."""

    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        return image.roll(len(self.reads), -1), label


class Flipped(Items):
    """Mirrors one image of two, by a coin."""

    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        return image.flip(-1) if torch.rand(()) < 0.5 else image, label


def test_items_that_change_now_and_then_are_told():
    torch.manual_seed(0)
    told = [len(opened(Flipped(PIXELS, LABELS.tolist())).warnings) for _ in range(100)]
    assert sum(told) >= 97


def test_items_that_change_are_told():
    assert [warning.kind for warning in opened(Noisy(PIXELS, LABELS.tolist())).warnings] == ["items"]
    assert opened(Items(PIXELS, LABELS.tolist())).warnings == ()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"sampler": SubsetRandomSampler([0, 1])}, "the sampler SubsetRandomSampler"),
        ({"sampler": RandomSampler(range(6), num_samples=3)}, "the sampler RandomSampler"),
        ({"batch_sampler": [[0, 1], [2]]}, "the batch sampler list"),
        ({"collate_fn": lambda items: items[:1]}, "a collate_fn of its own"),
    ],
)
def test_loaders_that_do_not_read_the_whole_data_set_are_refused(options, what):
    message = refused(DataLoader(TensorDataset(PIXELS, LABELS), **options))
    assert message.startswith("expected a DataLoader that reads the whole of its Dataset as it is, found")
    assert what in message


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "batch_size": 4}, {"batch_size": None}])
def test_loaders_that_do_are_read(options):
    assert len(opened(DataLoader(TensorDataset(PIXELS, LABELS), **options)).labels) == 6


@pytest.mark.parametrize(("item", "found"), [((PIXELS[0], 0, 1), "3 parts"), (PIXELS[0], "a Tensor")])
def test_items_of_another_form_are_told(item, found):
    assert refused([item]).startswith(f"item 0 of list: expected (image, label), found {found}; wrap the Dataset")


@pytest.mark.parametrize(
    "attributes",
    [
        {"targets": [7, 7]},
        {"targets": torch.zeros(3, 8, dtype=torch.int64)},
        {"targets": ["a", "b", "c"]},
        {"labels": [0.5, 0.5, 0.5]},
        {"labels": lambda: [7, 7, 7]},
        {"targets": 3},
        {"targets": [7, 7, 7], "target_transform": lambda label: label},
    ],
)
def test_attributes_that_are_no_labels_are_not_taken_for_them(attributes):
    data = Items(PIXELS[:3], [2, 0, 2], **attributes)
    assert opened(data).labels.tolist() == [1, 0, 1]
    assert set(data.reads) == {0, 1, 2}


@pytest.mark.parametrize("classes", [["ant", "bee", "cat"], ("ant", "bee", "cat")])
def test_class_names_of_the_data_set(classes):
    found = opened(Items(PIXELS[:2], [2, 0], classes=classes))
    assert (found.class_names, found.total_classes) == (("ant", "cat"), 3)


def test_class_names_do_not_outlive_a_change_of_labels():
    data = Items(PIXELS[:2], [1, 0], classes=["ant", "bee"], target_transform=lambda label: label)
    assert opened(data).class_names == ("0", "1")


def test_more_labels_than_class_names():
    assert refused(Items(PIXELS[:2], [0, 2], classes=["a", "b"])) == "Items: expected labels below the 2 class names, found 2"


def test_data_sets_of_data_sets():
    data = TensorDataset(PIXELS, LABELS)
    (batch,) = stream(opened(ConcatDataset([Subset(data, [4, 1]), Subset(data, [0])])))
    assert torch.equal(batch.pixels, PIXELS[[4, 1, 0]])


def test_a_loader_stands_for_its_data_set():
    loader = DataLoader(TensorDataset(PIXELS, LABELS), batch_size=2, shuffle=True, collate_fn=default_collate)
    found = opened(loader)
    (batch,) = stream(found)
    assert torch.equal(batch.pixels, PIXELS)
    assert found.labels.tolist() == [0, 1, 0, 1, 1, 0]


class Endless(IterableDataset):
    def __iter__(self):
        yield PIXELS[0], 0

    def __getitem__(self, row):
        return PIXELS[row], 0

    def __len__(self):
        return 6


class NoLength(Dataset):
    def __getitem__(self, row):
        return PIXELS[row], 0


@pytest.mark.parametrize("given", [NoLength(), 3, None, PIXELS.numpy, {1, 2}, iter([])])
def test_what_is_no_data_set(given):
    found = type(given.dataset if isinstance(given, DataLoader) else given).__name__
    assert refused(given) == (
        f"expected (images, labels), a Dataset with __len__ and __getitem__, an IterableDataset, a DataLoader of one, or a data spec; found a {found}"
    )


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([PIXELS[0], PIXELS[1], PIXELS[2]], "item 0 of list: expected (image, label), found a Tensor; wrap the Dataset"),
        ([(PIXELS[0], 0), (PIXELS[1],)], "item 1 of list: expected (image, label), found 1 parts; wrap the Dataset"),
        ({"images": PIXELS}, "item 0 of dict: expected (image, label), found KeyError: 0"),
        ([(PIXELS[0], torch.tensor([1, 2]))], "list: expected one class an image, found lists of several (2 in one)"),
        ([(PIXELS[0], None)], "list: expected labels, found none of 1 images with one (an unlabelled split?)"),
        ([(PIXELS[0], 0), (PIXELS[1], "cat")], "list: expected labels that are all integers or all strings, found int, str"),
        ([(PIXELS[0], {"boxes": []})], "list: expected one class an image, found a dict with boxes; make a column of its class"),
    ],
)
def test_items_that_are_no_pairs(items, message):
    assert refused(items).startswith(message)


def test_items_of_two_sizes_fail_alike_in_batches_of_any_size():
    images = [PIXELS[0], PIXELS[1, :, :3], PIXELS[2], PIXELS[3] / 255, PIXELS[4, :1]]
    for size in (1, 2, 5):
        batches = stream(opened(Items(images, [0] * 5)), size)
        failures = dict(failure for batch in batches for failure in batch.failures)
        assert failures == {
            1: "item 1 of Items: expected images of one size, 3 x 4 x 4 uint8, found 3 x 3 x 4 uint8",
            3: "item 3 of Items: expected images of one size, 3 x 4 x 4 uint8, found 3 x 4 x 4 float32",
            4: "item 4 of Items: expected images of one size, 3 x 4 x 4 uint8, found 1 x 4 x 4 uint8",
        }
        assert [place for batch in batches for place in batch.positions.tolist()] == [0, 2]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS[0, 0], "expected pixels (C, H, W), found shape (4, 4)"),
        (PIXELS[:1], "expected pixels (C, H, W), found shape (1, 3, 4, 4)"),
        (PIXELS[0].long(), "expected pixels of uint8, or of floating point in [0, 1], found torch.int64"),
        ("0.png", "expected a picture, found a str"),
        (None, "expected a picture, found a NoneType"),
        ([1, 2], "expected a picture, found a list"),
    ],
)
def test_items_that_are_no_pictures(image, message):
    (batch,) = stream(opened(Items([PIXELS[0], image], [0, 0])))
    assert batch.failures == ((1, f"item 1 of Items: {message}"),)


def test_a_first_item_that_cannot_be_read_decides_nothing():
    batches = stream(opened(Items([None, PIXELS[1], PIXELS[2]], [0, 0, 0])), 2)
    assert [place for batch in batches for place in batch.positions.tolist()] == [1, 2]


def test_equal_objects_are_not_one_family():
    first, second = TensorDataset(PIXELS, LABELS), TensorDataset(PIXELS, LABELS)
    assert opened(first).family == opened(first).family != opened(second).family


class Backwards(DataLoader):
    def __iter__(self):
        return reversed(list(super().__iter__()))


@pytest.mark.parametrize(
    ("loader", "what"),
    [
        (lambda data: DataLoader(data, batch_size=4, drop_last=True), "drop_last, which leaves images out"),
        (Backwards, r"a way of its own to give batches (Backwards)"),
    ],
)
def test_loaders_that_leave_out_or_change_are_refused(loader, what):
    assert what in refused(loader(TensorDataset(PIXELS, LABELS)))


def test_drop_last_that_drops_nothing_is_no_matter():
    assert len(opened(DataLoader(TensorDataset(PIXELS, LABELS), batch_size=3, drop_last=True)).labels) == 6


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: Subset(data, range(6))])
def test_random_transforms_are_told_by_their_names(wrap):
    data = Items(PIXELS, LABELS.tolist())
    data.transform = transforms.Compose([transforms.ToTensor(), transforms.RandomErasing(p=0.01)])
    (warning,) = opened(wrap(data)).warnings
    assert (warning.kind, "RandomErasing" in warning.message) == ("items", True)


def test_parts_of_a_data_set_have_its_class_names():
    data = Items(PIXELS, LABELS.tolist())
    data.classes = ["cat", "dog", "eel"]
    assert opened(Subset(data, range(6))).class_names == opened(data).class_names
