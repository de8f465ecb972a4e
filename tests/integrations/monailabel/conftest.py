"""Small studies, a small CLIP that is ready, and MONAI Label servers on this machine.

The tests need MONAI Label, which lives in an environment of its own: without it they are skipped.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"
# The text tower's layers must outnumber the deep prompts.
CLIP: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 56, "layers": 4, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 4},
}
START_SECONDS = 300
PATIENCE_SECONDS = 600  # a busy machine starves whoever waits; a quiet one needs a few seconds


@dataclass(frozen=True)
class Phantoms:
    """Two heads of 48 x 56 x 12 voxels, one with a lesion.

    Attributes:
        lesion, healthy: int16 (X, Y, Z); the healthy head is the other half of the first, mirrored.
        mask: uint8 (X, Y, Z), the lesion.
        affine: float (4, 4), RAS+.
    """

    lesion: np.ndarray
    healthy: np.ndarray
    mask: np.ndarray
    affine: np.ndarray

    def write(self, folder: Path) -> Path:
        """Writes the studies ``lesion.nii.gz`` and ``healthy.nii.gz``."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, voxels in (("lesion", self.lesion), ("healthy", self.healthy)):
            self.save(voxels, folder / f"{name}.nii.gz")
        return folder

    def save(self, voxels: np.ndarray, path: Path) -> Path:
        """Writes voxels as NIfTI."""
        image = nibabel.Nifti1Image(voxels, self.affine)
        image.set_qform(self.affine, code=1)
        image.set_sform(self.affine, code=1)
        image.header.set_xyzt_units("mm")
        image.to_filename(path)
        return path


@pytest.fixture(scope="session")
def phantoms() -> Phantoms:
    """The example head, every other voxel of the slices with the lesion."""
    part = (slice(None, None, 2), slice(None, None, 2), slice(20, 44, 2))
    head = nibabel.load(EXAMPLES / "head_phantom.nii.gz")
    lesion = np.asanyarray(head.dataobj)[part].astype(np.int16)
    mask = np.asanyarray(nibabel.load(EXAMPLES / "head_phantom_lesion.nii.gz").dataobj)[part]
    half = lesion.shape[0] // 2
    healthy = np.concatenate([lesion[:half], lesion[:half][::-1]])
    affine = head.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (head.affine @ [0, 0, 20, 1])[:3]
    return Phantoms(lesion, healthy, mask.astype(np.uint8), affine)


@pytest.fixture(scope="session")
def cache_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables that name a model cache in which one CLIP is ready: small and random, ``clip-small``."""
    import open_clip
    import torch
    import yaml

    folder = tmp_path_factory.mktemp("cache")
    catalogue = folder / "own.yaml"
    entry = {"kind": "clip", "architecture": CLIP, "quick_gelu": False, "licence": "unknown"}
    catalogue.write_text(yaml.safe_dump({"files": {"clip-small": entry}}), encoding="utf-8")
    torch.manual_seed(1)
    torch.save(open_clip.CLIP(**CLIP).state_dict(), folder / "small.pt")
    environment = {"MEDZSAD_CACHE": str(folder / "cache"), "MEDZSAD_CATALOGUE": str(catalogue)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        from medzsad.zoo.user_models import import_file

        import_file(folder / "small.pt", "clip-small")
    return environment


@pytest.fixture
def small_cache(cache_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """``cache_environment``, in force."""
    for name, value in cache_environment.items():
        monkeypatch.setenv(name, value)
    return cache_environment


@dataclass
class Server:
    """A MONAI Label server that runs.

    Attributes:
        url: its address.
        log: the file that its output goes to.
        process: the server itself.
    """

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def call(self, method: str, path: str, **options: Any) -> Any:
        """A request; the response as ``requests`` gives it."""
        import requests

        return requests.request(method, self.url + path, timeout=PATIENCE_SECONDS, **options)

    def get(self, path: str, **options: Any) -> Any:
        """The JSON that ``GET path`` answers with."""
        response = self.call("GET", path, **options)
        assert response.status_code == 200, (path, response.status_code, response.text[:500])
        return response.json()

    def post(self, path: str, **options: Any) -> Any:
        """The JSON that ``POST path`` answers with."""
        response = self.call("POST", path, **options)
        assert response.status_code == 200, (path, response.status_code, response.text[:500])
        return response.json()

    def infer(self, model: str, image: str, **params: Any) -> tuple[bytes, dict[str, Any], str]:
        """``POST /infer/MODEL``: the label file's bytes, the figures, and the file's name."""
        import json

        from requests_toolbelt import MultipartDecoder

        form = {"params": (None, json.dumps(params))}
        response = self.call("POST", f"/infer/{model}", params={"image": image}, files=form)
        assert response.status_code == 200, (response.status_code, response.text[:500])
        content, figures, name = b"", {}, ""
        for part in MultipartDecoder.from_response(response).parts:
            header = part.headers[b"Content-Disposition"].decode()
            if 'name="params"' in header:
                figures = json.loads(part.text)
            else:
                content, name = part.content, header.split('filename="')[1].rstrip('"')
        return content, figures, name

    def wait_for(self, task: str, *, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """Waits until no task of the kind runs: ``"scoring"``, ``"train"`` or ``"batch/infer"``.

        Returns:
            The status of the last one.
        """
        end, status = time.monotonic() + seconds, {"status": "SUBMITTED"}
        while status["status"] in ("SUBMITTED", "RUNNING"):
            assert time.monotonic() < end, (status, self.tail())
            time.sleep(0.5)
            response = self.call("GET", f"/{task}/" if "/" not in task else f"/{task}")
            status = response.json() if response.status_code == 200 else status
        return status

    def tail(self, count: int = 60) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def stop(self) -> int:
        """Ends the server as Ctrl-C would; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(30)


