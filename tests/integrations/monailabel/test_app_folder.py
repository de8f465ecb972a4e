from __future__ import annotations

import ast

import pytest

from medzsad.errors import BadInput
from medzsad.integrations.monailabel.app_folder import require_app_folder, write_app_folder


def test_an_app_folder_is_written_and_recognised(tmp_path):
    written = write_app_folder(tmp_path / "new" / "app")
    assert sorted(path.name for path in written) == ["README.md", "main.py", "requirements.txt"]
    require_app_folder(tmp_path / "new" / "app")
    tree = ast.parse((tmp_path / "new" / "app" / "main.py").read_text())
    assert ast.get_docstring(tree)


def test_what_was_trained_stays_when_the_folder_is_written_again(tmp_path):
    write_app_folder(tmp_path)
    kept = tmp_path / "model" / "headclip" / "headclip-0001" / "record.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    (tmp_path / "README.md").write_text("old")
    write_app_folder(tmp_path)
    assert kept.is_file()
    assert "medzsad monailabel start" in (tmp_path / "README.md").read_text()


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "main.py").write_text("print('mine')")
    with pytest.raises(BadInput, match="holds other files"):
        write_app_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["main.py"]
    with pytest.raises(BadInput, match="is a file"):
        write_app_folder(tmp_path / "main.py")
    with pytest.raises(BadInput, match="holds no medzsad app"):
        require_app_folder(tmp_path)
    with pytest.raises(BadInput, match="medzsad monailabel init"):
        require_app_folder(tmp_path / "nowhere")
