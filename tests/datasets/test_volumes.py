from __future__ import annotations

import json

import dataset_factory as factory
import nibabel
import numpy as np
import pytest
import SimpleITK

from medzsad.datasets.checking import check_dataset
from medzsad.datasets.opening import open_dataset
from medzsad.errors import BadInput

GRID = np.diag([1.0, 1.0, 2.0, 1.0])


def cases(root, names=("pat1", "pat2", "pat10"), brainmask=False):
    for name in names:
        factory.scan_volume(root / name / "Flair_x.nii.gz")
        factory.scan_volume(root / name / "T1_x.nii.gz")
        factory.scan_volume(root / name / "T1c_x.nii.gz")
        factory.label_volume(root / name / "OTMultiClass.nii.gz", 3)
        (root / name / "License.txt").write_text("x")
        if brainmask:
            factory.label_volume(root / name / "T1_brainmask.nii.gz")


def facts(samples):
    return [(s.id, s.image.name, s.label.name, s.channel, s.volume) for s in samples]


def test_a_folder_per_case(tmp_path):
    cases(tmp_path, brainmask=True)
    samples = open_dataset("brats2013", tmp_path)
    assert facts(samples) == [
        (name, "Flair_x.nii.gz", "OTMultiClass.nii.gz", "flair", None) for name in ("pat1", "pat2", "pat10")
    ]
    assert (samples.layout, samples.level, samples.classes) == ("cases", "voxel", ("brain",))
    assert samples[0].foreground.name == "T1_brainmask.nii.gz"
    label = samples[0].read_label()
    assert (label.dtype, label.shape, label.sum()) == (bool, (5, 6, 4), 2)
    assert samples[0].read_foreground().sum() == 2
    assert samples[0].read_scan().shape == (5, 6, 4)


@pytest.mark.parametrize(
    ("channel", "image"),
    [("T1", "T1_x.nii.gz"), ("t1c", "T1c_x.nii.gz"), ("FLA", "Flair_x.nii.gz")],
)
def test_channels_are_words_of_the_name_before_they_are_parts(tmp_path, channel, image):
    cases(tmp_path)
    assert {s.image.name for s in open_dataset("volumes", tmp_path, channel=channel)} == {image}


def test_a_channel_must_be_chosen_and_must_be_there(tmp_path):
    cases(tmp_path)
    with pytest.raises(BadInput, match=r"Flair_x.*T1_x.*`channel`"):
        open_dataset("volumes", tmp_path)
    with pytest.raises(BadInput, match=r"no channel 't2'.*Flair_x"):
        open_dataset("volumes", tmp_path, channel="t2")
    with pytest.raises(BadInput, match="no set of volumes"):
        open_dataset("brainmri", tmp_path, channel="flair")


def test_a_case_without_label_is_left_out_and_said(tmp_path):
    cases(tmp_path)
    (tmp_path / "pat2" / "OTMultiClass.nii.gz").unlink()
    samples = open_dataset("brats2013", tmp_path)
    assert [s.id for s in samples] == ["pat1", "pat10"]
    assert "pat2" in samples.notes[0]


def test_patterns_instead_of_guessing(tmp_path):
    factory.scan_volume(tmp_path / "a" / "seg-free.nii.gz")
    factory.label_volume(tmp_path / "a" / "expert1.nii.gz")
    factory.scan_volume(tmp_path / "a" / "other.nii.gz")
    patterns = {"image": "seg-*", "label": "EXPERT*"}
    samples = open_dataset("volumes", tmp_path, patterns=patterns)
    assert facts(samples) == [("a", "seg-free.nii.gz", "expert1.nii.gz", None, None)]


def test_label_values(tmp_path):
    cases(tmp_path, ("pat1",))
    assert not open_dataset("brats2013", tmp_path, labels=[1, 2])[0].read_label().any()
    assert open_dataset("brats2013", tmp_path, labels=[3])[0].read_label().sum() == 2


def test_paired_folders_and_channels_of_nnunet(tmp_path):
    for case in ("brain_2", "brain_10"):
        for channel in ("0000", "0001"):
            factory.scan_volume(tmp_path / "imagesTr" / f"{case}_{channel}.nii.gz")
        factory.label_volume(tmp_path / "labelsTr" / f"{case}.nii.gz")
    factory.scan_volume(tmp_path / "imagesTs" / "brain_3_0000.nii.gz")
    with pytest.raises(BadInput, match=r"\(0, 1\); choose one with `channel`"):
        open_dataset("volumes", tmp_path)
    samples = open_dataset("volumes", tmp_path, channel="1")
    assert facts(samples) == [
        ("brain_2", "brain_2_0001.nii.gz", "brain_2.nii.gz", "1", None),
        ("brain_10", "brain_10_0001.nii.gz", "brain_10.nii.gz", "1", None),
    ]
    assert "imagesTs" in samples.notes[0]


