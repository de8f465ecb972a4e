"""Cohorts in this process and in others: what is done, what is kept, what is said."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cohort_factory import FAST, outcomes, table_rows, times, write_scan, write_scans

from medzsad.batch.run import run_cohort
from medzsad.errors import BadInput, ModelNotReady
from medzsad.storage.hashing import Shard

pytest.importorskip("pyarrow", reason="pyarrow is not installed (medzsad[cohort])")


def table(out: Path) -> list[dict]:
    return table_rows((out / "scores.parquet").read_bytes())


def test_one_bad_scan_stops_nothing_and_a_second_run_does_nothing(scans, tmp_path):
    out = tmp_path / "out"
    first = run_cohort([str(scans)], out, FAST, jobs=0)
    assert (first.total, first.done, first.failed, first.exit_code) == (4, 3, 1, 2)
    rows = table(out)
    assert [row["scan"] for row in rows] == ["case00", "case01", "case02", "corrupt0"]
    good, bad = rows[0], rows[3]
    report = json.loads((out / good["results"] / "case00.json").read_text())
    assert good["score"] == report["score"]
    assert good["lesions"] == len(report["lesions"])
    assert good["threshold"] == report["threshold"]["value"]
    assert good["model"] == "brightness"
    assert good["attempts"] == 1
    assert (bad["status"], bad["score"], bad["fault"]) == ("failed", None, "input")
    assert bad["error"].startswith("corrupt0 is empty")
    assert not list(out.glob("attempts/*"))
    assert not list(out.rglob(".medzsad-*"))

    before = times(out)
    second = run_cohort([str(scans)], out, FAST, jobs=0)
    assert (second.before, second.done, second.failed, second.exit_code) == (4, 3, 1, 2)
    assert times(out) == before
    assert table(out) == rows


def test_a_second_run_does_what_is_missing_changed_or_asked_for(scans, tmp_path):
    out = tmp_path / "out"
    run_cohort([str(scans)], out, FAST, jobs=0)
    before = times(out)
    (gone,) = out.glob("scans/*/case01/outcome.json")
    gone.unlink()
    write_scan(scans / "case02.nii.gz", 77, (18, 16, 3))
    write_scan(scans / "corrupt0.nii.gz", 78)
    write_scan(scans / "new.nii.gz", 79)
    again = run_cohort([str(scans)], out, FAST, jobs=0)
    assert (again.before, again.done, again.failed) == (1, 5, 0)
    assert {path for path, when in times(out).items() if before.get(path) == when} == {
        path for path in before if "case00" in path
    }
    assert len(table(out)) == 5

    (scans / "corrupt0.nii.gz").write_bytes(b"")
    assert run_cohort([str(scans)], out, FAST, jobs=0).failed == 1
    when = outcomes(out)["corrupt0"]["finished"]
    assert run_cohort([str(scans)], out, FAST, jobs=0).before == 5
    assert outcomes(out)["corrupt0"]["finished"] == when
    assert run_cohort([str(scans)], out, FAST, jobs=0, retry_failed=True).before == 4
    assert outcomes(out)["corrupt0"]["finished"] > when


def test_results_of_other_settings_are_never_replaced(scans, tmp_path):
    run_cohort([str(scans)], tmp_path / "out", FAST, jobs=0)
    told = replace(FAST, any_modality=True)  # which older results do not speak of
    run_cohort([str(scans)], tmp_path / "told", told, jobs=0)
    with pytest.raises(BadInput, match=r"other settings \(any_modality True there, None now"):
        run_cohort([str(scans)], tmp_path / "told", FAST, jobs=0)
    for other in (replace(FAST, model="darkness"), replace(FAST, threshold="0.9")):
        with pytest.raises(BadInput, match=r"other settings \((model brightness|threshold None) there"):
            run_cohort([str(scans)], tmp_path / "out", other, jobs=0)
    faster = replace(FAST, device="cpu", batch_size=2)
    assert run_cohort([str(scans)], tmp_path / "out", faster, jobs=0).before == 4


def test_a_model_that_is_not_ready_stops_all(scans, tmp_path):
    with pytest.raises(ModelNotReady):
        run_cohort([str(scans)], tmp_path / "out", replace(FAST, model="no-such-model"), jobs=0)
    with pytest.raises(ModelNotReady):
        run_cohort([str(scans)], tmp_path / "out", replace(FAST, model="anomalyclip-visa"), jobs=1)
    assert not list((tmp_path / "out").glob("attempts/*"))


def test_shards_make_one_table_and_one_page(tmp_path, medzsad):
    scans, out = write_scans(tmp_path / "in", 8, 1), tmp_path / "out"
    common = [scans, "-o", out, "-m", "brightness", "--overlay", "none", "--report", "--jobs", "0"]
    assert medzsad("predict", *common, "--shard", "2/3")[0] in (0, 2)
    assert not (out / "scores.parquet").exists()
    code, printed, told = medzsad("cohort", "merge", out, "--json")
    assert code == 0
    assert json.loads(printed)["notes"] == [
        "6 of 9 scans are still to be done (shards without results: 1/3, 3/3)"
    ]
    for number in (1, 3):
        medzsad("predict", *common, "--shard", f"{number}/3")
    code, printed, told = medzsad("cohort", "merge", out)
    assert (code, told) == (0, "")
    assert "8 scans done, 1 failed" in printed
    rows = table(out)
    assert (
        [row["scan"] for row in rows]
        == sorted(outcomes(out))
        == [f"case{i:02}" for i in range(8)] + ["corrupt0"]
    )
    page = (out / "index.html").read_text()
    assert all(f'href="{row["results"]}/{row["scan"]}_report.html"' in page for row in rows[:8])
    assert all((out / row["results"] / f"{row['scan']}_report.html").is_file() for row in rows[:8])


def test_cohorts_may_grow_by_one_table_after_another(tmp_path):
    write_scans(tmp_path / "in", 3)
    for number in range(3):
        (tmp_path / f"{number}.csv").write_text(f"scan\nin/case0{number}.nii.gz\n")
        run_cohort([str(tmp_path / f"{number}.csv")], tmp_path / "out", FAST, jobs=0)
    assert [row["scan"] for row in table(tmp_path / "out")] == ["case00", "case01", "case02"]


@pytest.mark.parametrize("damage", [b"", b"PAR1 nonsense"])
def test_a_damaged_part_is_named(scans, tmp_path, medzsad, damage):
    out = tmp_path / "out"
    run_cohort([str(scans)], out, FAST, jobs=0)
    (part,) = out.glob("parts/*.parquet")
    part.write_bytes(damage)
    code, _, told = medzsad("cohort", "merge", out)
    assert code == 2
    assert part.name in told
    assert medzsad("cohort", "merge", tmp_path / "nothing")[0] == 2


def test_an_id_hides_the_name_of_a_file(tmp_path, medzsad):
    (tmp_path / "Miller_Jane").mkdir()
    (tmp_path / "Miller_Jane" / "Miller.nii.gz").write_bytes(b"no scan")
    (tmp_path / "list.csv").write_text(
        "scan,id\nMiller_Jane/Miller.nii.gz,one\nMiller_Jane/gone.nii.gz,two\n"
    )
    code, printed, told = medzsad(
        "predict", tmp_path / "list.csv", "-o", tmp_path / "out", "-m", "brightness"
    )
    assert code == 2
    assert "error: two does not exist" in told
    everything = (
        printed
        + told
        + "".join(
            str(path.relative_to(tmp_path / "out"))
            + (path.read_bytes().decode("latin-1") if path.is_file() else "")
            for path in (tmp_path / "out").rglob("*")
        )
    )
    assert "Miller" not in everything
    assert "Miller" not in str(table(tmp_path / "out"))


def test_long_names_are_shortened(tmp_path):
    for seed, end in enumerate("ab"):
        write_scan(tmp_path / "in" / f"{'n' * 230}{end}.nii.gz", seed)
    settings = replace(FAST, report=True, seg_nrrd=True)
    assert run_cohort([str(tmp_path / "in")], tmp_path / "out", settings, jobs=0).done == 2


def test_columns_of_a_table_replace_options(tmp_path):
    write_scans(tmp_path / "in", 1)
    (tmp_path / "list.csv").write_text("scan,id,plane,modality\nin/case00.nii.gz,one,sagittal,mr\n")
    run_cohort([str(tmp_path / "list.csv")], tmp_path / "out", FAST, jobs=0)
    (report,) = (tmp_path / "out").glob("scans/*/one/one.json")
    content = json.loads(report.read_text())
    assert content["planes"] == ["sagittal"]
    assert content["scan"]["modality_source"] == "given"


@pytest.mark.slow
def test_processes_do_the_same(scans, tmp_path):
    here = run_cohort([str(scans)], tmp_path / "here", FAST, jobs=0)
    there = run_cohort([str(scans)], tmp_path / "there", FAST, jobs=2)
    assert (there.done, there.failed, there.reasons) == (here.done, here.failed, here.reasons)
    scores = [[row["score"] for row in table(tmp_path / place)[:3]] for place in ("here", "there")]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)


@pytest.mark.slow
def test_a_scan_that_kills_its_workers_is_given_up_and_no_other(tmp_path):
    """The process is killed whenever it is at one scan, as the system does when memory runs out."""
    scans, out = write_scans(tmp_path / "in", 2), tmp_path / "out"
    write_scan(scans / "huge.nii", 5, (128, 128, 200))
    marker, kills, over = out / "attempts" / "huge", [], threading.Event()

    def kill() -> None:
        while not over.wait(0.002):
            try:
                pid = int(marker.read_text().split()[1])
            except (OSError, IndexError, ValueError):
                continue
            if pid not in kills and pid in [child.pid for child in multiprocessing.active_children()]:
                kills.append(pid)
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        summary = run_cohort([str(scans)], out, FAST, jobs=1)
    finally:
        over.set()
        thread.join()
    assert len(kills) >= 3
    assert (summary.done, summary.failed, summary.exit_code) == (2, 1, 1)
    assert "died 3 times" in outcomes(out)["huge"]["error"]
    assert outcomes(out)["huge"]["fault"] == "crash"
    assert run_cohort([str(scans)], out, FAST, jobs=1).before == 3
    assert run_cohort([str(scans)], out, FAST, jobs=0, retry_failed=True).done == 3


@pytest.mark.parametrize("out", ["memory://cohort-{}/a", "file://{}/a"])
def test_results_behind_a_url(scans, tmp_path, out):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed (medzsad[cohort])")
    url = out.format(tmp_path)
    settings = replace(FAST, report=True)
    summary = run_cohort([str(scans)], url, settings, jobs=0)
    assert (summary.done, summary.failed) == (3, 1)
    fs, root = fsspec.core.url_to_fs(url)
    with fs.open(f"{root}/scores.parquet") as file:
        rows = table_rows(file.read())
    assert len(rows) == 4
    for row in rows[:3]:
        names = {path.rpartition("/")[2] for path in fs.ls(f"{root}/{row['results']}", detail=False)}
        scan = row["scan"]
        assert names == {
            "outcome.json", "thumbnail.png", f"{scan}.json", f"{scan}_anomaly.nii.gz", f"{scan}_mask.nii.gz",
            f"{scan}_report.html",
        }  # fmt: skip
    assert fs.exists(f"{root}/index.html")
    # Without its outcome, which is written last, a result is none.
    fs.rm_file(f"{root}/{rows[0]['results']}/outcome.json")
    again = run_cohort([str(scans)], url, settings, jobs=0)
    assert (again.before, again.done) == (3, 3)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--out", "nosuch://bucket/x"], "results cannot be written there"),
        (["--ray", "in"], "no address of a Ray cluster"),
        (["--shard", "0/4"], "from 1 to n"),
        (["--jobs", "1", "--store"], "no --store"),
        (["--jobs", "1", "--plane", "oblique"], "unknown plane"),
        (["--jobs", "1", "--out", "memory://x"], "of this process alone"),
        (["s3://bucket/scan.nii.gz", "--jobs", "0"], "mount the place"),
    ],
)
def test_options_that_are_refused(scans, tmp_path, medzsad, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    code, printed, told = medzsad("predict", "in", *arguments)
    assert (code, printed) == (2, "")
    assert reason in told
    assert len(told.strip().splitlines()) == 1


def test_an_interrupted_run_is_gone_on_with(tmp_path, monkeypatch):
    scans, out = write_scans(tmp_path / "in", 5), tmp_path / "out"
    from medzsad.batch import worker

    predict, calls = worker.Worker.predict, []

    def stop_at_the_third(self, *arguments):
        calls.append(time.monotonic())
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(self, *arguments)

    monkeypatch.setattr(worker.Worker, "predict", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_cohort([str(scans)], out, FAST, jobs=0)
    assert len(outcomes(out)) == 2
    assert len(table_rows(next(out.glob("parts/*")).read_bytes())) == 2
    summary = run_cohort([str(scans)], out, FAST, jobs=0)
    assert (summary.before, summary.done) == (2, 5)
    whole = [Shard(i, 2) for i in (1, 2)]
    assert sum(shard.holds(scan) for scan in outcomes(out) for shard in whole) == 5
