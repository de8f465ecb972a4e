from __future__ import annotations

import json

import dataset_factory as factory
import pytest

from medzsad.datasets.opening import open_dataset
from medzsad.datasets.samples import Sample
from medzsad.errors import BadInput


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
