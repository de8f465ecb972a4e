"""The objectives and their losses: what they sum up, what they train, what they leave alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.adaclip.scoring import layer_probability_maps
from medzsad.detectors.headclip.model import HeadCLIP
from medzsad.detectors.references import Brightness
from medzsad.errors import BadInput, ModelNotReady
from medzsad.storage.hashing import hash_tensors
from medzsad.training.objectives import BinaryDiceLoss, FocalLoss, ImageCrossEntropy, LossWeights, Objective

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


METHODS = ("headclip", "anomalyclip", "adaclip")
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("headclip", {}),
    ("headclip", {"head_paths": "patch"}),
    ("headclip", {"head_paths": "image", "head_parametrisation": "softmax"}),
    ("headclip", {"head_layers": (4,), "patch_layers": (1, 3, 4)}),
    ("anomalyclip", {}),
    ("adaclip", {}),
    ("adaclip", {"prompt_type": "S"}),
    ("adaclip", {"prompt_branch": "L"}),
]
UNUSED = "text_prompter.static_prompts.0"  # as in the published code

Build = Callable[..., HeadCLIP | AdaCLIP]
Batch = dict[str, Any]


def pixel_losses(maps: list[Tensor], mask: Tensor, over: str = "image") -> dict[str, Tensor]:
    focal, dice = FocalLoss(), BinaryDiceLoss(over=over)
    return {
        "focal": sum(focal(p, mask) for p in maps),
        "dice_abnormal": sum(dice(p[:, 1], mask) for p in maps),
        "dice_normal": sum(dice(p[:, 0], 1 - mask) for p in maps),
    }


@pytest.mark.parametrize("method", ["headclip", "anomalyclip"])
def test_the_loss_of_prompts_and_heads(build_detector: Build, batch: Batch, method: str) -> None:
    detector = build_detector(method)
    found = Objective(detector)(batch)
    comparison = detector.compare(batch["image"])
    image = F.cross_entropy(comparison.image_logits, batch["label"])
    maps = [
        F.interpolate(p, (70, 70), mode="bilinear", align_corners=False)
        for p in comparison.patch_probabilities.values()
    ]
    assert len(maps) == 2
    pixel = pixel_losses(maps, batch["mask"])
    torch.testing.assert_close(found["loss"], image + 4 * sum(pixel.values()))
    for name, value in {**pixel, "image_loss": image}.items():
        torch.testing.assert_close(found[name], value.detach())
        assert not found[name].requires_grad


@pytest.mark.parametrize("dice", ["rows", "image"])
def test_the_loss_of_adaclip(small_adaclip: AdaCLIP, batch: Batch, dice: Literal["rows", "image"]) -> None:
    weights = LossWeights(pixel=1, dice=dice)
    assert (dice == "rows") == (weights == LossWeights.of_method("adaclip"))
    found = Objective(small_adaclip, None if dice == "rows" else weights)(batch)
    comparison = small_adaclip.compare(batch["image"])
    image = FocalLoss()(comparison.image_logits.softmax(-1), batch["label"])
    maps = list(layer_probability_maps(comparison, (70, 70)).values())
    pixel = pixel_losses(maps, batch["mask"], dice)
    torch.testing.assert_close(found["loss"], image + sum(pixel.values()))
    assert found["loss"].dtype == torch.float32


def test_weights_choose_and_scale(small_headclip: HeadCLIP, batch: Batch) -> None:
    plain = Objective(small_headclip)(batch)
    weights = LossWeights(image=2, pixel=3, focal=5, dice_abnormal=0, dice_normal=0.5)
    weighted = Objective(small_headclip, weights)(batch)
    expected = 2 * plain["image_loss"] + 3 * (5 * plain["focal"] + 0.5 * plain["dice_normal"])
    torch.testing.assert_close(weighted["loss"].detach(), expected)


@pytest.mark.parametrize(
    "changes", [{"image": -1}, {"focal": float("nan")}, {"image": 0, "pixel": 0}, {"dice": "pixel"}]
)
def test_impossible_weights_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"(?i)loss ?weights?"):
        LossWeights(**changes)


def test_a_method_without_training_says_so() -> None:
    with pytest.raises(ModelNotReady, match="'brightness' has no training"):
        Objective(Brightness())


@pytest.mark.parametrize("method", METHODS)
def test_images_without_masks_count_by_their_label(build_detector: Build, batch: Batch, method: str) -> None:
    objective = Objective(build_detector(method))
    with_both = objective(batch)
    only_second = objective({**batch, "has_mask": torch.tensor([False, True])})
    second = objective({name: value[1:] for name, value in batch.items()})
    torch.testing.assert_close(only_second["image_loss"], with_both["image_loss"])
    for name in ("focal", "dice_abnormal", "dice_normal"):
        torch.testing.assert_close(only_second[name], second[name], rtol=1e-4, atol=1e-6)
    for none in ({"has_mask": torch.tensor([False, False])}, {"mask": None}):
        unmasked = objective({**batch, **none})
        assert unmasked["focal"] == unmasked["dice_abnormal"] == unmasked["dice_normal"] == 0
        torch.testing.assert_close(unmasked["loss"].detach(), unmasked["image_loss"])


def test_masks_may_be_finer_than_the_images(small_headclip: HeadCLIP, batch: Batch) -> None:
    fine = batch["mask"].repeat_interleave(2, 1).repeat_interleave(2, 2).bool()
    found = Objective(small_headclip)({**batch, "mask": fine})
    torch.testing.assert_close(found["focal"], Objective(small_headclip)(batch)["focal"], rtol=0.01, atol=0)


@pytest.mark.parametrize(("method", "changes"), VARIANTS)
def test_small_parts_train_and_nothing_else_changes(
    build_detector: Build, batch: Batch, method: str, changes: dict[str, Any]
) -> None:
    detector = build_detector(method, **changes).train()
    learned = {n: p for n, p in detector.named_parameters() if p.requires_grad}
    assert {id(p) for p in learned.values()} == {id(p) for p in detector.trainable_parameters()}
    before = {name: parameter.detach().clone() for name, parameter in learned.items()}
    fixed = frozen_hash(detector)
    optimiser = torch.optim.Adam(detector.trainable_parameters(), lr=1e-3)
    objective, losses = Objective(detector), []
    for _ in range(3):
        optimiser.zero_grad()
        loss = objective(batch)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert frozen_hash(detector) == fixed
    assert losses[-1] < losses[0]
    for name, parameter in learned.items():
        assert torch.equal(parameter, before[name]) == name.endswith(UNUSED), name
    for name, parameter in detector.named_parameters():
        if name not in learned:
            assert parameter.grad is None, name


def frozen_hash(detector: HeadCLIP | AdaCLIP) -> str:
    learned = {n for n, p in detector.named_parameters() if p.requires_grad}
    fixed = {n: t for n, t in detector.state_dict().items() if n not in learned}
    assert any(name.startswith("clip.visual") for name in fixed)
    assert any(name.startswith("clip.text") for name in fixed)
    return hash_tensors(fixed)


@pytest.mark.parametrize(("method", "changes"), VARIANTS)
def test_gradients_equal_those_with_a_graph_everywhere(
    build_detector: Build, batch: Batch, method: str, changes: dict[str, Any]
) -> None:
    gradients = []
    for everywhere in (False, True):
        detector = build_detector(method, **changes)
        image = batch["image"].clone().requires_grad_(everywhere)
        Objective(detector)({**batch, "image": image})["loss"].backward()
        gradients.append({n: p.grad for n, p in detector.named_parameters() if p.requires_grad})
        if everywhere:
            assert image.grad.abs().sum() > 0  # the graph did reach the image
    for name, gradient in gradients[0].items():
        if not name.endswith(UNUSED):
            torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("method", "changes", "first"),
    [
        ("headclip", {}, 2),
        ("headclip", {"head_layers": (4,)}, 4),
        ("headclip", {"head_paths": "patch"}, None),  # the V-V path alone has a graph
        ("anomalyclip", {}, None),
        ("adaclip", {}, 1),
        ("adaclip", {"prompt_branch": "L"}, None),
    ],
)
def test_no_graph_before_the_first_adapted_layer(
    build_detector: Build, batch: Batch, method: str, changes: dict[str, Any], first: int | None
) -> None:
    detector = build_detector(method, **changes)
    seen: list[tuple[int, bool]] = []
    for layer, block in enumerate(detector.clip.visual.transformer.resblocks, 1):
        block.mlp.register_forward_pre_hook(
            lambda module, inputs, layer=layer: seen.append((layer, inputs[0].requires_grad))
        )
    Objective(detector)(batch)["loss"].backward()
    with_graph = {layer for layer, flows in seen if flows}
    assert with_graph == (set() if first is None else set(range(first, 5)))


def saved_bytes(detector: HeadCLIP | AdaCLIP, batch: Batch) -> int:
    """Bytes of activations that autograd keeps for the backward pass, each storage once."""
    own = {t.untyped_storage().data_ptr() for t in detector.state_dict().values()}
    kept: dict[int, int] = {}
    held: list[Tensor] = []  # so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        Objective(detector)(batch)
    return sum(kept.values())


def test_fewer_trained_layers_keep_less_in_memory(build_detector: Build, batch: Batch) -> None:
    batch = {**batch, "image": batch["image"].repeat(4, 1, 1, 1), "mask": batch["mask"].repeat(4, 1, 1)}
    batch["label"] = batch["label"].repeat(4)
    everything = saved_bytes(build_detector("headclip"), batch)
    last_layer = saved_bytes(build_detector("headclip", head_layers=(4,)), batch)
    texts_alone = saved_bytes(build_detector("anomalyclip"), batch)
    with_image = {**batch, "image": batch["image"].clone().requires_grad_(True)}
    naive = saved_bytes(build_detector("anomalyclip"), with_image)
    assert texts_alone < last_layer < 0.7 * everything
    assert texts_alone < 0.5 * naive


@pytest.mark.parametrize(("method", "changes"), VARIANTS)
def test_gradient_checkpointing_gives_the_same_gradients(
    build_detector: Build, batch: Batch, method: str, changes: dict[str, Any]
) -> None:
    results = []
    for checkpointing in (False, True):
        detector = build_detector(method, **changes)
        detector.clip.checkpointing = checkpointing
        loss = Objective(detector)(batch)["loss"]
        loss.backward()
        results.append((loss, {n: p.grad for n, p in detector.named_parameters() if p.requires_grad}))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=0)
    for name, gradient in results[0][1].items():
        if not name.endswith(UNUSED):
            torch.testing.assert_close(gradient, results[1][1][name], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("method", ["headclip", "adaclip"])
def test_gradient_checkpointing_keeps_less_in_memory(
    build_detector: Build, batch: Batch, method: str
) -> None:
    detector = build_detector(method)
    plain = saved_bytes(detector, batch)
    detector.clip.checkpointing = True
    # Beside what hooks see, it holds every block's input: both paths of the image tower, 26 tokens and
    # prompts of 128, and the texts.
    texts = 2 * 77 if method == "headclip" else 2 * 44 * 20
    inputs = 4 * 4 * (2 * 2 * (26 + 2) * 128 + texts * 64)
    assert saved_bytes(detector, batch) + inputs < 0.6 * plain


def test_each_image_has_the_texts_of_its_class(small_adaclip: AdaCLIP, batch: Batch) -> None:
    def logits(names: list[str] | None) -> Tensor:
        return small_adaclip.compare(batch["image"], class_names=names).class_logits

    own, mixed = logits(None), logits(["brain", "object"])
    torch.testing.assert_close(mixed[1], own[1], rtol=1e-4, atol=1e-4)
    small_adaclip.class_name = "brain"
    torch.testing.assert_close(mixed[0], logits(None)[0], rtol=1e-4, atol=1e-4)
    assert (mixed[0] - own[0]).abs().max() > 1e-3
    loss = Objective(small_adaclip)({**batch, "class_name": ["brain", "object"]})["loss"]
    loss.backward()
    assert small_adaclip.adapter.text_prompter.static_prompts[1].grad.abs().sum() > 0


@pytest.mark.parametrize(("kind", "branch"), [("S", "L"), ("S", "V"), ("SD", "V"), ("D", "L")])
def test_every_kind_of_prompt_takes_classes(
    build_detector: Build, batch: Batch, kind: str, branch: str
) -> None:
    detector = build_detector("adaclip", prompt_type=kind, prompt_branch=branch)
    objective = Objective(detector)
    mixed = objective({**batch, "class_name": ["brain", "brain"]})
    detector.class_name = "brain"
    torch.testing.assert_close(mixed["loss"], objective(batch)["loss"], rtol=1e-4, atol=1e-5)
