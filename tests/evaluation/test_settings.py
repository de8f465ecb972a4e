"""Settings that make no sense are told in one line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medzsad.errors import BadInput
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.metrics.bootstrap import Draws


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"framing": "round"}, "framing"),
        ({"mode": "rough"}, "mode"),
        ({"size": 8}, "size"),
        ({"fpr_limit": 0.0}, "fpr_limit must be above 0"),
        ({"fpr_limit": 1.5}, "fpr_limit must be at most 1"),
        ({"threshold": 2.0}, "threshold"),
        ({"resamples": -1}, "resamples"),
        ({"seed": -1}, "seed"),
        ({"minimum_lesion_ml": -1.0}, "minimum_lesion_ml"),
        ({"minimum_lesion_iou": 1.5}, "minimum_lesion_iou"),
        ({"masks": "round"}, "masks"),
        ({"class_name": " - "}, "class_name must not be empty"),
    ],
)
def test_impossible_settings_say_so(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        EvaluationSettings(**changes)
    assert "\n" not in str(caught.value)


def test_settings_are_plain_data() -> None:
    settings = EvaluationSettings(size=None, threshold=0.4)
    assert EvaluationSettings(**json.loads(json.dumps(settings.as_dict()))) == settings


def test_a_single_item_has_no_interval() -> None:
    settings = EvaluationSettings(resamples=20, seed=3)
    assert settings.draws(1) is None
    assert settings.draws(2) == Draws(20, seed=3)
    assert EvaluationSettings(resamples=0).draws(2) is None


def test_masks_are_published_where_published_figures_stand_beside() -> None:
    settings = EvaluationSettings()
    assert [settings.for_set(name).masks for name in ("kvasir", "mvtec", "ddti", "folder")] == [
        "published",
        "published",
        "half",
        "half",
    ]
    assert EvaluationSettings(masks="half").for_set("kvasir").masks == "half"
