"""Many scans: one after another into one folder, or a cohort by several processes or a Ray cluster."""

from __future__ import annotations

from medzsad.batch.manifest import unique_names
from medzsad.batch.run import predict_many, run_cohort

__all__ = ["predict_many", "run_cohort", "unique_names"]
