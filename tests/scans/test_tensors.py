"""Tensors as scans: what MONAI's readers and transforms made of a file, and plain tensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import NormalizeIntensity, ScaleIntensity

from medzsad.errors import BadInput
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality, Scan
from medzsad.scans.tensors import scan_of_tensor, shows_colour, spatial_axes


def scan_of(voxels: np.ndarray, **changes) -> Scan:
    affine = np.array([[0, -2, 0, 1 / 3], [1.5, 0, 0, 5], [0, 0, 4, -7], [0, 0, 0, 1]])
    fields = {"modality": Modality.MR, "modality_source": "given", "name": "a", "source": Path("a.nii")}
    return Scan(voxels, affine, **fields | changes)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 1, 3), (5, 4, 3, 3)])
def test_a_scan_comes_back_as_it_was(order: str, shape: tuple[int, ...]) -> None:
    voxels = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32, order=order)
    scan = scan_of(
        voxels,
        modality=Modality.RGB if len(shape) == 4 else Modality.CT,
        is_2d=shape[2] == 1,
        has_geometry=False,
        header={"qform_code": np.int16(2), "unit_scale": 1000.0},
        notes=("one", "two"),
        details={"range": [0, 255.5]},
    )
    loader = DataLoader(Dataset([{"image": scan.as_metatensor()}]), batch_size=1)
    again = scan_of_tensor(next(iter(loader))["image"][0])
    for field in dataclasses.fields(Scan):
        if field.name not in ("voxels", "affine"):
            assert getattr(again, field.name) == getattr(scan, field.name), field.name
    assert np.array_equal(again.voxels, voxels)
    steps = [
        [step for step, count in zip(array.strides, shape, strict=True) if count > 1]
        for array in (again.voxels, voxels)
    ]
    assert steps[0] == steps[1]  # sums depend on it, in the last digit
    assert again.affine.tobytes() == scan.affine.tobytes()


def test_scaled_values_are_no_longer_what_the_file_said() -> None:
    rng = np.random.default_rng(0)
    ct = scan_of(rng.uniform(-1000, 1000, (6, 7, 8)).astype(np.float32), modality=Modality.CT)
    image = ct.as_metatensor()
    assert read_scan(image).modality is Modality.CT
    for scaling in (ScaleIntensity(), NormalizeIntensity()):
        scan = read_scan(scaling(image))
        assert scan.modality is Modality.MR
        assert any("no HU any more" in note for note in scan.notes)
        assert read_scan(scaling(image), modality="ct").modality is Modality.CT
    levels = {"modality": Modality.RGB, "details": {"range": [0, 255]}}
    picture = scan_of(rng.integers(0, 256, (6, 7, 8, 3)).astype(np.float32), **levels).as_metatensor()
    assert read_scan(picture).details["range"] == [0, 255]
    assert read_scan(ScaleIntensity()(picture)).details["range"] == [0, 1]
    low, high = read_scan(NormalizeIntensity()(picture)).details["range"]
    assert low < 0 < high


def test_axes_and_colours() -> None:
    loaded = {"spatial_shape": np.array([4, 5, 6])}
    for shape, meta, axes in (
        ((1, 4, 5, 6), loaded, 3),
        ((4, 5, 6), loaded, 3),
        ((1, 4, 5), loaded, 2),
        ((3, 4, 5), {"spatial_shape": np.array([4, 5])}, 2),
        ((4, 5), {}, 2),
    ):
        image = MetaTensor(torch.rand(shape), meta=dict(meta))
        assert spatial_axes(image) == axes
        assert scan_of_tensor(image).shape == (*shape[len(shape) - axes :], 1)[:3]
    assert shows_colour(torch.rand(3, 4, 5))
    assert not shows_colour(torch.rand(3, 4, 5, 6))
    assert shows_colour(torch.rand(3, 4, 5, 6), "RGB")
    assert scan_of_tensor(torch.rand(4, 4, 5)).voxels.shape == (4, 5, 1, 3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(2, 1, 4, 5, 6), "without the batch"),
        (torch.rand(4), "is no scan"),
        (torch.rand(1, 0, 5, 6), "is no scan"),
        (torch.rand(1, 4, 5, 6, dtype=torch.complex64), "complex64"),
        (torch.rand(4, 4, 5, 6), "4 channels that are no colours"),
        (torch.full((1, 4, 5, 6), torch.nan), "NaN"),
    ],
)
def test_what_is_no_scan_is_said(image: torch.Tensor, message: str) -> None:
    for tensor in (image, MetaTensor(image)):
        with pytest.raises(BadInput, match=message):
            read_scan(tensor)


def test_types_devices_and_gradients_do_not_matter() -> None:
    image = torch.randint(0, 200, (1, 4, 5, 6))
    expected = read_scan(image).voxels
    for kind in (torch.uint8, torch.int64, torch.float64, torch.bfloat16):
        assert np.array_equal(read_scan(image.to(kind)).voxels, expected)
    assert np.array_equal(read_scan(image.float().requires_grad_()).voxels, expected)
    assert read_scan(image).name == "tensor"
    assert read_scan(image, name="case").name == "case"
    assert "No affine was given" in read_scan(image).notes[0]


def test_the_meta_names_file_modality_and_series() -> None:
    values = torch.rand(1, 4, 5, 6) * 900
    pydicom_reader = {"00080060": {"vr": "CS", "Value": ["CT"]}, "0020000E": {"vr": "UI", "Value": ["1.2.3"]}}
    itk_reader = {"0008|0060": "CT", "0020|000e": "1.2.3"}
    for tags in (pydicom_reader, itk_reader):
        scan = read_scan(MetaTensor(values, meta={"filename_or_obj": "/data/x/case.nii.gz", **tags}))
        assert (scan.modality, scan.modality_source, scan.name) == (Modality.CT, "dicom", "case")
        assert scan.details["series_uid"] == "1.2.3"
    assert read_scan(MetaTensor(values, meta={"0008|0060": "PT"})).modality is Modality.GREY
