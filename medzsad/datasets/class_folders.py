"""Layouts with a folder per class, split and kind: MVTec AD's, and BMAD's variant of it.

MVTec style (Bergmann et al., CVPR 2019; also BTAD, MPDD, DTD-Synthetic and most prepared sets)::

    {class}/test/{good|defect}/000.png      {class}/ground_truth/{defect}/000_mask.png

BMAD (Bao et al., CVPR Workshops 2024), where a part has masks::

    test/good/img/1.png      test/Ungood/img/2.png      test/Ungood/label/2.png
"""

from __future__ import annotations

from pathlib import Path

from medzsad.datasets.files import (
    NORMAL_FOLDERS,
    SPLITS,
    Masks,
    child,
    class_homes,
    images_in,
    relative_id,
    subfolders,
)
from medzsad.datasets.reading import Found, Problem, Request
from medzsad.datasets.samples import GOOD, Sample

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
            for image in images_in(images):
                samples.append(
                    Sample(
                        image=image,
                        label=0 if normal else 1,
                        mask=lookup.of(image),
                        class_name=name,
                        kind=GOOD if normal else folder.name,
                        id=relative_id(image, base),
                    )
                )
            if request.split == "test" or nested:
                problems += [Problem("unused-mask", mask, "no image belongs to it") for mask in lookup.unused]
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
