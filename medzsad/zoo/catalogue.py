"""The catalogue of named detectors and of the weight files they need. Reading it imports nothing heavy.

Three catalogues of the same form are merged, later ones over earlier ones, field by field: the package's
``zoo.yaml``, the file that ``MEDZSAD_CATALOGUE`` names, and the cache's, which ``medzsad models import``
writes.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.resources import files as package_files
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from medzsad.detectors.registry import METHODS
from medzsad.errors import ModelNotReady
from medzsad.settings import Settings
from medzsad.storage import cache
from medzsad.zoo.catalogue_files import merge, read_catalogue

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
KINDS = ("clip", "features", "headclip", "anomalyclip", "adaclip", "medzsad")
WITHOUT_CLIP = ("mini", "brightness", "darkness", "asymmetry")
"""Methods that no CLIP is needed for."""


class WeightFile(Settings, refusal=ModelNotReady):
    """A file of weights, and where it comes from.

    Attributes:
        name: what the user types; also names its place in the cache.
        kind: ``"clip"``; ``"features"``, a backbone that patches are compared by; or who learned the adapter:
            ``"headclip"``, ``"anomalyclip"``, ``"adaclip"``, ``"medzsad"``.
        architecture: for CLIP, open_clip's model name, or ``{embed_dim, vision_cfg, text_cfg}``.
        tag: for CLIP, open_clip's pretrained tag.
        quick_gelu: for CLIP, whether the weights were trained with QuickGELU; None if that is not known.
        url: where the original is (``https``, ``http`` or ``file``); None if it can only be imported.
        sha256: of the original; 8 digits or more of its beginning, all 64 where known.
        git_blob: of the original, git's name for it: sha1 of ``"blob <size>\\\\0"`` and the bytes.
        megabytes: rounded size of the original; for information.
        licence: SPDX identifier, as far as there is one.
        source: home page.
    """

    name: str
    kind: str
    architecture: str | dict[str, Any] | None = None
    tag: str | None = None
    quick_gelu: bool | None = None
    url: str | None = None
    sha256: str | None = None
    git_blob: str | None = None
    megabytes: int | float | None = None
    licence: str = "unknown"
    source: str | None = None

    @property
    def original_name(self) -> str | None:
        """The file's name at its source."""
        return None if self.url is None else PurePosixPath(unquote(urlsplit(self.url).path)).name

    @property
    def incoming_name(self) -> str:
        """The name under which the original may be put into the cache's ``incoming`` folder."""
        return self.name + PurePosixPath(self.original_name or ".pth").suffix

    @property
    def hash_text(self) -> str:
        """How the file is verified, for people."""
        known = []
        if self.sha256:
            known.append(f"sha256 {self.sha256}" + ("..." if len(self.sha256) < 64 else ""))
        if self.git_blob:
            known.append(f"git blob {self.git_blob}")
        return ", ".join(known) or "unverified: no hash is known"


class ZooEntry(Settings, refusal=ModelNotReady):
    """A named detector.

    Attributes:
        name: what the user types.
        method: key of :data:`medzsad.detectors.registry.METHODS`.
        title: one line for lists.
        clip: weight file of the backbone.
        adapter: weight file of what was learned on top.
        checkpoint: file name in the package's ``weights`` folder.
        card: file name of the model card there.
        settings: the method's settings that differ from its defaults.
        seen: the sets it was trained on, so that nobody calls a comparison on them zero-shot.
        note: what one must know before using it.
        licence: SPDX identifier of the weights.
        paper: where the method was published.
        origin: the catalogue that defines it: ``"package"``, ``"user"`` or ``"imported"``.
    """

    name: str
    method: str
    title: str = ""
    clip: str | None = None
    adapter: str | None = None
    checkpoint: str | None = None
    card: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    seen: tuple[str, ...] = ()
    note: str = ""
    licence: str = "unknown"
    paper: str = ""
    origin: str = "package"

    @property
    def path(self) -> Path | None:
        """The embedded checkpoint file, if this is an embedded detector."""
        return None if self.checkpoint is None else weights_folder() / self.checkpoint

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the weight files it needs, the CLIP first."""
        return tuple(name for name in (self.clip, self.adapter) if name is not None)


@dataclass(frozen=True)
class Catalogue:
    """All weight files and all models, in order."""

    files: dict[str, WeightFile]
    models: dict[str, ZooEntry]


def weights_folder() -> Path:
    """Return the folder of the weights that ship with the package."""
    return Path(str(package_files("medzsad"))) / "weights"


def catalogue() -> Catalogue:
    """Return the merged catalogue, read anew each time.

    Raises:
        ModelNotReady: if a catalogue cannot be read or is wrong; the message names the file and the entry.
    """
    sources = [("package", Path(__file__).parent / "zoo.yaml")]
    if os.environ.get("MEDZSAD_CATALOGUE"):
        sources.append(("user", Path(os.environ["MEDZSAD_CATALOGUE"]).expanduser()))
    if cache.own_catalogue().is_file():
        sources.append(("imported", cache.own_catalogue()))
    raw: dict[str, dict[str, dict[str, Any]]] = {"files": {}, "models": {}}
    homes: dict[tuple[str, str], tuple[str, Path]] = {}  # where an entry was defined or changed last
    for origin, path in sources:
        for section, entries_ in read_catalogue(path).items():
            for name, fields in entries_.items():
                homes[section, name] = (origin, path)
                if section == "models" and name not in raw[section]:
                    fields = {**fields, "origin": origin}
                raw[section][name] = merge(raw[section].get(name, {}), fields)
    weight_files: dict[str, WeightFile] = {}
    for name, fields in raw["files"].items():
        label = f"{homes['files', name][1]}: file {name!r}"
        weight_files[name] = WeightFile.from_dict(_named(name, fields, label), origin=label)
        _check_file(weight_files[name], label)
    models: dict[str, ZooEntry] = {}
    for name, fields in raw["models"].items():
        label = f"{homes['models', name][1]}: model {name!r}"
        models[name] = ZooEntry.from_dict(_named(name, fields, label), origin=label)
        _check_model(models[name], weight_files, label)
    return Catalogue(weight_files, models)


def entries() -> dict[str, ZooEntry]:
    """All named detectors, in the catalogue's order."""
    return catalogue().models


