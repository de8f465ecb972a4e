r"""Ways to bring AdaCLIP's image score in bf16 within its bound of 0.001: differences from float32.

    python tools/bench/bf16_scores.py --images FOLDER --side 336 --count 100

Weights are random (ViT-L/14 at 336 px by default). What differs:

- weights rounded at random up or down, or with the error of one carried to the next of its row;
- weights in two parts of bf16, so that two products stand for one of float32 weights;
- two passes: beside the bf16 one, the class token's way through the blocks in float32, over the keys and
  values that bf16 left;
- the first pass of the two that AdaCLIP makes, plain CLIP's, in float32, or it alone in bf16.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from forward_worker import random_detector
from machine import best, describe
from torch import Tensor, nn

from medzsad.detectors import products
from medzsad.detectors.adaclip.model import AdaCLIP
from medzsad.detectors.clip import backbone
from medzsad.detectors.clip.attention import merge_heads, plain_block, rest_of_block, split_heads
from medzsad.zoo.loading import load_detector


def in_bf16(detector: AdaCLIP, rounding: Callable[[Tensor], Tensor] | None = None) -> AdaCLIP:
    """Return a copy in bf16, the image tower's matrices rounded in a way of its own."""
    other = copy.deepcopy(detector)
    if rounding is not None:
        for weight in matrices(other):
            weight.data = rounding(weight.data)
    other.use_precision("bf16")
    return other


def matrices(detector: AdaCLIP) -> Iterator[nn.Parameter]:
    """Yield the weights of all products of the image tower's blocks."""
    for block in detector.clip.visual.transformer.resblocks:
        yield block.attn.in_proj_weight
        yield block.attn.out_proj.weight
        yield block.mlp.c_fc.weight
        yield block.mlp.c_proj.weight


def at_random(weight: Tensor) -> Tensor:
    """Round to bf16 up or down, so that the mean is the weight."""
    below = (weight.view(torch.int32) & -65536).view(torch.float32)
    above = ((weight.view(torch.int32) & -65536) + 65536).view(torch.float32)
    return torch.where(torch.rand_like(weight) < (weight - below) / (above - below), above, below)


def carried(weight: Tensor) -> Tensor:
    """Round to bf16 along each row, and add what is lost to the next weight."""
    found, lost = torch.empty_like(weight), torch.zeros(len(weight))
    for column in range(weight.shape[1]):
        wanted = weight[:, column] + lost
        found[:, column] = wanted.bfloat16().float()
        lost = wanted - found[:, column]
    return found


@contextlib.contextmanager
def in_two_parts(exact: AdaCLIP, other: AdaCLIP) -> Iterator[None]:
    """Multiply by each weight of ``other`` and by what its rounding lost."""
    lost = {
        rounded.untyped_storage().data_ptr(): (weight - rounded.float()).bfloat16()
        for weight, rounded in zip(matrices(exact), matrices(other), strict=True)
    }
    plain = products.linear

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rest = lost.get(weight.untyped_storage().data_ptr())
        if rest is None:
            return plain(x, weight, bias)
        size = weight.numel()
        part = rest.view(-1)[weight.storage_offset() : weight.storage_offset() + size].view_as(weight)
        return plain(x, weight, bias) + F.linear(x, part)

    products.linear = linear
    try:
        yield
    finally:
        products.linear = plain


@contextlib.contextmanager
def in_two_passes(exact: AdaCLIP, other: AdaCLIP) -> Iterator[None]:
    """Compute the class token's way in float32, over the keys and values of ``other``."""
    towers = (exact.clip.visual.transformer.resblocks, other.clip.visual.transformer.resblocks)
    twins = {id(rounded): block for block, rounded in zip(*towers, strict=True)}
    first, state = id(towers[1][0]), {}

    def block_of(block: Any, tokens: Tensor, scale: Tensor | None, causal: bool, read: int | None) -> Tensor:
        twin = twins.get(id(block))
        if twin is None:
            return plain_block(block, tokens, scale, causal, read)
        if id(block) == first:
            state["class"] = tokens[:, :1].float()
        token = state["class"]
        query, key, value = split_heads(block.attn, block.ln_1(tokens), read)
        attended = merge_heads(block.attn, products.attention(query, key, value), scale)
        rest = rest_of_block(block, tokens[:, :read], attended)
        with torch.autocast("cpu", enabled=False):
            asks, its_key, its_value = split_heads(twin.attn, twin.ln_1(token))
            keys, values = (
                torch.cat([own, all_of[:, :, 1:].float()], 2)
                for own, all_of in ((its_key, key), (its_value, value))
            )
            attended = merge_heads(twin.attn, F.scaled_dot_product_attention(asks, keys, values), scale)
            state["class"] = rest_of_block(twin, token, attended)
        return torch.cat([state["class"].to(rest.dtype), rest[:, 1:]], 1)

    backbone.plain_block = block_of
    try:
        yield
    finally:
        backbone.plain_block = plain_block


