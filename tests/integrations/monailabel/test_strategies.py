from __future__ import annotations

import pytest

pytest.importorskip("monailabel", reason="MONAI Label is not installed (medzsad[monailabel])")

from fastapi import HTTPException

from medzsad.integrations.monailabel.scoring import KEY


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
