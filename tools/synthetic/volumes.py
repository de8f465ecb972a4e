"""Real normal volumes of redistributable data, cut like the made ones; lesions are pasted into them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthetic.heads import box_of
from synthetic.planes import draw_cut, linear, nearest
from synthetic.spots import Scene, harm


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
        planes: that it is cut in.
        dark: chance of a lesion darker than what is around.
        share: how often it is drawn.
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


PLANES = ("axial", "coronal", "sagittal")


def load_volumes(root: str | os.PathLike[str] | None) -> list[Volume]:
    """The T1 of ``nichart_demo`` (with the white matter of ``t1_rois``), ``dicom_brain_mr``,
    ``dicom_head_ct`` and ``body_ct_small`` below ``root``/data; empty where there are none.

    FLAIR of ``nichart_demo`` is left out: elderly people have lesions there that nobody marked.
    """
    data = Path(root or "") / "data"
    if not root or not data.is_dir():
        return []
    found = []
    t1 = sorted((data / "nichart_demo" / "t1").glob("*.nii.gz"))
    for path in t1:
        rois = data / "nichart_demo" / "t1_rois" / path.name
        found.append(_volume(path, PLANES, 0.6, 1.0, rois if rois.exists() else None))
    if (data / "dicom_brain_mr").is_dir():
        found.append(_volume(data / "dicom_brain_mr", ("sagittal",), 0.6, 2.0, None))
    if (data / "dicom_head_ct").is_dir():
        for window in ("brain", "subdural"):
            found.append(_volume(data / "dicom_head_ct", ("axial",), 0.5, 4.0, None, window))
    for name in ("example_ct.nii.gz", "example_ct_sm.nii.gz", "example_mr_sm.nii.gz"):
        for path in sorted((data / "body_ct_small").rglob(name)):
            for window in (None,) if "mr" in name else ("abdomen", "lung"):
                found.append(_volume(path, PLANES, 0.5, 1.5, None, window))
    return found


def _volume(
    path: Path,
    planes: tuple[str, ...],
    dark: float,
    share: float,
    rois: Path | None,
    window: str | None = None,
) -> Volume:
    from dataclasses import replace

    import nibabel as nib

    from medzsad.detectors.volume_intensity import decode, standardised
    from medzsad.scans.intensity import foreground_mask, intensity_scaling
    from medzsad.scans.readers import read_scan
    from medzsad.scans.slices import CanonicalView

    scan = read_scan(path)
    view = CanonicalView.of(scan)
    scan = replace(scan, voxels=view.to_canonical(scan.voxels), affine=np.diag([*view.spacing, 1.0]))
    foreground = foreground_mask(scan)
    scaling = standardised(intensity_scaling(scan, window, foreground), scan.voxels, foreground)
    grey = decode(scaling(scan.voxels))
    place = foreground & (grey > -1.2) if rois is None else np.zeros(grey.shape, bool)
    marked = place.astype(np.uint8) * 2
    if rois is not None:
        labels = np.asarray(nib.as_closest_canonical(nib.load(rois)).dataobj)
        marked = (labels > 0).astype(np.uint8)
        marked[np.isin(labels, WHITE)] = 2
    box = box_of(foreground)
    cut = tuple(slice(low, high + 1) for low, high in box)
    return Volume(
        np.ascontiguousarray(grey[cut], dtype=np.float32), np.ascontiguousarray(foreground[cut]),
        np.array(view.spacing), np.ascontiguousarray(marked[cut]), rois is not None, planes, dark, share,
        float(np.clip(np.clip(grey[marked > 0], -2.5, 2.5).std(), 0.4, 1.0)),
    )  # fmt: skip


# White matter in the numbering of MUSE, which t1_rois has: lobes, cerebellum, corpus callosum, capsules.
WHITE = (44, 45, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95)


def sample_volume(
    r: np.random.Generator, size: int, volumes: list[Volume], sick: bool
) -> tuple[Scene, np.ndarray, np.ndarray | None]:
    """A slice of a real volume; its foreground (3, S, S) and, of heads, the brain (S, S)."""
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
    stripped = volume.head and r.random() < 0.45
    if stripped:
        shown = place > 0
    if r.random() < 0.2:
        grey = -grey + 2 * r.normal() * 0.2
    inside = ((place > 0) & shown).astype(np.float32)
    scene = Scene(grey.astype(np.float32), inside, (place[0] == 2) * inside[0], cut, volume.scale)
    if sick:
        harm(r, scene, volume.dark, None)
    return scene, shown, (place[0] > 0).astype(np.float32) if volume.head else None
