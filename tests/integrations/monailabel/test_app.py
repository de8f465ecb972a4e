from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed (medzsad[monailabel])")

from fastapi import HTTPException

import medzsad
from medzsad.errors import BadInput, ModelNotReady


def label_of(answer) -> nibabel.Nifti1Image:
    image = nibabel.load(answer["file"])
    image = nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header)
    Path(answer["file"]).unlink()
    return image


def refused(call) -> HTTPException:
    with pytest.raises(HTTPException) as caught:
        call()
    assert "\n" not in caught.value.detail
    return caught.value


def test_ready_models_are_offered_and_the_trivial_ones_only_where_named(make_app):
    info = make_app().info()
    assert next(iter(info["models"])) == "medzsad-mini"
    assert not {"brightness", "darkness", "asymmetry"} & set(info["models"])
    assert list(make_app(models="medzsad-mini,asymmetry").info()["models"]) == ["medzsad-mini", "asymmetry"]
    assert make_app(scoring_model="brightness").model("").name == "brightness"
    assert not [name for name in info["models"] if "adaclip" in name]  # their weights are not here
    mini = info["models"]["medzsad-mini"]
    assert (mini["type"], mini["labels"]) == ("segmentation", {"anomaly": 1})
    assert mini["config"]["plane"][0] == "auto"
    assert list(info["strategies"]) == ["most_anomalous", "most_uncertain", "random"]
    assert list(info["trainers"]) == ["headclip"]
    assert info["labels"] == ["anomaly"]


def test_models_are_offered_as_named(make_app):
    assert list(make_app(models="darkness,medzsad-mini").info()["models"]) == ["darkness", "medzsad-mini"]


def test_a_name_that_is_no_model_is_refused_at_the_start(make_app):
    with pytest.raises(ModelNotReady, match="unknown model 'nonsense'"):
        make_app(models="nonsense")
    with pytest.raises(BadInput, match="clip_weight: unknown"):
        make_app(clip_weight="x")


@pytest.mark.parametrize(
    ("kind", "request_", "status", "reason"),
    [
        ("train", {"model": "medzsad-mini"}, 422, "medzsad-mini cannot be trained here; use headclip"),
        ("train", {"model": "nothing"}, 404, "no model to train called 'nothing'"),
        ("train", {"model": ["headclip"]}, 404, "no model to train"),
        ("train", {"model": "headclip", "epochs": 0}, 422, "epochs '0'"),
        ("train", {"model": "headclip", "start": "nothing"}, 422, "start 'nothing': no such model"),
        (
            "train",
            {"model": "headclip", "start": "medzsad-mini"},
            422,
            "a 'mini' detector; choose a HeadCLIP",
        ),
        ("scoring", {"method": "nothing"}, 404, "no scoring method called 'nothing'; use anomaly"),
        ("scoring", {"method": "anomaly", "model": "nothing"}, 422, "no model 'nothing'"),
        ("scoring", {"method": "anomaly", "limit": "many"}, 422, "limit 'many'"),
        ("scoring", {"method": "anomaly", "organ": "elbow/nil"}, 422, "elbow/nil"),
        ("batch_infer", {"model": "nothing"}, 404, "no model 'nothing'"),
        ("batch_infer", {"model": "medzsad-mini", "plane": "oblique"}, 422, "unknown plane"),
    ],
)
def test_a_task_that_cannot_be_is_refused_before_it_starts(make_app, kind, request_, status, reason):
    error = refused(lambda: make_app().check_task(kind, request_))
    assert error.status_code == status
    assert reason in error.detail


def test_a_training_without_clip_weights_is_refused_before_it_starts(make_app, tmp_path, monkeypatch):
    app = make_app()
    app.check_task("train", {"model": "headclip"})
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "empty"))
    for start in (
        lambda: app.check_task("train", {"model": "headclip"}),
        lambda: app.async_training("headclip"),
        lambda: app.async_training(None),
    ):
        error = refused(start)
        assert error.status_code == 422
        assert "training needs CLIP weights" in error.detail
    assert refused(lambda: app.async_training("medzsad-mini")).status_code == 422
    assert refused(lambda: app.async_training("headclip", {"headclip": {"epochs": 0}})).status_code == 422
    assert refused(lambda: app.async_scoring("nothing")).status_code == 404


