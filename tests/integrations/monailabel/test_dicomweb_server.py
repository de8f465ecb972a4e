"""The real server, with the series of a DICOMweb server (a real Orthanc): two real scans."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from shared_data import Shared

pytest.importorskip("monailabel", reason="MONAI Label is not installed (medzsad[monailabel])")


from orthanc_server import ACCESS, PASSWORD, USER, orthanc

import medzsad
from medzsad.scans.affines import LPS_TO_RAS
from medzsad.scans.dicom.web import access_headers, store_files

LOGIN = {"MONAI_LABEL_DICOMWEB_USERNAME": USER, "MONAI_LABEL_DICOMWEB_PASSWORD": PASSWORD}


@dataclass(frozen=True)
class Series:
    """A part of a real series, as files and on the server.

    Attributes:
        folder: the files.
        uid, study: SeriesInstanceUID and StudyInstanceUID.
        headers: of the images by SOPInstanceUID.
    """

    folder: Path
    uid: str
    study: str
    headers: dict[str, pydicom.Dataset]

    @classmethod
    def of(cls, source: Path, part: slice, folder: Path) -> Series:
        folder.mkdir()
        headers = {}
        for path in sorted(source.glob("*.dcm"))[part]:
            (folder / path.name).write_bytes(path.read_bytes())
            header = pydicom.dcmread(path, stop_before_pixels=True)
            headers[header.SOPInstanceUID] = header
        return cls(folder, str(header.SeriesInstanceUID), str(header.StudyInstanceUID), headers)


@pytest.fixture(scope="module")
def mr(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Sagittal slices of a brain, evenly spaced."""
    source = shared("data/dicom_brain_mr", files=64)
    return Series.of(source, slice(20, 36), tmp_path_factory.mktemp("mr") / "mr")


@pytest.fixture(scope="module")
def ct(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Axial slices of a head, the gantry tilted."""
    source = shared("data/dicom_head_ct", files=28)
    return Series.of(source, slice(8, 16), tmp_path_factory.mktemp("ct") / "ct")


@pytest.fixture(scope="module")
def store(mr: Series, ct: Series, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Orthanc that holds both."""
    with orthanc(tmp_path_factory.mktemp("orthanc")) as url:
        files = [path for series in (mr, ct) for path in sorted(series.folder.iterdir())]
        store_files(url, files, access_headers([ACCESS]))
        yield url


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for the server's temporary files."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(start_server, store, temporary):
    variables = {**LOGIN, "TMPDIR": str(temporary)}
    return start_server(store, "--device", "cpu", "--no-auto-scoring", environment=variables)


def dicom_seg(server, series: Series, **params: Any) -> pydicom.Dataset:
    """The answer to ``output=dicom_seg``."""
    answer = server.call(
        "POST",
        "/infer/medzsad-mini",
        params={"image": series.uid, "output": "dicom_seg"},
        files={"params": (None, json.dumps(params))},
    )
    assert answer.status_code == 200, answer.text[:500]
    assert answer.headers["Content-Type"] == "application/dicom"
    return pydicom.dcmread(io.BytesIO(answer.content))


def planes_by_image(seg: pydicom.Dataset, series: Series) -> dict[str, np.ndarray]:
    """Which pixels are marked in each image (rows, columns), after checking that they lie where it does."""
    planes: dict[str, np.ndarray] = {}
    for plane, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        uid = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        position = group.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, series.headers[uid].ImagePositionPatient, atol=1e-3)
        planes[uid] = (plane > 0) | planes.get(uid, False)
    return planes


def test_every_scan_is_listed_whatever_its_modality(server, mr, ct):
    assert server.get("/info/")["datastore"]["total"] == 2
    sample = server.post("/activelearning/random")
    assert sample["id"] in (mr.uid, ct.uid)


