"""Settings: checked when they are made; read from YAML, a wrong one is named with its file and its line.

A class of settings is a frozen dataclass that pydantic checks::

    class Optimiser(Settings):
        lr: float = Field(1e-3, gt=0)
        schedule: Literal["constant", "cosine"] = "constant"

Rules about several values are a ``__post_init__`` that raises; the first key among the words of its message
tells the line. Values from files are taken strictly: ``1`` is no truth value, ``1.0`` no whole number.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping
from dataclasses import field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

import yaml
from pydantic import ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from pydantic_core import ArgsKwargs, CoreSchema, PydanticCustomError, core_schema
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from medzsad.errors import BadInput, MedzsadError, ModelNotReady, certain
from medzsad.storage.text_files import compose_yaml, read_text

Kind = TypeVar("Kind", bound="Settings")

_TAG = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _STR = (f"{_TAG}{name}" for name in ("null", "bool", "int", "str"))
_OVERRIDE = "override "
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "string_type": "a text",
    "tuple_type": "a list",
}
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def _as_value_error(check: Any) -> Any:
    """Let a rule's refusal be one of pydantic's, which knows where in a file it belongs."""

    @functools.wraps(check)
    def wrapped(self: Any) -> None:
        try:
            check(self)
        except MedzsadError as error:
            raise ValueError(str(error)) from error

    return wrapped


def _as_refusal(make: Any) -> Any:
    @functools.wraps(make)
    def wrapped(self: Any, *args: Any, **values: Any) -> None:
        try:
            make(self, *args, **values)
        except ValidationError as error:
            raise self.refusal(_one_line(type(self), error, values)) from error

    return wrapped


@dataclass_transform(frozen_default=True, field_specifiers=(field, Field))
class Settings:
    """Base of all settings: every subclass is a frozen dataclass whose values are checked.

    ``dataclasses.replace``, ``asdict`` and ``fields`` work as with any other. ``refusal``, a keyword of the
    class statement, is the error that wrong values raise.
    """

    refusal: ClassVar[type[MedzsadError]] = BadInput

    def __init_subclass__(cls, *, refusal: type[MedzsadError] | None = None) -> None:
        super().__init_subclass__()
        cls.refusal = refusal or cls.refusal
        if "__post_init__" in vars(cls):
            cls.__post_init__ = _as_value_error(cls.__post_init__)  # type: ignore[attr-defined]
        validated(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))(cls)
        cls._make = cls.__init__  # type: ignore[attr-defined]
        cls.__init__ = _as_refusal(cls.__init__)  # type: ignore[method-assign]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic's own checks come after :meth:`_from_plain`."""
        return core_schema.no_info_before_validator_function(cls._from_plain, handler(source))

    @classmethod
    def _from_plain(cls, values: Any) -> Any:
        known = {each.name: str(each.type) for each in fields(cast(Any, cls)) if each.init}
        if isinstance(values, ArgsKwargs):  # of the constructor
            given = {
                key: _as_tuple(value, known.get(key, "")) for key, value in (values.kwargs or {}).items()
            }
            return ArgsKwargs(values.args, given)
        if isinstance(values, cls):
            return values
        details = {"known": ", ".join(known)}
        if not isinstance(values, Mapping):
            raise PydanticCustomError("no_keys", "keys and values ({known})", details)
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                words = "unknown key '{name}'{hint}; allowed: {known}"
                raise PydanticCustomError("unknown_key", words, {**details, "name": str(name), "hint": hint})
        made = object.__new__(cls)
        cls._make(made, **values)  # type: ignore[attr-defined]
        return made

    @classmethod
    def validate(cls, values: Any) -> Self:
        """Return settings from plain values: what a validator of a field calls.

        Raises:
            pydantic.ValidationError: on unknown keys and wrong values.
        """
        return cls.__pydantic_validator__.validate_python(values)  # type: ignore[attr-defined]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, origin: str | None = None) -> Self:
        """Return settings from plain values, as JSON keeps them.

        Args:
            values: by key.
            origin: what a message begins with, such as a file and an entry in it; by default the class.

        Raises:
            MedzsadError: of the class's kind, on unknown keys and wrong values; the message is one line.
        """
        try:
            return cls.validate(values)
        except ValidationError as error:
            raise cls.refusal(_one_line(cls, error, values, origin)) from error

    def as_dict(self) -> dict[str, Any]:
        """Return JSON- and YAML-serialisable values, in the order of the fields."""
        return TypeAdapter(type(self)).dump_python(self, mode="json", warnings=False)


