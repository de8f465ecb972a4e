"""Series from a DICOMweb server (WADO-RS), and results back to it (STOW-RS)."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from medzsad.errors import BadInput
from medzsad.scans.dicom.collect import choose_series
from medzsad.scans.dicom.files import NOT_IMAGES, TAGS, not_an_image, quiet
from medzsad.scans.dicom.frames import Frame, frames_of

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient
    from pydicom import Dataset

SCHEMES = {"dicomweb": "http", "dicomwebs": "https", "http": "http", "https": "https"}
TOKEN_VARIABLE, HEADERS_VARIABLE = "MEDZSAD_DICOMWEB_TOKEN", "MEDZSAD_DICOMWEB_HEADERS"
TIMEOUT_S = (10, 300)  # to connect, and between two parts of an answer
UID = re.compile(r"[0-9.]{1,64}")
AS_STORED = (("application/dicom", "*"),)


@dataclass(frozen=True)
class RemoteSeries:
    """Where a series lies.

    Attributes:
        server: ``http://`` or ``https://`` URL of the DICOMweb service.
        study: StudyInstanceUID.
        series: SeriesInstanceUID, or a beginning or end that only one has; None for the largest.
    """

    server: str
    study: str
    series: str | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.server)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # an odd port, or brackets of no IPv6 address
            valid = False
        if not valid:
            raise BadInput(
                f"{_shown(self.server)} is no DICOMweb URL; it looks like http://host:port/dicom-web."
            )
        if parts.username or parts.password or parts.query:
            raise BadInput(
                f"{_shown(self.server)}: credentials do not belong into a URL, which is shown; use "
                f"`headers` or {TOKEN_VARIABLE}."
            )
        for uid in (self.study, self.series):
            if uid is not None and not UID.fullmatch(uid):
                raise BadInput(f"{uid!r} is no DICOM UID (digits and dots).")

    def __str__(self) -> str:
        return f"{self.server}/studies/{self.study}" + (f"/series/{self.series}" if self.series else "")


def parse_remote(text: str) -> RemoteSeries | None:
    """``dicomweb://host/path/studies/UID[/series/UID]`` (http) or ``dicomwebs://...`` (https).

    Returns:
        None if ``text`` is no such URL.

    Raises:
        BadInput: it is one, but names no study.
    """
    scheme, mark, rest = text.partition("://")
    if not mark or scheme.lower() not in ("dicomweb", "dicomwebs"):
        return None
    match = re.fullmatch(r"(.+?)/studies/([^/]+)(?:/series/([^/]+))?/?", rest)
    if not match:
        raise BadInput(f"{_shown(text)} names no study; it looks like dicomweb://host/dicom-web/studies/UID.")
    return RemoteSeries(f"{SCHEMES[scheme.lower()]}://{match[1].rstrip('/')}", match[2], match[3])


def access_headers(given: Iterable[str] = ()) -> dict[str, str]:
    """HTTP headers that open the server, from ``"Name: value"`` lines; these are secrets.

    ``MEDZSAD_DICOMWEB_TOKEN`` becomes a bearer token, ``MEDZSAD_DICOMWEB_HEADERS`` holds lines; what is
    ``given`` wins.

    Raises:
        BadInput: a line without a colon. It is not quoted.
    """
    headers = {}
    if os.environ.get(TOKEN_VARIABLE):
        headers["Authorization"] = f"Bearer {os.environ[TOKEN_VARIABLE].strip()}"
    for line in [*os.environ.get(HEADERS_VARIABLE, "").splitlines(), *given]:
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not re.fullmatch(r"[A-Za-z0-9-]+", name) or not value.isprintable():
            raise BadInput('a DICOMweb header is no "Name: value" (it is not shown: it is secret).')
        headers[name] = value
    return headers


def fetch_series(remote: RemoteSeries, folder: Path, headers: dict[str, str]) -> Path:
    """Download a series.

    Without a series UID, the study's series are told apart by their headers, as those of a folder are.

    Args:
        remote: which.
        folder: an existing one; a folder named after modality, series number and UID is made in it.
        headers: see :func:`access_headers`.

    Returns:
        That folder, with a DICOM file for each instance.

    Raises:
        BadInput: the server cannot be reached, refuses, or has no such images.
    """
    with connected(remote.server, headers, str(remote)) as client:
        uid, modality, number = _chosen(client, remote)
        tail = re.sub(r"[^0-9]", "-", uid[-8:])
        name = "_".join(part for part in (modality, number, tail) if part)
        target = folder / name
        target.mkdir(parents=True)
        count = 0
        with quiet():
            for count, instance in enumerate(client.iter_series(remote.study, uid, AS_STORED), start=1):
                _save(instance, target / f"{name}_{count:04d}.dcm")
        if not count:
            raise BadInput(f"{remote}: the server sent no images of the series; does it have them?")
    return target


def store_files(server: str, files: Sequence[Path], headers: dict[str, str]) -> int:
    """Send DICOM files, one by one; the server must confirm each.

    Returns:
        How many were sent.

    Raises:
        BadInput: the server cannot be reached, or does not take one; those before it are stored.
    """
    import pydicom

    with connected(server, headers, server) as client:
        for number, file in enumerate(files):
            with quiet():
                dataset = pydicom.dcmread(file)
                answer = client.store_instances([dataset])
            taken = {str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence") or []}
            if str(dataset.SOPInstanceUID) not in taken:
                failed = answer.get("FailedSOPSequence") or []
                reason = f" (failure reason {failed[0].get('FailureReason')})" if failed else ""
                raise BadInput(
                    f"{server} did not confirm {file.name}{reason}; {number} of {len(files)} results are "
                    "stored there, and all are on disk."
                )
    return len(files)


def _chosen(client: DICOMwebClient, remote: RemoteSeries) -> tuple[str, str, str]:
    """UID, modality and number of the series to read."""
    found = {}
    for entry in client.search_for_series(remote.study, fields=["SeriesNumber", "Modality"]):
        header = _header(entry)
        uid = str(header.get("SeriesInstanceUID") or "")
        if uid:
            found[uid] = header
    if not found:
        raise BadInput(f"{remote}: the server has no such study, or it has no series; check the UID.")
    images = [uid for uid, header in found.items() if str(header.get("Modality") or "") not in NOT_IMAGES]
    uid = remote.series or ""
    if uid not in images:
        if not images:
            raise BadInput(f"{remote}: the study holds no images.")
        frames = [frame for candidate in images for frame in _frames(client, remote, candidate)]
        if not frames:
            raise BadInput(f"{remote}: the study holds no images.")
        _, uid, _ = choose_series(frames, remote.series, Path(remote.study))
    modality = re.sub(r"[^A-Z]", "", str(found[uid].get("Modality") or "")) or "DICOM"
    # The server's word becomes part of a path.
    number = re.sub(r"[^0-9]", "", str(found[uid].get("SeriesNumber") or ""))
    return uid, modality, number


def _frames(client: DICOMwebClient, remote: RemoteSeries, uid: str) -> list[Frame]:
    frames: list[Frame] = []
    for entry in client.retrieve_series_metadata(remote.study, uid):
        header = _header(entry)
        if not not_an_image(header):
            with suppress(BadInput):  # a bad header costs no other series; of its own series it is said later
                frames += frames_of(header, Path(uid))
    return frames


def _header(entry: dict[str, Any]) -> Dataset:
    """Return a header from DICOM JSON, with no more in it than :data:`~medzsad.scans.dicom.files.TAGS`."""
    from pydicom import Dataset
    from pydicom.datadict import keyword_for_tag
    from pydicom.dataset import FileMetaDataset

    wanted = {*TAGS, "SeriesNumber"}
    with quiet():
        header = Dataset.from_json({tag: v for tag, v in entry.items() if keyword_for_tag(tag) in wanted})
    header.file_meta = FileMetaDataset()
    return header


def _save(instance: Dataset, path: Path) -> None:
    from pydicom import __version_info__

    if int(__version_info__[0]) >= 3:
        instance.save_as(path, enforce_file_format=True)
    else:
        instance.save_as(path, write_like_original=False)


@contextmanager
def connected(server: str, headers: dict[str, str], what: str) -> Iterator[DICOMwebClient]:
    """Return a client; whatever goes wrong with it is said in one line, without headers."""
    try:
        import requests
        from dicomweb_client import DICOMwebClient
    except ImportError as error:
        raise BadInput(
            'DICOMweb needs dicomweb-client; install it with: pip install "medzsad[dicom]".'
        ) from error
    # UIDs were checked for what could do harm in a URL; a leading zero in one is the server's matter, as it
    # always is to clients before 0.60.1, which do not know the option.
    known = inspect.signature(DICOMwebClient).parameters
    options: dict[str, Any] = {"permissive_uid": True} if "permissive_uid" in known else {}

    class Session(requests.Session):
        """Takes all secrets, not the usual one alone, out of what is redirected to another server.

        Never waits for ever: clients before 0.61 would.
        """

        def send(self, request: Any, **settings: Any) -> Any:
            # A wildcard needs no encoding, and some servers (Orthanc) do not decode it.
            request.url = request.url.replace("%2A", "*")
            return super().send(request, **(settings | {"timeout": TIMEOUT_S}))

        def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
            super().rebuild_auth(prepared_request, response)
            if self.should_strip_auth(response.request.url, prepared_request.url):
                for name in headers:
                    prepared_request.headers.pop(name, None)

    with Session() as session:
        try:
            client = DICOMwebClient(server, session=session, headers=headers, **options)
            client.set_http_retry_params(retry=False)  # it retries for 30 s what nobody listens to
            yield client
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            raise BadInput(f"{what}: {_why(status)}.") from None
        except requests.Timeout:
            raise BadInput(f"{what}: the server does not answer in time; try again later.") from None
        except requests.exceptions.SSLError:
            raise BadInput(f"{what}: the server's certificate is not trusted (REQUESTS_CA_BUNDLE).") from None
        except requests.ConnectionError:
            raise BadInput(f"{what}: the server cannot be reached; check host, port and network.") from None
        except (requests.RequestException, ValueError, KeyError) as error:
            kind = type(error).__name__
            raise BadInput(
                f"{what}: the answer is not that of a DICOMweb service ({kind}); check the URL."
            ) from error


def _why(status: int) -> str:
    if status in (401, 403):
        return (
            f"the server refuses access ({status}); give `headers` 'Authorization: ...' or set "
            f"{TOKEN_VARIABLE}"
        )
    if status == 404:
        return "the server has no such thing (404); check URL and UIDs"
    if status == 409:
        return "the server did not take the object (409)"
    return f"the server answers with status {status}"


def _shown(url: str) -> str:
    """Return a URL without what may be a password."""
    return re.sub(r"(://)[^/@]*@", r"\1", url).partition("?")[0]
