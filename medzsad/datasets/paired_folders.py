"""Layouts with images in one folder and masks in another; the mask decides whether an image is anomalous."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medzsad.datasets.files import SPLITS, Masks, child, images_in, relative_id, unwrapped
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
            images, masks = _pair(home, IMAGES, MASKS)
            if images is not None and masks is not None and images_in(images) and images_in(masks):
                return paired(images, masks, base, request)
    fits = any(child(home, *IMAGES) and child(home, *MASKS) for home in _homes(base))
    return Found(()) if fits and request.split != "test" else None


def reader_of(folders: Mapping[str, tuple[str, str]]) -> Callable[[Path, Request], Found | None]:
    """Return a reader of a layout whose folders have fixed names.

    Args:
        folders: split to the names, in lower case, of its image and its mask folder.
    """

    def read(base: Path, request: Request) -> Found | None:
        here = {split: _pair(base, (image,), (mask,)) for split, (image, mask) in folders.items()}
        whole = {
            split: (image, mask)
            for split, (image, mask) in here.items()
            if image is not None and mask is not None
        }
        if not whole:
            return None
        if request.split not in whole:
            return Found(())
        return paired(*whole[request.split], base, request)

    return read


def read_colondb(base: Path, request: Request) -> Found | None:
    """CVC-ColonDB (Bernal et al., 2012) as its archive holds it: ``1.tiff`` and its mask ``p1.tiff``."""
    files = {path.stem.casefold(): path for path in images_in(base)} if base.is_dir() else {}
    images = [path for stem, path in files.items() if stem.isdecimal()]
    if not any(f"p{image.stem}" in files for image in images):
        return None
    if request.split != "test":
        return Found(())
    found = _of_pairs([(image, files.get(f"p{image.stem}")) for image in images], base.name, base, request)
    spare = (path for stem, path in files.items() if re.fullmatch(r"p\d+", stem) and stem[1:] not in files)
    unused = (Problem("unused-mask", mask, "no image belongs to it") for mask in spare)
    return Found(found.samples, (*found.problems, *unused))


def paired(images: Path, masks: Path, base: Path, request: Request) -> Found:
    """Return the samples of an image and a mask folder.

    An image whose mask is empty is normal. An image without a mask is no sample: nothing says what it is.
    """
    lookup = Masks(masks)
    found = _of_pairs([(image, lookup.of(image)) for image in images_in(images)], masks.name, base, request)
    unused = (Problem("unused-mask", mask, "no image belongs to it") for mask in lookup.unused)
    return Found(found.samples, (*found.problems, *unused))


def _of_pairs(pairs: Sequence[tuple[Path, Path | None]], where: str, base: Path, request: Request) -> Found:
    samples: list[Sample] = []
    problems: list[Problem] = []
    masks = [mask for _, mask in pairs if mask is not None]
    labels = iter([1] * len(masks)) if request.probe else labels_of(masks)
    for image, mask in pairs:
        if mask is None:
            problems.append(Problem("unlabelled", image, f"no mask for it in {where}"))
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
    return Found(tuple(samples), tuple(problems))


def labels_of(masks: Iterable[Path]) -> Iterator[int]:
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


def _pair(home: Path, images: Sequence[str], masks: Sequence[str]) -> tuple[Path | None, Path | None]:
    """Return image and mask folder by their names, in lower case, without folders around the files."""
    image, mask = child(home, *images), child(home, *masks)
    return image and unwrapped(image), mask and unwrapped(mask)


def _homes(base: Path) -> list[Path]:
    splits = (child(base, *names) for names in SPLITS.values())
    return [base, *(split for split in splits if split is not None)]
