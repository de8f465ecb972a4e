"""Bundles are run by MONAI's own command and compared with ``medzsad predict``, bit for bit."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import nibabel
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow, run
from safetensors import safe_open

from medzsad.batch import predict_many
from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.headclip.model import HeadCLIP
from medzsad.detectors.headclip.settings import HeadCLIPSettings
from medzsad.detectors.zero_shot.plain_clip import PlainCLIP
from medzsad.detectors.zero_shot.settings import PlainCLIPSettings
from medzsad.errors import BadInput, ModelNotReady, OutputNotWritable
from medzsad.metrics import image_metrics, volume_metrics
from medzsad.monai.bundle import export_bundle
from medzsad.zoo.catalogue import weights_folder
from medzsad.zoo.loading import load_detector

SCHEMA = json.loads((Path(__file__).parent / "metadata_schema.json").read_text())
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "medzsad-mini"
    export_bundle("medzsad-mini", folder)
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight slices of the phantom, and eight without the lesion, with labels beside them."""
    folder = tmp_path_factory.mktemp("scans")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    volume = nibabel.load(EXAMPLES / "head_phantom.nii.gz")
    lesion = nibabel.load(EXAMPLES / "head_phantom_lesion.nii.gz")
    most = int(np.argmax(np.asarray(lesion.dataobj).sum((0, 1))))
    for name, first in (("lesion", most - 4), ("none", 4)):
        part = np.s_[:, :, first : first + 8]
        nibabel.save(volume.slicer[part], folder / "images" / f"{name}.nii.gz")
        nibabel.save(lesion.slicer[part], folder / "labels" / f"{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def headclip(small_weights, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A HeadCLIP as if trained, on a small random CLIP: checkpoint and CLIP weights."""
    settings = HeadCLIPSettings(
        backbone=small_weights.architecture, clip_weights=str(small_weights.clip), image_size=70
    )
    torch.manual_seed(0)
    detector = HeadCLIP.from_anomalyclip(small_weights.anomalyclip, settings)
    with torch.no_grad():
        for parameter in detector.head_weights.parameters():
            parameter.copy_(0.5 + torch.rand(parameter.shape))
    path = tmp_path_factory.mktemp("headclip") / "tuned.safetensors"
    save_checkpoint(detector.to_checkpoint(), path)
    return path, small_weights.clip


def run_bundle(bundle: Path, *overrides: object, configs: tuple[str, ...] = ("inference",)) -> str:
    files = [str(bundle / "configs" / f"{name}.yaml") for name in configs]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files)]
    command += ["--bundle_root", str(bundle), *map(str, overrides)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=bundle.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def same(first: Path, second: Path) -> None:
    one, other = nibabel.load(first), nibabel.load(second)
    assert np.asarray(one.dataobj).tobytes() == np.asarray(other.dataobj).tobytes()
    assert one.affine.tobytes() == other.affine.tobytes()
    assert one.header == other.header


def without_times(path: Path) -> dict[str, Any]:
    report = json.loads(path.read_text())
    report.pop("timings_s")
    return report


def test_the_layout_is_that_of_bundles(bundle: Path) -> None:
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert files == {
        "LICENSE",
        "configs/evaluate.yaml",
        "configs/inference.yaml",
        "configs/logging.conf",
        "configs/metadata.json",
        "docs/README.md",
        "models/medzsad-mini.safetensors",
    }
    assert "Apache License" in (bundle / "LICENSE").read_text()
    assert "{{" not in "".join(path.read_text() for path in (bundle / "docs").iterdir())
    assert (bundle.stat().st_mode & 0o777) == 0o755


def test_the_metadata_has_every_mandatory_field(bundle: Path) -> None:
    facts = json.loads((bundle / "configs" / "metadata.json").read_text())
    jsonschema.validate(facts, SCHEMA)
    for field in SCHEMA["required"]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: value for key, value in facts.items() if key != field}, SCHEMA)
    assert facts["name"] == "medzsad-mini"
    detector = load_detector("medzsad-mini", device="cpu")
    assert facts["medzsad"]["threshold"] == detector.threshold
    assert facts["medzsad"]["threshold_of_volumes"] == detector.for_volume().threshold != detector.threshold


