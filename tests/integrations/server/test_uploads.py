"""Uploads that are refused, in the line of the command line, with nothing left behind."""

from __future__ import annotations

import errno
import gzip
import io
import json
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made_scans import small_head
from serve_process import BOUNDARY, ServeProcess

from medzsad.errors import BadInput
from medzsad.integrations.server.uploads import TooLarge, Upload, is_disk_full

META = b"NDims = 3\nDimSize = 4 4 4\nElementType = MET_CHAR\nElementDataFile = "
FORM = f"multipart/form-data; boundary={BOUNDARY}"
PART = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
NRRD = b"NRRD0004\ntype: float\ndimension: 3\nsizes: 4 4 4\nspacings: 1 1 1\nencoding: raw\nendian: little\n"


def packed(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def claiming(shape: tuple[int, int, int]) -> bytes:
    """A NIfTI header of float32 voxels, of which there are none."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 16, 32)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return bytes(header)


@pytest.mark.parametrize(
    ("files", "status", "said"),
    [
        ({"cut.nii.gz": gzip.compress(claiming((40, 40, 40)))[:60]}, 400, "cut.nii.gz"),
        ({"empty.nii.gz": b""}, 400, "empty.nii.gz is empty (0 bytes); copy or export it again."),
        (
            {"zeros.mgz": gzip.compress(struct.pack(">7i", 1, 0, 0, 0, 1, 0, 0) + bytes(256))},
            400,
            "zeros.mgz",
        ),
        ({"text.nii": b"no scan"}, 400, "text.nii is not a readable NIfTI file"),
        ({"large.nii": claiming((1200, 1200, 900))}, 400, "large.nii claims 1.3 billion voxels"),
        (
            {"large.nii.gz": gzip.compress(claiming((1200, 1200, 900)))},
            400,
            "large.nii.gz claims 1.3 billion",
        ),
        ({"letter.txt": b"Dear colleague"}, 400, "letter.txt"),
        ({"a.nii": claiming((4, 4, 4)), "b.nii": claiming((4, 4, 4))}, 400, "the upload holds 2 scans"),
        ({"empty.zip": packed({})}, 400, "the upload holds no file"),
        ({"broken.zip": b"PK\x03\x04 and no more"}, 400, "broken.zip is no zip that can be unpacked"),
        ({"bomb.zip": packed({"scan.nii": bytes(8_000_000)})}, 413, "more than 6 MB unpacked"),
        ({"inner.zip": packed({"inner.zip": packed({"a.nii": bytes(10)})})}, 400, "holds no file"),
        ({"big.nii": bytes(4_000_000)}, 413, "more than 3 MB"),
        ({"scan.nhdr": NRRD + b"data file: /etc/passwd\n\n"}, 400, "scan.nhdr keeps its voxels in another"),
        ({"scan.nrrd": NRRD + b"data file: /etc/passwd\n\n"}, 400, "scan.nrrd keeps its voxels in another"),
        ({"scan.nrrd": NRRD + b"datafile: ../../x\n\n"}, 400, "scan.nrrd keeps its voxels in another"),
        (
            {"scan.nrrd": NRRD + b"# x\n" * 17_000 + b"data file: /etc/passwd\n\n"},
            400,
            "a header of more",
        ),
        (
            {"scan.mha": META + b"/etc/passwd\n"},
            400,
            "scan.mha keeps its voxels in another",
        ),
        (
            {"scan.mha": META.replace(b"Element", b"elementdatafile = LOCAL\nElement", 1) + b"/etc/passwd\n"},
            400,
            "scan.mha keeps its voxels in another",
        ),
        ({"scan.mha": b"Comment = " + META + b"LOCAL\n" + META + b"/etc/x\n"}, 400, "scan.mha"),
        (
            {"scan.mha": META + b"x.raw\n"},
            400,
            "scan.mha keeps its voxels in another",
        ),
    ],
)
def test_a_bad_upload_is_refused_in_one_line(
    server: ServeProcess, files: dict[str, bytes], status: int, said: str
) -> None:
    answered, answer = server.post(files)
    assert answered == status, answer
    assert said in answer["detail"]
    assert "\n" not in answer["detail"]
    assert "/tmp" not in answer["detail"]
    assert server.files() == []
    assert server.json("/v1")["waiting"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"plane": "sideways"}, "unknown plane 'sideways'"),
        ({"plain": "axial"}, "options: unknown key 'plain' (did you mean 'plane'?)"),
        ({"max_candidates": "many"}, "max_candidates"),
        ({"model": "/etc/passwd"}, "model '/etc/passwd' is not offered here; use one of medzsad-mini"),
        ({"model": "brightness"}, "is not offered here"),
        ({"normals": "../../brain"}, "`normals` '../../brain' is not known here"),
        ({"roi": "/etc/passwd"}, "roi"),
        ({"clip_weights": "x.pt"}, "unknown key 'clip_weights'"),
        ({"device": "cuda"}, "unknown key 'device'"),
        ({"threshold": 7}, "threshold"),
        ({"label": "\ud800"}, "label holds half a letter"),
        ({"min_volume": float("inf")}, "min_volume: expected a finite number"),
        ({"label": "x" * 201}, "label has 201 letters"),
        ({"label": "x" * 20_000}, "options: more than 16384 bytes"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(
    server: ServeProcess, scan: bytes, options: dict, said: str
) -> None:
    status, answer = server.post({"scan.nii.gz": scan}, options)
    assert status == 400
    assert said in answer["detail"]
    assert server.files() == []


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"{}", "application/json", "send multipart/form-data"),
        (b"", "multipart/form-data", "send multipart/form-data"),
        (b"nothing of the kind", FORM, "multipart body is damaged"),
        (f"--{BOUNDARY}--\r\n".encode(), FORM, "holds no file"),
        (f"--{BOUNDARY}\r\n".encode(), FORM, "ends too early"),
        (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n--{BOUNDARY}--'.encode(),
            FORM,
            "neither 'files', 'roi' nor 'options'",
        ),
        (
            f'{PART}"options"\r\n\r\n[1\r\n--{BOUNDARY}--'.encode(),
            FORM,
            "options: not valid JSON",
        ),
        (
            f'{PART}"options"\r\n\r\n[1]\r\n--{BOUNDARY}--'.encode(),
            FORM,
            "options: not a JSON object",
        ),
    ],
)
def test_a_bad_body_is_refused_in_one_line(server: ServeProcess, body: bytes, kind: str, said: str) -> None:
    status, _, answer = server.request("POST", "/v1/predictions", body, Content_Type=kind)
    assert status == 400
    assert said in json.loads(answer)["detail"]
    assert server.files() == []


def upload_of(folder: Path) -> Upload:
    (folder / "upload").mkdir()
    return Upload(folder / "upload", 1e6)


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    upload = upload_of(tmp_path)
    names = [
        "../../../etc/passwd",
        "/etc/shadow",
        "C:\\Windows\\x.dcm",
        "a/b/../c.nii.gz",
        "..",
        "",
        "x" * 300,
    ]
    paths = [upload.create(name) for name in names]
    assert all(path.resolve().is_relative_to(upload.folder.resolve()) for path in paths)
    assert len(set(paths)) == len(paths)
    assert [path.suffix for path in paths] == ["", "", ".dcm", ".gz", "", "", ""]
    with pytest.raises(BadInput, match="two files called passwd"):
        upload.create("../../../etc/passwd")
    with pytest.raises(BadInput, match="1024 are allowed"):
        upload.create("x" * 1025)


def test_a_mask_is_held_to_the_same_rules(tmp_path: Path) -> None:
    upload = upload_of(tmp_path)
    upload.create("scan.nii").write_bytes(b"x")
    upload.create("mask.nrrd", is_roi=True).write_bytes(NRRD + b"data file: /etc/passwd\n\n")
    with pytest.raises(BadInput, match="keeps its voxels in another file"):
        upload.find_scan()
    with pytest.raises(BadInput, match="two parts `roi`"):
        upload.create("other.nii", is_roi=True)
    assert upload.told(f"{upload.roi} is odd") == "mask.nrrd is odd"


def test_the_two_files_of_a_pair_stay_together(tmp_path: Path) -> None:
    upload = upload_of(tmp_path)
    header, voxels = upload.create("Doe.hdr"), upload.create("Doe.img")
    assert header.with_suffix(".img") == voxels


def test_what_is_told_has_the_names_of_the_client(tmp_path: Path) -> None:
    upload = upload_of(tmp_path)
    path = upload.create("study/IM 1.dcm")
    assert upload.told(f"{path} is odd; {upload.folder} holds no scans, {path.name} neither") == (
        "IM 1.dcm is odd; the upload holds no scans, IM 1.dcm neither"
    )


def test_links_and_hidden_files_of_a_zip_are_left_out(tmp_path: Path) -> None:
    upload = upload_of(tmp_path)
    link = zipfile.ZipInfo("link.nii")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(upload.create("a.zip"), "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("__MACOSX/._x.nii", b"x")
        archive.writestr(".hidden", b"x")
        archive.writestr("scans/x.nii", b"voxels")
    upload.find_scan()
    assert upload.source.read_bytes() == b"voxels"
    assert [path for path in upload.folder.rglob("*") if path.is_symlink()] == []


def test_an_encrypted_or_oddly_packed_zip_is_refused(tmp_path: Path) -> None:
    upload = upload_of(tmp_path)
    content = bytearray(packed({"x.nii": b"voxels"}))
    for at in (6, content.index(b"PK\x01\x02") + 8):
        content[at] |= 1
    upload.create("a.zip").write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.zip is encrypted"):
        upload.find_scan()
    other = Upload(tmp_path / "other", 1e6)
    other.folder.mkdir()
    with zipfile.ZipFile(other.create("b.zip"), "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.nii", b"voxels")
    with pytest.raises(BadInput, match=r"b\.zip is packed in a way that is not taken"):
        other.find_scan()


def test_a_full_disk_is_not_the_zips_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = upload_of(tmp_path)
    upload.create("a.zip").write_bytes(packed({"x.nii": b"voxels"}))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Upload, "_copy", full)
    with pytest.raises(OSError, match="No space left") as caught:
        upload.find_scan()
    assert is_disk_full(caught.value)
    assert not is_disk_full(BadInput("x"))


def test_a_zip_that_lies_about_its_size_is_counted(tmp_path: Path) -> None:
    upload = upload_of(tmp_path)
    content = bytearray(packed({"x.nii": bytes(2_000_000)}))
    central = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, 22, 10)
    struct.pack_into("<I", content, central + 24, 10)
    upload.create("a.zip").write_bytes(content)
    with pytest.raises(BadInput):
        upload.find_scan()
    honest = Upload(tmp_path / "honest", 1e6)
    honest.folder.mkdir()
    honest.create("a.zip").write_bytes(packed({"x.nii": bytes(2_000_000)}))
    with pytest.raises(TooLarge):
        honest.find_scan()
    written = sum(path.stat().st_size for path in honest.folder.rglob("*.nii"))
    assert written <= 1e6


def test_a_nrrd_with_its_voxels_inside_is_taken(server: ServeProcess) -> None:
    voxels = small_head((16, 18, 5))
    header = NRRD.replace(b"sizes: 4 4 4", b"sizes: 16 18 5") + b"\n"
    status, answer = server.post(
        {"a.nrrd": header + voxels.astype("<f4").tobytes(order="F")}, {"overlay": "none", "modality": "mr"}
    )
    assert status == 202, answer
    document = server.finished(answer["id"])
    assert document["status"] == "done", document
    assert np.isfinite(document["score"])
    server.request("DELETE", answer["links"]["self"])
