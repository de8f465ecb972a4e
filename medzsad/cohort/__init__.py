"""Many scans: one after another into one folder, or a cohort by several processes or a Ray cluster."""

from __future__ import annotations

from medzsad.cohort.names import unique_names
from medzsad.cohort.one_by_one import predict_many
from medzsad.cohort.outcome import Outcome

__all__ = ["Outcome", "predict_many", "unique_names"]
