"""What a request says that its scan shows, as far as the detectors; none of it needs MONAI Label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from medzsad.detectors.checkpoint import save_checkpoint
from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.detectors.zero_shot.plain_clip import PlainCLIP
from medzsad.detectors.zero_shot.settings import PlainCLIPSettings
from medzsad.errors import BadInput
from medzsad.integrations.monailabel.detector_pool import TOLD, DetectorPool
from medzsad.integrations.monailabel.models import OfferedModel
from medzsad.integrations.monailabel.parameters import InferParameters

SCAN = Path(__file__).parents[3] / "examples" / "head_phantom.nii.gz"
CLIP: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 64, "head_width": 32, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
MINI = OfferedModel("medzsad-mini", "medzsad-mini", "", "1")


@pytest.fixture
def model(tmp_path: Path) -> OfferedModel:
    """Plain CLIP, whose texts name what images show."""
    weights = tmp_path / "clip.safetensors"
    save_file(FrozenCLIP.build(CLIP, None, text=True).state_dict(), weights)
    detector = PlainCLIP.build(PlainCLIPSettings(backbone=CLIP, clip_weights=None), clip_weights=weights)
    save_checkpoint(detector.to_checkpoint(), tmp_path / "ours.safetensors")
    return OfferedModel("ours", str(tmp_path / "ours.safetensors"), "", "1", str(weights))


def test_a_request_names_an_organ_or_a_class() -> None:
    parsed = InferParameters.parse({"organ": "brain/mr", "class_name": "metal nut"})
    assert (parsed.organ, parsed.class_name) == ("brain/mr", "metal nut")
    choices = InferParameters.choices()
    assert "brain/mr" in choices["organ"]
    unchanged = InferParameters.parse(choices)  # as 3D Slicer sends them
    assert unchanged == InferParameters.parse({})
    assert unchanged.organ is unchanged.class_name is None
    for request, message in (({"organ": "tail"}, "unknown organ"), ({"class_name": "--"}, "no word")):
        with pytest.raises(BadInput, match=message):
            InferParameters.parse(request)


def test_the_answer_speaks_of_what_was_named(model: OfferedModel) -> None:
    pool = DetectorPool(device="cpu", precision="fp32")
    requests = ({}, {"class_name": "liver"}, {"organ": "brain/mr"})
    found = [pool.predict(model, SCAN, InferParameters.parse(one)) for one in requests]
    names = [one.settings["detector"]["class_name"] for one in found]
    assert names == ["object", "liver", "brain MRI"]
    assert len({one.score for one in found}) == 3
    assert pool.predict(model, SCAN, InferParameters()).score == found[0].score
    base, told = pool.detector(model), pool.detector(model, class_name="liver")
    assert told.clip is base.clip
    assert pool.detector(model, class_name="liver") is told
    for number in range(TOLD):
        pool.detector(model, class_name=f"number {number}")
    assert pool.detector(model, class_name="liver") is not told  # only so many are kept


def test_a_model_without_names_refuses_them() -> None:
    pool = DetectorPool(device="cpu", precision="fp32")
    for one in ({"class_name": "liver"}, {"organ": "brain"}):
        with pytest.raises(BadInput, match="leave organ and class_name out"):
            pool.predict(MINI, SCAN, InferParameters.parse(one))


def test_a_request_says_which_candidates_it_wants_and_where() -> None:
    asked = {"min_volume": "0.5", "max_candidates": 3, "roi": "Whole", "volume_rules": "off"}
    parsed = InferParameters.parse(asked)
    assert (parsed.min_volume, parsed.max_candidates) == (0.5, 3)
    assert (parsed.roi, parsed.volume_rules, parsed.all_candidates) == ("whole", "off", False)
    assert InferParameters.parse({"all_candidates": "true"}).all_candidates
    for wrong in ({"min_volume": "much"}, {"min_volume": -1}, {"roi": "liver"}, {"volume_rules": "maybe"}):
        with pytest.raises(BadInput):
            InferParameters.parse(wrong)
