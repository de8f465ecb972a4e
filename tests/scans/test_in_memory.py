"""Arrays, and images of nibabel and SimpleITK, instead of files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

import medzsad
from medzsad.detectors.references import Brightness
from medzsad.errors import BadInput
from medzsad.scans.modality import Modality
from medzsad.scans.readers import read_scan

AFFINE = np.array([[0.0, -1.5, 0, 19], [1.5, 0, 0, -12], [0, 0, 4, -20], [0, 0, 0, 1]])


def volume(shape: tuple[int, ...] = (10, 12, 6)) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 30, shape).astype(np.float32)


def test_an_array_is_what_its_file_is(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(volume(), AFFINE), tmp_path / "a.nii.gz")
    file = medzsad.predict(tmp_path / "a.nii.gz", Brightness())
    array = medzsad.predict(volume(), Brightness(), affine=AFFINE, name="case_7")
    assert array.scan.name == "case_7"
    assert np.array_equal(array.scan.affine, AFFINE)
    np.testing.assert_allclose(array.anomaly_map, file.anomaly_map, atol=1e-6)
    assert any("`modality` sets it" in note for note in array.scan.notes)
    given = read_scan(volume(), affine=AFFINE.tolist(), modality="ct")
    assert (given.modality, given.modality_source, given.notes) == (Modality.CT, "given", ())
    for kind in (np.uint8, np.int64, np.float16, ">f4"):
        scan = read_scan(volume().astype(kind), affine=AFFINE)
        assert scan.voxels.dtype == np.float32
        np.testing.assert_allclose(scan.voxels, volume().astype(kind).astype(np.float32))


def test_without_an_affine_the_identity_is_assumed_and_said(tmp_path: Path) -> None:
    result = medzsad.predict(volume(), Brightness())
    assert np.array_equal(result.affine, np.eye(4))
    assert not result.scan.has_geometry
    assert "No affine was given" in result.scan.notes[0]
    assert {path.name for path in result.save(tmp_path).values()} == {
        "array_anomaly.nii.gz", "array_mask.nii.gz", "array_overlay.png", "array.json",
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pixels_are_rows_and_columns_as_pillow_has_them(mode: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "a.png")
    file = medzsad.predict(tmp_path / "a.png", Brightness())
    array = medzsad.predict(np.asarray(image), Brightness(), name="b")
    assert array.anomaly_map.shape == (9, 12, 1)
    np.testing.assert_allclose(array.anomaly_map[:, :, 0], file.anomaly_map[:, :, 0].T, atol=1e-6)
    assert array.score == pytest.approx(file.score)
    assert array.scan.is_2d
    for result in (file, array):
        result.save(tmp_path / "out", formats=("nifti", "overlay"))
    for kind in ("anomaly", "mask"):
        first, second = (Image.open(tmp_path / "out" / f"{name}_{kind}.png") for name in "ab")
        assert first.size == second.size == (12, 9)
        assert np.array_equal(np.asarray(first), np.asarray(second))


def test_colours_and_series() -> None:
    colours = volume((8, 9, 4, 3)).clip(0, 255)
    assert read_scan(colours, affine=AFFINE).modality is Modality.RGB
    assert read_scan(colours / 255, affine=AFFINE).details["range"] == [0, 1]
    assert np.array_equal(read_scan(colours, affine=AFFINE, volume=2).voxels, colours[..., 2])
    assert read_scan(volume((8, 9, 3)), affine=AFFINE).shape == (8, 9, 3)
    assert read_scan(volume((8, 9)), affine=AFFINE).shape == (8, 9, 1)
    with pytest.raises(BadInput, match="may be a colour image or 3 slices"):
        read_scan(volume((8, 9, 3)))
    with pytest.raises(BadInput, match=r"4D \(5 volumes\); choose one with volume="):
        read_scan(volume((8, 9, 4, 5)), affine=AFFINE)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (volume().astype(complex), {}, "real numbers"),
        (volume((4,)), {}, "1 axes"),
        (volume((0, 4, 4)), {}, "holds no voxels"),
        (np.full((4, 4, 4), np.nan), {}, "64 NaN"),
        (np.zeros((4, 4, 4)), {}, "constant"),
        (volume(), {"affine": np.zeros((4, 4))}, "0 0 0 1"),
        (volume(), {"affine": np.diag([1, 1, 0, 1])}, "maps to no volume"),
        (volume(), {"affine": "left"}, "4 x 4 numbers"),
        (volume(), {"volume": 1}, "does not exist"),
        (volume(), {"series": "1.2"}, "leave it out"),
        (volume(), {"name": "../up"}, "cannot be the name"),
        (volume(), {"modality": "pet"}, "choose one of"),
        (nibabel.Nifti1Image(volume(), AFFINE), {"affine": AFFINE}, "has its own"),
        ({"image": 1}, {}, "cannot read a dict"),
        (None, {}, "cannot read a NoneType"),
    ],
)
def test_what_is_no_scan_is_said_in_a_line(image, options, message) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_scan(image, **options)
    assert "\n" not in str(caught.value)


def test_a_path_has_an_affine_of_its_own(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(volume(), AFFINE), tmp_path / "a.nii.gz")
    with pytest.raises(BadInput, match="affine of its own"):
        read_scan(tmp_path / "a.nii.gz", affine=AFFINE)
    assert read_scan(tmp_path / "a.nii.gz", name="other").name == "other"


def test_an_image_of_nibabel_is_what_its_file_is(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(volume().astype(np.int16), AFFINE)
    image.header.set_slope_inter(2, -100)
    image.header.set_xyzt_units("meter")
    for name in ("a.nii", "a.nii.gz"):
        nibabel.save(image, tmp_path / name)
        file, loaded = read_scan(tmp_path / name), read_scan(nibabel.load(tmp_path / name))
        for field in ("name", "source", "header", "details", "modality"):
            assert getattr(file, field) == getattr(loaded, field)
        assert np.array_equal(file.voxels, loaded.voxels)
        assert np.array_equal(file.affine, loaded.affine)
    made = read_scan(nibabel.Nifti1Image(volume(), AFFINE))
    assert made.name == "image"
    assert np.array_equal(made.voxels, volume())
    other = nibabel.MGHImage(volume(), AFFINE)
    np.testing.assert_allclose(read_scan(other).affine, AFFINE, atol=1e-5)
    with pytest.raises(BadInput, match="4D"):
        read_scan(nibabel.Nifti1Image(volume((4, 5, 6, 2)), AFFINE))
    nibabel.save(nibabel.Nifti1Image(volume((40, 40, 20)), AFFINE), tmp_path / "a.nii.gz")
    content = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match="cut short"):
        read_scan(nibabel.load(tmp_path / "cut.nii.gz"))


def test_an_image_of_simpleitk_lies_where_its_nifti_does(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    rotation = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation @ np.diag([1.5, -2, 4]), (3, -5, 8)
    nibabel.save(nibabel.Nifti1Image(volume(), affine), tmp_path / "a.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    scan, file = read_scan(image), read_scan(tmp_path / "a.nii.gz")
    assert np.array_equal(scan.voxels, file.voxels)
    np.testing.assert_allclose(scan.affine, file.affine, atol=1e-4)
    assert scan.name == "image"
    image.SetMetaData("0008|0060", "CT")
    assert read_scan(image).modality is Modality.CT
    stack = sitk.JoinSeries([image, image * 2])
    np.testing.assert_allclose(read_scan(stack, volume=1).voxels, 2 * file.voxels)
    for wrong, message in ((stack, "4D"), (sitk.Image(4, 4, 4, sitk.sitkComplexFloat32), "real numbers")):
        with pytest.raises(BadInput, match=message):
            read_scan(wrong)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    for array, is_vector in ((pixels, True), (pixels[..., 0], False)):
        Image.fromarray(array).save(tmp_path / "a.png")
        flat = medzsad.predict(sitk.GetImageFromArray(array, isVector=is_vector), Brightness())
        expected = medzsad.predict(tmp_path / "a.png", Brightness())
        np.testing.assert_allclose(flat.anomaly_map, expected.anomaly_map, atol=1e-6)


def test_an_array_is_read_without_torch_and_predicted_without_monai() -> None:
    code = (
        "import sys, numpy, medzsad; s = medzsad.read_scan(numpy.random.rand(4, 5, 6)); medzsad.monai; "
        "assert not {'monai', 'torch', 'SimpleITK'} & set(sys.modules), sorted(sys.modules); "
        "medzsad.predict(s, 'brightness', device='cpu'); assert 'monai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_nibabel_image_changed_in_memory_counts_as_it_is(tmp_path):
    """Its owner's affine and voxel sizes, not those of its file; and it is left alone."""
    voxels = np.random.default_rng(0).normal(100, 20, (5, 6, 7)).astype(np.float32)
    nibabel.Nifti1Image(voxels, np.diag([2.0, 3, 4, 1])).to_filename(tmp_path / "a.nii")
    image = nibabel.load(tmp_path / "a.nii")
    image.affine[:3, 3] = (9, 8, 7)
    before = image.header.binaryblock
    np.testing.assert_array_equal(read_scan(image).affine[:3, 3], (9, 8, 7))
    assert image.header.binaryblock == before
    unknown = nibabel.Nifti1Image(voxels, None)
    unknown.header["pixdim"][1:4] = (0, 3, 4)
    with pytest.raises(BadInput, match="affine"):
        read_scan(unknown)
