"""What MONAI Label is started with: the app folder, the command line and the environment."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medzsad.errors import BadInput, ModelNotReady, OutputNotWritable
from medzsad.storage.atomic import replacing
from medzsad.storage.text_files import parse_json

MARK = "from medzsad.integrations.monailabel.app import MedzsadApp"
"""The line of ``main.py`` that an app folder of ours is known by."""

FILES = {
    "main.py": f'''"""MONAI Label app of medzsad; the class that MONAI Label looks for is the package's."""

{MARK}

__all__ = ["MedzsadApp"]
''',
    "requirements.txt": "medzsad[monailabel]\n",
    "README.md": Path(__file__).with_name("app_readme.md").read_text(encoding="utf-8"),
}


def write_app_folder(folder: Path) -> list[Path]:
    """Write the app folder, or bring one of ours up to date; what was trained in it stays.

    Returns:
        The files written.

    Raises:
        BadInput: if the folder holds something else.
        OutputNotWritable: if it cannot be written.
    """
    if folder.is_file():
        raise BadInput(f"{folder} is a file; give a new folder for the app.")
    if folder.is_dir() and any(folder.iterdir()) and not is_app_folder(folder):
        raise BadInput(f"{folder} holds other files and no medzsad app; give a new or empty folder.")
    written = []
    try:
        for name, text in FILES.items():
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(folder / name)
    except OSError as error:
        raise OutputNotWritable(
            f"{folder}: cannot write the app there ({error.strerror or error}); choose another folder"
        ) from error
    return written


def is_app_folder(folder: Path) -> bool:
    """Whether the folder holds an app that :func:`write_app_folder` wrote."""
    try:
        return MARK in (folder / "main.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def require_app_folder(folder: Path) -> None:
    """Check that a server can be started with ``folder``.

    Raises:
        BadInput: if it does not exist, or holds no app.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} does not exist; make it with: medzsad monailabel init {folder}")
    if not is_app_folder(folder):
        raise BadInput(f"{folder} holds no medzsad app; make one with: medzsad monailabel init NEWDIR")


HOW_TO_INSTALL = 'pip install "medzsad[monailabel]"'
SERVED_APP = "medzsad.integrations.monailabel.serving:app"

# Otherwise MONAI Label would show CT alone, and be up to two hours late with what a DICOM server holds.
DEFAULTS = {"MONAI_LABEL_DICOMWEB_SEARCH_FILTER": "{}", "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "30"}


@dataclass(frozen=True)
class ServerSettings:
    """How a server is to run.

    Attributes:
        app: the app folder.
        studies: a folder of scans, or the address of a DICOMweb server.
        host, port: where it listens.
        conf: what the app is told (see :class:`~medzsad.integrations.monailabel.parameters.AppConf`).
        auto_scoring: score all scans at the start, and after each training.
    """

    app: Path
    studies: str
    host: str = "127.0.0.1"
    port: int = 8000
    conf: Mapping[str, str] = field(default_factory=dict)
    auto_scoring: bool = True

    @property
    def is_remote(self) -> bool:
        """Whether the studies are a DICOMweb server's."""
        return self.studies.startswith(("http://", "https://"))

    def command(self) -> list[str]:
        """Return the server's command line: MONAI Label's own launcher, in this Python."""
        studies = self.studies if self.is_remote else str(Path(self.studies).expanduser().resolve())
        command = [sys.executable, "-m", "monailabel.main", "start_server"]
        command += ["--app", str(self.app.resolve()), "--studies", studies]
        command += ["--host", self.host, "--port", str(self.port), "--uvicorn_app", SERVED_APP]
        for key, value in self.conf.items():
            command += ["--conf", key, value]
        return command

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the server's environment.

        ``base``, which wins over our defaults, and this Python in front.
        """
        environment = {**DEFAULTS, **base}
        # MONAI Label calls `python` and DICOM tools by name, for its background tasks among others.
        folders = [str(Path(sys.executable).parent), environment.get("PATH", "")]
        environment["PATH"] = os.pathsep.join(folder for folder in folders if folder)
        if not self.auto_scoring:
            environment["MONAI_LABEL_AUTO_UPDATE_SCORING"] = "false"
        return environment

    def check(self, environment: Mapping[str, str]) -> None:
        """Find what would make the server fail or behave oddly, before it is started.

        Raises:
            ModelNotReady: if MONAI Label is not installed.
            BadInput: if the studies are not there, the port is taken, or the search filter is not JSON.
        """
        require_monailabel()
        if not self.is_remote and not Path(self.studies).expanduser().is_dir():
            raise BadInput(
                f"`studies` {self.studies}: no such folder; give a folder of scans, or the address of a "
                "DICOMweb server (http://...)"
            )
        name = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER"
        try:
            usable = isinstance(parse_json(environment[name], name), dict)
        except BadInput:
            usable = False
        if not usable:
            raise BadInput(f'{name}={environment[name]!r} is no JSON object, such as {{"Modality": "MR"}}')
        _require_port(self.host, self.port)


def require_monailabel() -> None:
    """Check that MONAI Label can be imported, without importing it.

    Raises:
        ModelNotReady: if it is not installed.
    """
    if importlib.util.find_spec("monailabel") is None:
        raise ModelNotReady(f"MONAI Label is not installed; install it with: {HOW_TO_INSTALL}")


def run_server(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Becomes the server, so that signals reach it; where that cannot be, runs it; returns its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execve(command[0], list(command), dict(environment))
    return subprocess.run(command, env=dict(environment), check=False).returncode


def _require_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise BadInput(f"`host` {host}: no address of this machine ({error.strerror or error})") from error
    with socket.socket(family, kind, protocol) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise BadInput(
                f"cannot listen on {host}:{port} ({error.strerror or error}); choose another with `port`"
            ) from error
