"""What networks over features of photographs add to the scores of grey images, and to nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mini_cases import SMALL, detector_of_images, pictures
from torch import Tensor

from medzsad.detectors.checkpoint import read_checkpoint, save_checkpoint
from medzsad.detectors.mini.colour import ColourNetwork
from medzsad.detectors.mini.model import MedzsadMini
from medzsad.detectors.mini.opinions import Opinions
from medzsad.errors import ModelNotReady
from medzsad.scans.scan import Modality

SHARES = {"colour": 0.4, "radiology": 0.3}


@pytest.fixture(scope="module")
def plain() -> MedzsadMini:
    return detector_of_images(radiology=True)


@pytest.fixture(scope="module")
def mixed(plain: MedzsadMini) -> MedzsadMini:
    detector = detector_of_images(radiology=True, other_scores=SHARES)
    detector.load_state_dict({**detector.state_dict(), **plain.state_dict()})
    return detector


def test_scores_of_grey_images_are_means_of_logits_and_maps_stay(
    plain: MedzsadMini, mixed: MedzsadMini
) -> None:
    _, surface, scan = pictures()
    grey = torch.cat([surface, scan])
    before, after = plain(grey), mixed(grey)
    assert torch.equal(before.anomaly_map, after.anomaly_map)
    both = plain.preprocess(torch.cat([grey, grey.flip(-1)]))  # mirrored images get the same scores
    others = {}
    for kind in SHARES:
        pixel, image = getattr(plain, f"{kind}_network")(both)
        others[kind] = plain._calibrated(pixel, image, kind, True)
    for name in ("image_score", "image_probability"):
        wanted = 0.3 * torch.logit(getattr(before, name))
        for kind, share in SHARES.items():
            wanted = wanted + share * torch.logit(getattr(others[kind], name))
        torch.testing.assert_close(torch.logit(getattr(after, name)), wanted, atol=1e-4, rtol=1e-4)


def test_a_mirrored_image_gets_the_same_scores(mixed: MedzsadMini) -> None:
    _, _, scan = pictures()
    torch.testing.assert_close(mixed(scan).image_score, mixed(scan.flip(-1)).image_score, atol=1e-5, rtol=0)


def test_nothing_else_changes(plain: MedzsadMini, mixed: MedzsadMini) -> None:
    colour, surface, _ = pictures()
    for one, other in ((plain, mixed), *((p.for_modality(Modality.RGB),) * 2 for p in (mixed,))):
        for ours, expected in zip(one(colour), other(colour), strict=True):
            assert torch.equal(ours, expected)
    for ours, expected in zip(
        mixed.for_volume()(surface), plain.for_volume()(surface), strict=True
    ):  # slices of a volume without a network of their own
        assert torch.equal(ours, expected)


def test_a_batch_of_grey_and_coloured_images_equals_them_one_by_one(mixed: MedzsadMini) -> None:
    images = torch.cat(pictures())
    whole = mixed(images)
    for index, image in enumerate(images):
        for ours, expected in zip(whole, mixed(image[None]), strict=True):
            torch.testing.assert_close(ours[index], expected[0], atol=1e-5, rtol=1e-4)


def test_the_encoder_runs_once_for_all(mixed: MedzsadMini, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    encoder = mixed.colour_network.encoder
    monkeypatch.setattr(encoder, "forward", lambda x, run=encoder.forward: calls.append(len(x)) or run(x))
    mixed(pictures()[2])
    assert calls == [2]  # the image and its mirror image
    assert mixed.radiology_network.encoder is encoder


def test_they_come_back_from_a_checkpoint(mixed: MedzsadMini, tmp_path: Path) -> None:
    save_checkpoint(mixed.to_checkpoint(), tmp_path / "mini.safetensors")
    again = MedzsadMini.from_checkpoint(read_checkpoint(tmp_path / "mini.safetensors"))
    assert again.settings == mixed.settings
    assert again.settings["other_scores"] == SHARES
    for ours, expected in zip(again(pictures()[2]), mixed(pictures()[2]), strict=True):
        torch.testing.assert_close(ours, expected, atol=5e-3, rtol=0)


def test_a_graph_of_the_grey_network_holds_them(mixed: MedzsadMini) -> None:
    grey, colour = mixed.networks()
    assert grey.colour_network is None
    assert colour.opinions is None
    for ours, expected in zip(grey(pictures()[2]), mixed(pictures()[2]), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"colour": 0.5, "radiology": 0.5}, "below 1"),
        ({"colour": 0.0}, "above 0"),
        ({"colour": float("nan")}, "above 0"),
        ({"ultrasound": 0.2}, "not there: ultrasound"),
        (["colour"], "for each kind"),
        ({"colour": "much"}, "for each kind"),
    ],
)
def test_impossible_shares(shares: Any, message: str, plain: MedzsadMini) -> None:
    with pytest.raises(ValueError, match=message):
        detector_of_images(radiology=True, other_scores=shares)
    checkpoint = plain.to_checkpoint()
    checkpoint.settings["other_scores"] = shares
    with pytest.raises(ModelNotReady, match=message):  # of a user's file: one line
        MedzsadMini.from_checkpoint(checkpoint)


def test_they_need_the_encoder() -> None:
    with pytest.raises(ValueError, match="radiology goes with colour 'lite0'"):
        MedzsadMini(image_size=48, network=SMALL, colour=True, radiology=True)
    with pytest.raises(ValueError, match="not there: colour"):
        MedzsadMini(image_size=48, network=SMALL, other_scores={"colour": 0.2})


def test_the_mean_of_one_opinion_with_itself_is_it() -> None:
    network = ColourNetwork()
    opinions = Opinions({"colour": network}, {"colour": 0.3})
    values = torch.tensor([0.1, 0.5, 0.97])
    mean: Tensor = opinions.mean(values, [("colour", values)])
    torch.testing.assert_close(mean, values)
