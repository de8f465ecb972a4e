"""Which lesions that candidates of an earlier state touched are not marked any more.

    git worktree add ../earlier 46f58f5
    (cd ../earlier && python "$OLDPWD/tools/bench/kept_candidates.py" masks "$OLDPWD/masks-earlier")
    python tools/bench/kept_candidates.py masks masks-now
    python tools/bench/kept_candidates.py compare masks-earlier masks-now

``masks`` predicts the FLAIR of ``nichart_demo`` and FLAIR and T1c of ``brats2013`` with the ``medzsad`` of
the current folder and its defaults (``--data`` or ``MEDZSAD_SHARED`` say where they are). ``compare`` takes
the connected components of 10 mm3 and more of the first folder's masks that touch a lesion, and prints those
of which no lesion is touched by the second one's.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

AROUND = np.ones((3, 3, 3))
LEAST_MM3 = 10.0


def cases_of(data: Path) -> dict[str, tuple[Path, Path]]:
    """Return scan and label of each volume, by its name.

    :mod:`mini_volumes` lists them, too, but imports what earlier states do not have.
    """
    folder = data / "nichart_demo"
    cases = {
        path.name.split(".")[0]: (path, folder / "wml_auto" / path.name)
        for path in sorted((folder / "flair").glob("*.nii.gz"))
    }
    for patient in sorted((data / "brats2013").glob("pat*")):
        for kind in ("Flair", "T1c"):
            scan = patient / f"{kind}_subtrMeanDivStd.nii.gz"
            cases[f"{patient.name}-{kind}"] = (scan, patient / "OTMultiClass.nii.gz")
    return cases


def write_masks(cases: dict[str, tuple[Path, Path]], out: Path) -> None:
    """Predict all with the current folder's medzsad, and write each mask."""
    sys.path.insert(0, os.getcwd())
    import medzsad

    out.mkdir(parents=True, exist_ok=True)
    detector = medzsad.load_detector("medzsad-mini")
    for name, (scan, _) in cases.items():
        result = medzsad.predict(scan, detector=detector)
        nib.save(
            nib.Nifti1Image((np.asarray(result.mask) > 0).astype(np.uint8), result.affine),
            out / f"{name}.nii.gz",
        )
        print(name, len(result.lesions), flush=True)


def lost(before: np.ndarray, after: np.ndarray, label: np.ndarray, voxel_mm3: float) -> tuple[int, list[str]]:
    """Compare the masks of one volume.

    Args:
        before, after: bool (X, Y, Z), masks.
        label: bool (X, Y, Z), lesions.
        voxel_mm3: volume of a voxel.

    Returns:
        How many components of ``before`` touch a lesion, and what is said of those that are lost.
    """
    lesions, _ = ndimage.label(label, AROUND)
    components, count = ndimage.label(before, AROUND)
    sizes = np.bincount(components.ravel(), minlength=count + 1) * voxel_mm3
    shared = np.bincount(components[label], minlength=count + 1) * voxel_mm3
    marked = np.unique(lesions[after & label])
    true, gone = 0, []
    for number in range(1, count + 1):
        touched = np.unique(lesions[(components == number) & label])
        if sizes[number] < LEAST_MM3 or not touched.size:
            continue
        true += 1
        if not np.isin(touched, marked).any():
            gone.append(f"{sizes[number]:.0f} mm3, of which {shared[number]:.0f} lie in lesions")
    return true, gone


def compare(cases: dict[str, tuple[Path, Path]], before: Path, after: Path) -> None:
    """Print what of the first folder's true candidates the second one's masks miss."""
    total = missing = 0
    for name, (_, label) in cases.items():
        image = nib.load(label)
        masks = [np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj) > 0 for folder in (before, after)]
        voxel_mm3 = abs(float(np.linalg.det(image.affine[:3, :3])))
        true, gone = lost(*masks, np.asarray(image.dataobj) > 0, voxel_mm3)
        total, missing = total + true, missing + len(gone)
        for what in gone:
            print(f"{name}: lost a candidate of {what}")
    print(f"{total} candidates touched a lesion before; of {missing} no lesion is touched now")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    shared = os.environ.get("MEDZSAD_SHARED")
    for name, folders in (("masks", ("out",)), ("compare", ("before", "after"))):
        command = commands.add_parser(name)
        for folder in folders:
            command.add_argument(folder, type=Path)
        command.add_argument(
            "--data", default=shared, required=shared is None, help="folder that holds data/"
        )
    args = parser.parse_args()
    cases = cases_of(Path(args.data) / "data")
    if args.command == "masks":
        write_masks(cases, args.out)
    else:
        compare(cases, args.before, args.after)


if __name__ == "__main__":
    main()
