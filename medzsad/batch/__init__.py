"""Many scans: one after another into one folder, or a cohort by several processes or a Ray cluster."""

from __future__ import annotations

from medzsad.batch.names import unique_names
from medzsad.batch.one_by_one import predict_many
from medzsad.batch.outcome import Outcome

__all__ = ["Outcome", "predict_many", "unique_names"]
