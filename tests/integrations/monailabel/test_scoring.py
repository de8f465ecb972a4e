"""Scores of scans, and which scan comes next."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed (medzsad[monailabel])")

from fastapi import HTTPException

import medzsad
from medzsad.integrations.monailabel.answers import uncertainty
from medzsad.integrations.monailabel.scoring import KEY, is_due, scores_of

MODELS = "medzsad-mini,brightness,darkness"
MODEL = {"method": "anomaly", "model": "brightness"}


def scores(app, image):
    return scores_of(app.datastore().get_image_info(image))


def test_every_scan_gets_its_score_and_a_bad_one_its_reason(make_app, tmp_path):
    app = make_app(models=MODELS)
    (tmp_path / "studies" / "broken.nii.gz").write_bytes(b"\x1f\x8b damaged")
    app.datastore().refresh()
    result = app.scoring({"method": "anomaly"})
    assert result["model"] == "medzsad-mini"
    assert (result["scored"], result["skipped"], result["failed"]) == (2, 0, 1)
    direct = medzsad.predict(tmp_path / "studies" / "lesion.nii.gz", "medzsad-mini", device="cpu")
    found = scores(app, "lesion")
    assert found["score"] == round(direct.score, 6)
    assert found["uncertainty"] == round(uncertainty(direct), 6)
    assert found["candidates"] == len(direct.lesions)
    assert found["score"] > scores(app, "healthy")["score"]
    error = scores(app, "broken")
    assert "score" not in error
    assert str(tmp_path) not in error["error"]


def test_scores_of_the_same_model_and_file_are_kept(make_app, tmp_path, phantoms):
    app = make_app(models=MODELS)
    assert is_due(app.datastore(), app.model("brightness"))
    assert app.scoring(MODEL)["scored"] == 2
    assert not is_due(app.datastore(), app.model("brightness"))
    assert app.scoring(MODEL)["skipped"] == 2
    assert app.scoring({**MODEL, "force": True})["scored"] == 2
    path = tmp_path / "studies" / "healthy.nii.gz"
    phantoms.save(phantoms.lesion, path)
    os.utime(path, (1, 1))
    again = app.scoring(MODEL)
    assert (again["scored"], again["skipped"]) == (1, 1)
    assert scores(app, "healthy")["score"] == scores(app, "lesion")["score"]
    assert app.scoring({**MODEL, "model": "darkness"})["scored"] == 2


def test_a_limit_leaves_the_rest_for_the_next_time(make_app):
    app = make_app(models=MODELS)
    assert app.scoring({**MODEL, "limit": 1})["scored"] == 1
    assert app.scoring({**MODEL, "limit": "1"})["scored"] == 1
    assert app.scoring({**MODEL, "limit": 1})["skipped"] == 2


def test_impossible_requests_are_refused(make_app):
    app = make_app(models=MODELS)
    for request in ({"model": "nonsense"}, {"limit": "many"}):
        with pytest.raises(HTTPException) as caught:
            app.scoring({**MODEL, **request})
        assert caught.value.status_code == 422


def test_labels_that_come_while_scans_are_scored_are_not_lost(make_app, tmp_path, phantoms):
    """Another process has the datastore open, too; it must not write back what it read at its start."""
    app, other = make_app(models=MODELS), make_app(models=MODELS)
    label = phantoms.save(phantoms.mask, tmp_path / "label.nii.gz")
    app.datastore().save_label("lesion", str(label), "final", {"by": "annotator"})
    other.scoring(MODEL)
    app.datastore().refresh()
    assert app.datastore().get_label_info("lesion", "final")["by"] == "annotator"
    assert "score" in scores(app, "lesion")


def test_uncertainty_is_0_if_the_threshold_does_not_matter_and_1_if_it_decides(phantoms, tmp_path):
    prediction = medzsad.predict(phantoms.write(tmp_path) / "lesion.nii.gz", "brightness", device="cpu")
    values = np.zeros_like(prediction.anomaly_map)
    prediction.anomaly_map, prediction.threshold = values, 0.5
    assert uncertainty(prediction) == 0
    values[:4] = 0.9
    assert uncertainty(prediction) == 0
    values[:] = 0
    values[:4] = 0.45
    assert uncertainty(prediction) == 1
    values[4:8] = 0.9
    assert uncertainty(prediction) == pytest.approx(1 / 3)


@pytest.fixture
def app(make_app, phantoms, tmp_path):
    folder = tmp_path / "four"
    phantoms.write(folder)
    for name in ("other", "new"):
        phantoms.save(phantoms.healthy, folder / f"{name}.nii.gz")
    app = make_app(studies=folder)
    for image, score, doubt in (("lesion", 0.9, 0.2), ("healthy", 0.3, 0.8), ("other", 0.5, 0.5)):
        info = {KEY: {"score": score, "uncertainty": doubt, "model": "medzsad-mini"}}
        app.datastore().update_image_info(image, info)
    return app


def test_the_most_anomalous_and_the_most_uncertain_scan_come_first(app):
    sample = app.next_sample({"strategy": "most_anomalous"})
    assert (sample["id"], sample["score"], sample["scored_with"]) == ("lesion", 0.9, "medzsad-mini")
    assert sample["path"].endswith("lesion.nii.gz")
    assert app.next_sample({})["id"] == "lesion"
    assert app.next_sample({"strategy": "most_uncertain"})["id"] == "healthy"
    assert app.next_sample({"strategy": "random"})["id"] in ("lesion", "healthy", "other", "new")


def test_labelled_scans_are_left_out_and_unscored_ones_come_last(app, phantoms, tmp_path):
    label = str(phantoms.save(phantoms.mask, tmp_path / "label.nii.gz"))
    order = []
    for _ in range(4):
        order.append(app.next_sample({"strategy": "most_anomalous"})["id"])
        app.datastore().save_label(order[-1], label, "final", {})
    assert order == ["lesion", "other", "healthy", "new"]
    assert app.next_sample({"strategy": "most_anomalous"}) == {}


def test_scans_that_were_handed_out_come_after_the_others_and_bad_ones_last(app):
    import time

    app.datastore().update_image_info("new", {KEY: {"error": "cut short"}})
    given = {"strategy": {"most_anomalous": {"ts": int(time.time())}}}
    order = []
    for _ in range(3):
        order.append(app.next_sample({"strategy": "most_anomalous"})["id"])
        app.datastore().update_image_info(order[-1], given)
    assert order == ["lesion", "other", "healthy"]
    assert app.next_sample({"strategy": "most_anomalous"})["id"] == "lesion"
    assert app.next_sample({"strategy": "most_anomalous", "skip_seconds": 0})["id"] == "lesion"


def test_an_impossible_parameter_is_refused(app):
    with pytest.raises(HTTPException) as caught:
        app.next_sample({"strategy": "most_anomalous", "skip_seconds": "soon"})
    assert caught.value.status_code == 422
