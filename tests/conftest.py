"""Fixtures that every test may use."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from shared_data import Shared, shared_path

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several at once: a thread each, before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MKL_NUM_THREADS", "1")

hypothesis.settings.register_profile("suite", deadline=None)  # other tests run at the same time
hypothesis.settings.load_profile("suite")


def pytest_report_header() -> str:
    """Say which libraries read: pydicom 2.4 and 3 are both supported."""
    return ", ".join(
        f"{name} {version(name)}" for name in ("pydicom", "nibabel", "simpleitk", "monai", "torch")
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that tests/slow_tests.txt names, so that the fast lane takes minutes."""
    slow = set((Path(__file__).parent / "slow_tests.txt").read_text().split())
    for item in items:
        if item.nodeid.partition("[")[0] in slow:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests away from the user's cache, and those of several processes from each other's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDZSAD_CACHE", str(tmp_path_factory.mktemp("medzsad-cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Shared:
    """What finds real scans and reference numbers, and skips the test where they are not."""
    return shared_path


@pytest.fixture(scope="session")
def rule_tensor() -> Callable[[str, tuple[int, ...], int], Any]:
    """The rule that gives the weights of the reference models, by name, shape and seed."""
    import numpy as np
    import torch

    def make(name: str, shape: tuple[int, ...], seed: int) -> Any:
        key = (zlib.crc32(name.encode()) ^ seed) & 0xFFFFFFFF
        x = np.random.RandomState(key).standard_normal(shape)
        parts = name.split(".")
        if name == "logit_scale":
            x = np.full(shape, np.log(1 / 0.07))
        elif parts[-1] == "weight" and any(part.startswith("ln_") for part in parts):
            x = 1 + 0.1 * x
        elif parts[-1] in ("bias", "in_proj_bias"):
            x = 0.05 * x
        elif name.startswith("prompt_learner.") or "static_prompts" in name:
            x = 0.2 * x
        elif "embedding" in name:
            x = 0.1 * x
        elif name in ("text_projection", "visual.proj"):
            x = 1.5 * x / np.sqrt(shape[0])
        else:
            x = 1.5 * x / np.sqrt(np.prod(shape[1:]))
        return torch.from_numpy(np.asarray(x, dtype=np.float32))

    return make


class FileServer:
    """A web server on this machine whose faults can be chosen.

    Attributes:
        files: bytes by path, such as ``"/weights.pt"``.
        cuts: for the next requests, one each, after how many bytes to drop the connection.
        ignores_range: send whole files whatever part was asked for.
        statuses: answer these paths with an error of that status.
        requests: of each request its path, the first byte sent and the number of bytes sent.
        redirects: paths that lead to another address.
        tokens: of each request what it said of who asks (``Authorization``), or None.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ignores_range = False
        self.statuses: dict[str, int] = {}
        self.requests: list[tuple[str, int, int]] = []
        self.redirects: dict[str, str] = {}
        self.tokens: list[str | None] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name that http.server wants
                owner.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def sent(self) -> int:
        """All bytes sent so far."""
        return sum(count for _, _, count in self.requests)

    def close(self) -> None:
        """Stops answering; the port is closed afterwards."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.tokens.append(request.headers.get("Authorization"))
        if request.path in self.redirects:
            request.send_response(302)
            request.send_header("Location", self.redirects[request.path])
            request.end_headers()
            return
        content = self.files.get(request.path)
        status = self.statuses.get(request.path, 200 if content is not None else 404)
        if status != 200:
            self.requests.append((request.path, 0, 0))
            request.send_error(status)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and not self.ignores_range else 0
        if start >= len(content) > 0:
            self.requests.append((request.path, start, 0))
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        body = content[start:]
        if self.cuts:
            body = body[: self.cuts.pop(0)]
        self.requests.append((request.path, start, len(body)))
        with contextlib.suppress(ConnectionError):  # a client may have had enough
            request.wfile.write(body)


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    """A web server with chosen files and faults."""
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model cache of the test's own, and no catalogue but the package's."""
    monkeypatch.setenv("MEDZSAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDZSAD_CATALOGUE", raising=False)
    return tmp_path / "cache"


SMALL_CLIP: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 56, "layers": 12, "width": 128, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 10},
}


@dataclass(frozen=True)
class SmallWeights:
    """Weights of the published layouts, small and random: a CLIP and adapters that fit it."""

    architecture: dict[str, Any]
    clip: Path
    anomalyclip: Path
    adaclip: Path


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> SmallWeights:
    """A small CLIP (half precision), and AnomalyCLIP's and AdaCLIP's weights for it."""
    import open_clip
    import torch

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("weights")

    def random(*shape: int) -> torch.Tensor:
        return 0.2 * torch.randn(shape)

    clip = open_clip.CLIP(**SMALL_CLIP)
    torch.save({name: tensor.half() for name, tensor in clip.state_dict().items()}, folder / "small-clip.pt")
    prompts = {"ctx_pos": random(1, 1, 12, 64), "ctx_neg": random(1, 1, 12, 64)}
    prompts |= {f"compound_prompts_text.{i}": random(4, 64) for i in range(8)}
    torch.save({"prompt_learner": prompts}, folder / "epoch_15.pth")
    ada = {f"text_prompter.static_prompts.{i}": random(5, 64) for i in range(4)}
    ada |= {f"visual_prompter.static_prompts.{i}": random(5, 128) for i in range(4)}
    for part, count, inputs, outputs in (
        ("patch_token_layer", 4, 128, 64),
        ("cls_token_layer", 1, 64, 64),
        ("dynamic_visual_prompt_generator", 5, 64, 128),
        ("dynamic_text_prompt_generator", 5, 64, 64),
    ):
        for i in range(count):
            ada[f"{part}.head.{i}.weight"] = random(outputs, inputs)
            ada[f"{part}.head.{i}.bias"] = random(outputs)
    torch.save({f"clip_model.{name}": tensor for name, tensor in ada.items()}, folder / "small_adaclip.pth")
    return SmallWeights(
        SMALL_CLIP, folder / "small-clip.pt", folder / "epoch_15.pth", folder / "small_adaclip.pth"
    )