def test_paired_folders_of_the_same_names(tmp_path):
    factory.scan_volume(tmp_path / "images" / "a.nii.gz")
    factory.scan_volume(tmp_path / "images" / "b.nii")
    factory.label_volume(tmp_path / "labels" / "a.nii.gz")
    samples = open_dataset("volumes", tmp_path)
    assert facts(samples) == [("a", "a.nii.gz", "a.nii.gz", None, None)]
    assert "b.nii" in samples.notes[0]


def decathlon(root, *, channels, modality, **lists):
    for i in (1, 2):
        factory.scan_volume(root / "imagesTr" / f"BRATS_{i}.nii.gz", channels)
        factory.label_volume(root / "labelsTr" / f"BRATS_{i}.nii.gz")
    rows = [
        {"image": f"./imagesTr/BRATS_{i}.nii.gz", "label": f"./labelsTr/BRATS_{i}.nii.gz"} for i in (1, 2)
    ]
    content = {"name": "x", "modality": modality, "training": rows, "test": ["./imagesTs/B.nii.gz"], **lists}
    (root / "dataset.json").write_text(json.dumps(content))
    return rows


def test_decathlon_with_4d_images(tmp_path):
    decathlon(tmp_path, channels=3, modality={"0": "FLAIR", "1": "T1w", "2": "t1gd"})
    with pytest.raises(BadInput, match="FLAIR, T1w, t1gd"):
        open_dataset("volumes", tmp_path)
    samples = open_dataset("volumes", tmp_path, channel="t1GD")
    assert facts(samples) == [
        (f"labelsTr/BRATS_{i}.nii.gz", f"BRATS_{i}.nii.gz", f"BRATS_{i}.nii.gz", "t1gd", 2) for i in (1, 2)
    ]
    assert "'training' was read" in samples.notes[0]
    assert samples[0].read_label().shape == samples[0].read_scan().shape == (5, 6, 4)
    assert open_dataset("volumes", tmp_path / "dataset.json", channel="1")[0].volume == 1
    with pytest.raises(BadInput, match="no channel 'adc'"):
        open_dataset("volumes", tmp_path, channel="adc")


def test_decathlon_of_one_modality(tmp_path):
    rows = decathlon(tmp_path, channels=0, modality={"0": "CT"})
    assert [s.volume for s in open_dataset("volumes", tmp_path)] == [None, None]
    decathlon(tmp_path, channels=0, modality={"0": "CT"}, test=rows[:1])
    samples = open_dataset("volumes", tmp_path)
    assert len(samples) == 1
    assert samples.notes == ()
    assert len(open_dataset("volumes", tmp_path, split="train")) == 2
    with pytest.raises(BadInput, match="no valid split"):
        open_dataset("volumes", tmp_path, split="valid")


def test_a_list_of_one_file_a_channel(tmp_path):
    for name in ("flair", "t2"):
        factory.scan_volume(tmp_path / f"{name}.nii.gz")
    factory.label_volume(tmp_path / "seg.nii.gz")
    rows = [{"image": ["flair.nii.gz", "t2.nii.gz"], "label": "seg.nii.gz", "foreground": "seg.nii.gz"}]
    (tmp_path / "my_list.json").write_text(json.dumps({"validation": rows}))
    for channel in ("t2", "1"):
        sample = open_dataset("volumes", tmp_path, channel=channel)[0]
        assert (sample.image.name, sample.volume) == ("t2.nii.gz", None)
        assert sample.foreground == tmp_path / "seg.nii.gz"


def test_a_4d_image_without_names_needs_a_channel(tmp_path):
    decathlon(tmp_path, channels=2, modality={})
    with pytest.raises(BadInput, match="`channel` 0 to `channel` 1"):
        open_dataset("volumes", tmp_path)
    assert open_dataset("volumes", tmp_path, channel="1")[0].volume == 1


