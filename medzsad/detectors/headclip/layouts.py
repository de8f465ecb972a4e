"""HeadCLIP's head weights in files of others: which tensors they are, of which path and of which layers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medzsad.detectors.tensor_names import numbers, template, words

if TYPE_CHECKING:
    from torch import Tensor

PATHS = ("patch", "image")
_WORDS = {
    "patch": {"patch", "patches", "vv", "dpam", "local", "pixel", "seg", "dense"},
    "image": {"image", "img", "global", "cls", "class", "ori", "ordinary", "qkv"},
}
_HEAD_WORDS = {"head", "heads", "lhw", "headweight", "headweights"}


@dataclass(frozen=True)
class Tower:
    """What head weights and prompts must fit.

    Attributes:
        depth: layers of the image tower.
        heads: attention heads of each.
        text_width: width of the text tower's tokens.
    """

    depth: int
    heads: int
    text_width: int


def tower_of(architecture: str | Mapping[str, object] | None) -> Tower:
    """Return the sizes of an open_clip model (name or configuration; None for that of HeadCLIP's paper).

    Raises:
        ModelNotReady: if it is unknown or of a kind that is not supported.
    """
    from medzsad.detectors.clip.configuration import read_configuration

    _, config = read_configuration(architecture or "ViT-L-14-336", text=True)
    vision, text = config["vision_cfg"], config["text_cfg"]
    heads = vision.get("width", 768) // vision.get("head_width", 64)
    return Tower(vision.get("layers", 12), heads, text.get("width", 512))


def named_as_heads(name: str) -> bool:
    """Return whether a tensor's name speaks of attention heads."""
    return bool(words(name) & _HEAD_WORDS)


def find_heads(left: dict[str, Tensor], tower: Tower) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Take the tensors that are head weights, by name and shape, out of ``left``.

    Returns:
        Per path ``"patch"`` or ``"image"`` the tensors by name, and lines that say what was assumed.

    Raises:
        ValueError: if it cannot be told which tensors they are, or of which path.
    """
    shaped = [name for name, tensor in left.items() if _could_be_heads(tensor, tower)]
    chosen = [name for name in shaped if named_as_heads(name)] or shaped
    if not chosen:
        if any(map(named_as_heads, left)):
            raise ValueError(
                f"its head weights do not fit a tower of {tower.depth} layers with {tower.heads} heads; give "
                "the CLIP that they were trained on with `backbone`"
            )
        return {}, []
    groups: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name in chosen:
        groups[_group(name, chosen)][name] = left[name]
    paths, notes = _by_path(groups)
    for name in chosen:
        del left[name]
    return paths, notes


def factors(members: Mapping[str, Tensor], tower: Tower) -> tuple[Tensor, str]:
    """Return the weights of one path, float32 (depth, heads), 1 for layers without; and which layers it has.

    Raises:
        ValueError: if the shapes do not fit the tower, or it cannot be told which layers they are of.
    """
    import torch

    layers, rows = _rows(members, tower)
    if len(set(layers)) != len(layers) or min(layers) < 1 or max(layers) > tower.depth:
        raise ValueError(f"layers {_ranges(layers)} are not among layers 1 to {tower.depth}")
    result = torch.ones(tower.depth, tower.heads)
    result[[layer - 1 for layer in layers]] = rows.float()
    return result, f"layers {_ranges(layers)} of {tower.depth}, {tower.heads} heads, mean {rows.mean():.3g}"


def applied(weights: Tensor, parametrisation: str) -> Tensor:
    """Return the factors of weights (layers, heads) that are stored raw or before a softmax or sigmoid."""
    if parametrisation == "softmax":
        return weights.shape[-1] * weights.softmax(-1)
    return 2 * weights.sigmoid() if parametrisation == "sigmoid" else weights


def _by_path(groups: Mapping[str, dict[str, Tensor]]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    if len(groups) == 1:
        ((key, members),) = groups.items()
        tensor = _squeezed(next(iter(members.values())))
        if len(members) == 1 and tensor.ndim == 3:
            both = {path: {path: tensor[i]} for i, path in enumerate(PATHS)}
            return both, [f"{key}: two paths in one tensor, taken as patch and image, in this order"]
        if _says(key, "image") and not _says(key, "patch"):
            return {"image": members}, []
        return {"patch": members}, [
            f"{key}: the only head weights, taken for the patch (V-V) path; if they are the ordinary path's, "
            "map them to head_weights.image"
        ]
    shared = set.intersection(*map(words, groups))
    paths: dict[str, dict[str, Tensor]] = {}
    for key, members in groups.items():
        said = [path for path in PATHS if _says(key, path, without=shared)]
        if len(groups) != 2 or len(said) != 1 or said[0] in paths:
            raise ValueError(
                f"{len(groups)} groups of tensors may be head weights ({', '.join(groups)}), and their names "
                "do not say of which path"
            )
        paths[said[0]] = members
    return paths, []


def _rows(members: Mapping[str, Tensor], tower: Tower) -> tuple[list[int], Tensor]:
    """Layers, counted from 1, and their weights (layers, heads)."""
    import torch

    depth, heads = tower.depth, tower.heads
    name, tensor = next(iter(members.items()))
    rows = _squeezed(tensor)
    if len(members) == 1 and (rows.ndim > 1 or not numbers(name)):
        if rows.ndim == 2 and rows.shape[1] != heads and rows.shape[0] == heads:
            rows = rows.T
        if rows.ndim == 1 and rows.numel() and rows.numel() % heads == 0:
            rows = rows.reshape(-1, heads)
        if rows.ndim != 2 or rows.shape[1] != heads or not 1 <= len(rows) <= depth:
            raise ValueError(
                f"{name} {tuple(tensor.shape)} is no (layers, heads) of up to {depth} layers, {heads} heads"
            )
        # Fewer than all layers are the last ones: AnomalyCLIP's second path replaces blocks from the end.
        return list(range(depth - len(rows) + 1, depth + 1)), rows
    names = sorted(members, key=numbers)
    if any(members[n].numel() != heads for n in names):
        raise ValueError(f"{heads} head weights per layer are needed")
    rows = torch.stack([members[n].reshape(heads) for n in names])
    if all(re.fullmatch(r"head_weights\.\w+\.\d+", n) for n in names):  # mapped by hand
        return [numbers(n)[-1] for n in names], rows
    columns = [list(column) for column in zip(*map(numbers, names), strict=True)]
    varying = [column for column in columns if len(set(column)) == len(names)]
    if not varying:
        raise ValueError("the names of the head weights do not number the layers")
    return _layers(varying[-1 if len(names) == 1 else 0], depth), rows


def _layers(counted: list[int], depth: int) -> list[int]:
    """Layers, from 1, that numbers in names mean, which count from 0 or from 1, in the tower or in a list."""
    if max(counted) == depth:
        return counted
    if max(counted) == depth - 1:
        return [number + 1 for number in counted]
    consecutive = counted == list(range(counted[0], counted[0] + len(counted)))
    if consecutive and counted[0] in (0, 1) and len(counted) > 1:  # a list of the last layers'
        return list(range(depth - len(counted) + 1, depth + 1))
    raise ValueError(
        f"it cannot be told whether layers {_ranges(counted)} of {depth} count from 0 or from 1; map each by "
        "hand to head_weights.PATH.N, N from 1"
    )


def _group(name: str, names: Collection[str]) -> str:
    """Return the name with the number of its layer as ``*``: of its numbers the one that varies most."""
    alike = [numbers(other) for other in names if template(other) == template(name)]
    distinct = [len(set(column)) for column in zip(*alike, strict=True)]
    if not distinct:
        return name
    most = distinct.index(max(distinct))
    parts = re.split(r"(\d+)", name)
    parts[2 * most + 1] = "*"
    return "".join(parts)


def _could_be_heads(tensor: Tensor, tower: Tower) -> bool:
    shape = tuple(_squeezed(tensor).shape)
    if not tensor.is_floating_point() or len(shape) > 3:
        return False
    if len(shape) == 1:
        return shape == (tower.heads,)
    if shape[:-2] not in ((), (2,)) or tower.heads not in shape[-2:]:
        return False
    return (shape[-2] if shape[-1] == tower.heads else shape[-1]) <= tower.depth


def _squeezed(tensor: Tensor) -> Tensor:
    squeezed = tensor.squeeze()
    return squeezed.reshape(1) if squeezed.ndim == 0 else squeezed


def _says(name: str, path: str, without: Collection[str] = ()) -> bool:
    return bool((words(name) - set(without)) & _WORDS[path])


def _ranges(layers: Sequence[int]) -> str:
    if len(layers) > 2 and list(layers) == list(range(layers[0], layers[0] + len(layers))):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(map(str, layers))
