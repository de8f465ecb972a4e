"""Which methods can be trained, and that every method can be asked for its graph."""

from __future__ import annotations

import pytest
from graph_cases import MAKERS, make

from medzsad.detectors.protocols import as_trainable, trainable_class
from medzsad.errors import ModelNotReady

TRAINED = {"headclip": "cross_entropy", "anomalyclip": "cross_entropy", "adaclip": "focal"}


def test_a_trained_method_says_what_its_authors_minimise() -> None:
    for method, image in TRAINED.items():
        assert trainable_class(method).published_loss.image == image
    detector = make("headclip")
    assert as_trainable(detector) is detector


@pytest.mark.parametrize("method", ["mini", "winclip", "brightness", "nonsense"])
def test_other_methods_are_not_trained(method: str) -> None:
    with pytest.raises(ModelNotReady, match=r"has no training; use headclip|unknown method"):
        trainable_class(method)


def test_texts_of_graphs_are_the_training_free_methods_own() -> None:
    given = {name for name in MAKERS if make(name).graph_texts() is not None}
    assert given == {"clip", "winclip"}
    detector = make("clip")
    texts = detector.graph_texts()
    assert texts is not None
    assert texts.features.equal(detector.text_features)
    assert texts.settings.items() <= detector.settings.items()
