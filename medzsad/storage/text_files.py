"""Tables, lists, recipes and catalogues of users: text, JSON and YAML that cannot hang or blow up."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from medzsad.errors import BadInput, MedzsadError
from medzsad.limits import check_limit, require_file

if TYPE_CHECKING:
    from yaml.nodes import Node

DEEPEST = 64
"""Levels of nesting; what people write has less than ten."""
MOST_VALUES = 1_000_000
"""Values in a YAML file, aliases (``*name``) written out: a few lines of them can stand for billions."""


def read_text(path: str | os.PathLike[str], kind: type[MedzsadError] = BadInput) -> str:
    """Return the text of a regular file in UTF-8, a byte order mark left out.

    Raises:
        BadInput, or ``kind``: if it is no regular file, larger than MEDZSAD_MAX_TEXT_MB, or no text in UTF-8.
    """
    path = require_file(path, kind)
    check_limit(path.stat().st_size / 1e6, "MEDZSAD_MAX_TEXT_MB", path, "megabytes", kind)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise kind(f"{path}: no UTF-8 text; save it as such.") from error
    except OSError as error:
        raise kind(f"{path}: cannot be read ({error.strerror or error})") from error


def whole_number(value: object, name: str, lowest: int = 0) -> int:
    """Return the whole number of at most 18 digits that a text says.

    Args:
        value: the text; what is none is taken as it is printed.
        name: of the option or field, for the message.
        lowest: that is allowed.

    Raises:
        BadInput: if it is none, or below ``lowest``.
    """
    text = str(value).strip()
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < lowest:
        raise BadInput(f"{name} {text[:40]!r} is not a whole number of at least {lowest}")
    return int(text)


def parse_json(text: str | bytes, origin: object, kind: type[MedzsadError] = BadInput) -> Any:
    """Return what JSON says.

    Raises:
        BadInput, or ``kind``: if it is no JSON, or nested so deeply that nothing could be done with it.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise kind(f"{origin}: JSON nested too deeply; it is damaged.") from error
    except ValueError as error:  # also of numbers with thousands of digits, and of no UTF-8
        raise kind(f"{origin}: not valid JSON ({_one_line(error)})") from error


def parse_json_object(text: str | bytes, origin: object) -> dict[str, Any]:
    """Return the object that JSON of a request or an option says, which is empty where nothing is said.

    Raises:
        BadInput: see :func:`parse_json`; also of texts larger than MEDZSAD_MAX_TEXT_MB, of what is no object,
            and of characters that no file or answer could hold (half a surrogate pair).
    """
    check_limit(len(text) / 1e6, "MEDZSAD_MAX_TEXT_MB", origin, "megabytes")
    content = parse_json(text or "{}", origin)
    if not isinstance(content, dict):
        raise BadInput(f"{origin} must be a JSON object")
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"{origin}: holds half a character (a surrogate); write it as UTF-8.") from error
    except RecursionError as error:
        raise BadInput(f"{origin}: JSON nested too deeply; it is damaged.") from error
    return content


def read_json(path: str | os.PathLike[str], kind: type[MedzsadError] = BadInput) -> Any:
    """Return what a JSON file says; see :func:`read_text` and :func:`parse_json` for the errors."""
    return parse_json(read_text(path, kind), path, kind)


def compose_yaml(text: str, origin: object, kind: type[MedzsadError] = BadInput) -> Node | None:
    """Return the nodes of a YAML text with their lines; None if it is empty.

    Raises:
        BadInput, or ``kind``: if it is no YAML, is nested more than :data:`DEEPEST` deep, or has aliases that
            stand for themselves or for more than :data:`MOST_VALUES` values altogether.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth += 1
            if self.depth > DEEPEST:
                mark = self.peek_event().start_mark
                raise yaml.composer.ComposerError(None, None, "nested too deeply", mark)
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    try:
        loader = Loader(text)
        loader.name = str(origin)
        node = loader.get_single_node()
        if node is not None and _values(node, {}) > MOST_VALUES:
            raise kind(f"{origin}: not valid YAML (its aliases stand for too many values)")
        return node
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise kind(f"{origin}{line}: not valid YAML ({error.problem or _one_line(error)})") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise kind(f"{origin}: not valid YAML ({_one_line(error)})") from error


def parse_yaml(text: str, origin: object, kind: type[MedzsadError] = BadInput) -> Any:
    """Return what YAML says, as ``yaml.safe_load`` does; see :func:`compose_yaml` for the errors."""
    import yaml

    node = compose_yaml(text, origin, kind)
    try:
        return None if node is None else yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # dates such as 2026-99-99
        raise kind(f"{origin}: not valid YAML ({_one_line(error)})") from error


def read_yaml(path: str | os.PathLike[str], kind: type[MedzsadError] = BadInput) -> Any:
    """Return what a YAML file says; see :func:`read_text` and :func:`parse_yaml` for the errors."""
    return parse_yaml(read_text(path, kind), path, kind)


def _values(node: Node, known: dict[int, int]) -> int:
    """How many values a node stands for once its aliases are written out."""
    import yaml

    if id(node) in known:
        if not known[id(node)]:
            raise yaml.composer.ComposerError(
                None, None, "an alias within what it stands for", node.start_mark
            )
        return known[id(node)]
    known[id(node)] = 0  # being counted
    parts = [] if isinstance(node, yaml.ScalarNode) else node.value
    count = 1
    for part in parts:
        count += sum(_values(one, known) for one in (part if isinstance(part, tuple) else (part,)))
    known[id(node)] = count
    return count


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
