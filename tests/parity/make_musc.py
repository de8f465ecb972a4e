"""Make ``musc.npz``: what MuSc's own functions give for random features.

    git clone https://github.com/xrli-U/MuSc && git -C MuSc checkout b76b93da8bd3096a99964a96ae29d46f197a0651
    python tests/parity/make_musc.py MuSc tests/parity/musc.npz

It runs the authors' code, which is not part of medzsad; the file holds numbers alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

IMAGES, SIDE, CHANNELS, LAYERS, DEGREES = 8, 5, 6, 2, (1, 3, 5)


def main(folder: str, target: str) -> None:
    """Write the numbers to ``target``; ``folder`` is the clone."""
    sys.path.insert(0, folder)
    from models.modules._LNAMD import LNAMD
    from models.modules._MSM import MSM
    from models.modules._RsCIN import RsCIN

    draw = torch.Generator().manual_seed(0)
    # The first token is the class's, which LNAMD leaves out.
    tokens = [torch.randn(IMAGES, 1 + SIDE**2, CHANNELS, generator=draw) for _ in range(LAYERS)]
    images = torch.rand(IMAGES, CHANNELS, generator=draw)
    images = images / images.norm(dim=1, keepdim=True)
    numbers = {f"features{i}": layer[:, 1:].numpy() for i, layer in enumerate(tokens)}
    means = []
    for degree in DEGREES:
        module = LNAMD(device="cpu", r=degree, feature_dim=CHANNELS, feature_layer=list(range(LAYERS)))
        patches = module._embed(tokens)
        patches = patches / patches.norm(dim=-1, keepdim=True)
        numbers[f"patches{degree}"] = patches.numpy()
        scores = torch.stack([MSM(patches[:, :, layer], "cpu") for layer in range(LAYERS)])
        numbers[f"scores{degree}"] = scores.numpy()
        means.append(scores.mean(0))
    numbers["maps"] = torch.stack(means).mean(0).numpy()
    numbers["images"] = images.numpy()
    highest = numbers["maps"].max(1)
    for name, neighbours in (("rescored", [1, 2, 3]), ("rescored_far", [1, 4, 8])):
        numbers[name] = RsCIN(highest, images.numpy(), k_list=neighbours)
    np.savez_compressed(Path(target), **numbers)


if __name__ == "__main__":
    main(*sys.argv[1:3])
