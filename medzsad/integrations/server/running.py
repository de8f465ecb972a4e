"""A server process from its start to its end."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medzsad.errors import BadInput, ModelNotReady
from medzsad.integrations.server.settings import ServerSettings

HOW_TO_INSTALL = 'pip install "medzsad[serve]"'
CONNECTIONS = 200  # at once; more get 503
_STOPPING = (signal.SIGINT, signal.SIGTERM)
_STOP_S = 5  # that open connections have to end


def serve(settings: ServerSettings, ready: Callable[[str], None]) -> None:
    """Serve until the process is told to stop (Ctrl-C, SIGTERM); then nothing of a scan is left.

    Args:
        settings: how.
        ready: is told the address once requests are taken.

    Raises:
        ModelNotReady: if a package or a model is missing.
        BadInput: if an option cannot be used, or the port is taken.
        OutputNotWritable: if there is no place for a private folder.
    """
    for package in ("fastapi", "uvicorn", "python_multipart"):
        if importlib.util.find_spec(package) is None:
            raise ModelNotReady(f"{package} is not installed; install it with: {HOW_TO_INSTALL}")
    import uvicorn

    class Server(uvicorn.Server):
        """Ends as any function does when told to stop: uvicorn's own would kill the process afterwards."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            before = {number: signal.signal(number, self.handle_exit) for number in _STOPPING}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    from medzsad.integrations.server.app import create_app
    from medzsad.integrations.server.connections import PromptProtocol
    from medzsad.integrations.server.private_folder import PrivateFolder

    settings.check()
    _say_nothing_of_scans()
    folder = PrivateFolder()
    before = tempfile.tempdir
    tempfile.tempdir = str(folder.folder("tmp"))  # what libraries write on the way, too
    try:
        app = create_app(settings, folder)
        with _listening(settings) as listener:
            config = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,  # it has what clients wrote; security.Guard has a log of its own
                http=PromptProtocol,
                ws="none",
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=_STOP_S,
            )
            host, port = listener.getsockname()[:2]
            ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            Server(config).run(sockets=[listener])
    finally:
        tempfile.tempdir = before
        folder.close()


def _listening(settings: ServerSettings) -> socket.socket:
    """Return a socket at the address.

    Raises:
        BadInput: if it is none of this machine's, or is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
    except OSError as error:
        raise BadInput(f"`host` {settings.host}: no address of this machine") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise BadInput(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}); choose another "
            "`port`"
        ) from error
    return listener


def _say_nothing_of_scans() -> None:
    """Print the server's own lines alone: libraries quote headers and names in theirs."""
    warnings.simplefilter("ignore")
    logging.lastResort = logging.NullHandler()
    log = logging.getLogger("medzsad.serve")
    log.setLevel(logging.INFO)
    log.propagate = False
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
