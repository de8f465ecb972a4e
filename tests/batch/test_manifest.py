from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from cohort_factory import write_scan
from dicom_factory import write as write_dicom

from medzsad.batch.manifest import ScanItem, list_scans, read_manifest
from medzsad.errors import BadInput


def table(folder: Path, text: str, name: str = "scans.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_folders_files_and_links_each_once(tmp_path):
    a = write_scan(tmp_path / "p1" / "t1.nii.gz", 0)
    write_scan(tmp_path / "p2" / "t1.nii.gz", 1)
    items = read_manifest([str(tmp_path), str(a)])
    assert [item.id for item in items] == ["p1_t1", "p2_t1"]
    assert items[0].source == str(a)
    assert read_manifest([str(a), str(tmp_path)]) == items


def test_people_in_one_folder_are_scans_of_their_own(tmp_path):
    for index in range(2):
        for k in range(3):
            tags = {
                "PatientID": f"P{index}",
                "SeriesInstanceUID": f"1.2.{index}",
                "StudyInstanceUID": f"1.{index}",
            }
            pixels = np.arange(20, dtype=np.int16).reshape(4, 5)
            write_dicom(tmp_path / f"ct/{index}{k}.dcm", pixels, ImagePositionPatient=[0, 0, k], **tags)
    source = str(tmp_path / "ct")
    assert read_manifest([source]) == [
        ScanItem("ct_1.2.0", source, "1.2.0"),
        ScanItem("ct_1.2.1", source, "1.2.1"),
    ]
    assert read_manifest([source], series="1.2.1") == [ScanItem("ct", source)]


def test_a_table_with_all_columns_is_read_relative_to_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    text = (
        "Scan, id ,series,modality,plane,remark\nsub/a.nii.gz,first,,mr,axial,x\n\n/abs/b,second,1.2.3,,,y\n"
    )
    assert read_manifest([table(tmp_path, text)]) == [
        ScanItem("first", str(tmp_path / "sub/a.nii.gz"), None, "mr", "axial"),
        ScanItem("second", "/abs/b", "1.2.3"),
    ]


def test_ids_may_be_left_out_and_tell_series_of_one_folder_apart(tmp_path):
    text = "scan,series\nct,1.2.840.11\nct,1.2.840.12\nmr/t1.nii.gz,\nct,1.2.840.11\n"
    items = read_manifest([table(tmp_path, text)])
    assert [(item.id, item.series) for item in items] == [
        ("ct_2.840.11", "1.2.840.11"),
        ("ct_2.840.12", "1.2.840.12"),
        ("t1", None),
    ]


def test_a_scan_that_does_not_exist_is_one_of_the_cohort(tmp_path):
    (item,) = read_manifest([str(tmp_path / "missing.nii.gz")])
    assert item.id == "missing"


def test_studies_on_a_server_have_names_without_their_uid():
    urls = [f"dicomweb://host/dw/studies/1.2.840.113619.2.55.3.60468811{i}" for i in (2, 3)]
    items = read_manifest([*urls, *urls])
    assert [item.source for item in sorted(items, key=lambda item: item.source)] == urls
    assert len({item.id for item in items}) == 2
    assert not any("1.2.840" in item.id for item in items)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column 'scan'"),
        ("path,id\na.nii,a\n", "no column 'scan'"),
        ("scan,id,id\na.nii,a,b\n", "two columns 'id'"),
        ("scan,id\n", "lists no scans"),
        ("scan,id\na.nii,x\nb.nii,x\n", "two scans have the id 'x'"),
        ("scan,id\na.nii,x\nb.nii,X\n", "two scans have the id"),
        ("scan,id\na.nii,../x\n", "line 2: the id '../x' cannot name files"),
        ("scan,id\na.nii,.x\n", "cannot name files"),
        ("scan,id\na.nii\n", "line 2: not as many fields"),
        ("scan,id\na.nii,b,c\n", "line 2: not as many fields"),
        ("scan,id\n,b\n", "line 2: the column 'scan' is empty"),
        ("scan,plane\na.nii,oblique\n", "line 2: unknown plane 'oblique'"),
        ("scan,modality\na.nii,pet\n", "pet is not known"),
        ('scan,id\n"a.nii,b\n', "is no CSV table"),
        ("scan\ndicomweb://host/dw/studies/abc\n", "line 2: .* no DICOM UID"),
    ],
)
def test_tables_that_are_refused(tmp_path, medzsad, text, reason):
    path = table(tmp_path, text)
    with pytest.raises(BadInput, match=reason):
        read_manifest([path])
    code, printed, told = medzsad("predict", path, "-o", tmp_path / "out")
    assert (code, printed) == (2, "")
    assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_tables_that_are_no_text_or_not_there(tmp_path):
    (tmp_path / "latin.csv").write_bytes("scan\nKäse.nii\n".encode("latin-1"))
    with pytest.raises(BadInput, match="no UTF-8"):
        read_manifest([str(tmp_path / "latin.csv")])
    with pytest.raises(BadInput, match=r"nothing\.csv: no such file"):
        read_manifest([str(tmp_path / "nothing.csv")])


def test_file_names_that_are_no_text_survive_json(tmp_path):
    odd = write_scan(tmp_path / "a.nii.gz", 0).rename(tmp_path / os.fsdecode(b"K\xe4se.nii.gz"))
    (item,) = read_manifest([str(tmp_path)])
    assert item.source == str(odd)
    assert item.id == "K\ufffdse"


def test_scans_of_a_folder_run_keep_the_order_and_the_paths_of_the_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        write_scan(tmp_path / "in" / f"{name}.nii.gz", 0)
    url = "dicomweb://me:secret@host"
    items, notes = list_scans(["in/b.nii.gz", "in", "gone.nii", "in/b.nii.gz", url])
    assert [(item.id, item.source) for item in items[:2]] == [("b", "in/b.nii.gz"), ("a", "in/a.nii.gz")]
    assert [(item.id, item.source) for item in items[2:]] == [
        ("no-scan-2", "gone.nii"),
        ("no-scan-3", "dicomweb input"),
    ]
    assert [item.fault is None for item in items] == [True, True, False, False]
    assert "secret" not in str(items)
    assert notes == []
