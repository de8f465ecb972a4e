"""No folder of the package imports in a circle: what is imported at once, at the top of modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import medzsad

ROOT = Path(medzsad.__file__).parent
FOLDERS = sorted({path.parent for path in ROOT.rglob("*.py")})


def imports_at_once(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run when a module is imported: not those of functions, nor those for types."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports_at_once(ast.Module([other], []))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_at_once(node)


def imported(path: Path, known: set[str]) -> set[str]:
    """The modules of ``known`` that a module imports at once."""
    names: set[str] = set()
    for node in imports_at_once(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif node.module is not None:
            modules = (f"{node.module}.{alias.name}" for alias in node.names)
            # A name is a module of its own, or one that the package's __init__ gives.
            names |= {module if module in known else node.module for module in modules}
    return names & known


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of a graph, its first module again at the end; empty if there is none."""
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if found := walk(other, [*way, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := walk(module, []))), [])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: name_of(folder / "__init__.py"))
def test_no_folder_imports_in_a_circle(folder: Path) -> None:
    paths = {name_of(path): path for path in folder.glob("*.py")}
    graph = {name: imported(path, set(paths)) for name, path in paths.items()}
    assert circle(graph) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_only_what_is_imported_at_once_counts(tmp_path: Path) -> None:
    module = tmp_path / "x.py"
    module.write_text(
        "from typing import TYPE_CHECKING\nimport a.b\nfrom a import c\n"
        "if TYPE_CHECKING:\n    import a.d\nelse:\n    import a.e\n"
        "try:\n    import a.f\nexcept ImportError:\n    pass\n"
        "def f():\n    import a.g\nfrom a import name\n"
    )
    known = {"a"} | {f"a.{letter}" for letter in "bcdefg"}
    assert imported(module, known) == {"a", "a.b", "a.c", "a.e", "a.f"}