@dataclass
class ServerStarter:
    """Starts servers with ``medzsad monailabel start``; all are stopped at the end.

    Attributes:
        folder: where app folders, logs and home folders go.
        environment: added to this process's variables.
        running: the servers so far.
    """

    folder: Path
    environment: Mapping[str, str]
    running: list[Server] = field(default_factory=list)

    def __call__(
        self, studies: str | Path, *options: str, environment: Mapping[str, str] | None = None
    ) -> Server:
        """Starts a server, and waits until it answers ``/info/``.

        Args:
            studies: a folder, or the address of a DICOMweb server.
            options: further options of the command.
            environment: further variables; ``MONAI_LABEL_*`` of this process are not passed on.
        """
        number = len(self.running)
        app, home, port = self.folder / f"app-{number}", self.folder / f"home-{number}", free_port()
        home.mkdir()
        variables = {k: v for k, v in os.environ.items() if not k.startswith("MONAI_LABEL_")}
        variables |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        variables |= {**self.environment, **(environment or {})}
        medzsad = [sys.executable, "-m", "medzsad", "monailabel"]
        subprocess.run([*medzsad, "init", str(app)], env=variables, check=True, capture_output=True)
        log = self.folder / f"server-{number}.log"
        command = [*medzsad, "start", "--app", str(app), "--studies", str(studies), "--port", str(port)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *options], env=variables, cwd=home, stdout=output, stderr=subprocess.STDOUT
            )
        server = Server(f"http://127.0.0.1:{port}", log, process)
        self.running.append(server)
        self._wait(server)
        return server

    def stop(self) -> None:
        """Stops all."""
        for server in self.running:
            server.stop()

    def _wait(self, server: Server) -> None:
        import requests

        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if server.process.poll() is not None:
                break
            try:
                if server.call("GET", "/info/").status_code == 200:
                    return
            except requests.ConnectionError:
                pass
            time.sleep(0.5)
        server.stop()
        raise AssertionError(f"the server did not start:\n{server.tail()}")


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def start_server(
    tmp_path_factory: pytest.TempPathFactory, cache_environment: dict[str, str]
) -> Iterator[Callable[..., Server]]:
    """Starts servers: ``start_server(studies, *options, environment=None)``."""
    pytest.importorskip("monailabel", reason="MONAI Label is not installed (medzsad[monailabel])")
    starter = ServerStarter(tmp_path_factory.mktemp("servers"), cache_environment)
    yield starter
    starter.stop()


@pytest.fixture
def make_app(
    tmp_path: Path, phantoms: Phantoms, small_cache: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Makes the app in this process, with the two studies: ``make_app(parallel="4")``."""
    pytest.importorskip("monailabel", reason="MONAI Label is not installed (medzsad[monailabel])")
    from monailabel.config import settings

    from medzsad.integrations.monailabel.app import MedzsadApp
    from medzsad.integrations.monailabel.server import write_app_folder

    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTO_UPDATE_SCORING", False)
    monkeypatch.setattr(settings, "MONAI_LABEL_SESSIONS", False)

    def make(studies: Path | None = None, **conf: str) -> MedzsadApp:
        write_app_folder(tmp_path / "app")
        chosen = phantoms.write(tmp_path / "studies") if studies is None else studies
        return MedzsadApp(str(tmp_path / "app"), str(chosen), {"device": "cpu", **conf})

    return make
