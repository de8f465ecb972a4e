"""The ``medzsad`` command. Commands are imported when called, so that ``--help`` answers at once."""

from __future__ import annotations

import difflib
import importlib
import os
import sys

import click

from medzsad import __version__
from medzsad.cli.options import tell
from medzsad.cli.terminal import guard, show_log
from medzsad.errors import BadInput, MedzsadError, explained
from medzsad.heap import keep_freed_memory

# Command -> (module, one line for --help).
COMMANDS = {
    "predict": ("medzsad.cli.predict", "Find what is anomalous in scans: map, mask, overlay, report."),
    "cohort": ("medzsad.cli.predict", "Many scans: merge the tables of shards and runs."),
    "bids": ("medzsad.cli.bids", "A BIDS data set: derivatives of participants, a table of the group."),
    "evaluate": ("medzsad.cli.evaluate", "Measure detectors on a data set, as the papers do."),
    "normals": ("medzsad.cli.normals", "What differs from a handful of normal scans: fit a profile, info."),
    "train": ("medzsad.cli.train", "Train a detector by a recipe; a stopped training goes on."),
    "datasets": ("medzsad.cli.datasets", "The data sets by name: list, info, check a copy."),
    "models": ("medzsad.cli.models", "The detectors by name: list, info, fetch, import, remove."),
    "serve": (
        "medzsad.cli.serve",
        "A server: a page to drop scans on, and REST for programs.",
    ),
    "monailabel": ("medzsad.cli.monailabel", "A MONAI Label server for 3D Slicer and OHIF: init, start."),
    "mcp": ("medzsad.cli.mcp", "Tools for an agent, over the Model Context Protocol."),
    "export": ("medzsad.cli.export", "Detectors for use elsewhere: a MONAI bundle, an ONNX file."),
    "schema": ("medzsad.cli.schema", "The JSON schemas of what --json prints and of the results."),
    "example": ("medzsad.cli.example", "Write the example scan to try medzsad on."),
    "doctor": ("medzsad.cli.doctor", "Versions, devices, cache, models that are ready, and a self-test."),
}


class LazyCommands(click.Group):
    """A group whose commands live in modules that are imported only when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        return getattr(module, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest command's name where there is none."""
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and near and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}; did you mean {near[0]}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="medzsad")
def cli() -> None:
    """Zero-shot anomaly detection for medical scans. Research software, not a medical device."""


def run(arguments: list[str] | None = None) -> int:
    """Run one command line (``sys.argv`` by default).

    Returns:
        The exit code: 0 all done, 1 internal error, 2 bad input or options, 130 interrupted.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        _refuse_empty(given)
        return cli.main(given, prog_name="medzsad", standalone_mode=False) or 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except MedzsadError as error:
        tell(f"error: {error}")
        return error.exit_code
    except Exception as error:
        if os.environ.get("MEDZSAD_DEBUG"):
            raise
        known = explained(error)
        if isinstance(known, MedzsadError):
            tell(f"error: {known}")
            return known.exit_code
        click.echo(f"internal error: {internal_error_line(error)}", err=True)
        return 1
    finally:
        show_log(None)  # what a command asked for is its own


def _refuse_empty(arguments: list[str]) -> None:
    """An unset variable of a shell is an empty argument, and as a path that would be the current folder."""
    for number, argument in enumerate(arguments):
        option, sign, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        if not value.strip() and (sign or not option):
            before = arguments[number - 1] if number else ""
            place = option or (before if before.startswith("-") else "an argument")
            raise BadInput(f"{place} is empty; is a variable of your shell not set?")


def main() -> None:
    """Entry point of the console script."""
    guard()
    keep_freed_memory()
    sys.exit(run())


def internal_error_line(error: Exception) -> str:
    """One line for an error that is a bug of ours."""
    return f"{type(error).__name__}: {error} (MEDZSAD_DEBUG=1 shows where; please report it)".replace(
        "\n", " "
    )


if __name__ == "__main__":
    main()
