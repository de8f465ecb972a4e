"""A frozen CLIP of open_clip, taken apart into the steps that zero-shot anomaly detectors are built from."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medzsad.detectors.base import shallow_copy
from medzsad.detectors.clip.attention import dual_block, plain_block
from medzsad.detectors.clip.configuration import (
    NO_TEXT,
    check_image_tower,
    check_text_tower,
    every_tag_needs_quick_gelu,
    read_configuration,
)
from medzsad.detectors.clip.towers import Block, ImageTower, TextTower
from medzsad.detectors.clip.weights import install, load_clip_state
from medzsad.errors import ModelNotReady

BlockHook = Callable[[int, Tensor], Tensor]
"""Given a block's 0-based index and its input tokens (B, N, C), returns the tokens it shall see instead."""


class TowerRun(NamedTuple):
    """What the image tower's blocks gave.

    Attributes:
        tokens: (B, N, C) of the last block, ordinary path; (B, 1, C) if the class token alone was asked for.
        layers: (B, N, C) after each requested layer, of the V-V path where it has begun, else ordinary.
        path: (B, N, C) of the V-V path; None if it has not begun.
    """

    tokens: Tensor
    layers: dict[int, Tensor]
    path: Tensor | None = None


class FrozenCLIP(nn.Module):
    """Image and text tower of a CLIP whose parameters never train, though gradients flow through them.

    Use :meth:`build`. An image goes :meth:`embed` -> :meth:`run_blocks` -> :meth:`class_feature` and
    :meth:`project`; a text goes :meth:`tokenize` -> :meth:`embed_text` -> :meth:`encode_text`.
    Layers are numbered from 1, as in the papers; block hooks get 0-based block indices.

    Attributes:
        name: open_clip's model name, or ``"custom"``.
        quick_gelu: whether the towers use QuickGELU.
        position_mode: ``"bilinear"`` (AnomalyCLIP) or ``"bicubic"``, for images not of the native size.
        position_antialias: resize the position embedding as open_clip does when it loads weights.
        causal_text: whether no text token sees those after it.
        checkpointing: gradient checkpointing: of a block that gradients flow through only the input is kept,
            and the block runs again when they do. Less memory, more time, the same gradients. Off at first.
    """

    visual: ImageTower
    text: TextTower | None

    def __init__(
        self,
        visual: ImageTower,
        text: TextTower | None,
        *,
        name: str = "custom",
        quick_gelu: bool = False,
        position_mode: str = "bilinear",
        position_antialias: bool = False,
    ) -> None:
        super().__init__()
        self.visual = visual
        self.text = text
        self.name = name
        self.quick_gelu = quick_gelu
        self.position_mode = position_mode
        self.position_antialias = position_antialias
        self.checkpointing = False
        self._kept: dict[Hashable, Tensor] = {}
        self.rebuild: Callable[[], FrozenCLIP] | None = None
        self.causal_text = getattr(text, "attn_mask", None) is not None
        if text is not None:
            text.attn_mask = None  # not needed by our attention, and without storage if built on "meta"
        self.requires_grad_(False)

    @classmethod
    def build(
        cls,
        model: str | Mapping[str, Any],
        weights: str | os.PathLike[str] | Mapping[str, Tensor] | None,
        *,
        quick_gelu: bool | None = None,
        text: bool = False,
        position_mode: str = "bilinear",
        position_antialias: bool = False,
        seed: int = 0,
    ) -> FrozenCLIP:
        """Build the towers and load their weights.

        Args:
            model: open_clip's model name, or its configuration ``{embed_dim, vision_cfg, text_cfg}``.
            weights: see :func:`~medzsad.detectors.clip.weights.load_clip_state`; None for random weights.
            quick_gelu: the activation; None takes what the weights were trained with, as far as that is known
                (OpenAI's: QuickGELU), else what the configuration says.
            text: also build the text tower.
            position_mode, position_antialias: see the class.
            seed: of random weights.

        Raises:
            ModelNotReady: if the model is not a ViT of the kind supported, or the weights do not fit.
        """
        if position_mode not in ("bilinear", "bicubic"):
            raise ModelNotReady(f"position_mode {position_mode!r} is neither 'bilinear' nor 'bicubic'")
        name, config = read_configuration(model, text=text)
        known = name if isinstance(model, str) else None
        state = None if weights is None else load_clip_state(weights, model=known, text=text)
        if quick_gelu is None:
            said = None if state is None else state.quick_gelu
            if said is None and state is not None and known is not None:
                said = every_tag_needs_quick_gelu(known) or None
            quick_gelu = bool(config.get("quick_gelu", False)) if said is None else said
        arguments = {
            "embed_dim": config["embed_dim"],
            "vision_cfg": config["vision_cfg"],
            "text_cfg": config["text_cfg"] if text else NO_TEXT,
            "quick_gelu": quick_gelu,
        }
        try:
            if state is None:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    clip = open_clip.CustomTextCLIP(**arguments)
            else:
                # Without storage: the loaded tensors become the parameters, nothing is allocated twice.
                with torch.device("meta"):
                    clip = open_clip.CustomTextCLIP(**arguments)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise ModelNotReady(f"{name}: not a usable model configuration ({error})") from error
        check_image_tower(clip.visual, name)
        if text:
            check_text_tower(clip.text, name)
        if state is not None:
            install(clip.visual, state.tensors, "visual.", state.origin, name)
            if text:
                install(clip.text, state.tensors, "text.", state.origin, name)
        built = cls(
            clip.visual,
            clip.text if text else None,
            name=name,
            quick_gelu=quick_gelu,
            position_mode=position_mode,
            position_antialias=position_antialias,
        )
        if not isinstance(weights, Mapping):  # tensors would be kept for it
            built.rebuild = partial(cls.build, model, weights, quick_gelu=quick_gelu, text=True, seed=seed)
        return built

    @property
    def depth(self) -> int:
        """Number of blocks of the image tower."""
        return len(self.visual.transformer.resblocks)

    @property
    def heads(self) -> int:
        """Attention heads per block of the image tower."""
        return self.visual.transformer.resblocks[0].attn.num_heads

    @property
    def width(self) -> int:
        """Width C of the image tower's tokens."""
        return self.visual.conv1.out_channels

    @property
    def embed_dim(self) -> int:
        """Dimension D of the space that images and texts share."""
        return self.visual.proj.shape[1]

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        rows, columns = self.visual.patch_size
        return rows, columns

    @property
    def text_tower(self) -> TextTower:
        """The text tower.

        Raises:
            ModelNotReady: if this CLIP was built without one, or it was dropped.
        """
        if self.text is None:
            raise ModelNotReady(f"{self.name}: built without its text tower, which texts and training need")
        return self.text

    def drop_text_tower(self) -> None:
        """Frees the text tower."""
        self.text = None

    def with_text_tower(self) -> FrozenCLIP:
        """Return a CLIP of these weights that has its text tower: this one, or one built anew, in float32.

        Raises:
            ModelNotReady: if it was dropped and what it was built from is gone, or has no text tower.
        """
        if self.text is not None:
            return self
        if self.rebuild is None:
            raise ModelNotReady(f"{self.name}: its text tower was dropped, and cannot be had again")
        return self.rebuild().to(self.visual.proj.device)

    def at_size(self, side: int) -> FrozenCLIP:
        """Return a CLIP of the same weights for images of ``side`` pixels alone.

        The position embedding is resized once, here.

        Raises:
            ValueError: as :meth:`grid`.
        """
        grid = self.grid((side, side))
        positions = nn.Parameter(self.position_embedding(grid).clone(), requires_grad=False)
        other, visual = shallow_copy(self), shallow_copy(self.visual)
        visual.positional_embedding, visual.grid_size = positions, grid
        other.visual, other._kept = visual, {}
        return other

    def grid(self, images: Tensor | Sequence[int]) -> tuple[int, int]:
        """Rows and columns of patches of images (B, 3, H, W), or of a height and a width.

        Raises:
            ValueError: if H or W is no multiple of the patch size.
        """
        height, width = images.shape[-2:] if isinstance(images, Tensor) else images
        patch_h, patch_w = self.patch_size
        if height % patch_h or width % patch_w:
            raise ValueError(
                f"image size {height}x{width} is no multiple of the patch size {patch_h}x{patch_w}"
            )
        return height // patch_h, width // patch_w

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to the first block's tokens (B, 1 + patches, C), class first."""
        visual = self.visual
        grid = self.grid(images)
        patches = visual.conv1(images).flatten(2).transpose(1, 2)
        # The residual stream stays float32 under autocast: only products of matrices are rounded.
        token = visual.class_embedding.expand(images.shape[0], 1, -1)
        return visual.ln_pre(torch.cat([token, patches.to(token.dtype)], 1) + self.position_embedding(grid))

    def position_embedding(self, grid: tuple[int, int]) -> Tensor:
        """Return the position embedding (1 + rows * columns, C), resized to ``grid``.

        Computed once per size.
        """
        stored = self.visual.positional_embedding
        native = tuple(self.visual.grid_size)
        if tuple(grid) == native:
            return stored
        key = (*grid, stored.device, stored.dtype, stored.data_ptr())

        def resized() -> Tensor:
            square = stored[1:].float().reshape(1, *native, -1).permute(0, 3, 1, 2)
            larger = F.interpolate(
                square,
                tuple(grid),
                mode=self.position_mode,
                align_corners=False,
                antialias=self.position_antialias,
            )
            patches = larger.flatten(2)[0].transpose(0, 1).to(stored.dtype)
            return torch.cat([stored[:1], patches])

        return self.once(key, resized)

    def once(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """Return what ``make()`` gives, which must follow from ``key`` and the weights alone.

        Made once, no graph.
        Forgotten when weights are loaded or moved through this module.
        """
        if key not in self._kept:
            # What inference mode makes could not be used in training later.
            with torch.inference_mode(False), torch.no_grad():
                self._kept[key] = make()
        return self._kept[key]

    def run_blocks(
        self,
        tokens: Tensor,
        *,
        layers: Collection[int] = (),
        vv_start: int | None = None,
        head_scales: Mapping[int, Tensor] | None = None,
        vv_head_scales: Mapping[int, Tensor] | None = None,
        before_block: BlockHook | None = None,
        span: tuple[int, int] | None = None,
        path: Tensor | None = None,
        class_only: bool = False,
    ) -> TowerRun:
        """Run the image tower's blocks.

        From layer ``vv_start`` on a second path is kept: ``path = path + Attn_vv(ln_1(tokens))``, without
        MLP, starting from the tokens that enter that layer (AnomalyCLIP).

        Since nothing of the tower trains, autograd records nothing before the first factor or hook that
        brings in something that does: those layers cost no memory in training.

        Args:
            tokens: (B, N, C), from :meth:`embed`; N may differ (prompts appended, windows selected).
            layers: layers (1-based) after which to keep the tokens.
            vv_start: first layer of the V-V path; None for the ordinary tower alone.
            head_scales: per layer, factors (heads,) of the heads of the ordinary path; absent means 1.
            vv_head_scales: the same for the V-V path.
            before_block: hook on the ordinary path. With a V-V path it must keep the number of tokens.
            span: first and last layer to run, to go on from an earlier run; None for all. A last layer
                before the first runs none.
            path: the V-V path that an earlier run ended with.
            class_only: of the ordinary path's last tokens only the class token's is read, so that the tower's
                last block need not compute the others. Ignored where the tower pools all tokens.
        """
        ordinary, vv = head_scales or {}, vv_head_scales or {}
        first, last = span or (1, self.depth)
        kept: dict[int, Tensor] = {}
        for layer in range(first, last + 1):
            block = self.visual.transformer.resblocks[layer - 1]
            if before_block is not None:
                tokens = before_block(layer - 1, tokens)
            dual = vv_start is not None and layer >= vv_start
            read = 1 if class_only and self._spares(layer, dual, layers) else None
            if dual:
                path = tokens if path is None else path
                scales = ordinary.get(layer), vv.get(layer)
                tokens, path = self.run_block(dual_block, block, tokens, path, *scales, read)
            else:
                tokens = self.run_block(plain_block, block, tokens, ordinary.get(layer), False, read)
            if layer in layers:
                kept[layer] = tokens if path is None else path
        return TowerRun(tokens, kept, path)

    def _spares(self, layer: int, dual: bool, layers: Collection[int]) -> bool:
        """Whether nothing reads the ordinary path's patch tokens after ``layer``."""
        last = layer == self.depth and self.visual.pool_type == "tok"
        return last and (dual or layer not in layers)

    def run_block(self, function: Callable[..., Any], block: Block, *inputs: Any) -> Any:
        """``function(block, *inputs)`` for a block of either tower, with gradient checkpointing if of use."""
        flows = any(isinstance(value, Tensor) and value.requires_grad for value in inputs)
        if not (self.checkpointing and flows and torch.is_grad_enabled()):
            return function(block, *inputs)
        # A block draws no random numbers, so that there is no state of generators to put back.
        return checkpoint(function, block, *inputs, use_reentrant=False, preserve_rng_state=False)

    def project(self, tokens: Tensor, *, norm: bool = True) -> Tensor:
        """Tokens (..., C) into the shared space (..., D), by default through the final layer norm; not L2."""
        # In full precision: a cosine's error counts many times over once divided by the temperature.
        with torch.autocast(tokens.device.type, enabled=False):
            return (self.visual.ln_post(tokens) if norm else tokens) @ self.visual.proj

    def class_feature(self, tokens: Tensor, *, norm: bool = True) -> Tensor:
        """Return the image's feature (B, D) from the last block's tokens (B, N, C), as CLIP pools them.

        Not L2.

        Args:
            tokens: final tokens, without any that were appended.
            norm: False leaves the final layer norm out, as AnomalyCLIP's published code does.
        """
        visual = self.visual
        if visual.pool_type == "tok":
            return self.project(tokens[:, 0], norm=norm)
        if norm and not visual.final_ln_after_pool:
            return visual.ln_post(tokens)[:, 1:].mean(1) @ visual.proj
        return self.project(tokens[:, 1:].mean(1), norm=norm)

    def encode_image(self, images: Tensor) -> Tensor:
        """Plain CLIP's image feature (B, D) of normalised images (B, 3, H, W); not L2."""
        return self.class_feature(self.run_blocks(self.embed(images), class_only=True).tokens)

    def tokenize(self, texts: list[str]) -> Tensor:
        """Texts to token ids, int64 (P, context length), with CLIP's own vocabulary.

        Raises:
            ModelNotReady: if the text tower has another vocabulary.
        """
        tower = self.text_tower
        if tower.vocab_size != 49408:
            raise ModelNotReady(f"{self.name}: its text tower does not use CLIP's vocabulary")
        ids = open_clip.tokenize(texts, tower.context_length)
        return ids.to(tower.token_embedding.weight.device)

    def embed_text(self, ids: Tensor) -> Tensor:
        """Token ids (P, T) to embeddings (P, T, text width), without positions."""
        return self.text_tower.token_embedding(ids)

    def text_ends(self, ids: Tensor) -> Tensor:
        """Return the position (P,) at which each text's feature is read.

        The end-of-text token's, as a rule.
        """
        tower = self.text_tower
        if tower.pool_type == "argmax":
            return ids.argmax(-1)
        if tower.pool_type == "eos":
            return (ids == tower.eos_id).int().argmax(-1)
        return torch.full(
            (len(ids),), 0 if tower.pool_type == "first" else ids.shape[1] - 1, device=ids.device
        )

    def encode_text(
        self, embeddings: Tensor, ends: Tensor, *, before_block: BlockHook | None = None
    ) -> Tensor:
        """Text features.

        Args:
            embeddings: (P, T, text width), from :meth:`embed_text` or learned.
            ends: (P,) positions to read, from :meth:`text_ends`.
            before_block: hook on the tokens, for example to overwrite some with learned ones.

        Returns:
            (P, D), not L2-normalised.
        """
        tokens = self.run_text_blocks(embeddings, before_block=before_block)
        return self.read_text(tokens[torch.arange(tokens.shape[0], device=tokens.device), ends])

    def run_text_blocks(
        self, embeddings: Tensor, *, before_block: BlockHook | None = None, last: int | None = None
    ) -> Tensor:
        """Run the text tower's blocks, to the ``last`` (1-based; None for all), on (P, T, text width)."""
        tower = self.text_tower
        tokens = embeddings + tower.positional_embedding[: embeddings.shape[1]]
        for index, block in enumerate(tower.transformer.resblocks[:last]):
            if before_block is not None:
                tokens = before_block(index, tokens)
            tokens = self.run_block(plain_block, block, tokens, None, self.causal_text, None)
        return tokens

    def read_text(self, tokens: Tensor) -> Tensor:
        """Text features (..., D) from the last block's tokens (..., text width) at the texts' ends."""
        tower = self.text_tower
        read = tower.ln_final(tokens)
        if tower.text_projection is None:
            return read
        if isinstance(tower.text_projection, nn.Linear):
            return tower.text_projection(read)
        with torch.autocast(read.device.type, enabled=False):
            return read @ tower.text_projection

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Plain CLIP's text features (P, D); not L2."""
        ids = self.tokenize(texts)
        return self.encode_text(self.embed_text(ids), self.text_ends(ids))

    def fingerprint(self) -> tuple[float, ...]:
        """Averages that tell one set of weights from another, whatever precision they were stored in."""
        last = self.visual.transformer.resblocks[-1].attn.in_proj_weight
        tensors = (self.visual.conv1.weight, last, self.visual.proj)
        return tuple(float(tensor.detach().float().abs().mean()) for tensor in tensors)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenCLIP:
        self._kept.clear()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kept.clear()
        super()._load_from_state_dict(*args, **kwargs)
