"""Multi-frame files: enhanced ones with a place for each frame, and cine loops without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import AXIAL, ENHANCED_CT_IMAGE, functional_group, image, ramp, save
from pydicom.sequence import Sequence

from medzsad.errors import BadInput
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality

NO_PLACE = {"ImagePositionPatient": None, "ImageOrientationPatient": None}


def enhanced(path: Path, frames: np.ndarray, depths: list[float], **extra: list[dict]) -> Path:
    elsewhere = dict.fromkeys(("PixelSpacing", "RescaleSlope", "RescaleIntercept"))
    tags = {"NumberOfFrames": len(frames), "SOPClassUID": ENHANCED_CT_IMAGE}
    dataset = image(frames, **tags, **elsewhere, **NO_PLACE)
    dataset.SharedFunctionalGroupsSequence = Sequence(
        [
            functional_group(
                PlaneOrientationSequence={"ImageOrientationPatient": list(AXIAL)},
                PixelMeasuresSequence={"PixelSpacing": [0.5, 0.6], "SliceThickness": 3},
            )
        ]
    )
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        [
            functional_group(
                PlanePositionSequence={"ImagePositionPatient": [1.0, 2.0, float(depth)]},
                PixelValueTransformationSequence={"RescaleSlope": 2, "RescaleIntercept": -1024 - index},
                **{name: values[index] for name, values in extra.items()},
            )
            for index, depth in enumerate(depths)
        ]
    )
    return save(dataset, path)


def test_enhanced_ct(tmp_path: Path) -> None:
    frames = ramp(4)
    scan = read_scan(enhanced(tmp_path / "e.dcm", frames, [9, 6, 3, 0]))
    expected = (frames * 2.0 - 1024 - np.arange(4)[:, None, None])[::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(scan.voxels, expected)
    np.testing.assert_allclose(scan.spacing, (0.6, 0.5, 3.0))
    np.testing.assert_allclose(scan.affine[:3, 3], (-1, -2, 0))
    assert scan.has_geometry
    assert scan.notes == ()


def test_enhanced_with_two_times(tmp_path: Path) -> None:
    times = [{"TemporalPositionIndex": index % 2 + 1} for index in range(6)]
    path = enhanced(tmp_path / "e.dcm", ramp(6), [0, 0, 3, 3, 6, 6], FrameContentSequence=times)
    with pytest.raises(BadInput, match=r"2 volumes .*TemporalPositionIndex"):
        read_scan(path)
    np.testing.assert_array_equal(read_scan(path, volume=1).voxels[0, 0], [-825, -427, -29])


def test_cine_without_places(tmp_path: Path) -> None:
    frames = (ramp(4) % 256).astype(np.uint8)
    dataset = image(frames, NumberOfFrames=4, Modality="XA", SliceThickness=None, **NO_PLACE)
    scan = read_scan(save(dataset, tmp_path / "c.dcm"))
    np.testing.assert_array_equal(scan.voxels, frames.transpose(2, 1, 0))
    assert scan.modality is Modality.XRAY
    assert not scan.has_geometry
    assert any("4 frames have no position" in note for note in scan.notes)


def nuclear(path: Path, kind: str, count: int = 4, **tags: Any) -> Path:
    dataset = image(
        ramp(count),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.20",
        Modality="NM",
        NumberOfFrames=count,
        ImageType=["ORIGINAL", "PRIMARY", kind, "EMISSION"],
        **(NO_PLACE | tags),
    )
    detector = functional_group()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = [-3.0, -4.0, 5.0], list(AXIAL)
    dataset.DetectorInformationSequence = Sequence([detector])
    return save(dataset, path)


@pytest.mark.parametrize("step", [2.5, -2.5])
def test_spect_slices_lie_on_the_side_that_the_sign_says(tmp_path: Path, step: float) -> None:
    scan = read_scan(nuclear(tmp_path / "n.dcm", "RECON TOMO", SpacingBetweenSlices=step))
    np.testing.assert_array_equal(scan.voxels, ramp(4)[:: int(np.sign(step))].transpose(2, 1, 0))
    np.testing.assert_allclose(scan.affine[:3, 3], (3, 4, 5 if step > 0 else 5 - 3 * 2.5))
    assert scan.spacing[2] == 2.5
    assert scan.has_geometry


def test_gated_spect_is_several_volumes(tmp_path: Path) -> None:
    vectors = {"TimeSlotVector": [1, 1, 2, 2], "SliceVector": [2, 1, 2, 1], "SpacingBetweenSlices": 2.0}
    path = nuclear(tmp_path / "n.dcm", "RECON GATED TOMO", **vectors)
    with pytest.raises(BadInput, match=r"2 volumes .* TimeSlotVector"):
        read_scan(path)
    np.testing.assert_array_equal(read_scan(path, volume=1).voxels, ramp(4)[[3, 2]].transpose(2, 1, 0))


def test_spect_projections_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="projections of a SPECT"):
        read_scan(nuclear(tmp_path / "n.dcm", "TOMO"))


def test_tiles_of_a_whole_slide_are_refused(tmp_path: Path) -> None:
    tags = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6", "Modality": "SM", "TotalPixelMatrixColumns": 10}
    with pytest.raises(BadInput, match="whole-slide image cut into 4 tiles"):
        read_scan(save(image(ramp(4), NumberOfFrames=4, **tags, **NO_PLACE), tmp_path / "w.dcm"))


def test_one_tile_of_a_whole_slide_is_refused_and_its_label_read(tmp_path: Path) -> None:
    tags = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6", "Modality": "SM"} | NO_PLACE
    tile = image(ramp(1)[0], TotalPixelMatrixColumns=50, TotalPixelMatrixRows=6, **tags)
    with pytest.raises(BadInput, match="whole-slide image of which it is one tile"):
        read_scan(save(tile, tmp_path / "tile.dcm"))
    label = image(ramp(1)[0], TotalPixelMatrixColumns=5, TotalPixelMatrixRows=6, **tags)
    assert read_scan(save(label, tmp_path / "label.dcm")).shape == (5, 6, 1)


def test_ultrasound_region_calibration(tmp_path: Path) -> None:
    dataset = image(ramp(1)[0], Modality="US", PixelSpacing=None, **NO_PLACE)
    region = functional_group()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # cm
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, 0.03
    dataset.SequenceOfUltrasoundRegions = Sequence([region])
    scan = read_scan(save(dataset, tmp_path / "u.dcm"))
    assert scan.spacing[:2] == pytest.approx((0.2, 0.3))
    assert scan.has_geometry
