"""Scans of a folder one after another: results in one folder, and what a second run does."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from cohort_factory import write_scan, write_scans

from medzsad.batch.run import predict_many
from medzsad.batch.store import RECORDS
from medzsad.errors import BadInput


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with the scans a and b."""
    for seed, name in enumerate(("a", "b")):
        write_scan(tmp_path / "in" / f"{name}.nii.gz", seed)
    return tmp_path / "in"


def test_detector_is_loaded_once_and_names_stay_apart(tmp_path, monkeypatch, caplog):
    import medzsad.zoo.loading as loading

    loaded = []
    load = loading.load_spec
    monkeypatch.setattr(loading, "load_spec", lambda *a, **k: loaded.append(a) or load(*a, **k))
    for i, case in enumerate(("case1", "case2", "case3")):
        write_scan(tmp_path / "in" / case / "flair.nii.gz", i)
    caplog.set_level("INFO", logger="medzsad")
    outcome = predict_many([tmp_path / "in"], tmp_path / "out", model="brightness")
    assert outcome.exit_code == 0
    assert len(loaded) == 1
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == [
        "case1_flair.json",
        "case2_flair.json",
        "case3_flair.json",
    ]
    notes = [record.getMessage() for record in caplog.records]
    assert len([note for note in notes if "guessed" in note]) == 2
    assert any(note.startswith("2 more scans: ") and "guessed" in note for note in notes)
    document = json.loads(json.dumps(outcome.document(), allow_nan=False))
    assert document["scans"][0]["files"]["mask"].endswith("case1_flair_mask.nii.gz")
    assert document["failed"] == []
    assert all(len(line) <= 80 for line in outcome.lines() if "files in" not in line)


def test_the_same_scan_twice_is_predicted_once(tmp_path):
    scan = write_scan(tmp_path / "in" / "a.nii.gz", 0)
    assert predict_many([scan, tmp_path / "in"], tmp_path / "out", model="brightness").done == 1


def test_results_among_the_scans(tmp_path):
    """The second run finds the same scans, and every result of the first is replaced or gone."""
    scan = write_scan(tmp_path / "a.nii.gz", 0)
    options = {
        "model": "brightness",
        "report": True,
        "save_scan": True,
        "seg_nrrd": True,
        "overlay": "slices",
    }
    for out in (tmp_path, tmp_path / "sub"):
        assert predict_many([tmp_path], out, **options).done == 1
    outcome = predict_many([tmp_path], tmp_path, model="brightness", threshold=0.01)
    assert [result.input for result in outcome.results()] == [str(scan)]
    assert outcome.failed == 0
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {
        f"a{end}" for end in (".nii.gz", ".json", "_anomaly.nii.gz", "_mask.nii.gz", "_overlay.png")
    }
    given = predict_many(
        sorted(tmp_path.glob("*.nii.gz")), tmp_path, model="brightness"
    )  # as a shell's *.nii.gz
    assert [result.input for result in given.results()] == [str(scan)]
    assert all("result of medzsad" in error for _, error in given.reasons)
    assert given.failed == 2


def test_a_file_of_the_users_is_not_replaced(tmp_path):
    write_scan(tmp_path / "a.nii.gz", 0)
    (tmp_path / "a.json").write_text('{"EchoTime": 3}')
    outcome = predict_many([tmp_path], tmp_path, model="brightness")
    assert outcome.exit_code == 2
    assert "was not written by medzsad" in outcome.reasons[0][1]
    assert sorted(names(tmp_path)) == ["a.json", "a.nii.gz"]


