r"""Compares the exact AUPRO with a loop over 200 thresholds: value, time and peak memory.

    OMP_NUM_THREADS=1 python tools/bench/aupro.py

The 100 maps of 518x518 are made by a seed: smooth noise of the kind that a patch-based detector leaves,
brighter over most anomalies; every other image has one to five elliptic regions of very different sizes. Two
loops are timed, each over 200 equally spaced thresholds: the plain one as in common evaluation code, which
thresholds a map and looks up the regions of its mask each time, and one that has found the pixels of every
region beforehand. Memory is the peak of what is allocated during a call, beyond the maps and masks that it is
given (tracemalloc; a second call, so that tracing does not slow the timed one).
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from scipy import ndimage
from skimage import measure

from medzsad.metrics.pixel import aupro


def make_set(images: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 maps in [0, 1] and bool masks, both (images, size, size)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    maps = np.empty((images, size, size), np.float32)
    masks = np.zeros((images, size, size), bool)
    for i in range(images):
        coarse = ndimage.gaussian_filter(rng.standard_normal((37, 37)), 1.2)
        field = (
            ndimage.zoom(coarse, size / 37, order=1, grid_mode=True, mode="nearest")[:size, :size] * 2 - 2.5
        )
        for _ in range(rng.integers(1, 6) if i % 2 else 0):
            y, x = rng.uniform(0.1, 0.9, 2)
            a, b = np.exp(rng.uniform(np.log(0.01), np.log(0.12), 2))
            far = ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2
            masks[i] |= far < 1
            field += rng.uniform(-0.5, 4) * np.exp(-far / 2)
        maps[i] = 1 / (1 + np.exp(-ndimage.gaussian_filter(field, 4)))
    return maps, masks


def plain_loop(maps: np.ndarray, masks: np.ndarray, limit: float, steps: int = 200) -> float:
    """Return the reference: at each threshold, each image and each region."""
    fprs, pros = [], []
    for threshold in np.linspace(maps.max(), maps.min(), steps):
        overlaps = []
        for scores, mask in zip(maps, masks, strict=True):
            called = scores >= threshold
            for region in measure.regionprops(measure.label(mask, connectivity=2)):
                overlaps.append(called[region.coords[:, 0], region.coords[:, 1]].sum() / region.area)
        fprs.append(np.logical_and(maps >= threshold, ~masks).sum() / (~masks).sum())
        pros.append(np.mean(overlaps))
    return area(np.array(fprs), np.array(pros), limit)


def prepared_loop(maps: np.ndarray, masks: np.ndarray, limit: float, steps: int = 200) -> float:
    """Return same numbers, with the scores of every region and of all normal pixels picked out beforehand."""
    regions = []
    for scores, mask in zip(maps, masks, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [scores[labels == number] for number in range(1, count + 1)]
    normal = maps[~masks]
    fprs, pros = [], []
    for threshold in np.linspace(maps.max(), maps.min(), steps):
        fprs.append(np.count_nonzero(normal >= threshold) / normal.size)
        pros.append(np.mean([np.count_nonzero(region >= threshold) / region.size for region in regions]))
    return area(np.array(fprs), np.array(pros), limit)


def area(fprs: np.ndarray, pros: np.ndarray, limit: float) -> float:
    """Area under the curve through (0, 0) up to the limit, where it is interpolated, divided by the limit."""
    x, y = np.r_[0, fprs], np.r_[0, pros]
    inside = x < limit
    return float(np.trapezoid(np.r_[y[inside], np.interp(limit, x, y)], np.r_[x[inside], limit]) / limit)


def by_every_threshold(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """Exact by brute force, for a small set: the prepared loop over every distinct score."""
    regions = []
    for scores, mask in zip(maps, masks, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [scores[labels == number] for number in range(1, count + 1)]
    normal = maps[~masks]
    thresholds = np.unique(maps)[::-1]
    fprs = np.array([np.count_nonzero(normal >= t) / normal.size for t in thresholds])
    pros = np.array([np.mean([np.count_nonzero(r >= t) / r.size for r in regions]) for t in thresholds])
    return area(fprs, pros, limit)


def timed(call: Callable[[], float]) -> tuple[float, float]:
    """Return the value and the seconds that it took."""
    begin = time.perf_counter()
    value = call()
    return value, time.perf_counter() - begin


def peak_mib(call: Callable[[], float]) -> float:
    """Return the most memory allocated at once during a call, in MiB."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=518)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=0.3, help="FPR limit")
    parser.add_argument(
        "--repeat", type=int, default=5, help="the exact call is timed so often; the median counts"
    )
    args = parser.parse_args()
    maps, masks = make_set(args.images, args.size, args.seed)
    regions = sum(ndimage.label(mask, structure=np.ones((3, 3)))[1] for mask in masks)
    print(
        f"{args.images} maps of {args.size}x{args.size} ({maps.nbytes / 2**20:.0f} MiB), {regions} regions, "
        f"{masks.mean():.1%} of pixels anomalous, {np.unique(maps).size} distinct scores; "
        f"FPR limit {args.limit}"
    )
    small = [a[: min(4, args.images), ::8, ::8] for a in (maps, masks)]
    if small[1].any():
        brute, ours = by_every_threshold(*small, args.limit), aupro(*small, fpr_limit=args.limit)
        print(f"every threshold of a small part: {brute:.12f}; exact: {ours:.12f} ({ours - brute:+.1e})")
    aupro(maps[:2], masks[:2])  # imports scipy
    runs = [timed(lambda: aupro(maps, masks, fpr_limit=args.limit)) for _ in range(args.repeat)]
    value, seconds = runs[0][0], float(np.median([run[1] for run in runs]))
    memory = peak_mib(lambda: aupro(maps, masks, fpr_limit=args.limit))
    print("| method | AUPRO | seconds | times the exact one | peak memory beyond the input |")
    print("|---|---|---|---|---|")
    print(f"| exact | {value:.6f} | {seconds:.2f} | 1 | {memory:.0f} MiB |", flush=True)
    for name, loop in (("200 thresholds, prepared", prepared_loop), ("200 thresholds, plain", plain_loop)):
        value, taken = timed(lambda loop=loop: loop(maps, masks, args.limit))
        print(f"| {name} | {value:.6f} | {taken:.2f} | {taken / seconds:.0f} | not measured |", flush=True)


if __name__ == "__main__":
    main()
