"""500 damaged, absurd and hostile inputs: each ends in a result or one line, in bounded time and memory.

``MEDZSAD_FUZZ=seed,first,last`` runs other cases.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from forked import Outcome
from fuzz_cases import KINDS


def _start(seed: int, first: int, last: int, place: Path) -> subprocess.Popen[str]:
    folder = place / str(first)
    folder.mkdir()
    command = [Path(__file__).parent / "run_cases.py", seed, first, last, folder]
    return subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_no_input_ends_in_an_internal_error_a_hang_or_leftovers(tmp_path) -> None:
    seed, first, last = (int(part) for part in os.environ.get("MEDZSAD_FUZZ", "1,0,500").split(","))
    middle = (first + last) // 2
    halves = [_start(seed, start, end, tmp_path) for start, end in ((first, middle), (middle, last))]
    outcomes = []
    for half in halves:
        printed, _ = half.communicate()
        assert half.returncode == 0
        outcomes += [Outcome(**fields) for fields in json.loads(printed.splitlines()[-1])]
    wrong = [outcome for outcome in outcomes if outcome.faults]
    for outcome in wrong:
        print(f"--- {outcome.number} ({outcome.kind}), {outcome.seconds:.1f} s: {'; '.join(outcome.faults)}")
        print("   ", outcome.arguments, "\n   ", outcome.output[-1500:].replace("\n", "\n    "))
    assert not wrong, f"{len(wrong)} of {len(outcomes)}: {Counter(o.kind for o in wrong)}"
    if len(outcomes) >= 500:  # the cases reach both ends: results, and refusals
        codes = Counter((outcome.kind, outcome.code) for outcome in outcomes)
        assert {kind for kind, _ in codes} == set(KINDS)
        assert sum(count for (_, code), count in codes.items() if code == 0) > 40
        assert sum(count for (_, code), count in codes.items() if code == 2) > 200
