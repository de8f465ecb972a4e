"""The towers taken apart must still be open_clip's."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medzsad.detectors.clip.backbone import FrozenCLIP
from medzsad.errors import ModelNotReady

custom_blocks = pytest.mark.skipif(
    "block_type" not in open_clip.CLIPVisionCfg.__dataclass_fields__, reason="open_clip 3 has these blocks"
)
TEXTS = ["a scan", "a damaged scan of something"]


def rebuild(reference: open_clip.CLIP, config: dict[str, Any], **options: Any) -> FrozenCLIP:
    return FrozenCLIP.build(config, reference.state_dict(), text=True, **options)


@torch.inference_mode()
def test_features_equal_open_clips(
    reference: open_clip.CLIP, tiny_config: dict[str, Any], images: Tensor
) -> None:
    clip = rebuild(reference, tiny_config)
    torch.testing.assert_close(
        clip.encode_image(images), reference.encode_image(images), rtol=1e-4, atol=1e-5
    )
    expected = reference.encode_text(open_clip.tokenize(TEXTS))
    torch.testing.assert_close(clip.encode_texts(TEXTS), expected, rtol=1e-4, atol=1e-5)
    outputs: list[Tensor] = []
    for block in reference.visual.transformer.resblocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    reference.encode_image(images)
    run = clip.run_blocks(clip.embed(images), layers=(1, 3))
    for layer, tokens in run.layers.items():
        torch.testing.assert_close(tokens, outputs[layer - 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "vision",
    [
        {"pool_type": "avg"},
        {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
        {"ls_init_value": 0.3},
        pytest.param({"block_type": "custom"}, marks=custom_blocks),
    ],
)
@torch.inference_mode()
def test_variants_of_vit_equal_open_clips(
    tiny_config: dict[str, Any], images: Tensor, vision: dict[str, Any]
) -> None:
    tiny_config["vision_cfg"] |= vision
    torch.manual_seed(1)
    theirs = open_clip.CustomTextCLIP(**tiny_config).eval()
    ours = FrozenCLIP.build(tiny_config, theirs.state_dict())
    torch.testing.assert_close(ours.encode_image(images), theirs.encode_image(images), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_quick_gelu_is_as_asked(
    reference: open_clip.CLIP, tiny_config: dict[str, Any], images: Tensor
) -> None:
    quick = open_clip.CLIP(**tiny_config, quick_gelu=True).eval()
    quick.load_state_dict(reference.state_dict())
    clip = rebuild(reference, tiny_config, quick_gelu=True)
    torch.testing.assert_close(clip.encode_image(images), quick.encode_image(images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(clip.encode_image(images), reference.encode_image(images), rtol=1e-3)
    assert rebuild(reference, tiny_config | {"quick_gelu": True}).quick_gelu
    assert not rebuild(reference, tiny_config).quick_gelu


def test_image_tower_alone_is_the_same_tower(tiny_config: dict[str, Any]) -> None:
    alone, both = FrozenCLIP.build(tiny_config, None), FrozenCLIP.build(tiny_config, None, text=True)
    assert alone.text is None
    assert not any(name.startswith("text") for name in alone.state_dict())
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, both.state_dict()[name]), name
    assert alone.fingerprint() != FrozenCLIP.build(tiny_config, None, seed=1).fingerprint()
    both.drop_text_tower()
    with pytest.raises(ModelNotReady, match="text tower"):
        both.encode_texts(TEXTS)


def test_random_weights_leave_the_global_generator_alone(tiny_config: dict[str, Any]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    FrozenCLIP.build(tiny_config, None)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_position_embedding_is_resized_once_per_size(tiny_config: dict[str, Any], mode: str) -> None:
    clip = FrozenCLIP.build(tiny_config, None, position_mode=mode)
    assert clip.position_embedding((4, 4)) is clip.visual.positional_embedding
    with torch.inference_mode():
        resized = clip.position_embedding((5, 3))
    square = clip.visual.positional_embedding[1:].T.reshape(1, 128, 4, 4)
    expected = F.interpolate(square, (5, 3), mode=mode, align_corners=False).flatten(2)[0].T
    torch.testing.assert_close(resized[1:], expected)
    assert torch.equal(resized[0], clip.visual.positional_embedding[0])
    assert clip.position_embedding((5, 3)) is resized
    assert not resized.is_inference()
    clip.load_state_dict(FrozenCLIP.build(tiny_config, None, seed=1).state_dict())
    assert not torch.equal(clip.position_embedding((5, 3)), resized)


def test_sizes_that_are_no_multiple_of_the_patch_are_refused(tiny_config: dict[str, Any]) -> None:
    clip = FrozenCLIP.build(tiny_config, None)
    assert clip.run_blocks(clip.embed(torch.zeros(1, 3, 28, 70))).tokens.shape == (1, 11, 128)
    with pytest.raises(ValueError, match="patch size"):
        clip.embed(torch.zeros(1, 3, 60, 56))


@torch.inference_mode()
def test_vv_path_starts_from_the_shared_tokens_and_leaves_the_ordinary_path_alone(
    tiny_config: dict[str, Any], images: Tensor
) -> None:
    clip = FrozenCLIP.build(tiny_config, None)
    tokens = clip.embed(images)
    plain = clip.run_blocks(tokens, layers=(1, 2, 3, 4))
    dual = clip.run_blocks(tokens, layers=(1, 2, 3, 4), vv_start=3)
    torch.testing.assert_close(dual.tokens, plain.tokens)
    for layer in (1, 2):
        assert torch.equal(dual.layers[layer], plain.layers[layer])
    for layer in (3, 4):
        assert not torch.allclose(dual.layers[layer], plain.layers[layer])
    scaled = clip.run_blocks(tokens, layers=(3, 4), vv_start=3, vv_head_scales={4: torch.zeros(2)})
    bias = clip.visual.transformer.resblocks[3].attn.out_proj.bias
    torch.testing.assert_close(scaled.layers[4], dual.layers[3] + bias)
    torch.testing.assert_close(scaled.tokens, dual.tokens)


@torch.inference_mode()
def test_hooks_can_append_replace_and_cut_tokens(tiny_config: dict[str, Any], images: Tensor) -> None:
    clip = FrozenCLIP.build(tiny_config, None, text=True)
    seen: list[tuple[int, int]] = []

    def hook(block: int, tokens: Tensor) -> Tensor:
        extra = torch.full((len(tokens), 5, tokens.shape[-1]), float(block))
        tokens = torch.cat([tokens if block == 0 else tokens[:, :-5], extra], 1)
        seen.append((block, tokens.shape[1]))
        return tokens

    run = clip.run_blocks(clip.embed(images), layers=(2,), before_block=hook)
    assert seen == [(block, 22) for block in range(4)]
    assert run.layers[2].shape == (2, 22, 128)
    assert clip.class_feature(run.tokens[:, :17]).shape == (2, 32)
    windows = clip.embed(images)[:, [0, 1, 2, 5, 6]]
    assert clip.class_feature(clip.run_blocks(windows).tokens).shape == (2, 32)


def test_gradients_flow_through_frozen_towers(tiny_config: dict[str, Any], images: Tensor) -> None:
    clip = FrozenCLIP.build(tiny_config, None, text=True)
    assert not any(parameter.requires_grad for parameter in clip.parameters())
    with torch.inference_mode():
        clip.embed(torch.zeros(1, 3, 70, 70))
    scales = {3: torch.ones(2, requires_grad=True), 4: torch.ones(2, requires_grad=True)}
    run = clip.run_blocks(
        clip.embed(F.interpolate(images, (70, 70))),
        layers=(4,),
        vv_start=3,
        head_scales=scales,
        vv_head_scales=scales,
    )
    clip.project(run.layers[4]).square().sum().backward()
    assert all(scale.grad.abs().min() > 0 for scale in scales.values())
    embeddings = torch.randn(2, 77, 64, requires_grad=True)
    clip.encode_text(embeddings, torch.tensor([3, 4])).sum().backward()
    assert embeddings.grad[0, :4].abs().min() > 0
    assert embeddings.grad[0, 4:].abs().max() == 0  # causal: what comes after the end is not seen


@pytest.mark.parametrize("vv_start", [None, 3])
@torch.inference_mode()
def test_the_class_token_alone_is_the_same_and_spares_the_last_block(
    tiny_config: dict[str, Any], images: Tensor, vv_start: int | None
) -> None:
    clip = FrozenCLIP.build(tiny_config, None)
    embedded = clip.embed(images)
    scales = {4: torch.tensor([0.5, 1.5])}
    options = {"layers": (2,) if vv_start is None else (2, 4), "vv_start": vv_start, "head_scales": scales}
    seen: list[int] = []
    clip.visual.transformer.resblocks[3].mlp.register_forward_hook(
        lambda module, inputs, output: seen.append(output.shape[1])
    )
    whole, spared = (clip.run_blocks(embedded, **options, class_only=only) for only in (False, True))
    assert seen == [17, 1]
    torch.testing.assert_close(spared.tokens, whole.tokens[:, :1], rtol=1e-5, atol=1e-5)
    for layer, tokens in whole.layers.items():
        torch.testing.assert_close(spared.layers[layer], tokens, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_all_tokens_are_computed_where_they_are_read(tiny_config: dict[str, Any], images: Tensor) -> None:
    clip = FrozenCLIP.build(tiny_config, None)
    run = clip.run_blocks(clip.embed(images), layers=(4,), class_only=True)
    assert run.tokens.shape == run.layers[4].shape == (2, 17, 128)
    assert clip.run_blocks(clip.embed(images), span=(1, 3), class_only=True).tokens.shape == (2, 17, 128)
    tiny_config["vision_cfg"]["pool_type"] = "avg"
    pooling = FrozenCLIP.build(tiny_config, None)
    assert pooling.run_blocks(pooling.embed(images), class_only=True).tokens.shape == (2, 17, 128)


def test_bf16_autocast_keeps_the_residual_stream_exact(tiny_config: dict[str, Any], images: Tensor) -> None:
    clip = FrozenCLIP.build(tiny_config, None)
    exact = clip.encode_image(images)
    with torch.autocast("cpu", torch.bfloat16):
        run = clip.run_blocks(clip.embed(images), layers=(4,), vv_start=3)
        rough = clip.class_feature(run.tokens)
    assert run.tokens.dtype == run.layers[4].dtype == torch.float32
    assert F.cosine_similarity(rough.float(), exact).min() > 0.999


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ViT-B-16-SigLIP", "not open_clip's own ViT"),
        ("RN50", "not open_clip's own ViT"),
        ("coca_ViT-B-32", "pool by attention"),
        ("ViT-Z-99", "unknown CLIP model"),
        ({"embed_dim": 8}, "lacks vision_cfg"),
        ({"embed_dim": 32, "vision_cfg": {"width": 64, "leyers": 2}}, "not a usable model configuration"),
        pytest.param(
            {
                "embed_dim": 32,
                "vision_cfg": {"layers": 1, "width": 64, "image_size": 28, "patch_size": 14, "qk_norm": True},
            },
            "plain ViT",
            marks=custom_blocks,
        ),
    ],
)
def test_models_that_cannot_be_used_say_so(model: str | dict[str, Any], message: str) -> None:
    with pytest.raises(ModelNotReady, match=message):
        FrozenCLIP.build(model, None)


def test_text_towers_that_cannot_be_used_say_so(tiny_config: dict[str, Any]) -> None:
    tiny_config["text_cfg"]["embed_cls"] = True
    assert FrozenCLIP.build(tiny_config, None).text is None
    with pytest.raises(ModelNotReady, match="class token"):
        FrozenCLIP.build(tiny_config, None, text=True)
    tiny_config["text_cfg"] = {"hf_model_name": "roberta-base"}
    with pytest.raises(ModelNotReady, match="Hugging Face"):
        FrozenCLIP.build(tiny_config, None, text=True)
