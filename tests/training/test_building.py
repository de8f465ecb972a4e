from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from medzsad.errors import ModelNotReady
from medzsad.training.building import begin_with, trainable


def test_a_detector_begins_with_what_another_has_learned(build_detector):
    start, detector = build_detector("headclip"), build_detector("headclip")
    with torch.no_grad():
        for parameter in trainable(start).values():
            parameter.add_(0.1)
    learned = replace(start.to_checkpoint(), training={"seen": ["visa"]})
    begin_with(detector, learned)
    for name, parameter in trainable(detector).items():
        assert torch.equal(parameter, trainable(start)[name]), name
        assert parameter.requires_grad
    assert detector.seen == ("visa",)


def test_other_methods_sizes_and_clip_weights_are_no_start(build_detector):
    with pytest.raises(ModelNotReady, match="'anomalyclip' detector is no start for 'headclip'"):
        begin_with(build_detector("headclip"), build_detector("anomalyclip").to_checkpoint())
    with pytest.raises(ModelNotReady, match="does not fit the recipe's settings"):
        begin_with(build_detector("headclip"), build_detector("headclip", prompt_length=5).to_checkpoint())
    other = build_detector("headclip")
    with torch.no_grad():
        for parameter in other.clip.parameters():
            parameter.mul_(1.5)
    with pytest.raises(ModelNotReady, match="are not those that the detector to start from"):
        begin_with(build_detector("headclip"), other.to_checkpoint())
