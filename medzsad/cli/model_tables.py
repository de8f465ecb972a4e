"""What ``medzsad models list``, ``info`` and ``time`` print, as lines and as JSON."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medzsad.storage import cache
from medzsad.zoo.catalogue import Catalogue, WeightFile, ZooEntry, catalogue, find_entry, users_of
from medzsad.zoo.fetch import by_hand

if TYPE_CHECKING:
    from medzsad.backends.records import Record, Timing

WIDTH = 80
USES = {"slices": "slices of volumes", "images": "images"}
_COLUMNS = ("model", "method", "needs", "trained on")


def listed() -> list[dict[str, Any]]:
    """All models, JSON-serialisable, with what each needs."""
    known = catalogue()
    return [_summary(entry, known) for entry in known.models.values()]


def listing() -> list[str]:
    """All models as a table of at most 80 columns, as long as names are not longer than ours."""
    known = catalogue()
    rows = [_COLUMNS]
    for entry in known.models.values():
        seen = "+".join(entry.seen) or ("?" if entry.adapter else "-")
        rows.append((entry.name, entry.method, needs(entry, known), seen))
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    backbones = [file for file in known.files.values() if file.kind == "features"]
    if backbones:
        states = (
            f"{f.name} ({'ready' if cache.is_ready(f.name) else f'fetch {f.megabytes:g} MB'})"
            for f in backbones
        )
        lines += ["", *_wrapped(f"features for profiles of normals: {', '.join(states)}")]
    warned = [e for e in known.models.values() if e.note.lower().startswith("saw every")]
    lines += ["", *(line for e in warned for line in _wrapped(f"{e.name}: {_first_sentence(e.note)}"))]
    lines += _wrapped(
        "medzsad models info NAME tells all about a model, medzsad models fetch NAME makes it ready."
    )
    return lines


def described(name: str) -> dict[str, Any]:
    """All that is known of a model, a weight file, a medzsad checkpoint or a run's folder, JSON-serialisable.

    Raises:
        ModelNotReady: if there is none of that name.
    """
    from medzsad.detectors.checkpoint import is_checkpoint_name

    known = catalogue()
    if name not in known.models and name in known.files:
        return _file_facts(known.files[name], known)
    if name not in known.models and (is_checkpoint_name(name) or Path(name).expanduser().is_dir()):
        return adapter_facts(name)
    entry = find_entry(name)
    facts = _summary(entry, known)
    facts |= {
        "settings": entry.settings,
        "note": entry.note,
        "paper": entry.paper,
        "card": None if entry.card is None or entry.path is None else str(entry.path.parent / entry.card),
        "in_short": card_in_short(entry),
        "checkpoint": None if entry.path is None else str(entry.path),
        "origin": entry.origin,
        "files": [_file_facts(known.files[part], known) for part in entry.parts],
    }
    return facts


def description(name: str) -> list[str]:
    """The same as lines for the terminal."""
    facts = described(name)
    if "adapter" in facts:
        return adapter_lines(facts)
    if "method" not in facts:
        return _file_lines(facts)
    known = catalogue()
    learned = any(file["kind"] != "clip" for file in facts["files"])
    pairs = [
        ("title", facts["title"]),
        ("method", facts["method"]),
        ("state", facts["needs"]),
        (
            "trained on",
            ", ".join(facts["seen"]) or ("not recorded" if learned else "nothing (training-free)"),
        ),
        ("note", facts["note"]),
        ("licence", facts["licence"]),
        ("paper", facts["paper"]),
        ("settings", ", ".join(f"{k} {v}" for k, v in facts["settings"].items())),
        ("checkpoint", facts["checkpoint"]),
        ("model card", facts["card"]),
        ("defined in", "" if facts["origin"] == "package" else _ORIGINS[facts["origin"]]),
    ]
    lines = [name, *_aligned(pairs)]
    for paragraph in facts["in_short"]:
        lines += ["", *_wrapped(paragraph)]
    for file in facts["files"]:
        lines += ["", *_file_lines(file)]
    absent = [known.files[f["name"]] for f in facts["files"] if not f["ready"]]
    if absent:
        lines.append("")
        if all(file.url is not None for file in absent):
            lines.append(f"To make it ready: medzsad models fetch {name}")
        lines += ["Without a network:", *by_hand(absent, name).split("\n")]
    return lines


def card_in_short(entry: ZooEntry) -> list[str]:
    """Return the paragraphs under "In short" of a model's card; none where there is no such heading."""
    if entry.card is None or entry.path is None:
        return []
    card = (entry.path.parent / entry.card).read_text(encoding="utf-8")
    _, _, after = card.partition("## In short\n")
    return [
        " ".join(paragraph.split())
        for paragraph in after.split("\n## ")[0].split("\n\n")
        if paragraph.strip()
    ]


def needs(entry: ZooEntry, known: Catalogue) -> str:
    """What a model still needs, in a few words: ``ready``, ``fetch 934+23 MB``, ``import 1 file``."""
    if not entry.parts:
        return "ready (embedded)" if entry.checkpoint else "ready"
    absent = [known.files[part] for part in entry.parts if not cache.is_ready(part)]
    if not absent:
        return "ready"
    if any(file.url is None for file in absent):
        return f"import {len(absent)} file" + ("s" if len(absent) > 1 else "")
    sizes = ["?" if file.megabytes is None else f"{file.megabytes:g}" for file in absent]
    return f"fetch {'+'.join(sizes)} MB"


