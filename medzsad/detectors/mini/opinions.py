"""What networks over features of photographs add to the image score of grey images.

The grey network learned from made images alone. Features learned on photographs see other things in a picture
of a brain, and err elsewhere: so the scores of two decoders over them count beside its own. The encoder runs
once for both. The map stays the grey network's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medzsad.detectors.mini.colour import ColourNetwork


class Opinions(nn.Module):
    """Networks with one encoder, and what they say of grey images.

    Args:
        networks: by their kind; they share the encoder.
        shares: of each kind in the mean of the logits, above 0, together below 1; the rest is the grey
            network's.

    Raises:
        ValueError: if a share is not so, or of a network that is not there.
    """

    def __init__(self, networks: Mapping[str, ColourNetwork], shares: Mapping[str, float]) -> None:
        super().__init__()
        if not isinstance(shares, Mapping) or not all(isinstance(v, int | float) for v in shares.values()):
            raise ValueError("other_scores must be a share for each kind of network")
        if set(shares) - set(networks):
            missing = ", ".join(sorted(set(shares) - set(networks)))
            raise ValueError(f"other_scores names networks that are not there: {missing}")
        if not all(share > 0 for share in shares.values()) or not 0 < sum(shares.values()) < 1:
            raise ValueError("the shares of other_scores must be above 0, and together below 1")
        self.shares = {kind: float(share) for kind, share in shares.items()}
        self.networks = nn.ModuleList(networks[kind] for kind in self.shares)

    def forward(self, images: Tensor) -> list[tuple[str, Tensor, Tensor]]:
        """Return kind, pixel logits (B, 2, S/2, S/2) and image logits (B, 2) of each network.

        Args:
            images: float32 (B, 3, S, S) in [0, 1].
        """
        said = []
        features = None
        for kind, each in zip(self.shares, self.networks, strict=True):
            network = cast(ColourNetwork, each)
            features = network.features(images) if features is None else features
            said.append((kind, *network.logits_of(features, images.shape[-1] // 2)))
        return said

    def mean(self, own: Tensor, others: Sequence[tuple[str, Tensor]]) -> Tensor:
        """Return the mean of probabilities by their logits, each with its share.

        Args:
            own: of the grey network, (B,) in [0, 1].
            others: kind, and the same of each network.
        """
        logits = (1 - sum(self.shares.values())) * torch.logit(own.float(), 1e-6)
        for kind, values in others:
            logits = logits + self.shares[kind] * torch.logit(values.float(), 1e-6)
        return torch.sigmoid(logits)
