from __future__ import annotations

import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_sets import make_set

from medzsad.metrics.histogram import ScoreHistogram
from medzsad.metrics.pixel import pixel_metrics
from medzsad.metrics.undefined import Undefined


def filled(maps, masks, *args, **settings_) -> ScoreHistogram:
    histogram = ScoreHistogram(*args, **settings_)
    histogram.add_all(maps, masks)
    return histogram


@settings(max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 7, 100, 1000]),
    st.sampled_from([0.05, 0.3, 1.0]),
    st.sampled_from([3, 25, 10**6]),
)
def test_exact_values_always_lie_within_the_bounds(seed, bins, limit, levels):
    rng = np.random.default_rng(seed)
    maps = (rng.integers(0, levels + 1, (3, 8, 9)) / levels).astype(rng.choice([np.float32, np.float64]))
    masks = rng.random((3, 8, 9)) < rng.choice([0.02, 0.3, 0.9])
    masks[0, 0, :2] = (True, False)
    exact = pixel_metrics(maps, masks, fpr_limit=limit, threshold=0.4)
    found = filled(maps, masks, bins, threshold=0.4).metrics(fpr_limit=limit)
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        if name != "dice_best_threshold":
            assert found[name].lower <= value <= found[name].upper, name
            assert found[name].lower - 1e-12 <= found[name].value <= found[name].upper + 1e-12, name
    assert found["dice"].value == exact["dice"]


def test_default_bins_are_exact_to_five_digits():
    data = make_set(40, 128, seed=3)
    exact = pixel_metrics(data.maps, data.masks)
    found = filled(data.maps, data.masks).metrics()
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro", "pixel_mad"):
        assert found[name].value == pytest.approx(exact[name], abs=1e-5), name
        assert found[name].error < 2e-4, name


def test_maps_of_few_levels_are_exact():
    data = make_set(9, 40, seed=2)
    maps = np.round(data.maps * 255).astype(np.float32) / 255
    exact = pixel_metrics(maps, data.masks)
    parts = [filled(maps[i::3], data.masks[i::3]) for i in range(3)]
    for histogram in (filled(maps, data.masks), sum(parts)):
        for name, value in histogram.metrics().items():
            if name != "dice_best_threshold":
                assert value.value == pytest.approx(exact[name], abs=1e-12), name
                assert value.error < 3e-12, name


def test_scores_that_share_a_bin_are_not_taken_for_ties():
    one, other = ScoreHistogram(1), ScoreHistogram(1)
    one.add(np.array([[0.2, 0.2]]), np.array([[0, 1]]))
    other.add(np.array([[0.7, 0.7]]), np.array([[0, 1]]))
    assert one.metrics()["pixel_auroc"].error < 2e-12
    # Each part saw one score, but not the same.
    assert (one + other).metrics()["pixel_auroc"].error > 0.4
    assert (one + one + ScoreHistogram(1)).metrics()["pixel_auroc"].error < 2e-12


def test_the_best_threshold_gives_the_best_dice():
    data = make_set(6, 64, seed=5)
    found = filled(data.maps, data.masks, 256).metrics()
    called = data.maps >= np.float32(found["dice_best_threshold"].value)
    dice = 2 * (called & data.masks).sum() / (called.sum() + data.masks.sum())
    assert dice == pytest.approx(found["dice_best"].value, abs=1e-12)


def test_parts_add_up_to_the_whole(tmp_path):
    data = make_set(9, 32, seed=1)
    whole = filled(data.maps, data.masks, 512, threshold=0.3)
    parts = [filled(data.maps[i::3], data.masks[i::3], 512, threshold=0.3) for i in range(3)]
    total = sum(parts)
    np.savez(tmp_path / "part.npz", **(total.to_arrays()))
    with np.load(tmp_path / "part.npz") as file:
        restored = ScoreHistogram.from_arrays(file)
    for other in (total, restored, parts[2] + (parts[0] + parts[1])):
        assert (other.images, other.anomalous_images, other.regions) == (9, 6, whole.regions)
        np.testing.assert_array_equal(other.positives, whole.positives)
        np.testing.assert_array_equal(other.negatives, whole.negatives)
        for name, value in whole.metrics().items():
            assert other.metrics()[name].value == pytest.approx(value.value, abs=1e-12)
    # Adding leaves the parts alone, and a restored histogram can go on counting.
    assert parts[0].images == 3
    restored.add(data.maps[0], data.masks[0])
    assert restored.images == 10


