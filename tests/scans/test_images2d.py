"""PNG, JPEG and TIFF files."""

from __future__ import annotations

import ast
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from medzsad.datasets.images import image_size, read_mask
from medzsad.datasets.images import read_image as read_set_image
from medzsad.errors import BadInput
from medzsad.scans.images2d import FORMATS, open_picture
from medzsad.scans.intensity import intensity_scaling
from medzsad.scans.readers import read_scan
from medzsad.scans.scan import Modality

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
ROOT = Path(__file__).parents[2]
EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 16 16
%%EndComments
(written) (w) file closefile
showpage
%%EOF
"""


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
    with pytest.raises(BadInput, match="`series`"):
        read_scan(tmp_path / "c.png", series="1.2")
    with pytest.raises(BadInput, match="`volume`"):
        read_scan(tmp_path / "c.png", volume=3)
    with pytest.raises(BadInput, match="no HU"):
        read_scan(tmp_path / "c.png", modality="ct")
    grey = read_scan(tmp_path / "c.png", modality="mr")
    assert grey.voxels.shape == (8, 6, 1)
    assert any("colours were turned to grey" in note for note in grey.notes)


def png(path: Path, pixels: np.ndarray) -> Path:
    """A PNG of 16 bits and 2 to 4 channels, which Pillow cannot write."""
    rows, columns, channels = pixels.shape
    header = struct.pack(">IIBBBBB", columns, rows, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )
    )
    return path


DEEP = np.random.default_rng(2).integers(0, 65536, (6, 8, 4)).astype(np.uint16)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_of_several_channels_are_kept(tmp_path: Path, channels: int, suffix: str) -> None:
    pixels, path = DEEP[..., :channels], tmp_path / f"deep{suffix}"
    if suffix == ".png":
        png(path, pixels)
    else:
        colours = "rgb" if channels > 2 else "minisblack"
        extra = ["unassalpha"] if channels in (2, 4) else []
        tifffile.imwrite(path, pixels, photometric=colours, extrasamples=extra)
    scan = read_scan(path)
    if channels == 2:
        assert scan.modality is Modality.GREY
        np.testing.assert_array_equal(scan.voxels[:, :, 0], pixels[..., 0].T)
        assert "range" not in scan.details  # as of 16-bit grey levels without alpha
    else:
        assert scan.modality is Modality.RGB
        np.testing.assert_array_equal(scan.voxels[:, :, 0], pixels[..., :3].swapaxes(0, 1))
        assert scan.details["range"] == [0, 65535]
        seen = intensity_scaling(scan)(scan.voxels)
        np.testing.assert_allclose(
            seen[:, :, :, 0], np.moveaxis(pixels[..., :3], 2, 0).swapaxes(1, 2) / 65535
        )


def test_equal_channels_of_16_bits_are_grey(tmp_path: Path) -> None:
    scan = read_scan(png(tmp_path / "g.png", np.repeat(DEEP[..., :1], 3, axis=2)))
    assert scan.modality is Modality.GREY
    np.testing.assert_array_equal(scan.voxels[:, :, 0], DEEP[..., 0].T)


def test_16_bit_colours_in_planes(tmp_path: Path) -> None:
    planes = np.moveaxis(DEEP[..., :3], 2, 0)
    tifffile.imwrite(tmp_path / "p.tif", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_scan(tmp_path / "p.tif").voxels[:, :, 0], DEEP[..., :3].swapaxes(0, 1))


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64]
)
def test_white_is_zero_is_turned_over(tmp_path: Path, dtype: type) -> None:
    black = (GREY.astype(np.float64) * (200 if np.dtype(dtype).itemsize > 1 else 1)).astype(dtype)
    if np.dtype(dtype).kind == "f":
        white = black.min() + black.max() - black
    else:
        ends = -1 if np.dtype(dtype).kind == "i" else np.iinfo(dtype).max
        white = (ends - black.astype(np.int64)).astype(dtype)
    tifffile.imwrite(tmp_path / "b.tif", black, photometric="minisblack")
    tifffile.imwrite(tmp_path / "w.tif", white, photometric="miniswhite")
    first, second = read_scan(tmp_path / "b.tif"), read_scan(tmp_path / "w.tif")
    np.testing.assert_array_equal(first.voxels[:, :, 0], black.T.astype(np.float32))
    np.testing.assert_array_equal(second.voxels, first.voxels)
    assert first.details.get("range") == second.details.get("range")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["grey", "grey 16", "colour 16"])
def test_orientation_of_tiffs(tmp_path: Path, orientation: int, kind: str) -> None:
    pixels = {"grey": GREY, "grey 16": DEEP[..., 0], "colour 16": DEEP[..., :3]}[kind]
    path = tmp_path / "o.tif"
    colours = "rgb" if kind.startswith("colour") else "minisblack"
    tifffile.imwrite(path, pixels, photometric=colours, extratags=[(274, "H", 1, orientation, True)])
    expected = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.swapaxes(0, 1), 6: np.rot90(pixels, -1), 7: pixels.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(pixels),
    }[orientation]  # fmt: skip
    np.testing.assert_array_equal(read_scan(path).voxels[:, :, 0], expected.swapaxes(0, 1))
    assert image_size(path) == expected.shape[:2]


def test_a_photograph_with_a_preview(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph, preview = Image.fromarray(np.tile(COLOUR, (4, 4, 1))), Image.fromarray(COLOUR)
    path = tmp_path / "phone.jpg"
    photograph.save(path, format="MPO", save_all=True, append_images=[preview], exif=exif)
    scan = read_scan(path)
    assert scan.shape == (24, 32, 1)  # turned
    assert any("previews" in note for note in scan.notes)


def test_thumbnails_in_tiffs_are_passed_over(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "t.tif") as file:
        file.write(GREY[::2, ::2], subfiletype=1)
        file.write(GREY)
    scan = read_scan(tmp_path / "t.tif")
    np.testing.assert_array_equal(scan.voxels[:, :, 0], GREY.T)


def test_animations_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(BadInput, match="2 pages"):
        read_scan(tmp_path / "a.png")


def test_one_bit_and_cmyk(tmp_path: Path) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / "b.tif")
    np.testing.assert_array_equal(read_scan(tmp_path / "b.tif").voxels[:, :, 0], (GREY.T > 100) * 255)
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "c.tif")
    np.testing.assert_allclose(read_scan(tmp_path / "c.tif").voxels[:, :, 0], COLOUR.swapaxes(0, 1), atol=2)


def test_other_formats_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    with pytest.raises(BadInput, match="not a readable image"):
        read_scan(tmp_path / "a.png")


def test_what_pillow_warns_of_is_a_note(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"  # cut short
    Image.fromarray(COLOUR).save(tmp_path / "w.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan = read_scan(tmp_path / "w.jpg")
    assert any(note.startswith("Its reader warns: ") and "\n" not in note for note in scan.notes)
    assert capfd.readouterr().err == ""


def test_a_tiff_without_pages_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0")
    with pytest.raises(BadInput):
        read_scan(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("folder", ["medzsad", "tools", "examples"])
def test_every_image_open_names_the_formats(folder) -> None:
    bare = []
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called = ast.unparse(node.func)
            names = {keyword.arg for keyword in node.keywords}
            if called.endswith("Image.open") and "formats" not in names:
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno}")
            assert called not in ("imageio.imread", "plt.imread", "skimage.io.imread"), path
    assert bare == []


@pytest.mark.parametrize("read", [read_scan, read_set_image, read_mask, image_size])
def test_an_eps_called_png_is_refused_and_not_run(tmp_path, monkeypatch, read) -> None:
    from PIL import EpsImagePlugin

    def run(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    (tmp_path / "x.png").write_bytes(EPS)
    with Image.open(tmp_path / "x.png") as image:
        assert image.format == "EPS"  # so Pillow would have taken it
    with pytest.raises(BadInput, match=r"x\.png is not a readable image") as caught:
        read(tmp_path / "x.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_the_formats_meant_are_read(tmp_path, suffix) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    with open_picture(path) as image:
        assert image.size == (8, 8)
        assert image.format in FORMATS
    assert Image.MAX_IMAGE_PIXELS is not None  # Pillow's own setting is left as it was


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + name + content + crc

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


def test_a_picture_that_claims_too_much_is_refused_from_its_header(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png_that_claims(60000, 60000))
    with pytest.raises(BadInput, match=r"3\.6 billion pixels, more than the limit of 100 million.*PIXELS"):
        read_scan(path)
    monkeypatch.setenv("MEDZSAD_MAX_PIXELS", "4e9")
    with pytest.raises(BadInput, match=r"would unpack to 10\.8 GB"):
        read_scan(path)
    monkeypatch.setenv("MEDZSAD_MAX_VOXELS", "4e9")
    with open_picture(path) as image:  # nothing is decoded yet
        assert image.size == (60000, 60000)
