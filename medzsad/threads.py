"""How many cores this process may use, and keeping all libraries together within them."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
# What OpenMP, MKL, OpenBLAS and numexpr ask when they start.
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# A thread that waits for others spins this often before it sleeps (about 3 us). GNU OpenMP's own choice, 300
# times as long, burns a core for nothing wherever others want it, too: other programs, or this one's threads
# that read the next scan and write the last one.
SPINS = "1000"
_AT_START = os.environ.get("OMP_NUM_THREADS")
_chosen: int | None = None  # by an option, for this process and its workers together


def available_cores() -> int:
    """Return how many cores the process may use: what its affinity and its control group leave it."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota())))


def limit_threads(count: int | None = None, *, workers: int = 0) -> int:
    """Set how many threads PyTorch and the BLAS libraries compute with in this process.

    Best called before they are imported; PyTorch's number can still be set later.

    Args:
        count: threads; by default ``OMP_NUM_THREADS`` where it is set, else :func:`available_cores` less
            ``workers``, and at least one.
        workers: processes beside this one that compute, too, such as those that load images.

    Returns:
        The number of threads.
    """
    global _chosen
    if count is None:
        count = _asked_for() or max(1, available_cores() - workers)
    elif count != _asked_for():
        _chosen = count
    for name in VARIABLES:
        os.environ[name] = str(count)
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)
    return count


def share_of_threads(processes: int) -> int:
    """Return how many threads each of ``processes`` gets, that share what this one may use.

    Where the user set ``OMP_NUM_THREADS``, each has so many.
    """
    if _chosen is None and _asked_for():
        return _asked_for()
    return max(1, (_chosen or available_cores()) // processes)


def _asked_for() -> int:
    """``OMP_NUM_THREADS`` as the user set it; 0 if not."""
    asked = _AT_START if _AT_START is not None else ""
    return int(asked) if asked.isdigit() else 0


def _quota() -> float:
    """Cores that the control group allows; infinite where it sets no limit."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (CGROUP / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (CGROUP / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return math.inf
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return math.inf
    return share if share > 0 else math.inf
