"""Every layout of the catalogue is found and read, and bad folders are refused."""

from __future__ import annotations

import json
import shutil

import dataset_factory as factory
import pytest

from medzsad.datasets.catalog import entries, expected, find_entry
from medzsad.datasets.opening import READERS, open_dataset, open_with_problems
from medzsad.datasets.samples import Sample
from medzsad.errors import BadInput

PAPER = [name for name, entry in entries().items() if entry.paper]
CLASS = {name: entry.classes[0] for name, entry in entries().items() if entry.classes}


def rows(samples):
    """The samples as the factory states them; file names below the set's root."""
    return [
        (s.id, s.label, s.mask and s.mask.relative_to(samples.root).as_posix(), s.class_name, s.kind)
        for s in samples
    ]


def test_there_is_a_tree_for_each_set_of_the_paper():
    assert sorted(factory.PUBLISHED) == sorted(PAPER)
    assert len(PAPER) == 17


@pytest.mark.parametrize("name", [name for name in (*factory.PUBLISHED, *factory.FURTHER) if name != "ksdd"])
def test_published_layout(tmp_path, name):
    root = tmp_path / "set"
    root.mkdir()
    wanted = {**factory.PUBLISHED, **factory.FURTHER}[name](root)
    samples = open_dataset(name, root)
    assert rows(samples) == wanted
    assert samples.root == root
    assert samples.layout in (*find_entry(name).own_layouts, "mvtec")
    assert samples.level == ("pixel" if any(row[2] for row in wanted) else "image")
    for sample in samples:
        height, width = sample.read_image().shape[1:]
        assert (width, height) == factory.SIZE
        if sample.mask is not None or not sample.label:
            assert sample.read_mask().sum() == (6 if sample.label else 0)


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("layout", ["mvtec", "images-masks", "yes-no", "meta.json"])
def test_generic_layouts_of_every_set(tmp_path, name, layout):
    only = CLASS[name] if len(entries()[name].classes) == 1 else "thing"
    root = tmp_path / only
    root.mkdir()
    if layout == "mvtec":
        wanted = factory.mvtec_style(root, ("thing",), as_class=only)
    elif layout == "images-masks":
        wanted = factory.images_masks(root, only)
    elif layout == "yes-no":
        wanted = factory.yes_no(root, only)
    else:
        wanted = factory.meta_json(root, "thing")
    samples = open_dataset(name, root)
    assert samples.layout == layout
    assert rows(samples) == wanted


@pytest.mark.parametrize("name", PAPER)
def test_a_wrong_tree_is_shown_the_expected_one(tmp_path, name):
    (tmp_path / "stuff" / "deep").mkdir(parents=True)
    factory.picture(tmp_path / "stuff" / "deep" / "a.png")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadInput) as caught:
        open_dataset(name, tmp_path)
    message = str(caught.value)
    first, _, tree = message.partition("\n")
    assert str(tmp_path) in first
    assert name in first
    for line in expected(find_entry(name)).splitlines():
        assert line.strip() in tree
    assert entries()[name].tree.splitlines()[1].strip() in tree


def test_every_layout_of_the_catalogue_has_a_reader():
    for entry in entries().values():
        assert {name for group in entry.layouts for name in group} <= set(READERS)
        assert entry.is_volumetric == ("cases" in {*entry.layouts[0], *entry.layouts[1]})


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        ("brainmri", ["brain_tumor_dataset"]),
        ("brainmri", ["archive", "brain_tumor_dataset"]),
        ("brainmri", ["a", "b", "c"]),
        ("btad", ["BTech_Dataset_transformed"]),
        ("colondb", ["TestDataset", "CVC-ColonDB"]),
        ("tn3k", ["Thyroid Dataset", "tn3k"]),
        ("dagm", ["DAGM_KaggleUpload"]),
        ("headct", ["head_ct"]),
        ("covid19", ["COVID-19_Radiography_Dataset"]),
    ],
)
def test_folders_that_downloads_leave_around_a_set(tmp_path, name, folders):
    root = tmp_path.joinpath(*folders)
    root.mkdir(parents=True)
    wanted = factory.PUBLISHED[name](root)
    assert rows(open_dataset(name, tmp_path)) == wanted


def test_a_set_among_others_is_found_by_its_name(tmp_path, monkeypatch):
    wanted = {}
    for name in ("kvasir", "CVC-ClinicDB", "Br35H", "dtd"):
        (tmp_path / name).mkdir()
        wanted[name] = factory.PUBLISHED[find_entry(name.removeprefix("CVC-")).name](tmp_path / name)
    monkeypatch.setenv("MEDZSAD_DATA", str(tmp_path))
    for name, rows_ in wanted.items():
        samples = open_dataset(name.removeprefix("CVC-"))
        assert rows(samples) == rows_
        assert samples.root == tmp_path / name


def test_an_mvtec_class_by_itself(tmp_path):
    factory.mvtec_style(tmp_path, ("bottle",))
    samples = open_dataset("folder", tmp_path / "bottle")
    assert samples.classes == ("bottle",)
    assert samples.counts() == {"bottle": {"good": 2, "hole": 2, "scratch": 2}}


