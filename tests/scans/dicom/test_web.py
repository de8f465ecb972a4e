"""Series from a DICOMweb server and results to it, against a real Orthanc."""

from __future__ import annotations

import http.server
import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import SERIES, image, ramp, save, write, write_series
from orthanc_server import ACCESS, orthanc

from medzsad.errors import BadInput
from medzsad.scans.dicom.web import RemoteSeries, access_headers, fetch_series, parse_remote, store_files
from medzsad.scans.readers import read_scan

pytest.importorskip("dicomweb_client")

STUDY = "1.2.826.0.1.3680043.8.498.9"
SMALL_SERIES = "1.2.826.0.1.3680043.8.498.2"
TAGS = {"StudyID": "1", "SeriesNumber": 4}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An Orthanc that holds a study of two series and a structured report."""
    source = tmp_path_factory.mktemp("source")
    write_series(source / "large", ramp(5), [0, 2, 4, 6, 8], **TAGS)
    write_series(source / "small", ramp(3), [0, 2, 4], **(TAGS | {"SeriesInstanceUID": SMALL_SERIES}))
    report = image(ramp(1)[0], Modality="SR", SeriesInstanceUID="1.2.3.5", **TAGS)
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(report, keyword)
    save(report, source / "report.dcm")
    with orthanc(tmp_path_factory.mktemp("orthanc")) as url:
        store_files(url, sorted(source.rglob("*.dcm")), access_headers([ACCESS]))
        yield url


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("dicomweb://h:80/dw/studies/1.2", RemoteSeries("http://h:80/dw", "1.2")),
        ("dicomwebs://h/studies/1.2/series/3.4", RemoteSeries("https://h", "1.2", "3.4")),
        ("DICOMWEB://h/a/b/studies/1.2/", RemoteSeries("http://h/a/b", "1.2")),
        ("scan.nii.gz", None),
        ("/a/studies/b", None),
    ],
)
def test_urls(text, wanted):
    assert parse_remote(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "dicomweb://host/dicom-web",
        "dicomweb://host/studies/abc",
        "dicomweb://host/studies/1.2/series/../..",
        "dicomweb://me:open-sesame@host/dicom-web/studies/1.2",
        "dicomweb://me:open-sesame@host/dicom-web",
        "dicomweb://me:open-sesame@[::1/studies/1.2",
        "dicomweb://me:open-sesame@host:port/studies/1.2",
    ],
)
def test_bad_urls_are_refused_without_their_passwords(text):
    with pytest.raises(BadInput) as caught:
        parse_remote(text)
    assert "open-sesame" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_headers_come_from_options_and_environment(monkeypatch):
    monkeypatch.delenv("MEDZSAD_DICOMWEB_HEADERS", raising=False)
    monkeypatch.delenv("MEDZSAD_DICOMWEB_TOKEN", raising=False)
    assert access_headers() == {}
    monkeypatch.setenv("MEDZSAD_DICOMWEB_TOKEN", "abc\n")
    monkeypatch.setenv("MEDZSAD_DICOMWEB_HEADERS", "X-One: 1\nX-Two: a: b")
    wanted = {"Authorization": "Bearer abc", "X-One": "1", "X-Two": "a: b"}
    assert access_headers() == wanted
    assert access_headers(["Authorization: Basic xyz"]) == wanted | {"Authorization": "Basic xyz"}
    for line in ("hush-hush", "na me: hush-hush", "Name: hush-hush\r\nOther: 1"):
        with pytest.raises(BadInput) as caught:
            access_headers([line])
        assert "hush" not in str(caught.value)


def test_a_series_arrives_as_it_is(server, tmp_path):
    folder = fetch_series(RemoteSeries(server, STUDY, SERIES), tmp_path, access_headers([ACCESS]))
    assert folder.name.startswith("CT_4_")
    assert len(list(folder.iterdir())) == 5
    np.testing.assert_array_equal(read_scan(folder).voxels, ramp(5).transpose(2, 1, 0))


def test_the_largest_series_is_chosen_as_in_a_folder(server, tmp_path):
    folder = fetch_series(RemoteSeries(server, STUDY), tmp_path, access_headers([ACCESS]))
    assert read_scan(folder).details["series_uid"] == SERIES
    folder = fetch_series(RemoteSeries(server, STUDY, "498.2"), tmp_path / "b", access_headers([ACCESS]))
    assert read_scan(folder).details["series_uid"] == SMALL_SERIES


@pytest.mark.parametrize(
    ("study", "series", "message"),
    [
        ("1.9.9", None, "no such study"),
        (STUDY, "7.7", r"no series that `series` 7\.7 names"),
        (STUDY, "1.2.3.5", r"no series that `series` 1\.2\.3\.5 names"),
    ],
)
def test_what_is_not_there(server, tmp_path, study, series, message):
    with pytest.raises(BadInput, match=message) as caught:
        fetch_series(RemoteSeries(server, study, series), tmp_path, access_headers([ACCESS]))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value).lower()


def test_who_is_not_let_in(server, tmp_path, caplog):
    wrong = "Authorization: Basic d3Jvbmc6b3Blbi1zZXNhbWU="
    with caplog.at_level("DEBUG"), pytest.raises(BadInput, match="refuses access \\(401\\)") as caught:
        fetch_series(RemoteSeries(server, STUDY), tmp_path, access_headers([wrong]))
    assert "d3Jvbmc6" not in str(caught.value) + caplog.text


def test_secrets_are_not_logged(server, tmp_path, caplog):
    with caplog.at_level("DEBUG"):
        fetch_series(RemoteSeries(server, STUDY), tmp_path, access_headers([ACCESS]))
    assert caplog.records
    assert ACCESS.split()[-1] not in caplog.text


@pytest.mark.parametrize(
    ("status", "message"), [(403, "refuses access"), (404, "no such thing"), (500, "500")]
)
def test_servers_that_fail(file_server, tmp_path, status, message):
    # The client names the fields it wants in any order.
    for fields in itertools.permutations(["SeriesNumber", "Modality"]):
        query = "&".join(f"includefield={field}" for field in fields)
        file_server.statuses[f"/studies/{STUDY}/series?{query}"] = status
    with pytest.raises(BadInput, match=message):
        fetch_series(RemoteSeries(file_server.url, STUDY), tmp_path, {})
    assert len(file_server.requests) == 1


@contextmanager
def listener(sends_to: str | None = None) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that sends everybody on, or away, and the headers that it was asked with."""
    seen: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(302 if sends_to else 404)
            if sends_to:
                self.send_header("Location", sends_to + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def test_secrets_stay_with_their_server(tmp_path):
    headers = {"X-Api-Key": "open-sesame", "Authorization": "Bearer open-sesame"}
    with (
        listener() as (other, stray),
        listener(sends_to=other) as (url, asked),
        pytest.raises(BadInput, match="404"),
    ):
        fetch_series(RemoteSeries(url, STUDY), tmp_path, headers)
    assert asked[0]["x-api-key"] == "open-sesame"
    assert len(stray) == 1
    assert "open-sesame" not in repr(stray)


def test_nobody_listens(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(BadInput, match="cannot be reached"):
        fetch_series(RemoteSeries(f"http://127.0.0.1:{port}", STUDY), tmp_path, {})


def test_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("medzsad.scans.dicom.web.TIMEOUT_S", (5, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BadInput, match="does not answer in time"):
            fetch_series(RemoteSeries(url, STUDY), tmp_path, {})


def test_what_is_stored_can_be_asked_for(server, tmp_path):
    headers = access_headers([ACCESS])
    file = write(tmp_path / "new.dcm", ramp(1)[0], SeriesInstanceUID="1.2.3.6", StudyInstanceUID="1.2.3.4")
    assert store_files(server, [file], headers) == 1
    assert store_files(server, [file], headers) == 1  # again: it is known, and that is fine
    (fetched,) = fetch_series(RemoteSeries(server, "1.2.3.4"), tmp_path / "back", headers).iterdir()
    assert pydicom.dcmread(fetched).SOPInstanceUID == pydicom.dcmread(file).SOPInstanceUID


def test_an_object_that_is_not_taken_is_named(server, tmp_path):
    dataset = image(ramp(1)[0])
    dataset.PatientID = None
    del dataset.StudyInstanceUID  # without which a server cannot file it
    file = Path(save(dataset, tmp_path / "lost.dcm"))
    with pytest.raises(BadInput, match=r"lost\.dcm|400|409"):
        store_files(server, [file], access_headers([ACCESS]))
