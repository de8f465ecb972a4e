"""The HTML report as text: what it holds, and what it must not hold."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import write_series
from markupsafe import escape
from PIL import Image
from report_cases import make_picture, make_volume

import medzsad
from medzsad.batch import predict_many
from medzsad.detectors.references import Brightness
from medzsad.results.html.pages import asset
from medzsad.results.html.report import render_html_report
from medzsad.results.html.viewer_volumes import viewer_volumes
from medzsad.results.lesions import CandidateRules
from medzsad.scans.scan import Modality

HOSTILE = '</script><script>alert(1)</script>"><img src=x onerror=alert(2)>&$data $$'
PATIENT = {
    "PatientName": "Quokka^Zebulon",
    "PatientID": "MRN-778899",
    "PatientBirthDate": "19420517",
    "StudyDate": "20310405",
    "AccessionNumber": "ACC5551212",
    "InstitutionName": "Platypus Hospital",
    "ReferringPhysicianName": "Wombat^Wanda",
    "StudyDescription": "Echidna protocol",
}
WORDS = [
    word for value in PATIENT.values() for word in re.split(r"[\^ ]", value) if word not in ("Hospital",)
]


class Elements(HTMLParser):
    """All elements of a page with their attributes, and the text of each script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self.elements.append((f"/{tag}", {}))

    def handle_data(self, data):
        if self.scripts and self.elements[-1][0] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def script_of(page: str, name: str) -> str:
    return next(text for attributes, text in Elements(page).scripts if attributes.get("id") == name)


def test_hostile_names_stay_text():
    plain = Elements(render_html_report(make_volume()))
    prediction = make_volume(name=HOSTILE, notes=(HOSTILE,), details={HOSTILE: HOSTILE})
    prediction.settings["model"] = HOSTILE
    prediction.settings["detector"] = {HOSTILE: [HOSTILE]}
    page = render_html_report(prediction)
    parsed = Elements(page)
    assert len(parsed.scripts) == len(plain.scripts)
    assert not [tag for tag, _ in parsed.elements if tag == "img"]
    assert not [attributes for _, attributes in parsed.elements if "onerror" in attributes]
    assert escape(HOSTILE) in page
    assert "alert(1)" not in "".join(text for _, text in parsed.scripts)


