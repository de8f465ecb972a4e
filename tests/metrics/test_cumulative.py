from __future__ import annotations

import ast
import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from metric_sets import ImageSet
from monai.metrics import CumulativeIterationMetric

from medzsad.metrics import ImageMetrics, PixelMetrics, VolumeMetrics
from medzsad.metrics.histogram import ScoreHistogram
from medzsad.metrics.image import image_metrics
from medzsad.metrics.lesionwise import LesionRule
from medzsad.metrics.pixel import pixel_metrics
from medzsad.metrics.volume import volume_metrics


def batches(data: ImageSet, size: int = 5):
    for start in range(0, len(data.maps), size):
        part = slice(start, start + size)
        yield torch.from_numpy(data.maps[part])[:, None], torch.from_numpy(data.masks[part])[:, None].float()


def test_images_in_batches_equal_the_functional_form():
    rng = np.random.default_rng(0)
    scores, labels = rng.random(20).astype(np.float32), rng.random(20) < 0.5
    metric = ImageMetrics()
    assert isinstance(metric, CumulativeIterationMetric)
    metric(torch.from_numpy(scores[:8]), torch.from_numpy(labels[:8]))
    metric(torch.from_numpy(scores[8:15])[:, None], torch.from_numpy(labels[8:15])[:, None].long())
    # MONAI's decollated batches: lists of channel-first items. Labels may be masks.
    masks = [torch.full((1, 4, 4), 255 * int(label)).byte() for label in labels[15:]]
    metric([torch.tensor([score]) for score in scores[15:]], masks)
    assert metric.aggregate() == {name: float(v) for name, v in image_metrics(scores, labels).items()}
    assert metric.undefined == {}


def test_undefined_is_nan_with_the_reason_until_reset():
    metric = ImageMetrics()
    metric(torch.tensor([0.1, 0.2]), torch.tensor([0, 0]))
    assert all(math.isnan(value) for value in metric.aggregate().values())
    assert metric.undefined["image_auroc"] == "no anomalous image"
    metric.reset()
    assert metric.undefined == {}
    metric(torch.tensor([0.1, 0.2]), torch.tensor([0, 1]))
    assert metric.aggregate()["image_auroc"] == 1
    for empty in (ImageMetrics(), PixelMetrics(), PixelMetrics("histogram"), VolumeMetrics()):
        assert all(math.isnan(value) for value in empty.aggregate().values())


def test_exact_pixels_equal_the_functional_form(image_set):
    metric = PixelMetrics(threshold=0.4, fpr_limit=0.2)
    for maps, masks in batches(image_set):
        metric(maps, masks)
    expected = pixel_metrics(image_set.maps, image_set.masks, threshold=0.4, fpr_limit=0.2)
    assert metric.aggregate() == {name: float(value) for name, value in expected.items()}
    assert metric.bounds == {}


def test_histogram_pixels_have_bounds_around_the_exact_values(image_set):
    metric = PixelMetrics("histogram", threshold=0.4, bins=4096)
    for maps, masks in batches(image_set):
        assert len(metric(list(maps), list(masks))) == len(maps)
    found = metric.aggregate()
    exact = pixel_metrics(image_set.maps, image_set.masks, threshold=0.4)
    assert found.keys() == exact.keys()
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro", "pixel_mad", "dice"):
        low, high = metric.bounds[name]
        assert low <= exact[name] <= high
        assert found[name] == pytest.approx(exact[name], abs=1e-3)
    metric.reset()
    assert math.isnan(metric.aggregate()["pixel_auroc"])


def test_sizes_may_differ_in_a_histogram_but_not_in_an_exact_buffer():
    one, other = torch.rand(2, 1, 8, 8), torch.rand(1, 1, 5, 6)
    histogram = PixelMetrics("histogram")
    histogram(one, one > 0.5)
    histogram(other, other > 0.5)
    assert histogram.aggregate()["pixel_auroc"] == 1
    exact = PixelMetrics()
    exact(one, one > 0.5)
    with pytest.raises(ValueError, match='use mode "histogram"'):
        exact(other, other > 0.5)
    # A smaller map is brought to the masks' size.
    exact(torch.rand(1, 1, 4, 4), torch.zeros(1, 1, 8, 8))
    assert exact.aggregate()["pixel_auroc"] > 0


