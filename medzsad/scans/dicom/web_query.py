"""Studies that a DICOMweb server finds (QIDO-RS)."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from medzsad.errors import BadInput, certain
from medzsad.scans.dicom.web import SCHEMES, RemoteSeries, connected

PAGE = 200
QUERY = re.compile(r"(dicomwebs?)://([^?]+?)/studies/?(?:\?(.*))?", re.IGNORECASE)
FILTER = re.compile(r"[A-Za-z]+|[0-9A-Fa-f]{8}")


def is_query(text: str) -> bool:
    """Whether a text is ``dicomweb://host/path/studies[?Filter=value&...]`` (``dicomwebs://`` for https)."""
    return QUERY.fullmatch(text.strip()) is not None


def find_studies(text: str, headers: dict[str, str]) -> list[str]:
    """Return the studies that a query finds.

    Args:
        text: see :func:`is_query`; filters are DICOM keywords or tags, such as ``ModalitiesInStudy=MR`` and
            ``StudyDate=20260101-20260131``.
        headers: see :func:`~medzsad.scans.dicom.web.access_headers`.

    Returns:
        A ``dicomweb://`` URL of each study, in the order of their UIDs.

    Raises:
        BadInput: the server cannot be reached, refuses, or finds nothing; or a filter is no DICOM keyword.
    """
    match = certain(QUERY.fullmatch(text.strip()))
    scheme, place = match[1].lower(), match[2].rstrip("/")
    server = f"{SCHEMES[scheme]}://{place}"
    RemoteSeries(server, "1")  # refuses what is no URL, or has a password in it
    filters = dict(parse_qsl(match[3] or "", keep_blank_values=True))
    for name in filters:
        if not FILTER.fullmatch(name):
            raise BadInput(f"{server}: {name!r} is no DICOM keyword or tag to look for.")
    found: set[str] = set()
    with connected(server, headers, f"{server}/studies") as client:
        while True:
            # Some servers send all at once, some their own number; only new ones tell that there are more.
            answers = client.search_for_studies(limit=PAGE, offset=len(found), search_filters=filters or None)
            new = {str(uid) for entry in answers for uid in entry.get("0020000D", {}).get("Value", [])}
            if not new - found:
                break
            found |= new
    if not found:
        # The filters are not quoted: they may name a patient.
        raise BadInput(f"{server}/studies: the server finds no study for the query; check its filters.")
    return [f"{scheme}://{place}/studies/{uid}" for uid in sorted(found)]
