"""The reader of pickles against Python's own on honest pickles, and alone on hostile ones."""

import argparse
import collections
import io
import pickle
import struct
import time
import tracemalloc

import numpy as np
import pytest

from gcaudit.files.pickles import MOST_OPERATIONS, PickleError, PickleReader
from gcaudit.files.values import Array, Name, Opaque, Options, StorageSpec, TensorSpec

HONEST = [
    None,
    True,
    {"a": 1, "b": -1, "c": 255, "d": 65536, "e": -(2**31), "f": 10**18, "g": 2**70},
    [0.0, -1.5, float("inf"), 1e300],
    ("x", ("y", ()), [["z"]]),
    {"text": "é\n\u1234\U0001f600 'quoted' \"twice\"", "bytes": b"\x00\xff\n", "long": "x" * 300, "raw": b"y" * 70_000},
    {1: "one", None: "none", False: "no", b"k": "bytes"},
    [list(range(1200)), {str(n): n for n in range(1200)}],
    collections.OrderedDict([("z", 1), ("a", 2)]),
]


def read(content):
    reader = PickleReader(io.BytesIO(content), len(content))
    return reader.read(), reader.foreign


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", HONEST, ids=range(len(HONEST)))
def test_honest_values_are_read_as_python_reads_them(value, protocol):
    assert read(pickle.dumps(value, protocol)) == (value, [])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_, ">f4", ">i2"])
def test_arrays_and_their_numbers(kind, protocol):
    values = np.arange(6).reshape(2, 3).astype(kind)
    found, foreign = read(pickle.dumps({"c": values, "f": np.asfortranarray(values), "one": values[1, 2]}, protocol))
    assert foreign == []
    np.testing.assert_array_equal(found["c"].values, values)
    np.testing.assert_array_equal(found["f"].values, values)
    assert found["one"] == values[1, 2].item()


@pytest.mark.parametrize("protocol", range(6))
def test_options_are_a_dict(protocol):
    found, foreign = read(pickle.dumps(argparse.Namespace(model="resnet18", mean=[0.5]), protocol))
    assert (found, foreign, type(found)) == ({"model": "resnet18", "mean": [0.5]}, [], Options)


def test_pickles_of_python_2():
    assert read(b"}q\x00(U\x04dataq\x01T\x03\x00\x00\x00\xff\x00zu.") == ({"data": "\xff\x00z"}, [])
    assert read(b"ccollections\nOrderedDict\n(((S'w'\nI1\nl(S'v'\nI2\nlltR.") == ({"w": 1, "v": 2}, [])


def test_one_thing_in_two_places_is_one_thing():
    shared = ["x"]
    found, _ = read(pickle.dumps([shared, shared]))
    assert found[0] is found[1]
    circle = []
    circle.append(circle)
    found, _ = read(pickle.dumps(circle))
    assert found[0] is found


class Reduced:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(6))
def test_what_is_not_known_is_named_and_does_nothing(protocol, tmp_path):
    import os

    content = {"w": 1, "x": Reduced(os.system, (f"touch {tmp_path / 'touched'}",)), "y": {1, 2}, "z": io.BytesIO}
    found, foreign = read(pickle.dumps(content, protocol))
    assert found["w"] == 1
    assert isinstance(found["x"], Opaque)
    assert isinstance(found["y"], Opaque)
    assert isinstance(found["z"], Name)
    assert {f"{os.system.__module__}.system", "_io.BytesIO"} <= set(foreign)
    assert not list(tmp_path.iterdir())


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK%ctQ%bccollections\nOrderedDict\n)RtR."


def tensor(numbers=4, layout=b"K\x00K\x04\x85K\x01\x85\x89"):
    return TENSOR.replace(b"%c", bytes([numbers])).replace(b"%b", layout)


def test_a_tensor_is_a_description():
    found, foreign = read(tensor())
    assert foreign == []
    assert isinstance(found, TensorSpec)
    assert isinstance(found.storage, StorageSpec)
    assert (found.storage.key, found.storage.dtype, found.storage.numbers) == ("0", "float32", 4)
    assert (found.dtype, found.offset, found.shape, found.stride) == ("float32", 0, (4,), (1,))


