from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor

from medzsad.detectors.references import Brightness
from medzsad.errors import BadInput
from medzsad.integrations.monai_parts import (
    LoadLabeld,
    LoadScand,
    SavePredictiond,
    ScanInferer,
    fixed_threshold,
    from_metatensor,
    labelled_scans_at,
    scans_at,
    to_metatensor,
)
from medzsad.predicting import predict
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality, Scan

EXAMPLES = Path(__file__).parents[2] / "examples"
PHANTOM = EXAMPLES / "head_phantom.nii.gz"


def scan_of(voxels: np.ndarray, **changes) -> Scan:
    affine = np.array([[0, -2, 0, 1 / 3], [1.5, 0, 0, 5], [0, 0, 4, -7], [0, 0, 0, 1]])
    fields = {"modality": Modality.MR, "modality_source": "given", "name": "a", "source": Path("a.nii")}
    return Scan(voxels, affine, **fields | changes)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 1, 3), (5, 4, 3, 3)])
def test_a_scan_comes_back_as_it_was(order: str, shape: tuple[int, ...]) -> None:
    voxels = np.random.default_rng(0).normal(size=shape).astype(np.float32, order=order)
    scan = scan_of(
        voxels,
        modality=Modality.RGB if len(shape) == 4 else Modality.CT,
        is_2d=shape[2] == 1,
        has_geometry=False,
        header={"qform_code": np.int16(2), "unit_scale": 1000.0},
        notes=("one", "two"),
        details={"range": [0, 255.5]},
    )
    loader = DataLoader(Dataset([{"image": to_metatensor(scan)}]), batch_size=1)
    again = from_metatensor(next(iter(loader))["image"][0])
    for field in dataclasses.fields(Scan):
        if field.name not in ("voxels", "affine"):
            assert getattr(again, field.name) == getattr(scan, field.name), field.name
    assert again.voxels.tobytes("A") == voxels.tobytes("A")
    assert np.array_equal(again.voxels, voxels)
    steps = [
        [step for step, count in zip(array.strides, shape, strict=True) if count > 1]
        for array in (again.voxels, voxels)
    ]
    assert steps[0] == steps[1]  # sums depend on it, in the last digit
    assert again.affine.tobytes() == scan.affine.tobytes()


def test_a_transform_and_the_inferer_give_what_predict_gives(tmp_path: Path) -> None:
    detector = Brightness().eval()
    loaded = LoadScand()({"image": str(PHANTOM), "name": "case 7"})
    assert loaded["image"].shape == (1, *read_scan(PHANTOM).shape)
    inferer = ScanInferer(plane="coronal", threshold="otsu")
    batch = next(iter(DataLoader(Dataset([loaded]), batch_size=1)))
    maps = inferer(batch["image"], detector)
    expected = predict(PHANTOM, detector, plane="coronal", threshold="otsu")
    assert np.array_equal(maps[0, 0].numpy(), expected.anomaly_map)
    assert maps.meta["score"] == [expected.score]
    assert torch.equal(maps[0].affine, torch.from_numpy(expected.affine))
    changed = 1 - maps[0]
    SavePredictiond(inferer=inferer, output_dir=tmp_path)({"pred": changed})
    assert {path.name for path in tmp_path.iterdir()} == {
        f"case 7{end}" for end in ("_anomaly.nii.gz", "_mask.nii.gz", ".json")
    }
    assert np.array_equal(read_scan(tmp_path / "case 7_anomaly.nii.gz").voxels, changed[0].numpy())


def test_the_inferer_takes_one_scan_that_was_read_by_us() -> None:
    image = LoadScand()({"image": PHANTOM})["image"]
    for wrong in (
        torch.zeros(1, 1, 4, 4, 4),
        MetaTensor(torch.zeros(1, 1, 4, 4, 4)),
        torch.stack([image] * 2),
    ):
        with pytest.raises(ValueError, match="one scan"):
            ScanInferer()(wrong, Brightness())


def test_options_of_reading_reach_the_reader() -> None:
    assert from_metatensor(LoadScand(modality="ct")({"image": PHANTOM})["image"]).modality is Modality.CT
    with pytest.raises(BadInput, match="volume"):
        LoadScand(volume=3)({"image": PHANTOM})


def test_labels_must_be_on_the_grid_of_their_scan(tmp_path: Path) -> None:
    import nibabel

    item = LoadScand()({"image": PHANTOM, "label": EXAMPLES / "head_phantom_lesion.nii.gz"})
    label = LoadLabeld()(item)["label"]
    assert label.shape == item["image"].shape
    assert label.unique().tolist() == [0, 1]
    other = nibabel.load(EXAMPLES / "head_phantom_lesion.nii.gz").slicer[1:]
    nibabel.save(other, tmp_path / "shifted.nii.gz")
    with pytest.raises(BadInput, match="does not fit"):
        LoadLabeld()({**item, "label": tmp_path / "shifted.nii.gz"})


def test_places_give_scans_with_names_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "scan.nii.gz").write_bytes(PHANTOM.read_bytes())
    found = scans_at([tmp_path / "b", tmp_path])
    assert [item["name"] for item in found] == ["b_scan", "a_scan"]
    assert found[0]["image"] == str(tmp_path / "b" / "scan.nii.gz")
    assert scans_at(str(PHANTOM)) == [{"image": str(PHANTOM), "name": "head_phantom"}]
    with pytest.raises(BadInput, match="does not exist"):
        scans_at(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no usable sample"):
        labelled_scans_at(tmp_path)


def test_a_threshold_that_depends_on_the_scan_is_no_fixed_one() -> None:
    detector = Brightness()
    assert fixed_threshold(None, detector) == 0.5
    assert fixed_threshold(0.25, detector) == 0.25
    assert fixed_threshold("p99", detector) is None
    detector.threshold = "otsu"
    assert fixed_threshold(None, detector) is None
    with pytest.raises(BadInput):
        fixed_threshold("high", detector)