@pytest.mark.parametrize("text", ["{", '{"training": [{"image": 3, "label": "x"}]}'])
def test_a_broken_list(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(BadInput, match=r"dataset\.json"):
        open_dataset("volumes", tmp_path)


def test_a_label_on_another_grid(tmp_path):
    cases(tmp_path, ("pat1", "pat2"))
    factory.volume(tmp_path / "pat1" / "OTMultiClass.nii.gz", np.ones((5, 6, 3), np.uint8))
    factory.volume(tmp_path / "pat2" / "OTMultiClass.nii.gz", np.ones((5, 6, 4), np.uint8), np.eye(4))
    first, second = open_dataset("brats2013", tmp_path)
    with pytest.raises(BadInput, match=r"OTMultiClass.*5 x 6 x 3 voxels, its image 5 x 6 x 4"):
        first.read_label()
    with pytest.raises(BadInput, match="affine"):
        second.read_label()


def test_a_wrong_tree_is_shown_the_expected_ones(tmp_path):
    factory.picture(tmp_path / "a" / "x.png")
    with pytest.raises(BadInput) as caught:
        open_dataset("volumes", tmp_path)
    for part in ("imagesTr/", "dataset.json", "CASE/"):
        assert part in str(caught.value)


@pytest.mark.parametrize("how", ["clean", "noise", "nearly one", "scaled", "negative"])
def test_labels_are_rounded(tmp_path, how):
    """What resampling and scaling to integers leave of 0 and 1."""
    whole = np.zeros((5, 6, 4), dtype=np.float32)
    whole[2, 3, 1:3] = 1
    path = tmp_path / "labels" / "a.nii.gz"
    factory.scan_volume(tmp_path / "images" / "a.nii.gz")
    if how == "scaled":
        image = nibabel.Nifti1Image(np.where(whole > 0, 32767, -32768).astype(np.int16), GRID)
        image.header.set_slope_inter(1 / 65535, 32768 / 65535 + 1e-7)
        path.parent.mkdir()
        image.to_filename(path)
    else:
        noise = np.random.default_rng(0).uniform(0, 1e-6, whole.shape)
        values = {"clean": whole, "noise": whole + noise, "nearly one": whole * 0.9999, "negative": whole}
        factory.volume(path, values[how].astype(np.float32) - (how == "negative") * (whole == 0), GRID)
    (sample,) = open_dataset("volumes", tmp_path)
    np.testing.assert_array_equal(sample.read_label(), whole > 0)
    told = check_dataset("volumes", tmp_path).of_kind("label-values")
    assert len(told) == (how != "clean")
    word = "below 0" if how == "negative" else "rounded"
    assert all(word in problem.message for problem in told)
    assert check_dataset("volumes", tmp_path).ok


def test_classes_are_rounded_too(tmp_path):
    factory.scan_volume(tmp_path / "images" / "a.nii.gz")
    values = np.zeros((5, 6, 4), dtype=np.float32)
    values[0, 0], values[1, 1] = 3.9999, 2.0001
    factory.volume(tmp_path / "labels" / "a.nii.gz", values, GRID)
    (sample,) = open_dataset("volumes", tmp_path, labels=[4])
    np.testing.assert_array_equal(sample.read_label(), values > 3)


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "8 NaN"), (1 / 255, "rounded"), (0.3, "largest is 0.3")]
)
def test_labels_that_are_none(tmp_path, value, words):
    factory.scan_volume(tmp_path / "images" / "a.nii.gz")
    values = np.zeros((5, 6, 4), dtype=np.float32)
    values[0, :2] = value
    factory.volume(tmp_path / "labels" / "a.nii.gz", values, GRID)
    (sample,) = open_dataset("volumes", tmp_path)
    problems = check_dataset("volumes", tmp_path).problems
    assert any(words in problem.message for problem in problems)
    if words != "rounded":
        with pytest.raises(BadInput, match=words):
            sample.read_label()


def test_scan_and_label_in_other_units_and_formats(tmp_path):
    """They lie on one grid all the same."""
    micron = nibabel.Nifti1Image(np.random.default_rng(0).random((5, 6, 4)), np.diag([1000, 1000, 2000, 1]))
    micron.header.set_xyzt_units("micron")
    (tmp_path / "images").mkdir()
    micron.to_filename(tmp_path / "images" / "a.nii.gz")
    label = factory.label_volume(tmp_path / "labels" / "twin.nii.gz")
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(label)), str(tmp_path / "labels" / "a.nrrd"))
    label.unlink()
    (sample,) = open_dataset("volumes", tmp_path)
    assert sample.label.name == "a.nrrd"
    assert sample.read_label().sum() == 2
    assert sample.read_scan().spacing == (1, 1, 2)
