from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from medzsad.cli import datasets as command
from medzsad.cli.main import COMMANDS
from medzsad.datasets.catalog import entries


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(COMMANDS, "datasets", ("medzsad.cli.datasets", "Data sets."))
    monkeypatch.delenv("MEDZSAD_DATA", raising=False)


@pytest.fixture
def tree(tmp_path):
    for i, name in enumerate(("yes/Y1.png", "yes/Y2.png", "no/1 no.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((5, 4), i, np.uint8)).save(tmp_path / name)
    return tmp_path


def test_list_fits_80_columns(medzsad):
    code, out, _ = medzsad("datasets", "list")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines] == ["name", *entries()]
    assert max(map(len, lines)) <= 80
    for line, entry in zip(lines[1:], entries().values(), strict=True):
        assert line.endswith(entry.title)


def test_list_as_json(medzsad):
    listed = json.loads(medzsad("datasets", "list", "--json")[1])
    assert [entry["name"] for entry in listed] == list(entries())
    assert listed[1]["layouts"] == ["meta.json", "visa", "mvtec", "images-masks", "yes-no"]


def test_list_of_what_is_found(medzsad, tree, tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    tree.rename(data / "BrainMRI_small")
    code, out, _ = medzsad("datasets", "list", "--data", data)
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0
    assert lines["brainmri"].endswith("BrainMRI_small (yes-no, a part by its name)")
    assert lines["kvasir"].endswith(" no")
    assert out.splitlines()[-1].startswith("1 of the 17 sets")
    assert max(map(len, out.splitlines())) <= 100
    listed = {
        one["name"]: one for one in json.loads(medzsad("datasets", "list", "--data", data, "--json")[1])
    }
    assert listed["kvasir"]["found"] is None
    assert listed["brainmri"]["found"] == {
        "name": "BrainMRI_small",
        "layout": "yes-no",
        "classes": ["brain"],
        "is_part": True,
    }
    code, out, err = medzsad("datasets", "list", "--data", data / "nowhere")
    assert (code, out, len(err.splitlines())) == (2, "", 1)


@pytest.mark.parametrize("name", entries())
def test_info(medzsad, name):
    code, out, _ = medzsad("datasets", "info", name)
    entry = entries()[name]
    assert code == 0
    assert entry.source in out
    assert entry.licence in out
    for line in entry.tree.splitlines():
        assert line.strip() in out
    assert json.loads(medzsad("datasets", "info", name, "--json")[1])["name"] == name


def test_list_and_info_import_nothing_heavy():
    code = (
        "import sys\nfrom medzsad.cli.datasets import datasets\n"
        "for call in (['list'], ['info', 'ksdd']):\n"
        "    datasets(call, standalone_mode=False)\n"
        "sys.exit(bool({'torch', 'monai', 'numpy', 'nibabel', 'open_clip'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_check_of_a_whole_copy(medzsad, tree):
    code, out, err = medzsad("datasets", "check", "brainmri", "--root", tree)
    assert code == 0
    assert err == ""
    assert "layout yes-no, test split" in out
    assert "3 images, 1 normal, 2 anomalous, 0 masks; figures at image level" in out
    assert out.splitlines()[-1] == "nothing is wrong"


def test_check_of_a_damaged_copy(medzsad, tree):
    (tree / "no" / "1 no.png").write_bytes((tree / "yes" / "Y2.png").read_bytes())
    (tree / "yes" / "Y3.png").write_bytes(b"x")
    code, out, _ = medzsad("datasets", "check", "brainmri", "--root", tree)
    assert code == 2
    assert "error: unreadable files: 1\n  yes/Y3.png: " in out
    assert "error: identical files with different labels: 1\n  no/1 no.png: normal, and the same bytes" in out
    code, out, _ = medzsad("datasets", "check", "brainmri", "--root", tree, "--json")
    document = json.loads(out)
    assert code == 2
    assert not document["ok"]
    assert [problem["kind"] for problem in document["problems"]] == ["unreadable", "conflict"]


def test_long_lists_are_cut(medzsad, tree):
    for i in range(command.SHOWN + 3):
        (tree / "yes" / f"X{i}.png").write_bytes((tree / "yes" / "Y1.png").read_bytes())
    code, out, _ = medzsad("datasets", "check", "brainmri", "--root", tree)
    assert code == 0
    assert "told: exact duplicates: 13" in out
    assert "and 3 more" in out


def test_check_by_the_environment(medzsad, tree, monkeypatch):
    code, _, err = medzsad("datasets", "check", "brainmri")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "MEDZSAD_DATA" in err
    monkeypatch.setenv("MEDZSAD_DATA", str(tree))
    assert medzsad("datasets", "check", "brainmri")[0] == 0


def test_a_wrong_folder_is_shown_the_expected_one(medzsad, tree):
    code, out, err = medzsad("datasets", "check", "visa", "--root", tree / "yes")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[1].strip() == "DIR/"
    assert "    split_csv/1cls.csv" in lines[2]


def test_unknown_names(medzsad):
    for words in (("info", "brainmir"), ("check", "brainmir")):
        code, _, err = medzsad("datasets", *words)
        assert code == 2
        assert "did you mean brainmri?" in err
