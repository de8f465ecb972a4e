"""The readers on real samples of the published sets."""

from __future__ import annotations

import pytest

from medzsad.datasets.checking import check_dataset
from medzsad.datasets.opening import open_dataset


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder", "normal", "anomalous", "layout", "level", "told"),
    [
        ("brainmri", "brainmri", 98, 155, "yes-no", "image", {"duplicate": 25}),
        ("br35h", "br35h_mini", 150, 150, "yes-no", "image", {}),
        ("kvasir", "kvasir", 0, 500, "images-masks", "pixel", {}),
        ("clinicdb", "clinicdb", 0, 300, "images-masks", "pixel", {}),
        ("ddti", "ddti", 0, 250, "images-masks", "pixel", {"duplicate": 1}),
        ("magnetic-tile", "magnetic_tile", 200, 257, "mvtec", "pixel", {}),
        ("mvtec", "mvtec_subset", 25, 24, "mvtec", "pixel", {"duplicate": 1}),
        ("brats2013", "brats2013", 0, 3, "cases", "voxel", {}),
    ],
)
def test_counts(shared, name, folder, normal, anomalous, layout, level, told):
    report = check_dataset(name, shared(f"data/{folder}", files=normal + anomalous))
    assert (report.normal, report.anomalous) == (normal, anomalous)
    assert (report.samples.layout, report.samples.level) == (layout, level)
    kinds = [problem.kind for problem in report.problems]
    assert {kind: kinds.count(kind) for kind in kinds} == told
    assert report.ok


def test_tumour_volumes(shared):
    root = shared("data/brats2013", files=12)
    samples = open_dataset("brats2013", root)
    assert [s.id for s in samples] == ["pat0001", "pat0003", "pat0005"]
    assert {s.channel for s in samples} == {"flair"}
    t1c = open_dataset("brats2013", root, channel="t1c")
    assert {s.image.name for s in t1c} == {"T1c_subtrMeanDivStd.nii.gz"}
    label = samples[0].read_label()
    assert label.shape == samples[0].read_scan().shape == (240, 240, 155)
    assert 1e-3 < label.mean() < 0.05
    core = open_dataset("brats2013", root, labels=[4])
    assert 0 < core[0].read_label().sum() < label.sum()


def test_masks_that_compression_went_over(shared):
    """Masks of magnetic_tile hold greys from 0 to 255; a few grey pixels around black mark nothing."""
    samples = [s for s in open_dataset("magnetic-tile", shared("data/magnetic_tile", files=457)) if s.label]
    shares = [s.read_mask().mean() for s in samples[::20]]
    assert all(0 < share < 0.3 for share in shares)
