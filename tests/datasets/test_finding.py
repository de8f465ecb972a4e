"""Which sets a folder of data sets holds: by the names that people and archives give them."""

from __future__ import annotations

import dataset_factory as factory
import pytest

from medzsad.datasets import folder_layouts
from medzsad.datasets.catalog import entries
from medzsad.datasets.finding import SUITES, find_sets, suite_entries
from medzsad.datasets.opening import open_dataset
from medzsad.errors import BadInput

PAPER = [name for name, entry in entries().items() if entry.paper]


def test_suites():
    assert [entry.name for entry in suite_entries("paper17")] == PAPER
    assert {name: len(suite_entries(name)) for name in SUITES} == {
        "paper17": 17,
        "medical10": 10,
        "industrial7": 7,
    }
    assert [entry.name for entry in suite_entries(" kvasir, SDD,kvasir-seg ")] == ["kvasir", "ksdd"]
    assert [entry.name for entry in suite_entries("ddti")] == ["ddti"]


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("paper18", "unknown suite"),
        ("", "unknown suite"),
        ("kvasir,nonsense", "nonsense"),
        ("folder", "folder"),
    ],
)
def test_suites_that_do_not_exist(suite, message):
    with pytest.raises(BadInput, match=message) as caught:
        suite_entries(suite)
    assert "\n" not in str(caught.value)


def test_all_17_are_found_by_their_names_and_opened(tmp_path):
    for name in PAPER:
        (tmp_path / name).mkdir()
        factory.PUBLISHED[name](tmp_path / name)
    found = find_sets(tmp_path, suite_entries("paper17"))
    for name in PAPER:
        assert found[name].folder == tmp_path / name
        assert not found[name].is_part
        samples = open_dataset(name, found[name].folder)
        assert samples.layout == found[name].layout
        assert set(samples.classes) <= set(found[name].classes)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mvtec", "mvtec_anomaly_detection"),
        ("mvtec", "MVTec-AD"),
        ("visa", "VisA_20220922"),
        ("btad", "BTech_Dataset_transformed"),
        ("ksdd", "KolektorSDD"),
        ("dagm", "industrial/DAGM_KaggleUpload"),
        ("dtd-synthetic", "DTD-Synthetic"),
        ("headct", "head_ct"),
        ("brainmri", "BrainMRI"),
        ("covid19", "COVID-19_Radiography_Dataset"),
        ("isic", "ISBI"),
        ("colondb", "medical/CVC-ColonDB"),
        ("colondb", "Polyp DataSet/TestDataset/CVC-ColonDB"),
        ("kvasir", "Kvasir-SEG"),
        ("endo", "EndoTect_2020_Segmentation_Test_Dataset"),
        ("tn3k", "Thyroid Dataset/tn3k"),
    ],
)
def test_usual_folder_names(tmp_path, name, folder):
    factory.picture(tmp_path / "other" / "a.png")
    factory.PUBLISHED[name](_made(tmp_path / folder))
    found = find_sets(tmp_path, suite_entries("paper17"))
    assert {key for key, value in found.items() if value is not None} == {name}
    assert found[name].name == folder


def _made(folder):
    folder.mkdir(parents=True)
    return folder


def test_a_part_is_found_and_says_so_but_the_whole_comes_first(tmp_path):
    factory.mvtec_style(_made(tmp_path / "mvtec_subset"), ("bottle", "tile"))
    (part,) = find_sets(tmp_path, suite_entries("mvtec")).values()
    assert part.is_part
    assert part.summary == "mvtec_subset (mvtec, 2 of 15 classes, a part by its name)"
    factory.mvtec_style(_made(tmp_path / "mvtec"), ("bottle",))
    (whole,) = find_sets(tmp_path, suite_entries("mvtec")).values()
    assert (whole.name, whole.is_part) == ("mvtec", False)


def test_a_name_without_a_layout_is_not_a_set(tmp_path):
    factory.picture(tmp_path / "kvasir" / "notes" / "a.png")
    (tmp_path / "isic").mkdir()
    assert find_sets(tmp_path, suite_entries("kvasir,isic")) == {"kvasir": None, "isic": None}


def test_a_damaged_set_is_there(tmp_path):
    factory.headct(_made(tmp_path / "headct"))
    (tmp_path / "headct" / "labels.csv").write_text("id,hemorrhage\n0,perhaps\n")
    (found,) = find_sets(tmp_path, suite_entries("headct")).values()
    assert found.layout == "damaged"


def test_nothing_is_read_or_prepared(tmp_path, own_cache, monkeypatch):
    factory.ksdd(_made(tmp_path / "ksdd"))
    factory.tn3k(_made(tmp_path / "tn3k"))
    monkeypatch.setattr(folder_layouts, "read_mask", None)
    found = find_sets(tmp_path, suite_entries("ksdd,tn3k"))
    assert [one.layout for one in found.values()] == ["ksdd", "tn3k"]
    assert list(own_cache.iterdir()) == []


def test_where_to_look(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="`data`"):
        find_sets(None, suite_entries("kvasir"))
    with pytest.raises(BadInput, match="nowhere"):
        find_sets(tmp_path / "nowhere", suite_entries("kvasir"))
    factory.images_masks(_made(tmp_path / "kvasir"), "colon")
    monkeypatch.setenv("MEDZSAD_DATA", str(tmp_path))
    assert find_sets(None, suite_entries("kvasir"))["kvasir"] is not None
