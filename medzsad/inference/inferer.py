"""Slice-wise inference as MONAI knows inference."""

from __future__ import annotations

from monai.inferers import Inferer

from medzsad.inference.slicewise import SliceWise


class SliceWiseInferer(SliceWise, Inferer):
    """:class:`~medzsad.inference.slicewise.SliceWise`, wherever MONAI takes an ``Inferer``."""
