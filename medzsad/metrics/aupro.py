"""AUPRO: the area under the per-region overlap curve, exact.

At a threshold, a region's overlap is the part of it that is called anomalous; PRO is the mean over all
regions of all images. PRO is drawn against the false positive rate, over all normal pixels of all images
(those of anomalous images too), and integrated from FPR 0 to a limit, 0.3 by custom; the area is divided by
the limit, so that 1 is perfect. (Bergmann et al., "Uninformed Students", CVPR 2020; "The MVTec AD dataset",
IJCV 2021.)

Giving every anomalous pixel the weight 1 / (size of its region) makes PRO a weighted true positive rate, so
one sort gives the whole curve, at every threshold there is. Conventions, where implementations differ:

- Regions are 8-connected in 2D and 26-connected in 3D.
- All thresholds are used. Many implementations take 200 between the lowest and the highest score, which is an
  approximation (commonly off by some 0.001, more where few thresholds fall below the limit).
- At the limit, the curve is interpolated linearly. Some implementations drop the thresholds beyond the limit
  without doing so, and rescale the FPR by the largest one kept.
- Ties make a slanted piece of curve, as in AUROC.
"""

from __future__ import annotations

from medzsad.metrics.pixel import Images, rank_pixels


def aupro(maps: Images, masks: Images, *, fpr_limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to ``fpr_limit``, divided by it: in [0, 1].

    By chance it is ``fpr_limit / 2``.

    Args:
        maps, masks: see :func:`medzsad.metrics.masks.pair_up`.
        fpr_limit: in (0, 1].

    Raises:
        UndefinedMetric: if there is no anomalous or no normal pixel.
        ValueError: for a limit outside (0, 1], NaN, or maps and masks that do not fit together.
    """
    return rank_pixels(maps, masks).aupro(fpr_limit)
