"""Small detectors, for the tests of the head weights' picture."""

from small_detectors import (  # noqa: F401
    build_detector,
    clip_weights,
    small_adaclip,
    small_anomalyclip,
    small_headclip,
)