@pytest.mark.parametrize(
    "ending", ["_mask.png", ".png", ".bmp", "_label.PNG", ".mask.png", "_Segmentation.tif"]
)
def test_mask_names(tmp_path, ending):
    wanted = factory.mvtec_style(tmp_path, ("bottle",), suffix=".JPG", mask_end=ending)
    assert rows(open_dataset("mvtec", tmp_path)) == wanted


def test_masks_are_paired_by_name_not_by_order(tmp_path):
    factory.images_masks(tmp_path, "colon")
    (tmp_path / "masks" / "1.png").unlink()
    factory.mask(tmp_path / "masks" / "99.png")
    samples = open_dataset("kvasir", tmp_path)
    assert [(s.id, s.mask.name) for s in samples] == [("images/2.jpg", "2.png"), ("images/10.jpg", "10.png")]
    assert "1 left out" in samples.notes[0]
    assert str(samples.root) not in samples.notes[0]  # notes go into result files
    assert "images/1.jpg" in samples.notes[0].replace("\\", "/")


def test_what_systems_leave_behind_is_ignored(tmp_path):
    wanted = factory.mvtec_style(tmp_path, ("bottle",))
    for junk in ("__MACOSX/test/good/._1.png", ".hidden/test/good/1.png"):
        factory.picture(tmp_path / "x.png")
        (tmp_path / junk).parent.mkdir(parents=True)
        shutil.move(tmp_path / "x.png", tmp_path / junk)
    factory.picture(tmp_path / "bottle/test/good/x.png").rename(tmp_path / "bottle/test/good/._002.png")
    (tmp_path / "bottle/test/good/Thumbs.db").write_bytes(b"x")
    assert rows(open_dataset("mvtec", tmp_path)) == wanted


def test_links_are_followed(tmp_path):
    wanted = factory.yes_no(tmp_path / "real", "brain")
    (tmp_path / "set").mkdir()
    try:
        for folder in ("yes", "no"):
            (tmp_path / "set" / folder).symlink_to(tmp_path / "real" / folder, target_is_directory=True)
    except OSError:
        pytest.skip("no symbolic links here")
    assert rows(open_dataset("brainmri", tmp_path / "set")) == wanted


@pytest.mark.parametrize("prefix", ["/remote/home/data/set/", "C:\\data\\set\\", "./"])
def test_meta_json_from_another_machine(tmp_path, prefix):
    wanted = factory.meta_json(tmp_path, "colon", prefix)
    assert rows(open_dataset("kvasir", tmp_path)) == wanted


def test_meta_json_comes_before_the_folders(tmp_path):
    factory.yes_no(tmp_path, "brain")
    wanted = factory.meta_json(tmp_path, "brain")
    assert rows(open_dataset("brainmri", tmp_path)) == wanted


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"foo": 1}', '{"test": {"a": [{"img_path": "x"}]}}', '{"test": [1]}']
)
def test_a_broken_meta_json_is_one_line(tmp_path, text):
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(BadInput, match=r"meta\.json") as caught:
        open_dataset("mvtec", tmp_path)
    assert "\n" not in str(caught.value)


def test_covid_says_what_it_leaves_out(tmp_path):
    factory.covid_first(tmp_path)
    assert "Viral Pneumonia" in open_dataset("covid19", tmp_path).notes[0]


@pytest.mark.parametrize("form", factory.ARCHIVES)
def test_other_forms_that_archives_come_in(tmp_path, form):
    name, build, base = factory.ARCHIVES[form]
    wanted = build(tmp_path)
    samples = open_dataset(name, tmp_path)
    assert rows(samples) == wanted
    assert samples.root == tmp_path / base
    assert all(sample.image.is_file() for sample in samples)


def test_an_archive_that_holds_everything_twice_counts_once(tmp_path):
    wanted = factory.brainmri_archive(tmp_path)
    assert len(open_dataset("brainmri", tmp_path)) == len(wanted)


def test_colondb_with_a_missing_and_a_spare_mask(tmp_path):
    factory.colondb(tmp_path)
    (tmp_path / "p2.tiff").rename(tmp_path / "p3.tiff")
    samples, found = open_with_problems("colondb", tmp_path)
    assert [sample.id for sample in samples] == ["10.tiff"]
    assert [(p.kind, p.path.name) for p in found.problems] == [
        ("unlabelled", "2.tiff"),
        ("unused-mask", "p3.tiff"),
    ]


@pytest.mark.parametrize("name", ["cvc_clinicdb", "CVC ClinicDB", "Cvc-ClinicDb"])
def test_folders_are_found_whatever_stands_between_their_words(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / "other").mkdir()
    wanted = factory.clinicdb(tmp_path / name)
    assert rows(open_dataset("clinicdb", tmp_path)) == wanted


def test_headct_without_a_label_for_an_image(tmp_path):
    factory.headct(tmp_path)
    factory.picture(tmp_path / "head_ct" / "004.png")
    samples = open_dataset("headct", tmp_path)
    assert len(samples) == 4
    assert "004.png" in samples.notes[0]


