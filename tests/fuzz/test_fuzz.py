"""500 damaged, absurd and hostile inputs: each ends in a result or one line, in bounded time and memory.

``MEDZSAD_FUZZ=seed,first,last`` runs other cases.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from forked import Outcome, run_case
from fuzz_cases import KINDS, originals

WORKERS = 2


def run_all(seed: int, first: int, last: int, folder: Path) -> list[Outcome]:
    """Run cases, two at a time, each in a process forked from one that has imported everything."""
    import torch

    # Before the fork, so that no case imports it.
    import medzsad.cli.terminal
    import medzsad.training.train  # noqa: F401
    from medzsad import load_detector, predict

    base = folder / "base"
    base.mkdir()
    originals(base)
    gc.collect()
    gc.freeze()
    torch.set_num_threads(1)  # other threads would not survive a fork
    for name in ("scan.nii", "image.png", "slice.dcm"):
        predict(base / name, detector=load_detector("medzsad-mini", device="cpu", precision="fp32"))
    with ThreadPoolExecutor(WORKERS) as workers:
        return list(workers.map(lambda number: run_case(number, seed, base, folder), range(first, last)))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_no_input_ends_in_an_internal_error_a_hang_or_leftovers(tmp_path) -> None:
    seed, first, last = (int(part) for part in os.environ.get("MEDZSAD_FUZZ", "1,0,500").split(","))
    outcomes = run_all(seed, first, last, tmp_path)
    wrong = [outcome for outcome in outcomes if outcome.faults]
    for outcome in wrong:
        print(f"--- {outcome.number} ({outcome.kind}), {outcome.seconds:.1f} s: {'; '.join(outcome.faults)}")
        print("   ", outcome.arguments, "\n   ", outcome.output[-1500:].replace("\n", "\n    "))
    assert not wrong, f"{len(wrong)} of {len(outcomes)}: {Counter(o.kind for o in wrong)}"
    if last - first >= 500:  # the cases reach both ends: results, and refusals
        codes = Counter((outcome.kind, outcome.code) for outcome in outcomes)
        assert {kind for kind, _ in codes} == set(KINDS)
        assert sum(count for (_, code), count in codes.items() if code == 0) > 40
        assert sum(count for (_, code), count in codes.items() if code == 2) > 200
