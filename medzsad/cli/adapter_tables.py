"""What ``medzsad models info`` prints of an adapter that was trained here: a run's folder, or its file."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from medzsad.detectors.checkpoint import read_checkpoint
from medzsad.zoo.loading import run_adapter

WIDTH = 80


def adapter_facts(name: str) -> dict[str, Any]:
    """All that a medzsad checkpoint tells of itself, JSON-serialisable.

    Args:
        name: the file, or the folder of a training run.

    Raises:
        ModelNotReady: if there is no such file, or it is damaged or another's.
    """
    path = run_adapter(name) or Path(name).expanduser()
    checkpoint = read_checkpoint(path)
    facts = {
        "adapter": str(path),
        "method": checkpoint.method,
        "settings": checkpoint.settings,
        "seen": list(checkpoint.training.get("seen", ())),
        "training": checkpoint.training,
        "parameters": sum(tensor.numel() for tensor in checkpoint.tensors.values()),
    }
    if checkpoint.method == "headclip":
        from medzsad.detectors.headclip.head_picture import head_weights_table, read_head_weights

        facts["head_weights"] = {
            path: {str(layer): scale.tolist() for layer, scale in layers.items()}
            for path, layers in read_head_weights(checkpoint).items()
        }
        facts["head_weights_table"] = head_weights_table(checkpoint)
    return facts


def adapter_lines(facts: dict[str, Any]) -> list[str]:
    """The same as lines for the terminal."""
    training = facts["training"]
    pairs = [
        ("method", facts["method"]),
        ("trained on", ", ".join(facts["seen"]) or "not recorded"),
        ("chosen on", ", ".join(training.get("chosen_on", ()))),
        ("epochs", f"{training['epochs']:g} ({training['step']} steps)" if "step" in training else ""),
        ("parameters", f"{facts['parameters']:,}"),
        ("settings", ", ".join(f"{k} {v}" for k, v in facts["settings"].items() if k != "clip_fingerprint")),
    ]
    lines = [facts["adapter"]]
    for label, value in pairs:
        if value:
            start = f"  {label:<11} "
            lines += textwrap.wrap(str(value), WIDTH, initial_indent=start, subsequent_indent=" " * 14)
    data = [one for one in training.get("data", ()) if isinstance(one, dict) and "licence" in one]
    if data:
        lines += ["", "data sets seen, with their licences:"]
        lines += [
            f"  {one['dataset']} ({one['split']}, {one['images']} images): {one['licence']}" for one in data
        ]
    if "head_weights_table" in facts:
        lines += ["", *facts["head_weights_table"].splitlines()]
    return lines
