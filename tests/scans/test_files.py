"""NRRD, MetaImage, MGZ and NIfTI pairs: values, and where they lie."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from medzsad.errors import BadInput
from medzsad.scans.files import volume_grid, walk, why_unreadable
from medzsad.scans.find import find_scans
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality

VOXELS = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
TURN = nibabel.eulerangles.euler2mat(0.3, -0.2, 0.5)
OBLIQUE = nibabel.affines.from_matvec(TURN @ np.diag([1.0, 1.2, 3.0]), [5, -7, 11])  # RAS+
ITK_SUFFIXES = [".nrrd", ".nhdr", ".mha", ".mhd"]


def itk_image(array: np.ndarray, affine: np.ndarray, *, colour: bool = False) -> SimpleITK.Image:
    axes = (*range(array.ndim - 2, -1, -1), array.ndim - 1) if colour else range(array.ndim - 1, -1, -1)
    image = SimpleITK.GetImageFromArray(array.transpose(*axes), isVector=colour)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


@pytest.mark.parametrize("suffix", ITK_SUFFIXES)
@pytest.mark.parametrize("compress", [False, True])
def test_itk_files_lie_where_nifti_lies(tmp_path: Path, suffix: str, compress: bool) -> None:
    image = itk_image(VOXELS, OBLIQUE)
    path = tmp_path / f"a.b{suffix}"
    SimpleITK.WriteImage(image, str(path), useCompression=compress)
    SimpleITK.WriteImage(image, str(tmp_path / "twin.nii"))
    scan, twin = read_scan(path), read_scan(tmp_path / "twin.nii")
    np.testing.assert_array_equal(scan.voxels, VOXELS)
    np.testing.assert_allclose(scan.affine, OBLIQUE, atol=1e-6)
    np.testing.assert_allclose(scan.affine, twin.affine, atol=1e-4)
    assert scan.voxels.dtype == np.float32
    assert scan.has_geometry
    assert scan.name == "a.b"
    assert not any("not known" in note or "unknown" in note for note in scan.notes)
    shape, affine = volume_grid(path)
    assert shape == VOXELS.shape
    np.testing.assert_array_equal(affine, scan.affine)
    assert find_scans(tmp_path) == sorted([path, tmp_path / "twin.nii"])


@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
def test_freesurfer_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"T1{suffix}"
    nibabel.MGHImage(VOXELS.astype(np.int32), OBLIQUE).to_filename(path)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.voxels, VOXELS)
    np.testing.assert_allclose(scan.affine, OBLIQUE, atol=1e-5)
    assert (scan.name, scan.has_geometry) == ("T1", True)
    assert find_scans(tmp_path) == [path]


def test_freesurfer_file_without_geometry(tmp_path: Path) -> None:
    image = nibabel.MGHImage(VOXELS.astype(np.int32), OBLIQUE)
    image.header["goodRASFlag"] = 0
    path = tmp_path / "n.mgh"
    image.to_filename(path)
    data = bytearray(path.read_bytes())
    data[28:30] = b"\0\0"
    path.write_bytes(bytes(data))
    scan = read_scan(path)
    assert not scan.has_geometry
    assert any("voxel size is not known" in note for note in scan.notes)


@pytest.mark.parametrize("half", ["p.hdr", "p.img"])
def test_pairs(tmp_path: Path, half: str) -> None:
    nibabel.Nifti1Pair(VOXELS, OBLIQUE).to_filename(tmp_path / "p.hdr")
    scan = read_scan(tmp_path / half)
    np.testing.assert_array_equal(scan.voxels, VOXELS)
    np.testing.assert_allclose(scan.affine, OBLIQUE, atol=1e-5)
    assert scan.name == "p"
    assert find_scans(tmp_path) == [tmp_path / "p.hdr"]
    (tmp_path / "p.img").unlink()
    with pytest.raises(BadInput, match=r"belong together|does not exist"):
        read_scan(tmp_path / half)


def nrrd(path: Path, *lines: str, array: np.ndarray = VOXELS) -> Path:
    head = [
        "NRRD0004",
        "type: int16",
        f"dimension: {array.ndim}",
        f"sizes: {' '.join(map(str, array.shape))}",
    ]
    head += ["encoding: raw", "endian: little", *lines]
    path.write_bytes("\n".join(head).encode() + b"\n\n" + array.tobytes(order="F"))
    return path


DIRECTIONS = "space directions: (2,0,0) (0,3,0) (0,0,4)"


@pytest.mark.parametrize(
    ("lines", "spacing", "known", "placed"),
    [
        ((), (1, 1, 1), False, False),
        (("spacings: 2 3 4",), (2, 3, 4), True, False),
        (("spacings: 2 3 nan",), (2, 3, 1), False, False),
        (("space dimension: 3", DIRECTIONS), (2, 3, 4), True, False),
        (("space: left-posterior-superior", DIRECTIONS), (2, 3, 4), True, True),
        (("space: RAS", DIRECTIONS), (2, 3, 4), True, True),
        (("space: LPS", DIRECTIONS, 'space units: "um" "um" "um"'), (2e-3, 3e-3, 4e-3), True, True),
        (("space: LPS", DIRECTIONS, 'space units: "mm" "mm" "mm"'), (2, 3, 4), True, True),
        (("space: LPS", DIRECTIONS, 'space units: "inch" "inch" "inch"'), (2, 3, 4), False, True),
    ],
)
def test_what_an_nrrd_header_leaves_open_is_said(
    tmp_path: Path, lines: tuple[str, ...], spacing: tuple[float, ...], known: bool, placed: bool
) -> None:
    scan = read_scan(nrrd(tmp_path / "n.nrrd", *lines))
    np.testing.assert_allclose(scan.spacing, spacing)
    assert scan.has_geometry == known
    assert any("how it lies in the patient" in note for note in scan.notes) != placed
    assert any("voxel size is not known" in note for note in scan.notes) != known


@pytest.mark.parametrize("space", ["left-anterior-superior", "RAS", "LPS"])
def test_spaces_of_nrrd(tmp_path: Path, space: str) -> None:
    path = nrrd(tmp_path / "n.nrrd", f"space: {space}", DIRECTIONS, "space origin: (1,2,3)")
    right = -1 if space.lower().startswith("l") else 1
    front = -1 if space == "LPS" else 1
    expected = nibabel.affines.from_matvec(np.diag([2 * right, 3 * front, 4]), [right, 2 * front, 3])
    np.testing.assert_allclose(read_scan(path).affine, expected)


@pytest.mark.parametrize(
    ("line", "known", "scale"),
    [
        ("", False, 1),
        ("ElementSpacing = 1 2 3\n", True, 1),
        ("ElementSize = 1 2 3\n", True, 1),
        ("ElementSpacing = 1 2 3\nDistanceUnits = um\n", True, 1e-3),
    ],
)
def test_what_a_metaimage_header_leaves_open_is_said(
    tmp_path: Path, line: str, known: bool, scale: float
) -> None:
    head = f"ObjectType = Image\nNDims = 3\nDimSize = 5 6 7\nElementType = MET_SHORT\n{line}"
    path = tmp_path / "m.mha"
    path.write_bytes(f"{head}ElementDataFile = LOCAL\n".encode() + VOXELS.tobytes(order="F"))
    scan = read_scan(path)
    assert scan.has_geometry == known
    np.testing.assert_allclose(scan.spacing, np.array([1, 2, 3] if known else [1, 1, 1]) * scale)


@pytest.mark.parametrize("lines", [("ElementSpacing = 0 1 1",), ("ElementSpacing = nan 1 1",)])
def test_sizes_that_itk_refuses(tmp_path: Path, lines: tuple[str, ...]) -> None:
    head = "ObjectType = Image\nNDims = 3\nDimSize = 5 6 7\nElementType = MET_SHORT\n" + "\n".join(lines)
    path = tmp_path / "m.mha"
    path.write_bytes(f"{head}\nElementDataFile = LOCAL\n".encode() + VOXELS.tobytes(order="F"))
    with pytest.raises(BadInput, match=r"m\.mha"):
        read_scan(path)


@pytest.mark.parametrize("kinds", ["list domain domain domain", "domain domain domain list"])
def test_several_volumes_need_a_choice(tmp_path: Path, kinds: str) -> None:
    axis = kinds.split().index("list")
    array = np.stack([VOXELS, VOXELS + 7], axis=axis)
    vectors = ["(2,0,0)", "(0,3,0)", "(0,0,4)"]
    vectors.insert(axis, "none")
    directions = f"space directions: {' '.join(vectors)}"
    path = nrrd(tmp_path / "t.nrrd", "space: LPS", f"kinds: {kinds}", directions, array=array)
    with pytest.raises(BadInput, match="`volume` 0 to `volume` 1"):
        read_scan(path)
    with pytest.raises(BadInput, match="`volume` 2 does not exist"):
        read_scan(path, volume=2)
    scan = read_scan(path, volume=1)
    np.testing.assert_array_equal(scan.voxels, VOXELS + 7)
    assert "Volume 1 of 0 to 1 was read." in scan.notes


def test_colour_and_2d(tmp_path: Path) -> None:
    colour = np.random.default_rng(1).integers(0, 255, (5, 6, 7, 3)).astype(np.uint8)
    SimpleITK.WriteImage(itk_image(colour, OBLIQUE, colour=True), str(tmp_path / "c.mha"))
    scan = read_scan(tmp_path / "c.mha")
    assert scan.modality is Modality.RGB
    np.testing.assert_array_equal(scan.voxels, colour)
    flat = SimpleITK.GetImageFromArray(VOXELS[:, :, 0].T)
    SimpleITK.WriteImage(flat, str(tmp_path / "f.nrrd"))
    np.testing.assert_array_equal(read_scan(tmp_path / "f.nrrd").voxels, VOXELS[:, :, :1])


@pytest.mark.parametrize("how", ["truncated", "text", "complex", "no voxels", "segmentation"])
def test_broken_files_are_one_clear_line(tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ("s.seg.nrrd" if how == "segmentation" else "bad.nrrd")
    whole = nrrd(path, "space: LPS", DIRECTIONS).read_bytes()
    if how == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "text":
        path.write_text("not a scan")
    elif how == "complex":
        path = tmp_path / "bad.mha"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOXELS.astype(np.complex64)), str(path))
    elif how == "no voxels":
        path = tmp_path / "bad.nhdr"
        head = whole[: whole.index(b"\n\n")]
        path.write_bytes(head + b"\ndata file: gone.raw\n")
    with pytest.raises(BadInput) as caught:
        read_scan(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_segmentations_are_no_scans(tmp_path: Path) -> None:
    nrrd(tmp_path / "s.seg.nrrd", "space: LPS", DIRECTIONS)
    scan = nrrd(tmp_path / "s.nrrd", "space: LPS", DIRECTIONS)
    assert find_scans(tmp_path) == [scan]


def test_every_folder_is_visited_once(tmp_path: Path) -> None:
    (tmp_path / "b/c").mkdir(parents=True)
    (tmp_path / "b/c/file").write_text("x")
    (tmp_path / "b/.hidden").write_text("x")
    (tmp_path / "b/up").symlink_to(tmp_path)
    (tmp_path / "a").symlink_to(tmp_path / "b")  # by name the first, but only a link
    elsewhere = tmp_path.with_name(tmp_path.name + "-elsewhere")
    elsewhere.mkdir()
    (elsewhere / "linked").write_text("x")
    (tmp_path / "z").symlink_to(elsewhere)
    visited = [(str(folder.relative_to(tmp_path)), files) for folder, files, _ in walk(tmp_path)]
    assert [name for name, _ in visited] == [".", "b", "b/c", "z"]
    assert [file for _, files in visited for file in files] == [tmp_path / "b/c/file", tmp_path / "z/linked"]


def test_what_cannot_be_read_is_listed(tmp_path: Path) -> None:
    (tmp_path / "lost").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "empty").touch()
    (tmp_path / "good").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    ((_, files, faults),) = walk(tmp_path)
    assert files == [tmp_path / "good"]
    assert {path.name: fault for path, fault in faults.items()} == {
        "lost": "a link that leads nowhere",
        "circle": "a link that leads nowhere",
        "empty": "an empty file",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_what_may_not_be_opened(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    assert why_unreadable(tmp_path / "locked") == "a folder that may not be opened"
    with pytest.raises(BadInput, match="cannot be opened"):
        list(walk(tmp_path / "locked"))
