"""What a report says of the model: the catalogue's entry and, for embedded detectors, their model card."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medzsad.results.prediction import ScanPrediction

CARD_SECTIONS = ("What it is for", "Limits")
INTENDED_USE = "Research: to look at scans and to compare methods. Not for diagnosis, screening or treatment."
UNKNOWN = "not recorded"


@dataclass(frozen=True)
class CardSummary:
    """A model in a few lines.

    Attributes:
        facts: label and value, in order.
        sections: title and text (plain, paragraphs split by blank lines) from the model card.
    """

    facts: dict[str, str]
    sections: dict[str, str] = field(default_factory=dict)


def summarise_card(prediction: ScanPrediction) -> CardSummary:
    """What is known of the model of a prediction."""
    from medzsad.detectors.zoo import catalogue, weights_folder

    name = str(prediction.settings.get("model") or "unknown")
    entry = catalogue().models.get(name)
    facts = {"Model": name, "Method": str(prediction.settings.get("method") or UNKNOWN)}
    sections: dict[str, str] = {}
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
            sections = card_sections((weights_folder() / entry.card).read_text(encoding="utf-8"))
    rule = prediction.threshold_rule
    asked = "" if _is_number(rule) else f" ({rule})"
    facts["Threshold used"] = f"{prediction.threshold:.4g}{asked}"
    facts["Intended use"] = INTENDED_USE
    return CardSummary(facts, sections)


def card_sections(markdown: str) -> dict[str, str]:
    """The :data:`CARD_SECTIONS` of a model card, without markup; tables and code are left out."""
    found = {}
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", markdown, flags=re.DOTALL | re.MULTILINE):
        if title.strip() in CARD_SECTIONS:
            paragraphs = [" ".join(text.split()) for text in body.split("\n\n")]
            prose = [text for text in paragraphs if text and not text.startswith(("|", "```"))]
            found[title.strip()] = re.sub(r"\*\*|`|(?<!\w)\*|\*(?!\w)", "", "\n\n".join(prose))
    return found


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"\d*\.?\d+(e-?\d+)?", text))
