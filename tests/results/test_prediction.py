from __future__ import annotations

from dataclasses import fields

import nibabel
import numpy as np
import pytest
import torch

import medzsad
from medzsad.detectors.references import Brightness
from medzsad.results.prediction import given_modality, prediction_from
from medzsad.scans.nifti import read_nifti

AFFINE = np.array([[0.0, -1.5, 0, 19], [1.5, 0, 0, -12], [0, 0, 4, -20], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def result():
    voxels = np.random.default_rng(0).normal(100, 30, (10, 12, 6)).astype(np.float32)
    return medzsad.predict(voxels, Brightness(), affine=AFFINE, threshold="p90", plane="all", modality="mr")


def test_a_prediction_comes_back_from_its_meta(result) -> None:
    image = result.to_metatensor()
    assert image.shape == (1, *result.scan.shape)
    assert image.dtype == torch.float32
    assert np.array_equal(image.affine, result.affine)
    assert image.meta["score"] == result.score
    again = prediction_from(result.scan, image[0].numpy(), image.meta)
    for field in fields(result):
        if field.name != "anomaly_map":
            assert getattr(again, field.name) == getattr(result, field.name), field.name
    assert np.array_equal(again.anomaly_map, result.anomaly_map)
    assert again.lesions == result.lesions
    assert given_modality(image.meta) == "mr"
    image[:] = 0
    assert result.anomaly_map.any()  # a copy
    with pytest.raises(ValueError, match="names no prediction"):
        prediction_from(result.scan, again.anomaly_map, {})
    with pytest.raises(ValueError, match="one grid"):
        prediction_from(result.scan, again.anomaly_map[1:], image.meta)


def test_the_image_of_nibabel_is_the_file_that_is_saved(result, tmp_path) -> None:
    image = result.to_nibabel()
    saved = nibabel.load(result.save(tmp_path, formats=("nifti",))["anomaly"])
    assert np.array_equal(image.get_fdata(), saved.get_fdata())
    assert np.array_equal(image.affine, saved.affine)
    nibabel.save(image, tmp_path / "own.nii.gz")
    assert np.array_equal(read_nifti(tmp_path / "own.nii.gz").voxels, result.anomaly_map)