class DetectorSpec(Settings, refusal=ModelNotReady):
    """Which detector, and on what it computes: all that :func:`medzsad.load_detector` is told.

    Attributes:
        model: a name of the model zoo, a checkpoint's file or the folder of a training run.
        device, precision, clip_weights, adapter, organ, class_name, backend, normals, any_modality: see
            :func:`medzsad.load_detector`.
    """

    model: str = "medzsad-mini"
    device: str = "auto"
    precision: str = "auto"
    clip_weights: str | None = None
    adapter: str | None = None
    organ: str | None = None
    class_name: str | None = None
    backend: str = "torch"
    normals: str | None = None
    any_modality: bool = False


def _as_tuple(value: Any, annotation: str) -> Any:
    """Return what files know as a list as the tuple that an annotation asks for."""
    return tuple(value) if isinstance(value, list) and "tuple[" in annotation else value


def _one_line(kind: type[Settings], error: ValidationError, values: Any, origin: str | None = None) -> str:
    """Return what is wrong with values that came without lines."""
    first, path = _first(error, values)
    label = origin or f"{kind.__name__.removesuffix('Settings')} settings"
    if first["type"] == "unknown_key" and origin is None:
        context = first["ctx"]
        return f"unknown {label}: {context['name']}{context['hint']}; perhaps of a newer version"
    text = _said(error, values, repr(first["input"]))
    says_key = text.startswith(str(path[-1])) if path else True
    named = not says_key and first["type"] not in ("value_error", "unknown_key")
    return f"{label}: {'.'.join(map(str, path))}: {text}" if named else f"{label}: {text}"


# Reading YAML


def compose_file(path: Path) -> MappingNode:
    """Return the nodes of a YAML file, which know their lines.

    Raises:
        BadInput: if the file cannot be read, is not YAML, or holds anything but a mapping.
    """
    node = compose_yaml(read_text(path), str(path))
    if not isinstance(node, MappingNode):
        raise BadInput(f"{path}: expected keys and values (key: value)")
    return node


def override(root: MappingNode, text: str) -> None:
    """Put ``key=value`` into the nodes; keys of nested values are dotted, those of lists are numbers from 0.

    Raises:
        BadInput: if ``text`` is not of that form, or leads through something that has no keys.
    """
    origin = f"{_OVERRIDE}{text!r}"
    dotted, equals, value = text.partition("=")
    *path, last = dotted.split(".")
    if not equals or not all((*path, last)):
        raise BadInput(f"{origin}: expected key=value, such as optimiser.lr=1e-4")
    new = compose_yaml(value, origin) or ScalarNode(_NULL, "", yaml.Mark(origin, 0, 0, 0, None, None))
    node: Node = root
    for key in path:
        inner = _inner(node, key)
        if inner is None:
            inner = MappingNode(f"{_TAG}map", [], new.start_mark)
            _put(node, key, inner, origin)
        node = inner
    _put(node, last, new, origin)


def find(node: MappingNode, key: str) -> Node | None:
    """Return the value of ``key`` in a mapping; None if there is none."""
    return _inner(node, key)


def read_node(node: Node, kind: type[Kind]) -> Kind:
    """Return a node of :func:`compose_file` as settings.

    Raises:
        BadInput: if it does not fit; the message begins with file and line, or names the override.
    """
    values = _plain(node)
    while True:
        try:
            return kind.validate(values)
        except ValidationError as error:
            # A class may be called 01: what YAML takes for a number is a name where a name is expected.
            if not any([_as_text(values, node, path) for path in _misread_texts(error, values)]):
                raise _located(error, values, node) from error


def _plain(node: Node) -> Any:
    """Return YAML's own plain values; ``1e-3`` is a number, too, although YAML 1.1 wants a point in it."""
    if isinstance(node, MappingNode):
        values: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in values:
                raise BadInput(f"{_where(key)}: {name!r} is given twice; leave one out")
            values[name] = _plain(value)
        return values
    if isinstance(node, SequenceNode):
        return [_plain(item) for item in node.value]
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return yaml.SafeLoader.bool_values[node.value.lower()]
    if node.tag == _INT:
        return int(node.value) if re.fullmatch(r"[+-]?[0-9]{1,18}", node.value) else node.value
    try:
        return float(node.value) if node.style is None else node.value
    except ValueError:
        return node.value


