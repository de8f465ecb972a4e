from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medzsad.batch import Outcome, predict_many, unique_names
from medzsad.errors import BadInput


def nifti(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).random((16, 16, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 4, 1])), path)
    return path


def test_detector_is_loaded_once_and_names_stay_apart(tmp_path, monkeypatch):
    import medzsad.zoo.loading as loading

    loaded = []
    load = loading.load_detector
    monkeypatch.setattr(loading, "load_detector", lambda *a, **k: loaded.append(a) or load(*a, **k))
    for i, case in enumerate(("case1", "case2", "case3")):
        nifti(tmp_path / "in" / case / "flair.nii.gz", i)
    notes: list[str] = []
    outcome = predict_many([tmp_path / "in"], tmp_path / "out", say=notes.append)
    assert outcome.exit_code == 0
    assert len(loaded) == 1
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == [
        "case1_flair.json",
        "case2_flair.json",
        "case3_flair.json",
    ]
    assert any("guessed" in note for note in notes)
    document = json.loads(json.dumps(outcome.document(), allow_nan=False))
    assert document["scans"][0]["files"]["mask"].endswith("case1_flair_mask.nii.gz")
    assert document["failed"] == []
    assert all(len(line) <= 80 for line in outcome.table() if "files in" not in line)


def test_the_same_scan_twice_is_predicted_once(tmp_path):
    scan = nifti(tmp_path / "in" / "a.nii.gz", 0)
    assert len(predict_many([scan, tmp_path / "in"], tmp_path / "out").done) == 1


def test_results_among_the_scans(tmp_path):
    """The second run finds the same scans, and every result of the first is replaced or gone."""
    scan = nifti(tmp_path / "a.nii.gz", 0)
    options = {"report": True, "save_scan": True, "seg_nrrd": True, "overlay": "slices"}
    for out in (tmp_path, tmp_path / "sub"):
        assert len(predict_many([tmp_path], out, **options).done) == 1
    outcome = predict_many([tmp_path], tmp_path, threshold=0.01)
    assert [path for path, _, _ in outcome.done] == [scan]
    assert outcome.failed == []
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {
        f"a{end}" for end in (".nii.gz", ".json", "_anomaly.nii.gz", "_mask.nii.gz", "_overlay.png")
    }
    given = predict_many(sorted(tmp_path.glob("*.nii.gz")), tmp_path)  # as a shell's *.nii.gz
    assert [path for path, _, _ in given.done] == [scan]
    assert all("result of medzsad" in str(error) for _, error in given.failed)
    assert len(given.failed) == 2


def test_a_file_of_the_users_is_not_replaced(tmp_path):
    nifti(tmp_path / "a.nii.gz", 0)
    (tmp_path / "a.json").write_text('{"EchoTime": 3}')
    outcome = predict_many([tmp_path], tmp_path)
    assert outcome.exit_code == 2
    assert "was not written by medzsad" in str(outcome.failed[0][1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.nii.gz"]


def test_unique_names():
    paths = [Path("/d/p1/t1.nii.gz"), Path("/d/p2/t1.nii.gz"), Path("/d/p2/other.nii")]
    assert unique_names(paths) == ["p1_t1", "p2_t1", "other"]
    assert unique_names([Path("/d/a/b/t.nii"), Path("/d/c/b/t.nii")]) == ["a_b_t", "c_b_t"]
    same = unique_names([Path("/d/p/t.nii"), Path("/d/p/t.nii.gz"), Path("/d/p/t.png")])
    assert len(set(same)) == 3


def test_names_that_only_look_apart(tmp_path):
    """What would be written to one file, though the paths, or what links lead to, have other names."""
    (tmp_path / "case.1").mkdir()
    assert len(set(unique_names([tmp_path / "case.1", tmp_path / "case.1.nii.gz"]))) == 2
    links = []
    for case in ("p1", "p2"):
        real = nifti(tmp_path / "store" / f"of-{case}.nii.gz", 0)
        (tmp_path / case).mkdir()
        links.append(tmp_path / case / "t1.nii.gz")
        links[-1].symlink_to(real)
    assert unique_names(links) == ["p1_t1", "p2_t1"]
    numbered = unique_names([Path("/t_2.nii"), Path("/t.nii"), Path("/t.png"), Path("/T.dcm")])
    assert len({name.casefold() for name in numbered}) == 4
    assert unique_names([Path("/d/1.2.840.1"), Path("/d/1.2.840.2")]) == ["1.2.840.1", "1.2.840.2"]


def test_file_names_that_are_no_text(tmp_path):
    odd = [b"K\xe4se.nii.gz", b"two\nlines.nii.gz"]
    scans = [nifti(tmp_path / os.fsdecode(name), seed) for seed, name in enumerate(odd)]
    outcome = predict_many(scans, tmp_path / "out", model="brightness", report=True)
    assert outcome.exit_code == 0, outcome.failed
    assert {"K\ufffdse.json", "two_lines_report.html", "index.html"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    json.dumps(outcome.document(), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("errors", "code"),
    [([], 0), ([BadInput("x")], 2), ([RuntimeError("x")], 1), ([BadInput("x"), OSError()], 1)],
)
def test_exit_codes(errors, code):
    assert Outcome(failed=[(Path("x"), error) for error in errors]).exit_code == code
