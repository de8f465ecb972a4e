"""Where a volume score lies among those of normal volumes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from medzsad.detectors.normal_scores import NormalScores, context_of, in_words, read_normal_scores
from medzsad.detectors.volume_rules import VolumeRules
from medzsad.scans.scan import Modality

RULES = VolumeRules(resolution_mm=3.0, one_slice_width=4.0)
REAL = NormalScores.of("MR head", "real", np.linspace(0.1, 0.5, 41), RULES)
MADE = NormalScores.of("MR head", "made", np.linspace(0.3, 0.7, 30), RULES)


@pytest.mark.parametrize(("score", "below"), [(0.05, 0.0), (0.1, 0.0), (0.3, 0.5), (0.4, 0.75), (0.9, 1.0)])
def test_the_share_below_lies_between_quantiles(score: float, below: float) -> None:
    assert REAL.share_below(score) == pytest.approx(below, abs=1e-3)


def test_each_origin_is_told_apart_and_few_or_other_volumes_are_silent() -> None:
    few = NormalScores.of("CT head", "real", [0.2, 0.3], RULES)
    known = (REAL, MADE, few)
    contexts = context_of(0.4, Modality.MR, known, RULES)
    assert [(one.origin, one.count, one.higher_than) for one in contexts] == [
        ("real", 41, 0.75),
        ("made", 30, 0.25),
    ]
    assert in_words(contexts) == "higher than 75 % of 41 real and 25 % of 30 made normal MR heads"
    assert in_words([asdict(one) for one in contexts]) == in_words(contexts)
    assert context_of(0.4, Modality.CT, known, RULES) == ()
    assert context_of(0.4, Modality.GREY, known, RULES) == ()
    assert in_words(()) == ""


def test_scores_of_other_or_unknown_rules_are_not_compared_with() -> None:
    assert context_of(0.4, Modality.MR, [REAL], replace(RULES, resolution_mm=4.0)) == ()
    assert context_of(0.4, Modality.MR, [replace(REAL, rules=None)], RULES) == ()
    stored = json.loads(json.dumps(asdict(REAL)))
    assert len(context_of(0.4, Modality.MR, read_normal_scores([stored]), RULES)) == 1


def test_what_a_checkpoint_stores_comes_back() -> None:
    assert read_normal_scores([asdict(REAL)]) == (REAL,)
    assert read_normal_scores(None) == ()
    with pytest.raises(TypeError):
        read_normal_scores([{"kind": "MR head", "quantiles": []}])
