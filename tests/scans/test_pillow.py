"""Pillow is always told what a file may be."""

from __future__ import annotations

import ast
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medzsad.datasets.images import image_size, read_mask
from medzsad.datasets.images import read_image as read_set_image
from medzsad.errors import BadInput
from medzsad.scans.pillow import FORMATS, open_picture
from medzsad.scans.readers import read_scan

ROOT = Path(__file__).parents[2]
EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 16 16
%%EndComments
(written) (w) file closefile
showpage
%%EOF
"""


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
