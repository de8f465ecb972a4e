"""Layouts without masks, where a folder's name says what its images are."""

from __future__ import annotations

from pathlib import Path

from medzsad.datasets.files import NORMAL_FOLDERS, SPLITS, child, images_in, relative_id, subfolders
from medzsad.datasets.reading import Found, Request
from medzsad.datasets.samples import GOOD, Sample
from medzsad.errors import certain

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
    return tuple(
        Sample(
            image=image,
            label=label,
            mask=None,
            class_name=request.class_name or base.name or "object",
            kind=(kind or folder.name) if label else GOOD,
            id=relative_id(image, base),
        )
        for image in images_in(folder)
    )
