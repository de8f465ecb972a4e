"""DICOMweb servers as MONAI Label's datastore, with all that is a scan and nothing else."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from cachetools import TTLCache, cached
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.utils.dicom import dicom_web_download_series
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException

from medzsad.errors import BadInput
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality
from medzsad.storage.cache import locked

_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")

# Modality (0008,0060) of series that are no scans: DICOM PS3.3 C.7.3.1.1.1.
NO_SCANS = frozenset(
    (
        "SEG", "SR", "PR", "KO", "DOC", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "REG", "FID", "AU", "ECG",
        "EPS", "HD", "PLAN", "M3D", "ANN",
    )
)  # fmt: skip
_KNOWN = {
    "CT": Modality.CT,
    "MR": Modality.MR,
    "US": Modality.US,
    **dict.fromkeys(("CR", "DX", "MG", "RG", "XA", "RF"), Modality.XRAY),
}


class ScanStore(DICOMWebDatastore):
    """MONAI Label's DICOMweb store without series of results, plans and notes."""

    @cached(cache=TTLCache(maxsize=16, ttl=settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY))
    def list_images(self) -> list[str]:
        """Return the series that may be scans."""
        found = self._client.search_for_series(search_filters=self._search_filter)
        return [_value(series, "0020000E") for series in found if _value(series, "00080060") not in NO_SCANS]

    def series_folder(self, image_id: str) -> Path:
        """Where the series' DICOM files are, once it is fetched."""
        return Path(self._datastore.image_path()).resolve() / image_id

    def get_image_uri(self, image_id: str) -> str:
        """Return the series as NIfTI, fetched and converted when it is asked for first.

        Requests and the scoring process may want the same series at once, and a connection may break: one at
        a time, and only whole series count.

        Raises:
            ImageNotFoundException: if ``image_id`` cannot be a series.
            BadInput: if the series is no volume that ITK can read.
        """
        if not _UID.fullmatch(image_id):  # it becomes part of a path
            raise ImageNotFoundException(f"there is no image {image_id!r}")
        folder = self.series_folder(image_id)
        with locked(folder.with_name(f"{image_id}.lock")):
            if not folder.is_dir():
                self._fetch(image_id, folder)
            try:
                path = Path(super().get_image_uri(image_id))
            except RuntimeError as error:
                raise BadInput("the series is no volume that can be converted to NIfTI") from error
            kept = folder.with_name(f"{image_id}.nii.gz")
            if path not in (kept, folder) and kept.is_file():  # the file that the kept one is a copy of
                path.unlink(missing_ok=True)
                return str(kept)
        return str(path)

    def save_label(
        self,
        image_id: str,
        label_filename: str,
        label_tag: str,
        label_info: dict[str, Any],
        label_id: str = "",
    ) -> str:
        """As the base class: final labels also go to the server, as DICOM Segmentation.

        Raises:
            BadInput: if they would lie in a wrong place there, or be empty.
        """
        if label_tag == DefaultLabelTag.FINAL:
            self.get_image_uri(image_id)
            _require_plain_stack(self.series_folder(image_id))
            _require_something(label_filename)
        return super().save_label(image_id, label_filename, label_tag, label_info, label_id)

    def _fetch(self, image_id: str, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder.parent))
        try:
            dicom_web_download_series(None, image_id, str(temporary), self._client, self._fetch_by_frame)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def as_scan_store(store: Datastore) -> Datastore:
    """Return a DICOMweb store as :class:`ScanStore`; other stores as they are."""
    if type(store) is DICOMWebDatastore:
        # MONAI Label makes it from a dozen settings; only the way it lists images is another one.
        store.__class__ = ScanStore
    return store


def modality_of(store: Datastore, image: str) -> str | None:
    """Return the modality that the store knows of an image, for :func:`medzsad.read_scan`.

    None where it knows none.
    A DICOM series comes as NIfTI, which does not say how it was acquired.
    """
    known = _KNOWN.get(str(store.get_image_info(image).get("Modality", "")))
    return None if known is None else str(known)


def _require_plain_stack(series: Path) -> None:
    # MONAI Label writes labels of such series with the positions of slices that were never acquired.
    if read_scan(series).details.get("geometry", {}).get("resampled"):
        raise BadInput(
            "the series has gantry tilt or uneven spacing, and MONAI Label would store its label in a wrong "
            "place; label it as NIfTI, from a folder"
        )


def _require_something(label: str) -> None:
    import SimpleITK

    if label.endswith(".bin"):  # bare voxels, which the base class brings into the series' shape
        return
    try:
        marked = bool(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(label)).any())
    except RuntimeError as error:
        raise BadInput("the label is no file that can be read") from error
    if not marked:
        raise BadInput("the label is empty, and MONAI Label cannot store that as DICOM Segmentation")


def _value(series: dict[str, Any], tag: str) -> str:
    values = series.get(tag, {}).get("Value") or [""]
    return str(values[0])
