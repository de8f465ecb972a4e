"""Who was scanned. Kept apart: nothing else in this package reads these tags, and scans do not carry them."""

from __future__ import annotations

from pathlib import Path

from medzsad.scans.dicom.files import dicom_files, is_dicom, quiet
from medzsad.scans.scan import Scan

IDENTITY_TAGS = {"PatientName": "Patient name", "PatientID": "Patient ID", "StudyDate": "Study date"}


def read_identity(scan: Scan) -> dict[str, str]:
    """Patient name, patient ID and study date as the scan's DICOM source states them.

    The first file of the scan's own series that can be read is taken.

    Returns:
        Label and value of what is there; empty for other formats, or where the source is gone.
    """
    import pydicom

    uid = scan.details.get("series_uid")
    for path in dict.fromkeys(frame.path for frame in scan.frames) or _files(scan.source):
        try:
            with quiet():
                header = pydicom.dcmread(
                    path,
                    force=True,
                    stop_before_pixels=True,
                    specific_tags=["SeriesInstanceUID", *IDENTITY_TAGS],
                )
                if uid and str(header.get("SeriesInstanceUID")) != uid:
                    continue
                values = {label: str(header.get(tag) or "") for tag, label in IDENTITY_TAGS.items()}
        except Exception:  # pydicom raises whatever its parser stumbles over; another file may do
            continue
        return {label: value for label, value in values.items() if value}
    return {}


def _files(source: Path) -> list[Path]:
    if source.name.upper() == "DICOMDIR":
        source = source.parent
    if source.is_dir():
        return dicom_files(source)[0]
    return [source] if source.is_file() and is_dicom(source) else []