def _misread_texts(error: ValidationError, values: Any) -> list[tuple[str | int, ...]]:
    errors = error.errors(include_url=False)
    return [_path(values, each["loc"]) for each in errors if each["type"] == "string_type"]


def _as_text(values: Any, root: Node, path: tuple[str | int, ...]) -> bool:
    """Put a number's own text into the values; return whether it was one."""
    node = _node_at(root, path)
    if not path or not isinstance(node, ScalarNode) or node.tag in (_NULL, _BOOL):
        return False
    for part in path[:-1]:
        values = values[part]
    values[path[-1]] = node.value
    return True


def _located(error: ValidationError, values: Any, root: Node) -> BadInput:
    first, path = _first(error, values)
    node = _node_at(root, path)
    at = _where(node)
    if first["type"] == "unknown_key":
        key, value = next(pair for pair in node.value if pair[0].value == first["ctx"]["name"])
        # An override replaces a value under a key that may stand in the file.
        at = _where(value) if _where(value).startswith(_OVERRIDE) else _where(key)
    elif first["type"] == "value_error" and isinstance(node, MappingNode):
        words = {word.strip(":,") for word in str(first["ctx"]["error"]).split()}
        at = _where(next((value for key, value in node.value if key.value in words), node))
    if isinstance(node, ScalarNode):
        got = "nothing" if node.tag == _NULL else repr(node.value)
    else:
        got = "a list" if isinstance(node, SequenceNode) else "keys and values"
    return BadInput(f"{at}: {_said(error, values, got)}")


def _where(node: Node) -> str:
    """File and line of a node, or the override that it came with."""
    name = node.start_mark.name
    return name if name.startswith(_OVERRIDE) else f"{name}:{node.start_mark.line + 1}"


def _node_at(root: Node, path: tuple[str | int, ...]) -> Node:
    for part in path:
        root = certain(_inner(root, str(part)))
    return root


def _inner(node: Node, key: str) -> Node | None:
    if isinstance(node, MappingNode):
        return next((value for name, value in node.value if name.value == key), None)
    if isinstance(node, SequenceNode) and key.isdecimal() and int(key) < len(node.value):
        return node.value[int(key)]
    return None


def _put(node: Node, key: str, new: Node, origin: str) -> None:
    if isinstance(node, MappingNode):
        key_node = next((name for name, _ in node.value if name.value == key), None)
        node.value = [pair for pair in node.value if pair[0] is not key_node]
        node.value.append((key_node or ScalarNode(_STR, key, new.start_mark), new))
    elif isinstance(node, SequenceNode) and key.isdecimal() and int(key) <= len(node.value):
        node.value[int(key) : int(key) + 1] = [new]
    else:
        raise BadInput(f"{origin}: nothing there has a key {key!r}")


# What is wrong, in words


def _first(error: ValidationError, values: Any) -> tuple[Any, tuple[str | int, ...]]:
    """Return what is told of all that is wrong, a misspelt key first, and where in the values it is."""
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "unknown_key"), errors[0])
    return first, _path(values, first["loc"])


def _path(values: Any, location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Return pydantic's location without the names of a union's members, which are no keys."""
    path = []
    for part in location:
        is_key = isinstance(values, dict) and part in values
        if is_key or (isinstance(values, list) and isinstance(part, int) and part < len(values)):
            values = values[part]
            path.append(part)
    return tuple(path)


def _said(error: ValidationError, values: Any, got: str) -> str:
    first, path = _first(error, values)
    kind, context, last = first["type"], first.get("ctx", {}), first["loc"][-1] if first["loc"] else ""
    same = [e for e in error.errors(include_url=False) if _path(values, e["loc"]) == path]
    if kind == "value_error":
        return str(context["error"])
    if kind == "unknown_key":
        return first["msg"]
    if kind == "missing" and isinstance(last, str):
        return f"{last!r} is missing; add it"
    if kind in ("missing", "too_long"):
        count = context.get("max_length") or 1 + max(int(e["loc"][-1]) for e in same)
        return f"expected a list of {count} values, got {len(first['input'])}"
    for name, words in _LIMITS.items():
        if name in context:
            return f"{path[-1]} must be {words} {context[name]:g}, not {first['input']:g}"
    expected = [
        f"one of {e['ctx']['expected'].replace(' or ', ', ').replace(chr(39), '')}"
        if e["type"] == "literal_error"
        else _EXPECTED.get(e["type"], e["msg"])
        for e in same
    ]
    words = " or ".join(dict.fromkeys(expected))
    return f"expected {'a list of values' if words == 'a list' else words}, got {got}"
