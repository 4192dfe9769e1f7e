"""The table of data sets known by name: their splits, where they are looked for, and how to get them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class KnownData:
    """A data set with a name.

    Attributes:
        name: what users type.
        title: what it is.
        splits: its splits.
        source_split: the default as source.
        target_split: the default as target.
        looked_for: what it looks for, for people.
        how: how to get it.
        hub: id on the Hugging Face hub, when the same images are there.
        family: the data set that class names belong to.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    source_split: str
    target_split: str
    looked_for: str
    how: str
    hub: str | None = None
    family: str | None = None


_TV = "from torchvision.datasets import"
KNOWN: tuple[KnownData, ...] = (
    KnownData(
        "cifar10", "CIFAR-10, 10 classes of 32x32 photos", ("train", "test"), "train", "test",
        "cifar-10-batches-py/, cifar-10-python.tar.gz or cifar10/train*.parquet",
        f"python -c \"{_TV} CIFAR10; CIFAR10('data', download=True)\"", "uoft-cs/cifar10",
    ),
    KnownData(
        "cifar100", "CIFAR-100, 100 classes of 32x32 photos", ("train", "test"), "train", "test",
        "cifar-100-python/, cifar-100-python.tar.gz or cifar100/train*.parquet",
        f"python -c \"{_TV} CIFAR100; CIFAR100('data', download=True)\"", "uoft-cs/cifar100",
    ),
    KnownData(
        "cifar-fs", "CIFAR-FS: CIFAR-100 in 64/16/20 classes of 600", ("train", "validation", "test"), "train", "test",
        "cifar-100-python/, cifar-100-python.tar.gz or cifar100/{train,test}*.parquet",
        f"python -c \"{_TV} CIFAR100; CIFAR100('data', download=True)\"", None, "cifar100",
    ),
    KnownData(
        "fc100", "FC100: CIFAR-100 in 60/20/20 classes of 600, by superclasses", ("train", "validation", "test"), "train", "test",
        "cifar-100-python/, cifar-100-python.tar.gz or cifar100/{train,test}*.parquet",
        f"python -c \"{_TV} CIFAR100; CIFAR100('data', download=True)\"", None, "cifar100",
    ),
    KnownData(
        "mnist", "MNIST, 10 digits, 28x28 grey", ("train", "test"), "train", "test",
        "MNIST/raw/*-ubyte[.gz] or mnist/*-ubyte[.gz]",
        f"python -c \"{_TV} MNIST; MNIST('data', download=True)\"", "ylecun/mnist",
    ),
    KnownData(
        "fashion-mnist", "Fashion-MNIST, 10 classes, 28x28 grey", ("train", "test"), "train", "test",
        "FashionMNIST/raw/*-ubyte[.gz] or fashion-mnist/*-ubyte[.gz]",
        f"python -c \"{_TV} FashionMNIST; FashionMNIST('data', download=True)\", or Debian's dataset-fashion-mnist",
        "zalando-datasets/fashion_mnist",
    ),
    KnownData(
        "mini-imagenet", "miniImageNet in 64/16/20 classes of 600", ("train", "validation", "test"), "train", "test",
        "mini-imagenet/nXXXXXXXX/*.jpg or mini-imagenet/{train,val,test}/nXXXXXXXX/*.jpg",
        "cut it from ImageNet by the lists of Ravi and Larochelle",
    ),
    KnownData(
        "tiered-imagenet", "tieredImageNet in 351/97/160 classes", ("train", "validation", "test"), "train", "test",
        "tiered-imagenet/nXXXXXXXX/*.jpg or tiered-imagenet/{train,val,test}/nXXXXXXXX/*.jpg",
        "cut it from ImageNet by the lists of Ren et al.",
    ),
    KnownData(
        "cub", "CUB-200-2011, birds, in 100/50/50 classes", ("train", "validation", "test"), "train", "test",
        "CUB_200_2011/images/NNN.NAME/*.jpg or cub/images/NNN.NAME/*.jpg",
        "fetch CUB_200_2011.tgz of the California Institute of Technology and unpack it",
    ),
    KnownData(
        "imagenet", "ImageNet (ILSVRC 2012), 1000 classes", ("train", "validation"), "train", "validation",
        "ILSVRC/Data/CLS-LOC/{train,val} with LOC_synset_mapping.txt, or imagenet/{train,val}/nXXXXXXXX/*.JPEG",
        "see image-net.org/download",
    ),
    KnownData(
        "demo", "ten classes of Fashion-MNIST that come with gcaudit: five to train on, five to transfer to",
        ("train", "test"), "train", "test", "the installed package", "reinstall gcaudit",
    ),
)  # fmt: skip
"""Every known name."""
