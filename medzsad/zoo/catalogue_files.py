"""Catalogue files: YAML text to plain entries by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medzsad.errors import ModelNotReady
from medzsad.storage.text_files import read_yaml

SECTIONS = ("files", "models")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HASHES = ("sha256", "git_blob")

Sections = dict[str, dict[str, dict[str, Any]]]


def read_catalogue(path: Path) -> Sections:
    """Return the sections ``files`` and ``models`` of a catalogue file, each a map of names to fields.

    Raises:
        ModelNotReady: if the file cannot be read or has another form.
    """
    content = read_yaml(path, ModelNotReady)
    content = {} if content is None else content
    if not isinstance(content, Mapping) or not set(content) <= set(SECTIONS):
        raise ModelNotReady(f"{path}: a catalogue holds two maps, 'files' and 'models', and nothing else")
    sections: Sections = {}
    for section in SECTIONS:
        entries = {} if content.get(section) is None else content[section]
        if not isinstance(entries, Mapping):
            raise ModelNotReady(f"{path}: {section!r} must be a map of names to entries")
        for name, fields in entries.items():
            check_name(name, str(path))
            if not isinstance(fields, Mapping):
                raise ModelNotReady(f"{path}: {section[:-1]} {name!r} must be a map of fields")
        sections[section] = {name: dict(fields) for name, fields in entries.items()}
    return sections


def check_name(name: Any, origin: str) -> None:
    """Raise ModelNotReady unless ``name`` may name a file or a model: it becomes a file name, too."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.endswith(".safetensors"):
        raise ModelNotReady(
            f"{origin}: {name!r} is no usable name; use letters, digits, '-', '_' and '.', without "
            "the ending .safetensors"
        )


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry changed by a later catalogue.

    Fields replace, None removes, a new hash is the only one.
    """
    if any(above.get(name) is not None for name in _HASHES):
        below = {name: value for name, value in below.items() if name not in _HASHES}
    return {**below, **above}
