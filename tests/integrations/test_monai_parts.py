"""The names that bundles exported by earlier versions hold."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import yaml
from monai.bundle import ConfigParser

from medzsad.predicting import predict
from medzsad.scans.readers import read_scan

# As `medzsad export bundle` wrote it, shortened.
OLD_CONFIG = """
imports:
- $from medzsad.integrations.monai_parts import scans_at
- $from medzsad.integrations.monai_parts import fixed_threshold, labelled_scans_at, scores_and_labels
network:
  _target_: medzsad.detectors.references.Brightness
preprocessing:
  _target_: Compose
  transforms:
  - {_target_: medzsad.integrations.monai_parts.LoadScand, keys: image, modality: null}
dataset:
  _target_: Dataset
  data: $scans_at(@image)
  transform: '@preprocessing'
dataloader: {_target_: DataLoader, dataset: '@dataset', batch_size: 1, num_workers: 0}
inferer:
  _target_: medzsad.integrations.monai_parts.ScanInferer
  plane: coronal
  window: null
  threshold: otsu
postprocessing:
  _target_: Compose
  transforms:
  - _target_: medzsad.integrations.monai_parts.SavePredictiond
    keys: pred
    inferer: '@inferer'
    output_dir: '@output_dir'
    formats: [nifti, json]
metric:
  _target_: medzsad.integrations.monai_parts.FiguresHandler
  metric_fn: {_target_: medzsad.metrics.cumulative.ImageMetrics}
label_loader:
  _target_: medzsad.integrations.monai_parts.LoadLabeld
  keys: label
  image_key: image
evaluator:
  _target_: SupervisedEvaluator
  device: $torch.device('cpu')
  val_data_loader: '@dataloader'
  network: '@network'
  inferer: '@inferer'
  postprocessing: '@postprocessing'
"""


def test_a_bundle_of_an_earlier_version_still_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = nibabel.Nifti1Image(rng.normal(100, 30, (16, 12, 6)).astype(np.float32), np.diag([2, -2, 3, 1]))
    nibabel.save(image, tmp_path / "head.nii.gz")
    config = yaml.safe_load(OLD_CONFIG) | {
        "image": str(tmp_path / "head.nii.gz"),
        "output_dir": str(tmp_path / "out"),
    }
    parser = ConfigParser(config)
    parser.parse()
    for name in ("metric", "label_loader"):
        assert parser.get_parsed_content(name) is not None
    evaluator = parser.get_parsed_content("evaluator")
    evaluator.run()
    expected = predict(
        tmp_path / "head.nii.gz", parser.get_parsed_content("network"), plane="coronal", threshold="otsu"
    )
    assert np.array_equal(read_scan(tmp_path / "out" / "head_anomaly.nii.gz").voxels, expected.anomaly_map)
    assert (tmp_path / "out" / "head.json").is_file()
