"""Tables of figures: on the terminal, as CSV, Markdown and LaTeX, and the files that they are written to."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medzsad.errors import OutputNotWritable

WIDTH = 100  # of what is printed on the terminal
NARROWEST = 20  # first column
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


@dataclass
class Table:
    """A table of text.

    Attributes:
        title: what it shows.
        header: column names; the first column holds names, the others figures.
        rows: as long as the header, each.
        notes: sentences below it.
    """

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def terminal(self) -> str:
        """Return aligned columns, figures to the right, and the notes below, wrapped."""
        widths = [max(len(row[i]) for row in [self.header, *self.rows]) for i in range(len(self.header))]
        # Long names give way, so that lines do not break.
        widths[0] = min(widths[0], max(NARROWEST, WIDTH - sum(2 + width for width in widths[1:])))
        lines = [
            *textwrap.wrap(self.title, WIDTH),
            _aligned(self.header, widths),
            _aligned(["-" * width for width in widths], widths),
        ]
        lines += [_aligned([_shortened(row[0], widths[0]), *row[1:]], widths) for row in self.rows]
        notes = [line for note in self.notes for line in textwrap.wrap(note, WIDTH, subsequent_indent="  ")]
        return "\n".join([*lines, *notes])

    def markdown(self) -> str:
        """Return a Markdown table under its title."""
        lines = [f"**{self.title}**", "", _piped(self.header)]
        lines.append(_piped(["---", *["---:"] * (len(self.header) - 1)]))
        lines += [_piped(row) for row in self.rows]
        notes = [line for note in self.notes for line in ("", note)]
        return "\n".join([*lines, *notes]) + "\n"

    def latex(self) -> str:
        """Return a LaTeX ``table`` with ``booktabs`` rules."""
        columns = "l" + "r" * (len(self.header) - 1)
        body = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(' '.join([self.title + '.', *self.notes]))}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(_latex, self.header)) + r" \\",
            r"\midrule",
            *(" & ".join(map(_latex, row)) + r" \\" for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(body) + "\n"


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """RFC 4180 text of a plain table; None is an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def table_files(stem: str, tables: Sequence[Table]) -> dict[str, str]:
    """Return the texts of ``STEM.md`` and ``STEM.tex``."""
    return {
        f"{stem}.md": "\n".join(table.markdown() for table in tables),
        f"{stem}.tex": "\n".join(table.latex() for table in tables),
    }


def write_files(folder: Path, texts: Mapping[str, str], draw: Callable[[Path], object]) -> list[Path]:
    """Write texts and pictures to a folder; each file appears complete or not at all.

    Args:
        folder: made if it is not there.
        texts: by file name.
        draw: writes pictures to the folder that it is given.

    Returns:
        The files.

    Raises:
        OutputNotWritable: if a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".medzsad-") as staging:
            for name, text in texts.items():
                (Path(staging) / name).write_text(text, encoding="utf-8")
            draw(Path(staging))
            names = sorted(path.name for path in Path(staging).iterdir())
            for name in names:
                os.replace(Path(staging) / name, folder / name)
    except OSError as error:
        raise OutputNotWritable(
            f"{folder}: cannot write the evaluation ({error.strerror or error}); choose another folder"
        ) from error
    return [folder / name for name in names]


def _shortened(text: str, width: int) -> str:
    """Return the text, its middle left out where it is longer."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}\N{HORIZONTAL ELLIPSIS}{text[-end:]}"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "  ".join([first, *rest]).rstrip()


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _latex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(letter, letter) for letter in text)