@contextlib.contextmanager
def plain_pass_of(giver: AdaCLIP, taker: AdaCLIP) -> Iterator[None]:
    """Give one detector plain CLIP's features as the other, of another precision, computes them."""
    own = taker._frozen_feature

    def feature(embedded: Tensor) -> Tensor:
        dtype = torch.bfloat16 if giver.precision == "bf16" else None
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            return giver._frozen_feature(embedded).float()

    taker._frozen_feature = feature
    try:
        yield
    finally:
        taker._frozen_feature = own


@contextlib.contextmanager
def in_float32(*modules: nn.Module) -> Iterator[None]:
    """Compute some modules in float32 under autocast."""
    originals = [module.forward for module in modules]

    def exact(forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with torch.autocast("cpu", enabled=False):
                return forward(*(x.float() if isinstance(x, Tensor) else x for x in args))

        return call

    for module, forward in zip(modules, originals, strict=True):
        module.forward = exact(forward)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def mini_rows(images: Tensor, row: Callable[..., None]) -> None:
    """Print what bf16 changes of medzsad-mini's network for grey images, by its parts, and what it gains."""
    detector = load_detector("medzsad-mini", device="cpu", precision="bf16")
    row("all", detector)
    parts = dict(detector.network.named_children())
    for name, part in parts.items():
        row(f"all but {name}", detector, in_float32(part))
    for name in parts:
        others = [part for other, part in parts.items() if other != name]
        row(f"{name} alone", detector, in_float32(*others))
    worst = ("stage_2", "stage_8", "pixel_head")
    row(f"all but {', '.join(worst)}", detector, in_float32(*(parts[name] for name in worst)))
    with in_float32(*(parts[name] for name in worst)):
        times = {"bf16 but for these": best(lambda: detector(images[:1]), 10)}
    for precision in ("fp32", "bf16"):
        detector.use_precision(precision)
        times[precision] = best(lambda: detector(images[:1]), 10)
    print("; ".join(f"{name}: {1e3 * seconds:.1f} ms an image" for name, seconds in times.items()))


def main() -> None:
    """Print the table."""
    from int8 import read_images

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument(
        "--method", default="adaclip", help="of other methods what bf16 changes, of mini by its parts"
    )
    parser.add_argument("--backbone", default="ViT-L-14-336")
    parser.add_argument("--side", type=int, default=336)
    parser.add_argument("--count", type=int, default=100)
    args = parser.parse_args()
    print(describe(), flush=True)
    torch.manual_seed(0)
    if args.method == "mini":
        exact = load_detector("medzsad-mini", device="cpu", precision="fp32")
    else:
        exact = random_detector({"method": args.method, "backbone": args.backbone, "side": args.side})
    exact.eval().requires_grad_(False)
    _, images = read_images(args.images, args.side, args.count)
    reference = [exact(image[None]) for image in images]
    scores = [float(prediction.image_score) for prediction in reference]
    print(f"{len(images)} images; scores {min(scores):.3f} to {max(scores):.3f}")
    print(f"| {args.method} in bf16 | image score | class token alone | map |\n|---|---|---|---|", flush=True)

    def row(name: str, detector: AdaCLIP, around: Any = None) -> None:
        off = []
        with around or contextlib.nullcontext():
            for image, there in zip(images, reference, strict=True):
                here = detector(image[None])
                off.append([(a - b).abs().max() for a, b in zip(here, there, strict=True)])
        maps, score, probability = torch.tensor(off).T.double()
        cells = [f"{d.square().mean().sqrt():.1e}, {d.max():.1e}" for d in (score, probability, maps)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)

    if args.method == "mini":
        mini_rows(images, row)
        return
    plain = in_bf16(exact)
    row("all", plain)
    if args.method != "adaclip":
        return
    row("weights rounded at random", in_bf16(exact, at_random))
    compensated = in_bf16(exact, carried)
    row("weights rounded, the error carried on", compensated)
    row("weights in two parts", plain, in_two_parts(exact, plain))
    row("two passes", plain, in_two_passes(exact, plain))
    row("two passes, the error carried on", compensated, in_two_passes(exact, compensated))
    row("plain CLIP's pass in float32", plain, plain_pass_of(exact, plain))
    row("plain CLIP's pass alone", exact, plain_pass_of(plain, exact))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
