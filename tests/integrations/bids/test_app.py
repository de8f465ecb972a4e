"""``medzsad bids`` on made data sets: names, sidecars, resuming, failures, and the official validator."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from made_scans import AFFINE, small_head
from shared_data import Shared

from medzsad.cli.main import run

pytest.importorskip("bids")

VALIDATOR = shutil.which("bids-validator-deno", path=f"{Path(sys.executable).parent}")
IMAGES = ("sub-01/ses-1/anat/sub-01_ses-1_run-1_FLAIR", "sub-01/ses-1/anat/sub-01_ses-1_T1w",
          "sub-02/ses-1/anat/sub-02_ses-1_FLAIR")  # fmt: skip
Call = Callable[..., tuple[int, str, str]]


def put(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(small_head(seed=seed).astype(np.int16), AFFINE).to_filename(path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A valid data set of two participants."""
    root = tmp_path / "study"
    for seed, name in enumerate(IMAGES):
        put(root / f"{name}.nii.gz", seed)
    facts = {"Name": "Made heads", "BIDSVersion": "1.10.0", "DatasetDOI": "doi:10.0000/made"}
    (root / "dataset_description.json").write_text(json.dumps(facts))
    (root / "README").write_text("Made heads.\n" * 20)
    return root


@pytest.fixture
def bids(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs ``medzsad bids`` with a detector that needs no time."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["bids", "--model", "brightness", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def errors_of(root: Path) -> list[dict]:
    """What the official validator calls an error."""
    if VALIDATOR is None:
        pytest.skip("the BIDS validator is not installed")
    done = subprocess.run([VALIDATOR, root, "--json"], capture_output=True, text=True, check=False)
    return [each for each in json.loads(done.stdout)["issues"]["issues"] if each["severity"] == "error"]


@pytest.mark.slow
def test_derivatives_and_table_are_valid_bids(dataset: Path, bids: Call) -> None:
    out = dataset / "derivatives" / "medzsad"
    code, _, stderr = bids(dataset, out, "participant", "--report")
    assert code == 0, stderr
    code, stdout, _ = bids(dataset, out, "group")
    assert (code, stdout) == (0, f"3 images: {out}/group_anomaly.tsv\n")
    assert errors_of(dataset) == []
    assert errors_of(out) == []

    stem = out / "sub-01/ses-1/anat/sub-01_ses-1_run-1_space-FLAIR_desc-anomaly"
    anomaly, mask = (nibabel.load(f"{stem}_{end}.nii.gz") for end in ("probseg", "mask"))
    source = nibabel.load(dataset / f"{IMAGES[0]}.nii.gz")
    np.testing.assert_array_equal(anomaly.affine, source.affine)
    assert anomaly.shape == mask.shape == source.shape
    sidecar = json.loads(Path(f"{stem}_probseg.json").read_text())
    assert sidecar["Sources"] == [f"bids:raw:{IMAGES[0]}.nii.gz"]
    assert sidecar["Units"] == "arbitrary"
    assert sidecar["Threshold"] == sidecar["Report"]["threshold"]["value"]
    assert sidecar["Score"] == sidecar["Report"]["score"]
    voxels = json.loads(Path(f"{stem}_mask.json").read_text())
    assert voxels["Type"] == "Lesion"
    assert voxels["Candidates"] == len(sidecar["Report"]["lesions"]) == len(voxels["Volumes"])
    figures = out / "sub-01/figures/sub-01_ses-1_run-1_space-FLAIR_desc-anomaly"
    assert Path(f"{figures}_probseg.png").is_file()
    assert Path(f"{figures}_report.html").is_file()

    lines = (out / "group_anomaly.tsv").read_text().splitlines()
    header = lines[0].split("\t")
    assert list(json.loads((out / "group_anomaly.json").read_text())) == header
    rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
    assert [row["participant_id"] for row in rows] == ["sub-01", "sub-01", "sub-02"]
    assert {row["session_id"] for row in rows} == {"ses-1"}
    (row,) = (row for row in rows if row["image"] == f"{IMAGES[0]}.nii.gz")
    assert float(row["score"]) == sidecar["Score"]
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetLinks"] == {"raw": "doi:10.0000/made"}
    assert description["GeneratedBy"][0]["Name"] == "medzsad"


def test_folders_may_be_relative(
    dataset: Path, bids: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    for here, root in ((tmp_path, "study"), (dataset, "."), (tmp_path / "elsewhere", "../study")):
        monkeypatch.chdir(here)
        out = Path(root, "derivatives/medzsad")
        options = ("--suffix", "FLAIR", "--skip-bids-validation", "--json", "-q")
        code, stdout, _ = bids(root, out, "participant", *options)
        images = [image["image"] for image in json.loads(stdout)["images"]]
        assert (code, images) == (0, [f"{IMAGES[0]}.nii.gz", f"{IMAGES[2]}.nii.gz"])
        code, stdout, _ = bids(root, out, "group", "--json")
        assert (code, json.loads(stdout)["images"]) == (0, 2)
    links = json.loads((dataset / "derivatives/medzsad/dataset_description.json").read_text())["DatasetLinks"]
    assert links == {"raw": "doi:10.0000/made"}


def test_labels_and_suffixes_choose_as_in_other_bids_apps(dataset: Path, bids: Call, tmp_path: Path) -> None:
    options = ("--skip-bids-validation", "--json", "--suffix", "FLAIR", "T2w", "--participant-label")
    code, stdout, _ = bids(dataset, tmp_path / "out", "participant", *options, "sub-02", "01")
    assert code == 0
    assert [image["participant_id"] for image in json.loads(stdout)["images"]] == ["sub-01", "sub-02"]
    code, stdout, _ = bids(dataset, tmp_path / "out", "participant", *options, "01")
    (image,) = json.loads(stdout)["images"]
    assert image["files"]["anomaly"].endswith("sub-01_ses-1_run-1_space-FLAIR_desc-anomaly_probseg.nii.gz")
    link = json.loads((tmp_path / "out/dataset_description.json").read_text())["DatasetLinks"]["raw"]
    assert link == "doi:10.0000/made"
    for label, there in (("--participant-label", "sub-01"), ("--session-label", "ses-1")):
        code, _, stderr = bids(dataset, tmp_path / "out", "participant", label, "9")
        assert code == 2
        assert there in stderr


def test_a_second_run_does_what_is_missing_and_keeps_the_rest(
    dataset: Path, bids: Call, tmp_path: Path
) -> None:
    out, command = tmp_path / "out", ("participant", "--skip-bids-validation")
    assert bids(dataset, out, *command)[0] == 0
    files = {path: path.stat().st_mtime_ns for path in out.rglob("sub-*") if path.is_file()}
    gone = out / "sub-02/ses-1/anat/sub-02_ses-1_space-FLAIR_desc-anomaly_mask.nii.gz"
    gone.unlink()
    code, stdout, _ = bids(dataset, out, *command)
    assert code == 0
    assert "3 by an earlier run; --fresh does them again" in stdout
    now = {path: path.stat().st_mtime_ns for path in out.rglob("sub-*") if path.is_file()}
    assert now.keys() == files.keys()
    assert all(now[path] == files[path] for path in files if "sub-01" in path.name)
    code, stdout, _ = bids(dataset, out, *command, "--threshold", "0.9")
    assert "earlier" not in stdout
    assert json.loads(gone.with_name(gone.name.replace(".nii.gz", ".json")).read_text())["Threshold"] == 0.9


def test_a_participant_that_fails_stops_no_other(dataset: Path, bids: Call, tmp_path: Path) -> None:
    broken = dataset / f"{IMAGES[2]}.nii.gz"
    broken.write_bytes(broken.read_bytes()[:500])
    code, stdout, stderr = bids(dataset, tmp_path / "out", "participant", "--skip-bids-validation")
    assert code == 2
    assert "2 of 3 images done, 1 failed" in stdout
    assert stderr.count("error:") == 1
    assert "sub-02_ses-1_FLAIR.nii.gz" in stderr
    assert not (tmp_path / "out/sub-02").exists()
    code, stdout, stderr = bids(dataset, tmp_path / "out", "group")
    assert (code, stdout) == (0, f"2 images: {tmp_path}/out/group_anomaly.tsv\n")
    assert "1 of 3 images have no results yet" in stderr


def test_a_file_that_is_not_ours_is_kept(dataset: Path, bids: Call, tmp_path: Path) -> None:
    mine = tmp_path / "out/sub-02/ses-1/anat/sub-02_ses-1_space-FLAIR_desc-anomaly_mask.nii.gz"
    put(mine, 7)
    content = mine.read_bytes()
    code, _, stderr = bids(dataset, tmp_path / "out", "participant", "--skip-bids-validation")
    assert code == 2
    assert "was not written by medzsad" in stderr
    assert mine.read_bytes() == content


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda root: (root / "dataset_description.json").unlink(), "has no dataset_description.json"),
        (lambda root: (root / "dataset_description.json").write_text("{}"), "gives the data set no Name"),
        (lambda root: (root / "dataset_description.json").write_text("{"), "not valid JSON"),
        (lambda root: put(root / f"{IMAGES[0]}.nii", 3), "twice"),
        (lambda root: shutil.rmtree(root), "there is no such folder"),
    ],
)
def test_what_is_no_data_set(
    dataset: Path, bids: Call, tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    make(dataset)
    code, stdout, stderr = bids(dataset, tmp_path / "out", "participant", "--skip-bids-validation")
    assert (code, stdout) == (2, "")
    assert stderr.count("\n") == 1
    assert reason in stderr
    assert not (tmp_path / "out").exists()


def test_places_that_are_refused(dataset: Path, bids: Call, tmp_path: Path) -> None:
    before = sorted(dataset.rglob("*"))
    for out in (dataset, dataset / "results"):
        code, _, stderr = bids(dataset, out, "participant", "--skip-bids-validation")
        assert code == 2
        assert "lies in the data set itself" in stderr
    assert sorted(dataset.rglob("*")) == before
    other = tmp_path / "fmriprep"
    other.mkdir()
    (other / "dataset_description.json").write_text('{"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}]}')
    code, _, stderr = bids(dataset, other, "participant", "--skip-bids-validation")
    assert code == 2
    assert "holds another data set" in stderr
    code, _, stderr = bids(dataset, tmp_path / "out", "participant", "--skip-bids-validation", "--plane", "x")
    assert code == 2
    assert not (tmp_path / "out").exists()
    code, _, stderr = bids(dataset, tmp_path / "out", "group")
    assert code == 2
    assert "run the level participant first" in stderr


def test_a_data_set_that_the_validator_refuses(dataset: Path, bids: Call, tmp_path: Path) -> None:
    (dataset / "sub-01/ses-1/anat/sub-01_ses-1_nonsense.nii.gz").write_bytes(b"")
    assert errors_of(dataset)
    code, _, stderr = bids(dataset, tmp_path / "out", "participant")
    assert code == 2
    assert "is no valid BIDS data set (/sub-01/ses-1/anat/sub-01_ses-1_nonsense.nii.gz" in stderr
    assert "--skip-bids-validation" in stderr
    assert not (tmp_path / "out").exists()


def test_without_a_validator_that_is_said(
    dataset: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medzsad.integrations.bids.dataset import validate

    monkeypatch.setattr("medzsad.integrations.bids.dataset.VALIDATORS", ("no-such-program",))
    caplog.set_level("INFO", logger="medzsad")
    validate(dataset)
    assert "is not installed" in caplog.text


@pytest.mark.slow
def test_real_flair_through_the_embedded_detector(
    shared: Shared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "study", tmp_path / "study/derivatives/medzsad"
    for number in (1, 5):
        target = root / f"sub-{number:02d}/anat/sub-{number:02d}_FLAIR.nii.gz"
        target.parent.mkdir(parents=True)
        shutil.copyfile(shared(f"data/nichart_demo/flair/subj{number}.nii.gz"), target)
    (root / "dataset_description.json").write_text('{"Name": "FLAIR", "BIDSVersion": "1.10.0"}')
    (root / "README").write_text("FLAIR of two elderly people, at 2 mm.\n")
    assert run(["bids", str(root), str(out), "participant"]) == 0
    assert run(["bids", str(root), str(out), "group"]) == 0
    assert errors_of(root) == []
    assert errors_of(out) == []
    assert json.loads((out / "dataset_description.json").read_text())["DatasetLinks"] == {"raw": "../.."}


def test_on_another_disk_files_are_copied_and_what_was_added_stays(
    dataset: Path, bids: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("medzsad.integrations.bids.derivatives.os.link", refuse)
    out, work = tmp_path / "out", tmp_path / "work"
    command = ("participant", "--skip-bids-validation", "--suffix", "T1w", "-w", work)
    assert bids(dataset, out, *command)[0] == 0
    name = "sub-01_ses-1_space-T1w_desc-anomaly_probseg.nii.gz"
    copied = (out / "sub-01/ses-1/anat" / name).read_bytes()
    assert copied == (work / "sub-01_ses-1_T1w_anomaly.nii.gz").read_bytes()
    assert not (out / ".work").exists()
    path = out / "dataset_description.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"Authors": ["A", "B"], "Name": "x"}))
    assert bids(dataset, out, *command)[0] == 0
    description = json.loads(path.read_text())
    assert (description["Authors"], description["Name"]) == (
        ["A", "B"],
        "medzsad: anomaly maps of Made heads",
    )


def test_programs_that_are_missing_or_fail_are_told_in_a_line(
    dataset: Path, bids: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medzsad.integrations.bids.dataset.VALIDATORS", ("false",))
    code, _, stderr = bids(dataset, tmp_path / "out", "participant")
    assert code == 2
    assert "the BIDS validator failed" in stderr
    assert "--skip-bids-validation" in stderr
    monkeypatch.setitem(sys.modules, "bids", None)
    code, _, stderr = bids(dataset, tmp_path / "out", "participant")
    assert code == 2
    assert 'pip install "medzsad[bids]"' in stderr


def test_an_image_that_was_not_fetched(dataset: Path, bids: Call, tmp_path: Path) -> None:
    """DataLad leaves links that lead nowhere."""
    path = dataset / f"{IMAGES[2]}.nii.gz"
    path.unlink()
    path.symlink_to("../../../.git/annex/objects/x")
    code, stdout, stderr = bids(dataset, tmp_path / "out", "participant", "--skip-bids-validation")
    assert code == 2
    assert "2 of 3 images done, 1 failed" in stdout
    assert "sub-02_ses-1_FLAIR.nii.gz" in stderr
