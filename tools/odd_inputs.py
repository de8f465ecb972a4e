"""Runs medzsad on odd inputs from public bug reports; each must give the right result, or a refusal.

    python tools/odd_inputs.py ../shared/odd_inputs [NAME ...]

Each folder there has a README (the report, and the right result) and a ``make.py``, which makes the input.
The right results are written down here once more, as checks. Exit code 1 if any fails.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

import medzsad
from medzsad.errors import BadInput
from medzsad.scans.find import locate_scans
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Scan

CHECKS: dict[str, Callable[[Path], None]] = {}


def check(name: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register the check of a folder."""

    def register(function: Callable[[Path], None]) -> Callable[[Path], None]:
        CHECKS[name] = function
        return function

    return register


def run_check(root: Path, name: str, folder: Path) -> None:
    """Make the input ``name`` in ``folder`` and check it.

    Raises:
        AssertionError: the result is not the right one.
    """
    before = sys.argv, list(sys.path)
    sys.argv = ["make.py", str(folder)]
    try:
        runpy.run_path(str(root / name / "make.py"), run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before
    CHECKS[name](folder)


def all_scans(folder: Path) -> list[Scan]:
    """Every scan of a folder, all readable."""
    return [read_scan(place.path, series=place.series) for place in locate_scans(folder)[0]]


def refused(action: Callable[[], object], *words: str) -> bool:
    """Whether an action is refused in one line with these words."""
    text = ""
    try:
        action()
    except BadInput as error:
        text = str(error)
    return bool(text) and "\n" not in text and all(word in text for word in words)


def says(notes: tuple[str, ...], *words: str) -> bool:
    """Whether a note has all these words."""
    return any(all(word in note for word in words) for note in notes)


def medians(scan: Scan) -> np.ndarray:
    """Return the median of each plane's pixels above 0."""
    return np.array([np.median(plane[plane > 0]) for plane in np.moveaxis(scan.voxels, 2, 0)])


def predict(*arguments: object) -> int:
    """Return the exit code of ``medzsad predict`` with a detector that needs no weights.

    Nothing is printed.
    """
    from medzsad.cli.main import run

    options = ["--model", "brightness", "--overlay", "none", "-q"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return run(["predict", *map(str, arguments), *options])


@check("cd-lowercase-dicomdir")
def _(folder: Path) -> None:
    for place in (folder, folder / "dicomdir"):
        paths = [found.path.name for found in locate_scans(place)[0]]
        assert paths == ["pat1", "pat2", "pat3"], paths
    assert [scan.shape for scan in all_scans(folder)] == [(64, 64, 20)] * 3


@check("ct-nifti-offset-1024")
def _(folder: Path) -> None:
    scan = read_scan(folder / "ct.nii.gz", modality="ct")
    assert says(scan.notes, "no negative values", "may not be HU"), scan.notes


@check("dermoscopy-folder")
def _(folder: Path) -> None:
    scans = all_scans(folder)
    assert [scan.name for scan in scans] == [f"ISIC_{k}" for k in range(4)]
    assert {str(scan.modality) for scan in scans} == {"rgb"}


@check("dynamic-missing-slice")
def _(folder: Path) -> None:
    assert refused(lambda: read_scan(folder), "3 volumes", "`volume` 0 to `volume` 2")
    scan = read_scan(folder, volume=1)
    assert scan.shape == (64, 64, 16)
    assert np.abs(medians(scan) - 1000).max() < 20, medians(scan)
    assert says(scan.notes, "1 slice is missing", "interpolated"), scan.notes


@check("enhanced-split-over-files")
def _(folder: Path) -> None:
    (scan,) = all_scans(folder)
    assert scan.shape == (64, 64, 20)


@check("label-noise")
def _(folder: Path) -> None:
    from medzsad.datasets.opening import open_dataset

    positives = {
        sample.image.name.partition(".")[0]: int(sample.read_label().sum())
        for sample in open_dataset("volumes", folder)
    }
    assert positives == {"clean": 186, "noise": 186, "scaled": 186}, positives


@check("missing-content")
def _(folder: Path) -> None:
    places = [place.path for place in locate_scans(folder)[0]]
    lost = folder / "sub-02_T1w.nii.gz"
    assert places == [folder / "sub-01_T1w.nii.gz", lost, folder / "ct"], places
    assert refused(lambda: read_scan(lost), "link that leads nowhere")
    scan = read_scan(folder / "ct")
    assert scan.shape[2] == 17
    assert says(scan.notes, "2 x a link that leads nowhere", "1 x an empty file"), scan.notes


@check("mpo-jpeg")
def _(folder: Path) -> None:
    scan = read_scan(folder / "phone.jpg")
    assert scan.voxels.shape == (256, 256, 1, 3)


@check("multipass-ct")
def _(folder: Path) -> None:
    assert refused(lambda: read_scan(folder), "2 volumes", "AcquisitionNumber", "`volume` 0")
    scans = [read_scan(folder, volume=volume) for volume in (0, 1)]
    assert [scan.shape for scan in scans] == [(64, 64, 20)] * 2
    assert scans[1].voxels.min() - scans[0].voxels.min() == 500


@check("nifti-qform-differs")
def _(folder: Path) -> None:
    result = medzsad.predict(str(folder / "scan.nii.gz"), detector="brightness")
    files = result.save(folder / "out", formats=("nifti",))
    scan = nibabel.load(folder / "scan.nii.gz")
    for file in files.values():
        if str(file).endswith(".nii.gz"):
            image = nibabel.load(file)
            for name in ("get_qform", "get_sform"):
                matrix, code = getattr(image, name)(coded=True)
                wanted, wanted_code = getattr(scan, name)(coded=True)
                assert code == wanted_code, (file.name, name, code)
                np.testing.assert_allclose(matrix, wanted, atol=1e-4)


@check("no-position-no-number")
def _(folder: Path) -> None:
    (scan,) = all_scans(folder)
    slices = np.array([dicom_pixels(folder / f"IM{k + 1}") for k in range(20)])
    np.testing.assert_array_equal(scan.voxels, slices.transpose(2, 1, 0))
    assert says(scan.notes, "order of their file names"), scan.notes
    assert not says(scan.notes, "sorted by InstanceNumber")


@check("no-series-uid")
def _(folder: Path) -> None:
    scans = all_scans(folder)
    assert [scan.shape for scan in scans] == [(64, 64, 12)] * 2
    assert sorted(float(scan.voxels.min()) for scan in scans) == [-1000, -700]
    assert {float(np.ptp(scan.voxels.min(axis=(0, 1)))) for scan in scans} == {0.0}


@check("output-in-input")
def _(folder: Path) -> None:
    codes, counts = [], []
    for _ in range(2):
        codes.append(predict(folder, "-o", folder))
        counts.append(len(list(folder.rglob("*"))))
    assert codes in ([0, 0], [2, 2]), codes
    assert counts[0] == counts[1], counts


@check("pixel-spacing-digits")
def _(folder: Path) -> None:
    (scan,) = all_scans(folder)
    assert scan.shape == (64, 64, 20)
    np.testing.assert_allclose(scan.spacing, (0.4685, 0.4685, 5), rtol=1e-4)
    assert scan.notes == ()


@check("pydicom2-12-bit")
def _(folder: Path) -> None:
    for name in ("signed", "unsigned"):
        voxels = read_scan(folder / name).voxels
        assert voxels.min() == -1000, (name, voxels.min())
        assert 900 <= voxels.max() <= 930, (name, voxels.max())


@check("radial-series")
def _(folder: Path) -> None:
    assert refused(lambda: read_scan(folder), "12 images in 12 directions", "radial")
    assert predict(folder, "-o", folder / "out") == 2


@check("radiograph-first")
def _(folder: Path) -> None:
    assert sorted((scan.shape[2], str(scan.modality)) for scan in all_scans(folder)) == [
        (1, "xray"),
        (20, "ct"),
    ]


@check("siemens-mosaic")
def _(folder: Path) -> None:
    (scan,) = all_scans(folder)
    assert scan.shape == (32, 32, 16)
    mosaic = dicom_pixels(folder / "mosaic.dcm")
    for k in range(16):
        row, column = divmod(k, 4)
        tile = mosaic[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
        np.testing.assert_array_equal(scan.voxels[:, :, k].T, tile)
    # The slices lie around the mosaic's own centre: -384 + (128 - 32) / 2 * 6 = -96 mm.
    np.testing.assert_allclose(
        scan.affine, np.array([[-6, 0, 0, 96], [0, -6, 0, 96], [0, 0, 6, 0], [0, 0, 0, 1]])
    )


@check("stray-bad-header")
def _(folder: Path) -> None:
    (scan,) = all_scans(folder)
    assert scan.shape == (64, 64, 20)
    assert says(scan.notes, "left out", "1 x an ImageOrientationPatient"), scan.notes


@check("tiff16-white-is-zero")
def _(folder: Path) -> None:
    black, white = (read_scan(folder / f"{name}_is_zero.tif") for name in ("black", "white"))
    np.testing.assert_array_equal(black.voxels, white.voxels)


@check("units-metre-micron")
def _(folder: Path) -> None:
    np.testing.assert_allclose(read_scan(folder / "metre_50um.nii.gz").spacing, (0.05, 0.05, 0.05), rtol=1e-4)
    scan = folder / "micron_4nm.nii.gz"
    assert predict(scan, "-o", folder / "out") in (0, 2)


def dicom_pixels(path: Path) -> np.ndarray:
    """Return the stored pixels of a file."""
    import pydicom

    return pydicom.dcmread(path).pixel_array


def main(root: Path, names: list[str]) -> int:
    """Run the checks by name, by default of all folders there; return the exit code."""
    failed = 0
    for name in names or sorted(path.parent.name for path in root.glob("*/make.py")):
        with tempfile.TemporaryDirectory(prefix="medzsad-odd-") as folder:
            try:
                if name not in CHECKS:
                    raise AssertionError("there is no check for it")
                run_check(root, name, Path(folder) / "in")
                print(f"ok    {name}")
            except Exception as error:
                failed += 1
                print(f"FAIL  {name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
