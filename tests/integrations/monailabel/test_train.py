from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml

pytest.importorskip("monailabel", reason="MONAI Label is not installed (medzsad[monailabel])")

from fastapi import HTTPException

import medzsad
from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.integrations.monailabel.submitted import collect

REQUEST = {"model": "headclip", "epochs": 1, "max_steps": 2, "batch_size": 2, "rate": 1e-2}


def submit(app, phantoms, folder: Path, image: str = "lesion", mask: np.ndarray | None = None) -> None:
    label = phantoms.save(phantoms.mask if mask is None else mask, folder / f"submitted-{image}.nii.gz")
    app.datastore().save_label(image, str(label), "final", {})


def refused(call) -> HTTPException:
    with pytest.raises(HTTPException) as caught:
        call()
    assert "\n" not in caught.value.detail
    return caught.value


def test_each_training_is_a_new_version_and_the_name_means_the_newest(make_app, phantoms, tmp_path):
    app = make_app(models="brightness")
    assert list(app.info()["models"]) == ["brightness"]
    submit(app, phantoms, tmp_path)
    submit(app, phantoms, tmp_path, "healthy", np.zeros_like(phantoms.mask))
    first = app.train(REQUEST)
    assert (first["model"], first["labels"], first["anomalous"]) == ("headclip-0001", 2, 1)
    assert (first["steps"], first["start"]) == (2, "untrained prompts on clip-small")
    json.dumps(first)
    assert list(app.info()["models"]) == ["brightness", "headclip", "headclip-0001"]
    before = app.infer({"model": "headclip", "image": "lesion"})["params"]

    second = app.train(REQUEST)
    assert (second["model"], second["start"]) == ("headclip-0002", "headclip")
    assert list(app.info()["models"]) == ["brightness", "headclip", "headclip-0002", "headclip-0001"]
    newest, kept, named = (
        app.infer({"model": name, "image": "lesion"})["params"]
        for name in ("headclip", "headclip-0001", "headclip-0002")
    )
    assert kept["slice_scores"] == before["slice_scores"]
    assert newest["slice_scores"] == named["slice_scores"]
    assert newest["slice_scores"] != before["slice_scores"]
    assert newest["model_version"] == named["model_version"] != before["model_version"]

    run = tmp_path / "app" / "model" / "headclip" / "headclip-0002"
    direct = medzsad.predict(
        tmp_path / "studies" / "lesion.nii.gz",
        medzsad.load_detector(run, clip_weights=second["clip_weights"], device="cpu"),
    )
    assert newest["score"] == round(direct.score, 6)
    assert not (run / "data").exists()  # slices of patients
    stats = app.info()["train_stats"]["headclip"]
    assert (stats["name"], stats["epoch"], stats["total_epochs"]) == ("headclip-0002", 2, 2)


def test_training_goes_on_from_what_was_learned(make_app, phantoms, tmp_path):
    """With a rate of next to nothing the second adapter equals the first, not untrained prompts."""
    app = make_app()
    submit(app, phantoms, tmp_path)
    app.train(REQUEST)
    app.train({**REQUEST, "rate": 1e-12})
    app.train({**REQUEST, "rate": 1e-12, "start": "untrained"})
    folder = tmp_path / "app" / "model" / "headclip"
    first, second, third = (
        read_checkpoint(folder / f"headclip-000{n}" / "adapter.safetensors").tensors["prompts.ctx_neg"]
        for n in (1, 2, 3)
    )
    assert (first - second).abs().max() < 1e-6 < (first - third).abs().max()
    assert "volumes" in medzsad.load_detector(folder / "headclip-0002", clip_weights=str(_small_clip())).seen


def _small_clip() -> Path:
    from medzsad.storage import cache

    return cache.slot("clip-small")


def test_a_request_that_runs_keeps_its_adapter(make_app, phantoms, tmp_path, monkeypatch):
    app = make_app(parallel="2")
    submit(app, phantoms, tmp_path)
    app.train(REQUEST)
    alone = app.infer({"model": "headclip", "image": "lesion"})["params"]

    from medzsad import predicting

    inside, go_on, predict = threading.Event(), threading.Event(), predicting.predict

    def held(*arguments, **options):
        inside.set()
        assert go_on.wait(60)
        return predict(*arguments, **options)

    monkeypatch.setattr(predicting, "predict", held)
    answers = []
    request = {"model": "headclip", "image": "lesion"}
    thread = threading.Thread(target=lambda: answers.append(app.infer(request)["params"]))
    thread.start()
    assert inside.wait(60)
    app.train(REQUEST)
    go_on.set()
    thread.join(60)
    assert answers[0]["slice_scores"] == alone["slice_scores"]
    assert app.infer(request)["params"]["slice_scores"] != alone["slice_scores"]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"epochs": 0}, "epochs '0' is not a whole number"),
        ({"max_steps": "all"}, "max_steps 'all'"),
        ({"seed": "9" * 5000}, "seed '999"),
        ({"batch_size": 10**9}, "batch_size 1000000000 claims"),
        ({"rate": "fast"}, "rate 'fast' is not a number"),
        ({"rate": 2}, "rate 2 is not a learning rate"),
        ({"rate": float("nan")}, "rate 'nan'"),
        ({"plane": "oblique"}, "unknown plane 'oblique'"),
        ({"start": "nothing"}, "start 'nothing': no such model"),
        ({"start": "medzsad-mini"}, "start 'medzsad-mini': a 'mini' detector"),
    ],
)
def test_bad_parameters_are_refused(make_app, phantoms, tmp_path, request_, reason):
    app = make_app()
    submit(app, phantoms, tmp_path)
    error = refused(lambda: app.train({**REQUEST, **request_}))
    assert error.status_code == 422
    assert reason in error.detail


