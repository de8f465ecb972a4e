"""The loops that the stages of :mod:`train_mini` for slices share: over parts, and over steps.

One process of one thread, in float32. All randomness comes from the seed and the number of the step, so a
repetition gives the same weights bit for bit on one kind of machine, stopped and resumed or not.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from synthetic_slices import SliceBatch
from torch import Tensor, nn


class Part(Protocol):
    """What every part of a stage says of itself."""

    @property
    def steps(self) -> int: ...

    @property
    def batch(self) -> int: ...


SomePart = TypeVar("SomePart", bound=Part)
Trained = tuple[dict[str, Tensor], int, float]  # averaged weights, the step that was reached, seconds


def steps_of(part: Part, args: argparse.Namespace) -> int:
    """Return the steps of a part, shortened as asked."""
    return max(2, round(part.steps * args.steps_factor))


def state_file(args: argparse.Namespace, stage: str, number: int) -> Path:
    """Return the file of the state of a stage's part."""
    return Path(args.work) / f"{stage}-{number}-state.pt"


def weights_after(
    args: argparse.Namespace, stage: str, number: int, *, averaged: bool = False
) -> dict[str, Tensor]:
    """Return the weights that a part of a stage ended with, for the next one to go on from.

    Args:
        args: ``work`` of train_mini.
        stage: its name.
        number: of the part.
        averaged: the averaged ones, rounded as a checkpoint holds them, in place of the last ones.
    """
    state = torch.load(state_file(args, stage, number), weights_only=True)
    weights: dict[str, Tensor] = state["average" if averaged else "network"]
    return {name: tensor.half().float() for name, tensor in weights.items()} if averaged else weights


def run_parts(
    parts: Sequence[SomePart], args: argparse.Namespace, train_part: Callable[[int, SomePart], Trained]
) -> tuple[dict[str, Tensor], dict[str, int]] | None:
    """Run the parts of a stage one after the other, or go on with them.

    Returns:
        The averaged weights of the last and a record of all, or None if the run stopped early, as asked.
    """
    average: dict[str, Tensor] = {}
    record = {"steps": 0, "images_seen": 0, "seconds": 0}
    for number, part in enumerate(parts):
        average, step, seconds = train_part(number, part)
        if step < steps_of(part, args):
            return None
        for key, more in (("steps", step), ("images_seen", step * part.batch), ("seconds", round(seconds))):
            record[key] += more
    return average, record


@dataclass(frozen=True)
class Course:
    """How a network is trained.

    Attributes:
        name: in the log.
        saved: file of the state.
        steps: of the optimiser.
        batch: samples per step.
        chunk: batches that are generated together: the generator has a cost per call.
        ema: share of the averaged weights that each step keeps.
        make: gives the samples of a chunk by its number.
        rate_at: the learning rate of a step.
        losses: the terms of a step's loss, of its batch and its number.
        terms: their names.
    """

    name: str
    saved: Path
    steps: int
    batch: int
    chunk: int
    ema: float
    make: Callable[[int], SliceBatch]
    rate_at: Callable[[int], float]
    losses: Callable[[SliceBatch, int], Tensor]
    terms: tuple[str, ...]


def follow(course: Course, network: nn.Module, args: argparse.Namespace) -> Trained:
    """Train a network, or go on with it.

    Args:
        course: how.
        network: with the weights that it starts from.
        args: ``stop_after`` and ``save_every`` of train_mini.

    Returns:
        The averaged weights, the step that was reached and the seconds that it took.
    """
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 0.04},
            {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    average = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step, seconds, saved = 0, 0.0, course.saved
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, seconds = state["average"], state["step"], state["seconds"]
        print(f"{course.name}: resumed at step {step}", flush=True)

    def save() -> None:
        state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
        torch.save({**state, "step": step, "seconds": seconds}, f"{saved}.partial")
        os.replace(f"{saved}.partial", saved)

    begin, running, made_of, made = time.monotonic() - seconds, None, -1, None
    until = course.steps if args.stop_after is None else min(course.steps, args.stop_after)
    while step < until:
        chunk, part = divmod(step, course.chunk)
        if made_of != chunk:
            made, made_of = course.make(chunk), chunk
        batch = SliceBatch(*(t[part * course.batch : (part + 1) * course.batch] for t in made))
        rate = course.rate_at(step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        parts = course.losses(batch, step)
        optimiser.zero_grad(set_to_none=True)
        parts.sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step, seconds = step + 1, time.monotonic() - begin
        keep = min(course.ema, (1 + step) / (20 + step))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        running = parts.detach() if running is None else 0.97 * running + 0.03 * parts.detach()
        if step % 25 == 0:
            shown = " ".join(
                f"{name} {value:.3f}" for name, value in zip(course.terms, running.tolist(), strict=True)
            )
            print(
                f"{course.name}, step {step} of {course.steps}, {seconds:.0f}s, rate {rate:.1e}, {shown}",
                flush=True,
            )
        if step % args.save_every == 0 and step < course.steps:
            save()
    save()
    return average, step, seconds
