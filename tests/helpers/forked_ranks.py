"""Trainings by two processes each, forked from one that has imported all: ``torchrun`` without its starts.

``python forked_ranks.py '[["train", "-c", ...], ...]'`` runs the command lines one after another.
"""

from __future__ import annotations

import json
import os
import socket
import sys

import medzsad.cli.train
import medzsad.monai
import medzsad.training.train  # noqa: F401 - before the forks, so that no process imports it
from medzsad.cli.main import run

PROCESSES = 2


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train_together(arguments: list[str]) -> int:
    """Run a command line in every rank; return the highest exit code."""
    port, ranks = free_port(), []
    for rank in range(PROCESSES):
        child = os.fork()
        if child == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(PROCESSES))
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            code = run(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        ranks.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ranks)


if __name__ == "__main__":
    sys.exit(max(train_together(arguments) for arguments in json.loads(sys.argv[1])))
