from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_scans import AFFINE, small_head
from mini_cases import detector_of_slices
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from monai.inferers import Inferer
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from orientations import all_orientations, reoriented

import medzsad
from medzsad.detectors.references import Brightness
from medzsad.errors import BadInput
from medzsad.metrics.cumulative import ImageMetrics
from medzsad.monai import AnomalyInferer, FiguresHandler, SavePredictiond, fixed_threshold, scores_and_labels


def test_a_volume_without_any_meta_gets_a_map_of_its_shape(detector) -> None:
    inferer = AnomalyInferer()
    assert isinstance(inferer, Inferer)
    voxels = small_head((32, 32, 8))
    inputs = MetaTensor(torch.from_numpy(voxels)[None, None], affine=torch.from_numpy(AFFINE))
    maps = inferer(inputs, detector)
    assert isinstance(maps, MetaTensor)
    assert maps.shape == (1, 1, 32, 32, 8)
    assert maps.dtype == torch.float32
    assert torch.equal(maps.affine, inputs.affine)
    expected = medzsad.predict(voxels, detector, affine=AFFINE)
    np.testing.assert_allclose(maps[0, 0].numpy(), expected.anomaly_map, atol=1e-6)
    assert maps.meta["score"] == [pytest.approx(expected.score)]


def test_all_48_orientations_give_the_same_map_in_the_patient(detector) -> None:
    voxels, inferer = small_head((9, 10, 4)), AnomalyInferer()
    reference = medzsad.predict(voxels, detector, affine=AFFINE).anomaly_map
    shapes = set()
    for order, signs in all_orientations():
        stored, affine = reoriented(voxels, AFFINE, order, signs)
        inputs = MetaTensor(torch.from_numpy(np.ascontiguousarray(stored))[None, None], affine=affine)
        expected, _ = reoriented(reference, AFFINE, order, signs)
        np.testing.assert_allclose(inferer(inputs, detector)[0, 0].numpy(), expected, atol=1e-5)
        shapes.add(stored.shape)
    assert len(shapes) == 6


def test_items_of_a_batch_keep_their_own_affines(detector) -> None:
    voxels = small_head((16, 16, 6))
    affines = [np.diag([2.0, 2.0, 5.0, 1.0]), np.diag([5.0, 2.0, 2.0, 1.0])]
    items = [MetaTensor(torch.from_numpy(voxels)[None], affine=affine) for affine in affines]
    expected = [medzsad.predict(voxels, detector, affine=affine) for affine in affines]
    assert expected[0].planes != expected[1].planes
    batch = next(iter(DataLoader(Dataset(items), batch_size=2)))
    by_hand = MetaTensor(torch.stack([item.as_tensor() for item in items]))
    by_hand.affine = np.stack(affines)
    for inputs in (batch, by_hand):
        maps = AnomalyInferer()(inputs, detector)
        assert maps.shape == (2, 1, 16, 16, 6)
        assert maps.is_batch == inputs.is_batch
        assert torch.equal(maps.affine, inputs.affine)
        for one, result in zip(maps, expected, strict=True):
            np.testing.assert_allclose(one[0].numpy(), result.anomaly_map, atol=1e-6)
        assert list(maps.meta["score"]) == pytest.approx([result.score for result in expected])


def test_plain_tensors_images_and_types(detector) -> None:
    volume = torch.from_numpy(small_head((16, 16, 6)))[None, None]
    maps = AnomalyInferer()(volume, detector)
    expected = medzsad.predict(volume[0, 0].numpy(), detector)
    np.testing.assert_allclose(maps[0, 0].numpy(), expected.anomaly_map, atol=1e-6)
    assert torch.equal(maps.affine, torch.eye(4, dtype=torch.float64))
    assert AnomalyInferer()(volume.half(), detector).dtype == torch.float32
    assert AnomalyInferer()(volume.short(), detector).shape == volume.shape
    assert AnomalyInferer()(torch.rand(3, 1, 20, 14), detector).shape == (3, 1, 20, 14)
    assert AnomalyInferer()(torch.rand(2, 3, 20, 14), detector).shape == (2, 1, 20, 14)


