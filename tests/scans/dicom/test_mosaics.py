"""Siemens mosaics are cut into their slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import image, save, write_series

from medzsad.errors import BadInput
from medzsad.results.dicom.context import check_source
from medzsad.scans.readers import read_scan

SLICES = np.arange(14 * 5 * 6, dtype=np.int16).reshape(14, 5, 6)  # (slices, rows, columns)


def mosaic(path: Path, count: int | None = 14, *, csa: bytes | None = None, **tags: Any) -> Path:
    pixels = np.zeros((20, 24), np.int16)
    for k, one in enumerate(SLICES):
        row, column = divmod(k, 4)
        pixels[5 * row : 5 * row + 5, 6 * column : 6 * column + 6] = one
    pixels += tags.pop("add", 0)
    defaults = {
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
        "FrameOfReferenceUID": "1.2.3",
        "PixelSpacing": [3.0, 2.0],
        "SpacingBetweenSlices": 4.0,
        "ImagePositionPatient": [-50.0, -60.0, 7.0],
    }
    dataset = image(pixels, **(defaults | tags))
    if count:
        dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", count)
    if csa:
        dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", csa)
    return save(dataset, path)


def csa_header(**values: list[str]) -> bytes:
    """Siemens' "CSA2" header with these tags, as far as nibabel reads it."""
    content = b"SV10\x04\x03\x02\x01" + len(values).to_bytes(4, "little") + b"M\0\0\0"
    for name, items in values.items():
        vm, count = len(items), 6
        content += name.encode().ljust(64, b"\0") + vm.to_bytes(4, "little") + b"FD\0\0"
        content += (6).to_bytes(4, "little") + count.to_bytes(4, "little") + b"M\0\0\0"
        for item in [*items, *[""] * (count - vm)]:
            text = item.encode()
            content += b"".join(part.to_bytes(4, "little") for part in (len(text), len(text), 77, len(text)))
            content += text + b"\0" * (-len(text) % 4)
    return content


def test_slices_lie_around_the_centre_of_the_mosaic(tmp_path: Path) -> None:
    scan = read_scan(mosaic(tmp_path / "m.dcm"))
    np.testing.assert_array_equal(scan.voxels, SLICES.transpose(2, 1, 0))
    assert scan.spacing == pytest.approx((2, 3, 4))
    # 24 - 6 columns of 2 mm and 20 - 5 rows of 3 mm, half of each on this side.
    np.testing.assert_allclose(scan.affine[:3, 3], (50 - 18, 60 - 22.5, 7))
    assert scan.notes == ()
    with pytest.raises(BadInput, match="mosaic"):
        check_source(scan)


@pytest.mark.parametrize("direction", [1, -1])
def test_siemens_own_header_says_what_is_not_elsewhere(tmp_path: Path, direction: int) -> None:
    csa = csa_header(NumberOfImagesInMosaic=["14"], SliceNormalVector=["0.0", "0.0", f"{direction}.0"])
    scan = read_scan(mosaic(tmp_path / "m.dcm", None, csa=csa))
    np.testing.assert_array_equal(scan.voxels, SLICES[::direction].transpose(2, 1, 0))
    assert scan.affine[2, 3] == pytest.approx(7 if direction == 1 else 7 - 13 * 4)


def test_a_time_series_of_mosaics(tmp_path: Path) -> None:
    for v in range(3):
        mosaic(tmp_path / f"case/{v}.dcm", add=1000 * v, AcquisitionNumber=v + 1, InstanceNumber=v + 1)
    with pytest.raises(BadInput, match=r"3 volumes \(of 14, 14, 14 images\).* AcquisitionNumber"):
        read_scan(tmp_path / "case")
    assert read_scan(tmp_path / "case", volume=2).voxels.min() == 2000


def test_a_mosaic_that_does_not_say_its_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a Siemens mosaic .*dcm2niix"):
        read_scan(mosaic(tmp_path / "m.dcm", None))
    with pytest.raises(BadInput, match="a Siemens mosaic"):
        read_scan(mosaic(tmp_path / "m.dcm", 35))
    write_series(tmp_path, SLICES[:3], [0, 2, 4])
    scan = read_scan(tmp_path)
    assert scan.shape[2] == 3
    assert any("left out: 1 x a Siemens mosaic" in note for note in scan.notes)


def test_a_mosaic_without_its_type_is_one_by_its_private_count(tmp_path: Path) -> None:
    scan = read_scan(mosaic(tmp_path / "m.dcm", ImageType=["DERIVED", "PRIMARY", "M"]))
    np.testing.assert_array_equal(scan.voxels, SLICES.transpose(2, 1, 0))


@pytest.mark.parametrize("count", ["1", "14"])
def test_grids_of_united_imaging_are_refused(tmp_path: Path, count: str) -> None:
    dataset = image(
        SLICES[0], Modality="MR", ImageType=["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "VFRAME"]
    )
    dataset.private_block(0x0065, "Image Private Header", create=True).add_new(0x50, "DS", count)
    path = save(dataset, tmp_path / "u.dcm")
    if count == "1":
        assert read_scan(path).shape == (6, 5, 1)
        return
    with pytest.raises(BadInput, match=r"a UIH grid.*dcm2niix"):
        read_scan(path)
