"""Layouts of volumes with label volumes: a folder per case, paired folders, and decathlon-style lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from medzsad.datasets.images import volume_count
from medzsad.datasets.listed import read_json
from medzsad.datasets.reading import (
    SPLITS,
    Found,
    Problem,
    Request,
    child,
    entries,
    relative_id,
    subfolders,
    tokens,
)
from medzsad.datasets.samples import VolumeSample
from medzsad.errors import BadInput
from medzsad.scans.files import is_listed_volume

LABEL_WORDS = ("seg", "label", "labels", "gt", "truth", "groundtruth", "lesion", "lesions", "consensus")
LABEL_PARTS = ("otmulticlass", "segmentation", "lesionmask", "lesion_mask", "_seg", "-seg")
FOREGROUND_PARTS = ("brainmask", "brain_mask", "brain-mask", "foreground", "bodymask", "body_mask")
LIST_NAMES = ("dataset.json", "datalist.json", "dataset_0.json", "data.json")


def read_cases(base: Path, request: Request) -> Found | None:
    """Return a folder per case with one or several images and a label.

    Which file is what follows from :attr:`Request.patterns` or is guessed from its name: a label has a word
    such as ``seg`` or ``label`` or ``OTMultiClass`` in it, a foreground ``brainmask``, and the image is the
    one that the channel names, or the only one left.
    """
    cases = [folder for folder in subfolders(base) if _niftis(folder)]
    if not cases or any(_role(file, request) == "label" for file in _niftis(base)):
        return None
    if all(folder.name.casefold() in (*IMAGE_FOLDERS, *LABEL_FOLDERS, "imagests") for folder in cases):
        return None
    if request.split != "test":
        return Found(())
    samples: list[VolumeSample] = []
    problems: list[Problem] = []
    channel = _a_channel([_images(_niftis(case), request) for case in cases], request, base)
    for case in cases:
        files = _niftis(case)
        labels = [file for file in files if _role(file, request) == "label"]
        foregrounds = [file for file in files if _role(file, request) == "foreground"]
        images = _images(files, request)
        image = images[0] if len(images) == 1 and channel is None else _of_channel(images, channel)
        if image is None or len(labels) != 1:
            reason = f"{len(labels)} label files" if len(labels) != 1 else f"no image of channel {channel}"
            problems.append(Problem("unlabelled", case, reason))
            continue
        samples.append(_sample(image, labels[0], next(iter(foregrounds), None), case.name, channel, request))
    return Found(tuple(samples), tuple(problems))


IMAGE_FOLDERS = ("imagestr", "images", "image", "volumes", "scans")
LABEL_FOLDERS = ("labelstr", "labels", "label", "masks", "mask", "segmentations")


def read_pairs(base: Path, request: Request) -> Found | None:
    """``imagesTr/`` and ``labelsTr/`` (or ``images/`` and ``labels/``) with files of the same names.

    nnU-Net's ``case_0000.nii.gz`` is channel 0 of ``case.nii.gz``.
    """
    images, labels = child(base, *IMAGE_FOLDERS), child(base, *LABEL_FOLDERS)
    if images is None or labels is None or not _niftis(images) or not _niftis(labels):
        return None
    if request.split != "test":
        return Found(())
    groups: dict[str, list[Path]] = {}
    known = {_stem(file).casefold(): file for file in _niftis(labels)}
    problems = []
    for file in _niftis(images):
        stem = _stem(file).casefold()
        case = stem if stem in known else stem.rpartition("_")[0]
        if case in known:
            groups.setdefault(case, []).append(file)
        else:
            problems.append(Problem("unlabelled", file, f"no label for it in {labels.name}"))
    samples = []
    for case, files in groups.items():
        image, channel, volume = files[0], None, None
        if len(files) == 1 and request.channel is not None and request.channel.isdecimal():
            channel, volume = request.channel, int(request.channel)
        if len(files) > 1:
            by_channel = {_stem(file)[len(case) + 1 :].lstrip("0") or "0": file for file in files}
            channel = _only_channel(list(by_channel), request, base)
            if channel not in by_channel:
                problems.append(Problem("unlabelled", files[0], f"no image of channel {channel}"))
                continue
            image = by_channel[channel]
        samples.append(_sample(image, known[case], None, _stem(known[case]), channel, request, volume))
    if samples:
        _check_4d(samples[0])
    unused = [Problem("unused-mask", known[case], "no image belongs to it") for case in known.keys() - groups]
    return Found(tuple(samples), (*problems, *sorted(unused, key=lambda problem: problem.path)), _notes(base))


def read_datalist(base: Path, request: Request) -> Found | None:
    """Return a JSON list as MONAI and the Medical Segmentation Decathlon have it.

    ``{"training": [{"image": ..., "label": ...}], "validation": ..., "test": ...}``; paths are relative to
    the list. ``image`` may be a list of files, one a channel, or one 4D file. ``base`` is the list or its
    folder. A test list without labels cannot be evaluated: then ``validation`` or ``training`` is read, and
    said.
    """
    path = _find_list(base)
    if path is None:
        return None
    content = read_json(path)
    lists = {key.casefold(): value for key, value in content.items() if isinstance(value, list)}
    order = {"test": ("test", "valid", "train"), "valid": ("valid",), "train": ("train",)}[request.split]
    notes: tuple[str, ...] = ()
    for split in order:
        key = next((name for name in SPLITS[split] if name in lists), None)
        rows = [row for row in lists.get(key, ()) if isinstance(row, Mapping) and row.get("label")]
        if not rows:
            continue
        if split != request.split:
            notes = (f"{path.name} has no labelled test cases: its list '{key}' was read.",)
        names = content.get("modality") or content.get("channel_names") or {}
        names = {str(k): str(v) for k, v in names.items()} if isinstance(names, Mapping) else {}
        samples = tuple(_listed(row, path, names, request) for row in rows)
        _check_4d(samples[0])
        return Found(samples, notes=notes)
    return Found(())


def _listed(row: Mapping[str, Any], path: Path, names: dict[str, str], request: Request) -> VolumeSample:
    images = row["image"] if isinstance(row.get("image"), list) else [row.get("image")]
    if not all(isinstance(text, str) for text in (*images, row["label"])):
        raise BadInput(
            f"{path} has an entry without a usable 'image' and 'label': {dict(row)!r}; correct it."
        )
    files = [path.parent / str(text) for text in images]
    label = path.parent / row["label"]
    channel = volume = None
    if len(files) > 1 or len(names) > 1:
        choices = [names.get(str(i), str(i)) for i in range(max(len(files), len(names)))]
        channel = _only_channel(choices, request, path)
        wanted = channel.casefold()
        index = next((i for i, n in enumerate(choices) if wanted in (n.casefold(), str(i))), None)
        if index is None and len(files) > 1:
            index = next((i for i, file in enumerate(files) if wanted in tokens(file.name)), None)
        if index is None:
            raise BadInput(f"{path} has no channel {channel!r}; it has {', '.join(choices)}.")
        channel = choices[index]
        volume = index if len(files) == 1 else None
        files = [files[0] if len(files) == 1 else files[index]]
    elif request.channel is not None and request.channel.isdecimal():
        channel, volume = request.channel, int(request.channel)
    foreground = row.get("foreground")
    foreground = path.parent / foreground if isinstance(foreground, str) else None
    return _sample(files[0], label, foreground, relative_id(label, path.parent), channel, request, volume)


def _check_4d(sample: VolumeSample) -> None:
    """Asks for a channel where the image has several and none was chosen."""
    if sample.volume is not None or not sample.image.is_file():
        return
    count = volume_count(sample.image)
    if count > 1:
        raise BadInput(
            f"{sample.image} is 4D ({count} volumes); choose one with `channel` 0 to `channel` {count - 1}."
        )


def _find_list(base: Path) -> Path | None:
    if base.is_file():
        return base if base.suffix.casefold() == ".json" else None
    files = [file for file in entries(base) if file.suffix.casefold() == ".json"] if base.is_dir() else []
    named = [file for name in LIST_NAMES for file in files if file.name.casefold() == name]
    for file in named or files:
        try:
            content = read_json(file)
        except BadInput:
            if named:
                raise
            continue  # a JSON file of something else
        if isinstance(content, dict) and any(
            isinstance(content.get(name), list) for names in SPLITS.values() for name in names
        ):
            return file
    return None


def _sample(
    image: Path,
    label: Path,
    foreground: Path | None,
    name: str,
    channel: str | None,
    request: Request,
    volume: int | None = None,
) -> VolumeSample:
    class_name = request.class_name or "object"
    return VolumeSample(image, label, foreground, class_name, name, channel, volume, request.positive)


def _niftis(folder: Path) -> list[Path]:
    return (
        [file for file in entries(folder) if is_listed_volume(file) and file.is_file()]
        if folder.is_dir()
        else []
    )


def _stem(file: Path) -> str:
    stem = file.stem
    return Path(stem).stem if file.name.casefold().endswith((".nii.gz", ".hdr.gz")) else stem


def _role(file: Path, request: Request) -> str:
    """``"image"``, ``"label"`` or ``"foreground"``; ``""`` for what the patterns leave out."""
    name = file.name.casefold()
    for role, pattern in request.patterns.items():
        if fnmatch(name, pattern.casefold()):
            return role
    if "image" in request.patterns and "label" in request.patterns:
        return ""
    if any(part in name for part in FOREGROUND_PARTS):
        return "foreground"
    if any(part in name for part in LABEL_PARTS) or set(tokens(_stem(file))) & set(LABEL_WORDS):
        return "label"
    if set(tokens(_stem(file))) & {"mask", "roi"}:
        return "label"
    return "image" if "image" not in request.patterns else ""


def _images(files: Sequence[Path], request: Request) -> list[Path]:
    return [file for file in files if _role(file, request) == "image"]


def _a_channel(cases: list[list[Path]], request: Request, base: Path) -> str | None:
    """Return the channel to read; None if every case has one image and none was asked for."""
    if request.channel is None and all(len(images) <= 1 for images in cases):
        return None
    names = sorted({file.name for images in cases for file in images})
    channel = _only_channel(names, request, base)
    if not any(_of_channel(images, channel) for images in cases):
        raise BadInput(f"{base} has no channel {channel!r}; its images are {', '.join(names[:6])}.")
    return channel


def _only_channel(choices: Sequence[str], request: Request, base: Path) -> str:
    if request.channel is None:
        raise BadInput(
            f"{base} has several images of a case ({', '.join(choices[:6])}); choose one with `channel`."
        )
    return request.channel


def _of_channel(images: Sequence[Path], channel: str | None) -> Path | None:
    """Return the image whose name has the channel as a word, or else as a part.

    None unless that is exactly one.
    """
    wanted = (channel or "").casefold()
    words = [file for file in images if wanted in tokens(_stem(file))]
    parts = [file for file in images if wanted in file.name.casefold()]
    return next((found[0] for found in (words, parts) if len(found) == 1), None)


def _notes(base: Path) -> tuple[str, ...]:
    return () if child(base, "imagests") is None else ("imagesTs has no labels and is not read.",)
