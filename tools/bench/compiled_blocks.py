r"""What compiling gains: blocks of a CLIP as they are, by ``torch.compile`` with frozen weights, by OpenVINO.

    pip install "medzsad[openvino]"
    python tools/bench/compiled_blocks.py --precision fp32 --precision bf16

Four blocks of a ViT-L/14 with 1370 tokens (518 px), random weights. ``torch.compile`` (which needs a C++
compiler) gets the products of a block alone, "linear parts", or whole blocks; freezing packs the weights.
OpenVINO gets whole blocks. Seconds to compile count from an empty cache, and from the one that this left
("again").
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import DTYPES, best, describe
from torch import Tensor, nn

from medzsad.detectors import products
from medzsad.detectors.clip.attention import plain_block
from medzsad.detectors.clip.precision import hold_matrices

BLOCKS, TOKENS, WIDTH = 4, 1370, 1024
WAYS = ("as they are", "linear parts, torch.compile", "whole blocks, torch.compile", "whole blocks, OpenVINO")


class Blocks(nn.Module):
    """Some blocks of an image tower, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        from forward_worker import random_detector

        self.clip = random_detector({"method": "clip", "side": 518, "backbone": "ViT-L-14-336"}).clip

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) through all of them."""
        for block in self.clip.visual.transformer.resblocks[:BLOCKS]:
            tokens = plain_block(block, tokens, None, False, None)
        return tokens


def prepare(way: str, precision: str, cache: str) -> tuple[Callable[[Tensor], Any], Callable[[], Any]]:
    """Return what runs the blocks, and what compiles it."""
    torch.manual_seed(0)
    model = Blocks().eval().requires_grad_(False)
    if way == WAYS[3]:
        return _openvino(model, precision, cache)
    hold_matrices(model.clip, DTYPES[precision])

    def run(tokens: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return model(tokens)

    if way == WAYS[1]:
        _compile_products()
    if way == WAYS[2]:
        torch._inductor.config.freezing = True
        model.compile()
    return run, lambda: run(torch.randn(1, TOKENS, WIDTH))


def _compile_products() -> None:
    """Give each product of a block a compiled layer of its own; attention stays as it is."""
    torch._inductor.config.freezing = True
    torch._dynamo.config.recompile_limit = 64  # layers share their class's code
    layers: dict[tuple[int, int], Callable[[Tensor], Tensor]] = {}

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        key = weight.data_ptr(), len(weight)
        if key not in layers:
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None).eval()
            layer.weight = nn.Parameter(weight, requires_grad=False)
            if bias is not None:
                layer.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
            layers[key] = torch.compile(layer)
        return layers[key](x.to(weight.dtype))

    products.linear = linear
    products._product_for_onednn = lambda *tensors: False  # of all products, that of a whole MLP too


def _openvino(model: Blocks, precision: str, cache: str) -> tuple[Callable[[Tensor], Any], Callable[[], Any]]:
    import openvino

    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    requests: list[Any] = []

    def compile_it() -> None:
        program = torch.export.export(model, (torch.randn(1, TOKENS, WIDTH),))
        graph = openvino.convert_model(program)
        core = openvino.Core()
        core.set_property({"CACHE_DIR": cache})
        requests[:] = [core.compile_model(graph, "CPU", settings).create_infer_request()]

    return lambda tokens: requests[0].infer([tokens.numpy()]), compile_it


def measure(way: str, precision: str, repeats: int) -> None:
    """Print the seconds of one way as JSON."""
    cache = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    with torch.inference_mode():
        run, compile_it = prepare(way, precision, cache)
        begin = time.perf_counter()
        compile_it()
        compiling = time.perf_counter() - begin
        tokens = torch.randn(1, TOKENS, WIDTH)
        print(json.dumps({"compile": compiling, "run": best(lambda: run(tokens), repeats) / BLOCKS}))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--precision", action="append", choices=["fp32", "bf16"], help="default: bf16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        measure(args.way, args.precision[0], args.repeats)
        return
    print(describe())
    print("| blocks | precision | ms a block | times as fast | s to compile | again |")
    print("|---|---|---|---|---|---|")
    for precision in args.precision or ["bf16"]:
        first = None
        for way in WAYS:
            with tempfile.TemporaryDirectory() as cache:
                command = [sys.executable, __file__, "--precision", precision, "--way", way]
                command += ["--repeats", str(args.repeats)]
                found = []
                for _ in range(1 if way == WAYS[0] else 2):
                    done = subprocess.run(
                        command,
                        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                    found.append(json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None)
            if None in found:
                print(f"| {way} | {precision} | fails | | | |", flush=True)
                continue
            seconds = min(each["run"] for each in found)
            first = first or seconds
            times = ["", ""] if len(found) == 1 else [f"{each['compile']:.1f}" for each in found]
            speed = f"{1e3 * seconds:.1f} | {first / seconds:.2f}"
            print(f"| {way} | {precision} | {speed} | {' | '.join(times)} |", flush=True)


if __name__ == "__main__":
    main()
