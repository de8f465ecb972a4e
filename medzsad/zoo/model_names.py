"""What somebody meant who named a model that there is not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

MOST = 3
# Methods whose bare name is no model, and what a reader should know of them.
EXPLAINED = {
    "headclip": (
        "HeadCLIP's own weights are at its authors' repository (kiyoonjeong0305/HeadCLIP); "
        "medzsad models import FILE `as` NAME takes them."
    ),
    "clip": "Plain CLIP is named with its architecture.",
}
# Short words that stand for one of our names.
ALIASES = {"mini": "medzsad-mini", "medzsad": "medzsad-mini", "default": "medzsad-mini"}


def unknown_model(name: str, known: Collection[str]) -> str:
    """Return one line that says that there is no such model, and what may have been meant.

    Args:
        name: as asked for.
        known: the names of all models.
    """
    if re.search(r"[/\\]|^[~.]|\.\w{1,11}$", name):
        return f"{name}: no such file or folder; give a run's folder, a .safetensors file or a model's name"
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    near = " or ".join(nearest_names(wanted, known))
    explained = EXPLAINED.get(wanted.replace("-", ""), "")
    question = f"Did you mean {near}?" if near else ""
    hints = [explained, question, "medzsad models list shows all."]
    return f"unknown model {name!r}. {' '.join(hint for hint in hints if hint)}"


def nearest_names(wanted: str, known: Collection[str]) -> list[str]:
    """Return at most :data:`MOST` names: an alias, those that begin with it or hold it, or those alike."""
    if ALIASES.get(wanted) in known:
        return [ALIASES[wanted]]
    begin = [name for name in known if name.startswith(wanted)]
    hold = [name for name in known if wanted in name and name not in begin]
    alike = difflib.get_close_matches(wanted, list(known), n=MOST, cutoff=0.5)
    return ((begin + hold) or alike)[:MOST]