def adapter_facts(name: str) -> dict[str, Any]:
    """All that a medzsad checkpoint tells of itself, JSON-serialisable.

    Args:
        name: the file, or the folder of a training run.

    Raises:
        ModelNotReady: if there is no such file, or it is damaged or another's.
    """
    from medzsad.detectors.checkpoint import read_checkpoint
    from medzsad.zoo.loading import run_adapter

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
    lines = [facts["adapter"], *_aligned(pairs)]
    data = [one for one in training.get("data", ()) if isinstance(one, dict) and "licence" in one]
    if data:
        lines += ["", "data sets seen, with their licences:"]
        lines += [
            f"  {one['dataset']} ({one['split']}, {one['images']} images): {one['licence']}" for one in data
        ]
    if "head_weights_table" in facts:
        lines += ["", *facts["head_weights_table"].splitlines()]
    return lines


def time_facts(record: Record) -> dict[str, Any]:
    """The record, JSON-serialisable, with what ``--backend auto`` takes from now on."""
    facts = asdict(record)
    for timing, stored in zip(record.timings, facts["timings"], strict=True):
        stored["within_bounds"] = timing.within
    best = record.fastest()
    return {**facts, "choice": None if best is None else [best.backend, best.precision]}


def time_lines(record: Record) -> list[str]:
    """The record as a table for the terminal."""
    from medzsad.backends.records import MAP_BOUND, SCORE_BOUND

    best = record.fastest()
    lines = [f"{record.model} on {record.cpu}, {record.threads} threads, {record.batch} at once"]
    for use, side in record.sizes.items():
        first = record.timings[0].rates[use]
        lines += ["", f"{USES[use]}, {side} px"]
        lines.append(f"{'backend':<16}{'images/s':>10}{'ratio':>8}")
        lines += [
            f"{_label(one):<16}{one.rates[use]:>10.3g}{one.rates[use] / first:>8.2f}"
            for one in record.timings
        ]
    lines += ["", "largest difference from torch fp32"]
    lines.append(f"{'backend':<16}{'maps':>10}{'scores':>10}  bounds ({MAP_BOUND:g}, {SCORE_BOUND:g})")
    lines += [
        f"{_label(one):<16}{one.map_difference:>10.1e}{one.score_difference:>10.1e}  "
        f"{'kept' if one.within else 'missed'}"
        for one in record.timings
    ]
    lines += ["", f"--backend auto takes {'torch' if best is None else _label(best)}"]
    return lines


def _label(timing: Timing) -> str:
    return f"{timing.backend} {timing.precision}"


_ORIGINS = {"user": "your own catalogue (MEDZSAD_CATALOGUE)", "imported": "the cache (medzsad models import)"}


def _summary(entry: ZooEntry, known: Catalogue) -> dict[str, Any]:
    return {
        "name": entry.name,
        "method": entry.method,
        "title": entry.title,
        "ready": all(cache.is_ready(part) for part in entry.parts),
        "needs": needs(entry, known),
        "parts": list(entry.parts),
        "seen": list(entry.seen),
        "licence": entry.licence,
    }


def _file_facts(file: WeightFile, known: Catalogue) -> dict[str, Any]:
    record = cache.read_facts(file.name)
    return {
        **asdict(file),
        "ready": record is not None,
        "path": str(cache.slot(file.name)),
        "bytes": cache.slot(file.name).stat().st_size if record is not None else None,
        "record": record,
        "used_by": users_of(file.name, known.models),
    }


def _file_lines(facts: dict[str, Any]) -> list[str]:
    file = WeightFile(**{key: facts[key] for key in WeightFile.__dataclass_fields__})
    record = facts["record"] or {}
    if facts["ready"]:
        hashed = "verified" if record.get("verified") else "not verified"
        state = f"ready, {cache.in_megabytes(facts['bytes'])}; {hashed}"
    else:
        state = "not in the cache"
    architecture = file.architecture if isinstance(file.architecture, str) else "custom"
    pairs = [
        ("kind", file.kind if file.kind != "clip" else f"clip, {architecture} {file.tag or ''}".rstrip()),
        ("state", state),
        ("path", facts["path"] if facts["ready"] else ""),
        ("made from", f"{record.get('source')} on {record.get('imported')}" if record else ""),
        ("its sha256", record.get("source_sha256", "")),
        ("size", "" if file.megabytes is None else f"{file.megabytes:g} MB"),
        ("licence", file.licence),
        ("url", file.url or ""),
        ("expected", file.hash_text),
        ("home page", file.source or ""),
        ("used by", ", ".join(facts["used_by"])),
    ]
    return [f"weights {file.name}", *_aligned(pairs)]


def _aligned(pairs: list[tuple[str, Any]]) -> list[str]:
    lines = []
    for label, value in pairs:
        if value:
            lines += textwrap.wrap(
                str(value),
                WIDTH,
                initial_indent=f"  {label:<11} ",
                subsequent_indent=" " * 14,
                break_long_words=False,  # addresses and hashes stay whole, to be copied
                break_on_hyphens=False,
            )
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _first_sentence(text: str) -> str:
    return text.split(". ")[0].rstrip(".") + "."
