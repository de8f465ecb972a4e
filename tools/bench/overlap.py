"""What it is worth to read the next scan and write the last one while one is predicted.

    python tools/bench/overlap.py SCAN --model medzsad-mini --count 6 --repeats 3

Copies of a scan (a file, or a DICOM series in a folder) are predicted one after another, then with reading
and writing beside (as ``medzsad predict FOLDER`` does), and by two processes (``--jobs 2``), in turns, each
time in a process of its own, from its start.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe

MODES = ("one after another", "reading and writing beside", "two processes")


def measure(mode: str, inputs: str, out: str, model: str) -> None:
    """Predict the scans of a folder, and print the peak of this process's memory."""
    from medzsad.batch.manifest import read_manifest
    from medzsad.batch.overlap import overlapped
    from medzsad.batch.predictor import PredictSettings, describe, digest_of
    from medzsad.batch.processes import in_processes
    from medzsad.batch.watch import Watch
    from medzsad.batch.worker import Job, Worker
    from medzsad.heap import keep_freed_memory
    from medzsad.threads import limit_threads

    keep_freed_memory()  # this and the next as the command does
    limit_threads()
    settings = PredictSettings(model=model)
    job = Job(settings, digest_of(describe(settings)), out)
    items = read_manifest([inputs])
    if mode == MODES[2]:
        rows = list(in_processes(items, job, 2))
    else:
        worker = Worker(job)
        worker.store.prepare()
        one_by_one = mode == MODES[0]
        rows = list(map(worker, items) if one_by_one else overlapped(worker, items, Watch()))
    assert all(row.status == "done" for row in rows), rows
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"memory": 1024 * max(peaks)}))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--model", default="medzsad-mini")
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.mode:
        measure(args.mode, str(args.scan), args.out, args.model)
        return
    print(describe())
    suffix = "" if args.scan.is_dir() else "".join(args.scan.suffixes[-2:])
    best: dict[str, tuple[float, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "in"
        inputs.mkdir()
        copy = shutil.copytree if args.scan.is_dir() else shutil.copy
        for number in range(args.count):
            copy(args.scan, inputs / f"scan{number:02}{suffix}")
        for repeat in range(args.repeats):
            for mode in MODES:
                out = f"{folder}/out-{repeat}-{MODES.index(mode)}"
                command = [
                    sys.executable,
                    __file__,
                    inputs,
                    "--model",
                    args.model,
                    "--mode",
                    mode,
                    "--out",
                    out,
                ]
                begin = time.perf_counter()
                done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
                seconds = time.perf_counter() - begin
                memory = json.loads(done.stdout.splitlines()[-1])["memory"]
                best[mode] = min(best.get(mode, (seconds, memory)), (seconds, memory))
    print("| scans | s | times as fast | peak memory of a process, GB |\n|---|---|---|---|")
    for mode, (seconds, memory) in best.items():
        print(f"| {mode} | {seconds:.1f} | {best[MODES[0]][0] / seconds:.2f} | {memory / 1e9:.1f} |")


if __name__ == "__main__":
    main()
