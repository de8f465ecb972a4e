"""Tables of a run of several scans: what stands in them, in folders and cohorts alike."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from cohort_factory import FAST, write_scan

from medzsad.batch.records import Row
from medzsad.batch.run import predict_many, run_cohort
from medzsad.batch.store import FlatStore
from medzsad.batch.summary import (
    LESION_COLUMNS,
    LESIONS,
    SCORE_COLUMNS,
    SCORES,
    RankedScan,
    ranked,
    ranked_lines,
    remove_outdated,
    write_summary,
)
from medzsad.errors import OutputNotWritable

OPTIONS = {"model": "brightness", "overlay": "none"}


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline="")))


def test_the_tables_say_what_the_reports_say_highest_score_first(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = predict_many([scans, tmp_path / "DOE_JANE" / "gone.nii.gz"], out, **OPTIONS)
    scores, lesions = rows_of(out / SCORES), rows_of(out / LESIONS)
    reports = {result.report["name"]: result.report for result in outcome.results()}
    done = [row for row in scores if row["status"] == "done"]
    assert [row["rank"] for row in scores] == ["1", "2", "3", "", ""]
    assert [float(row["score"]) for row in done] == sorted(
        (r["score"] for r in reports.values()), reverse=True
    )
    for row in done:
        report = json.loads((out / row["report"]).read_text())
        assert report == reports[row["scan"]]
        assert int(row["lesions"]) == len(report["lesions"]) > 0
        assert float(row["threshold"]) == report["threshold"]["value"]
    assert [row["scan"] for row in scores[3:]] == ["corrupt0", "gone.nii.gz"]
    assert all(row["error"] and row["fault"] == "input" and not row["report"] for row in scores[3:])
    assert "DOE_JANE" not in (out / SCORES).read_text()
    assert [(row["scan"], int(row["lesion"])) for row in lesions] == [
        (row["scan"], number) for row in done for number in range(1, int(row["lesions"]) + 1)
    ]
    first, lesion = lesions[0], reports[done[0]["scan"]]["lesions"][0]
    assert [float(first[f"peak_{axis}_mm"]) for axis in "xyz"] == lesion["peak_mm"]
    assert [[int(first[f"{end}_{axis}"]) for end in ("first", "last")] for axis in "ijk"] == lesion[
        "bounding_box"
    ]
    assert outcome.document()["tables"] == {"scores": str(out / SCORES), "lesions": str(out / LESIONS)}
    assert [line.split()[:2] for line in outcome.lines()[1:4]] == [[row["rank"], row["scan"]] for row in done]


def test_a_run_in_parts_has_the_tables_of_one_run(scans: Path, tmp_path: Path) -> None:
    predict_many([scans], tmp_path / "whole", **OPTIONS)
    predict_many([scans / "case01.nii.gz"], tmp_path / "parts", **OPTIONS)
    assert not (tmp_path / "parts" / SCORES).exists()
    resumed = predict_many([scans], tmp_path / "parts", **OPTIONS)
    assert resumed.before == 1
    for name in (SCORES, LESIONS):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_cohort_has_the_same_tables_but_for_where_reports_lie(scans: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    flat, out = tmp_path / "flat", tmp_path / "cohort"
    predict_many([scans], flat, **OPTIONS)
    outcome = run_cohort([str(scans)], out, FAST, jobs=0)
    expected = rows_of(flat / SCORES)
    for row in expected:
        row["report"] = next(
            (str(path.relative_to(out)) for path in out.glob(f"scans/*/*/{row['report'] or '-'}")), ""
        )
    assert rows_of(out / SCORES) == expected
    assert (out / LESIONS).read_bytes() == (flat / LESIONS).read_bytes()
    assert outcome.merged is not None
    assert any(note.startswith("3 of 3 scans: ") for note in outcome.merged.summary.notes)
    assert run_cohort([str(scans)], out, FAST, jobs=0).before == 4
    assert rows_of(out / SCORES) == expected


def test_names_begin_no_formula_and_are_quoted(tmp_path: Path) -> None:
    names = ["=1+1", "+2", "-3", "@SUM(A1)", " =4", 'a"b,c', "plain"]
    for seed, name in enumerate(names):
        write_scan(tmp_path / "in" / f"{name}.nii.gz", seed)
    predict_many([tmp_path / "in"], tmp_path / "out", **OPTIONS)
    found = {row["scan"] for row in rows_of(tmp_path / "out" / SCORES)}
    assert found == {"'=1+1", "'+2", "'-3", "'@SUM(A1)", "' =4", 'a"b,c', "plain"}
    assert {row["scan"] for row in rows_of(tmp_path / "out" / LESIONS)} <= found
    text = (tmp_path / "out" / SCORES).read_text()
    assert ',"a""b,c",' in text
    reports = [row["report"] for row in rows_of(tmp_path / "out" / SCORES)]
    assert all(not report.startswith(("=", "+", "-", "@")) for report in reports)


def test_a_file_of_the_users_is_not_replaced_and_an_outdated_table_goes(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_many([scans], out, **OPTIONS)
    predict_many([scans / "case01.nii.gz"], out, **OPTIONS | {"threshold": 0.9})
    assert not (out / SCORES).exists()
    assert not (out / LESIONS).exists()
    (out / SCORES).write_text("scan,score\nmine,1\n")
    with pytest.raises(OutputNotWritable, match=r"scores\.csv was not written by medzsad"):
        predict_many([scans], out, **OPTIONS)
    assert (out / SCORES).read_text() == "scan,score\nmine,1\n"
    remove_outdated(FlatStore(out), {"mine"})
    assert (out / SCORES).exists()


def test_failures_alone_leave_no_table(tmp_path: Path) -> None:
    predict_many([tmp_path / "gone.nii.gz", tmp_path / "lost.nii.gz"], tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_an_index_lists_failures(scans: Path, tmp_path: Path) -> None:
    predict_many([scans], tmp_path / "out", **OPTIONS, report=True)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "3 scans, 1 failed" in page
    assert 'class="failed" data-name="corrupt0"' in page
    predict_many([scans / "case01.nii.gz"], tmp_path / "out", **OPTIONS, report=True)
    assert not (tmp_path / "out" / "index.html").exists()


def test_the_terminal_shows_the_best_of_many(tmp_path: Path) -> None:
    common = {"status": "done", "results": ".", "seconds": 1.0, "model": "m", "settings": "s", "attempts": 1}
    names = [f"scan{number:02}" for number in range(40)]
    rows = [Row(scan=name, score=n / 100, lesions=n, **common) for n, name in enumerate(names)]
    scans = [RankedScan(row.scan, row) for row in rows]
    store = FlatStore(tmp_path)
    store.prepare()
    summary = write_summary(store, ranked(scans), with_index=False)
    lines = ranked_lines(summary)
    assert lines[1].split() == ["1", "scan39", "0.390", "39", "-", "1.0", "s"]
    assert len(lines) == 32
    assert lines[-1].strip() == "... 10 more in scores.csv"
    assert max(map(len, lines)) <= 80
    assert summary.notes == ["40 scans have no report that can be read: lesions.csv is without them"]
    assert (tmp_path / SCORES).read_text().split("\n")[0] == ",".join(SCORE_COLUMNS)
    assert (tmp_path / LESIONS).read_text() == ",".join(LESION_COLUMNS) + "\n"
