"""YAML into dataclasses: every unknown key and every wrong value is named with its line."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from medzsad.errors import BadInput
from medzsad.storage.text_files import compose_yaml, read_text

_TAG = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _STR = (f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str"))
_OVERRIDE = "override "


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
    dotted, found, value = text.partition("=")
    if not found or not all(dotted.split(".")):
        raise BadInput(f"{_OVERRIDE}{text!r}: expected key=value, such as optimiser.lr=1e-4")
    origin = f"{_OVERRIDE}{text!r}"
    new = compose_yaml(value, origin)
    if new is None:
        new = ScalarNode(_NULL, "", yaml.Mark(origin, 0, 0, 0, None, None))
    *path, last = dotted.split(".")
    place: Node = root
    for key in path:
        inner = _child(place, key, origin)
        if inner is None:
            inner = MappingNode(f"{_TAG}map", [], new.start_mark)
            _put(place, key, inner, origin)
        place = inner
    _put(place, last, new, origin)


def read_node(node: Node, expected: Any, *, replacing: Mapping[str, Any] | None = None) -> Any:
    """Return a node as a value of a type.

    Args:
        node: from :func:`compose_file`.
        expected: a dataclass, ``str``, ``int``, ``float``, ``bool``, ``Literal``, ``tuple[T, ...]``,
            ``tuple[T, T]``, ``dict[str, Any]``, or a union of these and None. Numeric fields may have the
            metadata ``at_least``, ``above`` and ``at_most``.
        replacing: types that replace the annotations of fields of the outermost dataclass.

    Raises:
        BadInput: if the node does not fit; the message begins with file and line, or names the override.
    """
    if isinstance(expected, type) and is_dataclass(expected):
        return _read_dataclass(node, expected, replacing or {})
    origin, arguments = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        return _read_union(node, arguments)
    if origin is Literal:
        text = _scalar(node)
        if text not in arguments:
            raise _wrong(node, f"one of {', '.join(map(str, arguments))}")
        return text
    if origin is tuple:
        return _read_tuple(node, arguments)
    if origin is dict or expected is dict:
        if not isinstance(node, MappingNode):
            raise _wrong(node, "keys and values")
        return _plain(node)
    if expected in _READERS:
        return _READERS[expected](node)
    raise TypeError(f"no reader for {expected}")


def where(node: Node) -> str:
    """File and line of a node, or the override that it came with."""
    name = node.start_mark.name
    return name if name.startswith(_OVERRIDE) else f"{name}:{node.start_mark.line + 1}"


def find(node: MappingNode, key: str) -> Node | None:
    """Return the value of ``key`` in a mapping; None if there is none."""
    return next((value for name, value in node.value if name.value == key), None)


def _read_dataclass(node: Node, cls: type, replacing: Mapping[str, Any]) -> Any:
    if not isinstance(node, MappingNode):
        raise _wrong(node, f"keys and values ({_listed(f.name for f in fields(cls))})")
    known = {field.name: field for field in fields(cls) if field.init}
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, ScalarNode) else str(key.value)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            # An override replaces a value under a key that may stand in the file.
            at = where(value) if where(value).startswith(_OVERRIDE) else where(key)
            raise BadInput(f"{at}: unknown key {name!r}{hint}; allowed: {_listed(known)}")
        if name in values:
            raise BadInput(f"{where(key)}: {name!r} is given twice; leave one out")
        values[name] = read_node(value, replacing.get(name, hints[name]))
        _check_limits(known[name], values[name], value)
    missing = [
        name
        for name, field in known.items()
        if name not in values and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise BadInput(f"{where(node)}: {missing[0]!r} is missing; add it")
    try:
        return cls(**values)
    except BadInput as error:
        # A rule of the class names the value that it is about.
        words = {word.strip(":,") for word in str(error).split()}
        culprit = next((value for key, value in node.value if key.value in words), node)
        raise BadInput(f"{where(culprit)}: {error}") from error


def _check_limits(field: Field, value: Any, node: Node) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    for name, words, holds in (
        ("at_least", "at least", lambda limit: value >= limit),
        ("above", "above", lambda limit: value > limit),
        ("at_most", "at most", lambda limit: value <= limit),
    ):
        limit = field.metadata.get(name)
        if limit is not None and not holds(limit):
            raise BadInput(f"{where(node)}: {field.name} must be {words} {limit:g}, not {value:g}")


def _read_union(node: Node, options: tuple[Any, ...]) -> Any:
    if type(None) in options and isinstance(node, ScalarNode) and node.tag == _NULL:
        return None
    options = tuple(option for option in options if option is not type(None))
    if len(options) == 1:
        return read_node(node, options[0])
    for option in options:
        try:
            return read_node(node, option)
        except BadInput:
            continue
    raise _wrong(node, " or ".join(_name(option) for option in options))


def _read_tuple(node: Node, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    of_any_length = len(arguments) == 2 and arguments[1] is Ellipsis
    count = "" if of_any_length else f"{len(arguments)} "
    if not isinstance(node, SequenceNode):
        raise _wrong(node, f"a list of {count}values")
    if of_any_length:
        return tuple(read_node(item, arguments[0]) for item in node.value)
    if len(node.value) != len(arguments):
        raise BadInput(f"{where(node)}: expected a list of {count}values, got {len(node.value)}")
    return tuple(read_node(item, kind) for item, kind in zip(node.value, arguments, strict=True))


def _read_str(node: Node) -> str:
    # A class may be called 01: what YAML takes for a number is a name where a name is expected.
    if not isinstance(node, ScalarNode) or node.tag in (_NULL, _BOOL):
        raise _wrong(node, "a text")
    return node.value


def _read_bool(node: Node) -> bool:
    if not isinstance(node, ScalarNode) or node.tag != _BOOL:
        raise _wrong(node, "true or false")
    return yaml.SafeLoader.bool_values[node.value.lower()]


def _read_int(node: Node) -> int:
    if (
        not isinstance(node, ScalarNode)
        or node.tag != _INT
        or not re.fullmatch(r"[+-]?[0-9]{1,18}", node.value)
    ):
        raise _wrong(node, "a whole number")
    return int(node.value)


def _read_float(node: Node) -> float:
    # YAML 1.1 takes 1e-3 for a text, for it has no point.
    if not isinstance(node, ScalarNode) or node.tag not in (_INT, _FLOAT, _STR) or node.style is not None:
        raise _wrong(node, "a number")
    try:
        value = float(node.value)
    except ValueError as error:
        raise _wrong(node, "a number") from error
    if value != value or value in (float("inf"), float("-inf")):
        raise _wrong(node, "a finite number")
    return value


_READERS = {str: _read_str, bool: _read_bool, int: _read_int, float: _read_float}
_WORDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


def _name(expected: Any) -> str:
    if get_origin(expected) is dict:
        return "keys and values"
    if get_origin(expected) is tuple:
        return "a list"
    return _WORDS.get(expected, str(expected))


def _scalar(node: Node) -> str | None:
    return node.value if isinstance(node, ScalarNode) else None


def _plain(node: Node) -> Any:
    """Return a node without a type, as YAML's own plain values; ``1e-3`` is a number here, too."""
    if isinstance(node, MappingNode):
        return {key.value: _plain(value) for key, value in node.value}
    if isinstance(node, SequenceNode):
        return [_plain(item) for item in node.value]
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return _read_bool(node)
    if node.tag == _INT:
        return _read_int(node)
    if node.style is None:
        try:
            return float(node.value)
        except ValueError:
            pass
    return node.value


