"""README.md, docs/ and the pages for contributors stay true: links, paths, command lines and options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from medzsad.cli.main import cli

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "medzsad/weights").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
MEDZSAD, TOOL = (
    re.compile(r"(?<![\w/])medzsad (?=[a-z-])"),
    re.compile(r"(?<![\w/])(tools/[\w/]+\.(?:py|sh))(.*)"),
)


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [code for kind, code in BLOCK.findall(text) if kind == language]


def shell_lines(page: Path) -> list[str]:
    """The lines of a page's shell blocks, continued ones joined, and the command lines in its sentences."""
    text = "\n".join(blocks(page, "bash") + blocks(page, ""))
    words = INLINE.findall(page.read_text(encoding="utf-8"))
    inline = [code for code in words if re.match(r"medzsad (?!result)", code)]
    return re.sub(r"\\\n\s*", "", text).splitlines() + inline


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, words = found, words[1:]
    return command, words


def check_command(line: str) -> None:
    """Raise if a line ``medzsad ...`` names a command or an option that there is not, or no value of one."""
    words = shlex.split(line.split(" | ")[0].split("   ")[0], comments=True)
    while "..." in words:
        words.remove("...")
    command, rest = command_of(words)
    command.make_parser(click.Context(command)).parse_args(rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_are_ones_that_there_are(page: Path) -> None:
    for line in shell_lines(page):
        for start in MEDZSAD.finditer(line):
            if line[: start.start()].strip().endswith(("import", "from", "git")):
                continue
            try:
                check_command(line[start.end() :])
            except (click.UsageError, AssertionError) as error:
                raise AssertionError(f"{page.name}: {line}: {error}") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tools_are_there_with_the_options_that_are_named(page: Path) -> None:
    for line in shell_lines(page):
        if found := TOOL.search(line):
            source = (ROOT / found[1]).read_text(encoding="utf-8")
            for option in re.findall(r"(?<=\s)--[a-z][a-z0-9-]+", found[2].split("#")[0]):
                assert f'"{option}"' in source, (found[1], option)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_repository_that_pages_name_are_there(page: Path) -> None:
    for word in re.findall(
        r"(?<![\w/.])(?:medzsad|tests|tools)/[\w/.-]+\.\w+", page.read_text(encoding="utf-8")
    ):
        assert "NAME" in word or (ROOT / word).exists(), word


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "AGENTS.md"])
def test_files_that_contributors_are_sent_to_are_there(name: str) -> None:
    for word in INLINE.findall((ROOT / name).read_text(encoding="utf-8")):
        if re.fullmatch(r"[\w./-]+(/|\.(py|md|yaml|toml))", word) and "NAME" not in word:
            places = [ROOT, ROOT / "medzsad", *(ROOT / "medzsad").rglob("*")]
            assert any((place / word).exists() for place in places), f"{name}: {word}"


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for code in blocks(ROOT / "README.md", "python"):
        exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "out" / "head_phantom_anomaly.nii.gz").is_file()