def test_file_names_that_are_no_text(tmp_path):
    odd = [b"K\xe4se.nii.gz", b"two\nlines.nii.gz"]
    scans = [write_scan(tmp_path / os.fsdecode(name), seed) for seed, name in enumerate(odd)]
    outcome = predict_many(scans, tmp_path / "out", model="brightness", report=True)
    assert outcome.exit_code == 0, outcome.failed
    assert {"K\ufffdse.json", "two_lines_report.html", "index.html"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    json.dumps(outcome.document(), ensure_ascii=False).encode()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {RECORDS}


def test_several_reports_get_an_index(two, tmp_path):
    outcome = predict_many([two], tmp_path / "out", model="brightness", report=True)
    assert outcome.exit_code == 0
    assert {"a_report.html", "b_report.html", "index.html"} <= names(tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    order = sorted(outcome.results(), key=lambda result: -result.report["score"])
    places = [page.index(f'href="{result.report["name"]}_report.html"') for result in order]
    assert places == sorted(places)
    assert not [name for name in names(tmp_path / "out") if name.startswith(".")]


def test_one_report_gets_none(two, tmp_path):
    predict_many([two / "a.nii.gz"], tmp_path / "out", model="brightness", report=True, seg_nrrd=True)
    assert names(tmp_path / "out") == {
        "a.json", "a_anomaly.nii.gz", "a_mask.nii.gz", "a_mask.seg.nrrd", "a_overlay.png", "a_report.html",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overlay", "expected"), [("montage", {"a_overlay.png"}), ("slices", {"a_slices"}), ("none", set())]
)
def test_overlay(two, tmp_path, overlay, expected):
    predict_many([two / "a.nii.gz"], tmp_path / "out", model="brightness", overlay=overlay)
    assert names(tmp_path / "out") == {"a.json", "a_anomaly.nii.gz", "a_mask.nii.gz"} | expected


def test_an_unknown_overlay_is_refused_before_anything_is_done(two, tmp_path):
    with pytest.raises(BadInput, match="montage, slices, none"):
        predict_many([two], tmp_path / "out", model="brightness", overlay="film")
    assert not (tmp_path / "out").exists()


def test_a_second_run_does_what_is_missing_changed_or_asked_for(two, tmp_path):
    out, options = tmp_path / "out", {"model": "brightness", "overlay": "none", "report": True}

    def written() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}

    first = predict_many([two], out, **options)
    before = written()
    again = predict_many([two], out, **options)
    assert (first.before, again.before, written()) == (0, 2, before)
    assert again.document() == first.document()
    assert "index.html" in names(out)

    write_scan(two / "a.nii.gz", 7, (18, 16, 3))
    (out / "b_mask.nii.gz").unlink()
    write_scan(two / "c.nii.gz", 8)
    assert (predict_many([two], out, **options).before, len(written())) == (0, 6)
    assert predict_many([two], out, **options).before == 3
    assert predict_many([two], out, **options, fresh=True).before == 0
    other = predict_many([two], out, **options | {"threshold": 0.9})
    assert other.before == 0
    assert {result.report["threshold"]["rule"] for result in other.results()} == {"0.9"}
    assert predict_many([two], out, **options).before == 0


def test_a_result_that_its_owner_changed_is_neither_kept_nor_replaced(two, tmp_path):
    options = {"model": "brightness", "overlay": "none"}
    predict_many([two], tmp_path / "out", **options)
    mask = tmp_path / "out" / "a_mask.nii.gz"
    mask.write_bytes(write_scan(tmp_path / "corrected.nii.gz", 3).read_bytes())
    content = mask.read_bytes()
    outcome = predict_many([two], tmp_path / "out", **options)
    assert (outcome.before, outcome.done, outcome.exit_code) == (1, 1, 2)
    assert "was not written by medzsad" in outcome.failures()[0]
    assert mask.read_bytes() == content


@pytest.mark.parametrize("record", [b"", b"[]", b'{"files": {"json": "../x"}}'])
def test_a_damaged_record_has_its_scan_done_again(two, tmp_path, record):
    options = {"model": "brightness", "overlay": "none"}
    predict_many([two], tmp_path / "out", **options)
    (place,) = (tmp_path / "out" / RECORDS).glob("scans/*/a/outcome.json")
    place.write_bytes(record)
    again = predict_many([two], tmp_path / "out", **options)
    assert (again.before, again.done) == (1, 2)


def test_nothing_is_left_of_a_run_without_results(tmp_path):
    scans = write_scans(tmp_path / "in", 1, 2)
    (scans / "case00.nii.gz").unlink()
    outcome = predict_many([scans, tmp_path / "gone.nii"], tmp_path / "new" / "out", model="brightness")
    assert (outcome.done, outcome.failed, outcome.exit_code) == (0, 3, 2)
    assert not (tmp_path / "new").exists()


def test_a_run_needs_no_pyarrow(two, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert predict_many([two], tmp_path / "out", model="brightness", overlay="none").done == 2
    assert predict_many([two], tmp_path / "out", model="brightness", overlay="none").before == 2
