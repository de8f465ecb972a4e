"""What can go wrong, as the few kinds a caller may want to tell apart.

A message is one line: what is wrong, with which file, and what to do about it; only what must be done by hand
to get a model without a network is numbered, a step a line. The command line prints it and
exits with :attr:`MedzsadError.exit_code`, without a traceback.
"""

from __future__ import annotations


class MedzsadError(Exception):
    """Base of every error that is the input's, the settings' or the surroundings' fault, never a bug."""

    exit_code = 2


class BadInput(MedzsadError):  # noqa: N818 - reads as what it is where it is raised
    """A scan, image, folder or option that cannot be used as given."""


class ModelNotReady(MedzsadError):  # noqa: N818
    """A detector that cannot be built: unknown name, missing weights, or a checkpoint that cannot be read."""


class OutputNotWritable(MedzsadError):  # noqa: N818
    """A place that results cannot be written to."""


class GeometryWarning(UserWarning):
    """Something about a scan's geometry or intensities was repaired or assumed, and the user should know."""
