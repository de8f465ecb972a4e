"""``medzsad serve`` before it serves; the server itself is in tests/integrations/server."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def test_a_missing_package_is_named(medzsad: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, err = medzsad("serve", "--port", "0")
    assert (code, out) == (2, "")
    assert err == 'error: fastapi is not installed; install it with: pip install "medzsad[serve]"\n'


def test_a_token_without_a_server_is_refused(medzsad: Callable) -> None:
    code, _, err = medzsad("predict", "x.nii", "--token-file", "token")
    assert (code, err) == (2, "error: --token-file is the secret of --server URL; add it.\n")
