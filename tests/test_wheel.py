"""The wheel, installed in an empty environment outside the checkout, does what the README says first."""

from __future__ import annotations

import email
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
RELATIVE_LINK = re.compile(r"\]\((?!https?://|#)")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip builds it, which fetches hatchling."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("no network to fetch hatchling from")
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of a new environment with the wheel; what it depends on is that of the present one."""
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, with_pip=False)
    python = root / "bin" / "python"
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*command, wheel], check=True)
    (site_packages,) = root.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return root / "bin"


def run(programs: Path, folder: Path, *words: str | Path) -> str:
    """Output of a program of the new environment, in a folder where nothing of the checkout is found."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ["PATH"] = f"{programs}{os.pathsep}{environ['PATH']}"
    done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_metadata_and_readme_for_a_package_index(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
        names = set(archive.namelist())
    readme = str(metadata.get_payload())
    assert metadata["Author"] == "medzsad contributors"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert readme.startswith("# medzsad")
    assert not RELATIVE_LINK.search(readme)
    assert RELATIVE_LINK.search((ROOT / "README.md").read_text())
    for folder in ("configs", "examples"):
        for path in (ROOT / folder).glob("*.*"):
            if path.suffix in (".yaml", ".gz"):
                assert f"medzsad/{folder}/{path.name}" in names


def test_the_first_commands_of_the_readme(installed: Path, tmp_path: Path) -> None:
    where = "import medzsad; print(medzsad.__file__)"
    assert run(installed, tmp_path, "python", "-c", where).startswith(str(installed.parent))
    block = re.search(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    first, *commands = block[1].splitlines()
    assert first == "python -m pip install ."
    assert any(line.startswith("medzsad predict") for line in commands)
    for line in commands:
        run(installed, tmp_path, *shlex.split(line))
    assert (tmp_path / "out" / "head_phantom_anomaly.nii.gz").is_file()
    assert "name: headclip-visa" not in run(installed, tmp_path, "medzsad", "train", "--help")
    recipe = run(installed, tmp_path, "medzsad", "train", "--config", "smoke", "--dry-run")
    assert recipe.startswith("name: smoke\n")


def test_extras_are_installed_as_written(installed: Path) -> None:
    """``pip install "medzsad[NAME]"`` needs no index for medzsad itself, once it is installed."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "bids" in extras
    command = [sys.executable, "-m", "pip", "--python", installed / "python", "install", "--dry-run"]
    done = subprocess.run(
        [*command, "--no-index", "medzsad[bids]"], capture_output=True, text=True, check=False
    )
    if "pybids" in done.stderr:
        pytest.skip("what the extra needs is not there")
    assert done.returncode == 0, done.stderr
