"""A label as DICOM Segmentation, made from the DICOM series itself."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from medzsad.integrations.monailabel.detector_pool import DetectorPool
from medzsad.integrations.monailabel.model_list import OfferedModel
from medzsad.integrations.monailabel.parameters import InferParameters


def write_dicom_seg(
    pool: DetectorPool, model: OfferedModel, series: Path, parameters: InferParameters
) -> Path:
    """Predicts a series, and writes what ``medzsad predict --dicom seg`` does to a temporary file.

    Not MONAI Label's conversion of the NIfTI label: that one knows a series of even spacing at right angles
    alone, and puts the label of one with gantry tilt in a wrong place; and it has no empty segmentations.

    Args:
        pool: the detectors.
        model: what to predict with.
        series: folder of the series' files.
        parameters: ``extension``, ``dtype`` and ``compress`` mean nothing here.

    Returns:
        The file. It holds the patient's identity, as the series does: delete it.

    Raises:
        BadInput: if the series cannot be read, results cannot refer to it, or a parameter does not fit it.
        ModelNotReady: if the model cannot be loaded.
    """
    prediction = pool.predict(model, series, parameters)
    with tempfile.TemporaryDirectory(prefix="medzsad-") as folder:
        written = prediction.save(Path(folder), formats=("dicom-seg",))["dicom-seg"]
        handle, name = tempfile.mkstemp(prefix="medzsad-seg-", suffix=".dcm")
        os.close(handle)
        try:
            return written.replace(name)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