def test_of_several_contrasts_map_and_scores_are_the_means(detector) -> None:
    contrasts = [small_head(seed=seed) * (seed + 1) for seed in range(4)]
    inputs = MetaTensor(torch.from_numpy(np.stack(contrasts))[None], affine=AFFINE)
    maps = AnomalyInferer()(inputs, detector)
    alone = [medzsad.predict(contrast, detector, affine=AFFINE) for contrast in contrasts]
    mean = np.mean([result.anomaly_map for result in alone], axis=0)
    np.testing.assert_allclose(maps[0, 0].numpy(), mean, atol=1e-6)
    assert maps.meta["score"][0] == pytest.approx(np.mean([result.score for result in alone]))
    colours = AnomalyInferer(modality="rgb")(inputs[:, :3], detector)
    expected = medzsad.predict(np.stack(contrasts[:3], -1), detector, affine=AFFINE)
    np.testing.assert_allclose(colours[0, 0].numpy(), expected.anomaly_map, atol=1e-6)


def test_what_cannot_be_inferred_is_said(detector) -> None:
    with pytest.raises(TypeError, match="must be a detector"):
        AnomalyInferer()(torch.rand(1, 1, 8, 8, 8), torch.nn.Identity())
    with pytest.raises(ValueError, match=r"\(B, C, X, Y, Z\)"):
        AnomalyInferer()(torch.rand(8, 8, 8), detector)
    with pytest.raises(BadInput, match="NaN"):
        AnomalyInferer()(torch.full((1, 1, 8, 8, 8), torch.nan), detector)
    with pytest.raises(BadInput, match="maps to no volume"):
        AnomalyInferer()(MetaTensor(torch.rand(1, 1, 8, 8, 8), affine=torch.zeros(4, 4)), detector)
    wrapped = torch.nn.Module()
    wrapped.module = Brightness()
    assert AnomalyInferer()(torch.rand(1, 1, 8, 8, 8), wrapped).shape == (1, 1, 8, 8, 8)


@pytest.mark.parametrize("reader", [None, "medzsad.monai.MedzsadReader"])
def test_it_runs_in_an_evaluator_over_volumes_of_different_shape(
    reader, detector, heads: list[Path], tmp_path: Path
) -> None:
    pre = Compose([LoadImaged("image", reader=reader), EnsureChannelFirstd("image")])
    items = [
        {"image": str(path), "label": torch.tensor([[[[index]]]]), "name": f"case {index}"}
        for index, path in enumerate(heads)
    ]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, pre), batch_size=1),
        network=detector,
        inferer=AnomalyInferer(plane="coronal", threshold="p98"),
        postprocessing=SavePredictiond("pred", output_dir=tmp_path / "out", formats=("nifti",)),
        key_val_metric={"image_auroc": FiguresHandler(ImageMetrics(), output_transform=scores_and_labels)},
        additional_metrics=None,
    )
    evaluator.run()
    assert evaluator.state.iteration == 2
    assert evaluator.state.metrics["image_auroc"] in (0.0, 1.0)
    (pred,) = from_engine("pred")(evaluator.state.output)
    assert pred.shape == (1, 16, 14, 8)
    for index, path in enumerate(heads):
        expected = medzsad.predict(path, detector, plane="coronal", threshold="p98")
        for kind, array in (("anomaly", expected.anomaly_map), ("mask", expected.mask)):
            saved = medzsad.read_scan(tmp_path / "out" / f"case {index}_{kind}.nii.gz")
            np.testing.assert_allclose(saved.voxels, array, atol=1e-6)
            np.testing.assert_allclose(saved.affine, expected.affine, atol=1e-5)


def test_a_threshold_that_depends_on_the_scan_is_no_fixed_one() -> None:
    detector = Brightness()
    assert fixed_threshold(None, detector) == 0.5
    assert fixed_threshold(None, detector_of_slices()) == 0.2  # that of volumes
    assert fixed_threshold(0.25, detector) == 0.25
    assert fixed_threshold("p99", detector) is None
    detector.threshold = "otsu"
    assert fixed_threshold(None, detector) is None
    with pytest.raises(BadInput):
        fixed_threshold("high", detector)
