"""What a server, a client and a training are told, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from medzsad.detectors.organs import organ_names, vocabulary
from medzsad.detectors.volume_rules import CHOICES
from medzsad.errors import BadInput
from medzsad.limits import SMALLEST_SIDE, check_batch, check_limit
from medzsad.predicting import PredictOptions
from medzsad.results.lesions import parse_threshold
from medzsad.scans.intensity import WINDOWS, parse_windows
from medzsad.scans.modality import parse_modality
from medzsad.scans.region import BRAIN, WHOLE
from medzsad.scans.scan import Modality
from medzsad.scans.slices import Plane
from medzsad.settings import Settings
from medzsad.storage.text_files import parse_json_object, whole_number

_IGNORED = ("server_mode",)
"""Keys that MONAI Label itself adds."""


class AppConf(Settings):
    """The app's settings.

    Attributes:
        models: names joined by ``,``: of the zoo, medzsad checkpoints or folders of training runs; empty for
            every model of the zoo that is ready.
        device, precision, backend: for :func:`medzsad.load_detector`.
        parallel: predictions at once; each takes the memory of a scan and its map.
        keep: detectors that stay loaded.
        scoring_model: what scans are scored with; empty for the first model.
        clip_weights: what HeadCLIP is trained on: a CLIP of the catalogue, or a file; empty for one that is
            ready.
        clip_architecture: of a ``clip_weights`` file: open_clip's name of the model, or its configuration as
            JSON.
    """

    models: str = ""
    device: str = "auto"
    precision: str = "auto"
    backend: str = "torch"
    parallel: int = 1
    keep: int = 2
    scoring_model: str = ""
    clip_weights: str = ""
    clip_architecture: str = "ViT-L-14-336"

    @classmethod
    def parse(cls, conf: Mapping[str, Any]) -> AppConf:
        """Return the settings of ``conf``.

        Raises:
            BadInput: on an unknown key, or a number that is none or too small.
        """
        known = {field.name: field for field in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in conf.items():
            if key in _IGNORED:
                continue
            if key not in known:
                raise BadInput(f"`conf` {key}: unknown; use one of {', '.join(known)}")
            values[key] = str(value).strip()
            if isinstance(known[key].default, int):
                values[key] = whole_number(values[key], f"`conf` {key}", 1)
                check_limit(values[key], "MEDZSAD_MAX_WORKERS", f"`conf` {key}", "at once")
        return cls(**values)

    @property
    def model_names(self) -> list[str]:
        """The names of ``models``, in order."""
        return [name.strip() for name in self.models.split(",") if name.strip()]

    @property
    def architecture(self) -> str | dict[str, Any]:
        """``clip_architecture``, read.

        Raises:
            BadInput: if it looks like JSON and is none.
        """
        if not self.clip_architecture.startswith("{"):
            return self.clip_architecture
        return parse_json_object(self.clip_architecture, "`conf` clip_architecture")


EXTENSIONS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".png")
DTYPES = ("uint8", "int16", "uint16", "float32")
DEFAULT = "default"
"""The word for "as medzsad predict would do it"; an empty text means the same."""


class InferParameters(PredictOptions):
    """How one scan is to be predicted, and what is to be sent back.

    Attributes:
        modality: None for what the file says, or what is guessed.
        organ, class_name: what the scan shows, for models whose texts name it: see
            :func:`medzsad.load_detector`.
        volume: which one of a 4D file.
        extension: of the label file, one of :data:`EXTENSIONS`; None for what suits the scan.
        dtype: of the label file, one of :data:`DTYPES`.
        compress: whether a label file of ITK's formats is compressed; ``.nii.gz`` and ``.seg.nrrd`` are
            in any case.
    """

    modality: str | None = None
    organ: str | None = None
    class_name: str | None = None
    volume: int | None = None
    extension: str | None = None
    dtype: str = "uint8"
    compress: bool = False

    @classmethod
    def parse(cls, request: Mapping[str, Any]) -> InferParameters:
        """Return the parameters of a request; keys that are not ours are MONAI Label's own, and left alone.

        Raises:
            BadInput: on a value that is impossible; what must fit the scan is checked when it is read.
        """
        threshold, window, modality = (_text(request, key) for key in ("threshold", "window", "modality"))
        if window is not None:
            parse_windows(window)
        organ, class_name = texts_of(request)
        parameters = cls(
            # 0 is what a form field without a number sends.
            min_volume=_decimal(request, "min_volume") or None,
            max_candidates=number_of(request, "max_candidates", 0) or None,
            all_candidates=_yes(request, "all_candidates"),
            batch_size=number_of(request, "batch_size", 0) or None,
            roi=_choice(request, "roi", (WHOLE, BRAIN)),
            volume_rules=_choice(request, "volume_rules", CHOICES) or "auto",
            slice_step=_text(request, "slice_step"),
            first_pass=number_of(request, "first_pass", 0) or None,
            threshold=None if threshold is None else parse_threshold(threshold),
            plane=_text(request, "plane") or "auto",
            window=window,
            modality=None if modality is None else str(parse_modality(modality)),
            organ=organ,
            class_name=class_name,
            volume=number_of(request, "volume", 0),
            extension=_choice(request, "result_extension", EXTENSIONS),
            dtype=_choice(request, "result_dtype", DTYPES) or "uint8",
            compress=_yes(request, "result_compress"),
        )
        parameters.check()
        return parameters

    @staticmethod
    def choices() -> dict[str, Any]:
        """Return what 3D Slicer shows of it under "Options".

        Defaults, and lists to choose from, defaults first.
        """
        return {
            "threshold": DEFAULT,
            "plane": [str(plane) for plane in Plane],
            "window": [DEFAULT, *WINDOWS],
            "modality": [DEFAULT, *(str(modality) for modality in Modality)],
            "organ": [DEFAULT, *organ_names()],
            "class_name": DEFAULT,
            "roi": [DEFAULT, BRAIN, WHOLE],
            "max_candidates": 0,
            "min_volume": DEFAULT,
            "all_candidates": False,
            "volume_rules": list(CHOICES),
            "slice_step": DEFAULT,
            "first_pass": 0,
            "batch_size": 0,
        }


NEWEST, UNTRAINED = "newest", "untrained"
PLANES = ("auto", "axial", "coronal", "sagittal")


class TrainParameters(Settings):
    """How to train.

    Attributes:
        epochs: over all slices of all labels, ...
        max_steps: ... but no more steps than this; fewer slices are drawn then. 0 for no limit.
        batch_size: slices a step.
        rate: learning rate.
        plane: in which volumes are cut.
        start: ``"newest"`` (the newest adapter, else one of the zoo, else untrained), ``"untrained"``, or a
            model's name.
        seed: of prompts, order and augmentation.
    """

    epochs: int = 1
    max_steps: int = 100
    batch_size: int = 4
    rate: float = 1e-3
    plane: Literal["auto", "axial", "coronal", "sagittal"] = "auto"
    start: str = NEWEST
    seed: int = 111

    @classmethod
    def parse(cls, request: Mapping[str, Any]) -> TrainParameters:
        """Return the parameters of a request; other keys are MONAI Label's own.

        Raises:
            BadInput: on a value that is impossible.
        """
        whole = {"epochs": 1, "max_steps": 0, "batch_size": 1, "seed": 0}
        given: dict[str, Any] = {key: number_of(request, key, lowest) for key, lowest in whole.items()}
        given |= {
            "rate": _decimal(request, "rate") or None,
            "plane": _text(request, "plane"),
            "start": _text(request, "start"),
        }
        if given["plane"] not in (None, *PLANES):
            raise BadInput(f"unknown plane {given['plane']!r}; use one of {', '.join(PLANES)}")
        parameters = cls(**{key: value for key, value in given.items() if value is not None})
        check_batch(SMALLEST_SIDE, parameters.batch_size, f"batch_size {parameters.batch_size}")
        if not 0 < parameters.rate <= 1:
            raise BadInput(f"rate {parameters.rate:g} is not a learning rate above 0 and up to 1")
        return parameters


def texts_of(request: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the organ and the class name that a request has texts speak of; None where it leaves them.

    Raises:
        BadInput: on an unknown organ, or a name without a word in it.
    """
    organ, class_name = _text(request, "organ"), _text(request, "class_name")
    if organ is not None:
        vocabulary(organ)
    if class_name is not None and not class_name.replace("-", " ").strip():
        raise BadInput(f"class_name {class_name!r} has no word in it")
    return organ, class_name


