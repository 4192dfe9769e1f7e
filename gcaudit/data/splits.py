"""Class lists of the known few-shot splits. Names are facts; each list is in the order of its publication.

CIFAR-FS: CIFAR-100's images, train and test together, 600 a class, under a 64/16/20 split of the classes.
Reference: Bertinetto, Henriques, Torr, Vedaldi, "Meta-learning with differentiable closed-form solvers", ICLR 2019.

FC100: the same images under a 60/20/20 split by superclasses. Reference: Oreshkin, Lopez, Lacoste, "TADAM: task dependent adaptive metric for improved few-shot
learning", NeurIPS 2018.

CUB: the 200 classes of CUB-200-2011 under a 100/50/50 split by their numbers. Reference: Chen, Liu, Kira, Wang, Huang, "A closer look at few-shot
classification", ICLR 2019.

miniImageNet: 100 ImageNet classes, 600 images each, under a 64/16/20 split.
Reference: Ravi, Larochelle, "Optimization as a model for few-shot learning", ICLR 2017.
"""

from collections.abc import Mapping, Sequence

CIFAR_FS: Mapping[str, tuple[str, ...]] = {
    "train": tuple(
        """
        apple aquarium_fish bear bee bottle bowl boy bridge bus can castle caterpillar chair clock cloud
        cockroach couch cup dinosaur dolphin elephant forest girl hamster house kangaroo keyboard lawn_mower
        lion lizard lobster mountain mouse mushroom oak_tree orange orchid palm_tree pear pine_tree plate
        porcupine possum rabbit raccoon ray road seal shrew skunk skyscraper snake spider squirrel streetcar
        sunflower tank tiger train trout tulip turtle willow_tree wolf
        """.split()
    ),
    "validation": tuple(
        """
        beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle otter sea
        shark television tractor
        """.split()
    ),
    "test": tuple(
        """
        baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail sweet_pepper
        table telephone wardrobe whale woman worm
        """.split()
    ),
}
"""Split name to class names."""

MINI_IMAGENET: Mapping[str, tuple[str, ...]] = {
    "train": tuple(
        """
        n01532829 n01558993 n01704323 n01749939 n01770081 n01843383 n01910747 n02074367 n02089867 n02091831
        n02101006 n02105505 n02108089 n02108551 n02108915 n02111277 n02113712 n02120079 n02165456 n02457408
        n02606052 n02687172 n02747177 n02795169 n02823428 n02966193 n03017168 n03047690 n03062245 n03207743
        n03220513 n03337140 n03347037 n03400231 n03476684 n03527444 n03676483 n03838899 n03854065 n03888605
        n03908618 n03924679 n03998194 n04067472 n04243546 n04251144 n04258138 n04275548 n04296562 n04389033
        n04435653 n04443257 n04509417 n04515003 n04596742 n04604644 n04612504 n06794110 n07584110 n07697537
        n07747607 n09246464 n13054560 n13133613
        """.split()
    ),
    "validation": tuple(
        """
        n01855672 n02091244 n02114548 n02138441 n02174001 n02950826 n02971356 n02981792 n03075370 n03417042
        n03535780 n03584254 n03770439 n03773504 n03980874 n09256479
        """.split()
    ),
    "test": tuple(
        """
        n01930112 n01981276 n02099601 n02110063 n02110341 n02116738 n02129165 n02219486 n02443484 n02871525
        n03127925 n03146219 n03272010 n03544143 n03775546 n04146614 n04149813 n04418357 n04522168 n07613480
        """.split()
    ),
}
"""Split name to class names."""

CIFAR100_CLASSES: tuple[str, ...] = tuple(sorted(name for names in CIFAR_FS.values() for name in names))
"""CIFAR-100's fine labels, whose numbers are their alphabetical places."""

CIFAR100_SUPERCLASSES: Mapping[str, tuple[str, ...]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
"""CIFAR-100's coarse labels and their fine ones, both in the order of their numbers."""
_FC100 = {
    "validation": ("large_carnivores", "large_omnivores_and_herbivores", "non-insect_invertebrates", "small_mammals"),
    "test": ("aquatic_mammals", "insects", "medium_mammals", "people"),
}
_FC100_TRAIN = tuple(name for name in CIFAR100_SUPERCLASSES if not any(name in names for names in _FC100.values()))
FC100: Mapping[str, tuple[str, ...]] = {
    split: tuple(sorted(fine for name in names for fine in CIFAR100_SUPERCLASSES[name]))
    for split, names in {"train": _FC100_TRAIN, **_FC100}.items()
}
"""Split name to class names, in alphabetical order."""


def cub_split(names: Sequence[str], split: str) -> tuple[str, ...]:
    """Take the classes of a split of CUB: of classes counted from 0 the even ones to train on, every fourth from 1 to validate, from 3 to test.

    Args:
        names: of all 200 classes, in the order of their numbers.
        split: `train`, `validation` or `test`.
    """
    first, step = {"train": (0, 2), "validation": (1, 4), "test": (3, 4)}[split]
    return tuple(names[first::step])
