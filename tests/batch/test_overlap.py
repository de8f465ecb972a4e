"""Reading the next scan and writing the last one go on while one is predicted."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cohort_factory import FAST, outcomes, write_scan, write_scans

from medzsad.batch import overlap
from medzsad.batch.manifest import ScanItem, read_manifest
from medzsad.batch.overlap import overlapped
from medzsad.batch.predictor import describe, digest_of
from medzsad.batch.watch import Watch
from medzsad.batch.worker import Job, Task, Worker
from medzsad.errors import OutputNotWritable

pytest.importorskip("pyarrow", reason="pyarrow is not installed (medzsad[cohort])")
PATIENCE_S = 30


class Watched(Worker):
    """Tells of its stages before they begin (``"read case00"``) and after (``"read case00 ends"``)."""

    def __init__(self, job: Job, tell: Callable[[str], None] = lambda event: None) -> None:
        super().__init__(job)
        self.tell = tell
        self.said: list[str] = []

    def _say(self, event: str) -> None:
        self.said.append(event)
        self.tell(event)

    def read(self, item: ScanItem, *, begun: Task | None = None, told: bool = True) -> Task:
        self._say(f"read {item.id}")
        task = super().read(item, begun=begun, told=told)
        self._say(f"read {item.id} ends")
        return task

    def predict(self, task: Task) -> None:
        self._say(f"predict {task.item.id}")
        super().predict(task)
        self._say(f"predict {task.item.id} ends")

    def write(self, task: Task) -> Any:
        self._say(f"write {task.item.id}")
        row = super().write(task)
        self._say(f"write {task.item.id} ends")
        return row


def job_for(out: Path) -> Job:
    return Job(FAST, digest_of(describe(FAST)), str(out))


def begun(
    tmp_path: Path, good: int, bad: int = 0, tell: Callable[[str], None] = lambda event: None
) -> tuple[Watched, list[ScanItem]]:
    worker = Watched(job_for(tmp_path / "out"), tell)
    worker.store.prepare()
    return worker, read_manifest([str(write_scans(tmp_path / "in", good, bad))])


def left_attempts(out: Path) -> list[str]:
    return [path.name for path in (out / "attempts").glob("*")]


def test_the_next_is_read_and_the_last_written_meanwhile(tmp_path: Path) -> None:
    events = {event: threading.Event() for event in ("read case02 ends", "write case00 ends")}

    def tell(event: str) -> None:
        if event in events:
            events[event].set()
        if event == "predict case01":  # goes on only once the other two have ended
            assert all(each.wait(PATIENCE_S) for each in events.values())

    worker, items = begun(tmp_path, 3, tell=tell)
    rows = list(overlapped(worker, items, Watch()))
    assert [(row.scan, row.status) for row in rows] == [(item.id, "done") for item in items]
    assert left_attempts(tmp_path / "out") == []


def test_results_are_those_of_one_after_another(tmp_path: Path) -> None:
    worker, items = begun(tmp_path, 3, 2)
    rows = list(overlapped(worker, items, Watch()))
    alone = Worker(job_for(tmp_path / "alone"))
    alone.store.prepare()
    expected = list(map(alone, items))
    assert [(row.scan, row.status, row.score, row.error) for row in rows] == [
        (row.scan, row.status, row.score, row.error) for row in expected
    ]
    assert [row.status for row in rows].count("failed") == 2
    files = contents(tmp_path / "out")
    assert len(files) > 3
    assert files == contents(tmp_path / "alone")


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: without_times(each)
            for k, each in value.items()
            if k not in ("seconds", "finished") and k[-2:] != "_s"
        }
    return [without_times(each) for each in value] if isinstance(value, list) else value


def contents(out: Path) -> dict[str, Any]:
    """What was written, without the times that it took."""
    found: dict[str, Any] = {}
    for path in sorted(file for file in out.glob("scans/**/*") if file.is_file()):
        name = path.relative_to(out).as_posix()
        if path.suffix == ".json":
            found[name] = without_times(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("why", ["large", "died before"])
def test_beside_some_scans_nothing_else_is_under_way(tmp_path: Path, monkeypatch: Any, why: str) -> None:
    worker, items = begun(tmp_path, 3)
    if why == "large":
        monkeypatch.setattr(overlap, "LARGE_BYTES", 16 * 16 * 3 * 4 - 1)
    else:
        for item in items:
            worker.store.write(f"attempts/{item.id}", b"1 1\n")
    list(overlapped(worker, items, Watch()))
    stages = [f"{stage} {item.id}" for item in items for stage in ("read", "predict", "write")]
    assert worker.said == [said for stage in stages for said in (stage, f"{stage} ends")]


def test_what_was_written_when_the_run_is_stopped_is_told(tmp_path: Path) -> None:
    reading = threading.Event()

    def tell(event: str) -> None:
        if event == "read case02":
            reading.set()
        if event == "predict case01":
            assert reading.wait(PATIENCE_S)
            raise KeyboardInterrupt

    worker, items = begun(tmp_path, 4, tell=tell)
    rows = overlapped(worker, items, Watch())
    assert next(rows).scan == "case00"
    with pytest.raises(KeyboardInterrupt):
        next(rows)
    assert set(outcomes(tmp_path / "out")) == {"case00"}
    assert "read case03" not in worker.said


def test_a_run_that_is_stopped_waits_for_no_reader(tmp_path: Path) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def tell(event: str) -> None:
        if event == "read case01":
            reading.set()
            assert go_on.wait(PATIENCE_S)
        if event == "predict case00":
            assert reading.wait(PATIENCE_S)
            raise KeyboardInterrupt

    worker, items = begun(tmp_path, 3, tell=tell)
    with pytest.raises(KeyboardInterrupt):
        list(overlapped(worker, items, Watch()))
    assert left_attempts(tmp_path / "out") == []
    go_on.set()
    readers = [thread for thread in threading.enumerate() if thread.name == "reader"]
    for thread in readers:
        thread.join(PATIENCE_S)
    assert left_attempts(tmp_path / "out") == []


def test_the_number_of_a_scan_counts_what_is_still_written(tmp_path: Path) -> None:
    class Counted(Watch):
        done = 0
        numbers: list[int]

        def phase(self, text: str) -> None:
            if text.startswith("predicting"):
                self.numbers.append(self.done + self.behind + 1)

    watch = Counted()
    watch.numbers = []
    worker, items = begun(tmp_path, 5)
    worker._watch = watch
    for _ in overlapped(worker, items, watch):
        watch.done += 1
    assert watch.numbers == [1, 2, 3, 4, 5]


def test_a_place_that_takes_no_more_ends_the_run(tmp_path: Path, monkeypatch: Any) -> None:
    worker, items = begun(tmp_path, 4)
    commit = worker.store.commit

    def full(scan: str, files: Path, outcome: bytes) -> None:
        if scan == "case01":
            raise OutputNotWritable("full")
        commit(scan, files, outcome)

    monkeypatch.setattr(worker.store, "commit", full)
    rows = overlapped(worker, items, Watch())
    with pytest.raises(OutputNotWritable, match="full"):
        list(rows)
    assert "predict case03" not in worker.said
    assert left_attempts(tmp_path / "out") == []


def test_a_consumer_that_has_enough_leaves_whole_results(tmp_path: Path) -> None:
    worker, items = begun(tmp_path, 5)
    rows = overlapped(worker, items, Watch())
    next(rows)
    rows.close()
    assert set(outcomes(tmp_path / "out")) >= {"case00"}
    for path in (tmp_path / "out").glob("scans/*/*"):
        assert (path / "outcome.json").is_file()
    assert left_attempts(tmp_path / "out") == []


def test_a_second_run_does_nothing_again(tmp_path: Path) -> None:
    worker, items = begun(tmp_path, 3)
    first = list(overlapped(worker, items, Watch()))
    write_scan(tmp_path / "in" / "case01.nii.gz", 77)  # another one by the same name
    again = Watched(job_for(tmp_path / "out"))
    second = list(overlapped(again, items, Watch()))
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False, True]
