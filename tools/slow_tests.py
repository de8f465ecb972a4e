"""Chooses the tests that the fast lane leaves out, from the times of a run of all that are not marked slow.

    python -m pytest -n auto --dist loadfile -m "not slow" --durations=0 --durations-min=0.05 > times.txt
    python tools/slow_tests.py times.txt --seconds 200 > tests/slow_tests.txt

Functions are left out in the order of how long they take, all their cases together, until what is left takes
no longer than the seconds given. The slow lane runs them.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

TIME = re.compile(r"^\s*([0-9.]+)s (?:call|setup|teardown)\s+(tests/\S+?::[^\[\s]+)", re.MULTILINE)


def main() -> None:
    """Print the names of the slow tests."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("times", type=Path)
    parser.add_argument("--seconds", type=float, default=200.0, help="of what is left, on one core")
    args = parser.parse_args()
    taken: Counter[str] = Counter()
    for seconds, name in TIME.findall(args.times.read_text()):
        taken[name] += float(seconds)
    left, slow = sum(taken.values()), []
    for name, seconds in taken.most_common():
        if left <= args.seconds:
            break
        slow.append(name)
        left -= seconds
    print("\n".join(sorted(slow)))


if __name__ == "__main__":
    main()
