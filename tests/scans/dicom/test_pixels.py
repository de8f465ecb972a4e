"""Pixels: every compression, colour space and polarity ends as the same values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import image, ramp, save, write
from pydicom.uid import UID, RLELossless

from medzsad.errors import BadInput
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality

TEST_FILES = Path(pydicom.__file__).parent / "data/test_files"
NO_PLACE = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
PYDICOM_2 = int(pydicom.__version_info__[0]) < 3


@pytest.mark.parametrize(
    "name", ["RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian", "implicit", "expb", "padded"]
)
def test_transfer_syntaxes_agree(name: str) -> None:
    plain = read_scan(TEST_FILES / "MR_small.dcm")
    other = read_scan(TEST_FILES / f"MR_small_{name}.dcm")
    np.testing.assert_array_equal(other.voxels, plain.voxels)
    np.testing.assert_array_equal(other.affine, plain.affine)


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm", "SC_rgb_rle", "SC_rgb_gdcm_KY"])
def test_compressed_colours(name: str) -> None:
    bars = read_scan(TEST_FILES / f"{name}.dcm").voxels[50, :, 0]
    np.testing.assert_array_equal(bars[[5, 25, 45, 65, 75, 95]], [
        [255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0], [64, 64, 64], [255, 255, 255],
    ])  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["SC_rgb_dcmtk_+eb+cy+np", "SC_rgb_dcmtk_+eb+cy+s4", "SC_rgb_jpeg_dcmtk", "SC_rgb_jpeg_lossy_gdcm",
     "SC_ybr_full_422_uncompressed"],
)  # fmt: skip
def test_ybr_becomes_rgb(name: str) -> None:
    bars = read_scan(TEST_FILES / f"{name}.dcm").voxels[50, :, 0]
    expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0], [64, 64, 64], [255, 255, 255]]
    np.testing.assert_allclose(bars[[5, 25, 45, 65, 75, 95]], expected, atol=6)


@pytest.mark.parametrize(("name", "shape"), [("JPGExtended", (256, 1024, 1)), ("JPEG2000", (256, 1024, 1))])
def test_lossy_grey(name: str, shape: tuple[int, ...]) -> None:
    assert read_scan(TEST_FILES / f"{name}.dcm").shape == shape


def test_deep_colours_become_8_bits() -> None:
    np.testing.assert_array_equal(
        read_scan(TEST_FILES / "SC_rgb_rle_16bit.dcm").voxels, read_scan(TEST_FILES / "SC_rgb_rle.dcm").voxels
    )


def test_frames_of_colour() -> None:
    assert read_scan(TEST_FILES / "SC_rgb_rle_2frame.dcm").voxels.shape == (100, 100, 2, 3)


def test_compressed_series(tmp_path: Path) -> None:
    for index, pixels in enumerate(ramp(3)):
        dataset = image(pixels, ImagePositionPatient=[0, 0, 2.0 * index])
        dataset.compress(RLELossless)
        save(dataset, tmp_path / f"{index}.dcm")
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.voxels, ramp(3).transpose(2, 1, 0))
    assert scan.details["transfer_syntax"] == "RLE Lossless"


def test_hu(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", ramp(1)[0], RescaleSlope=2, RescaleIntercept=-1024)
    np.testing.assert_array_equal(read_scan(path).voxels[:, :, 0], ramp(1)[0].T * 2.0 - 1024)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint8])
def test_monochrome1_is_turned_over(tmp_path: Path, dtype: type) -> None:
    pixels = ramp(1)[0].astype(dtype)
    tags = {"Modality": "DX", "PhotometricInterpretation": "MONOCHROME1", **NO_PLACE}
    scan = read_scan(write(tmp_path / "a.dcm", pixels, **tags))
    ends = {np.uint16: 65535, np.int16: -1, np.uint8: 255}[dtype]
    np.testing.assert_array_equal(scan.voxels[:, :, 0], (ends - pixels.astype(float)).T)
    assert any("MONOCHROME1" in note for note in scan.notes)


def test_hu_are_hu_however_they_are_displayed(tmp_path: Path) -> None:
    scan = read_scan(write(tmp_path / "a.dcm", ramp(1)[0], PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(scan.voxels[:, :, 0], ramp(1)[0].T)
    assert not any("MONOCHROME1" in note for note in scan.notes)


def test_padding_value_goes_through_the_rescale(tmp_path: Path) -> None:
    pixels = ramp(1)[0]
    pixels[0] = -2000
    scan = read_scan(write(tmp_path / "a.dcm", pixels, PixelPaddingValue=-2000, RescaleIntercept=-24))
    assert scan.details["padding_value"] == -2024


def test_palette_becomes_colour() -> None:
    scan = read_scan(TEST_FILES / "examples_palette.dcm") if not PYDICOM_2 else None
    if scan is None:
        pytest.skip("the example ships with pydicom 3")
    assert scan.modality is Modality.US
    assert scan.voxels.shape == (800, 350, 1, 3)


def test_overlay_bits_are_cleared(tmp_path: Path) -> None:
    pixels = ramp(1)[0].astype(np.uint16)
    drawn = pixels | np.uint16(0x8000)
    dataset = image(drawn, BitsStored=12, HighBit=11)
    dataset.add_new((0x6000, 0x0010), "US", pixels.shape[0])
    dataset.add_new((0x6000, 0x0102), "US", 15)
    np.testing.assert_array_equal(read_scan(save(dataset, tmp_path / "o.dcm")).voxels[:, :, 0], pixels.T)


def test_no_pixel_data(tmp_path: Path) -> None:
    dataset = image(ramp(1)[0])
    del dataset.PixelData
    with pytest.raises(BadInput, match="without pixel data"):
        read_scan(save(dataset, tmp_path / "n.dcm"))


def test_truncated_pixels() -> None:
    with pytest.raises(BadInput, match="cut short"):
        read_scan(TEST_FILES / "MR_truncated.dcm")


def test_unknown_compression_is_named(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(TEST_FILES / "MR_small_RLE.dcm")
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")  # MPEG-4
    path = save_as_is(dataset, tmp_path / "m.dcm")
    with pytest.raises(BadInput, match=r"MPEG-4.*1\.2\.840\.10008\.1\.2\.4\.102") as caught:
        read_scan(path)
    assert "\n" not in str(caught.value)


def test_corrupt_compressed_pixels(tmp_path: Path) -> None:
    data = bytearray((TEST_FILES / "MR_small_jp2klossless.dcm").read_bytes())
    start = data.index(b"\xff\x4f\xff\x51")  # where the code stream says what it holds
    data[start + 4 : start + 60] = b"\x00" * 56
    (tmp_path / "c.dcm").write_bytes(bytes(data))
    with pytest.raises(BadInput, match="cannot be decoded") as caught:
        read_scan(tmp_path / "c.dcm")
    assert "JPEG 2000" in str(caught.value)


def test_file_without_preamble_or_syntax(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.dcm", ramp(1)[0]).read_bytes()
    meta_length = int.from_bytes(whole[140:144], "little")
    (tmp_path / "bare").write_bytes(whole[144 + meta_length :])
    np.testing.assert_array_equal(read_scan(tmp_path / "bare").voxels, read_scan(tmp_path / "a.dcm").voxels)


def save_as_is(dataset: pydicom.Dataset, path: Path) -> Path:
    """Write without checking that the pixels fit their transfer syntax."""
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("bits", [10, 12, 15])
def test_spare_high_bits_do_not_count(tmp_path: Path, bits: int, signed: int) -> None:
    """pydicom 2 leaves them as they are; the standard says that their content is anything."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = np.linspace(low, high, 64).astype(np.int32).reshape(8, 8)
    stored = (values & (2**bits - 1)).astype(np.uint16)
    stored[::2] |= np.uint16(1 << bits)  # no sign, in half of the rows
    dataset = image(
        stored, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=signed, RescaleIntercept=-7
    )
    scan = read_scan(save(dataset, tmp_path / "b.dcm"))
    np.testing.assert_array_equal(scan.voxels[:, :, 0], values.T - 7)