def test_the_weights_are_those_of_the_package(bundle: Path) -> None:
    original = read_checkpoint(weights_folder() / "medzsad-mini.safetensors")
    copy = read_checkpoint(bundle / "models" / "medzsad-mini.safetensors")
    assert copy.tensors.keys() == original.tensors.keys()
    assert all(copy.tensors[name].equal(tensor) for name, tensor in original.tensors.items())
    assert original.training.items() <= copy.training.items()


def test_monai_finds_all_the_properties_of_an_inference_workflow(bundle: Path, scans: Path) -> None:
    configs = [str(bundle / "configs" / f"{name}.yaml") for name in ("inference", "evaluate")]
    for files in (configs[:1], configs):
        workflow = ConfigWorkflow(
            files, workflow_type="infer", logging_file=False, bundle_root=str(bundle), dataset_dir=str(scans)
        )
        workflow.initialize()
        assert workflow.check_properties() == []


@pytest.mark.slow
def test_it_gives_the_files_of_predict_bit_for_bit(bundle: Path, scans: Path, tmp_path: Path) -> None:
    scan = scans / "images" / "lesion.nii.gz"
    options = ("--image", scan, "--output_dir", tmp_path / "bundle", "--threshold", "p99", "--device", "cpu")
    run_bundle(bundle, *options)
    predict_many([scan], tmp_path / "predict", threshold="p99", device="cpu", overlay="none")
    for kind in ("anomaly", "mask"):
        name = f"lesion_{kind}.nii.gz"
        same(tmp_path / "bundle" / name, tmp_path / "predict" / name)
    assert np.asarray(nibabel.load(tmp_path / "bundle" / "lesion_mask.nii.gz").dataobj).any()
    first, second = (without_times(tmp_path / folder / "lesion.json") for folder in ("bundle", "predict"))
    assert first == second
    assert first["threshold"]["rule"] == "p99"


def test_headclip_brings_its_clip_and_gives_the_same(headclip, scans: Path, tmp_path: Path) -> None:
    path, clip = headclip
    bundle = tmp_path / "tuned"
    export_bundle(str(path), bundle, clip_weights=str(clip))
    with safe_open(bundle / "models" / "clip.safetensors", "pt") as stored:
        names = list(stored.keys())
        assert {stored.get_tensor(name).dtype for name in names} == {torch.float16}  # as it was published
    assert names
    assert all(name.startswith("visual.") for name in names)  # predicting needs no text tower
    scan = scans / "images" / "lesion.nii.gz"
    run(
        config_file=str(bundle / "configs" / "inference.yaml"),
        logging_file=False,
        bundle_root=str(bundle),
        image=str(scan),
        output_dir=str(tmp_path / "bundle"),
    )
    predict_many([scan], tmp_path / "predict", model=str(path), clip_weights=str(clip), overlay="none")
    same(tmp_path / "bundle" / "lesion_anomaly.nii.gz", tmp_path / "predict" / "lesion_anomaly.nii.gz")
    assert "check before you pass it on" in (bundle / "docs" / "README.md").read_text()


@pytest.mark.slow
def test_evaluate_gives_the_figures_of_our_metrics(bundle: Path, scans: Path, tmp_path: Path) -> None:
    options = ("--dataset_dir", scans, "--output_dir", tmp_path, "--formats", "['nifti','json']")
    printed = run_bundle(bundle, *options, configs=("inference", "evaluate"))
    with (tmp_path / "metrics.csv").open() as file:
        found = {name: float(value) for name, value in csv.reader(file)}
    maps, labels, scores = [], [], []
    for name in ("lesion", "none"):
        maps.append(np.asarray(nibabel.load(tmp_path / f"{name}_anomaly.nii.gz").dataobj))
        labels.append(np.asarray(nibabel.load(scans / "labels" / f"{name}.nii.gz").dataobj) > 0)
        scores.append(json.loads((tmp_path / f"{name}.json").read_text())["score"])
    threshold = load_detector("medzsad-mini", device="cpu").for_volume().threshold
    expected = volume_metrics(maps, labels, threshold=threshold)
    for key in ("case_auroc", "case_ap", "case_dice", "case_dice_best"):
        assert found[key] == pytest.approx(float(expected[key]), abs=1e-9)
    assert found["voxel_auroc"] == pytest.approx(float(expected["voxel_auroc"]), abs=1e-4)
    assert found["image_auroc"] == image_metrics(scores, [1, 0])["image_auroc"]
    assert "case_ap" in printed


