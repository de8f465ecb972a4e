"""Each class of a set is named in the texts of the methods that name classes, and in the results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medzsad.datasets.opening import open_dataset
from medzsad.datasets.samples import SampleSet
from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.adaclip.settings import AdaCLIPSettings
from medzsad.detectors.base import AnomalyDetector
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.headclip.model import HeadCLIP
from medzsad.detectors.headclip.settings import HeadCLIPSettings
from medzsad.detectors.zero_shot.plain_clip import PlainCLIP
from medzsad.detectors.zero_shot.settings import PlainCLIPSettings, WinCLIPSettings
from medzsad.detectors.zero_shot.winclip import WinCLIP
from medzsad.evaluation.command import predict_share
from medzsad.evaluation.evaluate import evaluate
from medzsad.evaluation.outcome import Evaluation
from medzsad.evaluation.reporting import document
from medzsad.evaluation.settings import EvaluationSettings
from medzsad.storage.hashing import Shard

CLIP: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 64, "patch_size": 14, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
COMMON: dict[str, Any] = {"backbone": CLIP, "clip_weights": None, "image_size": 28}
ADACLIP = AdaCLIPSettings(**COMMON, output_layers=(1, 2), prompt_depth=2, prompt_length=2, clusters=2)
MAKERS: dict[str, Callable[[], AnomalyDetector]] = {
    "clip": lambda: PlainCLIP.build(PlainCLIPSettings(**COMMON)),
    "winclip": lambda: WinCLIP.build(WinCLIPSettings(**COMMON, scales=(2,))),
    "adaclip": lambda: AdaCLIP.build(ADACLIP),
}


@pytest.fixture
def few(blobs_root: Path) -> SampleSet:
    """A normal and an anomalous image of each class."""
    return open_dataset("mvtec", blobs_root, limit=4)


def run(samples: SampleSet, detector: AnomalyDetector, **options: Any) -> Evaluation:
    cache = options.pop("cache_folder", None)
    settings = EvaluationSettings(size=28, resamples=0, **options)
    return evaluate(samples, [detector], settings, references=(), cache_folder=cache)


def scores(evaluation: Evaluation) -> dict[str, list[float]]:
    return {one.name: [case["score"] for case in one.cases] for one in evaluation.detectors[0].classes}


@pytest.mark.parametrize("method", MAKERS)
def test_settings_texts_and_scores_change_with_the_class(method: str, few: SampleSet) -> None:
    detector = MAKERS[method]()
    found = run(few, detector)
    assert found.detectors[0].settings["class_name"] == {"bottle": "bottle", "cable": "cable"}
    assert [one["class_name"] for one in document(found)["detectors"][0]["classes"]] == ["bottle", "cable"]
    for name in ("bottle", "cable"):
        named = run(few, detector, class_name=name)
        assert named.detectors[0].settings["class_name"] == name
        assert scores(named)[name] == scores(found)[name]
        other = "cable" if name == "bottle" else "bottle"
        assert scores(named)[other] != scores(found)[other]
    assert scores(run(few, detector, class_name="object"))["cable"] != scores(found)["cable"]
    assert detector.class_name == "object"  # as it was


def test_a_method_without_class_names_says_object(few: SampleSet) -> None:
    detector = HeadCLIP.build(HeadCLIPSettings(**COMMON, patch_layers=(2,), deep_depth=1))
    found = run(few, detector)
    assert found.detectors[0].settings["class_name"] == "object"
    assert {one.class_name for one in found.detectors[0].classes} == {"object"}
    assert scores(run(few, detector, class_name="cable")) == scores(found)
    plain = evaluate(few, [], EvaluationSettings(size=28, resamples=0), references=("brightness",))
    assert "class_name" not in plain.detectors[0].settings


def test_adaclip_says_its_own_name_of_a_medical_set(blobs_root: Path) -> None:
    samples = open_dataset("brainmri", blobs_root / "bottle")
    for method, name in (("adaclip", "brain_mri"), ("clip", "brain")):
        assert run(samples, MAKERS[method]()).detectors[0].settings["class_name"] == name


def test_volumes_are_named_too(volumes_root: Path) -> None:
    detector = MAKERS["clip"]()
    samples = open_dataset("brats2013", volumes_root)
    found = run(samples, detector)
    assert found.detectors[0].settings["class_name"] == "brain"
    assert scores(run(samples, detector, class_name="object")) != scores(found)


def test_predictions_of_another_class_are_not_taken(few: SampleSet, tmp_path: Path) -> None:
    detector, cache = MAKERS["clip"](), tmp_path / "cache"
    first = run(few, detector, cache_folder=cache)
    other = run(few, detector, cache_folder=cache, class_name="screw")
    assert other.detectors[0].reused == 0
    assert scores(other) != scores(first)
    again = run(few, detector, cache_folder=cache)
    assert again.detectors[0].reused == len(few)
    assert scores(again) == scores(first)


def test_shares_predict_what_the_evaluation_looks_for(few: SampleSet, tmp_path: Path) -> None:
    detector, settings = MAKERS["clip"](), EvaluationSettings(size=28, resamples=0)
    predict_share(few, [detector], settings, Shard(1, 1), tmp_path)
    found = run(few, detector, cache_folder=tmp_path)
    assert found.detectors[0].reused == len(few)
    assert scores(found) == scores(run(few, detector))


def test_texts_are_encoded_once_per_class_with_one_clip(
    few: SampleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, encoded = [], []
    build, encode = FrozenCLIP.build, FrozenCLIP.read_text
    detector = MAKERS["clip"]()
    monkeypatch.setattr(FrozenCLIP, "read_text", lambda *given: encoded.append(1) or encode(*given))

    def counted(*given: Any, **options: Any) -> FrozenCLIP:
        built.append(1)
        return build(*given, **options)

    detector.clip.rebuild = lambda: counted(CLIP, None, text=True)
    run(few, detector)
    assert len(built) == 1
    assert len(encoded) == 2


def test_the_command_line_writes_the_names(
    blobs_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    from medzsad.cli.main import run as medzsad
    from medzsad.detectors.checkpoint import save_checkpoint

    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "cache"))
    save_file(FrozenCLIP.build(CLIP, None, text=True).state_dict(), tmp_path / "clip.safetensors")
    save_checkpoint(MAKERS["clip"]().to_checkpoint(), tmp_path / "ours.safetensors")
    command = ["evaluate", "-q", "-d", "mvtec", "--root", blobs_root, "-m", tmp_path / "ours.safetensors"]
    command += ["--clip-weights", tmp_path / "clip.safetensors", "--resamples", "0", "--json"]
    command += ["--no-references", "--limit", "4", "--size", "28"]
    for options, name in (
        ((), {"bottle": "bottle", "cable": "cable"}),
        (("--class-name", "metal nut"), "metal nut"),
        (("--organ", "brain/mr"), "brain MRI"),
    ):
        assert medzsad([str(word) for word in (*command, *options)]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["detectors"][0]["settings"]["class_name"] == name
    nameless = ["evaluate", "-q", "-d", "mvtec", "--root", str(blobs_root), "--class-name", "cable"]
    assert medzsad(nameless) == 2
    assert "leave --class-name out" in capsys.readouterr().err