def test_values_in_the_high_bits(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
    dataset = image(values << 4, BitsStored=12, HighBit=15, PixelRepresentation=0)
    np.testing.assert_array_equal(read_scan(save(dataset, tmp_path / "h.dcm")).voxels[:, :, 0], values.T)
    wrong = image(values, BitsStored=12, HighBit=15, PixelRepresentation=0)  # they are not there
    wrong_path = save(wrong, tmp_path / "w.dcm")
    np.testing.assert_array_equal(read_scan(wrong_path).voxels[:, :, 0], values.T)


def test_padding_of_12_bits_is_found(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.int16).reshape(8, 8)
    values[0] = -2000
    stored = (values & 0x0FFF).astype(np.uint16)
    padding = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1, "PixelPaddingValue": -2000}
    scan = read_scan(save(image(stored, **padding), tmp_path / "p.dcm"))
    assert scan.details["padding_value"] == scan.voxels.min() == -2000


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_table_of_values_counts_as_a_rescale_does(tmp_path: Path, photometric: str) -> None:
    table = np.arange(256, dtype=np.uint16) ** 2 // 20
    item = pydicom.Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [256, 0, 16], "US"
    item.add_new(0x00283006, "US", table.tolist())
    stored = np.arange(30, dtype=np.uint8).reshape(5, 6) * 8
    tags = {"Modality": "CR", "PhotometricInterpretation": photometric}
    dataset = image(stored, RescaleSlope=None, RescaleIntercept=None, **tags)
    dataset.ModalityLUTSequence = pydicom.Sequence([item])
    scan = read_scan(save(dataset, tmp_path / "lut.dcm"))
    expected = table[stored].astype(np.float32)
    expected = expected if photometric == "MONOCHROME2" else 65535 - expected
    np.testing.assert_array_equal(scan.voxels[:, :, 0].T, expected)
    assert "range" not in scan.details
