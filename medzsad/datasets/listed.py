"""Layouts in which a file lists the images: VisA's split file, HeadCT's labels, and ``meta.json``."""

from __future__ import annotations

import csv
import io
from pathlib import Path, PureWindowsPath
from typing import Any

from medzsad.datasets.reading import (
    SPLITS,
    Found,
    Problem,
    Request,
    child,
    child_file,
    images_in,
    sample_of,
    unwrapped,
)
from medzsad.datasets.samples import Sample
from medzsad.errors import BadInput
from medzsad.storage.text_files import read_json, read_text


def read_visa(base: Path, request: Request) -> Found | None:
    """VisA (Zou et al., ECCV 2022): ``split_csv/1cls.csv`` with columns object, split, label, image, mask."""
    folder = child(base, "split_csv")
    path = None if folder is None else child_file(folder, "1cls.csv")
    if path is None:
        return None
    samples = []
    for row in _rows(path):
        if len(row) < 4:
            raise BadInput(
                f"{path} has a line with {len(row)} columns instead of object, split, label, image, mask."
            )
        if row[1].casefold() not in SPLITS[request.split]:
            continue
        image, anomalous = _locate(row[3], base), row[2].casefold() != "normal"
        mask = _locate(row[4], base) if anomalous and len(row) > 4 and row[4] else None
        samples.append(sample_of(image, int(anomalous), mask, row[0], base))
    return Found(tuple(samples))


def read_headct(base: Path, request: Request) -> Found | None:
    """HeadCT: ``labels.csv`` with columns id and hemorrhage, and ``head_ct/000.png`` beside it."""
    path = child_file(base, "labels.csv")
    folder = child(base, "head_ct", "images", "imgs")
    folder = folder and unwrapped(folder)
    if path is None or folder is None or not images_in(folder):
        return None
    if request.split != "test":
        return Found(())
    labels: dict[str, int] = {}
    for row in _rows(path):
        if len(row) < 2 or row[1] not in ("0", "1"):
            raise BadInput(f"{path} has a line that is not an id and 0 or 1: {','.join(row)!r}; correct it.")
        labels[_plain(row[0])] = int(row[1])
    samples, problems = [], []
    for image in images_in(folder):
        label = labels.get(_plain(image.stem))
        if label is None:
            problems.append(Problem("unlabelled", image, f"{path.name} does not list it"))
            continue
        samples.append(sample_of(image, label, None, request.class_name or "object", base, "haemorrhage"))
    return Found(tuple(samples), tuple(problems))


def read_meta(base: Path, request: Request) -> Found | None:
    """``meta.json`` of AnomalyCLIP and AdaCLIP: split to class to a list of ``img_path`` and so on.

    Paths are relative to its folder. Absolute ones from another machine are looked for by their ends.
    """
    path = child_file(base, "meta.json")
    if path is None:
        return None
    content = read_json(path)
    splits = {key.casefold(): value for key, value in content.items()} if isinstance(content, dict) else {}
    known = {name for names in SPLITS.values() for name in names}
    if not set(splits) & known:
        raise BadInput(f"{path} has no 'train' or 'test'; it must map splits to classes to lists of images.")
    classes: dict[str, Any] = next((splits[name] for name in SPLITS[request.split] if name in splits), {})
    samples = []
    try:
        for name, listed in classes.items():
            for row in listed:
                samples.append(_meta_sample(row, name, base))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadInput(
            f"{path} has an entry without a usable img_path, mask_path or anomaly ({error}); make it anew."
        ) from error
    return Found(tuple(samples))


def _meta_sample(row: dict[str, Any], name: str, base: Path) -> Sample:
    image, label = _locate(row["img_path"], base), int(bool(int(row["anomaly"])))
    mask = _locate(row["mask_path"], base) if label and row.get("mask_path") else None
    if mask is not None and mask.is_dir():  # the published scripts write a folder where there is no mask
        mask = None
    class_name, kind = str(row.get("cls_name") or name), row.get("specie_name") or "anomaly"
    return sample_of(image, label, mask, class_name, base, kind)


def _rows(path: Path) -> list[list[str]]:
    """Return the lines of a CSV file below its header, without empty ones.

    Values without surrounding blanks.
    """
    try:
        table = io.StringIO(read_text(path), newline="")
        rows = [[value.strip() for value in row] for row in csv.reader(table)]
    except csv.Error as error:
        raise BadInput(f"{path} cannot be read as CSV ({error}); check the file.") from error
    return [row for row in rows[1:] if any(row)]


def _plain(number: str) -> str:
    """``"007"`` and ``"7"`` are the same image."""
    return str(int(number)) if number.isdecimal() else number.casefold()


def _locate(text: str, base: Path) -> Path:
    """Where a listed path lies below ``base``; backslashes are Windows's."""
    given = PureWindowsPath(text)  # understands both kinds of slashes
    parts = given.parts[1:] if given.anchor else given.parts
    direct = Path(text) if given.anchor else base.joinpath(*parts)
    if direct.exists():
        return direct
    for start in range(1 - bool(given.anchor), len(parts)):
        below = base.joinpath(*parts[start:])
        if below.is_file():
            return below
    return direct
