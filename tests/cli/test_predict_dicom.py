"""``medzsad predict`` with DICOM results, and from and to a DICOMweb server (a real Orthanc)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_factory import write_series
from dicom_results import IDENTITY, TAGS, new_errors
from orthanc_server import ACCESS, PASSWORD, orthanc

from medzsad.scans.dicom.web import access_headers, store_files

pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")

STUDY = "1.2.826.0.1.3680043.8.498.9"
SECRETS = ("secret", "19700102", ACCESS.split()[-1].lower(), PASSWORD)


def head(folder: Path, **tags: object) -> Path:
    """A small head-like CT series."""
    z, y, x = np.mgrid[-6:6:8j, -16:16:36j, -16:16:40j]
    inside = (x / 13) ** 2 + (y / 12) ** 2 < 1
    voxels = np.where(inside, 35, -1000) + np.random.default_rng(0).normal(0, 3, inside.shape)
    voxels[(x - 4) ** 2 + (y - 3) ** 2 + z**2 < 9] = 75
    return write_series(folder, voxels.astype(np.int16), (3.0 * np.arange(8)).tolist(), **(TAGS | tags))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An Orthanc that holds one study."""
    source = head(tmp_path_factory.mktemp("source") / "head")
    with orthanc(tmp_path_factory.mktemp("orthanc")) as url:
        store_files(url, sorted(source.iterdir()), access_headers([ACCESS]))
        yield url


def test_dicom_results_lie_beside_the_others(medzsad, tmp_path):
    source = head(tmp_path / "head")
    out = tmp_path / "out"
    code, printed, told = medzsad("predict", source, "-o", out, "--dicom", "all,sc", "--json")
    assert code == 0, told
    files = json.loads(printed)["scans"][0]["files"]
    assert {kind for kind in files if kind.startswith("dicom")} == {
        "dicom-seg", "dicom-pm", "dicom-sr", "dicom-sc",
    }  # fmt: skip
    mask = nibabel.load(out / "head_mask.nii.gz")
    segments = pydicom.dcmread(out / "head_seg.dcm").pixel_array
    assert np.count_nonzero(segments) == np.count_nonzero(np.asanyarray(mask.dataobj)) > 0
    for name in ("seg", "pm", "sr"):
        assert new_errors(out / f"head_{name}.dcm", next(source.iterdir())) == set()
    report = (out / "head.json").read_text()
    for secret in SECRETS:
        assert secret not in (report + printed + told).lower()
    assert not any("secret" in path.name.lower() for path in out.rglob("*"))


def test_other_input_and_unknown_objects_are_refused(medzsad, tmp_path):
    nibabel.save(
        nibabel.Nifti1Image(np.random.default_rng(0).random((9, 9, 9)), np.eye(4)), tmp_path / "a.nii"
    )
    code, _, told = medzsad("predict", tmp_path / "a.nii", "-o", tmp_path / "out", "--dicom", "seg")
    assert code == 2
    assert "a.nii is not DICOM" in told
    code, _, told = medzsad("predict", tmp_path / "a.nii", "-o", tmp_path / "out", "--dicom", "seg,rtstruct")
    assert code == 2
    assert "rtstruct" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scan.nii", "--store"], "no input is from one"),
        (["--dicomweb", "http://127.0.0.1:1"], "belong together"),
        (["scan.nii", "--study", "1.2"], "belong together"),
        (["--dicomweb", "ftp://host", "--study", "1.2"], "no DICOMweb URL"),
        (["dicomweb://me:open-sesame-123@host/studies/1.2"], "credentials do not belong into a URL"),
        (["scan.nii", "--with-identity"], "add --report"),
        (["dicomweb://[::1/studies/1.2"], "no DICOMweb URL"),
        (["--dicomweb", "http://host:port/dw", "--study", "1.2"], "no DICOMweb URL"),
        ([], "Missing argument"),
    ],
)
def test_options_that_do_not_fit(medzsad, tmp_path, arguments, message):
    code, _, told = medzsad("predict", *arguments, "-o", tmp_path / "out")
    assert code == 2
    assert message in told
    assert PASSWORD not in told