def test_scans_of_one_name_and_pictures_get_their_own_results(bundle: Path, tmp_path: Path) -> None:
    from PIL import Image

    levels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.fromarray(levels).save(tmp_path / "in" / folder / "image.png")
    overrides = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "out")}
    run(
        config_file=str(bundle / "configs" / "inference.yaml"),
        logging_file=False,
        bundle_root=str(bundle),
        formats=["nifti"],
        **overrides,
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{f}_image_{kind}.png" for f in "ab" for kind in ("anomaly", "mask")}
    predict_many([tmp_path / "in"], tmp_path / "predict", overlay="none")
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "predict" / name).read_bytes()


def test_nothing_tells_where_it_was_made_and_nothing_is_pickled(headclip, tmp_path: Path) -> None:
    path, clip = headclip
    export_bundle(str(path), tmp_path / "b", clip_weights=str(clip))
    for file in (tmp_path / "b").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert str(clip.parent).encode() not in content
            assert str(tmp_path).encode() not in content
            assert not content.startswith((b"PK", b"\x80"))
    assert (
        read_checkpoint(tmp_path / "b" / "models" / "tuned.safetensors").settings["clip_weights"] == clip.name
    )


def test_without_its_clip_a_bundle_is_small_and_says_what_it_needs(headclip, tmp_path: Path) -> None:
    path, clip = headclip
    export_bundle(str(path), tmp_path / "b", clip_weights=str(clip), with_clip=False)
    assert [file.name for file in (tmp_path / "b" / "models").iterdir()] == ["tuned.safetensors"]
    assert yaml.safe_load((tmp_path / "b" / "configs" / "inference.yaml").read_text())["clip_weights"] is None
    assert "CLIP weights that are not in this bundle" in (tmp_path / "b" / "docs" / "README.md").read_text()
    stored = tmp_path / "b" / "models" / "tuned.safetensors"
    with pytest.raises(ModelNotReady, match=r"small-clip\.pt"):
        load_detector(stored, device="cpu")
    images = torch.rand(1, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    options = {"device": "cpu", "precision": "fp32", "clip_weights": clip}
    first, second = (load_detector(file, **options)(images) for file in (stored, path))
    assert torch.equal(first.anomaly_map, second.anomaly_map)


def test_a_clip_in_single_precision_stays_exact(small_weights, tmp_path: Path) -> None:
    settings = PlainCLIPSettings(backbone=small_weights.architecture, clip_weights="random", image_size=56)
    weights = torch.load(small_weights.clip, weights_only=True)
    weights = {name: tensor.float() + 1e-5 for name, tensor in weights.items()}
    torch.save(weights, tmp_path / "exact.pt")
    detector = PlainCLIP.build(settings, clip_weights=tmp_path / "exact.pt")
    save_checkpoint(detector.to_checkpoint(), tmp_path / "plain.safetensors")
    export_bundle(
        str(tmp_path / "plain.safetensors"), tmp_path / "b", clip_weights=str(tmp_path / "exact.pt")
    )
    models = tmp_path / "b" / "models"
    again = load_detector(
        models / "plain.safetensors", device="cpu", precision="fp32", clip_weights=models / "clip.safetensors"
    )
    for name, tensor in detector.clip.state_dict().items():
        assert again.clip.state_dict()[name].equal(tensor), name


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken in ("full", "file"):
        with pytest.raises(BadInput, match="give a new folder"):
            export_bundle("medzsad-mini", tmp_path / taken)
    (tmp_path / "empty").mkdir()
    export_bundle("brightness", tmp_path / "empty")
    assert (tmp_path / "empty" / "configs" / "inference.yaml").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]
    with pytest.raises(OutputNotWritable, match="cannot write the bundle"):
        export_bundle("brightness", tmp_path / "file" / "below")


def test_a_clip_of_a_folder_or_a_hub_cannot_come_along(tmp_path: Path) -> None:
    class Stub:
        name = "biomed"

        class config:  # noqa: N801 - an attribute of detectors
            backbone = "hf-hub:owner/name"

    from medzsad.monai.bundle import _check_backbone

    with pytest.raises(BadInput, match="`without_clip`"):
        _check_backbone(Stub, True)
    _check_backbone(Stub, False)
    Stub.config.backbone = "local-dir:/somewhere"
    with pytest.raises(BadInput, match="folder of this machine"):
        _check_backbone(Stub, False)
