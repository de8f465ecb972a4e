from __future__ import annotations

import json
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from dicom_factory import write_series
from made_scans import AFFINE, small_head
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Flipd,
    Invertd,
    LoadImaged,
    Orientationd,
    SaveImaged,
    ScaleIntensityd,
    Spacingd,
)
from PIL import Image

import medzsad
from medzsad.errors import BadInput
from medzsad.monai import AnomalyInferer, AnomalyMapd, LoadLabeld, SavePredictiond

OURS = "medzsad.monai.MedzsadReader"


def loading(reader: str | None = None) -> list:
    return [LoadImaged("image", reader=reader), EnsureChannelFirstd("image")]


def same_map(item: dict, path: Path, detector) -> None:
    expected = medzsad.predict(path, detector)
    image, result = item["image"], item["image_anomaly"]
    assert isinstance(result, MetaTensor)
    assert result.dtype == torch.float32
    assert result.shape == (1, *image.shape[1:])
    assert torch.equal(result.affine, image.affine)
    found, wanted = result[0].numpy(), expected.anomaly_map.reshape(result.shape[1:])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert result.meta["score"] == pytest.approx(expected.score, abs=1e-5)
    assert result.meta["threshold"] == expected.threshold


@pytest.mark.parametrize("reader", [None, OURS])
def test_it_adds_the_map_of_predict(reader, detector, heads: list[Path]) -> None:
    add = Compose([*loading(reader), AnomalyMapd("image", detector)])
    for path in heads:
        same_map(add({"image": path}), path, detector)


@pytest.mark.parametrize("reader", ["PydicomReader", OURS])
def test_dicom_is_known_for_what_it_is(reader, detector, tmp_path: Path) -> None:
    slices = np.moveaxis(small_head((24, 20, 5)), 2, 0).astype(np.int16)
    tags = {"Modality": "CT", "PatientName": "Doe^Jane", "RescaleIntercept": -300, "RescaleSlope": 2}
    folder = write_series(tmp_path / "series", slices, [0, 3, 6, 9, 12], **tags)
    load = LoadImaged("image", reader=reader, prune_metadata=False)  # an option of PydicomReader
    add = Compose([load, EnsureChannelFirstd("image"), AnomalyMapd("image", detector)])
    item = add({"image": folder})
    result = medzsad.predict(folder, detector)
    assert json.loads(item["image_anomaly"].meta["medzsad_result"])["scaling"]["settings"]["modality"] == "ct"
    assert "Doe" not in str(item["image_anomaly"].meta)
    found = nibabel.Nifti1Image(item["image_anomaly"][0].numpy(), item["image"].affine.numpy())
    np.testing.assert_allclose(
        nibabel.as_closest_canonical(found).get_fdata(),
        nibabel.as_closest_canonical(result.to_nibabel()).get_fdata(),
        atol=1e-4,
    )
    assert item["image_anomaly"].meta["score"] == pytest.approx(result.score, abs=1e-4)
    loaded = Compose([load, EnsureChannelFirstd("image")])
    batch = next(iter(DataLoader(Dataset([{"image": folder}] * 2, loaded), batch_size=2)))
    for one in AnomalyInferer()(batch["image"], detector):
        assert torch.equal(one, item["image_anomaly"])


@pytest.mark.parametrize("reader", ["PILReader", OURS])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_images_are_seen_upright_however_they_were_turned(reader, mode, detector, tmp_path: Path) -> None:
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[4:12, 6:30] = (200, 120, 90)
    pixels[18:25, 20:35] = (90, 160, 40)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).convert(mode).save(path)
    item = Compose([*loading(reader), AnomalyMapd("image", detector)])({"image": path})
    same_map(item, path, detector)
    turned = Compose([*loading(reader), Flipd("image", spatial_axis=[0, 1]), AnomalyMapd("image", detector)])
    other = turned({"image": path})["image_anomaly"]
    np.testing.assert_allclose(other.flip([1, 2]).numpy(), item["image_anomaly"].numpy(), atol=1e-5)
    scaled = Compose([*loading(reader), ScaleIntensityd("image"), AnomalyMapd("image", detector)])
    assert scaled({"image": path})["image_anomaly"].max() > 0


def test_workers_load_the_detector_when_they_need_it(heads: list[Path]) -> None:
    add = Compose([*loading(), AnomalyMapd("image", detector="brightness")])
    assert add.transforms[-1]._loaded is None
    again = pickle.loads(pickle.dumps(add))
    expected = again({"image": heads[0]})
    assert again.transforms[-1]._loaded is not None
    assert pickle.loads(pickle.dumps(again)).transforms[-1]._loaded is None
    loader = DataLoader(Dataset([{"image": heads[0]}] * 2, add), batch_size=2, num_workers=1)
    batch = next(iter(loader))
    assert batch["image_anomaly"].shape == (2, 1, 20, 24, 6)
    assert batch["image_anomaly"].affine.shape == (2, 4, 4)
    assert batch["image_anomaly"].meta["score"].tolist() == [expected["image_anomaly"].meta["score"]] * 2
    assert torch.equal(batch["image_anomaly"][1], expected["image_anomaly"])