@pytest.mark.parametrize(
    "layout",
    [
        b"K\x01K\x04\x85K\x01\x85\x89",  # an offset
        b"K\x00K\x05\x85K\x01\x85\x89",  # a size
        b"K\x00K\x02K\x02\x86K\x03K\x01\x86\x89",  # a stride
        b"J\xff\xff\xff\xffK\x04\x85K\x01\x85\x89",  # before the data
        b"K\x00J\xff\xff\xff\xff\x85K\x01\x85\x89",
        b"K\x00K\x04\x85J\xff\xff\xff\xff\x85\x89",  # backwards
        b"K\x00K\x04\x85K\x01K\x01\x86\x89",  # more strides than sizes
        b"K\x00K\x04\x85]\x89",
        b"K\x00(" + b"K\x01" * 40 + b"t(" + b"K\x01" * 40 + b"t\x89",  # dimensions
        b"X\x01\x00\x00\x000K\x04\x85K\x01\x85\x89",
        b"K\x00\x8b\x00\x10\x00\x00" + b"\x7f" * 4096 + b"\x85K\x01\x85\x89",  # a number of many digits
    ],
)
def test_tensors_beyond_their_data_are_refused(layout):
    with pytest.raises(PickleError):
        read(tensor(layout=layout))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"]",
        b"\x80",
        b"(.",
        b"((((.",
        b"0.",
        b"t.",
        b"a.",
        b"]a.",
        b"N(K\x01u.",
        b"}(K\x01u.",
        b"h\x05.",
        b"\xff.",
        b"X\xff\xff\xff\xff",
        b"\x8d" + b"\xff" * 8,
        b"\x8e" + struct.pack("<Q", 2**34),
        b"\x96" + struct.pack("<Q", 2**34),
        b"B\xff\xff\xff\x7f",
        b"I1x\n.",
        b"I" + b"9" * 5000 + b"\n.",
        b"L" + b"9" * 100 + b"L\n.",
        b"Fx\n.",
        b"Sabc\n.",
        b"X\x01\x00\x00\x00\xff.",
        b"p\n.",
        b"g99999999999999999999999\n.",
        b"c\xff\n\xff\n.",
        b"K\x01K\x02\x93.",
        b"K\x01R.",
        b"\x97.",
        b"N\x98.",
        b"Q.",
        b"NQ.",
        b"Pabc\n.",
        b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x05\x85cnumpy\ndtype\nU\x02f4\x85R(K\x03U\x01<tb\x89U\x02abtb.",
    ],
)
def test_damage_is_one_kind_of_error(content):
    with pytest.raises(PickleError) as caught:
        read(content)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("kind", ["O8", "V1", "U4", "S3", "M8", "f16", "f1", "c8", "x", 8, None])
def test_types_that_are_no_numbers_make_no_array(kind):
    dtype = Reduced(np.dtype, (kind, False, True), (3, "<", None, None, None, -1, -1, 0))
    array = Reduced(np.ndarray(0).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, (2,), dtype, False, b"\x01" * 16))
    found, _ = read(pickle.dumps(array, 2))
    assert isinstance(found, Array)
    assert found.values is None


def laughs():
    """Lists of lists of lists: 2^60 entries in 300 bytes."""
    return b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(60)) + b"."


@pytest.mark.parametrize(
    "content",
    [
        laughs(),
        b")" + b"\x85" * 200_000 + b".",  # depth
        b"})" + b"\x85" * 100_000 + b"Ns.",  # a key of many parts
        b"}" + b"q\x00" + b"h\x00Ns" * 10_000 + b".",
        b"r\xff\xff\xff\x7f".join([b"N"] * 1000) + b".",  # places of the memo
        b"]" + b"2" * (MOST_OPERATIONS + 1) + b".",
        b"c_codecs\nencode\nq\x00X\x00\x00\x10\x00"
        + b"x" * 2**20
        + b"q\x01"
        + b"0h\x00h\x01\x85R" * 50_000
        + b".",  # one text, copied
        b"(" * 500_000 + b".",
        b"".join(b"ca\nb%d\n0" % n for n in range(200_000)) + b"N.",  # names
    ],
)
def test_nothing_takes_long_or_much(content):
    tracemalloc.start()
    began = time.process_time()
    try:
        found, _ = read(content)
        del found
    except PickleError:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - began < 60  # tracing makes it ten times slower
    assert peak < 2**28
