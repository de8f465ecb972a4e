"""The best scans as a table for the terminal."""

from __future__ import annotations

from medzsad.results.ranking import NAME_WIDTH, ranked_table, shortened


def test_lines_fit_a_terminal() -> None:
    rows = [("x" * 99, 0.91234, 12, 1234.56, 3661.04), ("case7", 0.5, 0, None, 0.04)]
    lines = ranked_table(rows)
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[2:] == ["0.912", "12", "1234.6", "mL", "3661.0", "s"]
    assert lines[2].split() == ["2", "case7", "0.500", "0", "-", "0.0", "s"]


def test_long_names_keep_their_beginning_and_their_end() -> None:
    assert shortened("case7") == "case7"
    name = shortened("a" * 40 + "_z")
    assert len(name) == NAME_WIDTH
    assert name.startswith("aaa")
    assert name.endswith("_z")
