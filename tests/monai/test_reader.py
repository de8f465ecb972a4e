from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from dicom_factory import write, write_series
from made_scans import AFFINE, small_head
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, EnsureChannelFirst, EnsureChannelFirstd, LoadImage, LoadImaged
from PIL import Image

import medzsad
from medzsad.errors import BadInput
from medzsad.monai import MedzsadReader, labelled_scans_at, scans_at


def test_places_give_scans_with_names_of_their_own(heads: list[Path], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "scan.nii.gz").write_bytes(heads[0].read_bytes())
    found = scans_at([tmp_path / "b", tmp_path / "a"])
    assert [item["name"] for item in found] == ["b_scan", "a_scan"]
    assert found[0]["image"] == str(tmp_path / "b" / "scan.nii.gz")
    assert scans_at(str(heads[0])) == [{"image": str(heads[0]), "name": "first"}]
    with pytest.raises(BadInput, match="does not exist"):
        scans_at(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no volumes in a layout"):
        labelled_scans_at(tmp_path / "a")


def test_people_in_one_folder_are_refused(tmp_path: Path) -> None:
    from dicom_factory import ramp, write

    for index in range(2):
        for k, pixels in enumerate(ramp(3)):
            tags = {"PatientID": f"P{index}", "SeriesInstanceUID": f"1.2.{index}"}
            write(tmp_path / f"{index}{k}.dcm", pixels, ImagePositionPatient=[0, 0, k], **tags)
    with pytest.raises(BadInput, match="several people or studies"):
        scans_at(tmp_path)


OURS = "medzsad.monai.MedzsadReader"


@pytest.mark.parametrize("reader", [MedzsadReader, MedzsadReader(), OURS], ids=["class", "instance", "name"])
def test_nifti_is_what_nibabel_s_reader_gives(reader, heads: list[Path]) -> None:
    for path in heads:
        ours, theirs = LoadImage(reader=reader)(path), LoadImage(reader="NibabelReader")(path)
        assert torch.equal(ours.as_tensor(), theirs.as_tensor())
        assert ours.dtype == theirs.dtype
        for key in ("affine", "original_affine", "spatial_shape"):
            np.testing.assert_array_equal(ours.meta[key], theirs.meta[key])
        assert ours.meta["space"] == theirs.meta["space"]
        assert ours.meta["filename_or_obj"] == theirs.meta["filename_or_obj"]
        assert EnsureChannelFirst()(ours).shape == EnsureChannelFirst()(theirs).shape


def in_the_patient(image: torch.Tensor, name: str) -> dict[tuple[float, ...], float]:
    """Value at each place, to 0.01 mm."""
    voxels = image.numpy()
    index = np.stack(np.meshgrid(*map(np.arange, voxels.shape), indexing="ij"), -1).reshape(-1, 3)
    affine = image.affine.numpy()
    places = np.round(index @ affine[:3, :3].T + affine[:3, 3], 2) + 0.0
    return dict(zip(map(tuple, places), voxels.ravel(), strict=True))


@pytest.mark.parametrize("theirs", ["PydicomReader", "ITKReader"])
def test_a_dicom_series_lies_where_monai_s_readers_put_it(theirs: str, tmp_path: Path) -> None:
    if theirs == "ITKReader":
        pytest.importorskip("itk")
    slices = np.random.default_rng(0).integers(0, 500, (5, 6, 7)).astype(np.int16)
    folder = write_series(tmp_path / "series", slices, [0, 3, 6, 9, 12])
    ours, other = LoadImage(reader=OURS)(folder), LoadImage(reader=theirs)(folder)
    assert ours.shape == other.shape == (7, 6, 5)
    assert in_the_patient(ours, "ours") == in_the_patient(other, "theirs")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_are_what_pillow_s_reader_gives(mode: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.png")
    ours, theirs = (
        LoadImage(reader=OURS)(tmp_path / "a.png"),
        LoadImage(reader="PILReader")(tmp_path / "a.png"),
    )
    assert torch.equal(ours.as_tensor(), theirs.as_tensor())
    assert torch.equal(ours.affine, theirs.affine)
    assert EnsureChannelFirst()(ours).shape == EnsureChannelFirst()(theirs).shape == (len(mode), 12, 9)


def test_what_we_refuse_no_other_reader_reads(tmp_path: Path) -> None:
    array = small_head()
    array[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), tmp_path / "nan.nii.gz")
    with pytest.raises(BadInput, match="NaN"):
        LoadImage(reader=MedzsadReader)(tmp_path / "nan.nii.gz")
    assert LoadImage()(tmp_path / "nan.nii.gz").isnan().any()  # as MONAI's own would


def test_a_missing_slice_is_no_larger_spacing(tmp_path: Path) -> None:
    slices = np.random.default_rng(0).integers(0, 500, (4, 6, 7)).astype(np.int16)
    folder = write_series(tmp_path / "gap", slices, [0, 3, 6, 12])
    image = LoadImage(reader=MedzsadReader)(folder)
    assert image.pixdim[2] == pytest.approx(3)
    assert image.shape == (7, 6, 5)


def test_options_reach_read_scan_through_loaders(heads: list[Path], tmp_path: Path) -> None:
    pre = Compose([LoadImaged("image", reader=OURS, modality="us"), EnsureChannelFirstd("image")])
    loader = DataLoader(Dataset([{"image": str(heads[0])}], pre), batch_size=1)
    scan = medzsad.read_scan(next(iter(loader))["image"][0])
    assert (scan.modality, scan.modality_source, scan.name) == ("us", "given", "first")
    write(tmp_path / "one.dcm", np.arange(30, dtype=np.int16).reshape(5, 6))
    assert LoadImage(reader=OURS)(tmp_path / "one.dcm").shape == (6, 5, 1)


def test_several_files_are_channels_of_one_grid(heads: list[Path], tmp_path: Path) -> None:
    image = LoadImage(reader=MedzsadReader, ensure_channel_first=True)([heads[0], heads[0]])
    assert image.shape == (2, 20, 24, 6)
    with pytest.raises(BadInput, match="cannot be a channel"):
        LoadImage(reader=MedzsadReader)(heads)
    reader = MedzsadReader()
    assert reader.verify_suffix([str(path) for path in heads])
    (tmp_path / "a.txt").write_text("x")
    assert not reader.verify_suffix(tmp_path / "a.txt")
