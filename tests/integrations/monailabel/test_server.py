"""The app folder, and what MONAI Label is started with."""

from __future__ import annotations

import ast
import importlib.util
import json
import socket
import sys

import pytest

from medzsad.cli.main import run
from medzsad.errors import BadInput
from medzsad.integrations.monailabel import server
from medzsad.integrations.monailabel.server import ServerSettings, require_app_folder, write_app_folder


@pytest.fixture
def command(capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        code = run(["monailabel", *(str(argument) for argument in arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def app(tmp_path, command):
    assert command("init", tmp_path / "app")[0] == 0
    return tmp_path / "app"


@pytest.fixture
def installed(monkeypatch):
    """MONAI Label can be found, whether it is here or not; nothing is started."""
    find = importlib.util.find_spec
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: name == "monailabel" or find(name))
    started = []
    monkeypatch.setattr(server, "run_server", lambda *arguments: started.append(arguments) or 0)
    return started


def test_a_foreign_folder_is_refused(tmp_path, command):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, errors = command("init", tmp_path)
    assert (code, "holds other files" in errors) == (2, True)


def test_without_monai_label_the_way_to_it_is_named(app, tmp_path, command, monkeypatch):
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    code, _, errors = command("start", "--app", app, "--studies", tmp_path)
    assert code == 2
    assert errors.strip().splitlines() == [
        'error: MONAI Label is not installed; install it with: pip install "medzsad[monailabel]"'
    ]


def test_what_cannot_work_is_refused_in_one_line(app, tmp_path, command, installed, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, reason in (
            (("--studies", tmp_path / "nowhere"), "no such folder"),
            (("--studies", tmp_path, "--port", port), f"cannot listen on 127.0.0.1:{port}"),
            (("--studies", tmp_path, "--models", "nonsense", "--port", free()), "unknown model 'nonsense'"),
            (("--studies", tmp_path, "--conf", "colour", "red", "--port", free()), "--conf colour: unknown"),
            (("--studies", tmp_path, "--host", "host.invalid"), "no address of this machine"),
        ):
            code, _, errors = command("start", "--app", app, *arguments)
            assert (code, len(errors.strip().splitlines())) == (2, 1), errors
            assert reason in errors
    code, _, errors = command("start", "--app", tmp_path / "none", "--studies", tmp_path)
    assert (code, "medzsad monailabel init" in errors) == (2, True)
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_SEARCH_FILTER", "Modality=MR")
    code, _, errors = command("start", "--app", app, "--studies", "http://127.0.0.1:1", "--port", free())
    assert (code, "no JSON object" in errors) == (2, True)
    assert not installed


def test_the_server_runs_in_this_python_with_the_settings(app, tmp_path, command, installed):
    options = ["--models", "brightness", "--parallel", 3, "--conf", "keep", "1", "--no-auto-scoring"]
    code, _, errors = command("start", "--app", app, "--studies", tmp_path, "--port", free(), *options)
    assert code == 0, errors
    ((line, environment),) = installed
    assert line[:4] == [sys.executable, "-m", "monailabel.main", "start_server"]
    pairs = [tuple(line[i + 1 : i + 3]) for i, word in enumerate(line) if word == "--conf"]
    assert set(pairs) == {("models", "brightness"), ("parallel", "3"), ("keep", "1")}
    assert environment["MONAI_LABEL_AUTO_UPDATE_SCORING"] == "false"


def test_every_modality_is_found_unless_the_user_says_otherwise(tmp_path):
    settings = ServerSettings(tmp_path, "http://server/dicom-web")
    name = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER"
    assert json.loads(settings.environment({"PATH": "/bin"})[name]) == {}
    assert settings.environment({name: '{"Modality": "PT"}'})[name] == '{"Modality": "PT"}'
    assert settings.environment({"PATH": "/bin"})["PATH"].endswith("/bin")
    assert "--studies http://server/dicom-web" in " ".join(settings.command())


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
