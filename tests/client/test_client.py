"""The client beside a real server: what ``medzsad predict`` does, done elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_factory import ramp, write_series
from serve_process import ServeProcess, write_scan

import medzsad
from medzsad.cli.main import run
from medzsad.client import Client
from medzsad.errors import BadInput, OutputNotWritable


@pytest.fixture
def client(server: ServeProcess) -> Client:
    return medzsad.Client(server.url, token_file=server.log.parent / "token")


@pytest.fixture
def remote(server: ServeProcess, capsys: Any) -> Iterator[Any]:
    """Runs ``predict`` with the server: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        token = server.log.parent / "token"
        code = run(["predict", *map(str, arguments), "--server", server.url, "--token-file", str(token)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key not in ("timings_s", "files")}


def test_results_are_those_of_the_command_line(remote: Any, server: ServeProcess, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    assert run(["predict", str(scan), "-o", str(tmp_path / "local"), "--quiet"]) == 0
    code, out, err = remote(scan, "-o", tmp_path / "remote")
    assert code == 0, err
    local = {path.name: path for path in (tmp_path / "local").iterdir() if path.is_file()}
    assert {path.name for path in (tmp_path / "remote").iterdir()} == set(local)
    for name, path in local.items():
        content = (tmp_path / "remote" / name).read_bytes()
        if name == "scan.json":
            assert without_times(json.loads(content)) == without_times(json.loads(path.read_bytes()))
        else:
            assert content == path.read_bytes(), name
    lines = out.splitlines()
    assert lines[0].split() == ["rank", "scan", "score", "lesions", "largest", "time"]
    assert lines[1].split()[1] == "scan"
    assert lines[-2] == f"4 files in {tmp_path / 'remote'}"
    assert "scan: The modality is guessed from the values: mr (--modality sets it)." in err
    assert server.files() == []


def test_names_stay_here(remote: Any, server: ServeProcess, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "Doe_Jane.nii.gz")
    code, out, err = remote(scan, "-o", tmp_path, "--json", "--quiet", "--overlay", "slices")
    assert (code, err) == (0, "")
    document = json.loads(out)
    (found,) = document["scans"]
    assert (found["input"], found["name"]) == (str(scan), "Doe_Jane")
    assert found["files"]["anomaly"] == str(tmp_path / "Doe_Jane_anomaly.nii.gz")
    pictures = list((tmp_path / "Doe_Jane_slices").iterdir())
    assert pictures
    assert all(path.name.startswith("Doe_Jane_slice_axial_") for path in pictures)
    assert json.loads((tmp_path / "Doe_Jane.json").read_text())["name"] == "Doe_Jane"
    assert "Doe" not in server.log.read_text()
    again, _, _ = remote(scan, "-o", tmp_path, "--quiet")  # replaces its own, and takes away the pictures
    assert again == 0
    assert not (tmp_path / "Doe_Jane_slices").exists()


def test_a_mask_says_where_to_look(remote: Any, server: ServeProcess, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    mask = nibabel.load(scan)
    inside = np.zeros(mask.shape, np.uint8)
    inside[:10] = 1
    nibabel.save(nibabel.Nifti1Image(inside, mask.affine), tmp_path / "Doe_mask.nii.gz")
    options = ("--overlay", "none", "--quiet", "--roi", str(tmp_path / "Doe_mask.nii.gz"))
    assert run(["predict", str(scan), "-o", str(tmp_path / "local"), *options]) == 0
    assert remote(scan, "-o", tmp_path / "remote", *options)[0] == 0
    maps = [(tmp_path / place / "scan_anomaly.nii.gz").read_bytes() for place in ("local", "remote")]
    assert maps[0] == maps[1]
    assert json.loads((tmp_path / "remote" / "scan.json").read_text())["settings"]["roi"] == "mask"
    (tmp_path / "Doe_mask.nii.gz").write_bytes(b"none")
    code, _, err = remote(scan, "-o", tmp_path / "other", *options)
    assert (code, server.files()) == (2, [])
    assert str(tmp_path / "Doe_mask.nii.gz") in err
    assert "Doe" not in server.log.read_text()


def test_a_dicom_folder_is_one_scan(remote: Any, tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "head", ramp(6, 24, 20), [3.0 * k for k in range(6)])
    code, out, err = remote(tmp_path / "in", "-o", tmp_path / "out", "--json", "--quiet")
    assert code == 0, err
    (found,) = json.loads(out)["scans"]
    assert (found["name"], found["input"]) == ("head", str(tmp_path / "in" / "head"))
    assert (tmp_path / "out" / "head_anomaly.nii.gz").is_file()


def test_failures_have_the_lines_and_codes_of_the_command_line(
    remote: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write_scan(Path("good.nii.gz"))
    Path("cut.nii.gz").write_bytes(Path("good.nii.gz").read_bytes()[:200])
    Path("empty.nii.gz").touch()
    Path("series").mkdir()
    (Path("series") / "a.dcm").write_bytes(b"no DICOM")
    inputs = ["cut.nii.gz", "empty.nii.gz", "missing.nii.gz", "good.nii.gz"]
    code, _, err = remote(*inputs, "-o", "remote", "--overlay", "none")
    assert run(["predict", *inputs, "-o", "local", "--overlay", "none"]) == code == 2
    local = capsys.readouterr().err
    errors = [
        sorted(line for line in text.splitlines() if line.startswith("error: ")) for text in (err, local)
    ]
    assert errors[0] == errors[1]
    assert len(errors[0]) == 3
    assert Path("remote/good.json").is_file()
    assert remote("series", "-o", "none")[0] == 2
    assert not Path("none").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plane", "sideways"], "unknown plane 'sideways'"),
        (["--model", "nothing"], "is not offered here; use one of medzsad-mini"),
        (["--device", "cpu"], "--device does not go with --server"),
        (["--mutual"], "--mutual does not go with --server"),
        (["--jobs", "2"], "--jobs does not go with --server"),
        (["--with-identity"], "--with-identity does not go with --server"),
        (["--roi", "missing.nii.gz"], "missing.nii.gz: cannot be read (No such file or directory)"),
        (["-o", "s3://bucket/out"], "--out URL does not go with --server"),
    ],
)
def test_an_option_that_does_not_go_is_refused(
    remote: Any, tmp_path: Path, arguments: list[str], said: str
) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    code, _, err = remote(scan, *(["-o", tmp_path / "out"] if "-o" not in arguments else []), *arguments)
    assert code == 2
    assert said in err
    assert not (tmp_path / "out").exists()


def test_from_python(client: Client, tmp_path: Path) -> None:
    assert client.models()[0]["name"] == "medzsad-mini"
    seen: list[tuple[str, int, int]] = []
    result = client.predict(
        write_scan(tmp_path / "case.nii.gz"),
        tmp_path / "out",
        watch=lambda *progress: seen.append(progress),
        overlay="none",
    )
    assert result.name == "case"
    assert result.score == result.report["score"]
    assert set(result.files) == {"anomaly", "mask", "json"}
    assert all(path.is_file() for path in result.files.values())
    assert {"uploading", "fetching"} <= {phase for phase, _, _ in seen}
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BadInput, match="holds no scans"):
        client.predict(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "case.json").write_text("{}")
    with pytest.raises(OutputNotWritable, match=r"case\.json was not written by medzsad"):
        client.predict(tmp_path / "case.nii.gz", tmp_path / "other", overlay="none")
    assert (tmp_path / "other" / "case.json").read_text() == "{}"


def test_a_wrong_token_or_address_is_said(server: ServeProcess, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="asks for a token"):
        Client(server.url)
    with pytest.raises(BadInput, match="asks for a token"):
        Client(server.url, token="x" * 32)
    with pytest.raises(BadInput, match="cannot be reached"):
        Client("http://127.0.0.1:9")
    for url in ("", "ftp://x", "127.0.0.1:80", "http://", "http://h:0", "http://h:x", "http://h/?q"):
        with pytest.raises(BadInput):
            Client(url)
    with pytest.raises(BadInput) as refused:
        Client("http://me:secret@127.0.0.1:1")
    assert "secret" not in str(refused.value)


def test_the_command_needs_neither_torch_nor_numpy(server: ServeProcess, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    code = (
        "import sys; from medzsad.cli.main import run\n"
        "code = run(sys.argv[1:])\n"
        "heavy = {'torch', 'numpy', 'pydicom', 'nibabel', 'monai', 'scipy', 'fastapi'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)"
    )
    token = server.log.parent / "token"
    command = ["predict", scan, "-o", tmp_path / "out", "--server", server.url, "--token-file", token]
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        "Research use only - not for diagnosis.",
    ), done.stderr


@pytest.mark.slow
def test_ten_clients_at_once_get_what_one_by_one_gets(server: ServeProcess, tmp_path: Path) -> None:
    token = server.log.parent / "token"
    scans = [write_scan(tmp_path / f"case{seed}.nii.gz", seed) for seed in range(10)]

    def predict(scan: Path, out: str) -> None:
        Client(server.url, token_file=token).predict(scan, tmp_path / out, report=True)

    for scan in scans:
        predict(scan, "one")
    threads = [threading.Thread(target=predict, args=(scan, "parallel")) for scan in scans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    one, parallel = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / folder).iterdir())}
        for folder in ("one", "parallel")
    )
    assert set(one) == set(parallel)
    assert len(one) == 50
    for name, content in one.items():
        if name.endswith(".json"):
            assert without_times(json.loads(content)) == without_times(json.loads(parallel[name]))
        elif not name.endswith(".html"):  # which tells the times
            assert content == parallel[name], name
    assert server.files() == []
