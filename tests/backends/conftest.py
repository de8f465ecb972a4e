from __future__ import annotations

import sys
from pathlib import Path

# Makes graph_cases importable: tests are collected without touching ``sys.path``.
sys.path.append(str(Path(__file__).parent))
