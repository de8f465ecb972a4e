"""Shares of an evaluation."""

from __future__ import annotations

import pytest

from medzsad.detectors.references import Brightness
from medzsad.evaluation.command import predict_share
from medzsad.evaluation.evaluate import evaluate
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.storage.hashing import Shard


@pytest.mark.parametrize("kind", ["blobs", "volumes"])
def test_an_evaluation_finds_all_that_its_shares_predicted(kind, request, tmp_path):
    samples = request.getfixturevalue(kind)
    settings = EvaluationSettings(size=None, resamples=20)
    detectors = [Brightness()]
    shares = [
        predict_share(samples, detectors, settings, Shard(number, 3), tmp_path / "cache")
        for number in (1, 2, 3)
    ]
    assert sum(total for total, _ in shares) == len(list(samples))
    again = predict_share(samples, detectors, settings, Shard(2, 3), tmp_path / "cache")
    assert again[1] == again[0] == shares[1][0]
    whole = evaluate(samples, detectors, settings, references=())
    merged = evaluate(samples, detectors, settings, references=(), cache_folder=tmp_path / "cache")
    assert merged.detectors[0].reused == len(list(samples))
    figures = [[part.figures for part in outcome.detectors[0].classes] for outcome in (merged, whole)]
    assert figures[0] == figures[1]
