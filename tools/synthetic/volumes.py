"""Real normal volumes of redistributable data, cut like the made ones; lesions are pasted into them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from synthetic.heads import box_of
from synthetic.planes import draw_cut, linear, nearest
from synthetic.spots import PATTERN_SHARES, Scene, harm


@dataclass(frozen=True)
class Volume:
    """One volume.

    Attributes:
        grey: float32 (X, Y, Z), in standard deviations of its foreground, right, anterior and superior
            ascending.
        foreground: bool (X, Y, Z).
        spacing: in mm.
        place: uint8 (X, Y, Z), where lesions may be: 0 nowhere, 1 anywhere, 2 small ones too.
        head: whether it is one, with the brain as its place.
        brainless: whether it is known to show none of the brain.
        planes: that it is cut in.
        dark: chance of a lesion darker than what is around.
        share: how often it is drawn.
        scale: standard deviation of the place of lesions, see :class:`synthetic.spots.Scene`.
        stripped: share of samples that show the brain alone.
        unmarked: bool (X, Y, Z), where there may be lesions that nobody marked, or None.
    """

    grey: np.ndarray
    foreground: np.ndarray
    spacing: np.ndarray
    place: np.ndarray
    head: bool
    planes: tuple[str, ...]
    dark: float
    share: float
    scale: float
    stripped: float = 0.0
    unmarked: np.ndarray | None = None
    brainless: bool = False


PLANES = ("axial", "coronal", "sagittal")


def load_volumes(root: str | os.PathLike[str] | None) -> list[Volume]:
    """Return the T1 of ``nichart_demo`` (with the white matter of ``t1_rois``), ``dicom_brain_mr``,
    ``dicom_head_ct`` and ``body_ct_small`` below ``root``/data; empty where there are none.
    """
    data = Path(root or "") / "data"
    if not root or not data.is_dir():
        return []
    found = []
    t1 = sorted((data / "nichart_demo" / "t1").glob("*.nii.gz"))
    for path in t1:
        rois = data / "nichart_demo" / "t1_rois" / path.name
        found.append(_volume(path, PLANES, 0.6, 1.0, rois if rois.exists() else None, stripped=0.45))
    if (data / "dicom_brain_mr").is_dir():
        found.append(_volume(data / "dicom_brain_mr", ("sagittal",), 0.6, 2.0, None, brain="mr"))
    if (data / "dicom_head_ct").is_dir():
        for window in ("brain", "subdural"):
            found.append(
                _volume(data / "dicom_head_ct", ("axial",), 0.5, 4.0, None, window, brain="ct", stripped=0.1)
            )
    for name in ("example_ct.nii.gz", "example_ct_sm.nii.gz", "example_mr_sm.nii.gz"):
        for path in sorted((data / "body_ct_small").rglob(name)):
            for window in (None,) if "mr" in name else ("abdomen", "lung"):
                found.append(replace(_volume(path, PLANES, 0.5, 1.5, None, window), brainless=True))
    return found


def load_unmarked(root: str | os.PathLike[str] | None) -> list[Volume]:
    """Return the FLAIR of ``nichart_demo`` below ``root``/data: normal outside the brain, unknown inside.

    Elderly people have lesions there; the labels that a network gave them are not trained on. Only every
    other person, from the first on: the others are kept to measure with.
    """
    data = Path(root or "") / "data" / "nichart_demo"
    if not root or not (data / "t1_rois").is_dir():
        return []
    paths = sorted((data / "flair").glob("*.nii.gz"), key=lambda path: (len(path.name), path.name))[::2]
    return [
        _volume(path, PLANES, 0.06, 1.0, data / "t1_rois" / path.name, stripped=0.2, unmarked=True)
        for path in paths
    ]


def _brain_of(kind: str, voxels: np.ndarray, foreground: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Where the brain of a head without labels is: the largest part of soft tissue of its brightness.

    ``"ct"``: the inside of the skull, from Hounsfield units, whole. ``"mr"`` (T1): without the outermost
    folds, so good for where lesions may be, not for where the brain ends.
    """
    sigma = [0.8 / side if side < 2 else 0 for side in spacing]
    smooth = ndimage.gaussian_filter(voxels.astype(np.float32), sigma)
    if kind == "ct":
        soft, reach = (smooth > 0) & (smooth < 85), 4.0
    else:
        low, high = np.percentile(voxels[foreground], (50, 95)) * (0.8, 1.0)
        soft, reach = foreground & (smooth > low) & (smooth < high), 7.0
    core, _ = ndimage.label(
        ndimage.distance_transform_edt(np.pad(soft, 1), spacing)[1:-1, 1:-1, 1:-1] > reach
    )
    core = core == 1 + np.bincount(core.ravel())[1:].argmax()
    brain = soft & (ndimage.distance_transform_edt(~core, spacing) <= reach + 1)
    return np.stack([ndimage.binary_fill_holes(part) for part in np.moveaxis(brain, 2, 0)], 2)


