"""What a server's app is told when it starts: MONAI Label's ``--conf KEY VALUE`` pairs, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from medzsad.errors import BadInput
from medzsad.limits import check_limit
from medzsad.storage.text_files import parse_json_object, whole_number

_IGNORED = ("server_mode",)
"""Keys that MONAI Label itself adds."""


@dataclass(frozen=True)
class AppConf:
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
