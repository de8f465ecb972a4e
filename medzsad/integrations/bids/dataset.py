"""A BIDS data set as input: whether it is one, and the images of it that are asked for."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from medzsad.errors import BadInput
from medzsad.storage.text_files import parse_json, read_json

log = logging.getLogger(__name__)

DESCRIPTION = "dataset_description.json"
SUFFIXES = ("T1w", "T2w", "FLAIR")
EXTENSIONS = (".nii", ".nii.gz")
VALIDATORS = ("bids-validator-deno", "bids-validator")
SHOWN = 5  # labels or errors that a message lists


@dataclass(frozen=True)
class BidsImage:
    """One image of a BIDS data set.

    Attributes:
        path: of the file.
        relative: the same from the data set's root.
    """

    path: Path
    relative: Path

    @property
    def entities(self) -> list[str]:
        """What its name says before the suffix: ``["sub-01", "ses-2", "run-1"]``."""
        return self._parts[:-1]

    @property
    def suffix(self) -> str:
        """What kind of image it is: ``T1w``, ``FLAIR``."""
        return self._parts[-1]

    @property
    def participant(self) -> str:
        """``sub-01``."""
        return self.entities[0]

    @property
    def session(self) -> str | None:
        """``ses-2``; None without sessions."""
        return next((entity for entity in self.entities if entity.startswith("ses-")), None)

    @property
    def _parts(self) -> list[str]:
        return self.relative.name.partition(".")[0].split("_")

    @property
    def uri(self) -> str:
        """Its BIDS URI, as derivatives name it."""
        return f"bids:raw:{self.relative.as_posix()}"


def find_images(
    root: Path,
    *,
    participant_label: Sequence[str] = (),
    session_label: Sequence[str] = (),
    suffix: Sequence[str] = SUFFIXES,
) -> list[BidsImage]:
    """Return the anatomical images of a data set, by name.

    Args:
        root: of the data set.
        participant_label, session_label: only of these, with or without ``sub-`` and ``ses-``; else all.
        suffix: which kinds of images.

    Raises:
        BadInput: if pybids is not installed, there is no BIDS data set, nobody has one of the labels, there
            is no such image, or one is there in two files.
    """
    check_dataset(root)
    try:
        from bids import BIDSLayout
        from bids.layout import BIDSLayoutIndexer
    except ImportError as error:
        raise BadInput('BIDS data sets are read with pybids; pip install "medzsad[bids]".') from error
    try:
        indexer = BIDSLayoutIndexer(validate=False, index_metadata=False)
        layout = BIDSLayout(root.absolute(), validate=False, derivatives=False, indexer=indexer)
        query: dict[str, Any] = {"datatype": "anat", "suffix": list(suffix), "extension": list(EXTENSIONS)}
        for entity, prefix, labels in (
            ("subject", "sub-", participant_label), ("session", "ses-", session_label),
        ):  # fmt: skip
            if labels:
                bare = [label.removeprefix(prefix) for label in labels]
                _check_labels(bare, layout.get(return_type="id", target=entity), prefix, root)
                query[entity] = bare
        paths = sorted(map(Path, layout.get(return_type="filename", **query)))
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{root}: pybids cannot read it ({' '.join(str(error).split())[:200]})") from error
    images = [BidsImage(path, path.relative_to(root.absolute())) for path in paths]
    images = [image for image in images if image.participant.startswith("sub-")]
    if not images:
        raise BadInput(
            f"{root}: nobody asked for has {' or '.join(suffix)} images in anat/; `suffix` names other kinds"
        )
    names = [image.relative.as_posix().partition(".")[0] for image in images]
    twice = next((name for name, other in pairwise(names) if name == other), None)
    if twice:
        raise BadInput(f"{root} has {twice} twice ({' and '.join(EXTENSIONS)}); remove one.")
    return images


def check_dataset(root: Path) -> dict[str, Any]:
    """Return what a data set's description says.

    Raises:
        BadInput: if the folder is no BIDS data set.
    """
    if not root.is_dir():
        raise BadInput(f"{root}: there is no such folder; give the root of a BIDS data set.")
    path = root / DESCRIPTION
    if not path.is_file():
        raise BadInput(f"{root} has no {DESCRIPTION}; give the root of a BIDS data set.")
    description = read_json(path)
    if not isinstance(description, dict) or not isinstance(description.get("Name"), str):
        raise BadInput(f"{path} gives the data set no Name; BIDS demands one.")
    return description


def _check_labels(labels: list[str], there: Iterable[str], prefix: str, root: Path) -> None:
    known = sorted(there)
    unknown = [label for label in labels if label not in known]
    if unknown:
        listed = ", ".join(f"{prefix}{label}" for label in known[:SHOWN]) + (
            ", ..." if len(known) > SHOWN else ""
        )
        raise BadInput(f"{root} has no {prefix}{unknown[0]}; there is {listed or 'none'}.")


def validate(root: Path) -> None:
    """Let the official BIDS validator look at a data set; without one, that is said, and nothing is checked.

    Raises:
        BadInput: if it finds errors, or fails.
    """
    folders = os.pathsep.join((os.environ.get("PATH", os.defpath), os.path.dirname(sys.executable)))
    program = next((found for name in VALIDATORS if (found := shutil.which(name, path=folders))), None)
    if program is None:
        log.info(
            'the BIDS validator is not installed, so the data set is not checked; pip install "medzsad[bids]"'
        )
        return
    command = [program, str(root), "--json", "--ignoreWarnings"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    advice = "mend the data set, or use `skip_bids_validation`"
    try:
        issues = parse_json(done.stdout, program)["issues"]
        errors = [each for each in issues["issues"] if each["severity"] == "error"]
    except (BadInput, KeyError, TypeError) as error:
        told = " ".join(done.stderr.split())[-200:]
        raise BadInput(f"{root}: the BIDS validator failed ({told}); {advice}") from error
    if errors:
        listed = "; ".join(
            f"{each.get('location', root)}: {' '.join(filter(None, (each.get('code'), each.get('subCode'))))}"
            for each in errors[:SHOWN]
        )
        more = f" and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
        raise BadInput(f"{root} is no valid BIDS data set ({listed}{more}); {advice}")
