"""How many floating-point operations a ViT's forward pass takes, by formula; a multiply-add is two."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tower:
    """An image tower.

    Attributes:
        side: of the image, in pixels.
        patch: side of a patch, in pixels.
        width: C, of the tokens.
        depth: blocks.
        embed: D, dimension of the shared space.
    """

    side: int = 518
    patch: int = 14
    width: int = 1024
    depth: int = 24
    embed: int = 768

    @property
    def patches(self) -> int:
        """P."""
        return (self.side // self.patch) ** 2

    @property
    def tokens(self) -> int:
        """N = P + 1."""
        return self.patches + 1

    def plain(self) -> float:
        """Plain CLIP: patch embedding ``2 P 3p^2 C``, and per block ``24 N C^2 + 4 N^2 C``.

        Of a block, q, k, v take ``6 N C^2``, the output projection ``2 N C^2``, the MLP ``16 N C^2``,
        and the attention ``4 N^2 C``.
        """
        return self._embedding() + self.depth * self._block()

    def anomalyclip(self, vv_layers: int = 19, patch_layers: int = 1, *, spared: bool = True) -> float:
        """AnomalyCLIP and HeadCLIP: plain CLIP, and per V-V layer ``2 N C^2 + 4 N^2 C`` more.

        Args:
            vv_layers: layers with a V-V path.
            patch_layers: layers whose patch features are projected, ``2 P C D`` each.
            spared: the last block's ordinary path is computed for the class token alone, so that of
                its ``24 N C^2 + 4 N^2 C`` only the keys and values, ``4 N C^2``, remain.
        """
        n, c = self.tokens, self.width
        second = vv_layers * (2 * n * c**2 + 4 * n**2 * c)
        saved = self._block() - 4 * n * c**2 if spared else 0
        return self.plain() + second - saved + patch_layers * 2 * self.patches * c * self.embed

    def _embedding(self) -> float:
        return 2 * self.patches * 3 * self.patch**2 * self.width

    def _block(self) -> float:
        n, c = self.tokens, self.width
        return 24 * n * c**2 + 4 * n**2 * c
