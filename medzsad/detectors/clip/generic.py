"""CLIPs with a timm ViT as image tower, as hubs offer them (BiomedCLIP, SigLIP), for training-free detectors.

The interface is the part of :class:`~medzsad.detectors.clip.backbone.FrozenCLIP`'s that those detectors use.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import open_clip
import torch
from torch import Tensor, nn

from medzsad.detectors.clip.backbone import TowerRun
from medzsad.detectors.clip.configuration import NO_TEXT
from medzsad.detectors.clip.pretrained import HINT, _first_line, _reachable
from medzsad.detectors.clip.towers import TimmImageTower
from medzsad.detectors.clip.weights import install, load_clip_state
from medzsad.errors import ModelNotReady

CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_HUB, _FOLDER = "hf-hub:", "local-dir:"
_TEXTS_AT_ONCE = 64


def is_generic(backbone: str | Mapping[str, Any]) -> TypeGuard[str]:
    """Whether ``backbone`` is of the form ``hf-hub:owner/name`` or ``local-dir:folder``."""
    return isinstance(backbone, str) and backbone.startswith((_HUB, _FOLDER))


class GenericCLIP(nn.Module):
    """Image tower (timm's VisionTransformer) and text tower of a CLIP that never trains. Use :meth:`build`.

    Attributes:
        name: as given, e.g. ``"hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"``.
        embed_dim: dimension D of the space that images and texts share.
        mean, std: the normalisation of images that the tower expects.
        quick_gelu: always False, as timm's towers are.
    """

    quick_gelu = False
    visual: TimmImageTower
    text: nn.Module | None

    def __init__(
        self,
        visual: TimmImageTower,
        text: nn.Module | None,
        *,
        name: str,
        embed_dim: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.visual = visual
        self.text = text
        self.name = name
        self.embed_dim = embed_dim
        self.mean = mean
        self.std = std
        self.rebuild: Callable[[], GenericCLIP] | None = None
        self.requires_grad_(False).eval()

    @classmethod
    def build(
        cls,
        name: str,
        weights: str | os.PathLike[str] | Mapping[str, Tensor] | None = None,
        *,
        text: bool = False,
    ) -> GenericCLIP:
        """Build the towers and load their weights, without unpickling code.

        Args:
            name: ``hf-hub:owner/name``, or ``local-dir:folder`` of a folder with the same files: the model's
                ``open_clip_config.json``, its weights, and for texts whatever its tokenizer needs.
            weights: a file or state dict instead of the weights found there.
            text: also build the text tower. Many need the package transformers.

        Raises:
            ModelNotReady: if files are missing or do not fit, or the towers are of another kind.
        """
        config = _read_config(name)
        model = copy.deepcopy(config["model_cfg"])
        vision, words = model["vision_cfg"], model["text_cfg"]
        if not vision.get("timm_model_name"):
            raise ModelNotReady(
                f"{name}: its image tower is open_clip's own; give open_clip's name of the model as the "
                "backbone, and the weights file as `clip_weights`"
            )
        vision["timm_model_pretrained"] = False
        if text:
            if "transformers" in _packages(words) and importlib.util.find_spec("transformers") is None:
                raise ModelNotReady(
                    f"{name}: its text tower needs the package transformers: pip install transformers"
                )
            words["hf_model_pretrained"] = False
            folder = Path(name.removeprefix(_FOLDER)).expanduser()
            if name.startswith(_FOLDER) and words.get("hf_model_name") and (folder / "config.json").is_file():
                words["hf_model_name"] = str(folder)
        try:
            with torch.random.fork_rng(devices=[]):
                clip = open_clip.CustomTextCLIP(
                    model["embed_dim"],
                    vision,
                    words if text else NO_TEXT,
                    quick_gelu=bool(model.get("quick_gelu", False)),
                )
        except (TypeError, ValueError, AssertionError, RuntimeError, OSError, KeyError) as error:
            raise ModelNotReady(f"{name}: cannot be built ({_first_line(error)})") from error
        _check_trunk(clip.visual, name)
        source = _find_file(name, WEIGHT_FILES) if weights is None else weights
        state = load_clip_state(source, model=None, text=text)
        # Text towers of older versions of transformers stored this counter; newer ones make it anew.
        state.tensors.pop("text.transformer.embeddings.position_ids", None)
        install(clip.visual, state.tensors, "visual.", state.origin, name)
        if text:
            install(clip.text, state.tensors, "text.", state.origin, name)
        images = config.get("preprocess_cfg", {})
        built = cls(
            clip.visual,
            clip.text if text else None,
            name=name,
            embed_dim=model["embed_dim"],
            mean=tuple(images.get("mean", open_clip.OPENAI_DATASET_MEAN)),
            std=tuple(images.get("std", open_clip.OPENAI_DATASET_STD)),
        )
        if not isinstance(weights, Mapping):  # tensors would be kept for it
            built.rebuild = partial(cls.build, name, weights, text=True)
        return built

    @property
    def depth(self) -> int:
        """Number of blocks of the image tower."""
        return len(self.visual.trunk.blocks)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        rows, columns = self.visual.trunk.patch_embed.patch_size
        return rows, columns

    def drop_text_tower(self) -> None:
        """Frees the text tower."""
        self.text = None

    def with_text_tower(self) -> GenericCLIP:
        """See :meth:`FrozenCLIP.with_text_tower`."""
        if self.text is not None:
            return self
        if self.rebuild is None:
            raise ModelNotReady(f"{self.name}: its text tower was dropped, and cannot be had again")
        return self.rebuild().to(next(self.visual.parameters()).device)

    def at_size(self, side: int) -> GenericCLIP:
        """Return this CLIP, which has one size.

        Raises:
            ValueError: as :meth:`grid`.
        """
        self.grid(torch.empty(1, 3, side, side))
        return self

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of images (B, 3, H, W).

        Raises:
            ValueError: if H and W are not the native size: position embeddings are not resized.
        """
        if tuple(images.shape[-2:]) != tuple(self.visual.image_size):
            raise ValueError(f"{self.name}: images must be of size {tuple(self.visual.image_size)}")
        rows, columns = self.visual.trunk.patch_embed.grid_size
        return rows, columns

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to the first block's tokens (B, prefix + patches, C)."""
        self.grid(images)
        trunk = self.visual.trunk
        # The residual stream stays float32 under autocast: only products of matrices are rounded.
        patches = trunk.patch_embed(images).to(images.dtype)
        return trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(patches)))

    def run_blocks(self, tokens: Tensor, *, class_only: bool = False) -> TowerRun:
        """Run the image tower's blocks on tokens (B, N, C), from :meth:`embed`; N may be fewer.

        ``class_only`` is there for :class:`FrozenCLIP`'s sake and ignored: towers of timm pool in many ways.
        """
        for block in self.visual.trunk.blocks:
            tokens = block(tokens)
        return TowerRun(tokens, {})

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) of the last block into the shared space (B, N, D), each pooled as if alone."""
        trunk = self.visual.trunk
        features = trunk.norm(tokens)
        if trunk.attn_pool is not None:
            features = trunk.attn_pool(features.flatten(0, 1)[:, None]).unflatten(0, tokens.shape[:2])
        return self.visual.head(trunk.head(trunk.head_drop(trunk.fc_norm(features))))

    def class_feature(self, tokens: Tensor) -> Tensor:
        """Return the image's feature (B, D) from the last block's tokens (B, N, C), as the tower pools.

        Not L2.
        """
        return self.visual.head(self.visual.trunk.forward_head(self.visual.trunk.norm(tokens)))

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Text features (P, D) by the model's own tokenizer, which cuts off texts that are too long; not L2.

        Raises:
            ModelNotReady: if there is no text tower, or its tokenizer's files are missing.
        """
        if self.text is None:
            raise ModelNotReady(f"{self.name}: built without its text tower, which texts need")
        try:
            tokens = open_clip.get_tokenizer(self.name)(texts)
        except (OSError, ValueError, ImportError) as error:
            raise ModelNotReady(f"{self.name}: its tokenizer cannot be had ({_first_line(error)})") from error
        tokens = tokens.to(next(self.text.parameters()).device)
        return torch.cat([self.text(part) for part in tokens.split(_TEXTS_AT_ONCE)])

    def fingerprint(self) -> tuple[float, ...]:
        """Averages that tell one set of weights from another, whatever precision they were stored in."""
        matrices = [p for p in self.visual.parameters() if p.ndim >= 2]
        chosen = (matrices[0], matrices[len(matrices) // 2], matrices[-1])
        return tuple(float(tensor.detach().float().abs().mean()) for tensor in chosen)


def _read_config(name: str) -> dict[str, Any]:
    path = _find_file(name, (CONFIG_FILE,))
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config["model_cfg"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelNotReady(f"{path}: not a readable {CONFIG_FILE}") from error
    if missing:
        raise ModelNotReady(f"{path}: lacks {', '.join(sorted(missing))}")
    return config


def _find_file(name: str, files: tuple[str, ...]) -> Path:
    """Return the first of ``files`` that the model called ``name`` has."""
    if name.startswith(_FOLDER):
        folder = Path(name.removeprefix(_FOLDER)).expanduser()
        found = [folder / file for file in files if (folder / file).is_file()]
        if not found:
            raise ModelNotReady(f"{folder}: holds no {' or '.join(files)}")
        return found[0]
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    repository = name.removeprefix(_HUB)
    for file in files:
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    reason = "downloads are switched off (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
    # Asked once and briefly: the hub's client would retry for most of a minute before it gave up.
    if not reason and not _reachable(constants.ENDPOINT):
        reason = f"{constants.ENDPOINT} cannot be reached"
    for file in () if reason else files:
        try:
            return Path(hf_hub_download(repository, file))
        except Exception as error:  # the client raises many kinds; each means "not from here"
            last = _first_line(error)
    hint = HINT if files == WEIGHT_FILES else f"get its files into a folder and name that as {_FOLDER}FOLDER"
    raise ModelNotReady(
        f"{name}: {' or '.join(files)} is not on this machine and could not be downloaded "
        f"({reason or last}): {hint}"
    )


def _packages(text_cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """Return optional packages that a text tower and its tokenizer need."""
    return ("transformers",) if text_cfg.get("hf_model_name") or text_cfg.get("hf_tokenizer_name") else ()


def _check_trunk(visual: nn.Module, name: str) -> None:
    """Raise ModelNotReady unless the steps above reproduce the image tower."""
    from timm.models.vision_transformer import VisionTransformer

    trunk = getattr(visual, "trunk", None)
    steps = ("forward_features", "forward_head", "forward", "pool", "_pos_embed")
    if not isinstance(trunk, VisionTransformer) or any(
        getattr(type(trunk), step) is not getattr(VisionTransformer, step) for step in steps
    ):
        raise ModelNotReady(f"{name}: its image tower is not timm's VisionTransformer")
    if trunk.attn_pool is None and trunk.global_pool not in ("token", "avg"):
        raise ModelNotReady(f"{name}: image towers with {trunk.global_pool!r} pooling are not supported")
    if getattr(trunk.attn_pool, "pos_embed", None) is not None:
        raise ModelNotReady(f"{name}: image towers that pool by position are not supported")
