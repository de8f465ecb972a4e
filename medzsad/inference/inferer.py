"""Slice-wise inference as MONAI knows inference."""

from __future__ import annotations

from monai.inferers import Inferer

from medzsad.inference.slicewise import SliceWisePredictor


class SliceWiseInferer(SliceWisePredictor, Inferer):
    """:class:`~medzsad.inference.slicewise.SliceWisePredictor`, wherever MONAI takes an ``Inferer``."""
