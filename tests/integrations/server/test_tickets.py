"""Tickets open the results of one prediction, for a while, and nothing else."""

from __future__ import annotations

import pytest

from medzsad.integrations.server import tickets as module
from medzsad.integrations.server.tickets import LIFE_S, Tickets

ONE, OTHER = "0" * 31 + "a", "0" * 31 + "b"
RESULTS = f"/v1/predictions/{ONE}/results"


def query(ticket: str) -> bytes:
    return f"ticket={ticket}".encode()


def test_results_of_its_prediction_are_opened() -> None:
    tickets = Tickets()
    ticket = tickets.issue(ONE)
    for path in (f"{RESULTS}.zip", f"{RESULTS}/scan_report.html", f"{RESULTS}/scan_sc/0001.dcm"):
        assert tickets.admit(path, query(ticket))


@pytest.mark.parametrize(
    "path",
    [
        "/v1", "/v1/predictions", f"/v1/predictions/{ONE}", f"/v1/predictions/{ONE}/events",
        f"/v1/predictions/{ONE}/ticket", f"/v1/predictions/{OTHER}/results.zip", f"{RESULTS}.zip/../..",
        RESULTS,
    ],
)  # fmt: skip
def test_nothing_else_is(path: str) -> None:
    tickets = Tickets()
    assert not tickets.admit(path, query(tickets.issue(ONE)))


def test_no_other_ticket_does(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = Tickets()
    ticket = tickets.issue(ONE)
    until, _, seal = ticket.partition("-")
    forged = [
        "", "-", seal, f"{int(until) + 1}-{seal}", f"{until}-{seal[:-1]}", f"{until}-", f"x-{seal}",
        f"-1-{seal}", Tickets().issue(ONE), tickets.issue(OTHER), f"{until}-\u00e9", f"\u0661-{seal}",
        f"{'9' * 5000}-{seal}",
    ]  # fmt: skip
    for other in forged:
        assert not tickets.admit(f"{RESULTS}.zip", query(other)), other
    assert not tickets.admit(f"{RESULTS}.zip", b"\xff\xfe=")
    later = module.time.time() + LIFE_S + 1
    monkeypatch.setattr(module.time, "time", lambda: later)
    assert not tickets.admit(f"{RESULTS}.zip", query(ticket))
