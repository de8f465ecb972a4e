"""What a report says of the model: the catalogue's entry and, for embedded detectors, their model card."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction

CARD_SECTION = "In short"  # of a model card: plain sentences for those who read a result
INTENDED_USE = "Research: to look at scans and to compare methods. Not for diagnosis, screening or treatment."
UNKNOWN = "not recorded"


@dataclass(frozen=True)
class CardSummary:
    """A model in a few lines.

    Attributes:
        facts: label and value, in order.
        paragraphs: what the model card says in short; plain text.
    """

    facts: dict[str, str]
    paragraphs: tuple[str, ...] = ()


def summarise_card(prediction: ScanPrediction) -> CardSummary:
    """Return what is known of the model of a prediction."""
    from medzsad.zoo.catalogue import catalogue, weights_folder

    name = str(prediction.settings.get("model") or "unknown")
    entry = catalogue().models.get(name)
    facts = {"Model": name, "Method": str(prediction.settings.get("method") or UNKNOWN)}
    paragraphs: tuple[str, ...] = ()
    if entry is None:
        facts["Origin"] = "a checkpoint that is not in the catalogue"
        facts["Licence"] = facts["Trained on"] = UNKNOWN
    else:
        learned = entry.adapter is not None or entry.checkpoint is not None
        facts["What it is"] = entry.title or UNKNOWN
        facts["Licence"] = entry.licence
        facts["Trained on"] = ", ".join(entry.seen) or (UNKNOWN if learned else "nothing (training-free)")
        facts |= {label: text for label, text in (("Paper", entry.paper), ("Note", entry.note)) if text}
        if entry.card is not None:
            paragraphs = card_in_short((weights_folder() / entry.card).read_text(encoding="utf-8"))
    rule = prediction.threshold_rule
    asked = "" if _is_number(rule) else f" ({rule})"
    facts["Threshold used"] = f"{prediction.threshold:.4g}{asked}"
    facts["Intended use"] = INTENDED_USE
    return CardSummary(facts, paragraphs)


def card_in_short(markdown: str) -> tuple[str, ...]:
    """Return the paragraphs of a model card's :data:`CARD_SECTION`, without markup; none without one."""
    section = re.search(rf"^## {CARD_SECTION}\n(.*?)(?=^## |\Z)", markdown, flags=re.DOTALL | re.MULTILINE)
    if section is None:
        return ()
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", section[1])
    text = re.sub(r"\*\*|`|(?<!\w)\*|\*(?!\w)", "", text)
    return tuple(" ".join(part.split()) for part in text.split("\n\n") if part.strip())


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"\d*\.?\d+(e-?\d+)?", text))
