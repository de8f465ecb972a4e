"""What classes are called in texts: the rules, and that no set of the catalogue is left without a name."""

from __future__ import annotations

import pytest

from medzsad.datasets.catalog import entries
from medzsad.datasets.class_names import NAMED_LAYOUTS, name_in_texts
from medzsad.datasets.layouts import READERS


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