def _wrong(node: Node, expected: str) -> BadInput:
    if isinstance(node, ScalarNode):
        got = "nothing" if node.tag == _NULL else repr(node.value)
    else:
        got = "a list" if isinstance(node, SequenceNode) else "keys and values"
    return BadInput(f"{where(node)}: expected {expected}, got {got}")


def _child(place: Node, key: str, origin: str) -> Node | None:
    if isinstance(place, MappingNode):
        return find(place, key)
    if isinstance(place, SequenceNode) and key.isdecimal() and int(key) < len(place.value):
        return place.value[int(key)]
    raise BadInput(f"{origin}: nothing there has a key {key!r}")


def _put(place: Node, key: str, new: Node, origin: str) -> None:
    if isinstance(place, MappingNode):
        for number, (name, _) in enumerate(place.value):
            if name.value == key:
                place.value[number] = (name, new)
                return
        place.value.append((ScalarNode(_STR, key, new.start_mark), new))
        return
    if isinstance(place, SequenceNode) and key.isdecimal() and int(key) <= len(place.value):
        place.value[int(key) : int(key) + 1] = [new]
        return
    raise BadInput(f"{origin}: nothing there has a key {key!r}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def to_plain(value: Any) -> Any:
    """Dataclasses and tuples as dictionaries and lists, JSON- and YAML-serialisable."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(inner) for inner in value]
    return value
