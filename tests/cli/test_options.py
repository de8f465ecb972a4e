"""Tests of how settings are named: as arguments by the library, as options by the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import medzsad
from medzsad.cli.main import COMMANDS, cli, run
from medzsad.cli.options import OPTIONS, in_options

PACKAGE = Path(medzsad.__file__).parent
FLAG, SETTING = re.compile(r"(?<![\w-])--[a-z][\w-]*"), re.compile(r"(?<!`)`([a-z_]+)`(?!`)")
# Of other programs: BIDS's validator, MONAI Label's server, MONAI's bundle runner, GDCM, Slurm and torchrun.
FOREIGN = {
    "integrations/bids/dataset.py": {"--ignoreWarnings", "--json"},
    "integrations/monailabel/server.py": {
        "--app", "--studies", "--host", "--port", "--uvicorn_app", "--conf",
    },
    "monai/bundle.py": {"--clip_weights"},
    "scans/dicom/pixels.py": {"--raw"},
    "storage/hashing.py": {"--array"},
    "training/processes.py": {"--nproc-per-node"},
}  # fmt: skip


def strings(tree: ast.Module) -> Iterator[str]:
    """Yield the string constants of a module, less docstrings and those of attributes."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value


@pytest.fixture(scope="module")
def library() -> dict[str, ast.Module]:
    """Every module outside of cli/, by its path in the package."""
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    found = {name: path.read_text(encoding="utf-8") for name, path in paths.items() if name[:4] != "cli/"}
    assert len(found) > 100
    return {name: ast.parse(text) for name, text in found.items()}


def option_names(command: click.Command) -> set[str]:
    found = {name for parameter in command.params for name in parameter.opts}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found |= option_names(command.get_command(context, name))
    return found


def test_no_string_of_the_library_names_an_option(library):
    found = {}
    for name, tree in library.items():
        flags = {flag for text in strings(tree) for flag in FLAG.findall(text)} - FOREIGN.get(name, set())
        if flags:
            found[name] = flags
    assert not found


def test_every_setting_that_a_message_names_has_an_option(library):
    unknown, known = set(), set()
    for name, tree in library.items():
        settings = {setting for text in strings(tree) for setting in SETTING.findall(text)}
        unknown |= {(name, setting) for setting in settings - OPTIONS.keys()}
        known |= settings
    assert not unknown
    assert len(known) > 20


def test_every_setting_is_an_option_of_a_command():
    assert set(OPTIONS.values()) <= option_names(cli)
    assert len(COMMANDS) > 5


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("choose one with `volume` 0 to `volume` 3.", "choose one with --volume 0 to --volume 3."),
        ("give `headers` 'Authorization: ...'", "give --dicomweb-header 'Authorization: ...'"),
        ("folder/volume=3/window.nii: `plane`", "folder/volume=3/window.nii: `plane`"),
    ],
)
def test_settings_are_printed_as_options(message, printed):
    assert in_options(message) == printed


def test_an_error_names_the_option_on_the_command_line_and_the_argument_in_python(capsys, tmp_path):
    with pytest.raises(medzsad.BadInput, match="`modality` pet is not known"):
        medzsad.read_scan(tmp_path / "scan.nii.gz", modality="pet")
    assert run(["predict", str(tmp_path), "--shard", "3/2"]) == 2
    assert capsys.readouterr().err.startswith("error: --shard 3/2: give i/n")