def test_nothing_is_loaded_and_only_its_own_scripts_run():
    page = render_html_report(make_volume())
    parsed = Elements(page)
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    policy = next(
        a["content"] for _, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    scripts = policy.split("script-src ")[1].split(";")[0]
    assert "unsafe" not in scripts
    running = [text for attributes, text in parsed.scripts if "type" not in attributes]
    assert len(running) == 2
    for text in running:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in scripts
    # Addresses occur in the viewer's comments and licences alone.
    own = page.replace(asset("niivue/niivue.umd.js"), "")
    own = own.replace(escape(asset("niivue/LICENSES-bundled.txt")), "")
    assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", own)


def test_the_viewer_is_the_one_whose_shaders_are_changed():
    """The report's script replaces lines of NiiVue's shaders; each must be there, word for word."""
    table = asset("report.js").split("SHADER_CHANGES = [")[1].split("\n  ];")[0]
    replaced = re.findall(r'^    \["([^"]+)",', table, flags=re.MULTILINE)
    assert len(replaced) == 6
    for line in replaced:
        assert line in asset("niivue/niivue.umd.js"), line


def test_licence_and_version_of_the_viewer_are_there():
    page = html.unescape(render_html_report(make_volume()))
    for words in (
        "BSD 2-Clause License",
        "Copyright (c) 2021, Niivue",
        "@niivue/niivue 0.69.0",
        "fflate (MIT)",
    ):
        assert words in page


def test_says_what_a_reader_needs():
    prediction = make_volume(notes=("Slices were resampled.",))
    page = html.unescape(render_html_report(prediction))
    for words in (
        "Research use only - not for diagnosis", "<b>0.900</b> volume score", "<b>2</b> lesion candidates",
        "A small general detector that has never seen a labelled disease", "Trained on</dt><dd>synthetic",
        "Apache-2.0",
        "detector.image_size</dt><dd>192", "Slices were resampled.", "medzsad</dt>", "MR, percentiles",
    ):  # fmt: skip
        assert words in page, words
    first = prediction.lesions[0]
    row = re.search(r'<tr tabindex="0" data-voxel="([\d,]+)".*?</tr>', page)
    assert row[1] == ",".join(map(str, first.peak_voxel))
    assert f"<td>{first.volume_ml:.2f}</td>" in row[0]
    assert len(re.findall(r"<circle ", page)) == len(prediction.slice_scores)
    assert "Downsampled" not in page


def test_an_own_checkpoint_is_not_given_a_licence():
    prediction = make_volume()
    prediction.settings |= {"model": "my-run", "detector": {"clip_weights": "/home/zebulon/clip.pt"}}
    page = render_html_report(prediction)
    assert "not in the catalogue" in page
    assert "Licence</dt><dd>not recorded" in page
    assert "zebulon" not in page
    assert "clip.pt" in page


def test_downsampling_is_said():
    prediction = make_volume()
    page = render_html_report(prediction, volumes=viewer_volumes(prediction, max_voxels=20_000))
    assert "Downsampled for this viewer to" in page


def test_counts_at_each_threshold_are_the_full_resolutions():
    prediction = make_volume()
    data = json.loads(script_of(render_html_report(prediction), "data"))
    counts = data["counts_above"]
    assert data["mask_voxels"] == np.count_nonzero(prediction.mask)
    assert counts[int(0.5 * 255)] == np.count_nonzero(prediction.mask)
    assert counts[int(0.8 * 255)] == np.count_nonzero(prediction.anomaly_map >= 0.8)
    assert data["start"] == list(prediction.lesions[0].peak_voxel)


def test_what_is_hidden_is_not_in_the_mask_of_the_page():
    prediction = replace(make_volume(), rules=CandidateRules(relative_peak=0.9))
    page = render_html_report(prediction)
    data = json.loads(script_of(page, "data"))
    assert len(prediction.hidden_lesions) == 1
    assert data["mask_voxels"] == sum(lesion.voxels for lesion in prediction.lesions)
    assert data["counts_above"][int(0.5 * 255)] == np.count_nonzero(prediction.above_threshold)
    packed = gzip.decompress(base64.b64decode(script_of(page, "mask-volume")))
    assert len(packed) - 352 == prediction.mask.size
    assert packed[352:].count(255) == data["mask_voxels"]


def test_stacks_without_geometry_have_slices():
    prediction = make_volume(has_geometry=False)
    page = render_html_report(prediction)
    assert "Highest at (x, y, slice)" in page
    assert f"<td>{', '.join(map(str, prediction.lesions[0].peak_voxel))}</td>" in page


def test_images_have_no_millimetres():
    page = render_html_report(make_picture())
    body = page.split("<main>")[1].split("<noscript>")[0]
    assert not re.search(r"\bmm\b|mL", body.split("Licences of the viewer")[0].split("<h2>Model")[0])
    assert "Pixels" in body
    data = json.loads(script_of(page, "data"))
    assert (data["is_2d"], data["plane"], data["voxel_ml"]) == (True, "coronal", None)


def test_a_scan_without_findings():
    prediction = make_volume()
    prediction.anomaly_map[:] = 0
    page = render_html_report(prediction)
    assert "Nothing reaches the threshold" in page
    assert "data-voxel" not in page.split("<script")[0]


@pytest.fixture(scope="module")
def patient_series(tmp_path_factory) -> Path:
    """A CT series of a made-up patient, in a folder of the patient's name."""
    slices = np.full((8, 48, 48), -1000, np.int16)
    slices[:, 8:40, 8:40] = 30
    slices[3:5, 16:24, 16:24] = 75
    folder = tmp_path_factory.mktemp("in") / "Zebulon Quokka" / "ct"
    return write_series(folder, slices, [5.0 * k for k in range(8)], **PATIENT)


def everything(path: Path) -> str:
    """The bytes of a file, of what is packed in it, and its text chunks, as text."""
    content = path.read_bytes()
    parts = [path.name.encode(), content]
    if path.suffix == ".gz":
        parts.append(gzip.decompress(content))
    if path.name.endswith(".nrrd"):
        parts.append(gzip.decompress(content.split(b"\n\n", 1)[1]))
    if path.suffix == ".png":
        with Image.open(path) as picture:
            parts.append(repr(picture.info).encode())
    if path.suffix == ".html":
        for packed in re.findall(rb'type="text/plain" id="[\w-]+">([^<]*)<', content):
            parts.append(gzip.decompress(base64.b64decode(packed)))
    return b"\n".join(parts).decode("latin-1").lower()


def test_no_output_names_the_patient(patient_series, tmp_path, caplog):
    caplog.set_level("INFO", logger="medzsad")
    outcome = predict_many(
        [patient_series], tmp_path, report=True, seg_nrrd=True, overlay="slices", save_scan=True,
        threshold=0.3,
    )  # fmt: skip
    assert outcome.exit_code == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"ct_report.html", "ct_mask.seg.nrrd", "ct.json", "ct_scan.nii.gz"} <= {
        path.name for path in files
    }
    assert list(tmp_path.glob("ct_slices/*.png"))
    for text in (*map(everything, files), "\n".join([caplog.text, *outcome.lines()]).lower()):
        for word in WORDS:
            assert word.lower() not in text, word


