"""Command lines in forked processes with limits of time and memory: no start of Python each."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from fuzz_cases import KINDS, kind_of

SECONDS = 90  # of a case, by the clock; the machine may be busy
CPU_SECONDS = 10
MEMORY = 1_200_000_000  # bytes beyond what the parent has


@dataclass
class Outcome:
    """How a case ended: the exit code (negative: a signal), what it printed, and what it left behind."""

    number: int
    kind: str
    arguments: list[str]
    code: int
    seconds: float
    output: str
    left: list[str]

    @property
    def faults(self) -> list[str]:
        """What is wrong with it; empty if all is well."""
        found = []
        if self.code not in (0, 2):
            found.append(f"exit code {self.code}")
        found += [word for word in ("Traceback", "internal error", "Warning:") if word in self.output]
        if "\x1b" in self.output or "\x07" in self.output:
            found.append("a raw control character")
        if "Planted" in self.output or "SECRET" in self.output:
            found.append("patient data")
        if (
            self.code == 2
            and sum(line.startswith(("error:", "Error:")) for line in self.output.splitlines()) != 1
        ):
            found.append("not one line that says what is wrong")
        return found + [f"left behind {name}" for name in self.left]


def run_case(number: int, seed: int, base: Path, place: Path) -> Outcome:
    """Make and run the case of this number in a folder of its own, which is removed unless it went wrong."""
    folder = place / f"case-{number}"
    (folder / "in").mkdir(parents=True)
    (folder / "tmp").mkdir()
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        _in_child(number, seed, base, folder)
    code = _wait(child, start)
    seconds = time.perf_counter() - start
    arguments = (
        (folder / "arguments").read_text(errors="replace").split("\0")
        if (folder / "arguments").is_file()
        else []
    )
    output = (folder / "output").read_text(errors="replace") if (folder / "output").is_file() else ""
    left = [str(path.relative_to(folder)) for path in (folder / "tmp").rglob("*")]
    left += [
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.name.startswith(".medzsad-") or "EXECUTED" in p.name
    ]
    outcome = Outcome(number, kind_of(number), arguments, code, seconds, output, left)
    if not outcome.faults:
        shutil.rmtree(folder)
    return outcome


def _in_child(number: int, seed: int, base: Path, folder: Path) -> None:
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        out = os.open("output", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
        os.environ.update(
            TMPDIR=str(folder / "tmp"), MEDZSAD_CACHE=str(folder / "cache"), MEDZSAD_DATA=str(folder / "in")
        )
        rng = random.Random(seed * 1_000_003 + number)
        arguments, environment = KINDS[kind_of(number)][1](folder / "in", base, rng)
        arguments = [part.replace("\0", "") for part in arguments]
        Path("arguments").write_text("\0".join(arguments), errors="backslashreplace")
        os.environ.update(environment)
        if environment.get("HOME") == "":
            del os.environ["HOME"]
        import tempfile

        tempfile.tempdir = None
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000_000, 200_000_000))
        from medzsad.cli.main import run
        from medzsad.cli.terminal import guard

        guard()
        code = run(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _wait(child: int, start: float) -> int:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.perf_counter() - start > SECONDS:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -signal.SIGKILL
        time.sleep(0.005)
