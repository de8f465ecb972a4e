"""What is said of a run's scans, and its exit code."""

from __future__ import annotations

import pytest

from medzsad.batch.outcome import REASONS, Outcome


@pytest.mark.parametrize(
    ("faults", "code"),
    [([], 0), (["input"], 2), (["internal"], 1), (["input", "crash"], 1), (["new kind"], 1)],
)
def test_exit_codes(faults: list[str], code: int) -> None:
    outcome = Outcome("out", 3)
    for fault in faults:
        outcome.fail("a", "broken", fault)
    assert outcome.exit_code == code


def test_a_reason_names_its_scan_once_and_only_the_first_are_kept() -> None:
    outcome = Outcome("out", 100)
    outcome.fail("a", "a is empty")
    outcome.fail("b", "out of data", "internal")
    assert outcome.failures() == ["a is empty", "b: internal error: out of data"]
    for number in range(2 * REASONS):
        outcome.fail(str(number), "broken")
    assert len(outcome.document()["reasons"]) == REASONS
    assert outcome.failures()[-1] == f"{REASONS + 2} more failed: see the column error of the table"
