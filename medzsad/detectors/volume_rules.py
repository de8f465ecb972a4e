"""What is done with a volume's map after its slices were predicted, and with the candidates found in it.

Slices are predicted one by one, so a false alarm in a single slice, or in the small slices at the ends of a
body, costs a detector nothing on 2D images. These rules are post-processing of volumes alone. A detector has
them on by default only where they were measured with it (:attr:`AnomalyDetector.volume_rules`), so that the
numbers of published methods stay comparable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from medzsad.errors import BadInput

if TYPE_CHECKING:
    from medzsad.detectors.base import AnomalyDetector

CHOICES = ("auto", "on", "off")
# What goes with a least peak, and is lifted where another threshold decides or maps are averaged.
ANY_VALUES: dict[str, Any] = {"least_peak": 0.0, "relative_volume": 0.0, "dip": 1.0}


@dataclass(frozen=True)
class VolumeRules:
    """The rules; the defaults do nothing.

    Attributes:
        resolution_mm: the map is smoothed along the stack as if its slices had been this thick: a Gaussian of
            ``sqrt(resolution_mm ** 2 - spacing ** 2)`` mm, so slices that are at least so thick stay as they
            are.
        apart_mm: slices that lie closer than this are not all predicted: every n-th is, and the smoothing, or
            without it interpolation, fills the map between (:mod:`medzsad.inference.slice_step`).
        guide_mm: maps of grey volumes follow the scan: a guided filter of this radius
            (:mod:`medzsad.inference.guided`).
        least_area: slices with less foreground than this part of the largest slice's are not predicted.
        relative_peak: candidates whose highest value is below this part of the volume's highest are hidden.
        least_peak: candidates whose highest value is below this are hidden, also where no other is higher,
            unless a caller gives a threshold; of volumes in colour none is.
        relative_volume: candidates smaller than this part of the largest that the rules above leave are
            hidden: beside a large lesion most specks are none. Not where a caller gives a threshold or a
            minimum volume.
        one_slice_width: candidates that lie in one slice alone and are wider than this many times its
            thickness are hidden: a lesion does not end so soon above and below.
        two_classes: of candidates of 10 mL and more whose values fall into two clear classes, the upper is
            outlined alone: the share of their variance that must lie between the classes (0.75 of values that
            are spread evenly).
        dip: candidates are divided where the map between two peaks falls below this part of the lower one and
            ``neck`` allows it; 1 divides none. Not where a caller gives a threshold.
        neck: largest area in which two parts of a candidate touch, as a multiple of the smaller one's volume
            to the power of two thirds (:mod:`medzsad.results.dividing`).
        min_volume_mm3: smaller candidates are hidden; None hides none (specks are not listed in any case).
        score_from_candidates: the volume score is that of the first candidate, not of the highest slices. Not
            part of the measured rules: ``tools/bench/volume_score.py`` compares the two.
    """

    resolution_mm: float = 0.0
    apart_mm: float = 0.0
    guide_mm: float = 0.0
    least_area: float = 0.0
    relative_peak: float = 0.0
    least_peak: float = 0.0
    relative_volume: float = 0.0
    one_slice_width: float | None = None
    two_classes: float | None = None
    dip: float = 1.0
    neck: float = 0.0
    min_volume_mm3: float | None = None
    score_from_candidates: bool = False

    def for_any_values(self) -> VolumeRules:
        """Return the rules without those for candidates that depend on what a map's values mean."""
        return replace(self, **ANY_VALUES)


NO_RULES = VolumeRules()
# Chosen with medzsad-mini on even volumes of shared data: tools/bench/candidate_rules.py prints the figures.
# A least peak depends on what values mean, so only the detector that it was chosen with has one.
MEASURED_RULES = VolumeRules(
    resolution_mm=3.0,
    apart_mm=3.0,
    guide_mm=8.0,
    least_area=0.2,
    relative_peak=0.5,
    one_slice_width=4.0,
    two_classes=0.8,
    min_volume_mm3=10.0,
)


def parse_choice(choice: str) -> str:
    """Return ``choice`` if it is one of :data:`CHOICES`; else raise BadInput."""
    if choice not in CHOICES:
        raise BadInput(f"unknown volume rules {choice!r}; use one of {', '.join(CHOICES)}")
    return choice


def rules_for(detector: AnomalyDetector, choice: str = "auto") -> VolumeRules:
    """Return the rules for a volume.

    ``"auto"`` are the detector's own, ``"on"`` those, too, or, where it has none, the measured ones;
    ``"off"`` are none.

    Raises:
        BadInput: if ``choice`` is none of these.
    """
    own = detector.volume_rules
    on = MEASURED_RULES if own == NO_RULES else own
    return {"auto": own, "on": on, "off": NO_RULES}[parse_choice(choice)]
