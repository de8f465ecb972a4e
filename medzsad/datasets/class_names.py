"""What the classes of a data set are called in texts about its images.

AdaCLIP and WinCLIP put a class's name into their texts. Their authors' code and the public re-implementations
take the name of the class's folder as it is, underscores included; AdaCLIP's code makes hyphens spaces, which
:func:`~medzsad.detectors.clip.state_prompts.state_prompts` does for all methods. The first rule that fits:

1. What is asked for: ``--class-name``, or the name that an ``--organ`` has.
2. The name that a method's own code has for the set: ``names`` in ``catalog.yaml`` (AdaCLIP: ``brain_mri``).
3. For a set of one class, the catalogue's ``class_name`` (``brain``): AnomalyCLIP's, for the papers' sets.
4. The class's folder, or its name in the set's own list: ``metal_nut``.
5. ``object``, where nothing names a class: one's own ``images/`` and ``masks/``, or volumes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from medzsad.datasets.catalog import entries
from medzsad.detectors.organs import OBJECT

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

NAMED_LAYOUTS = ("mvtec", "bmad", "visa", "ksdd", "dagm", "dagm-balanced", "meta.json")
"""Layouts that name classes, by folders or in a list; in others a class is called like the set's folder."""


def name_in_texts(dataset: str, layout: str, class_name: str, method: str) -> str:
    """Return what texts of a method call a class.

    Args:
        dataset: the set's name in the catalogue; others have no rule of their own.
        layout: that it was found in (:data:`medzsad.datasets.layouts.READERS`).
        class_name: of its samples.
        method: of the detector, e.g. ``"adaclip"``.
    """
    entry = entries().get(dataset)
    if entry is not None and method in entry.names:
        return entry.names[method]
    if entry is not None and entry.class_name is not None:
        return entry.class_name
    named = layout in NAMED_LAYOUTS and bool(class_name.replace("-", " ").strip())
    return class_name if named else OBJECT.class_name


def by_class(
    detector: AnomalyDetector,
    dataset: str,
    layout: str,
    classes: Iterable[str],
    *,
    class_name: str | None = None,
) -> dict[str, AnomalyDetector]:
    """Return a detector for each class of a data set, whose texts speak of it; all share their weights.

    Args:
        detector: a loaded detector; it stays as it is.
        dataset, layout: see :func:`name_in_texts`.
        classes: of the set's samples.
        class_name: what texts call all of them instead.

    Raises:
        BadInput, ModelNotReady: see :meth:`AnomalyDetector.for_classes`.
    """
    names = {one: class_name or name_in_texts(dataset, layout, one, detector.method) for one in classes}
    told = detector.for_classes(names.values())
    return {one: told[name] for one, name in names.items()}
