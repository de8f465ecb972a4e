"""What shells are told to offer, asked as bash asks, and that it takes nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from medzsad.cli.completion import PLANES
from medzsad.scans.slices import Plane

ASK = """
import sys
sys.argv = ["medzsad"]
from medzsad.cli.main import main
try:
    main()
finally:
    print("heavy", *({"torch", "numpy", "monai", "nibabel"} & set(sys.modules)))
"""


def offered(*words: str) -> list[str]:
    """What bash would be offered for the last of the words after ``medzsad``."""
    asked = {"COMP_WORDS": " ".join(("medzsad", *words)), "COMP_CWORD": str(len(words))}
    environ = os.environ | {"_MEDZSAD_COMPLETE": "bash_complete"} | asked
    done = subprocess.run([sys.executable, "-c", ASK], env=environ, capture_output=True, text=True)
    *lines, last = done.stdout.splitlines()
    assert last == "heavy", done.stderr
    return lines


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("predict", "--model", "medz"), ["plain,medzsad-mini"]),
        (("predict", "--model", "runs/mi"), ["file,runs/mi"]),
        (("predict", "--plane", "a"), ["plain,auto", "plain,axial", "plain,all"]),
        (("evaluate", "--dataset", "brain"), ["plain,brainmri"]),
        (("bids", "--model", "medz"), ["plain,medzsad-mini"]),
        (("normals", "fit", "--plane", "s"), ["plain,sagittal"]),
        (("exa",), ["plain,example"]),
    ],
    ids=" ".join,
)
def test_what_is_offered(words: tuple[str, ...], answer: list[str]) -> None:
    assert offered(*words) == answer


def test_planes_are_those_that_there_are() -> None:
    assert list(PLANES) == list(Plane)
