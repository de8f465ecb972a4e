"""Makes the DICOM builders importable: tests are collected without touching ``sys.path``."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "scans")]
