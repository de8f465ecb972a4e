"""HeadCLIP's weights in files of others: prompts and head weights, found by names and shapes or as mapped.

HeadCLIP's authors say that their weights are at their repository; the layout of that file is not known here.
What is found is brought into one form: prompts as AnomalyCLIP's checkpoints name them (``prompt_learner.*``),
and ``head_weights.patch`` and ``head_weights.image``, float32 (layers of the tower, heads), the factors.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from medzsad.detectors.clip.weights import unwrapped
from medzsad.detectors.headclip.layouts import PATHS, Tower, applied, factors, find_heads, named_as_heads
from medzsad.detectors.tensor_names import last_part, listing, numbers, template, words
from medzsad.errors import ModelNotReady

if TYPE_CHECKING:
    from torch import Tensor

TARGETS = (
    "ctx_pos",
    "ctx_neg",
    "compound_prompts_text.*",
    *(f"head_weights.{path}{number}" for path in PATHS for number in ("", ".*")),
)
"""Our names, to which ``--map THEIRS=OURS`` maps; ``*`` stands for a number."""

_WORDS = {
    "ctx_pos": {"pos", "positive", "normal", "good", "norm"},
    "ctx_neg": {"neg", "negative", "abnormal", "abnorm", "anomaly", "anomalous", "damaged", "bad"},
}
_DEEP = re.compile(r"(^|.*\.)compound_prompts_text(\.\d+)?")
_OTHERS = re.compile(  # of the published prompt learner, of CLIP, and of an optimiser
    r"(^|\.)((token_(prefix|suffix)_|tokenized_prompts|compound_prompt_projections|optim|exp_avg|scheduler)\w*(\.|$)"
    r"|(ln_\d|ln_pre|ln_post|ln_final|c_fc|c_proj|conv1|(class|positional|token)_embedding|in_proj_\w+|out_proj"
    r"|qkv|proj|text_projection|logit_scale)(\.(weight|bias))?$)"
)


def parse_map(pairs: Iterable[str]) -> dict[str, str]:
    """Return ``THEIRS=OURS`` texts as a dictionary, ours by theirs.

    Raises:
        ModelNotReady: if a text has another form, ours is none of :data:`TARGETS`, or a name comes twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        theirs, _, ours = pair.rpartition("=")
        theirs = unwrapped(theirs)
        known = re.sub(r"\.\d+$", ".*", ours) in TARGETS
        if not theirs or not known or ("*" in theirs) != ("*" in ours) or theirs.count("*") > 1:
            raise ModelNotReady(
                f"`mapping` {pair}: write THEIRS=OURS, OURS one of {', '.join(TARGETS)}; * stands for a "
                "number, in both names or in neither"
            )
        if theirs in found or ours in found.values():
            raise ModelNotReady(f"`mapping` {pair}: {theirs if theirs in found else ours} is mapped twice")
        found[theirs] = ours
    return found


def how_to_map(tensors: Mapping[str, Tensor]) -> str:
    """Return what a file holds and how to say what it is, for the end of a message."""
    return (
        f"it holds {listing(tensors)}; if these are HeadCLIP's weights, say which is what with `mapping` "
        f"THEIRS=OURS, as often as needed, OURS one of {', '.join(TARGETS)}"
    )


def read_headclip(
    tensors: Mapping[str, Tensor],
    tower: Callable[[], Tower],
    *,
    mapping: Mapping[str, str] | None = None,
    parametrisation: str = "raw",
    origin: str,
) -> tuple[dict[str, Tensor], list[str]] | None:
    """Return prompts and head weights in our form, and lines that say how the file was understood.

    Args:
        tensors: the file's, by name.
        tower: gives the sizes of the backbone; asked only if the file may be HeadCLIP's.
        mapping: ours by theirs, as :func:`parse_map` gives it; what it maps is not searched for.
        parametrisation: what the file's head weights are, see HeadCLIP's setting ``head_parametrisation``.
        origin: the file, for messages.

    Returns:
        None if nothing is mapped and the file has no head weights. With a map of prompts alone, the tensors
        have no head weights: they are AnomalyCLIP's.

    Raises:
        ModelNotReady: if it cannot be told which tensor is what, or they do not fit the backbone.
    """
    left = {name: tensor for name, tensor in tensors.items() if not _OTHERS.search(name)}
    mapped = _mapped(left, mapping or {}, origin)
    if not mapped and not any(last_part(name) == "ctx_pos" or named_as_heads(name) for name in left):
        return None
    size = tower()
    prompts = {n: left.pop(n) for n in list(left) if last_part(n) in _WORDS or _DEEP.fullmatch(n)}
    try:
        heads = _mapped_heads(mapped)
        notes: list[str] = []
        if not heads:
            heads, notes = find_heads(left, size)
        if not heads and not mapped:
            return None
        result = {f"prompt_learner.{n}": t for n, t in _prompts(prompts, left, mapped, size).items()}
        for path in (path for path in PATHS if path in heads):
            weights, text = factors(heads[path], size)
            result[f"head_weights.{path}"] = applied(weights, parametrisation)
            notes.append(f"head weights of the {path} path: {text}")
    except ValueError as error:
        raise ModelNotReady(f"{origin}: {error}; {how_to_map(tensors)}") from error
    for name, tensor in result.items():
        if not bool(tensor.isfinite().all()):
            raise ModelNotReady(f"{origin}: {name} holds values that are no finite numbers")
    if left:
        notes.append(f"not used: {listing(left)}")
    return result, notes


