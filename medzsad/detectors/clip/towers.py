"""What the towers of a CLIP are made of, as far as the steps here use them; their classes are open_clip's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from torch import Tensor, nn

Layer = Callable[[Tensor], Tensor]


class Attention(Protocol):
    """The attention of a block."""

    in_proj_weight: Tensor
    in_proj_bias: Tensor | None
    out_proj: Layer
    num_heads: int


class Block(Protocol):
    """A pre-norm block of either tower; see :func:`.attention.supports`."""

    attn: Attention
    ln_1: Layer
    ls_1: Layer
    ln_2: Layer
    ls_2: Layer
    mlp: Layer


class Transformer(Protocol):
    """The blocks of a tower, in their order."""

    resblocks: Sequence[Block]


class ImageTower(Protocol):
    """open_clip's own ViT, with C-wide tokens into a space of D dimensions."""

    conv1: nn.Conv2d
    class_embedding: Tensor  # (C,)
    positional_embedding: Tensor  # (1 + patches, C)
    ln_pre: Layer
    transformer: Transformer
    ln_post: Layer
    proj: Tensor  # (C, D)
    pool_type: str
    final_ln_after_pool: bool
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    grid_size: tuple[int, int]

    def modules(self) -> Iterator[nn.Module]:
        """As of any module."""

    def state_dict(self) -> dict[str, Tensor]:
        """As of any module."""


class TextTower(Protocol):
    """open_clip's own text transformer."""

    token_embedding: nn.Embedding
    positional_embedding: Tensor  # (context length, width)
    transformer: Transformer
    ln_final: Layer
    text_projection: nn.Linear | Tensor | None
    attn_mask: Tensor | None
    pool_type: str
    eos_id: int
    vocab_size: int
    context_length: int


class PatchEmbedding(Protocol):
    """How a ViT of timm makes tokens of an image."""

    patch_size: Sequence[int]
    grid_size: Sequence[int]

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to tokens (B, patches, C)."""


class Trunk(Protocol):
    """timm's VisionTransformer."""

    patch_embed: PatchEmbedding
    _pos_embed: Layer
    patch_drop: Layer
    norm_pre: Layer
    blocks: Sequence[Layer]
    norm: Layer
    attn_pool: Layer | None
    fc_norm: Layer
    head_drop: Layer
    head: Layer
    forward_head: Layer


class TimmImageTower(Protocol):
    """open_clip's wrapping of a ViT of timm."""

    trunk: Trunk
    head: Layer
    image_size: tuple[int, int]

    def modules(self) -> Iterator[nn.Module]:
        """As of any module."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of any module."""
