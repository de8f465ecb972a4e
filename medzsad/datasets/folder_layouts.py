"""Layouts of 2D images in which the names of folders say what is anomalous, or where the masks are.

MVTec style (Bergmann et al., CVPR 2019; also BTAD, MPDD, DTD-Synthetic and most prepared sets)::

    {class}/test/{good|defect}/000.png      {class}/ground_truth/{defect}/000_mask.png

BMAD (Bao et al., CVPR Workshops 2024), where a part has masks::

    test/good/img/1.png      test/Ungood/img/2.png      test/Ungood/label/2.png

Folders that say what their images are, without masks (``yes/`` and ``no/``), and images in one folder with
masks in another, where the mask decides whether an image is anomalous.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medzsad.datasets.images import read_mask
from medzsad.datasets.reading import (
    NORMAL_FOLDERS,
    SPLITS,
    Found,
    Masks,
    Problem,
    Request,
    child,
    class_homes,
    images_in,
    sample_of,
    subfolders,
    unused_masks,
    unwrapped,
)
from medzsad.datasets.samples import Sample
from medzsad.errors import BadInput, certain

GROUND_TRUTH = ("ground_truth", "groundtruth", "ground-truth", "ground truth")
BMAD_IMAGES = ("img", "images")
BMAD_LABELS = ("label", "labels", "anomaly_mask", "mask", "masks")


def read_mvtec(base: Path, request: Request) -> Found | None:
    """MVTec style; ``base`` is the class itself or holds the classes."""
    return _read(base, request, nested=False)


def read_bmad(base: Path, request: Request) -> Found | None:
    """BMAD's style; ``base`` is one of its parts or holds several."""
    return _read(base, request, nested=True)


def _read(base: Path, request: Request, *, nested: bool) -> Found | None:
    homes = class_homes(base, lambda folder: _is_class(folder, nested))
    if not homes:
        return None
    samples: list[Sample] = []
    problems: list[Problem] = []
    for home in homes:
        name = request.class_name if request.class_name and len(homes) == 1 else home.name
        split = child(home, *SPLITS[request.split])
        if split is None:
            continue
        for folder in subfolders(split):
            if nested:
                images, masks = child(folder, *BMAD_IMAGES), child(folder, *BMAD_LABELS)
            else:
                truth = child(home, *GROUND_TRUTH)
                images, masks = folder, None if truth is None else child(truth, folder.name.casefold())
            if images is None:
                continue
            normal = folder.name.casefold() in NORMAL_FOLDERS
            lookup = Masks(masks)
            samples += [
                sample_of(image, int(not normal), lookup.of(image), name, base, folder.name)
                for image in images_in(images)
            ]
            if request.split == "test" or nested:
                problems += lookup.unused
    return Found(tuple(samples), tuple(problems))


def _is_class(folder: Path, nested: bool) -> bool:
    """Whether a folder has a split with folders of images in it."""
    for names in SPLITS.values():
        split = child(folder, *names)
        for kind in subfolders(split) if split is not None else ():
            images = child(kind, *BMAD_IMAGES) if nested else kind
            if images is not None and images_in(images):
                return True
    return False


# Anomalous and normal folder, in lower case.
PAIRS = (
    ("yes", "no"),
    ("anomalous", "normal"),
    ("anomaly", "normal"),
    ("abnormal", "normal"),
    ("ungood", "good"),
    ("defect", "good"),
    ("bad", "good"),
)


def read_yes_no(base: Path, request: Request) -> Found | None:
    """``yes/`` and ``no/`` (or another pair of :data:`PAIRS`) in ``base``, or in its folder of the split."""
    split = child(base, *SPLITS[request.split])
    for home in (split, base if request.split == "test" else None):
        for anomalous, normal in PAIRS if home is not None else ():
            yes, no = (child(certain(home), name) for name in (anomalous, normal))
            if yes is not None and no is not None and (images_in(yes) or images_in(no)):
                return Found(_samples(yes, 1, base, request) + _samples(no, 0, base, request))
    fits = any(child(base, a) and child(base, n) for a, n in PAIRS)
    return Found(()) if fits and request.split != "test" else None


def read_covid(base: Path, request: Request) -> Found | None:
    """COVID-19 radiography database: ``COVID`` against ``NORMAL``.

    The images lie in the class folders themselves (first release) or in ``images/`` there (since the lung
    masks came). Those masks mark lungs, not findings: they are not read. Other folders are left alone.
    """
    return _read_covid(base, request, others=False)


def read_covid_all(base: Path, request: Request) -> Found | None:
    """As :func:`read_covid`, but every folder with images except ``NORMAL`` is anomalous."""
    return _read_covid(base, request, others=True)


def _read_covid(base: Path, request: Request, *, others: bool) -> Found | None:
    normal = child(base, *NORMAL_FOLDERS)
    folders = [f for f in subfolders(base) if f.name.casefold().startswith("covid")]
    if normal is None or not folders:
        return None
    if request.split != "test":
        return Found(())
    chosen = [f for f in subfolders(base) if f != normal] if others else folders
    samples: tuple[Sample, ...] = ()
    for folder in chosen:
        samples += _samples(child(folder, "images") or folder, 1, base, request, kind=folder.name)
    left = [f.name for f in subfolders(base) if f != normal and f not in chosen]
    notes = (f"Not read: {', '.join(left)} (covid19-all counts them as anomalous).",) if left else ()
    samples += _samples(child(normal, "images") or normal, 0, base, request)
    return Found(samples, notes=notes)


def _samples(
    folder: Path, label: int, base: Path, request: Request, kind: str | None = None
) -> tuple[Sample, ...]:
    name = _class_name(base, request)
    return tuple(
        sample_of(image, label, None, name, base, kind or folder.name) for image in images_in(folder)
    )


def _class_name(base: Path, request: Request) -> str:
    """Return the class of a set whose folders name none."""
    return request.class_name or base.name or "object"


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
    return Found(found.samples, (*found.problems, *unused_masks(spare)))


def paired(images: Path, masks: Path, base: Path, request: Request) -> Found:
    """Return the samples of an image and a mask folder.

    An image whose mask is empty is normal. An image without a mask is no sample: nothing says what it is.
    """
    lookup = Masks(masks)
    found = _of_pairs([(image, lookup.of(image)) for image in images_in(images)], masks.name, base, request)
    return Found(found.samples, (*found.problems, *lookup.unused))


def _of_pairs(pairs: Sequence[tuple[Path, Path | None]], where: str, base: Path, request: Request) -> Found:
    samples: list[Sample] = []
    problems: list[Problem] = []
    masks = [mask for _, mask in pairs if mask is not None]
    labels = iter([1] * len(masks)) if request.probe else labels_of(masks)
    for image, mask in pairs:
        if mask is None:
            problems.append(Problem("unlabelled", image, f"no mask for it in {where}"))
            continue
        samples.append(sample_of(image, next(labels), mask, _class_name(base, request), base))
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
