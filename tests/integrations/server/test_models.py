"""Which models a server offers, and which of them stay in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medzsad.detectors.registry import METHODS
from medzsad.errors import BadInput, ModelNotReady
from medzsad.integrations.server.models import USES, DetectorPool, offered_models
from medzsad.integrations.server.settings import RequestOptions, ServerSettings
from medzsad.settings import DetectorSpec
from medzsad.zoo.catalogue import WITHOUT_CLIP, catalogue


def test_what_is_ready_and_not_trivial_is_offered(cache_dir: Path) -> None:
    assert list(offered_models()) == ["medzsad-mini"]
    assert list(offered_models(["brightness", "medzsad-mini"])) == ["brightness", "medzsad-mini"]
    methods = {entry.method for entry in catalogue().models.values()}
    assert set(USES) >= methods - set(WITHOUT_CLIP)
    assert set(USES) <= set(METHODS)


@pytest.mark.parametrize("name", ["no-such-model", "missing.safetensors", "winclip-vit-b-32"])
def test_what_is_not_there_is_refused_at_the_start(name: str, cache_dir: Path) -> None:
    with pytest.raises(ModelNotReady):
        offered_models([name])


def test_a_checkpoint_is_offered_without_its_path(tmp_path: Path) -> None:
    from medzsad.zoo.catalogue import weights_folder

    path = weights_folder() / "medzsad-mini.safetensors"
    (model,) = offered_models([str(path)]).values()
    assert (model.name, model.source) == ("medzsad-mini", str(path.resolve()))
    assert str(path.parent) not in str(model.document())


def test_the_least_recently_used_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr("medzsad.zoo.loading.load_spec", lambda spec: loaded.append(spec) or object())
    pool = DetectorPool(2)
    a, b, c = (DetectorSpec(model=name) for name in "abc")
    first = pool.get(a)
    assert pool.get(a) is first
    pool.get(b)
    pool.get(a)
    pool.get(c)
    assert pool.get(a) is first
    pool.get(b)
    assert loaded == [a, b, c, b]


def test_a_profile_is_named_never_a_path(tmp_path: Path) -> None:
    (tmp_path / "brain.normals").write_bytes(b"x")
    server = ServerSettings(normals_dir=str(tmp_path))
    models = offered_models(["medzsad-mini"])
    alone = RequestOptions(normals="brain").settings(server, models)
    assert (alone.model, alone.normals) == (str(tmp_path / "brain.normals"), None)
    both = RequestOptions(normals="brain", model="medzsad-mini").settings(server, models)
    assert (both.model, both.normals) == ("medzsad-mini", str(tmp_path / "brain.normals"))
    for name in ("brain.normals", "../brain", str(tmp_path / "brain.normals")):
        with pytest.raises(BadInput, match="is not known here; there is brain"):
            RequestOptions(normals=name).settings(server, models)
