"""The catalogue of data sets, and what texts call their classes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from medzsad.datasets.catalog import NAMED_LAYOUTS, entries, expected, find_entry, name_in_texts
from medzsad.datasets.opening import READERS
from medzsad.detectors.organs import organ_names
from medzsad.errors import BadInput
from medzsad.scans.scan import Modality

INDUSTRIAL = ["mvtec", "visa", "mpdd", "btad", "ksdd", "dagm", "dtd-synthetic"]
IMAGE_LEVEL = ["headct", "brainmri", "br35h", "covid19"]
PIXEL_LEVEL = ["isic", "colondb", "clinicdb", "kvasir", "endo", "tn3k"]
PAPER = INDUSTRIAL + IMAGE_LEVEL + PIXEL_LEVEL


def test_the_17_sets_of_the_paper_come_first():
    assert list(entries())[:17] == PAPER
    assert [entry.name for entry in entries().values() if entry.paper] == PAPER
    assert {name: entries()[name].domain for name in PAPER} == {
        name: "industrial" if name in INDUSTRIAL else "medical" for name in PAPER
    }
    assert [name for name in PAPER if entries()[name].level == "image"] == IMAGE_LEVEL


@pytest.mark.parametrize("name", entries())
def test_every_entry_is_complete(name):
    entry = entries()[name]
    assert entry.domain in ("industrial", "medical", "any")
    assert entry.level in ("image", "pixel", "voxel")
    assert entry.title
    assert entry.licence
    assert entry.source.startswith("https://") or entry.source == "your own"
    assert entry.organ is None or entry.organ in organ_names()
    assert (entry.class_name is not None) == (len(entry.classes) == 1)
    for name_ in (entry.name, *entry.aliases):
        assert find_entry(name_) is entry
    if entry.classes:
        assert entry.tree.startswith("DIR/\n")
        assert entry.own_layouts
    for line in expected(entry, all_layouts=True).splitlines():
        assert len(line) <= 90


def test_unknown_names_list_all():
    with pytest.raises(BadInput) as caught:
        find_entry("mvetc")
    assert "did you mean mvtec?" in str(caught.value)
    assert all(name in str(caught.value) for name in entries())


def test_the_documentation_names_the_same_sets():
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (\w+) \| (\w+) \| .* \| (.+) \|$", text, flags=re.MULTILINE)
    stated = {name: (domain, level, licence) for name, domain, level, licence in rows}
    assert stated == {entry.name: (entry.domain, entry.level, entry.licence) for entry in entries().values()}
    for entry in entries().values():
        if entry.tree:
            assert entry.tree.strip() in text


def test_it_is_read_without_anything_heavy():
    code = (
        "import sys\nfrom medzsad.datasets.catalog import entries\nentries()\n"
        "sys.exit(bool({'torch', 'numpy', 'PIL', 'nibabel'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_set_says_how_its_images_came_about() -> None:
    known = {entry.name: entry.modality for entry in entries().values()}
    assert {name for name, modality in known.items() if modality is None} == {"folder", "volumes"}
    assert {name for name, modality in known.items() if modality is not None and Modality(modality)} == (
        set(known) - {"folder", "volumes"}
    )
    assert [known[name] for name in ("headct", "brainmri", "covid19", "tn3k", "isic", "kvasir", "mvtec")] == [
        "ct", "mr", "xray", "us", "rgb", "rgb", "rgb"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "layout", "folder", "method", "name"),
    [
        ("mvtec", "mvtec", "metal_nut", "adaclip", "metal_nut"),  # underscores stay, as in the authors' code
        ("mvtec", "mvtec", "metal_nut", "winclip", "metal_nut"),
        ("visa", "visa", "pipe_fryum", "clip", "pipe_fryum"),
        ("btad", "mvtec", "01", "adaclip", "01"),
        ("dagm", "dagm", "Class1", "winclip", "Class1"),
        ("brainmri", "yes-no", "brain", "adaclip", "brain_mri"),
        ("brainmri", "meta.json", "brain_mri", "winclip", "brain"),
        ("colondb", "images-masks", "colon", "adaclip", "ColonDB"),
        ("colondb", "images-masks", "colon", "winclip", "colon"),
        ("kvasir", "images-masks", "colon", "adaclip", "colon"),  # AdaCLIP's code does not have the set
        ("ksdd", "ksdd", "electrical_commutators", "adaclip", "SDD"),
        ("ksdd", "ksdd", "electrical_commutators", "winclip", "electrical commutators"),
        ("folder", "mvtec", "head-ct", "adaclip", "head-ct"),
        ("folder", "meta.json", "screw", "clip", "screw"),
        ("folder", "images-masks", "Downloads", "adaclip", "object"),
        ("folder", "yes-no", "mine", "winclip", "object"),
        ("folder", "mvtec", "--", "adaclip", "object"),
        ("volumes", "cases", "object", "adaclip", "object"),
        ("synthetic", "mvtec", "grain", "adaclip", "grain"),
    ],
)
def test_the_rules(dataset: str, layout: str, folder: str, method: str, name: str) -> None:
    assert name_in_texts(dataset, layout, folder, method) == name


@pytest.mark.parametrize("method", ["adaclip", "winclip"])
def test_every_set_of_the_catalogue_names_its_classes(method: str) -> None:
    assert set(NAMED_LAYOUTS) <= set(READERS)
    for entry in entries().values():
        for one in entry.classes:
            name = name_in_texts(entry.name, entry.own_layouts[0], one, method)
            assert name != "object", entry.name
            assert name.strip()


def test_adaclip_s_own_names_are_those_of_its_code() -> None:
    own = {entry.name: entry.names["adaclip"] for entry in entries().values() if entry.names}
    assert own == {
        "ksdd": "SDD",
        "headct": "headct",
        "brainmri": "brain_mri",
        "br35h": "br35h",
        "isic": "isic",
        "colondb": "ColonDB",
        "clinicdb": "ClinicDB",
        "endo": "endo",
        "tn3k": "tn3k",
    }
