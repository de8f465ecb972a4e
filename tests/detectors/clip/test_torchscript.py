"""TorchScript archives: their tensors are read, and nothing in them runs."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medzsad.detectors.clip.torchscript import is_torchscript
from medzsad.detectors.clip.weights import load_clip_state, read_tensors
from medzsad.errors import ModelNotReady
from medzsad.zoo.convert import recognise

TARGET = Path("written-by-the-archive.pt")


class Crafted(nn.Module):
    """A module whose archive, when loaded, writes a file of its own choice."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return (self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        torch.save(state[0], "written-by-the-archive.pt")
        self.weight = state[0]
        self.training = state[1]


class Shared(nn.Module):
    """Tensors in several forms: shared, strided, buffers of other types, nested, lists beside."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4).half()
        self.nested = nn.ModuleDict({"a": nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2))})
        self.again = self.nested["a"][0]
        self.register_buffer("strided", torch.arange(12).reshape(3, 4).T)
        self.register_buffer("flags", torch.tensor([True, False]))
        self.sizes = [1, 2, 3]

    def forward(self, x: Tensor) -> Tensor:
        return x


def saved(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))
    return path


def test_a_crafted_archive_writes_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(Crafted(), tmp_path / "ViT-L-14-336px.pt")
    assert is_torchscript(path)
    torch.jit.load(str(path))
    assert TARGET.is_file()  # so the archive is dangerous
    TARGET.unlink()
    for read in (read_tensors, recognise, lambda p: load_clip_state(p, model=None, text=True)):
        with pytest.raises(ModelNotReady, match="code of their own"):
            read(path)
        assert not TARGET.exists()


def test_no_path_of_the_package_loads_torchscript() -> None:
    import medzsad

    sources = Path(medzsad.__file__).parent.rglob("*.py")
    assert not [str(p) for p in sources if "torch.jit.load(" in p.read_text(encoding="utf-8")]


def test_tensors_are_those_of_the_state_dict(tmp_path) -> None:
    path = saved(Shared(), tmp_path / "x.pt")
    expected = dict(torch.jit.load(str(path)).state_dict())
    found, archive = read_tensors(path)
    assert archive
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def rewritten(
    path: Path, target: Path, change: dict[str, bytes], compression: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change.get(name.partition("/")[2], old.read(name)))
    return target


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"cos\nsystem\n(S'touch written-by-the-archive.pt'\ntR.", "it names os.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "it names builtins.eval"),
        (b"ctorch.jit\nload\n(S'x'\ntR.", "it names torch.jit.load"),
        (b"\x80\x02c__torch__.M\nM\n)\x81}q\x00X\x01\x00\x00\x00aq\x01h\x02sb.", "not a readable"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "not a readable"),  # a memo of 2 G entries
        (b"c__torch__.M\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.", "contain one another"),
        (b"", "not a readable"),
        (b"N.", "not a readable"),
    ],
)
def test_a_damaged_or_malicious_object_tree_is_refused(tmp_path, monkeypatch, pickled, message) -> None:
    monkeypatch.chdir(tmp_path)
    path = rewritten(saved(Shared(), tmp_path / "x.pt"), tmp_path / "y.pt", {"data.pkl": pickled})
    with pytest.raises(ModelNotReady, match=message) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    assert not TARGET.exists()


def test_compressed_and_short_storages_are_refused(tmp_path) -> None:
    path = saved(Shared(), tmp_path / "x.pt")
    with pytest.raises(ModelNotReady, match="compressed archive"):
        read_tensors(rewritten(path, tmp_path / "bomb.pt", {}, zipfile.ZIP_DEFLATED))
    with pytest.raises(ModelNotReady, match="too short"):
        read_tensors(rewritten(path, tmp_path / "short.pt", {"data/0": b"\0"}))
