"""Scans that are fetched from a real Orthanc when their turn comes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cohort_factory import outcomes
from dicom_factory import ramp, write_series
from orthanc_server import ACCESS, orthanc

from medzsad.scans.dicom.web import access_headers, store_files

pytest.importorskip("dicomweb_client")
pytest.importorskip("pyarrow", reason="pyarrow is not installed (medzsad[cohort])")

STUDY, BROKEN = "1.2.826.0.1.3680043.8.498.21", "1.2.826.0.1.3680043.8.498.22"


@pytest.mark.slow
def test_a_query_is_predicted_and_its_uids_stay_out_of_reasons(tmp_path, medzsad):
    for study, constant in ((STUDY, False), (BROKEN, True)):
        voxels = ramp(3) * (not constant)
        tags = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "StudyID": "1"}
        write_series(tmp_path / "source" / study, voxels, [0, 2, 4], PatientID="Miller", **tags)
    out = tmp_path / "out"
    (tmp_path / "orthanc").mkdir()
    with orthanc(tmp_path / "orthanc") as url:
        store_files(url, sorted((tmp_path / "source").rglob("*.dcm")), access_headers([ACCESS]))
        query = url.replace("http://", "dicomweb://") + "/studies?PatientID=Miller"
        options = ["-o", out, "-m", "brightness", "--jobs", "1", "--dicomweb-header", ACCESS, "--json"]
        code, printed, told = medzsad("predict", query, *options)
        assert printed, told
        again = json.loads(medzsad("predict", query, *options)[1])
    document = json.loads(printed)
    assert (code, document["done"], document["failed"]) == (2, 1, 1)
    assert again["already_settled"] == 2
    (reason,) = document["reasons"]
    assert "constant" in reason["error"]
    rows = json.dumps(outcomes(out))
    for text in (printed, told, rows, *map(read, out.rglob("*"))):
        assert not [word for word in ("Miller", "Secret", ACCESS.rpartition(" ")[2]) if word in text]
    for text in (printed, told, rows, *map(str, out.rglob("*"))):
        assert not [uid for uid in (STUDY, BROKEN) if uid in text]


def read(path: Path) -> str:
    return str(path) + (path.read_bytes().decode("latin-1") if path.is_file() else "")