def test_parallel_requests_for_a_new_series_get_one_and_the_same(server, mr, tmp_path):
    def ask(_: int) -> tuple[bytes, dict[str, Any]]:
        # A head in which nothing is wrong: at the model's own threshold there is nothing to see.
        content, figures, _ = server.infer("medzsad-mini", mr.uid, result_extension=".nii", threshold=0.25)
        return content, {**figures, "latencies": None}

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(4)))
    assert answers[1:] == answers[:1] * 3
    (tmp_path / "label.nii").write_bytes(answers[0][0])
    label = nibabel.load(tmp_path / "label.nii")

    # The series' own geometry, from its headers alone.
    first = min(mr.headers.values(), key=lambda header: float(header.InstanceNumber))
    assert set(label.shape) == {first.Rows, first.Columns, len(mr.headers)}
    corners = [
        (LPS_TO_RAS @ [*map(float, header.ImagePositionPatient), 1])[:3] for header in mr.headers.values()
    ]
    found = (np.linalg.inv(label.affine) @ np.c_[corners, np.ones(len(corners))].T)[:3]
    np.testing.assert_allclose(found, found.round(), atol=0.01)
    np.testing.assert_array_equal(np.sort(found[2].round()), np.arange(len(corners)))

    # What medzsad predict says of the DICOM files themselves.
    direct = medzsad.predict(mr.folder, "medzsad-mini", device="cpu", threshold=0.25)
    figures = answers[0][1]
    assert figures["modality"] == "mr"
    assert figures["score"] == pytest.approx(direct.score, abs=1e-4)
    marked = np.asanyarray(label.dataobj) > 0
    assert np.count_nonzero(direct.mask) > 0
    assert np.count_nonzero(marked) == pytest.approx(np.count_nonzero(direct.mask), rel=1e-3)
    places = nibabel.affines.apply_affine(label.affine, np.argwhere(marked)).mean(axis=0)
    wanted = nibabel.affines.apply_affine(direct.affine, np.argwhere(direct.mask)).mean(axis=0)
    np.testing.assert_allclose(places, wanted, atol=0.05)


def test_ohif_s_call_is_answered(server, ct):
    import SimpleITK

    answer = server.call(
        "POST",
        "/infer/medzsad-mini",
        params={"image": ct.uid, "output": "image"},
        files={
            "params": (
                None,
                json.dumps(
                    {
                        "result_extension": ".nrrd",
                        "result_dtype": "uint8",
                        "result_compress": False,
                        "restore_label_idx": False,
                        "threshold": "p99",  # that marks something in every scan
                    }
                ),
            )
        },
    )
    assert answer.status_code == 200, answer.text[:500]
    with tempfile.NamedTemporaryFile(suffix=".nrrd") as file:
        file.write(answer.content)
        file.flush()
        label = SimpleITK.ReadImage(file.name)
    assert b"encoding: raw" in answer.content[:1000]
    assert label.GetSize() == (512, 512, len(ct.headers))  # as OHIF's own volume of the series
    assert SimpleITK.GetArrayFromImage(label).any()


@pytest.mark.parametrize("name", ["mr", "ct"])
def test_a_segmentation_lies_on_the_images_that_were_acquired(server, request, name):
    series = request.getfixturevalue(name)
    seg = dicom_seg(server, series, label_info=[{"name": "anomaly"}], threshold="p99")
    header = next(iter(series.headers.values()))
    assert (seg.Modality, seg.StudyInstanceUID, seg.PatientID) == ("SEG", series.study, header.PatientID)
    assert seg.FrameOfReferenceUID == header.FrameOfReferenceUID
    planes = planes_by_image(seg, series)
    direct = medzsad.predict(series.folder, "medzsad-mini", device="cpu", threshold="p99")
    if name == "mr":
        assert sum(map(np.count_nonzero, planes.values())) == np.count_nonzero(direct.mask) > 0
    else:
        assert direct.scan.details["geometry"]["resampled"]
        assert sum(map(np.count_nonzero, planes.values())) > 0


def test_nothing_suspicious_is_a_segmentation_too(server, mr):
    seg = dicom_seg(server, mr, threshold=1)
    assert not seg.pixel_array.any()
    assert seg.SegmentSequence[0].SegmentLabel == "Nothing above the threshold"