def test_without_labels_or_clip_weights_one_reason_is_given(make_app, phantoms, tmp_path, monkeypatch):
    app = make_app()
    assert "no label was submitted" in refused(lambda: app.train(REQUEST)).detail
    submit(app, phantoms, tmp_path, mask=np.zeros_like(phantoms.mask))
    assert "nothing is marked in the 1 labels" in refused(lambda: app.train(REQUEST)).detail
    assert not list((tmp_path / "app" / "model" / "headclip").iterdir())
    submit(app, phantoms, tmp_path)
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "empty"))
    error = refused(lambda: app.train(REQUEST))
    assert error.status_code == 503
    assert "clip-vit-l-14-336-openai is not ready" in error.detail
    app = make_app(clip_weights=str(tmp_path / "nowhere.pt"))
    assert "neither a CLIP of the catalogue nor a file" in refused(lambda: app.train(REQUEST)).detail


def test_clip_weights_may_be_a_file_with_its_architecture(make_app, phantoms, tmp_path, cache_environment):
    catalogue = yaml.safe_load(Path(cache_environment["MEDZSAD_CATALOGUE"]).read_text())
    architecture = json.dumps(catalogue["files"]["clip-small"]["architecture"])
    weights = Path(shutil.copy(_small_clip(), tmp_path / "mine.safetensors"))
    app = make_app(clip_weights=str(weights), clip_architecture=architecture)
    submit(app, phantoms, tmp_path)
    assert app.train(REQUEST)["start"] == "untrained prompts on mine.safetensors"
    assert app.infer({"model": "headclip", "image": "healthy"})["params"]["model"] == "headclip"


def test_labels_of_other_formats_and_extents_are_brought_to_their_image(make_app, phantoms, tmp_path):
    import SimpleITK

    app = make_app()
    image = SimpleITK.GetImageFromArray(phantoms.mask.T)
    reference = SimpleITK.ReadImage(str(tmp_path / "studies" / "lesion.nii.gz"))
    image.CopyInformation(reference)
    box = np.argwhere(phantoms.mask)
    low, size = box.min(0), box.max(0) - box.min(0) + 1
    cropped = SimpleITK.RegionOfInterest(image, [int(n) for n in size], [int(n) for n in low])
    flipped = SimpleITK.Flip(cropped, [True, True, False])
    for number, label in enumerate((image, cropped, flipped)):
        path = tmp_path / f"cropped-{number}.nrrd"
        SimpleITK.WriteImage(label, str(path))
        app.datastore().save_label("lesion", str(path), "final", {})
        found = collect(app.datastore(), tmp_path / f"collected-{number}")
        assert (found.labels, found.anomalous, found.left_out) == (1, 1, [])
        row = json.loads(Path(found.sources[0].root).read_text())["test"][0]
        np.testing.assert_array_equal(np.asanyarray(nibabel.load(row["label"]).dataobj), phantoms.mask)


def test_2d_images_are_trained_on_too(make_app, phantoms, tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, voxels in (("lesion", phantoms.lesion), ("healthy", phantoms.healthy)):
        pixels = np.clip(voxels[:, :, 7].T / 4, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    app = make_app(studies=folder)
    for name, mask in (("lesion", phantoms.mask[:, :, 7].T), ("healthy", np.zeros((56, 48), np.uint8))):
        Image.fromarray(mask).save(tmp_path / f"{name}-label.png")
        app.datastore().save_label(name, str(tmp_path / f"{name}-label.png"), "final", {})
    done = app.train(REQUEST)
    assert (done["labels"], done["anomalous"], done["slices"]) == (2, 1, 2)


def test_labels_and_scans_that_cannot_be_used_are_left_out(make_app, phantoms, tmp_path, caplog):
    app = make_app()
    (tmp_path / "studies" / "damaged.nii.gz").write_bytes(b"\x1f\x8b damaged")
    app.datastore().refresh()
    submit(app, phantoms, tmp_path)
    submit(app, phantoms, tmp_path, "damaged")
    (tmp_path / "broken.nrrd").write_bytes(b"NRRD0004\n")
    app.datastore().save_label("healthy", str(tmp_path / "broken.nrrd"), "final", {})
    with caplog.at_level("INFO", "medzsad"):
        done = app.train(REQUEST)
    assert (done["labels"], done["left_out"]) == (1, 2)
    assert caplog.text.count("left out: ") == 2
    assert "damaged.nii.gz" not in caplog.text
