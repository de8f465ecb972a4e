"""Catalogue files: YAML text to checked plain entries, with errors that name the file and the entry."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from medzsad.errors import ModelNotReady
from medzsad.storage.text_files import read_yaml

SECTIONS = ("files", "models")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HASHES = ("sha256", "git_blob")

Entry = TypeVar("Entry")
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


def parse_entry(kind: type[Entry], name: str, fields: Mapping[str, Any], home: Path) -> Entry:
    """Return an entry of dataclass ``kind`` from its fields.

    Raises:
        ModelNotReady: on fields that are unknown, missing or of a wrong type.
    """
    hints = get_type_hints(kind)
    wanted = {field.name: field for field in dataclasses.fields(cast(Any, kind))}
    label = f"{home}: {'file' if kind.__name__ == 'WeightFile' else 'model'} {name!r}"
    unknown = [key for key in fields if key not in wanted or key == "name"]
    if unknown:
        allowed = ", ".join(key for key in wanted if key not in ("name", "origin"))
        raise ModelNotReady(f"{label}: unknown field {unknown[0]!r}; known are {allowed}")
    values: dict[str, Any] = {"name": name}
    for key, value in fields.items():
        if value is None:
            continue  # as if it were not there
        values[key] = tuple(value) if hints[key] == tuple[str, ...] and isinstance(value, list) else value
        if not _fits(values[key], hints[key]):
            raise ModelNotReady(f"{label}: field {key!r} cannot be {value!r}")
    missing = [
        key
        for key, field in wanted.items()
        if key not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ModelNotReady(f"{label}: field {missing[0]!r} is missing")
    return kind(**values)


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    plain = get_origin(hint) or hint
    if plain is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if plain is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    return isinstance(value, plain)