def test_train_splits(tmp_path):
    for name in ("mvtec", "visa", "dagm", "isic", "tn3k", "kvasir"):
        (tmp_path / name).mkdir()
        factory.PUBLISHED[name](tmp_path / name)
    sizes = {
        name: len(open_dataset(name, tmp_path, split="train")) for name in ("mvtec", "visa", "isic", "tn3k")
    }
    assert sizes == {"mvtec": 2, "visa": 2, "isic": 1, "tn3k": 3}
    train = open_dataset("dagm", tmp_path, split="train")
    assert {s.id.split("/")[1] for s in train} == {"Train"}
    with pytest.raises(BadInput, match="no train split"):
        open_dataset("kvasir", tmp_path, split="train")
    assert {s.label for s in open_dataset("dagm-balanced", tmp_path, split="train")} == {0}


def test_unknown_names(tmp_path):
    with pytest.raises(BadInput, match=r"did you mean brainmri\?.*mvtec, visa") as caught:
        open_dataset("brainmir", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["brain_mri", "Brain-MRI", "BRAINMRI"])
def test_other_spellings(tmp_path, name):
    factory.yes_no(tmp_path, "brain")
    assert open_dataset(name, tmp_path).name == "brainmri"


def test_where_it_is_looked_for(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="MEDZSAD_DATA"):
        open_dataset("brainmri")
    with pytest.raises(BadInput, match="does not exist"):
        open_dataset("brainmri", tmp_path / "nowhere")
    with pytest.raises(BadInput, match="is empty"):
        open_dataset("brainmri", tmp_path)
    file = factory.picture(tmp_path / "yes" / "a.png")
    with pytest.raises(BadInput, match="is a file"):
        open_dataset("brainmri", file)
    factory.picture(tmp_path / "no" / "b.png")
    monkeypatch.setenv("MEDZSAD_DATA", str(tmp_path))
    assert len(open_dataset("brainmri")) == 2
    monkeypatch.setenv("MEDZSAD_DATA", str(tmp_path / "other"))
    assert len(open_dataset("brainmri", tmp_path)) == 2


def test_splits_and_classes(tmp_path):
    factory.mvtec_style(tmp_path, ("bottle", "cable"))
    with pytest.raises(BadInput, match="unknown split 'tset'"):
        open_dataset("mvtec", tmp_path, split="tset")
    with pytest.raises(BadInput, match=r"no class 'zipper' here; it has bottle, cable"):
        open_dataset("mvtec", tmp_path, classes=["zipper"])
    samples = open_dataset("mvtec", tmp_path, classes=["Cable"])
    assert samples.classes == ("cable",)
    assert len(samples) == 6


def test_limit_keeps_classes_and_labels(tmp_path):
    factory.mvtec_style(tmp_path, ("bottle", "cable"))
    whole = open_dataset("mvtec", tmp_path)
    part = open_dataset("mvtec", tmp_path, limit=6)
    assert part.counts().keys() == whole.counts().keys()
    assert sum(s.label for s in part) == 4
    assert [s for s in whole if s in set(part)] == list(part)
    assert open_dataset("mvtec", tmp_path, limit=6, seed=0).samples == part.samples
    assert len(open_dataset("mvtec", tmp_path, limit=99)) == 12
    with pytest.raises(BadInput, match="at least 1"):
        open_dataset("mvtec", tmp_path, limit=0)


def test_a_set_without_masks_says_so(tmp_path):
    factory.mvtec_style(tmp_path, ("bottle",))
    (tmp_path / "bottle" / "ground_truth").rename(tmp_path / "elsewhere")
    samples = open_dataset("mvtec", tmp_path)
    assert samples.level == "image"
    assert "only labels" in samples.notes[0]


def test_reading_masks(tmp_path):
    factory.mvtec_style(tmp_path, ("bottle",))
    normal, *_, anomalous = open_dataset("mvtec", tmp_path)
    assert not normal.read_mask().any()
    assert normal.read_mask().shape == normal.read_image().shape[1:] == factory.SIZE[::-1]
    factory.mask(anomalous.mask, size=(5, 5))
    with pytest.raises(BadInput, match="5 x 5 pixels, its image 12 x 8"):
        anomalous.read_mask()
    without = Sample(anomalous.image, 1, None, "bottle", "x", "x")
    with pytest.raises(BadInput, match="no mask"):
        without.read_mask()


def test_listed_files_of_one_name_have_ids_of_their_own(tmp_path):
    rows = []
    for folder in ("a", "b"):
        factory.picture(tmp_path / "elsewhere" / folder / "000.png")
        path = (tmp_path / "elsewhere" / folder / "000.png").as_posix()
        rows.append({"img_path": path, "mask_path": "", "anomaly": 0})
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "meta.json").write_text(json.dumps({"test": {"x": rows}}))
    samples = open_dataset("folder", tmp_path / "set")
    assert [sample.id for sample in samples] == ["000.png", "000.png (2)"]
    assert [sample.image.parent.name for sample in samples] == ["a", "b"]
