"""A client beside servers that are not its own: another version, another program."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medzsad import __version__
from medzsad.client import API, Client
from medzsad.errors import BadInput


def said(file_server: Any, document: Any) -> None:
    file_server.files["/v1"] = json.dumps(document).encode()


def test_another_interface_is_refused_and_another_version_warned_of(file_server: Any) -> None:
    said(file_server, {"name": "medzsad", "api": API + 1, "version": __version__})
    with pytest.raises(BadInput, match=f"speaks version {API + 1} of the interface, this client"):
        Client(file_server.url)
    said(file_server, {"name": "medzsad", "api": API, "version": "99.0"})
    with pytest.warns(UserWarning, match=r"has medzsad 99\.0, this client .* results may differ"):
        Client(file_server.url)


@pytest.mark.parametrize("document", [{"name": "another"}, [], None, "text"])
def test_another_program_is_refused(file_server: Any, document: Any) -> None:
    said(file_server, document)
    with pytest.raises(BadInput, match="is no medzsad server"):
        Client(file_server.url)


def test_what_is_no_json_is_refused(file_server: Any) -> None:
    file_server.files["/v1"] = b"<html>"
    with pytest.raises(BadInput, match="answers no JSON"):
        Client(file_server.url)
    del file_server.files["/v1"]
    with pytest.raises(BadInput, match="404"):
        Client(file_server.url)
