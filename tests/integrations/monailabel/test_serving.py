"""The real server, on the loopback address, with a folder of two studies."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed (medzsad[monailabel])")

import medzsad


@pytest.fixture(scope="module")
def studies(phantoms, tmp_path_factory) -> Path:
    return phantoms.write(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def server(start_server, studies):
    return start_server(studies, "--device", "cpu", "--parallel", "2")


def read(content: bytes, name: str, folder: Path) -> nibabel.Nifti1Image:
    path = folder / name
    path.write_bytes(content)
    return nibabel.load(path)


def test_models_are_listed_and_a_label_has_the_scan_s_geometry(server, studies, tmp_path):
    info = server.get("/info/")
    assert info["name"] == "medzsad"
    assert next(iter(info["models"])) == "medzsad-mini"
    content, figures, name = server.infer("medzsad-mini", "lesion")
    assert name.endswith(".nii.gz")
    label, scan = read(content, name, tmp_path), nibabel.load(studies / "lesion.nii.gz")
    assert label.shape == scan.shape
    np.testing.assert_array_equal(label.affine, scan.affine)
    direct = medzsad.predict(studies / "lesion.nii.gz", "medzsad-mini", device="cpu")
    np.testing.assert_array_equal(np.asanyarray(label.dataobj), direct.mask)
    assert figures["score"] == round(direct.score, 6)
    assert len(figures["slice_scores"]) == len(direct.slice_scores)
    assert figures["lesions"][0]["volume_ml"] > 1


def test_3d_slicer_s_and_ohif_s_calls_are_answered(server, studies, tmp_path):
    import SimpleITK

    # Both send the choices that /info/ gave them, unchanged, as a form field beside an empty query.
    config = server.get("/info/")["models"]["medzsad-mini"]["config"]
    first = {key: value[0] if isinstance(value, list) else value for key, value in config.items()}
    plain, _, _ = server.infer("medzsad-mini", "lesion")
    expected = np.asanyarray(read(plain, "plain.nii.gz", tmp_path).dataobj)
    slicer = {**first, "result_extension": ".nrrd", "result_dtype": "uint8", "client_id": "user-xyz"}
    ohif = {"result_extension": ".nrrd", "result_dtype": "uint16", "result_compress": False}
    for params, kind in ((slicer, np.uint8), (ohif, np.uint16)):
        content, figures, name = server.infer("medzsad-mini", "lesion", **params)
        assert name.endswith(".nrrd")
        (tmp_path / name).write_bytes(content)
        label = SimpleITK.ReadImage(str(tmp_path / name))
        values = SimpleITK.GetArrayFromImage(label)
        assert values.dtype == kind
        np.testing.assert_array_equal(values.T, expected)
        scan = SimpleITK.ReadImage(str(studies / "lesion.nii.gz"))
        np.testing.assert_allclose(label.GetOrigin(), scan.GetOrigin(), atol=1e-4)
        assert figures["label_names"] == {"anomaly": 1}
    answer = server.post("/infer/medzsad-mini?image=lesion&output=json", data={"params": "{}"})
    assert answer["label_names"] == {"anomaly": 1}


def test_an_upload_is_predicted_without_a_place_in_the_datastore(server, studies):
    with (studies / "healthy.nii.gz").open("rb") as file:
        answer = server.post("/infer/medzsad-mini?output=json", files={"file": ("upload.nii.gz", file)})
    _, figures, _ = server.infer("medzsad-mini", "healthy")
    assert answer["score"] == figures["score"]
    assert "upload" not in server.get("/datastore/?output=all")["objects"]


def test_four_parallel_requests_equal_one_by_one(server):
    requests = [(image, plane) for image in ("lesion", "healthy") for plane in ("axial", "coronal")]

    def ask(request):
        image, plane = request
        content, figures, _ = server.infer("medzsad-mini", image, plane=plane, result_extension=".nii")
        return content, {**figures, "latencies": None}

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(ask, requests))
    assert together == [ask(request) for request in requests]
    assert len({figures["score"] for _, figures in together}) == 4


@pytest.mark.parametrize(
    ("path", "params", "status", "reason"),
    [
        ("/infer/medzsad-mini?image=lesion", {"threshold": "high"}, 422, "threshold 'high'"),
        ("/infer/medzsad-mini?image=lesion", {"plane": "oblique"}, 422, "unknown plane"),
        ("/infer/medzsad-mini?image=lesion", {"window": "brian"}, 422, "window brian is not known"),
        ("/infer/medzsad-mini?image=nobody", {}, 404, "no image 'nobody'"),
        ("/infer/nothing?image=lesion", {}, 404, "no model 'nothing'"),
        ("/infer/medzsad-mini", {}, 422, "no image is named"),
        ("/infer/medzsad-mini?image=lesion", "no JSON", 422, "not valid JSON"),
        ("/infer/medzsad-mini?image=lesion", [1], 422, "must be a JSON object"),
        ("/infer/medzsad-mini?image=/etc/hostname", {}, 422, "the image"),
        ("/activelearning/best", {}, 404, "no strategy 'best'"),
    ],
)
def test_bad_requests_are_refused_and_the_server_lives_on(server, path, params, status, reason):
    text = params if isinstance(params, str) else json.dumps(params)
    form = {} if "activelearning" in path else {"data": {"params": text}}
    response = server.call("POST", path, **form)
    assert response.status_code == status, response.text
    assert reason in response.json()["detail"]
    assert "/etc" not in response.json()["detail"]
    assert server.get("/info/")["name"] == "medzsad"


def test_an_unreadable_scan_is_refused(server, studies, tmp_path):
    damaged = (studies / "lesion.nii.gz").read_bytes()[:2000]
    answer = server.call("POST", "/infer/medzsad-mini", files={"file": ("cut.nii.gz", damaged)})
    assert answer.status_code == 422
    assert "cut short or damaged" in answer.json()["detail"]


def test_a_label_for_nobody_is_404(server, phantoms, tmp_path):
    label = phantoms.save(phantoms.mask, tmp_path / "label.nii.gz")
    with label.open("rb") as file:
        answer = server.call("PUT", "/datastore/label?image=nobody", files={"label": ("a.nii.gz", file)})
    assert answer.status_code == 404


def test_batch_inference_without_a_gpu(server):
    server.post("/batch/infer/medzsad-mini?images=all")  # with MONAI Label's own defaults: all GPUs
    assert server.wait_for("batch/infer")["status"] == "DONE"
    labels = server.get("/datastore/?output=all")["objects"]
    assert {name for name, item in labels.items() if "original" in item["labels"]} == {"lesion", "healthy"}


def test_score_choose_label_train_and_infer_with_the_new_adapter(server, studies, phantoms, tmp_path):
    # Scores come by themselves after the start; asked for again, nothing is computed twice.
    assert server.wait_for("scoring")["status"] == "DONE", server.tail()
    server.post("/scoring/")
    assert server.wait_for("scoring")["status"] == "DONE", server.tail()
    objects = server.get("/datastore/?output=all")["objects"]
    scores = {name: item["image"]["info"]["medzsad"] for name, item in objects.items()}
    assert scores["lesion"]["score"] > scores["healthy"]["score"]

    sample = server.post("/activelearning/most_anomalous", json={"client_id": "user-xyz"})
    assert sample["id"] == "lesion"
    assert sample["score"] == scores["lesion"]["score"]

    label = phantoms.save(phantoms.mask, tmp_path / "label.nii.gz")
    with label.open("rb") as file:
        form = {"params": json.dumps({"label_info": [{"name": "anomaly", "idx": 1}]})}
        saved = server.call(
            "PUT", "/datastore/label?image=lesion&tag=final", data=form, files={"label": ("a.nii.gz", file)}
        )
    assert saved.json()["image"] == "lesion"
    assert server.post("/activelearning/most_anomalous")["id"] == "healthy"

    server.post("/train/headclip", json={"max_steps": 2, "batch_size": 2, "rate": 0.01})
    # The server answers while it is trained, from another process.
    figures = server.infer("medzsad-mini", "healthy")[1]
    assert figures["model"] == "medzsad-mini"
    task = server.wait_for("train")
    assert task["status"] == "DONE", task
    models = server.get("/info/")["models"]
    assert {"headclip", "headclip-0001"} <= set(models)
    content, first, name = server.infer("headclip", "lesion")
    assert read(content, name, tmp_path).shape == phantoms.mask.shape
    assert server.infer("headclip-0001", "lesion")[1]["slice_scores"] == first["slice_scores"]
    assert first["model_version"] != figures["model_version"]


@pytest.mark.parametrize(
    ("path", "params", "status", "reason"),
    [
        ("/train/headclip", {"epochs": 0}, 422, "epochs '0' is not a whole number of at least 1"),
        ("/train/headclip?run_sync=true", {"epochs": 0}, 422, "epochs '0'"),
        ("/train/headclip", {"model": "medzsad-mini"}, 422, "medzsad-mini cannot be trained"),
        ("/train/", {"headclip": {"rate": "fast"}}, 422, "rate 'fast'"),
        ("/train/medzsad-mini", {}, 422, "medzsad-mini cannot be trained here; use headclip"),
        ("/train/nothing", None, 404, "no model to train called 'nothing'"),
        ("/scoring/nothing", None, 404, "no scoring method called 'nothing'"),
        ("/scoring/anomaly", {"limit": "many"}, 422, "limit 'many'"),
        ("/scoring/", {"model": "nothing"}, 422, "no model 'nothing'"),
        ("/batch/infer/nothing", None, 404, "no model 'nothing'"),
        ("/batch/infer/medzsad-mini", {"max_workers": 10**6}, 422, "max_workers 1000000 claims"),
        ("/scoring/anomaly", {"limit": "9" * 5000}, 422, "limit '999"),
    ],
)
def test_a_task_that_cannot_be_is_refused_at_once(server, path, params, status, reason):
    answer = server.call("POST", path, json=params)
    assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text
    assert "\n" not in answer.json()["detail"]


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 20_000 + "1" + "}" * 20_000, "nested too deeply"),
        ('{"organ": "\\ud800"}', "half a character"),
        ('{"batch_size": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ("{", "not valid JSON"),
    ],
)
def test_parameters_that_are_no_usable_json_are_refused(server, params, reason):
    answer = server.call("POST", "/infer/medzsad-mini?image=lesion", data={"params": params})
    assert (answer.status_code, reason in answer.json()["detail"]) == (422, True), answer.text
    assert len(answer.text) < 500


def test_a_training_can_be_stopped(server):
    before = set(server.get("/info/")["models"])
    server.post("/train/headclip", json={"epochs": 10000, "max_steps": 0, "batch_size": 1})
    end = time.monotonic() + 300
    stats = {"total_epochs": 0, "epoch": 0}
    while stats["total_epochs"] < 10000 or not stats["epoch"]:  # until then those of the former training
        assert time.monotonic() < end
        time.sleep(0.5)
        stats = server.get("/info/")["train_stats"]["headclip"] or stats
    server.call("DELETE", "/train/")
    assert server.wait_for("train")["status"] == "STOPPED"
    assert set(server.get("/info/")["models"]) == before


def test_the_log_names_no_scan_of_its_own_accord(server):
    ours = [line for line in server.log.read_text().splitlines() if "medzsad.integrations" in line]
    assert ours
    assert not [line for line in ours if "healthy" in line]
