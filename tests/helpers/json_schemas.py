"""Whether what a command printed as JSON is what its schema promises."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import jsonschema

from medzsad.schemas import schema_text

# Beside MONAI Label stands an older jsonschema; ours have nothing that the older draft does not know.
VALIDATOR = getattr(jsonschema, "Draft202012Validator", None) or jsonschema.Draft7Validator
GROUPS = ("cohort", "datasets", "models", "normals")


def schema_of(arguments: Sequence[str], document: Any) -> str:
    """The name of the schema of a command line's ``--json``."""
    command = arguments[0]
    if command in GROUPS:
        return f"{command}-{arguments[1]}"
    if command == "predict" and "retried" in document:
        return "predict-cohort"
    return "evaluate-suite" if command == "evaluate" and "--suite" in arguments else command


def check_json(arguments: Sequence[str], printed: str) -> None:
    """Fail where a document that was printed breaks its schema; nothing printed breaks none."""
    if "--json" in arguments and printed:
        document = json.loads(printed)
        check_document(document, schema_of(arguments, document))


def check_document(document: Any, name: str) -> None:
    """Fail where a document breaks the schema ``name``."""
    error = jsonschema.exceptions.best_match(_validator(name).iter_errors(document))
    place = getattr(error, "json_path", None)
    assert error is None, f"{name}: {place}: {error.message}"


@functools.cache
def _validator(name: str) -> Any:
    schema = json.loads(schema_text(name))
    VALIDATOR.check_schema(schema)
    return VALIDATOR(schema)
