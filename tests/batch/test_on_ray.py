"""A cohort on a Ray cluster of two nodes on this machine, while a worker is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from cohort_factory import FAST, outcomes, table_rows, times, write_scans

from medzsad.batch.manifest import ScanItem
from medzsad.batch.on_ray import RayWorker, _share, check_address
from medzsad.batch.worker import Job
from medzsad.errors import BadInput

for package in ("ray", "pyarrow"):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed (medzsad[ray])", allow_module_level=True)

GOOD, BAD = 37, 3
# Ray stays out of this process: its threads live on after it has been shut down, beside all later tests.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
# On a busy machine a process may not answer for long, and is alive.
patient = {"health_check_failure_threshold": 60}
head = {**node, "include_dashboard": False, "_system_config": patient}
nodes = Cluster(initialize_head=True, head_node_args=head)
try:
    nodes.add_node(**node)
    print("address", nodes.address, flush=True)
    sys.stdin.read()
finally:
    nodes.shutdown()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two nodes with a CPU each."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    )
    try:
        yield next(line.split()[1] for line in process.stdout if line.startswith("address "))
    finally:
        process.stdin.close()
        process.wait(60)


@pytest.fixture
def medzsad() -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in a process of its own: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "medzsad", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return call


class Killer(threading.Thread):
    """Kills a worker in the middle of a scan, once."""

    def __init__(self, out: Path) -> None:
        super().__init__(daemon=True)
        self.out = out
        self.killed: str | None = None
        self.over = threading.Event()

    def run(self) -> None:
        while self.killed is None and not self.over.wait(0.005):
            with suppress(FileNotFoundError):  # folders are renamed while they are listed
                self._look()

    def _look(self) -> None:
        if len(outcomes(self.out)) < 4:  # the run is not well under way
            return
        for marker in self.out.glob("attempts/case*"):
            self._try(marker)
            return

    def _try(self, marker: Path) -> None:
        content = self._content(marker)
        if content is None:
            return
        pid = int(content.split()[1])
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.2)
        # Stopped while it is at the scan still, it can no longer finish it.
        if self._content(marker) == content and marker.name not in outcomes(self.out):
            self.killed = marker.name
            os.kill(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGCONT)

    def _content(self, marker: Path) -> str | None:
        try:
            text = marker.read_text()
        except OSError:
            return None
        return text if len(text.split()) == 2 else None


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_when_a_worker_is_killed(cluster, tmp_path, medzsad):
    scans, out = write_scans(tmp_path / "in", GOOD, BAD), tmp_path / "out"
    options = ["-m", "brightness", "--overlay", "none", "--ray", cluster, "--json"]
    command = ["predict", scans, "-o", out, *options]
    killer = Killer(out)
    killer.start()
    try:
        code, printed, told = medzsad(*command)
    finally:
        killer.over.set()
        killer.join()
    assert killer.killed is not None
    assert code == 2, told
    document = json.loads(printed)
    assert (document["done"], document["failed"], document["already_settled"]) == (GOOD, BAD, 0)
    assert document["retried"] == 1
    assert {reason["scan"] for reason in document["reasons"]} == {f"corrupt{i}" for i in range(BAD)}
    assert all(reason["error"] for reason in document["reasons"])

    rows = table_rows((out / "scores.parquet").read_bytes())
    names = [f"case{i:02}" for i in range(GOOD)] + [f"corrupt{i}" for i in range(BAD)]
    assert [row["scan"] for row in rows] == names
    assert Counter(row["status"] for row in rows) == {"done": GOOD, "failed": BAD}
    assert {row["scan"]: row["attempts"] for row in rows if row["attempts"] > 1} == {killer.killed: 2}
    assert len(list(out.glob("scans/*/case*/*_anomaly.nii.gz"))) == GOOD
    assert not list(out.glob("attempts/*"))

    before = times(out)
    code, printed, _ = medzsad(*command)
    document = json.loads(printed)
    assert (code, document["already_settled"], document["done"]) == (2, GOOD + BAD, GOOD)
    assert times(out) == before
    assert table_rows((out / "scores.parquet").read_bytes()) == rows


@pytest.mark.slow
def test_scans_that_score_each_other_have_the_same_scores(cluster, tmp_path, medzsad, monkeypatch):
    """Features from the cluster are those of this machine; a scan that cannot be read fails alone."""
    scans = write_scans(tmp_path / "in", 5, 1)
    tables = []
    for name, options in (("here", ["--jobs", "0"]), ("cluster", ["--ray", cluster])):
        monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / f"cache-{name}"))
        out = tmp_path / name
        code, _, err = medzsad("predict", scans, "-o", out, "--mutual", "--overlay", "none", *options)
        assert code == 2, err
        rows = table_rows((out / "scores.parquet").read_bytes())
        tables.append({row["scan"]: (row["status"], row["score"]) for row in rows})
        assert not list(out.glob("features/*"))
    assert tables[0] == tables[1]
    assert len(tables[0]) == 6


@pytest.mark.slow
def test_a_model_that_is_not_ready_stops_all(cluster, tmp_path, medzsad, cache_dir):
    scans = write_scans(tmp_path / "in", 2)
    code, printed, told = medzsad(
        "predict", scans, "-o", tmp_path / "out", "-m", "anomalyclip-visa", "--ray", cluster
    )
    assert (code, printed) == (2, "")
    assert "anomalyclip-visa" in told


@pytest.mark.parametrize("address", ["scans/", "ray://host:10001", "here"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(BadInput, match="`ray`=auto"):
        check_address(address)


@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:no"])
def test_a_cluster_that_is_not_there(tmp_path, medzsad, address):
    scans = write_scans(tmp_path / "in", 1)
    options = ["-o", tmp_path / "out", "-m", "brightness", "--ray", address]
    code, printed, told = medzsad("predict", scans, *options)
    assert (code, printed) == (2, "")
    assert "no Ray cluster" in told.splitlines()[-1]


def test_results_must_lie_where_all_machines_see_them(tmp_path):
    """A folder of the same name on another machine does not have the file of the run's settings."""
    worker = RayWorker(Job(FAST, "", str(tmp_path / "elsewhere")))
    answer = json.loads(worker({"item": json.dumps(asdict(ScanItem("a", "/nowhere/a.nii")))})["row"])
    assert answer["fatal"] == "OutputNotWritable"
    assert "not the same place on all machines" in answer["message"]


@pytest.mark.parametrize(
    ("cluster_has", "device", "jobs", "actors", "each"),
    [
        ({"CPU": 2, "node:a": 1, "node:b": 1}, "auto", None, 2, {"num_cpus": 1}),
        ({"CPU": 64, "node:a": 1, "node:__internal_head__": 1}, "auto", None, 16, {"num_cpus": 4}),
        ({"CPU": 64, "node:a": 1}, "auto", 64, 64, {"num_cpus": 1}),
        ({"CPU": 64, "GPU": 8, "node:a": 1}, "auto", None, 8, {"num_gpus": 1, "num_cpus": 1}),
        ({"CPU": 64, "GPU": 8, "node:a": 1}, "auto", 16, 16, {"num_gpus": 0.5, "num_cpus": 1}),
        ({"CPU": 64, "GPU": 8, "node:a": 1}, "cpu", None, 16, {"num_cpus": 4}),
    ],
)
def test_what_a_worker_gets_of_the_cluster(tmp_path, cluster_has, device, jobs, actors, each):
    job = Job(replace(FAST, device=device), "", str(tmp_path))
    assert _share(cluster_has, job, jobs, 1000) == (actors, each)
