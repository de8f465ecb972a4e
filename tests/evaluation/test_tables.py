"""Tables as text: aligned, and with what each format must escape."""

from __future__ import annotations

import csv
import io

from medzsad.evaluation.tables import Table, csv_text

TABLE = Table("A_b, %", ["detector", "AUROC"], [["mini|x", "91.0"], ["a_b & c", "7.5"]], ["note: 5 %"])


def test_terminal_is_aligned() -> None:
    lines = TABLE.terminal().splitlines()
    assert lines[0] == "A_b, %"
    assert lines[1] == "detector  AUROC"
    assert lines[3:5] == ["mini|x     91.0", "a_b & c     7.5"]
    assert lines[-1] == "note: 5 %"


def test_markdown_escapes_bars() -> None:
    text = TABLE.markdown()
    assert "| mini\\|x | 91.0 |" in text
    assert "| --- | ---: |" in text


def test_latex_escapes_its_special_letters() -> None:
    text = TABLE.latex()
    assert r"a\_b \& c & 7.5 \\" in text
    assert r"\caption{A\_b, \%. note: 5 \%}" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2


def test_csv_is_read_back() -> None:
    rows = list(csv.reader(io.StringIO(csv_text(["a", "b"], [["x, y", None], ['"', 0.1]]))))
    assert rows == [["a", "b"], ["x, y", ""], ['"', "0.1"]]
