"""Weight files of others to ours: recognised by their tensors' names, converted, with a record.

Nothing is ever unpickled (see :mod:`medzsad.detectors.clip.weights`).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from medzsad import __version__
from medzsad.detectors.clip.weights import read_tensors
from medzsad.detectors.headclip.files import how_to_map, read_headclip
from medzsad.detectors.headclip.layouts import Tower, tower_of
from medzsad.detectors.tensor_names import listing
from medzsad.errors import ModelNotReady, OutputNotWritable
from medzsad.storage import cache
from medzsad.zoo.catalogue import WeightFile
from medzsad.zoo.clip_shapes import check_fits
from medzsad.zoo.download import Hashes

if TYPE_CHECKING:
    from torch import Tensor

_OPENAI_EXTRAS = {"input_resolution", "context_length", "vocab_size"}


@dataclass(frozen=True)
class Recognised:
    """A file of weights, read.

    Attributes:
        path: the file.
        kind: one of :data:`medzsad.zoo.catalogue.KINDS`.
        tensors: by name, of the type they were stored in: a CLIP's with open_clip's names, AnomalyCLIP's as
            ``prompt_learner.*``, AdaCLIP's as ``clip_model.*``, HeadCLIP's as
            :mod:`medzsad.detectors.headclip.files` says, a medzsad checkpoint's as they are.
        quick_gelu: for CLIP, True if the file shows that it was trained with QuickGELU, else None.
        header: for a medzsad checkpoint, its own metadata, which must be kept.
        notes: lines for the user: how the file was understood, and what of it is not used.
    """

    path: Path
    kind: str
    tensors: dict[str, Tensor]
    quick_gelu: bool | None = None
    header: str | None = None
    notes: tuple[str, ...] = ()


def recognise(
    path: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    parametrisation: str = "raw",
    tower: Callable[[], Tower] = lambda: tower_of(None),
) -> Recognised:
    """Read a file and tell from its tensors' names and shapes whose it is.

    Args:
        path: the file.
        mapping, parametrisation, tower: see :func:`~medzsad.detectors.headclip.files.read_headclip`.

    Raises:
        ModelNotReady: if it cannot be read, could run code, or is of no kind that is known.
    """
    tensors, archive = read_tensors(path)
    metadata = _metadata(path)
    if "medzsad" in metadata and not mapping:
        return Recognised(path, "medzsad", tensors, header=metadata["medzsad"])
    if "ctx_pos" in tensors and not mapping:  # the bare state dict of AnomalyCLIP's prompt learner
        tensors = {f"prompt_learner.{name}": tensor for name, tensor in tensors.items()}
    if any(name.startswith("clip_model.patch_token_layer.") for name in tensors) and not mapping:
        return Recognised(path, "adaclip", _part(tensors, "clip_model."))
    found = read_headclip(tensors, tower, mapping=mapping, parametrisation=parametrisation, origin=str(path))
    if found is not None:
        kind = "headclip" if any(name.startswith("head_weights.") for name in found[0]) else "anomalyclip"
        return Recognised(path, kind, found[0], notes=tuple(found[1]))
    if "prompt_learner.ctx_pos" in tensors:
        prompts = _part(tensors, "prompt_learner.")
        left = {name: tensor for name, tensor in tensors.items() if name not in prompts}
        return Recognised(path, "anomalyclip", prompts, notes=(f"not used: {listing(left)}",) if left else ())
    if is_dinov2(tensors):
        return Recognised(path, "features", tensors)
    if "visual.conv1.weight" in tensors and "visual.class_embedding" in tensors:
        openai = archive or set(tensors) >= _OPENAI_EXTRAS
        return Recognised(path, "clip", tensors, quick_gelu=True if openai else None)
    if any("vision_model." in name for name in tensors):
        raise ModelNotReady(
            f"{path}: CLIP weights in the layout of Hugging Face transformers; needed is open_clip's layout"
        )
    if "visual.conv1.weight" in tensors or any(name.startswith("visual.trunk.") for name in tensors):
        raise ModelNotReady(f"{path}: a CLIP whose image tower is no ViT of open_clip's; it cannot be used")
    raise ModelNotReady(
        f"{path}: holds neither CLIP weights (OpenAI's or open_clip's), nor HeadCLIP's, AnomalyCLIP's, "
        f"AdaCLIP's or DINOv2's, nor a medzsad checkpoint; {how_to_map(tensors)}"
    )


def install(file: WeightFile, source: Recognised, hashes: Hashes, *, verified: bool) -> Path:
    """Store a file's tensors as safetensors in the cache, with a record of where they are from.

    Args:
        file: the catalogue's entry; names the place.
        source: the file as read. Its tensors are released one by one, and it is empty afterwards.
        hashes: of the original.
        verified: whether these were compared with the catalogue's.

    Raises:
        ModelNotReady: if the file is of another kind, or a CLIP of another architecture.
        OutputNotWritable: if the cache cannot be written.
    """
    if source.kind != file.kind:
        raise ModelNotReady(
            f"{source.path}: recognised as {source.kind!r}, but {file.name} is of kind {file.kind!r}"
        )
    if file.kind == "clip":
        check_fits(source.tensors, file.architecture, str(source.path))
    quick_gelu = file.quick_gelu if file.quick_gelu is not None else source.quick_gelu
    record: dict[str, Any] = {
        **({"notes": list(source.notes)} if source.notes else {}),
        "kind": file.kind,
        "source": file.original_name if source.path == cache.partial(file.name) else source.path.name,
        "source_sha256": hashes.sha256,
        "source_git_blob": hashes.git_blob,
        "verified": verified,
        "url": file.url,
        "licence": file.licence,
        "imported": datetime.date.today().isoformat(),
        "medzsad_version": __version__,
        "quick_gelu": quick_gelu,
    }
    metadata = {cache.METADATA_KEY: json.dumps(record, sort_keys=True)}
    if source.header is not None:
        metadata["medzsad"] = source.header
    path = cache.slot(file.name)
    size = sum(tensor.numel() * tensor.element_size() for tensor in source.tensors.values())
    cache.make_folder(path.parent)
    cache.require_space(path, size, file.name)
    tensors = {}
    for name in list(source.tensors):
        # A copy each, because tensors may share memory or be views of a mapped file.
        tensors[name] = source.tensors.pop(name).detach().cpu().contiguous().clone()
    with cache.landing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # which is how it reports a full disk, without an errno
            raise OutputNotWritable(
                f"{path}: cannot be written ({' '.join(str(error).split())}); make room, or set "
                "MEDZSAD_CACHE to a folder on another disk"
            ) from error
    return path


def is_dinov2(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether these are a DINOv2's of patches of 14 pixels, as its authors or timm name them."""
    patches = tensors.get("patch_embed.proj.weight")
    return (
        {"cls_token", "pos_embed", "blocks.0.ls1.gamma"} <= tensors.keys()
        and patches is not None
        and tuple(patches.shape[1:]) == (3, 14, 14)
    )


def _metadata(path: Path) -> dict[str, str]:
    try:
        return cache.read_header(path)[0]
    except (ModelNotReady, OSError):
        return {}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
