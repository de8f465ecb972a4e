"""A disk that fills up at any point, and a cache that cannot be written: one line, and nothing half-written.

The disk is a small file system in memory, which root may mount; a filler leaves so many bytes of it free.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow  # each command is run for eight fillings of the disk

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.yaml"
QUICK = ("detector.image_size=56", "data.0.limit=4", "validation.data=[]", "batch_size=4", "epochs=1")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 64 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root of Linux may mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images with masks, two of which are not empty."""
    rng, root = np.random.default_rng(0), tmp_path / "set"
    for number in range(4):
        mask = np.zeros((40, 40), np.uint8)
        mask[8:20, 10:22] = 255 * (number % 2)
        pixels = rng.integers(0, 150, (40, 40), dtype=np.uint8) + mask // 4
        for folder, content in (("images", pixels), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(root / folder / f"{number}.png")
    return root


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for number in range(2):
        voxels = np.random.default_rng(number).normal(100, 20, (16, 16, 4)).astype(np.float32)
        (tmp_path / "scans").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2, 2, 3, 1])), tmp_path / "scans" / f"{number}.nii")
    return tmp_path / "scans"


def fill(disk: Path, free: int) -> None:
    """Take all of the disk but so many bytes."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    room = os.statvfs(disk)
    filler.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - free)))


def check(disk: Path, code: int, err: str) -> None:
    """All done, or one line and exit code 2; what is there is whole either way."""
    assert code in (0, 2), err
    lines = [line for line in err.splitlines() if line.startswith(("error:", "internal error"))]
    assert len(lines) == (code == 2), err
    assert all(line.startswith("error: ") for line in lines)
    assert "Traceback" not in err
    files = [path for path in disk.rglob("*") if path.is_file() and path.name != "filler"]
    left = [
        path.name for path in disk.rglob("*") if path.name.startswith(".medzsad-") or "writing" in path.name
    ]
    assert left == []
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".png":
            with Image.open(path, formats=["PNG"]) as image:
                image.load()
        elif path.suffix == ".npz":
            with np.load(path) as stored:
                assert {name: stored[name] for name in stored.files}
        elif path.name.endswith(".nii.gz"):
            assert np.isfinite(nibabel.load(path).get_fdata()).all()
        elif path.suffix == ".safetensors":
            from safetensors.torch import load_file

            assert load_file(path)
        else:
            marks = path.suffix in (".lock", ".jsonl") or path.name.startswith(
                "."
            )  # a log grows line by line
            assert path.stat().st_size or marks, path


STEPS = (
    0,
    4096,
    8192,
    20_000,
    60_000,
    120_000,
    400_000,
)  # free bytes, so that other files are the first to fail


def sweep(disk: Path, command: Callable[[int], tuple[int, str, str]], steps: Sequence[int] = STEPS) -> None:
    """Run the command with a disk that is fuller or less full, and then with room."""
    codes = []
    for free in steps:
        fill(disk, free)
        code, _, err = command(free)
        check(disk, code, err)
        codes.append(code)
    assert codes[0] == 2
    (disk / "filler").unlink()
    code, _, err = command(-1)
    assert code == 0, err
    check(disk, code, err)


def test_evaluate(medzsad: Run, disk: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDZSAD_CACHE", str(disk / "cache"))
    options = ("-m", "medzsad-mini", "--size", 32, "--resamples", 5, "--device", "cpu", "--no-references")
    root = ("evaluate", "-d", "folder", "--root", images)
    sweep(disk, lambda free: medzsad(*root, *options, "-o", disk / f"out{free}", "--save-maps"))
    names = {path.name for path in (disk / "out-1").iterdir()}
    assert {"metrics.json", "metrics.csv", "table.md", "table.tex", "medzsad-mini"} <= names


def test_a_suite(medzsad: Run, disk: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDZSAD_CACHE", str(disk / "cache"))
    images.rename(images.with_name("kvasir"))
    options = ("-m", "brightness", "--size", 32, "--resamples", 5, "--no-references")
    root = ("evaluate", "--suite", "kvasir", "--data", images.parent)
    sweep(disk, lambda free: medzsad(*root, *options, "-o", disk / f"out{free}"))


def test_a_cohort(medzsad: Run, disk: Path, scans: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (medzsad[cohort])")
    options = ("-m", "brightness", "--jobs", 0, "--device", "cpu", "--report")
    sweep(disk, lambda _: medzsad("predict", scans, "-o", disk / "out", *options))
    assert len(list(disk.glob("out/scans/*/*/outcome.json"))) == 2


def test_train(medzsad: Run, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDZSAD_CACHE", str(disk / "cache"))
    base = ("train", "-c", SMOKE, "--device", "cpu", "-q", *QUICK)
    assert medzsad(*base, "-o", tmp_path / "with-room")[0] == 0
    whole = sum(path.stat().st_size for path in (tmp_path / "with-room").rglob("*") if path.is_file())
    steps = [int(whole * share) for share in (0, 0.01, 0.5, 0.9, 0.99, 0.999)]
    fresh = ("--fresh",)
    sweep(disk, lambda free: medzsad(*base, "-o", disk / "run", *(fresh if free >= 0 else ())), steps)
    assert (disk / "run" / "adapter.safetensors").is_file()


@pytest.mark.parametrize("kind", ["file", "read-only"])
def test_a_cache_that_cannot_be_written(
    medzsad: Run, tmp_path: Path, images: Path, scans: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    cache = tmp_path / "cache"
    if kind == "file":
        cache.write_text("no folder")
    else:
        cache = Path("/proc/medzsad")  # where nobody can make a folder
    monkeypatch.setenv("MEDZSAD_CACHE", str(cache))
    evaluation = (
        "evaluate", "-d", "folder", "--root", images, "-m", "brightness", "--size", 32, "--resamples", 5,
        "--no-references", "-o", tmp_path / "evaluated",
    )  # fmt: skip
    code, _, err = medzsad(*evaluation)
    assert code == 2, err
    (line,) = (line for line in err.splitlines() if line.startswith("error:"))
    assert "MEDZSAD_CACHE" in line
    assert "--no-cache" in line
    assert not [path for path in (tmp_path / "evaluated").rglob("*") if path.is_file()]
    # What needs no cache goes on without.
    assert medzsad(*evaluation, "--no-cache")[0] == 0
    code, _, err = medzsad("predict", scans, "-o", tmp_path / "many", "-m", "brightness", "--jobs", 0)
    assert code == 0, err
    code, _, err = medzsad("train", "-c", SMOKE, "-o", tmp_path / "run", "--device", "cpu", "-q", *QUICK)
    assert code == 0, err
