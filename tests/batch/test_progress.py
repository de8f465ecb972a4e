from __future__ import annotations

from medzsad.batch import progress
from medzsad.batch.progress import progress_of


def test_a_log_gets_a_line_from_time_to_time(capsys, monkeypatch):
    clock = iter(range(0, 10_000, 25))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with progress_of(100, True) as tell:
        for _ in range(7):
            tell(2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "3 of 100 scans, 2 failed, 0.04 scans/s, 40 min left",
        "6 of 100 scans, 2 failed, 0.04 scans/s, 39 min left",
    ]
    with progress_of(1, False) as tell:
        tell(0)
    assert capsys.readouterr().err == ""