def test_the_patient_is_named_on_request_only(patient_series, tmp_path):
    predict_many([patient_series], tmp_path, report=True, with_identity=True)
    for path in tmp_path.rglob("*"):
        named = [word for word in WORDS if word.lower() in everything(path)] if path.is_file() else []
        if path.suffix == ".html":
            assert named == ["Quokka", "Zebulon", "MRN-778899", "20310405"]
        else:
            assert named == []


def test_identity_of_a_source_that_states_none():
    assert "states none" in render_html_report(make_volume(), with_identity=True)


def test_a_ct_can_be_seen_in_the_windows_it_is_read_in():
    prediction = make_volume(modality=Modality.CT)
    page = render_html_report(prediction)
    assert '<option value="0,80">brain (40 / 80 HU)</option>' in page
    assert '<option value="-800,2000">bone (600 / 2800 HU)</option>' in page
    assert 'id="window"' not in render_html_report(make_volume()).split("<noscript>")[0]


def test_one_convention_of_coordinates_and_the_threshold_in_the_chart():
    prediction = make_volume()
    page = render_html_report(prediction)
    x, y, z = prediction.lesions[0].peak_mm
    sides = ("R" if x >= 0 else "L", "A" if y >= 0 else "P", "S" if z >= 0 else "I")
    place = " ".join(
        f"{side}\N{NO-BREAK SPACE}{abs(mm):.1f}" for side, mm in zip(sides, (x, y, z), strict=True)
    )
    assert f"<td>{place}</td>" in page
    assert 'class="threshold"' in page
    assert "highest candidate score first" in page


def predicted(name: str = "case"):
    voxels = np.random.default_rng(0).normal(100, 5, (24, 24, 6)).astype(np.float32)
    voxels[4:12, 6:12, 2:5] = 400
    return medzsad.predict(voxels, Brightness(), affine=np.diag([2.0, 2, 4, 1]), name=name, modality="mr")


def test_a_notebook_sees_the_picture_and_the_candidates() -> None:
    result = predicted()
    page = result._repr_html_()
    data = re.search(r'src="data:image/png;base64,([^"]+)"', page)[1]
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.width <= 1200
    assert np.asarray(picture).std() > 5
    assert len(result.lesions) >= 1
    assert page.count("<tr tabindex") == min(10, len(result.lesions))
    assert not re.search(r"https?://|<script", page)


def test_names_are_escaped_and_folders_do_not_appear() -> None:
    result = predicted("<b>&bold")
    result = replace(result, scan=replace(result.scan, source=Path("/data/Jane_Doe/a.nii")))
    page = result._repr_html_()
    assert "<b>&bold" not in page
    assert "&lt;b&gt;&amp;bold" in page
    assert "Jane" not in page


def test_a_result_and_a_scan_are_one_line() -> None:
    result = predicted()
    for line in (repr(result), repr(result.scan)):
        assert "\n" not in line
        assert "24 x 24 x 6" in line
        assert len(line) < 120
