"""What is planted in the input (names, identifiers, scripts, escapes) does not come out where it must not."""

from __future__ import annotations

import gzip
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_factory import ramp, write_series
from PIL import Image

PLANTED = {
    "PatientName": "Planted^Name",
    "PatientID": "PLANTED-ID",
    "PatientBirthDate": "19510203",
    "StudyDate": "20240506",
    "InstitutionName": "Planted Hospital",
    "ReferringPhysicianName": "Planted^Doctor",
    "StudyDescription": "Planted study",
    "SeriesDescription": "</script><script>planted()</script>",
    "ProtocolName": "Planted protocol",
    "StationName": "PLANTEDSTATION",
    "AccessionNumber": "PLANTED77",
    "DeviceSerialNumber": "PLANTED88",
    "StudyInstanceUID": "1.2.3.99999.1",
    "SeriesInstanceUID": "1.2.3.99999.2",
}
FORBIDDEN = ("planted", "19510203", "20240506", "1.2.3.99999", "1951-02-03", "2024-05-06")


class Scripts(HTMLParser):
    """What of a page could run: scripts, handlers and addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts, self.found, self.policy = 0, [], ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.scripts += tag == "script"
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"] or ""
        self.found += [f"{tag} {name}" for name in values if name.startswith("on")]
        self.found += [tag] * (tag in ("iframe", "object", "embed", "base", "form"))
        for name in ("href", "src"):
            if str(values.get(name) or "").strip().lower().startswith(("javascript:", "http:", "data:text")):
                self.found.append(f"{tag} {name}={values[name]}")


def unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def test_no_planted_value_of_a_dicom_header_comes_out(medzsad, tmp_path) -> None:
    place = tmp_path / "planted-folder" / "series"
    write_series(place, ramp(12, 16, 16), [2.0 * i for i in range(12)], **PLANTED)
    out = tmp_path / "out"
    code, printed, notes = medzsad(
        "predict", place, "-o", out, "--report", "--json", "--save-scan", "--seg-nrrd", "--device", "cpu"
    )
    assert code == 0, notes
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".json", ".html", ".png", ".gz", ".nrrd"}
    for path in files:
        content = unpacked(path).lower()
        if path.suffix == ".json":  # which names the series that was read, as docs/outputs.md says
            content = content.replace(PLANTED["SeriesInstanceUID"].encode(), b"")
        for word in FORBIDDEN:
            assert word.encode() not in content, (path.name, word)
        if path.suffix == ".png":
            with Image.open(path, formats=["PNG"]) as image:
                assert set(image.info) <= {"dpi", "transparency", "gamma", "Software"}, image.info
                assert image.info.get("Software", "medzsad result").startswith("medzsad result")
    for word in FORBIDDEN[1:]:
        assert word not in (printed + notes).lower().replace(PLANTED["SeriesInstanceUID"], "")


NAMES = [
    "<img src=x onerror=planted()>",
    "'\"><script>planted()<",
    "a\x1b[2Jb\x07c",
    "K\udce4se",
    "new\nline",
]


@pytest.mark.slow
def test_file_names_neither_run_nor_reach_the_terminal(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(NAMES):
        voxels = np.random.default_rng(seed).normal(100, 20, (16, 16, 6)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0])), tmp_path / "x.nii")
        (tmp_path / "x.nii").rename(tmp_path / "in" / f"{name}.nii")
    arguments = ["predict", "in", "-o", "out", "--report", "--device", "cpu"]
    run = subprocess.run([sys.executable, "-m", "medzsad", *arguments], cwd=tmp_path, capture_output=True)
    text = (run.stdout + run.stderr).decode("utf-8", "replace")
    assert run.returncode == 0, text
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "Traceback" not in text
    pages = sorted((tmp_path / "out").rglob("*.html"))
    assert len(pages) == len(NAMES) + 1  # and the index
    for page in pages:
        scripts = Scripts(page.read_text(encoding="utf-8"))
        assert scripts.found == [], (page.name, scripts.found)
        assert "default-src 'none'" in scripts.policy
        assert "unsafe-eval" not in scripts.policy
        assert "script-src 'unsafe-inline'" not in scripts.policy
        assert scripts.policy.count("'sha256-") <= scripts.scripts
