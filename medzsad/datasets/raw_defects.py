"""KolektorSDD and DAGM 2007 as they are published, and their usual preparation for anomaly detection."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from medzsad.datasets.folder_layouts import read_mvtec
from medzsad.datasets.images import read_image, read_mask
from medzsad.datasets.reading import (
    Found,
    Masks,
    Problem,
    Request,
    child,
    class_homes,
    images_in,
    relative_id,
    sample_of,
    subfolders,
)
from medzsad.datasets.samples import Sample
from medzsad.errors import BadInput, OutputNotWritable
from medzsad.storage.atomic import sweep

KSDD_CLASS = "electrical_commutators"
PIECES = 3
TEST_SHARE = 0.25  # of the normal pieces
SPLIT_SEED = 42


def read_ksdd(base: Path, request: Request) -> Found | None:
    """KolektorSDD (Tabernik et al., 2019) as published: ``kos01/Part0.jpg`` and ``kos01/Part0_label.bmp``.

    The benchmark's images are thirds of these. They are cut once and kept in the cache folder
    (``MEDZSAD_CACHE``), see :func:`prepare_ksdd`.
    """
    sources = _ksdd_images(base)
    if not sources:
        return None
    if request.probe:
        return Found(tuple(Sample(path, 1, mask, KSDD_CLASS, "", path.name) for path, mask in sources))
    from medzsad.storage.cache import cache_folder

    facts = [(relative_id(p, base), p.stat().st_size, p.stat().st_mtime_ns) for pair in sources for p in pair]
    digest = hashlib.sha256(repr((str(base.resolve()), facts)).encode()).hexdigest()[:16]
    folder = cache_folder() / "datasets" / f"ksdd-{digest}"
    if not folder.is_dir():
        try:
            prepare_ksdd(base, folder)
        except OutputNotWritable:
            if not folder.is_dir():  # else another process prepared the same set meanwhile
                raise
    found = read_mvtec(folder, request)
    note = f"Cut into thirds, as usual; the pieces are kept in {folder}."
    return None if found is None else Found(found.samples, found.problems, (note,))


def prepare_ksdd(root: str | Path, out: str | Path) -> Path:
    """KolektorSDD as AnomalyCLIP and AdaCLIP prepared it: thirds along the height, in MVTec style.

    A piece is anomalous where its label is not empty. All anomalous pieces and a quarter of the normal ones,
    rounded up, are the test split. Which quarter is drawn with seed 42 from the naturally sorted pieces; the
    published draw depended on the order of files on the authors' disk.

    Args:
        root: the folder with ``kos01`` and so on.
        out: a folder that does not exist yet; it appears complete or not at all.

    Returns:
        ``out``, which then holds ``electrical_commutators/{train,test,ground_truth}/...``.

    Raises:
        BadInput: no such images, an image or label that cannot be read, or of different sizes.
        OutputNotWritable: ``out`` exists or cannot be written.
    """
    root, out = Path(root), Path(out)
    sources = _ksdd_images(root)
    if not sources:
        raise BadInput(f"{root} holds no kos01/Part0.jpg with Part0_label.bmp; give KolektorSDD's folder.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep(out.parent)
        staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=".medzsad-"))
        try:
            whole = staging / "whole"  # inside, because the staging folder itself is for this user only
            _cut_ksdd(sources, whole / KSDD_CLASS)
            if out.exists():
                raise OutputNotWritable(f"{out} exists already; choose another folder.")
            os.rename(whole, out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise OutputNotWritable(f"{out} cannot be written ({error.strerror or error}).") from error
    return out


def read_dagm(base: Path, request: Request) -> Found | None:
    """DAGM 2007 as published: ``Class1/Test/0001.PNG``, ``Class1/Test/Label/0001_label.PNG``.

    An image is anomalous if there is a label for it. The test split is the folder ``Test``, as in
    AnomalyCLIP.
    """
    return _read_dagm(base, request, balanced=False)


def read_dagm_balanced(base: Path, request: Request) -> Found | None:
    """DAGM 2007 as AdaCLIP prepared it: the test split is balanced.

    The anomalous images of ``Train`` and ``Test`` and, of each folder, as many normal ones, the first in
    natural order. The other normal images are the training split.
    """
    return _read_dagm(base, request, balanced=True)


def _read_dagm(base: Path, request: Request, *, balanced: bool) -> Found | None:
    homes = class_homes(base, _is_dagm)
    if not homes:
        return None
    samples: list[Sample] = []
    problems: list[Problem] = []
    for home in homes:
        for split in ("train", "test") if balanced else (request.split,):
            folder = child(home, split)
            if folder is None:
                continue
            masks = Masks(child(folder, "label"))
            pairs = [(image, masks.of(image)) for image in images_in(folder)]
            problems += masks.unused
            if balanced:
                anomalous = [pair for pair in pairs if pair[1] is not None]
                normal = [pair for pair in pairs if pair[1] is None]
                cut = len(anomalous)
                pairs = anomalous + normal[:cut] if request.split == "test" else normal[cut:]
            samples += [
                sample_of(image, int(mask is not None), mask, home.name, base, "defect")
                for image, mask in pairs
            ]
    return Found(tuple(samples), tuple(problems))


def _is_dagm(folder: Path) -> bool:
    if not folder.name.casefold().startswith("class"):
        return False
    return any(child(split, "label") for name in ("test", "train") if (split := child(folder, name)))


def _ksdd_images(base: Path) -> list[tuple[Path, Path]]:
    """Images and their labels."""
    found = []
    for folder in subfolders(base) if base.is_dir() else ():
        if folder.name.casefold().startswith("kos"):
            files = images_in(folder)
            labels = {path.stem.casefold(): path for path in files if path.stem.casefold().endswith("_label")}
            for path in files:
                label = labels.get(f"{path.stem}_label".casefold())
                if label is not None:
                    found.append((path, label))
    return found


def _cut_ksdd(sources: list[tuple[Path, Path]], home: Path) -> None:
    from PIL import Image

    normal: list[Path] = []
    for kind in ("train/good", "test/good", "test/defect", "ground_truth/defect"):
        (home / kind).mkdir(parents=True)
    for path, label_path in sources:
        pixels = np.round(read_image(path).mean(axis=0) * 255).astype(np.uint8)  # they are grey
        label = read_mask(label_path)
        if pixels.shape != label.shape:
            raise BadInput(f"{label_path} has another size than {path.name}; copy both again.")
        bounds = [pixels.shape[0] * i // PIECES for i in range(PIECES + 1)]
        for i in range(PIECES):
            rows = slice(bounds[i], bounds[i + 1])
            name = f"{path.parent.name}_{path.stem}_{i}"
            anomalous = bool(label[rows].any())
            target = home / ("test/defect" if anomalous else "train/good") / f"{name}.png"
            Image.fromarray(pixels[rows]).save(target)
            if anomalous:
                mask = label[rows].astype(np.uint8) * 255
                Image.fromarray(mask).save(home / "ground_truth/defect" / f"{name}_mask.png")
            else:
                normal.append(target)
    order = np.random.RandomState(SPLIT_SEED).permutation(len(normal))
    for index in order[: math.ceil(TEST_SHARE * len(normal))]:
        normal[index].rename(home / "test/good" / normal[index].name)
