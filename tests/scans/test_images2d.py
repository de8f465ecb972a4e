"""PNG, JPEG and TIFF files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medzsad.errors import BadInput
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".PNG"])
def test_grey_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.b{suffix}"
    Image.fromarray(GREY).save(path)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.voxels[:, :, 0], GREY.T)
    assert scan.shape == (8, 6, 1)
    assert scan.voxels.dtype == np.float32
    assert (scan.modality, scan.is_2d, scan.has_geometry) == (Modality.GREY, True, False)
    assert scan.name == "a.b"
    assert scan.details["range"] == [0, 255]


def test_axes_are_those_of_the_radiological_display(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    affine = read_scan(tmp_path / "a.png").affine
    np.testing.assert_array_equal(affine[:3, 0], (-1, 0, 0))  # columns to the patient's left
    np.testing.assert_array_equal(affine[:3, 1], (0, 0, -1))  # rows to the feet
    assert np.linalg.det(affine) == pytest.approx(1)


def test_colour_image(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "c.png")
    scan = read_scan(tmp_path / "c.png")
    assert scan.modality is Modality.RGB
    np.testing.assert_array_equal(scan.voxels[:, :, 0], COLOUR.swapaxes(0, 1))


def test_equal_channels_are_grey(tmp_path: Path) -> None:
    Image.fromarray(GREY).convert("RGB").save(tmp_path / "g.png")
    scan = read_scan(tmp_path / "g.png")
    assert scan.modality is Modality.GREY
    assert scan.voxels.shape == (8, 6, 1)


def test_alpha_and_palettes(tmp_path: Path) -> None:
    alpha = np.dstack([COLOUR, np.full(GREY.shape, 9, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_scan(tmp_path / "alpha.png").voxels[:, :, 0], COLOUR.swapaxes(0, 1))
    few = np.where(GREY[..., None] > 100, (200, 10, 10), (10, 200, 10)).astype(np.uint8)
    Image.fromarray(few).quantize(4).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_scan(tmp_path / "palette.png").voxels[:, :, 0], few.swapaxes(0, 1))
    Image.fromarray(GREY).convert("LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_scan(tmp_path / "la.png").voxels[:, :, 0], GREY.T)


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".png", np.uint16), (".tif", np.uint16), (".tif", np.float32)]
)
def test_deep_grey_levels_are_kept(tmp_path: Path, suffix: str, dtype: type) -> None:
    deep = (GREY.astype(np.float64) * 200).astype(dtype)
    Image.fromarray(deep).save(tmp_path / f"deep{suffix}")
    scan = read_scan(tmp_path / f"deep{suffix}")
    np.testing.assert_array_equal(scan.voxels[:, :, 0], deep.T)
    assert "range" not in scan.details


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to display
    Image.fromarray(GREY).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_scan(tmp_path / "turned.png").voxels[:, :, 0], np.rot90(GREY, -1).T)


def test_pages_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(GREY)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(BadInput, match="2 pages"):
        read_scan(tmp_path / "pages.tif")


@pytest.mark.parametrize("how", ["text", "truncated"])
def test_broken_images(tmp_path: Path, how: str) -> None:
    path = tmp_path / "bad.png"
    if how == "text":
        path.write_text("not an image")
    else:
        Image.fromarray(np.tile(COLOUR, (40, 40, 1))).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInput, match=r"bad\.png"):
        read_scan(path)


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "c.png")
    with pytest.raises(BadInput, match="--series"):
        read_scan(tmp_path / "c.png", series="1.2")
    with pytest.raises(BadInput, match="--volume"):
        read_scan(tmp_path / "c.png", volume=3)
    with pytest.raises(BadInput, match="no HU"):
        read_scan(tmp_path / "c.png", modality="ct")
    grey = read_scan(tmp_path / "c.png", modality="mr")
    assert grey.voxels.shape == (8, 6, 1)
    assert any("colours were turned to grey" in note for note in grey.notes)