def _mapped(tensors: dict[str, Tensor], mapping: Mapping[str, str], origin: str) -> dict[str, Tensor]:
    """Take what is mapped out of ``tensors``, under our names; for ``*`` stands ``their`` and the number."""
    found: dict[str, Tensor] = {}
    for theirs, ours in mapping.items():
        pattern = re.compile(re.escape(theirs).replace(r"\*", r"(\d+)"))
        names = [name for name in tensors if pattern.fullmatch(name)]
        if not names:
            raise ModelNotReady(f"{origin}: `mapping` {theirs}={ours}: no such tensor; {how_to_map(tensors)}")
        for name in names:
            match = pattern.fullmatch(name)
            found[ours.replace("*", "their" + "".join(match.groups() if match else ()))] = tensors.pop(name)
    return found


def _mapped_heads(mapped: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    heads: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in mapped.items():
        if name.startswith("head_weights."):
            heads[name.split(".")[1]][name] = tensor
    return heads


def _prompts(
    named: dict[str, Tensor], left: dict[str, Tensor], mapped: Mapping[str, Tensor], tower: Tower
) -> dict[str, Tensor]:
    """Return the prompts, as AnomalyCLIP names and shapes them.

    What is taken from ``left`` is deleted there.
    """
    width, found = tower.text_width, {n: t for n, t in mapped.items() if n in _WORDS}
    for wanted in [name for name in _WORDS if name not in found]:
        shaped = [n for n, t in left.items() if t.ndim == 4 and t.shape[:2] == (1, 1) and t.shape[3] == width]
        source, names = named, [n for n in named if last_part(n) == wanted]
        if not names:
            source, names = left, [n for n in shaped if words(n) & _WORDS[wanted]]
        if len(names) > 1:
            raise ValueError(f"several tensors could be {wanted}")
        if names:
            found[wanted] = source.pop(names[0])
    sizes = {t.shape[-2:] for t in found.values() if t.ndim > 1}
    if len(found) != 2 or len(sizes) != 1 or next(iter(sizes))[1] != width:
        raise ValueError(
            f"prompts ctx_pos and ctx_neg of one shape (1, 1, tokens, {width}) are needed; if they were "
            "trained on another CLIP, give it with `backbone`"
        )
    deep = [n for n in mapped if n.startswith("compound")]
    source = dict(mapped)
    if not deep:
        source, deep = named, [n for n in named if _DEEP.fullmatch(n)]
    if not deep:
        source, deep = (
            left,
            [n for n, t in left.items() if t.ndim == 2 and t.shape[1] == width and numbers(n)],
        )
    if len(set(map(template, deep))) > 1:
        raise ValueError("several groups of tensors could be compound_prompts_text")
    blocks = [source.pop(n) for n in sorted(deep, key=numbers)]
    if len(blocks) == 1 and blocks[0].ndim == 3:  # all blocks in one tensor
        blocks = list(blocks[0])
    result = {n: t.reshape(1, 1, -1, width).float() for n, t in found.items()}
    if any(block.ndim < 2 or block.shape[-1] != width for block in blocks):
        raise ValueError(f"compound_prompts_text must be tensors (tokens, {width})")
    return result | {f"compound_prompts_text.{i}": t.reshape(-1, width).float() for i, t in enumerate(blocks)}
