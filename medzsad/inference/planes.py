"""A volume along each of its planes: what the detector makes of the slices, before the maps are joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from medzsad.detectors.volume_intensity import HIGHEST, LOWEST, standardised
from medzsad.errors import certain
from medzsad.inference.guided import guide_by_scan
from medzsad.inference.slicewise import SliceWiseOutput, SliceWisePredictor
from medzsad.scans.intensity import as_shown
from medzsad.scans.prepared import PreparedVolume
from medzsad.scans.region import BrainRegion, brain_region
from medzsad.scans.slices import STACK_AXIS, Plane, other_axes

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector
    from medzsad.detectors.volume_rules import VolumeRules


def detect_slices(
    prepared: PreparedVolume,
    detector: AnomalyDetector,
    rules: VolumeRules,
    region: np.ndarray | None,
    *,
    batch_size: int | None,
    progress: Callable[..., Any] | None,
    first_pass: int = 0,
) -> list[SliceWiseOutput]:
    """Slice a volume along each of its planes and let the detector see the slices.

    With a ``first_pass`` all of them at so many pixels first (:mod:`medzsad.inference.first_pass`).
    """
    scan = prepared.scan

    def output_of(part: AnomalyDetector, plane: Plane) -> SliceWiseOutput:
        return SliceWisePredictor(
            plane,
            scan.spacing,
            prepare=as_shown(scan, prepared.scaling) if part.tells_colours else prepared.scaling,
            batch_size=batch_size,
            progress=progress,
            # Who gives a region wants all of it seen.
            least_area=rules.least_area if region is None else 0.0,
            resolution_mm=rules.resolution_mm,
            apart_mm=rules.apart_mm,
            first_pass=first_pass,
        )(scan.voxels, part, prepared.foreground, region=region)

    outputs = [output_of(next(iter(detector.parts), detector), plane) for plane in prepared.planes]
    for profile in detector.parts[1:]:
        # Of a volume the map stays the detector's: lesions there are small beside a profile's patches.
        outputs = [
            output.joined(output_of(profile, output.plane), prepared.foreground, keeps_map=not scan.is_2d)
            for output in outputs
        ]
    return outputs


def follow_scan(
    outputs: list[SliceWiseOutput], prepared: PreparedVolume, region: np.ndarray | None, radius_mm: float
) -> None:
    """Let each plane's map follow the scan, in place, where it was predicted; 0 outside of the region."""
    scan = prepared.scan
    encoded = standardised(prepared.scaling, scan.voxels, prepared.foreground)
    for output in outputs:
        shown = np.zeros(scan.shape[STACK_AXIS[output.plane]], dtype=bool)
        shown[output.indices] = True
        inside = prepared.foreground & np.expand_dims(shown, other_axes(STACK_AXIS[output.plane]))
        if region is not None:
            inside &= region
        guide_by_scan(
            output.anomaly_map,
            # Bone and fat, far brighter than what is looked at, would decide alone.
            lambda part: np.minimum(encoded(part) * (HIGHEST - LOWEST) + LOWEST, -LOWEST),
            scan.voxels,
            inside,
            scan.spacing,
            radius_mm,
        )


def brain_of(outputs: list[SliceWiseOutput], prepared: PreparedVolume) -> BrainRegion:
    """Return the brain, where most planes see one."""
    masks = [certain(output.brain) for output in outputs]
    seen = masks[0] if len(masks) == 1 else np.sum(masks, axis=0) > len(masks) / 2
    return brain_region(seen, prepared.foreground, prepared.scan.spacing)


def threshold_of(detector: AnomalyDetector, outputs: list[SliceWiseOutput]) -> float | str:
    """Return the detector's threshold for what the scan looks like, unless a caller has set it another."""
    first = next(iter(detector.parts), detector)
    own = outputs[0].threshold
    return detector.threshold if own is None or detector.threshold != first.threshold else own


def mean_map(maps: list[np.ndarray]) -> np.ndarray:
    """Return the mean of the planes' maps, written into the first."""
    total = maps[0]
    for other in maps[1:]:
        total += other
    if len(maps) > 1:
        total /= len(maps)
    return total