def _volume(
    path: Path,
    planes: tuple[str, ...],
    dark: float,
    share: float,
    rois: Path | None,
    window: str | None = None,
    *,
    brain: str | None = None,
    stripped: float = 0.0,
    unmarked: bool = False,
) -> Volume:
    import nibabel as nib
    from nibabel.processing import resample_from_to

    from medzsad.detectors.volume_intensity import decode, standardised
    from medzsad.scans.foreground import foreground_mask
    from medzsad.scans.intensity import intensity_scaling
    from medzsad.scans.readers import read_scan
    from medzsad.scans.slices import CanonicalView

    scan = read_scan(path)
    view = CanonicalView.of(scan)
    labels = None
    if rois is not None:
        there = resample_from_to(nib.load(rois), (scan.voxels.shape[:3], scan.affine), order=0)
        labels = view.to_canonical(np.asarray(there.dataobj))
    scan = replace(scan, voxels=view.to_canonical(scan.voxels), affine=np.diag([*view.spacing, 1.0]))
    foreground = foreground_mask(scan)
    scaling = standardised(intensity_scaling(scan, window, foreground), scan.voxels, foreground)
    grey = decode(scaling(scan.voxels))
    spacing = np.array(view.spacing)
    if labels is not None:
        marked = (labels > 0).astype(np.uint8)
        marked[np.isin(labels, WHITE)] = 2
    else:
        place = grey > -1.2 if brain is None else _brain_of(brain, scan.voxels, foreground, spacing)
        marked = (place & foreground).astype(np.uint8) * 2
    doubtful = ndimage.distance_transform_edt(marked == 0, spacing) <= 4 if unmarked else None
    box = box_of(foreground)
    cut = tuple(slice(low, high + 1) for low, high in box)
    return Volume(
        np.ascontiguousarray(grey[cut], dtype=np.float32), np.ascontiguousarray(foreground[cut]),
        spacing, np.ascontiguousarray(marked[cut]), rois is not None or brain == "ct", planes, dark, share,
        float(np.clip(np.clip(grey[marked > 0], -2.5, 2.5).std(), 0.4, 1.0)), stripped,
        None if doubtful is None else np.ascontiguousarray(doubtful[cut]),
    )  # fmt: skip


# White matter in the numbering of MUSE, which t1_rois has: lobes, cerebellum, corpus callosum, capsules.
WHITE = (44, 45, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95)


def sample_volume(
    r: np.random.Generator,
    size: int,
    volumes: list[Volume],
    sick: bool,
    patterns: tuple[float, ...] = PATTERN_SHARES,
    bodies: bool = False,
) -> tuple[Scene, np.ndarray, np.ndarray | None]:
    """Return a slice of a real volume; its foreground (3, S, S) and, of heads, the brain (S, S).

    With ``bodies``, of what shows none of the brain an empty one, too.
    """
    weights = np.array([volume.share for volume in volumes])
    volume = volumes[int(r.choice(len(volumes), p=weights / weights.sum()))]
    box = np.array([(0, n - 1) for n in volume.grey.shape])
    core = box_of(volume.place > 0) if volume.place.any() else box
    shares = tuple(0.7 if plane == "axial" else 0.15 for plane in volume.planes)
    cut = draw_cut(r, size, box, core, volume.spacing, planes=volume.planes, shares=shares, turned=0.5)
    shape = (3, size, size)
    middle = cut.points[:, cut.points.shape[1] // 2 : cut.points.shape[1] // 2 + 1]
    points = cut.points if volume.spacing.max() < 2.5 else middle
    grey = linear(volume.grey, points, -4.0).mean(1).reshape(shape)
    shown = nearest(volume.foreground, middle)[:, 0].reshape(shape).astype(bool)
    place = nearest(volume.place, middle)[:, 0].reshape(shape)
    stripped = volume.head and r.random() < volume.stripped
    if stripped:
        shown = place > 0
    if volume.unmarked is None and r.random() < 0.2:
        grey = -grey + 2 * r.normal() * 0.2
    inside = ((place > 0) & shown).astype(np.float32)
    scene = Scene(grey.astype(np.float32), inside, (place[0] == 2) * inside[0], cut, volume.scale)
    if sick:
        harm(r, scene, volume.dark, None, patterns)
    if volume.unmarked is not None:
        doubtful = nearest(volume.unmarked, middle)[0, 0].reshape(size, size)
        scene.lesions[(doubtful > 0) & shown[0] & (scene.lesions == 0)] = -1
    if bodies and volume.brainless:
        return scene, shown, np.zeros((size, size), np.float32)
    return scene, shown, (place[0] > 0).astype(np.float32) if volume.head else None