def test_infer_equals_predict_bit_for_bit(make_app, tmp_path):
    app = make_app()
    answer = app.infer({"model": "medzsad-mini", "image": "lesion"})
    direct = medzsad.predict(tmp_path / "studies" / "lesion.nii.gz", "medzsad-mini", device="cpu")
    files = direct.save(tmp_path / "direct")
    assert Path(answer["file"]).read_bytes() != b""
    label, expected = label_of(answer), nibabel.load(files["mask"])
    np.testing.assert_array_equal(np.asanyarray(label.dataobj), np.asanyarray(expected.dataobj))
    assert label.header.binaryblock == expected.header.binaryblock
    figures = answer["params"]
    assert figures["score"] == round(direct.score, 6)
    assert [s["score"] for s in figures["slice_scores"]] == [round(s.score, 6) for s in direct.slice_scores]
    first, lesion = figures["lesions"][0], direct.lesions[0]
    assert first["volume_ml"] == round(lesion.volume_ml, 6)
    x, y, z = first["center_ras_mm"]
    assert first["center_lps_mm"] == [-x, -y, z]
    assert (x, y, z) == tuple(round(v, 6) for v in lesion.center_mm)
    assert figures["threshold"] == {"rule": direct.threshold_rule, "value": round(direct.threshold, 6)}
    assert figures["label_names"] == {"anomaly": 1}


def test_request_parameters_are_those_of_predict(make_app, tmp_path):
    app = make_app()
    request = {"threshold": "p99", "plane": "sagittal", "window": "400,900", "batch_size": "2"}
    answer = app.infer({"model": "medzsad-mini", "image": "lesion", **request})
    direct = medzsad.predict(
        tmp_path / "studies" / "lesion.nii.gz",
        "medzsad-mini",
        threshold="p99",
        plane="sagittal",
        window="400,900",
        batch_size=2,
        device="cpu",
    )
    np.testing.assert_array_equal(np.asanyarray(label_of(answer).dataobj), direct.mask)
    assert {s["plane"] for s in answer["params"]["slice_scores"]} == {"sagittal"}


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"threshold": "high"}, "threshold 'high' is not a number"),
        ({"threshold": 1.5}, "threshold '1.5' is not a number"),
        ({"threshold": True}, "threshold True is neither"),
        ({"plane": "oblique"}, "unknown plane 'oblique'"),
        ({"window": "brian"}, "window brian is not known"),
        ({"window": "brain"}, "window brain is in HU and image lesion is not CT"),
        ({"modality": "pet"}, "pet"),
        ({"volume": 3}, "volume 3 does not exist"),
        ({"batch_size": "many"}, "batch_size 'many' is not a whole number"),
        ({"batch_size": 10**6}, "a batch of 1000000 slices claims 256 million pixels"),
        ({"result_extension": ".exe"}, "result_extension '.exe' is not known"),
        ({"result_dtype": "object"}, "result_dtype 'object' is not known"),
        ({"result_compress": "perhaps"}, "result_compress 'perhaps' is neither"),
    ],
)
def test_bad_parameters_are_refused_with_a_reason(make_app, parameters, reason):
    app = make_app()
    error = refused(lambda: app.infer({"model": "medzsad-mini", "image": "lesion", **parameters}))
    assert error.status_code == 422
    assert reason in error.detail


def test_what_is_not_there_is_404_and_what_cannot_be_read_422(make_app, tmp_path):
    app = make_app()
    assert refused(lambda: app.infer({"model": "mini", "image": "lesion"})).status_code == 404
    error = refused(lambda: app.infer({"model": "medzsad-mini", "image": "nobody"}))
    assert (error.status_code, error.detail) == (404, "there is no image 'nobody'")
    (tmp_path / "studies" / "broken.nii.gz").write_bytes(b"\x1f\x8b damaged")
    app.datastore().refresh()
    error = refused(lambda: app.infer({"model": "medzsad-mini", "image": "broken"}))
    assert error.status_code == 422
    assert error.detail.startswith("image broken ")
    assert str(tmp_path) not in error.detail
    assert refused(lambda: app.next_sample({"strategy": "best"})).status_code == 404


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("extension", [".nrrd", ".seg.nrrd", ".nii", ".nii.gz", ".mha"])
def test_label_formats_have_the_scan_s_geometry(make_app, tmp_path, phantoms, extension, dtype):
    import SimpleITK

    app = make_app(models="brightness")
    request = {"result_extension": extension, "result_dtype": dtype, "result_compress": False}
    answer = app.infer({"model": "brightness", "image": "lesion", "threshold": 0.6, **request})
    assert answer["file"].endswith(extension)
    label = SimpleITK.ReadImage(answer["file"])
    scan = SimpleITK.ReadImage(str(tmp_path / "studies" / "lesion.nii.gz"))
    Path(answer["file"]).unlink()
    assert label.GetSize() == scan.GetSize()
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(label, get)(), getattr(scan, get)(), atol=1e-5)
    values = SimpleITK.GetArrayFromImage(label)
    assert extension == ".seg.nrrd" or values.dtype == np.dtype(dtype)
    direct = medzsad.predict(
        tmp_path / "studies" / "lesion.nii.gz", "brightness", threshold=0.6, device="cpu"
    )
    np.testing.assert_array_equal(values.T, direct.mask)
    assert 0 < values.sum() < values.size