@pytest.mark.parametrize(
    ("image", "params", "status", "reason"),
    [
        ("1.2.3", {}, 404, "no image '1.2.3'"),
        ("MR", {"plane": "oblique"}, 422, "unknown plane"),
        ("MR", {"window": "brain"}, 422, "window"),
    ],
)
@pytest.mark.parametrize("output", ["image", "dicom_seg"])
def test_bad_requests_are_refused(server, mr, image, params, status, reason, output):
    image = mr.uid if image == "MR" else image
    answer = server.call(
        "POST",
        f"/infer/medzsad-mini?image={image}&output={output}",
        data={"params": json.dumps(params)},
    )
    assert answer.status_code == status, answer.text
    assert reason in answer.json()["detail"]
    assert str(server.log.parent) not in answer.json()["detail"]


def test_an_image_s_name_is_no_path(server):
    answer = server.call("POST", "/infer/medzsad-mini?image=..&output=dicom_seg", data={"params": "{}"})
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no image '..'")


def test_ohif_is_served_and_reaches_the_scans(server, mr):
    page = server.call("GET", "/ohif/")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "/proxy/dicom/qido" in server.call("GET", "/ohif/app-config.js").text
    studies = server.get("/proxy/dicom/qido/studies")
    assert mr.study in {study["0020000D"]["Value"][0] for study in studies}


def test_no_scan_is_left_among_the_temporary_files(server, temporary):
    left = [path.name for path in temporary.rglob("*") if path.name.endswith((".dcm", ".nii.gz", ".nrrd"))]
    assert left == []


def submit(server, image: str, label: Path) -> Any:
    form = {"params": json.dumps({"label_info": [{"name": "anomaly", "idx": 1}]})}
    with label.open("rb") as file:
        return server.call(
            "PUT", f"/datastore/label?image={image}&tag=final", data=form, files={"label": (label.name, file)}
        )


def test_score_choose_label_train_and_infer_with_the_new_adapter(server, mr, ct, tmp_path):
    server.post("/scoring/anomaly")
    assert server.wait_for("scoring")["status"] == "DONE", server.tail()
    objects = server.get("/datastore/?output=all")["objects"]
    scores = {uid: objects[uid]["image"]["info"]["medzsad"]["score"] for uid in (mr.uid, ct.uid)}
    _, figures, _ = server.infer("medzsad-mini", ct.uid)
    assert scores[ct.uid] == figures["score"]
    assert figures["modality"] == "ct"
    assert server.post("/activelearning/most_anomalous")["id"] == max(scores, key=scores.__getitem__)

    content, _, name = server.infer("medzsad-mini", mr.uid, threshold=0.25)
    label = tmp_path / f"pre-{name}"
    label.write_bytes(content)
    empty = tmp_path / "empty.nii.gz"
    image = nibabel.load(label)
    nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), empty)
    refused = submit(server, mr.uid, empty)
    assert (refused.status_code, "the label is empty" in refused.text) == (422, True)
    refused = submit(server, ct.uid, label)
    assert (refused.status_code, "gantry tilt" in refused.text) == (422, True)

    saved = submit(server, mr.uid, label)
    assert saved.status_code == 200, saved.text
    found = server.get(f"/proxy/dicom/qido/studies/{mr.study}/series")  # the proxy drops what follows a "?"
    (uid,) = (one["0020000E"]["Value"][0] for one in found if one["00080060"]["Value"] == ["SEG"])
    seg = read_series(server, mr.study, uid)
    planes = planes_by_image(seg, mr)
    assert sum(map(np.count_nonzero, planes.values())) == np.count_nonzero(np.asanyarray(image.dataobj))
    assert server.post("/activelearning/most_anomalous")["id"] == ct.uid

    server.post("/train/headclip", json={"max_steps": 2, "batch_size": 2, "rate": 0.01})
    task = server.wait_for("train")
    assert task["status"] == "DONE", (task, server.tail())
    answer, figures, name = server.infer("headclip", mr.uid)
    (tmp_path / name).write_bytes(answer)
    assert nibabel.load(tmp_path / name).shape == image.shape
    assert figures["model"] == "headclip"


def read_series(server, study: str, series: str) -> pydicom.Dataset:
    """The one instance of a series, through the server's proxy."""
    from requests_toolbelt import MultipartDecoder

    answer = server.call(
        "GET",
        f"/proxy/dicom/wado/studies/{study}/series/{series}",
        headers={"Accept": 'multipart/related; type="application/dicom"'},
    )
    (part,) = MultipartDecoder.from_response(answer).parts
    return pydicom.dcmread(io.BytesIO(part.content))
