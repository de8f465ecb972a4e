"""The losses, against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from medzsad.training.losses import BinaryDiceLoss, FocalLoss, ImageCrossEntropy

# Two images of 1x2 pixels: abnormal probabilities, and which pixels are abnormal.
ABNORMAL = torch.tensor([[[0.2, 0.9]], [[0.5, 0.6]]])
TARGET = torch.tensor([[[0, 1]], [[1, 0]]])
TRUE_CLASS = (0.8, 0.9, 0.5, 0.4)


def both(abnormal: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 - abnormal, abnormal], 1)


def focal(q: float, gamma: float = 2) -> float:
    return -((1 - q) ** gamma) * math.log(q)


def test_focal_of_four_pixels() -> None:
    # 0.04 * 0.2231 + 0.01 * 0.1054 + 0.25 * 0.6931 + 0.36 * 0.9163, over 4
    loss = FocalLoss(smooth=0)(both(ABNORMAL), TARGET)
    assert loss.item() == pytest.approx(0.128283, abs=1e-6)
    assert loss.item() == pytest.approx(sum(map(focal, TRUE_CLASS)) / 4, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_focal_smooths_where_the_published_code_does(gamma: float) -> None:
    smooth = 0.01  # large enough to see
    expected = [focal((1 - smooth) * p + smooth * (1 - p) + smooth, gamma) for p in TRUE_CLASS]
    loss = FocalLoss(gamma, smooth=smooth)(both(ABNORMAL), TARGET)
    assert loss.item() == pytest.approx(sum(expected) / 4, rel=1e-5)


def test_focal_without_focus_is_cross_entropy() -> None:
    logits = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    target = (logits[:, 0] > 0.3).long()
    ours = FocalLoss(0, smooth=0)(logits.softmax(1), target)
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(logits, target))


def test_focal_weights_classes() -> None:
    q = dict(zip("abcd", TRUE_CLASS, strict=True))
    # A quarter for normal (pixels a and d), three quarters for abnormal (b and c).
    expected = (0.25 * (focal(q["a"]) + focal(q["d"])) + 0.75 * (focal(q["b"]) + focal(q["c"]))) / 4
    loss = FocalLoss(alpha=(1, 3), smooth=0)(both(ABNORMAL), TARGET)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_balanced_focal_gives_both_classes_the_same_weight() -> None:
    abnormal = torch.tensor([[0.3, 0.3, 0.3, 0.6]])
    target = torch.tensor([[0, 0, 0, 1]])
    loss = FocalLoss(alpha="balanced", smooth=0)(both(abnormal), target)
    assert loss.item() == pytest.approx((focal(0.7) + focal(0.6)) / 2, rel=1e-5)
    alone = FocalLoss(alpha="balanced", smooth=0)(both(abnormal), torch.zeros_like(target))
    assert alone.item() == pytest.approx((3 * focal(0.7) + focal(0.4)) / 8, rel=1e-5)


def test_dice_of_two_images() -> None:
    # (2 * 0.9 + 1) / (1.1 + 1 + 1) and (2 * 0.5 + 1) / (1.1 + 1 + 1)
    loss = BinaryDiceLoss()(ABNORMAL, TARGET)
    assert loss.item() == pytest.approx(1 - (2.8 / 3.1 + 2.0 / 3.1) / 2, rel=1e-6)
    assert loss.item() == pytest.approx(0.225806, abs=1e-6)


def test_dice_of_rows() -> None:
    probability = torch.tensor([[[0.2, 0.9], [0.5, 0.0]], [[0.5, 0.6], [0.1, 0.3]]])
    target = torch.tensor([[[0, 1], [0, 0]], [[1, 0], [1, 1]]])
    # (2 * 0.9 + 1) / (1.1 + 1 + 1) and 1 / (0.5 + 1) of the first image,
    # (2 * 0.5 + 1) / (1.1 + 1 + 1) and (2 * 0.4 + 1) / (0.4 + 2 + 1) of the second.
    rows = (2.8 / 3.1, 1 / 1.5, 2.0 / 3.1, 1.8 / 3.4)
    loss = BinaryDiceLoss(over="rows")(probability, target)
    assert loss.item() == pytest.approx(1 - sum(rows) / 4, rel=1e-6)
    alone = [BinaryDiceLoss(over="rows")(probability[i], target[i]) for i in (0, 1)]
    torch.testing.assert_close(loss, torch.stack(alone).mean())  # a batch is the mean of its images
    single = BinaryDiceLoss(over="rows")(ABNORMAL, TARGET)
    torch.testing.assert_close(single, BinaryDiceLoss()(ABNORMAL, TARGET))  # images of one row


def test_rows_punish_false_alarms_in_normal_images_more() -> None:
    probability = torch.full((1, 64, 64), 0.5, requires_grad=True)
    gradients = [
        torch.autograd.grad(BinaryDiceLoss(over=over)(probability, torch.zeros(1, 64, 64)), probability)[0]
        for over in ("rows", "image")
    ]
    # 1 / 64 / (64 / 2 + 1)^2 against 1 / (64^2 / 2 + 1)^2
    assert (gradients[0] / gradients[1]).mean().item() == pytest.approx(2049**2 / 64 / 33**2, rel=1e-3)


def test_dice_agrees_on_nothing() -> None:
    empty = torch.zeros(2, 3, 3)
    assert BinaryDiceLoss()(empty, empty).item() == 0
    assert BinaryDiceLoss()(empty + 1, empty).item() == pytest.approx(0.9)  # 1 - 1 / 10


def test_image_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [2.0, 2.0]])
    loss = ImageCrossEntropy()(logits, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, rel=1e-6)


def test_certain_and_wrong_pixels_have_finite_gradients() -> None:
    for smooth in (0.0, 1e-5):
        abnormal = torch.tensor([[0.0, 1.0, 1.0 + 1e-6, 0.0]], requires_grad=True)
        target = torch.tensor([[0, 1, 1, 1]])
        loss = FocalLoss(smooth=smooth)(both(abnormal), target) + BinaryDiceLoss()(abnormal, target)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(abnormal.grad).all()


def test_half_precision_is_computed_in_full() -> None:
    generator = torch.Generator().manual_seed(1)
    abnormal = torch.rand(2, 600, 600, generator=generator).bfloat16()  # sums beyond what bf16 can count
    target = torch.rand(2, 600, 600, generator=generator) > 0.9
    with torch.autocast("cpu", torch.bfloat16):
        dice = BinaryDiceLoss()(abnormal, target)
        focal_loss = FocalLoss()(both(abnormal), target)
        entropy = ImageCrossEntropy()(torch.tensor([[0.1, 0.2]]).bfloat16(), torch.tensor([1]))
    assert dice.dtype == focal_loss.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(dice, BinaryDiceLoss()(abnormal.float(), target), rtol=0, atol=0)
    torch.testing.assert_close(focal_loss, FocalLoss()(both(abnormal).float(), target), rtol=0, atol=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"gamma": 0.5},
        {"gamma": -1},
        {"smooth": 0.5},
        {"alpha": "other"},
        {"alpha": (0, 0)},
        {"alpha": (1, -1)},
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|neither"):
        FocalLoss(**arguments)


def test_shapes_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="go together"):
        FocalLoss()(both(ABNORMAL), TARGET[:, :, :1])
    with pytest.raises(ValueError, match="differ"):
        BinaryDiceLoss()(ABNORMAL, TARGET[:, 0])
    with pytest.raises(ValueError, match="one of image, rows, not 'columns'"):
        BinaryDiceLoss(over="columns")
