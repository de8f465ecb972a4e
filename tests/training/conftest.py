"""Small detectors for every test of training."""

from small_detectors import (  # noqa: F401
    batch,
    build_detector,
    clip_weights,
    small_adaclip,
    small_anomalyclip,
    small_headclip,
)
