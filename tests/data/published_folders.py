"""Small folders in the layouts that CUB-200-2011, Flowers 102, Food-101 and Oxford-IIIT Pet are published in."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

Expected = dict[str, list[tuple[str, int]]]  # of each split: file names and labels, in order


def save(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def birds(root: Path) -> Expected:
    """Six images of three classes; the split is not that of the order."""
    root = root / "CUB_200_2011"
    files = [f"{label:03}.Bird_{label}/Bird_{label}_{number}.jpg" for label in (1, 2, 3) for number in (7, 4)]
    training = "010110"
    for number, file in enumerate(files):
        save(root / "images" / file, number)
    (root / "images.txt").write_text("".join(f"{number} {file}\n" for number, file in enumerate(files, 1)))
    (root / "image_class_labels.txt").write_text("".join(f"{number} {(number + 1) // 2}\n" for number in range(1, 7)))
    (root / "train_test_split.txt").write_text("".join(f"{number} {each}\n" for number, each in enumerate(training, 1)))
    rows = [(file.split("/")[1], number // 2) for number, file in enumerate(files)]
    return {
        split: [row for row, each in zip(rows, training, strict=True) if each == flag]
        for split, flag in (("train", "1"), ("test", "0"))
    }


def flowers(root: Path) -> Expected:
    root = root / "flowers-102"
    for number in range(1, 7):
        save(root / "jpg" / f"image_{number:05}.jpg", number)
    savemat(root / "imagelabels.mat", {"labels": np.array([[1, 2, 3, 3, 2, 1]])})
    savemat(root / "setid.mat", {"trnid": [[6, 2, 3]], "valid": [[1]], "tstid": [[4, 5]]})
    train = [("image_00006.jpg", 0), ("image_00002.jpg", 1), ("image_00003.jpg", 2)]
    return {"train": train, "test": [("image_00004.jpg", 2), ("image_00005.jpg", 1)]}


def food(root: Path) -> Expected:
    root = root / "food-101"
    lists = {"train": {"waffles": ["waffles/3", "waffles/1"], "apple_pie": ["apple_pie/2"]}}
    lists["test"] = {"waffles": ["waffles/5"], "apple_pie": ["apple_pie/4", "apple_pie/6"]}
    (root / "meta").mkdir(parents=True)
    for split, listed in lists.items():
        (root / "meta" / f"{split}.json").write_text(json.dumps(listed))
        for each in (each for images in listed.values() for each in images):
            save(root / "images" / f"{each}.jpg", int(each[-1]))
    test = [("5.jpg", 1), ("4.jpg", 0), ("6.jpg", 0)]
    return {"train": [("3.jpg", 1), ("1.jpg", 1), ("2.jpg", 0)], "test": test}


def pets(root: Path) -> Expected:
    root = root / "oxford-iiit-pet"
    rows = {"trainval": [("Abyssinian_2", 1), ("american_bulldog_9", 2), ("Bengal_1", 3)]}
    rows["test"] = [("american_bulldog_1", 2), ("Abyssinian_1", 1), ("Bengal_3", 3)]
    (root / "annotations").mkdir(parents=True)
    for split, entries in rows.items():
        lines = (f"{image} {label} 1 1\n" for image, label in entries)
        (root / "annotations" / f"{split}.txt").write_text("".join(lines))
        for number, (image, _) in enumerate(entries):
            save(root / "images" / f"{image}.jpg", number)
    train, test = ([(f"{image}.jpg", label - 1) for image, label in entries] for entries in rows.values())
    return {"train": train, "test": test}


FOLDERS: dict[str, tuple[Callable[[Path], Expected], str]] = {  # by data set: the maker, and what an archive unpacks to
    "cub200": (birds, "CUB_200_2011"),
    "flowers102": (flowers, "flowers-102"),
    "food101": (food, "food-101"),
    "oxford_pet": (pets, "oxford-iiit-pet"),
}
