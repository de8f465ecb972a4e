"""Layouts with images in one folder and masks in another; the mask decides whether an image is anomalous."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medzsad.datasets.files import SPLITS, Masks, child, images_in, relative_id
from medzsad.datasets.images import read_mask
from medzsad.datasets.reading import Found, Problem, Request
from medzsad.datasets.samples import GOOD, Sample
from medzsad.errors import BadInput

READERS = 4
IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "label", "gt", "ground_truth", "ground truth", "groundtruth")

# Folder names, in lower case, of images and masks in each split.
ISIC = {
    "test": ("isbi2016_isic_part1_test_data", "isbi2016_isic_part1_test_groundtruth"),
    "train": ("isbi2016_isic_part1_training_data", "isbi2016_isic_part1_training_groundtruth"),
}
TN3K = {"test": ("test-image", "test-mask"), "train": ("trainval-image", "trainval-mask")}
CLINICDB = {"test": ("original", "ground truth")}


def read_images_masks(base: Path, request: Request) -> Found | None:
    """``images/`` and ``masks/`` in ``base``, or in its folder of the split."""
    split = child(base, *SPLITS[request.split])
    for home in (split, base if request.split == "test" else None):
        if home is not None:
            images, masks = child(home, *IMAGES), child(home, *MASKS)
            if images is not None and masks is not None and images_in(images) and images_in(masks):
                return paired(images, masks, base, request)
    fits = any(child(home, *IMAGES) and child(home, *MASKS) for home in _homes(base))
    return Found(()) if fits and request.split != "test" else None


def reader_of(folders: Mapping[str, tuple[str, str]]) -> Callable[[Path, Request], Found | None]:
    """A reader of a layout whose folders have fixed names.

    Args:
        folders: split to the names, in lower case, of its image and its mask folder.
    """

    def read(base: Path, request: Request) -> Found | None:
        here = {split: (child(base, image), child(base, mask)) for split, (image, mask) in folders.items()}
        whole = {split: pair for split, pair in here.items() if None not in pair}
        if not whole:
            return None
        if request.split not in whole:
            return Found(())
        return paired(*whole[request.split], base, request)

    return read


def paired(images: Path, masks: Path, base: Path, request: Request) -> Found:
    """The samples of an image and a mask folder.

    An image whose mask is empty is normal. An image without a mask is no sample: nothing says what it is.
    """
    lookup = Masks(masks)
    pairs = [(image, lookup.of(image)) for image in images_in(images)]
    samples: list[Sample] = []
    problems: list[Problem] = []
    labels = labels_of(mask for _, mask in pairs if mask is not None)
    for image, mask in pairs:
        if mask is None:
            problems.append(Problem("unlabelled", image, f"no mask for it in {masks.name}"))
            continue
        label = next(labels)
        samples.append(
            Sample(
                image=image,
                label=label,
                mask=mask,
                class_name=request.class_name or base.name or "object",
                kind="anomaly" if label else GOOD,
                id=relative_id(image, base),
            )
        )
    problems += [Problem("unused-mask", mask, "no image belongs to it") for mask in lookup.unused]
    return Found(tuple(samples), tuple(problems))


def labels_of(masks: Iterable[Path]) -> Iterable[int]:
    """1 for each mask that marks something, 0 for each that is empty, in order.

    A mask that cannot be read counts as marking something: it stays in the set, and whoever reads it is told.
    """
    with ThreadPoolExecutor(READERS) as pool:
        return iter(list(pool.map(_label, masks)))


def _label(mask: Path) -> int:
    try:
        return int(read_mask(mask).any())
    except BadInput:
        return 1


def _homes(base: Path) -> list[Path]:
    splits = (child(base, *names) for names in SPLITS.values())
    return [base, *(split for split in splits if split is not None)]
