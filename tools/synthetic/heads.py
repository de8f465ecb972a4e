"""Whole heads as anatomical label maps, and what a scanner would make of their tissues.

The label maps (``brain_label_maps``: FreeSurfer's labels, and 501 to 530 outside the brain) are grouped into
:data:`TISSUES`; left and right share a tissue. Every sample draws new intensities for them, now and then in
the order that FLAIR, T1, T2 or CT show: so a network learns that ventricles, folds, eyes and the skull base
are normal at any contrast (the idea of SynthSeg, Billot et al. 2023, turned to anomalies).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TISSUES: dict[str, tuple[int, ...]] = {
    "air": (0,),
    "white": (2, 41, 25, 57),
    "cortex": (3, 42),
    "cerebellar_white": (7, 46),
    "cerebellar_cortex": (8, 47),
    "thalamus": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "amygdala": (18, 54, 26, 58),
    "ventral": (28, 60, 136, 137, 163, 164),
    "brainstem": (16,),
    "ventricle": (4, 43, 5, 44, 14, 15, 72),
    "fluid": (24,),
    "vessel": (30, 62, 502, 514),
    "optic": (85, 530),
    "eye": (506,),
    "soft": (507,),
    "muscle": (508,),
    "mucosa": (509,),
    "skin": (511,),
    "cord": (512,),
    "bone": (515,),
    "marrow": (516,),
}
NAMES = tuple(TISSUES)
INDEX = {name: index for index, name in enumerate(NAMES)}
BRAIN = np.isin(np.arange(len(NAMES)), [INDEX[n] for n in NAMES[1:14]])  # white matter to ventricles
INNER = BRAIN | (np.arange(len(NAMES)) == INDEX["fluid"])  # what skull-stripping leaves
DEEP = ("thalamus", "caudate", "putamen", "pallidum", "hippocampus", "amygdala", "ventral", "brainstem")
KINDS = ("random", "flair", "t1", "t2", "ct")
KIND_SHARES = (0.34, 0.24, 0.16, 0.08, 0.18)
# Lowest and highest mean of a tissue in each kind of scan; of CT in HU.
RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "flair": {
        "white": (0.34, 0.50), "cortex": (0.48, 0.62), "deep": (0.42, 0.58), "csf": (0.02, 0.16),
        "vessel": (0.05, 0.5), "eye": (0.05, 0.2), "soft": (0.2, 1.1), "muscle": (0.25, 0.45),
        "mucosa": (0.4, 1.1), "skin": (0.5, 1.8), "cord": (0.35, 0.5), "bone": (0.0, 0.12),
        "marrow": (0.2, 1.3), "optic": (0.3, 0.6),
    },
    "t1": {
        "white": (0.62, 0.85), "cortex": (0.42, 0.58), "deep": (0.48, 0.70), "csf": (0.08, 0.24),
        "vessel": (0.1, 1.6), "eye": (0.1, 0.25), "soft": (0.4, 1.0), "muscle": (0.35, 0.55),
        "mucosa": (0.4, 1.3), "skin": (0.7, 1.3), "cord": (0.6, 0.8), "bone": (0.02, 0.15),
        "marrow": (0.4, 1.2), "optic": (0.5, 0.8),
    },
    "t2": {
        "white": (0.28, 0.42), "cortex": (0.42, 0.58), "deep": (0.30, 0.48), "csf": (0.8, 1.2),
        "vessel": (0.05, 0.3), "eye": (0.8, 1.2), "soft": (0.3, 0.7), "muscle": (0.15, 0.3),
        "mucosa": (0.6, 1.0), "skin": (0.4, 0.8), "cord": (0.3, 0.4), "bone": (0.02, 0.12),
        "marrow": (0.2, 0.6), "optic": (0.3, 0.5),
    },
    "ct": {
        "white": (23, 31), "cortex": (33, 42), "deep": (31, 41), "csf": (0, 12), "vessel": (40, 70),
        "eye": (5, 15), "soft": (-60, 40), "muscle": (45, 65), "mucosa": (20, 60), "skin": (-40, 60),
        "cord": (28, 38), "bone": (700, 1500), "marrow": (200, 700), "optic": (25, 40),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Head:
    """One label map.

    Attributes:
        tissues: uint8 (X, Y, Z), index of :data:`TISSUES`, 1 mm, right, anterior and superior ascending.
        counts: voxels of each tissue.
        brain_box: first and last voxel of the brain along each axis (3, 2).
    """

    tissues: np.ndarray
    counts: np.ndarray
    brain_box: np.ndarray


def load_heads(root: str | os.PathLike[str] | None) -> list[Head]:
    """Return the label maps below ``root``/data/brain_label_maps, cut to the head.

    Empty where there are none.
    """
    import nibabel as nib

    folder = Path(root or "") / "data" / "brain_label_maps"
    table = np.full(1024, INDEX["soft"], dtype=np.uint8)  # 5xx that no tissue names
    for index, labels in enumerate(TISSUES.values()):
        table[list(labels)] = index
    heads = []
    for path in sorted(folder.glob("seg_*.nii.gz")) if root else []:
        image = nib.as_closest_canonical(nib.load(path))
        tissues = table[np.asarray(image.dataobj).astype(np.int16)]
        tissues = tissues[tuple(slice(low, high + 1) for low, high in box_of(tissues > 0))]
        tissues = np.ascontiguousarray(tissues)
        brain_box = box_of(BRAIN[tissues])
        heads.append(Head(tissues, np.bincount(tissues.ravel(), minlength=len(NAMES)), brain_box))
    return heads


def box_of(mask: np.ndarray) -> np.ndarray:
    """First and last index along each axis (3, 2)."""
    edges = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        edges.append((used[0], used[-1]))
    return np.array(edges)


def draw_tissues(r: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and texture (standard deviation) of each tissue, (len(TISSUES),) each, in the scan's own unit."""
    if kind == "random":
        low, high = np.zeros(len(NAMES)), np.ones(len(NAMES))
        mean = r.uniform(low, high)
        mean[INDEX["air"]] = 0
        csf = mean[INDEX["ventricle"]]
        white, cortex = mean[INDEX["white"]], mean[INDEX["cortex"]]
        unit = 1.0
    else:
        ranges = RANGES[kind]
        csf, white, cortex = (r.uniform(*ranges[name]) for name in ("csf", "white", "cortex"))
        mean = np.array([r.uniform(*ranges.get(name, (0, 0))) for name in NAMES])
        mean[INDEX["air"]] = -1000 if kind == "ct" else 0
        unit = 90.0 if kind == "ct" else 1.0
    mean[INDEX["white"]], mean[INDEX["cortex"]] = white, cortex
    mean[INDEX["cerebellar_white"]] = white + 0.03 * unit * r.normal()
    mean[INDEX["cerebellar_cortex"]] = cortex + 0.03 * unit * r.normal()
    for name in DEEP:  # grey matter with more or less myelin: between cortex and white matter
        mean[INDEX[name]] = white + (cortex - white) * r.uniform(0.1, 1.0) + 0.02 * unit * r.normal()
    mean[INDEX["ventricle"]] = csf
    mean[INDEX["fluid"]] = csf + 0.04 * unit * r.normal() + r.random() * 0.2 * (cortex - csf)
    texture = unit * 0.005 * 14 ** r.random(len(NAMES))
    outside = np.arange(len(NAMES)) > INDEX["optic"]
    texture[outside] *= r.uniform(1, 4)
    texture[INDEX["soft"]] += unit * r.uniform(0.05, 0.25)
    texture[INDEX["air"]] = 0
    return mean, texture
