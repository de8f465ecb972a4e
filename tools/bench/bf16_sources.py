r"""Which tensors carry AdaCLIP's error in bf16: some kinds of its image tower's are rounded, others not.

    python tools/bench/bf16_sources.py --images FOLDER --backbone ViT-B-16 --side 224 --count 3

Rounding is what bf16 does to a product's inputs and its result, with sums in float32; it needs no processor
with fast bf16. Weights are random. Errors are the root of the mean square over the images, and the largest;
of errors that add up independently, the squares do. k-means of the image score gives the groups that it gave
in float32, and the texts are those of float32, but in the rows that say otherwise. ``--own`` adds PyTorch's
own bf16, which is slow on most processors.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from forward_worker import random_detector
from machine import describe
from torch import Tensor
from torch.overrides import TorchFunctionMode

from medzsad.detectors.adaclip import scoring
from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.clip.backbone import FrozenCLIP

KINDS = {
    "patch embedding: pixels, weights, result": ("conv",),
    "weights of all linear layers": ("weights",),
    "normalised tokens before attention": ("qkv in",),
    "queries, keys and values": ("qkv out",),
    "softmax of the attention": ("softmax",),
    "what the heads give": ("out in",),
    "attention's result, before it is added": ("out out",),
    "normalised tokens before the MLP": ("up in",),
    "hidden layer before GELU": ("up out",),
    "hidden layer after GELU": ("down in",),
    "MLP's result, before it is added": ("down out",),
}
ALL = frozenset(part for parts in KINDS.values() for part in parts)


def rounded(x: Tensor) -> Tensor:
    """Return a float32 tensor with bf16's 8 bits."""
    return x.bfloat16().float()


class Rounding(TorchFunctionMode):
    """Rounds some kinds of tensors of the image tower."""

    def __init__(self, clip: FrozenCLIP) -> None:
        super().__init__()
        self.parts: frozenset[str] = frozenset()
        self.inside = False
        self._names: dict[int, str] = {}
        for block in clip.visual.transformer.resblocks:
            for name, weight in (
                ("qkv", block.attn.in_proj_weight),
                ("out", block.attn.out_proj.weight),
                ("up", block.mlp.c_fc.weight),
                ("down", block.mlp.c_proj.weight),
            ):
                self._names[weight.untyped_storage().data_ptr()] = name

    def _r(self, part: str, x: Tensor) -> Tensor:
        return rounded(x) if part in self.parts else x

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.inside or not self.parts:
            return func(*args, **kwargs)
        if func is F.linear:
            x, weight, bias = args
            name = self._names[weight.untyped_storage().data_ptr()]
            y = func(self._r(f"{name} in", x), self._r("weights", weight), self._r("weights", bias))
            return self._r(f"{name} out", y)
        if func is torch.conv2d:
            x, weight, *rest = args
            return self._r("conv", func(self._r("conv", x), self._r("conv", weight), *rest, **kwargs))
        if func is F.scaled_dot_product_attention and "softmax" in self.parts:
            query, key, value = args
            shares = (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(-1)
            return self._r("softmax", shares) @ value
        return func(*args, **kwargs)


@contextlib.contextmanager
def in_tower(mode: Rounding) -> Iterator[None]:
    """Round in the image tower alone, as our autocast does."""
    originals = {name: getattr(FrozenCLIP, name) for name in ("embed", "run_blocks")}

    def within(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            mode.inside = True
            try:
                return original(*args, **kwargs)
            finally:
                mode.inside = False

        return call

    for name, original in originals.items():
        setattr(FrozenCLIP, name, within(original))
    try:
        with mode:
            yield
    finally:
        for name, original in originals.items():
            setattr(FrozenCLIP, name, original)


class Kept:
    """What follows from rounded features by a choice, or at a cost, given again as it was in float32.

    Attributes:
        groups: k-means's of the image score (indices of patches, membership), by image.
        texts: text features, by image.
    """

    def __init__(self, detector: AdaCLIP) -> None:
        self.groups: list[tuple[Tensor, Tensor]] = []
        self.texts: list[Tensor] = []
        self.again: frozenset[str] = frozenset()
        self.number = 0
        self._encode = detector.encode_texts
        detector.encode_texts = self._texts_of
        scoring.fuse_patches = self._fused

    def _texts_of(self, *args: Any) -> Tensor:
        if self.number == len(self.texts):
            self.texts.append(self._encode(*args))
        return self._encode(*args) if "texts" in self.again else self.texts[self.number]

    def _fused(self, patches: Tensor, probabilities: Tensor, **options: Any) -> Tensor:
        """Fuse as :func:`scoring.fuse_patches` does in the variant "code"."""
        (features,), (probability,) = patches, probabilities
        if self.number == len(self.groups) or "groups" in self.again:
            count = min(len(probability), scoring.PATCHES_PER_CLUSTER * options["clusters"])
            indices = probability.topk(count).indices
            chosen = features[:, indices].transpose(0, 1).flatten(1)
            found = indices, scoring.group(chosen, options["clusters"], options["seed"])
            if self.number == len(self.groups):
                self.groups.append(found)
        else:
            found = self.groups[self.number]
        indices, membership = found
        return F.normalize((membership @ features[:, indices].mean(0)).mean(0), dim=-1)[None]


def main() -> None:
    """Print the table."""
    from int8 import read_images

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--backbone", default="ViT-B-16")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--brief", action="store_true", help="only the rows with all tensors")
    parser.add_argument("--own", action="store_true", help="also PyTorch's own bf16")
    args = parser.parse_args()
    print(describe(), flush=True)
    torch.manual_seed(0)
    detector = random_detector({"method": "adaclip", "backbone": args.backbone, "side": args.side})
    detector.eval().requires_grad_(False)
    _, images = read_images(args.images, args.side, args.count)
    mode, kept = Rounding(detector.clip), Kept(detector)

    def run(parts: frozenset[str], again: Collection[str] = ()) -> tuple[Tensor, ...]:
        mode.parts, kept.again, found = parts, frozenset(again), []
        with in_tower(mode):
            for kept.number, image in enumerate(images):
                found.append(detector(image[None]))
        return tuple(torch.cat(tensors) for tensors in zip(*found, strict=True))

    exact = run(frozenset())
    print(f"{len(images)} images; scores {', '.join(f'{score:.3f}' for score in exact[1])}")
    print("| rounded | image score | class token alone | map |\n|---|---|---|---|", flush=True)

    def row(name: str, parts: Collection[str], again: Collection[str] = ()) -> None:
        off = [(a - b).abs().double() for a, b in zip(run(frozenset(parts), again), exact, strict=True)]
        cells = [f"{d.square().mean().sqrt():.1e}, {d.max():.1e}" for d in (off[1], off[2], off[0])]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)

    row("all; groups and texts anew", ALL, ("groups", "texts"))
    row("all; groups anew", ALL, ("groups",))
    row("all", ALL)
    if not args.brief:
        for name, parts in KINDS.items():
            row(name, parts)
        row("all but the weights", ALL - {"weights"})
    if args.own:
        detector.use_precision("bf16")
        row("PyTorch's own bf16", ())


if __name__ == "__main__":
    with torch.inference_mode():
        main()
