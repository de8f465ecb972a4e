from __future__ import annotations

import json
import shutil

import dataset_factory as factory
import numpy as np
import pytest

from medzsad.datasets.checking import check_dataset
from medzsad.datasets.reading import KINDS
from medzsad.errors import BadInput


def found(report):
    """Kind of problem to the names of the files."""
    return {kind: [p.path.name for p in report.of_kind(kind)] for kind in KINDS if report.of_kind(kind)}


def test_a_whole_copy(tmp_path):
    factory.mvtec_style(tmp_path, ("bottle", "cable"))
    steps = []
    report = check_dataset("mvtec", tmp_path, progress=lambda: steps.append(1))
    assert report.ok
    assert report.problems == ()
    assert (report.normal, report.anomalous, report.masks, len(steps)) == (4, 8, 8, 12)
    assert report.counts["cable"] == {"good": 2, "hole": 2, "scratch": 2}
    assert json.loads(json.dumps(report.as_dict()))["layout"] == "mvtec"


def test_everything_that_can_be_wrong_with_images(tmp_path):
    factory.mvtec_style(tmp_path, ("bottle",))
    home = tmp_path / "bottle"
    (home / "test/good/002.png").write_bytes(b"broken")
    (home / "ground_truth/hole/002_mask.png").unlink()
    factory.mask(home / "ground_truth/hole/010_mask.png", size=(3, 3))
    factory.mask(home / "ground_truth/scratch/002_mask.png", marked=False)
    factory.mask(home / "ground_truth/scratch/777_mask.png")
    factory.mask(home / "ground_truth/good/010_mask.png")
    (home / "ground_truth/scratch/010_mask.png").write_bytes(b"broken")
    report = check_dataset("mvtec", tmp_path)
    assert found(report) == {
        "unreadable": ["002.png", "010_mask.png"],
        "missing-mask": ["002.png"],
        "size": ["010_mask.png"],
        "empty-mask": ["002_mask.png"],
        "mask-of-normal": ["010_mask.png"],
        "unused-mask": ["777_mask.png"],
    }
    assert not report.ok
    assert report.of_kind("size")[0].message == "it is 3 x 3 pixels, its image 12 x 8"


def test_duplicates_and_conflicts(tmp_path):
    factory.yes_no(tmp_path, "brain")
    shutil.copy(tmp_path / "yes/Y1.JPG", tmp_path / "yes/Y7.JPG")
    report = check_dataset("brainmri", tmp_path)
    assert found(report) == {"duplicate": ["Y7.JPG"]}
    assert report.of_kind("duplicate")[0].message == "the same bytes as yes/Y1.JPG"
    assert report.ok
    shutil.copy(tmp_path / "yes/Y2.JPG", tmp_path / "no/N9.JPG")
    report = check_dataset("brainmri", tmp_path)
    assert found(report) == {"conflict": ["N9.JPG"], "duplicate": ["Y7.JPG"]}
    assert not report.ok


def test_images_without_masks_in_paired_folders(tmp_path):
    factory.images_masks(tmp_path, "colon")
    (tmp_path / "masks/10.png").unlink()
    factory.mask(tmp_path / "masks/11.png")
    report = check_dataset("kvasir", tmp_path)
    assert found(report) == {"unlabelled": ["10.jpg"], "unused-mask": ["11.png"]}
    assert report.counts == {"colon": {"anomaly": 1, "good": 1}}
    assert not report.ok


def test_files_that_a_list_names_and_nobody_has(tmp_path):
    factory.visa(tmp_path)
    (tmp_path / "pcb1/Data/Images/Anomaly/000.JPG").unlink()
    report = check_dataset("visa", tmp_path)
    assert found(report) == {"unreadable": ["000.JPG"]}
    assert "does not exist" in report.problems[0].message


def test_volumes(tmp_path):
    for name in ("a", "b", "c", "d", "e"):
        factory.scan_volume(tmp_path / name / "flair.nii.gz")
        factory.label_volume(tmp_path / name / "seg.nii.gz")
    factory.label_volume(tmp_path / "b/seg.nii.gz", 0)
    factory.volume(tmp_path / "c/seg.nii.gz", np.ones((5, 6, 3), np.uint8))
    (tmp_path / "d/flair.nii.gz").write_bytes(b"broken")
    (tmp_path / "e/seg.nii.gz").unlink()
    report = check_dataset("brats2013", tmp_path)
    assert found(report) == {"unreadable": ["flair.nii.gz"], "unlabelled": ["e"], "size": ["seg.nii.gz"]}
    assert report.of_kind("size")[0].path.parent.name == "c"
    assert (report.normal, report.anomalous, report.masks) == (1, 3, 4)


def test_no_set_at_all(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(BadInput, match="yes/Y1"):
        check_dataset("brainmri", tmp_path)
