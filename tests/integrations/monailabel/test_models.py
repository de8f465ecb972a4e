from __future__ import annotations

import pytest

from medzsad.errors import ModelNotReady
from medzsad.integrations.monailabel.models import ModelList, Versions, is_version_name


def train(versions: Versions, content: bytes) -> str:
    folder = versions.begin()
    folder.mkdir()
    (folder / "adapter.safetensors").write_bytes(content)
    return versions.publish(folder, {"labels": 1}).name


def test_versions_are_numbered_and_the_newest_comes_first(tmp_path):
    versions = Versions(tmp_path)
    assert versions.newest() is None
    assert [train(versions, b"one"), train(versions, b"two")] == ["headclip-0001", "headclip-0002"]
    assert [version.name for version in versions.all()] == ["headclip-0002", "headclip-0001"]


def test_what_a_stopped_training_left_is_no_version_and_is_deleted_by_the_next(tmp_path):
    versions = Versions(tmp_path)
    train(versions, b"one")
    stopped = versions.begin()
    (stopped / "data").mkdir(parents=True)
    assert versions.newest().name == "headclip-0001"
    assert versions.latest_run() == stopped
    assert versions.begin() == stopped
    assert not stopped.exists()


def test_a_folder_without_an_adapter_is_not_published(tmp_path):
    versions = Versions(tmp_path)
    versions.begin().mkdir()
    with pytest.raises(ModelNotReady):
        versions.publish(versions.folder / "headclip-0001", {})
    assert versions.newest() is None


def test_a_name_that_is_used_again_after_a_deletion_is_another_version(tmp_path, cache_dir):
    """Else a server that has loaded the deleted adapter would go on with it."""
    import shutil

    versions = Versions(tmp_path)
    models = ModelList(["brightness"], versions)
    train(versions, b"one")
    before = models.current()["headclip"]
    shutil.rmtree(versions.folder / "headclip-0001")
    assert list(models.current()) == ["brightness"]
    assert train(versions, b"two") == "headclip-0001"
    after = models.current()["headclip"]
    assert (before.source, before.version) != (after.source, after.version)
    assert before.source == after.source


def test_the_order_in_which_models_are_named_is_kept(tmp_path, cache_dir):
    versions = Versions(tmp_path)
    train(versions, b"one")
    assert next(iter(ModelList(["headclip", "darkness"], versions).current())) == "headclip"
    assert next(iter(ModelList(["darkness", "headclip"], versions).current())) == "darkness"


def test_a_profile_of_normals_is_offered(tmp_path, cache_dir):
    """By its ending, without loading it; what is none is refused when it is asked for."""
    path = tmp_path / "brain.normals"
    path.write_bytes(b"profile")
    (model,) = ModelList([str(path)], Versions(tmp_path)).current().values()
    assert (model.name, model.source) == ("brain", str(path.resolve()))
    with pytest.raises(ModelNotReady, match="no such checkpoint file"):
        ModelList([str(tmp_path / "none.normals")], Versions(tmp_path))


def test_names_of_versions():
    assert is_version_name("headclip")
    assert is_version_name("headclip-0001")
    assert not is_version_name("headclip-from-anomalyclip-visa")
    assert not is_version_name("headclip-01")
