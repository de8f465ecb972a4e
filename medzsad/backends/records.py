"""What ``medzsad models time`` measured, kept in the cache folder, and what ``--backend auto`` takes."""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from medzsad import __version__
from medzsad.backends.runtimes import PACKAGES, version_of
from medzsad.storage.cache import cache_folder
from medzsad.storage.hashing import hash_settings
from medzsad.storage.keyed import KeyedStore

logger = logging.getLogger(__name__)
MAP_BOUND, SCORE_BOUND = 1e-2, 1e-3
"""Largest differences from PyTorch's float32, of maps and of scores, with which ``auto`` takes a backend."""


@dataclass(frozen=True)
class Timing:
    """One backend in one precision.

    Attributes:
        backend, precision: which.
        rates: images per second, by use: ``"slices"`` of volumes, ``"images"``.
        map_difference: largest difference of a map from PyTorch's float32, over all uses.
        score_difference: the same of image scores and probabilities.
    """

    backend: str
    precision: str
    rates: dict[str, float]
    map_difference: float
    score_difference: float

    @property
    def within(self) -> bool:
        """Whether it may be chosen."""
        return self.map_difference <= MAP_BOUND and self.score_difference <= SCORE_BOUND

    @property
    def rate(self) -> float:
        """What it is chosen by: slices of volumes per second, where a method treats them differently."""
        return next(iter(self.rates.values()))


@dataclass(frozen=True)
class Record:
    """What was measured of a detector on a machine.

    Attributes:
        model: what the detector was called.
        cpu: the processor.
        threads: that PyTorch used.
        batch: images at once.
        sizes: side of the images, by use; the first use decides.
        timings: PyTorch's float32 first.
        auto: what precision ``"auto"`` may be: ``"auto"`` (any), or ``"fp32"`` alone where the method is
            known to leave the bounds in bf16, whatever was seen of these few images.
    """

    model: str
    cpu: str
    threads: int
    batch: int
    sizes: dict[str, int]
    timings: tuple[Timing, ...]
    auto: str = "auto"

    def fastest(self, precision: str = "auto") -> Timing | None:
        """Return the fastest within the bounds; None if nothing of that precision is."""
        asked = self.auto if precision == "auto" else precision
        possible = [t for t in self.timings if t.within and asked in ("auto", t.precision)]
        return max(possible, key=lambda timing: timing.rate, default=None)


def read_record(digest: str) -> Record | None:
    """Return what was measured on this processor with these versions.

    None if nothing, or the file is damaged.

    Args:
        digest: of the detector: :func:`~medzsad.backends.store.digest_of`.
    """
    damage = (KeyError, TypeError, AttributeError, StopIteration, RecursionError)
    return _timings().read(_key(digest), _load, *damage)


def _load(path: Path) -> Record:
    facts = json.loads(path.read_text())
    record = Record(**{**facts, "timings": tuple(Timing(**one) for one in facts["timings"])})
    record.fastest()
    return record


def write_record(digest: str, record: Record) -> None:
    """Keep what was measured.

    Raises:
        OutputNotWritable: if the cache cannot be written.
    """
    with _timings().writing(_key(digest)) as temporary:
        temporary.write_text(json.dumps(asdict(record)))


def choose(digest: str, precision: str, model: str) -> tuple[str, str]:
    """Return backend and precision for ``--backend auto`` on the CPU; what was taken and why is logged.

    Args:
        digest: of the detector.
        precision: that was asked for; with ``"auto"`` the fastest one, too, is chosen.
        model: what to call it.

    Returns:
        The backend, and its precision; ``"torch"`` and ``precision`` where nothing was measured.
    """
    record = read_record(digest)
    best = None if record is None else record.fastest(precision)
    if record is None:
        logger.info(f"backend: torch (not measured on this machine; medzsad models time {model} measures)")
        return "torch", precision
    if best is None:
        logger.info(f"backend: torch (nothing measured in {precision} is within the bounds)")
        return "torch", precision
    ratio = best.rate / record.timings[0].rate
    logger.info(
        f"backend: {best.backend} {best.precision} (the fastest measured on this machine: {best.rate:.3g} "
        f"images/s, {ratio:.2f} times torch fp32)"
    )
    return best.backend, best.precision


def cpu_name() -> str:
    """Return the processor, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="ignore").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _timings() -> KeyedStore:
    return KeyedStore(cache_folder() / "timings", ".json")


def _key(digest: str) -> str:
    versions = {"medzsad": __version__, "torch": torch.__version__}
    versions |= {package: version_of(backend) for backend, package in PACKAGES.items()}
    return hash_settings([digest, cpu_name(), versions])[:32]
