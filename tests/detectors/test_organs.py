"""The vocabulary of organs: complete, well-formed, and free of heavy imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from medzsad.detectors.organs import (
    ABNORMAL_STATES,
    NORMAL_STATES,
    OBJECT,
    TEMPLATES,
    organ_names,
    vocabulary,
)
from medzsad.errors import BadInput


def test_without_an_organ_the_published_words_are_used() -> None:
    words = vocabulary()
    assert words is OBJECT
    assert words.class_name == "object"
    assert words.states == (NORMAL_STATES, ABNORMAL_STATES)
    assert words.templates == TEMPLATES["winclip"]
    assert (len(words.normal), len(words.abnormal), len(words.templates)) == (7, 5, 35)


def test_common_organs_are_there() -> None:
    wanted = (
        "brain brain/ct brain/mr head lung/xray lung/ct chest/xray liver/ct kidney abdomen breast prostate"
    )
    wanted += " spine knee heart retina skin colon stomach thyroid/us"
    assert set(wanted.split()) <= set(organ_names())


@pytest.mark.parametrize("organ", organ_names())
def test_every_entry_is_well_formed(organ: str) -> None:
    words = vocabulary(organ)
    assert words.class_name == words.class_name.strip() != ""
    for phrases in (words.normal, words.abnormal, words.templates):
        assert len(phrases) == len(set(phrases)) >= 5
        assert all(phrase.count("{}") == 1 for phrase in phrases)
    assert not set(words.normal) & set(words.abnormal)
    assert organ.partition("/")[0] in organ_names(), "a modality's entry needs one for any modality"


def test_a_modality_has_words_of_its_own() -> None:
    assert vocabulary("brain").class_name == "brain scan"
    assert vocabulary(" Brain/MR ").class_name == "brain MRI"
    assert "{} with haemorrhage" in vocabulary("brain/ct").abnormal
    assert "{} with a polyp" in vocabulary("colon").abnormal
    assert vocabulary("colon").templates != vocabulary("brain").templates


@pytest.mark.parametrize("organ", ["brian", "", "brain/xray", "object"])
def test_unknown_organs_are_named_with_those_that_are_known(organ: str) -> None:
    with pytest.raises(BadInput, match=r"unknown organ .*brain/mr, .*thyroid/us") as caught:
        vocabulary(organ)
    assert "\n" not in str(caught.value)


def test_reading_the_words_imports_nothing_heavy() -> None:
    code = (
        "import sys; from medzsad.detectors.organs import vocabulary; vocabulary('brain');"
        "print([m for m in ('torch', 'open_clip', 'numpy') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
