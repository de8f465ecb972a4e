"""What results are called."""

from __future__ import annotations

from pathlib import Path

from medzsad.scans.names import unique_names


def test_unique_names():
    paths = [Path("/d/p1/t1.nii.gz"), Path("/d/p2/t1.nii.gz"), Path("/d/p2/other.nii")]
    assert unique_names(paths) == ["p1_t1", "p2_t1", "other"]
    assert unique_names([Path("/d/a/b/t.nii"), Path("/d/c/b/t.nii")]) == ["a_b_t", "c_b_t"]
    same = unique_names([Path("/d/p/t.nii"), Path("/d/p/t.nii.gz"), Path("/d/p/t.png")])
    assert len(set(same)) == 3


def test_names_that_only_look_apart(tmp_path):
    """What would be written to one file, though the paths, or what links lead to, have other names."""
    (tmp_path / "case.1").mkdir()
    assert len(set(unique_names([tmp_path / "case.1", tmp_path / "case.1.nii.gz"]))) == 2
    links = []
    for case in ("p1", "p2"):
        real = tmp_path / f"of-{case}.nii.gz"
        real.touch()
        (tmp_path / case).mkdir()
        links.append(tmp_path / case / "t1.nii.gz")
        links[-1].symlink_to(real)
    assert unique_names(links) == ["p1_t1", "p2_t1"]
    numbered = unique_names([Path("/t_2.nii"), Path("/t.nii"), Path("/t.png"), Path("/T.dcm")])
    assert len({name.casefold() for name in numbered}) == 4
    assert unique_names([Path("/d/1.2.840.1"), Path("/d/1.2.840.2")]) == ["1.2.840.1", "1.2.840.2"]