def test_from_a_server_and_back(medzsad, server, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDZSAD_DICOMWEB_HEADERS", ACCESS)
    out = tmp_path / "out"
    url = f"{server.replace('http', 'dicomweb')}/studies/{STUDY}"
    code, printed, told = medzsad("predict", url, "-o", out, "--store", "--json")
    assert code == 0, told
    assert "3 DICOM objects stored" in told
    scan = json.loads(printed)["scans"][0]
    assert scan["input"] == f"{server}/studies/{STUDY}"
    assert scan["name"].startswith("CT_3_")
    for secret in SECRETS:
        assert secret not in (printed + told).lower()

    from dicomweb_client import DICOMwebClient

    client = DICOMwebClient(server, headers=access_headers([ACCESS]))
    found = {one["00080060"]["Value"][0]: one for one in client.search_for_series(STUDY)}
    assert set(found) == {"CT", "SEG", "OT", "SR"}
    (seg,) = client.retrieve_series(STUDY, found["SEG"]["0020000E"]["Value"][0])
    (written,) = out.glob("*_seg.dcm")
    assert seg.SOPInstanceUID == pydicom.dcmread(written).SOPInstanceUID
    np.testing.assert_array_equal(seg.pixel_array, pydicom.dcmread(written).pixel_array)
    assert seg.PatientName == IDENTITY["PatientName"]

    # Once more, by options: the results are no scans, and are known already.
    code, _, told = medzsad("predict", "--dicomweb", server, "--study", STUDY, "-o", out, "--store", "-q")
    assert (code, told) == (0, "")
    assert len(client.search_for_instances(STUDY)) == 8 + 3


def test_what_cannot_be_fetched_does_not_stop_the_rest(medzsad, server, tmp_path, monkeypatch):
    monkeypatch.delenv("MEDZSAD_DICOMWEB_HEADERS", raising=False)
    local = head(tmp_path / "local")
    url = f"{server.replace('http', 'dicomweb')}/studies/{STUDY}"
    code, printed, told = medzsad("predict", url, local, "-o", tmp_path / "out", "--json", "-q")
    assert code == 2
    document = json.loads(printed)
    assert [scan["name"] for scan in document["scans"]] == ["local"]
    assert document["failed"][0]["input"] == f"{server}/studies/{STUDY}"
    assert "401" in document["failed"][0]["error"]
    assert len(told.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dicom_head_ct", "dicom_brain_mr"])
def test_real_series_go_to_a_server_and_back(medzsad, server, shared, tmp_path, monkeypatch, name):
    source = shared(f"data/{name}")
    monkeypatch.setenv("MEDZSAD_DICOMWEB_HEADERS", ACCESS)
    files = sorted(source.glob("*.dcm"))
    store_files(server, files, access_headers([ACCESS]))
    first = pydicom.dcmread(files[0], stop_before_pixels=True)
    study = first.StudyInstanceUID
    out = tmp_path / "out"
    code, printed, told = medzsad(
        "predict", "--dicomweb", server, "--study", study, "-o", out, "--store", "--json"
    )
    assert code == 0, told
    for name in json.loads(printed)["scans"][0]["files"].values():
        if name.endswith(".dcm"):
            assert new_errors(Path(name), files[0]) == set()
    for secret in (first.PatientID, str(first.PatientName), first.AccessionNumber):
        assert not secret or secret not in printed + told

    from dicomweb_client import DICOMwebClient

    client = DICOMwebClient(server, headers=access_headers([ACCESS]))
    modalities = [one["00080060"]["Value"][0] for one in client.search_for_series(study)]
    assert sorted(modalities) == sorted([first.Modality, "SEG", "OT", "SR"])
