"""Results from a server: their names lead nowhere else, and all are written or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from medzsad.client.saving import RemoteFile, save_results
from medzsad.errors import BadInput


@pytest.mark.parametrize(
    "name",
    [
        "../scan.json",
        "scan/../../x",
        "/etc/passwd",
        "other.json",
        "scan\\x",
        "scan_sc//x",
        "scan_a/b/c",
        "scan_a/..",
    ],
)
def test_a_result_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="which medzsad has not"):
        save_results([RemoteFile("x", name)], lambda *_: None, tmp_path / "out", "case")
    assert not (tmp_path / "out").exists()


def test_results_that_break_off_leave_nothing(tmp_path: Path) -> None:
    def fetch(name: str, path: Path) -> None:
        if name == "scan_mask.nii.gz":
            raise BadInput("broke off")
        path.write_bytes(b"x")

    files = [RemoteFile("anomaly", "scan_anomaly.nii.gz"), RemoteFile("mask", "scan_mask.nii.gz")]
    with pytest.raises(BadInput, match="broke off"):
        save_results(files, fetch, tmp_path / "new" / "out", "case")
    assert list(tmp_path.iterdir()) == []
