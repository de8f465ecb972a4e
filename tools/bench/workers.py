"""Sides of a comparison, each in a process of its own, run turn by turn: what slows one turn slows its next.

A worker builds its detector, then runs one forward pass for every line it is sent and answers with the
seconds that took; in the end it tells its peak memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass
class Result:
    """What was measured of one side.

    Attributes:
        seconds: of each forward pass, without the first, which warms up.
        memory: the process's peak, in bytes.
        faults: pages that the last forward pass took from the system.
        note: what went wrong, if it did.
        facts: what the worker told of itself.
    """

    seconds: list[float]
    memory: float = 0.0
    faults: int = 0
    note: str = ""
    facts: dict[str, Any] | None = None

    @property
    def best(self) -> float:
        """The shortest forward pass: other work on the machine only ever adds."""
        return min(self.seconds, default=float("nan"))


class Worker:
    """A process that holds one side: ``forward_worker.py`` with ``options``."""

    def __init__(self, options: dict[str, Any], python: str = sys.executable) -> None:
        self.process = subprocess.Popen(
            [python, str(HERE / "forward_worker.py"), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
        self.result = Result([])
        self.failed = False
        self.result.facts = self._answer()

    def run(self) -> None:
        """One forward pass."""
        self._say("run")
        answer = self._answer()
        if answer:
            self.result.seconds.append(answer["seconds"])
            self.result.memory, self.result.faults = answer["memory"], answer.get("faults", 0)

    def end(self) -> Result:
        """End the process; the first pass does not count if there are more."""
        self._say("end")
        self.process.communicate()
        if len(self.result.seconds) > 1:
            del self.result.seconds[0]
        return self.result

    def _say(self, word: str) -> None:
        if not self.failed:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        if self.failed:
            return {}
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.failed = True
        lines = self.process.stderr.read().strip().splitlines()
        self.result.note = lines[-1][:200] if lines else f"ended with {self.process.wait()} (out of memory?)"
        return {}


def compare(
    sides: dict[str, tuple[dict[str, Any], str]], *, repeats: int, limit: float = 600.0
) -> dict[str, Result]:
    """Run all sides turn by turn: one pass to warm up, then ``repeats`` each.

    Args:
        sides: name to options of a worker and the Python it runs with.
        repeats: passes that count.
        limit: seconds after which no further round begins.
    """
    workers = {name: Worker(options, python) for name, (options, python) in sides.items()}
    begin = time.perf_counter()
    for turn in range(repeats + 1):
        if turn > 1 and time.perf_counter() - begin > limit:
            break
        for worker in workers.values():
            worker.run()
    return {name: worker.end() for name, worker in workers.items()}