def test_low_precision_maps_are_taken():
    metric = PixelMetrics()
    maps = torch.rand(2, 1, 6, 6)
    metric(maps.bfloat16(), maps > 0.5)
    metric(maps.half(), maps > 0.5)
    assert metric.aggregate()["pixel_auroc"] > 0.9


def test_volumes_equal_the_functional_form():
    rng = np.random.default_rng(1)
    maps, labels = rng.random((4, 6, 7, 8)).astype(np.float32), rng.random((4, 6, 7, 8)) < 0.03
    foregrounds = rng.random((4, 6, 7, 8)) < 0.8
    rule = LesionRule(0.9, min_lesion_mm3=3)
    metric = VolumeMetrics(threshold=0.5, lesions=rule)
    for part in (slice(0, 3), slice(3, 4)):
        arrays = [torch.from_numpy(a[part])[:, None] for a in (maps, labels, foregrounds)]
        metric(arrays[0], arrays[1], foreground=arrays[2], spacing=(1, 1, 2))
    found = metric.aggregate()
    expected = volume_metrics(
        maps, labels, threshold=0.5, foregrounds=foregrounds, lesions=rule, spacings=[(1, 1, 2)] * 4
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), abs=1e-4 if name.startswith("voxel") else 1e-12), (
            name
        )
    assert len(metric.cases) == len(metric.findings) == 4
    metric.reset()
    assert metric.cases == metric.findings == []


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a mask per map"):
        PixelMetrics()(torch.rand(2, 1, 4, 4), torch.zeros(3, 1, 4, 4))
    with pytest.raises(ValueError, match="a score and a label"):
        ImageMetrics()(torch.rand(2, 1, 4, 4), torch.zeros(2))
    with pytest.raises(ValueError, match='"exact" or "histogram"'):
        PixelMetrics("fast")


@pytest.mark.slow
def test_two_ranks_are_put_together(tmp_path):
    code = """
        import sys
        import torch
        import torch.distributed as dist
        from medzsad.metrics import ImageMetrics, LesionRule, PixelMetrics, VolumeMetrics

        rank, store = int(sys.argv[1]), sys.argv[2]
        maps = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        masks = (maps + torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))) > 1.4
        # Three images on one rank, two on the other.
        mine = slice(0, 3) if rank == 0 else slice(3, 5)
        scores, labels = maps.flatten(1).mean(1), torch.tensor([0, 1, 0, 1, 1])

        def report(part):
            cases = [(ImageMetrics(), scores, labels), (PixelMetrics(), maps, masks)]
            cases += [(PixelMetrics("histogram"), maps, masks)]
            cases += [(VolumeMetrics(lesions=LesionRule(0.9)), maps[:, :, None], masks[:, :, None])]
            for metric, one, other in cases:
                metric(one[part], other[part])
                print(sorted(metric.aggregate().items()))

        report(slice(None))
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
        report(mine)
        dist.destroy_process_group()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    for lines in outputs:
        assert len(lines) == 8
        for alone, together in zip(lines[:4], lines[4:], strict=True):
            one, other = dict(ast.literal_eval(together)), dict(ast.literal_eval(alone))
            assert one == pytest.approx(other, abs=1e-12)


def test_metrics_without_torch_do_not_import_it():
    code = "import medzsad.metrics, sys; assert not {'torch', 'monai', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_histograms_of_a_metric_can_be_kept(image_set, tmp_path):
    metric = PixelMetrics("histogram", bins=128)
    for maps, masks in batches(image_set):
        metric(maps, masks)
    np.savez(tmp_path / "h.npz", **metric.histogram.to_arrays())
    with np.load(tmp_path / "h.npz") as file:
        assert ScoreHistogram.from_arrays(file).metrics() == metric.histogram.metrics()