def test_it_is_inverted_and_saved_like_any_image(detector, heads: list[Path], tmp_path: Path) -> None:
    pre = Compose(
        [
            *loading(),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=(2, 2, 4)),
            AnomalyMapd("image", detector),
        ]
    )
    post = Compose(
        [
            Invertd("image_anomaly", transform=pre, orig_keys="image", nearest_interp=False),
            SaveImaged(
                "image_anomaly", output_dir=tmp_path / "out", output_postfix="map", print_log=False,
                resample=False, separate_folder=False,
            ),
        ]
    )  # fmt: skip
    item = pre({"image": heads[0]})
    assert item["image_anomaly"].shape != (1, 20, 24, 6)
    result = post(item)["image_anomaly"]
    assert result.meta["score"] == item["image_anomaly"].meta["score"]
    saved = nibabel.load(tmp_path / "out" / "first_map.nii.gz")
    assert saved.shape == (20, 24, 6)
    np.testing.assert_allclose(saved.affine, AFFINE, atol=1e-5)
    direct = medzsad.predict(heads[0], detector).anomaly_map
    assert np.corrcoef(saved.get_fdata().ravel(), direct.ravel())[0, 1] > 0.8


def test_keys_may_be_missing_and_inputs_stay_as_they_were(detector, heads: list[Path]) -> None:
    item = Compose(loading())({"image": heads[0]})
    before, meta = item["image"].clone(), dict(item["image"].meta)
    with pytest.raises(KeyError):
        AnomalyMapd(["image", "other"], detector)(item)
    result = AnomalyMapd(["image", "other"], detector, postfix="map", allow_missing_keys=True)(item)
    assert set(result) == {"image", "image_map"}
    assert torch.equal(item["image"], before)
    assert item["image"].meta.keys() == meta.keys()
    assert result["image"].meta["score"] == result["image_map"].meta["score"]
    with pytest.raises(BadInput, match="constant"):
        AnomalyMapd("image", detector)({"image": torch.zeros(1, 8, 8, 8)})


def test_what_is_saved_is_the_item_s(detector, heads: list[Path], tmp_path: Path) -> None:
    add = Compose([*loading(OURS), AnomalyMapd("image", detector, threshold="p97")])
    items = [add({"image": path}) for path in heads]
    save = SavePredictiond(
        "image_anomaly", output_dir=tmp_path / "items", formats=("nifti", "json", "overlay")
    )
    for item in reversed(items):  # of the last predicted, the first
        save(item)
    for path in heads:
        medzsad.predict(path, detector, threshold="p97").save(tmp_path / "predict", formats=("nifti", "json"))
    for expected in (tmp_path / "predict").iterdir():
        found = tmp_path / "items" / expected.name
        if expected.suffix == ".json":
            first, second = (json.loads(file.read_text()) for file in (found, expected))
            assert first | {"timings_s": {}} == second | {"timings_s": {}}
        else:
            assert nibabel.load(found).get_fdata().tobytes() == nibabel.load(expected).get_fdata().tobytes()
            assert nibabel.load(found).header == nibabel.load(expected).header
    assert (tmp_path / "items" / "first_overlay.png").is_file()


def test_changed_maps_names_and_modalities_are_the_item_s(
    detector, heads: list[Path], tmp_path: Path
) -> None:
    item = Compose([*loading(), AnomalyMapd("image", detector, modality="us")])({"image": heads[0]})
    item |= {"name": "case 7", "image_anomaly": 1 - item["image_anomaly"]}
    SavePredictiond("image_anomaly", output_dir=tmp_path / "out")(item)
    saved = medzsad.read_scan(tmp_path / "out" / "case 7_anomaly.nii.gz")
    assert np.array_equal(saved.voxels, item["image_anomaly"][0].numpy())
    report = json.loads((tmp_path / "out" / "case 7.json").read_text())
    assert report["scan"]["modality_source"] == "given"
    assert not any("guessed" in note for note in report["notes"])
    with pytest.raises(BadInput, match="cannot be the name"):
        SavePredictiond("image_anomaly", output_dir=tmp_path / "out")(item | {"name": "../up"})


def test_what_cannot_be_saved_is_said(detector, heads: list[Path], tmp_path: Path) -> None:
    save = SavePredictiond("pred", output_dir=tmp_path / "out")
    image = Compose(loading())({"image": heads[0]})["image"]
    with pytest.raises(ValueError, match="names no prediction"):
        save({"image": image, "pred": MetaTensor(torch.rand(1, 20, 24, 6))})
    result = AnomalyMapd("image", detector)({"image": image})["image_anomaly"]
    with pytest.raises(ValueError, match="on one grid"):
        save({"image": image, "pred": result[:, :5]})
    with pytest.raises(KeyError):
        save({"pred": result})
    assert not (tmp_path / "out").exists()


def test_labels_must_be_on_the_grid_of_their_scan(heads: list[Path], tmp_path: Path) -> None:
    labels = [tmp_path / "label.nii.gz", tmp_path / "shifted.nii.gz"]
    lesion = nibabel.Nifti1Image((small_head() > 400).astype(np.uint8), AFFINE)
    for path, image in zip(labels, (lesion, lesion.slicer[1:]), strict=True):
        nibabel.save(image, path)
    item = Compose(loading(OURS))({"image": heads[0], "label": labels[0]})
    label = LoadLabeld()(item)["label"]
    assert label.shape == item["image"].shape
    assert label.unique().tolist() == [0, 1]
    with pytest.raises(BadInput, match="does not fit"):
        LoadLabeld()({**item, "label": labels[1]})