def weight_files() -> dict[str, WeightFile]:
    """All weight files, in the catalogue's order."""
    return catalogue().files


def find_entry(name: str) -> ZooEntry:
    """Return the entry called ``name``.

    Raises:
        ModelNotReady: if there is none; the message says which may have been meant.
    """
    known = entries()
    if name not in known:
        raise ModelNotReady(unknown_model(name, known))
    return known[name]


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


def absent_parts(entry: ZooEntry) -> list[WeightFile]:
    """Return the weight files of ``entry`` that the cache does not hold yet."""
    known = weight_files() if entry.parts else {}
    return [known[name] for name in entry.parts if not cache.is_ready(name)]


def find_clip(
    known: Mapping[str, WeightFile], backbone: str | Mapping[str, Any] | None, weights: str | None
) -> WeightFile | None:
    """Return the CLIP whose architecture is ``backbone`` and whose tag or name is ``weights``."""
    for file in known.values():
        if file.kind == "clip" and file.architecture == backbone and weights in (file.tag, file.name):
            return file if weights is not None else None
    return None


def users_of(file: str, models: Mapping[str, ZooEntry]) -> list[str]:
    """Return the names of the models that need the weight file ``file``."""
    return [name for name, entry in models.items() if file in entry.parts]


def _named(name: str, fields: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Return an entry's fields with its name, without those that are None, as if they were not there."""
    if "name" in fields:
        raise ModelNotReady(f"{label}: unknown key 'name'; the entry's key is its name")
    return {"name": name, **{key: value for key, value in fields.items() if value is not None}}


def _check_file(file: WeightFile, label: str) -> None:
    def fail(reason: str) -> ModelNotReady:
        return ModelNotReady(f"{label}: {reason}")

    if file.kind not in KINDS:
        raise fail(f"unknown kind {file.kind!r}; use one of {', '.join(KINDS)}")
    if file.kind == "clip" and file.architecture is None:
        raise fail("a CLIP needs its architecture (open_clip's model name)")
    if file.url is not None and urlsplit(file.url).scheme not in ("https", "http", "file"):
        raise fail(f"url {file.url!r} must begin with https://, http:// or file://")
    for key, value, shortest, longest in (
        ("sha256", file.sha256, 8, 64),
        ("git_blob", file.git_blob, 40, 40),
    ):
        if value is not None and not (
            shortest <= len(value) <= longest and set(value) <= set("0123456789abcdef")
        ):
            raise fail(f"{key} {value!r} must be hexadecimal digits in lower case")


def _check_model(entry: ZooEntry, known: Mapping[str, WeightFile], label: str) -> None:
    def fail(reason: str) -> ModelNotReady:
        return ModelNotReady(f"{label}: {reason}")

    if entry.method not in METHODS:
        raise fail(f"unknown method {entry.method!r}; use one of {', '.join(sorted(METHODS))}")
    for role, name in (("clip", entry.clip), ("adapter", entry.adapter)):
        if name is None:
            continue
        if name not in known:
            raise fail(f"its {role} {name!r} is no entry of files")
        if (known[name].kind == "clip") != (role == "clip") or known[name].kind == "features":
            raise fail(f"its {role} {name!r} is of kind {known[name].kind!r}")
    if entry.checkpoint is not None and entry.parts:
        raise fail("an embedded checkpoint has no clip and no adapter")
    if entry.checkpoint is None and entry.clip is None and entry.method not in WITHOUT_CLIP:
        raise fail(f"method {entry.method!r} needs a clip")
