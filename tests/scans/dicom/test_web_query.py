"""Studies that a real Orthanc finds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dicom_factory import ramp, write_series
from orthanc_server import ACCESS, orthanc

from medzsad.batch.manifest import read_manifest
from medzsad.errors import BadInput
from medzsad.scans.dicom import web_query as dicomweb_query
from medzsad.scans.dicom.web import access_headers, store_files
from medzsad.scans.dicom.web_query import find_studies, is_query

pytest.importorskip("dicomweb_client")

STUDIES = [f"1.2.826.0.1.3680043.8.498.9{number}" for number in range(5)]
HEADERS = access_headers([ACCESS])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The ``dicomweb://`` URL of an Orthanc that holds five studies, one of them of CT."""
    source = tmp_path_factory.mktemp("source")
    for number, study in enumerate(STUDIES):
        tags = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "StudyID": "1"}
        modality = "CT" if number == 3 else "MR"
        write_series(source / str(number), ramp(2), [0, 2], Modality=modality, PatientID=f"p{number}", **tags)
    with orthanc(tmp_path_factory.mktemp("orthanc")) as url:
        store_files(url, sorted(source.rglob("*.dcm")), HEADERS)
        yield url.replace("http://", "dicomweb://")


@pytest.mark.parametrize("page", [200, 2])
def test_all_studies_are_found_page_by_page(server, monkeypatch, page):
    monkeypatch.setattr(dicomweb_query, "PAGE", page)
    found = find_studies(f"{server}/studies", HEADERS)
    assert found == [f"{server}/studies/{study}" for study in STUDIES]


def test_filters_choose_and_a_manifest_names_what_they_find(server):
    (item,) = read_manifest([f"{server}/studies?ModalitiesInStudy=CT"], HEADERS)
    assert item.source == f"{server}/studies/{STUDIES[3]}"
    assert STUDIES[3] not in item.id
    assert len(find_studies(f"{server}/studies?PatientID=p*", HEADERS)) == 5


def test_what_is_not_found_or_no_filter(server):
    with pytest.raises(BadInput, match="finds no study") as caught:
        find_studies(f"{server}/studies?PatientID=Miller", HEADERS)
    assert "Miller" not in str(caught.value)
    with pytest.raises(BadInput, match="no DICOM keyword"):
        find_studies(f"{server}/studies?Patient-Name=x", HEADERS)
    with pytest.raises(BadInput, match="refuses access"):
        find_studies(f"{server}/studies", {})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("dicomweb://h/dw/studies", True),
        ("dicomwebs://h/studies?StudyDate=20260101", True),
        ("dicomweb://h/dw/studies/1.2.3", False),
        ("h/studies", False),
    ],
)
def test_what_is_a_query(text, wanted):
    assert is_query(text) is wanted