def test_only_like_may_be_added():
    with pytest.raises(ValueError, match="different settings"):
        ScoreHistogram(10) + ScoreHistogram(20)
    with pytest.raises(ValueError, match="different settings"):
        ScoreHistogram(10) + ScoreHistogram(10, threshold=0.5)
    with pytest.raises(TypeError):
        ScoreHistogram(10) + 1


def test_scores_outside_the_limits_and_nan_are_refused():
    histogram = ScoreHistogram()
    for bad in (1.1, -0.1, np.inf):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            histogram.add(np.array([[0.5, bad]]), np.array([[0, 1]]))
    with pytest.raises(ValueError, match="NaN"):
        histogram.add(np.array([[0.5, np.nan]]), np.array([[0, 1]]))
    assert histogram.images == histogram.positives.sum() == histogram.negatives.sum() == 0
    wide = ScoreHistogram(limits=(-2, 3))
    wide.add(np.array([[-2.0, 3.0]]), np.array([[0, 1]]))
    assert float(wide.metrics()["pixel_auroc"]) == 1
    for wrong in ({"bins": 0}, {"limits": (1, 0)}, {"limits": (0, np.inf)}):
        with pytest.raises(ValueError, match="at least one bin"):
            ScoreHistogram(**wrong)


def test_one_class_is_undefined_with_the_reason():
    histogram = ScoreHistogram(8, threshold=0.5)
    assert set(histogram.metrics().values()) == {Undefined("no anomalous pixel")}
    histogram.add(np.full((4, 4), 0.7), np.ones((4, 4)))
    found = histogram.metrics()
    assert found.pop("dice").value == 1
    assert set(found.values()) == {Undefined("no normal pixel")}
    voxels = ScoreHistogram(8, regions=False, unit="voxel")
    voxels.add(np.full((2, 2, 2), 0.7), None)
    assert voxels.metrics()["voxel_auroc"] == Undefined("no anomalous voxel")
    assert not any("aupro" in name or "mad" in name for name in voxels.metrics())


def test_memory_does_not_grow_with_the_images():
    histogram = ScoreHistogram()
    scores = np.random.default_rng(0).random((200, 200), dtype=np.float32)
    mask = scores > 0.9
    peaks = []
    for images in (2, 50):
        tracemalloc.start()
        for _ in range(images):
            histogram.add(scores, mask)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.slow
def test_a_thousand_images_of_518_within_a_gigabyte():
    """In a process of its own, with everything that it imports counted."""
    code = """
        import resource
        import numpy as np
        from medzsad.metrics import ScoreHistogram

        rng = np.random.default_rng(0)
        base, mask = rng.random((518, 518), dtype=np.float32), np.zeros((518, 518), bool)
        mask[100:140, 200:260] = True
        histogram = ScoreHistogram()
        for number in range(1000):
            histogram.add(np.roll(base, number, axis=0), mask if number % 2 else None)
        found = histogram.metrics()
        assert histogram.images == 1000 and histogram.regions == 500
        assert abs(float(found["pixel_auroc"]) - 0.5) < 0.01 and found["pixel_mad"].error < 0.002
        try:  # what getrusage says begins with the memory of the process that started this one
            status = open("/proc/self/status").read()
            print(int(status.split("VmHWM:")[1].split()[0]))
        except OSError:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    # Kilobytes on Linux, bytes on macOS.
    peak = int(done.stdout) / (2**30 if sys.platform == "darwin" else 2**20)
    assert peak < 1