def test_a_2d_image_gets_a_label_of_its_own_format(make_app, tmp_path, phantoms):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.clip(phantoms.lesion[:, :, 7].T / 4, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "slice.png")
    app = make_app(studies=folder, models="brightness")
    answer = app.infer({"model": "brightness", "image": "slice", "threshold": "p95"})
    label = np.asarray(Image.open(answer["file"]))
    Path(answer["file"]).unlink()
    direct = medzsad.predict(folder / "slice.png", "brightness", threshold="p95", device="cpu")
    np.testing.assert_array_equal(label, direct.mask[:, :, 0].T)
    assert answer["params"]["lesions"][0]["center_ras_mm"] is None


def test_the_modality_that_a_dicom_store_knows_is_used(make_app):
    app = make_app(models="brightness")
    app.datastore().update_image_info("lesion", {"Modality": "CT"})
    assert app.infer({"model": "brightness", "image": "lesion"})["params"]["modality"] == "ct"
    # What 3D Slicer sends of a choice that nobody touched:
    slicer = {"model": "brightness", "image": "lesion", "modality": "default"}
    assert app.infer(slicer)["params"]["modality"] == "ct"
    request = {"model": "brightness", "image": "lesion", "modality": "mr"}
    assert app.infer(request)["params"]["modality"] == "mr"


def test_parallel_requests_load_once_and_do_not_mix(make_app, tmp_path, monkeypatch):
    from medzsad.zoo import loading

    loads, running, most = [], [0], [0]
    load, predict, lock = loading.load_detector, medzsad.predicting.predict, threading.Lock()

    def counted_load(*arguments, **options):
        loads.append(arguments)
        return load(*arguments, **options)

    def counted_predict(*arguments, **options):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        try:
            return predict(*arguments, **options)
        finally:
            with lock:
                running[0] -= 1

    monkeypatch.setattr(loading, "load_detector", counted_load)
    monkeypatch.setattr(medzsad.predicting, "predict", counted_predict)
    app = make_app(parallel="3")
    requests = [
        {"model": "medzsad-mini", "image": image, "plane": plane}
        for plane in ("axial", "coronal")
        for image in ("lesion", "healthy")
    ]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(app.infer, requests))
    assert len(loads) == 1
    assert 1 <= most[0] <= 3
    alone = [app.infer(request) for request in requests]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(
            np.asanyarray(label_of(one).dataobj), np.asanyarray(label_of(other).dataobj)
        )
        assert {**one["params"], "latencies": None} == {**other["params"], "latencies": None}
    scores = [answer["params"]["score"] for answer in alone]
    assert len(set(scores)) == 4  # else mixing could not be seen


def test_only_so_many_detectors_stay_loaded(make_app):
    app = make_app(models="brightness,darkness,asymmetry", keep="2")
    for name in ("brightness", "darkness", "brightness", "asymmetry"):
        app.infer({"model": name, "image": "healthy"})
    assert [source for source, _, _ in app.pool._slots] == ["brightness", "asymmetry"]


def test_batch_inference_needs_no_gpu_and_survives_a_bad_scan(make_app, tmp_path):
    app = make_app(models="brightness")
    (tmp_path / "studies" / "broken.nii.gz").write_bytes(b"\x1f\x8b damaged")
    app.datastore().refresh()
    result = app.batch_infer({"model": "brightness", "images": "all", "device": "cuda", "multi_gpu": True})
    assert "error" in result["broken"]
    store = app.datastore()
    assert store.get_label_by_image_id("lesion", "original") == "lesion"
    label = nibabel.load(store.get_label_uri("lesion", "original"))
    direct = medzsad.predict(tmp_path / "studies" / "lesion.nii.gz", "brightness", device="cpu")
    np.testing.assert_array_equal(np.asanyarray(label.dataobj), direct.mask)
