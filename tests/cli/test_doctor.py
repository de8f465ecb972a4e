from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.usefixtures("cache_dir")


def test_a_good_installation_passes(medzsad, cache_dir) -> None:
    code, out, err = medzsad("doctor")
    assert (code, err) == (0, "")
    for part in (
        "medzsad",
        "torch",
        "open_clip",
        "pydicom",
        "cpu: ",
        str(cache_dir),
        "medzsad-mini",
        "passed in",
    ):
        assert part in out, part


def test_json_holds_the_facts(medzsad, cache_dir) -> None:
    import torch

    code, out, _ = medzsad("doctor", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0] or torch.__version__
    assert facts["devices"][-1]["device"] == "cpu"
    assert facts["cache"]["folder"] == str(cache_dir)
    assert facts["cache"]["free_bytes"] > 0
    assert {"medzsad-mini", "brightness"} <= set(facts["models"]["ready"])
    assert "adaclip-all" in facts["models"]["not_ready"]
    assert facts["self_test"]["passed"] is True
    assert facts["self_test"]["seconds"] < 60
    assert facts["problems"] == []


def test_a_detector_that_points_elsewhere_fails_the_self_test(medzsad, monkeypatch) -> None:
    import medzsad.predicting as predicting
    from medzsad.zoo.loading import load_detector

    dark, predict = load_detector("darkness", device="cpu"), predicting.predict
    monkeypatch.setattr(predicting, "predict", lambda scan, _: predict(scan, dark))
    code, out, err = medzsad("doctor")
    assert code == 2
    assert "FAILED" in out
    assert err.splitlines() == [
        "error: self-test: the map of the embedded detector does not peak in the lesion"
    ]


def test_what_breaks_is_said_and_the_rest_still_examined(medzsad, tmp_path, monkeypatch) -> None:
    (tmp_path / "bad.yaml").write_text("models: {x: {method: telepathy}}")
    monkeypatch.setenv("MEDZSAD_CATALOGUE", str(tmp_path / "bad.yaml"))
    code, out, err = medzsad("doctor")
    assert code == 2
    assert "cpu: " in out
    assert "error: models: " in err
    assert "telepathy" in err
