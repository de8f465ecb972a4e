"""How a server runs, and what a client may ask of it."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from medzsad.batch.predictor import PredictSettings
from medzsad.client.token import read_token
from medzsad.errors import BadInput
from medzsad.integrations.server.models import OfferedModel
from medzsad.settings import Settings

LONGEST_LABEL = 200
_OF_SERVER = ("model", "normals", "label")


class ServerSettings(Settings):
    """How a server runs.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        token_file: holds the secret that clients must send; needed to listen beyond this machine.
        models: names, checkpoints or run folders to offer; by default all of the zoo that are ready.
        normals_dir: folder of profiles of normals, which clients may name.
        allow_hosts: further names that the server is called by, in the header ``Host``.
        cors_origins: web pages of other origins that may use the server.
        queue: predictions that may wait, uploads on their way included.
        keep_minutes: how long results stay after they are done.
        keep_models: detectors in memory; the least recently used one goes.
        max_upload_mb: of one upload as sent, in megabytes.
        max_unpacked_mb: of one upload once unpacked.
        device, precision, backend: what detectors compute on, see :func:`medzsad.load_detector`.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    token_file: str | None = None
    models: tuple[str, ...] = ()
    normals_dir: str | None = None
    allow_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    queue: Annotated[int, Field(ge=1, le=10_000)] = 16
    keep_minutes: Annotated[float, Field(gt=0)] = 60.0
    keep_models: Annotated[int, Field(ge=1)] = 2
    max_upload_mb: Annotated[float, Field(gt=0)] = 2000.0
    max_unpacked_mb: Annotated[float, Field(gt=0)] = 4000.0
    device: str = "auto"
    precision: str = "auto"
    backend: str = "torch"

    def check(self) -> None:
        """Find what must not be served so.

        Raises:
            BadInput: if others can reach it without a token, or an origin is none.
        """
        if not self.is_local and self.token_file is None:
            raise BadInput(
                f"`host` {self.host} can be reached from other machines: add `token_file` with a secret, "
                "or use 127.0.0.1"
            )
        for origin in self.cors_origins:
            if not re.fullmatch(r"https?://[^/\s*]+", origin):
                raise BadInput(f"`cors_origins` {origin}: give one origin, such as https://viewer.example")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def limits(self) -> dict[str, float]:
        """What clients are told of the limits."""
        return {
            "upload_mb": self.max_upload_mb,
            "unpacked_mb": self.max_unpacked_mb,
            "queue": self.queue,
            "keep_minutes": self.keep_minutes,
        }

    def token(self) -> str | None:
        """Return the secret of the token file; None without one.

        Raises:
            BadInput: if it cannot be read, or the secret is too short or not printable ASCII.
        """
        if self.token_file is None:
            return None
        return read_token(Path(self.token_file).expanduser())

    def profiles(self) -> dict[str, Path]:
        """Return the profiles of normals that clients may name, by their names.

        Raises:
            BadInput: if the folder is not there.
        """
        if self.normals_dir is None:
            return {}
        folder = Path(self.normals_dir).expanduser()
        if not folder.is_dir():
            raise BadInput(f"`normals_dir` {folder}: no such folder")
        return {path.stem: path for path in sorted(folder.glob("*.normals")) if path.is_file()}


class RequestOptions(Settings):
    """What a client may ask for: options of ``medzsad predict`` under their names, none of them a path.

    Attributes:
        label: what the client calls the scan; shown back to it, kept in memory only, never logged.
        model: one of those that the server offers; by default its first.
        normals: name of a profile of normals that the server has.
        organ, class_name, any_modality, series, volume, modality, plane, window, threshold, roi,
            max_candidates, min_volume, all_candidates, volume_rules, slice_step, first_pass, overlay, report,
            seg_nrrd, dicom, save_scan, save_brain: see :class:`~medzsad.batch.predictor.PredictSettings`;
            ``roi`` is a word, a mask is a part of its own.
    """

    label: str | None = None
    model: str | None = None
    normals: str | None = None
    organ: str | None = None
    class_name: str | None = None
    any_modality: bool = False
    series: str | None = None
    volume: int | None = None
    modality: str | None = None
    plane: str = "auto"
    window: str | None = None
    threshold: float | str | None = None
    roi: Literal["auto", "brain", "whole"] | None = None
    max_candidates: int | None = None
    min_volume: float | None = None
    all_candidates: bool = False
    volume_rules: str = "auto"
    slice_step: float | str | None = None
    first_pass: int | None = None
    overlay: str = "montage"
    report: bool = False
    seg_nrrd: bool = False
    dicom: str | None = None
    save_scan: bool = False
    save_brain: bool = False

    def __post_init__(self) -> None:
        if self.label is not None and len(self.label) > LONGEST_LABEL:
            raise BadInput(f"label has {len(self.label)} letters; {LONGEST_LABEL} are allowed")
        for name in RequestOptions.__dataclass_fields__:
            text = getattr(self, name)
            if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise BadInput(f"{name} holds half a letter (a lone surrogate), which is no text")

    def settings(
        self, server: ServerSettings, models: dict[str, OfferedModel], roi: Path | None = None
    ) -> PredictSettings:
        """Return the settings of a prediction.

        Args:
            server: what the server computes on.
            models: that it offers.
            roi: a mask that came with the scan.

        Raises:
            BadInput: if the server has no such model or profile, or an option is none that there is.
        """
        model = self.model or next(iter(models))
        if model not in models:
            raise BadInput(f"model {model!r} is not offered here; use one of {', '.join(models)}")
        profiles = server.profiles()
        if self.normals is not None and self.normals not in profiles:
            known = ", ".join(profiles) or "none"
            raise BadInput(f"`normals` {self.normals!r} is not known here; there is {known}")
        asked = {name: value for name, value in vars(self).items() if name in _ASKED}
        profile = None if self.normals is None else str(profiles[self.normals])
        source = models[model].source
        if profile is not None and self.model is None:  # alone, as on the command line
            source, profile = profile, None
        if roi is not None:
            if self.roi is not None:
                raise BadInput("a region of interest is given twice, as a mask and as a word; leave one out")
            asked["roi"] = str(roi)
        settings = PredictSettings(
            **asked,
            model=source,
            normals=profile,
            device=server.device,
            precision=server.precision,
            backend=server.backend,
        )
        settings.formats()
        return settings


_ASKED = {name for name in RequestOptions.__dataclass_fields__ if name not in _OF_SERVER}