def is_default(value: Any) -> bool:
    """Whether a parameter leaves the choice to us."""
    value = value[0] if isinstance(value, (list, tuple)) and value else value
    return value is None or str(value).strip().lower() in ("", DEFAULT, "auto")


def _text(request: Mapping[str, Any], key: str) -> str | None:
    value = request.get(key)
    if isinstance(value, (list, tuple)) and value:  # a list of choices, unchanged: its first is the default
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (str, int, float, type(None))):
        raise BadInput(f"{key} {value!r} is neither text nor a number")
    return None if is_default(value) else str(value).strip()


def number_of(request: Mapping[str, Any], key: str, lowest: int) -> int | None:
    """Return a whole number of a request; None where it leaves it.

    Raises:
        BadInput: if it is none, or below ``lowest``.
    """
    text = _text(request, key)
    return None if text is None else whole_number(text, key, lowest)


def _decimal(request: Mapping[str, Any], key: str) -> float | None:
    text = _text(request, key)
    try:
        number = float(text or 0)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(f"{key} {text!r} is not a number")
    return None if text is None else number


def _choice(request: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str | None:
    text = _text(request, key)
    if text is not None and text.lower() not in allowed:
        raise BadInput(f"{key} {text!r} is not known; use one of {', '.join(allowed)}")
    return text and text.lower()


def _yes(request: Mapping[str, Any], key: str) -> bool:
    value = request.get(key)
    if isinstance(value, str) and value.lower() in ("true", "false", ""):
        return value.lower() == "true"
    if value in (None, True, False):
        return bool(value)
    raise BadInput(f"{key} {value!r} is neither true nor false")
